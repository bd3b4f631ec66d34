//! Streams where something is in the way: storage that does not answer, descriptors that stay open while the stream
//! grows or loses its front, readers that share a descriptor, daemons that die. What streams do on a good day is
//! tested by the programs `stream_*`.

use aimss_mount_tests::{Mount, both_modes};
use anyhow::{Context as _, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

/// Far more than a request takes that waits for nobody, on a busy machine.
const SOON: Duration = Duration::from_secs(5);
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
        let mut lookups: Vec<(PathBuf, JoinHandle<std::io::Result<u64>>)> = Vec::new();
        for i in 1..=4 {
            let log = mount.behind(format!(".aimss/streams/{i:032x}"));
            fs::create_dir_all(&log)?;
            pipe(&log.join("settings"))?;
            let mut marker = format!("aimss-stream 1 {i:032x}\n");
            marker.push_str(&" ".repeat(512 - marker.len()));
            fs::write(mount.behind(format!("slow/{i}.stream")), marker)?;
            let name = mount.at(format!("slow/{i}.stream"));
            lookups.push((log, spawn(move || Ok(fs::metadata(name)?.len()))));
        }
        std::thread::sleep(A_WHILE);
        expect_others_are_served(mount)?;
        for (log, lookup) in lookups {
            assert!(!lookup.is_finished(), "it waits for its log");
            File::options().write(true).open(log.join("settings"))?.write_all(b"aimss-stream-settings 1\n")?;
            let size = soon("a lookup whose log opens", move || lookup.join())?.expect("no thread panics")?;
            assert_eq!(size, 0, "a new stream");
        }
        for i in 1..=4 {
            fs::remove_file(mount.at(format!("slow/{i}.stream")))?;
        }
        fs::remove_dir(mount.at("slow"))?;
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
