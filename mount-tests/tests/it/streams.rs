//! Streams where something is in the way: storage that does not answer, descriptors that stay open while the stream
//! grows or loses its front, readers that share a descriptor, daemons that die. What streams do on a good day is
//! tested by the programs `stream_*`.

use aimss_mount_tests::binary::aimss;
use aimss_mount_tests::held_open::HeldOpen;
use aimss_mount_tests::mount::well;
use aimss_mount_tests::{Mount, both_modes, bytes, wait_until};
use anyhow::{Context as _, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// Far more than a request takes that waits for nobody, on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Time for threads to get to where they wait.
const A_WHILE: Duration = Duration::from_millis(300);

/// Whoever opens it waits for the other end: a storage that does not answer.
fn pipe(path: &Path) -> Result<()> {
    Ok(mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?)
}

/// What `run` returns, if it does soon.
fn soon<T: Send + 'static>(what: &str, run: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (tell, told) = mpsc::channel();
    spawn(move || tell.send(run()));
    told.recv_timeout(SOON).with_context(|| format!("it hangs: {what}"))
}

fn appender(path: &Path) -> Result<File> {
    Ok(File::options().append(true).create(true).open(path)?)
}

/// The log's directory of the only stream.
fn log_of_the_stream(mount: &Mount) -> Result<PathBuf> {
    let mut logs = fs::read_dir(mount.behind(".aimss/streams"))?;
    Ok(logs.next().context("a log")??.path())
}

/// All of a file by sendfile(2), from its first byte on.
fn sent(file: &File, bytes_max: usize) -> Result<Vec<u8>> {
    let mut target = tempfile::tempfile()?;
    let mut at = 0;
    while rustix::fs::sendfile(&target, file, Some(&mut at), bytes_max)? > 0 {}
    target.rewind()?;
    let mut bytes = Vec::new();
    target.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Mounts again, once the last thread of a dead daemon has let go of the backing.
fn take_up(mount: &Mount) {
    wait_until("a mount after a death", SOON, || mount.mount_again().is_ok());
}

/// That what has nothing to do with a stream is done at once.
fn expect_others_are_served(mount: &Mount) -> Result<()> {
    let (file, directory) = (mount.at("other"), mount.point());
    soon("other files", move || -> Result<()> {
        fs::write(&file, "other")?;
        assert_eq!(fs::read(&file)?, b"other");
        fs::read_dir(directory)?.count();
        Ok(fs::remove_file(file)?)
    })?
}

both_modes! {
    /// More of them than the daemon has threads that read requests. In a directory of their own: who makes a name in
    /// it waits for those who look for one, in the kernel.
    fn logs_that_do_not_open_stop_nobody_else(mount: &Mount) {
        fs::create_dir(mount.behind("slow"))?;
        let mut lookups: Vec<(HeldOpen, JoinHandle<std::io::Result<u64>>)> = Vec::new();
        for i in 1..=4 {
            let log = mount.behind(format!(".aimss/streams/{i:032x}"));
            fs::create_dir_all(&log)?;
            fs::write(log.join("settings"), "aimss-stream-settings 1\n")?;
            let held = HeldOpen::hold(&log.join("settings"))?;
            let mut marker = format!("aimss-stream 1 {i:032x}\n");
            marker.push_str(&" ".repeat(512 - marker.len()));
            fs::write(mount.behind(format!("slow/{i}.stream")), marker)?;
            let name = mount.at(format!("slow/{i}.stream"));
            lookups.push((held, spawn(move || Ok(fs::metadata(name)?.len()))));
        }
        std::thread::sleep(A_WHILE);
        expect_others_are_served(mount)?;
        for (held, lookup) in lookups {
            assert!(!lookup.is_finished(), "it waits for its log");
            drop(held);
            let size = soon("a lookup whose log opens", move || lookup.join())?.expect("no thread panics")?;
            assert_eq!(size, 0, "a new stream");
        }
        for i in 1..=4 {
            fs::remove_file(mount.at(format!("slow/{i}.stream")))?;
        }
        fs::remove_dir(mount.at("slow"))?;
    }

    /// By sendfile(2) and by a mapping, which the kernel serves from its own pages.
    fn a_descriptor_that_is_open_while_the_stream_grows_gives_what_came(mount: &Mount) {
        let name = mount.at("x.stream");
        let mut writer = appender(&name)?;
        writer.write_all(b"first\n")?;
        let (reader, mut whole) = (File::open(&name)?, b"first\n".to_vec());
        for i in 0..300 {
            let line = format!("line {i} {}\n", "x".repeat(i));
            writer.write_all(line.as_bytes())?;
            whole.extend_from_slice(line.as_bytes());
            if i % 7 == 0 {
                assert_eq!(reader.metadata()?.len(), whole.len() as u64);
            } else {
                assert!(fs::metadata(&name)?.len() == whole.len() as u64);
            }
            assert!(sent(&reader, whole.len())? == whole, "by sendfile");
            let mapped = bytes::map(&reader)?;
            assert!(mapped[..] == whole, "by a mapping");
            let (other, expected) = (File::open(&name)?, &whole);
            assert!(sent(&other, whole.len())? == *expected, "by another descriptor");
        }
        drop((reader, writer));
        fs::remove_file(name)?;
    }

    /// `tail -f` has the descriptor, `tail -F` looks at the name, too.
    fn followers_go_on_when_the_front_is_trimmed(mount: &Mount) {
        let name = mount.at("x.stream");
        well(&aimss().args(["stream", "create", "--segment", "4KiB"]).arg(&name).output()?)?;
        let lines = |range: std::ops::Range<u32>| range.fold(String::new(), |all, i| all + &format!("line {i:06}\n"));
        appender(&name)?.write_all(lines(0..3000).as_bytes())?;
        let first = File::open(&name)?;
        let mut tails = Vec::new();
        for (i, how) in ["-f", "-F"].into_iter().enumerate() {
            let output = mount.beside(&format!("tail{i}"));
            let mut tail = Command::new("tail");
            tail.args(["-n", "+1", "-s", "0.1", how]).arg(&name);
            tails.push((output.clone(), tail.stdout(File::create(&output)?).spawn()?));
        }
        let all = |end| move |(output, _): &(PathBuf, Child)| fs::read_to_string(output).is_ok_and(|got| got == lines(0..end));
        wait_until("what is there", SOON, || tails.iter().all(all(3000)));
        wait_until("the first segments are sealed and go", SOON, || {
            let trim = aimss().args(["stream", "trim"]).arg(&name).args(["--before", "2000"]).output();
            trim.is_ok_and(|trim| trim.status.success()) && fs::metadata(&name).is_ok_and(|now| now.len() < 20_000)
        });
        assert_eq!(first.metadata()?.len(), 36_000, "an open descriptor's bytes stay where they are");
        let retained = fs::read(&name)?;
        assert!(lines(0..3000).as_bytes().ends_with(&retained) && retained.starts_with(b"line "));
        assert_eq!(first.read_at(&mut [0; 12], 35_988)?, 12);
        assert_eq!(first.read_at(&mut [0; 12], 0).expect_err("it is gone").raw_os_error(), Some(61));
        // Longer than `tail -F` takes to look at the name again: five times nothing new.
        for end in [3100, 3200, 3300] {
            appender(&name)?.write_all(lines(end - 100..end).as_bytes())?;
            std::thread::sleep(Duration::from_secs(1));
        }
        wait_until("what came after the trim, once", SOON, || tails.iter().all(all(3300)));
        for (_, mut tail) in tails {
            tail.kill()?;
            tail.wait()?;
        }
        drop(first);
        fs::remove_file(name)?;
    }

    /// Within the time that its log stays for the sake of the name on the backing.
    fn the_log_of_a_removed_stream_goes_at_the_mount_after_a_death(mount: &Mount) {
        appender(&mount.at("x.stream"))?.write_all(b"one\n")?;
        mount.drain()?;
        fs::remove_file(mount.at("x.stream"))?;
        mount.kill_both()?;
        log_of_the_stream(mount).context("it is still there")?;
        well(&mount.aimss(&["umount", "--lazy"]))?;
        take_up(mount);
        wait_until("the log's end", SOON, || log_of_the_stream(mount).is_err());
    }

    /// Its settings are spoilt while nobody serves it. The mount is there all the same, and what memory alone has of the
    /// stream is not given up before it is saved.
    fn a_stream_that_does_not_open_after_a_death_is_kept_and_can_be_exported(mount: &Mount) {
        let name = mount.at("x.stream");
        appender(&name)?.write_all(b"one\n")?;
        mount.drain()?;
        appender(&name)?.write_all(b"two\n")?;
        mount.kill_both()?;
        let log = log_of_the_stream(mount)?;
        let id = log.file_name().and_then(|id| id.to_str()).context("an id")?;
        let settings = fs::read(log.join("settings"))?;
        fs::write(log.join("settings"), "nothing of the kind")?;
        well(&mount.aimss(&["umount", "--lazy"]))?;
        take_up(mount);
        expect_others_are_served(mount)?;
        assert!(appender(&name).is_err(), "what would be appended to is no log");
        for command in ["drain", "umount"] {
            let output = mount.aimss(&[command]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && said.contains(id), "{command}: {said}");
        }
        assert!(mount.status()?["limits"].to_string().contains(id), "status names it");
        let out = mount.beside("export");
        well(&aimss().args(["umount", "--export"]).arg(&out).arg(mount.point()).output()?)?;
        // Everything is put right by hand.
        for saved in fs::read_dir(out.join(".aimss/streams").join(id))? {
            let saved = saved?;
            fs::copy(saved.path(), log.join(saved.file_name()))?;
        }
        fs::write(log.join("settings"), settings)?;
        mount.mount_again()?;
        assert_eq!(fs::read(&name)?, b"one\ntwo\n");
        fs::remove_file(name)?;
    }

    /// A loss of power takes back what had not reached the backing: here, the removal.
    fn a_stream_whose_name_a_crash_brought_back_has_its_records(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        appender(&mount.at("dir/x.stream"))?.write_all(b"one\n")?;
        mount.drain()?;
        let marker = fs::read(mount.behind("dir/x.stream"))?;
        fs::rename(mount.at("dir/x.stream"), mount.at("y.stream"))?;
        fs::remove_file(mount.at("y.stream"))?;
        mount.drain()?;
        mount.kill_both()?;
        well(&mount.aimss(&["umount", "--lazy"]))?;
        fs::write(mount.behind("dir/x.stream"), marker)?;
        take_up(mount);
        assert_eq!(fs::read(mount.at("dir/x.stream"))?, b"one\n");
        fs::remove_file(mount.at("dir/x.stream"))?;
    }

    /// Each is several requests; the kernel lets one write(2) to a node be done at a time.
    fn long_writes_of_served_writers_stay_whole(mount: &Mount) {
        let name = mount.at("x.stream");
        let threads: Vec<_> = [b'a', b'b', b'c']
            .map(|byte| {
                let mut file = File::options().read(true).append(true).create(true).open(&name)?;
                let record = [vec![byte; (3 << 20) - 1], vec![b'\n']].concat();
                Ok(spawn(move || (0..5).try_for_each(|_| file.write_all(&record))))
            })
            .into_iter()
            .collect::<Result<_>>()?;
        for thread in threads {
            thread.join().expect("no thread panics")?;
        }
        let whole = fs::read(&name)?;
        let records: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(records.len(), 15);
        assert!(records.iter().all(|record| record[..record.len() - 1].iter().all(|byte| *byte == record[0])));
        fs::remove_file(name)?;
    }

    fn groups_that_are_not_written_stop_nobody_else(mount: &Mount) {
        appender(&mount.at("x.stream"))?.write_all(b"one\n")?;
        let log = log_of_the_stream(mount)?;
        let opens: Vec<_> = (0..4)
            .map(|i| {
                pipe(&log.join(format!("g{i}.group.new")))?;
                let name = mount.at(format!("x.stream@g{i}"));
                Ok(spawn(move || File::open(name)))
            })
            .collect::<Result<_>>()?;
        std::thread::sleep(A_WHILE);
        expect_others_are_served(mount)?;
        let stream = mount.at("x.stream");
        assert_eq!(soon("the stream itself", move || fs::read(stream))??, b"one\n");
        assert!(!opens.iter().any(JoinHandle::is_finished), "they wait for their files");
        let pipes: Vec<PathBuf> = (0..4).map(|i| log.join(format!("g{i}.group.new"))).collect();
        // Both ends, so that this open waits for nobody.
        let open = |pipe| File::options().read(true).write(true).open(pipe);
        let ends = pipes.iter().map(open).collect::<std::io::Result<Vec<File>>>()?;
        for open in opens {
            let opened = soon("an open of a group", move || open.join())?.expect("no thread panics");
            assert!(opened.is_err(), "a pipe can't be made durable");
        }
        drop(ends);
        for (i, pipe) in pipes.iter().enumerate() {
            fs::remove_file(pipe)?;
            let mut records = [0; 100];
            let read = File::open(mount.at(format!("x.stream@g{i}")))?.read(&mut records)?;
            assert_eq!(&records[..read], b"one\n");
        }
        fs::remove_file(mount.at("x.stream"))?;
    }
}
