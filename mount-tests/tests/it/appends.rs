//! Appends by many threads with descriptors of their own: nothing lost, nothing interleaved.

use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File};
use std::io::Write;

const THREADS: usize = 8;
const RECORDS: usize = 2000;
/// A length that is no divisor of a page.
const RECORD_BYTES: usize = 200;

fn record(thread: usize, number: usize) -> String {
    let mut record = format!("{thread} {number} ");
    while record.len() < RECORD_BYTES - 1 {
        record.push(char::from(b'a' + (thread % 26) as u8));
    }
    record.push('\n');
    record
}

both_modes! {
    fn eight_threads_append_whole_records_in_their_order(mount: &Mount) {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    scope.spawn(move || -> std::io::Result<()> {
                        let mut file = File::options().append(true).create(true).open(mount.at("log"))?;
                        (0..RECORDS).try_for_each(|number| file.write_all(record(thread, number).as_bytes()))
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
        })?;
        mount.drain()?;
        let kept = fs::read_to_string(mount.behind("log"))?;
        assert_eq!(kept.len(), THREADS * RECORDS * RECORD_BYTES);
        let mut next = [0; THREADS];
        for line in kept.split_inclusive('\n') {
            let thread: usize = line.split(' ').next().unwrap_or("").parse()?;
            assert_eq!(line, record(thread, next[thread]));
            next[thread] += 1;
        }
        assert_eq!(next, [RECORDS; THREADS]);
    }
}
