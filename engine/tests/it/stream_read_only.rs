//! A log that is opened for reading only: it is what the log is, and nothing in its directory changes.

use aimss_engine::stream::log::{Copied, Listing};
use aimss_engine::stream::{Error, Framing, Log, LogConfig, Micros, Offset, Retention};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn config(framing: Framing) -> LogConfig {
    LogConfig { framing, segment_bytes: 100, block_bytes: 40, ..LogConfig::default() }
}

fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

/// Names, sizes and times of all files in `directory`.
fn snapshot(directory: &Path) -> Vec<(String, u64, i64, i64)> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("readable")
        .map(|entry| {
            let entry = entry.expect("readable");
            let metadata = entry.metadata().expect("there");
            let name = entry.file_name().to_string_lossy().into_owned();
            (name, metadata.size(), metadata.mtime(), metadata.mtime_nsec())
        })
        .collect();
    files.sort();
    files
}

/// Offsets and bytes of all records.
fn records(log: &Log) -> Vec<(u64, Vec<u8>)> {
    let (mut all, mut from) = (Vec::new(), log.first().0);
    let mut buffer = vec![0; 1 << 16];
    while from < log.end().0 {
        let batch = log.read_with(from, &mut buffer, |record| {
            all.push((record.offset.0, record.bytes.to_vec()));
        });
        from = batch.expect("readable").next;
    }
    all
}

fn filled(directory: &Path, framing: Framing, count: u64) -> Log {
    let mut log = Log::open(directory, config(framing)).expect("an empty directory");
    for i in 0..count {
        log.append(format!("record {i:03}\n").as_bytes(), Micros(i)).expect("room");
        log.seal_full().expect("room");
    }
    log
}

#[test]
fn it_has_the_records_and_leaves_every_file_as_it_was() {
    for framing in [Framing::Line, Framing::Write] {
        let scratch = scratch();
        let log = filled(scratch.path(), framing, 57);
        let mut active = OpenOptions::new().append(true).open(log.active_path()).expect("ours");
        active.write_all(b"torn").expect("room");
        drop(log);
        // What Log::open would remove, cut, or put out of the way.
        fs::write(scratch.path().join("left.sealed.new"), "half a segment").expect("room");
        if framing == Framing::Write {
            let marks = scratch.path().join("writes.marks");
            OpenOptions::new().append(true).open(marks).and_then(|mut f| f.write_all(b"x")).expect("room");
        }
        let before = snapshot(scratch.path());
        let log = Log::open_read_only(scratch.path(), config(framing)).expect("a log");
        let read = records(&log);
        assert_eq!(log.statistics().expect("numbers").pending_bytes, 4);
        log.verify().expect("readable");
        drop(log);
        assert_eq!(snapshot(scratch.path()), before, "{framing}");
        let log = Log::open(scratch.path(), config(framing)).expect("the same log");
        assert_eq!(records(&log), read);
        assert_eq!(read.len(), 57);
        assert_ne!(snapshot(scratch.path()), before, "there was something to put right");
    }
}

#[test]
fn a_seal_that_was_interrupted_is_taken_into_account() {
    for framing in [Framing::Line, Framing::Write] {
        let scratch = scratch();
        let mut log = Log::open(scratch.path(), config(framing)).expect("an empty directory");
        for i in 0..25 {
            log.append(format!("record {i:03}\n").as_bytes(), Micros(i)).expect("room");
        }
        // The segment is there, and the active file's name says that nothing is sealed.
        log.full_piece().expect("more than a segment").write().expect("room");
        let expected = records(&log);
        drop(log);
        let before = snapshot(scratch.path());
        let log = Log::open_read_only(scratch.path(), config(framing)).expect("a log");
        assert_eq!(log.sealed_segments(), 1);
        assert_eq!(records(&log), expected);
        assert_eq!(log.verify().expect("readable"), []);
        assert_eq!(snapshot(scratch.path()), before);
    }
}

#[test]
fn times_are_those_of_any_other_opening() {
    let scratch = scratch();
    let late = Micros(Micros::now().0 + 3_600_000_000);
    let mut log = Log::open(scratch.path(), config(Framing::Line)).expect("an empty directory");
    log.append(b"sealed\n", late).expect("room");
    log.seal(late).expect("room");
    // The clock was set back: the file's time is before that of the last sealed record.
    log.append(b"active\n", late).expect("room");
    drop(log);
    let log = Log::open_read_only(scratch.path(), config(Framing::Line)).expect("a log");
    let numbers = log.statistics().expect("numbers");
    assert_eq!((numbers.first_time, numbers.last_time), (Some(late), Some(late)));
}

#[test]
fn a_missing_active_file_is_an_empty_one() {
    let scratch = scratch();
    let mut log = filled(scratch.path(), Framing::Line, 20);
    log.seal(Micros(30)).expect("room");
    fs::remove_file(log.active_path()).expect("ours");
    drop(log);
    let before = snapshot(scratch.path());
    let log = Log::open_read_only(scratch.path(), config(Framing::Line)).expect("a log");
    assert_eq!(records(&log).len(), 20);
    assert_eq!(log.statistics().expect("numbers").pending_bytes, 0);
    assert_eq!(log.verify().expect("readable"), []);
    assert_eq!(snapshot(scratch.path()), before);
}

#[test]
fn a_missing_directory_is_an_error_and_is_not_made() {
    let scratch = scratch();
    let missing = scratch.path().join("log");
    assert!(matches!(Log::open_read_only(&missing, LogConfig::default()), Err(Error::Io(_))));
    assert!(!missing.exists());
}

#[test]
fn what_would_change_it_is_refused() {
    let scratch = scratch();
    drop(filled(scratch.path(), Framing::Line, 57));
    let written = {
        let other = self::scratch();
        let mut log = Log::open(other.path(), config(Framing::Line)).expect("an empty directory");
        for _ in 0..20 {
            log.append(b"record 000\n", Micros(1)).expect("room");
        }
        log.full_piece().expect("a segment").write().expect("room")
    };
    let before = snapshot(scratch.path());
    let mut log = Log::open_read_only(scratch.path(), config(Framing::Line)).expect("a log");
    assert!(log.full_piece().is_none());
    assert!(matches!(log.append(b"x\n", Micros(99)), Err(Error::ReadOnly)));
    assert!(matches!(log.index_new_bytes(Micros(99)), Err(Error::ReadOnly)));
    assert!(matches!(log.set_tail_aside(), Err(Error::ReadOnly)));
    assert!(matches!(log.seal(Micros(99)), Err(Error::ReadOnly)));
    assert!(matches!(log.seal_full(), Err(Error::ReadOnly)));
    assert!(matches!(log.install(&written), Err(Error::ReadOnly)));
    assert!(matches!(log.trim_before(Offset(20)), Err(Error::ReadOnly)));
    assert!(matches!(log.trim(&Retention::default(), Micros(99), None), Err(Error::ReadOnly)));
    assert!(matches!(log.news(), Err(Error::ReadOnly)));
    assert!(matches!(
        Copied::open(&log, &Listing::of(scratch.path()).expect("listed")),
        Err(Error::ReadOnly)
    ));
    assert_eq!(snapshot(scratch.path()), before);
}

/// A daemon's side: the active file is elsewhere, its copy follows, segments are sealed, the front is
/// trimmed. Whatever moment it is opened in, the log is one run of the records that were appended.
#[test]
fn it_is_a_log_while_another_process_writes_it() {
    for framing in [Framing::Line, Framing::Write] {
        let (scratch, apart) = (scratch(), scratch());
        let listing = Listing::of(scratch.path()).expect("listed");
        let mut log = Log::open_apart(&listing, apart.path(), config(framing)).expect("empty directories");
        let mut copied = Copied::open(&log, &listing).expect("room");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..3000_u64 {
                    log.append(format!("record {i:04}\n").as_bytes(), Micros(i)).expect("room");
                    if i % 7 == 0 {
                        log.seal_full().expect("room");
                    }
                    if i % 5 == 0 {
                        let news = log.news().expect("readable");
                        copied.bring_up_to_date(&news).expect("room");
                        // About as calm as a daemon is: a look has to fit in between.
                        std::thread::sleep(std::time::Duration::from_micros(if i % 50 == 0 {
                            30_000
                        } else {
                            0
                        }));
                    }
                    if i % 100 == 0 {
                        log.trim_before(Offset(i.saturating_sub(500))).expect("ours");
                    }
                }
                done.store(true, Ordering::Relaxed);
            });
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                match Log::open_read_only(scratch.path(), config(framing)) {
                    Ok(log) => check_run(&log),
                    Err(Error::Io(e)) => assert_eq!(e.kind(), std::io::ErrorKind::ResourceBusy, "{e}"),
                    Err(e) => panic!("{e}"),
                }
                looks += 1;
            }
            assert!(looks > 1);
        });
    }
}

/// Lost records apart, which a later seal or trim may have taken from under us.
fn check_run(log: &Log) {
    for (offset, bytes) in records(log) {
        assert_eq!(bytes, format!("record {offset:04}\n").into_bytes());
    }
}
