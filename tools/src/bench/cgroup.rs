//! Programs in memory cgroups: the row about one of 128 MiB, and the worker that runs in them.
//!
//! Memory counts against the group of the process that first touches it. A program limited to 128 MiB must
//! still be able to write 2 GiB to the mount: the daemon's arena is not the program's memory. The worker is
//! this binary again, which enters the group by itself before it touches anything.

use super::pairs::median;
use super::report::{Bar, Outcome};
use super::{Context, work};
use crate::cli::{CgroupWorker, Doing};
use crate::scratch::Mounted;
use crate::{escape, interrupt};
use aimss_measure::cgroup::Group;
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT_BYTES: u64 = 128 << 20;
const BYTES: u64 = 2 << 30;
/// Of the machine, as the mount's budget is half of it.
const MEMORY_SHARE: u64 = 25;
const BLOCK_BYTES: usize = 1 << 20;

/// `cgroup-128m`.
pub fn run(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let group = match Group::new("aimss-bench-small", Some(LIMIT_BYTES)) {
        Ok(group) => group,
        Err(error) => return Ok(vec![Outcome::skipped(Bar::Completes, format!("{error:#}"))]),
    };
    let bytes = context.scaled_to_memory(BYTES, MEMORY_SHARE);
    let path = mount.point().join("file");
    let mut rates = Vec::new();
    for _ in 0..context.pairs {
        interrupt::check()?;
        super::memory::touch(bytes)?;
        let start = Instant::now();
        let done = Worker::start(&group, Doing::Both, &path, bytes)?.finish();
        if let Err(error) = done {
            let note = format!("the program in the cgroup failed: {error:#}");
            let failed = Outcome::value("", 0.0, Bar::Completes).note(note);
            return Ok(vec![Outcome { met: Some(false), ours: None, ..failed }]);
        }
        rates.push((bytes * 2) as f64 / super::rows::GB / start.elapsed().as_secs_f64());
        fs::remove_file(&path)?;
    }
    Ok(vec![Outcome::value("GB/s", median(rates), Bar::Completes).note("written and read, together")])
}

/// A program in a group, at work.
pub struct Worker(Child);

/// What a worker says at its end.
#[derive(Debug, Clone, Copy)]
pub struct Done {
    /// From its first call to its last.
    pub took: Duration,
    /// The longest call of read(2) or write(2).
    pub longest: Duration,
}

impl Worker {
    /// Has a worker do something to a file.
    pub fn start(group: &Group, doing: Doing, path: &Path, bytes: u64) -> Result<Self> {
        Self::start_as(group, doing, path, bytes, &[])
    }

    /// The same for one of several.
    pub fn start_as(group: &Group, doing: Doing, path: &Path, bytes: u64, reader: &[u64]) -> Result<Self> {
        let child = Command::new("/proc/self/exe")
            .arg("cgroup-worker")
            .arg(group.entrance())
            .arg(doing.word())
            .arg(path)
            .arg(bytes.to_string())
            .args(reader.iter().map(u64::to_string))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits for its end.
    pub fn finish(mut self) -> Result<Done> {
        let mut said = String::new();
        self.0.stdout.take().context("a worker without output")?.read_to_string(&mut said)?;
        let status = self.0.wait()?;
        ensure!(status.success(), "a program in a memory cgroup ended with {status}");
        let mut seconds = said.split_whitespace().map(str::parse::<f64>);
        let mut next = || -> Result<Duration> {
            Ok(Duration::from_secs_f64(seconds.next().context("a worker said nothing")??))
        };
        Ok(Done { took: next()?, longest: next()? })
    }

    /// Whether it is still at work.
    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The worker: enters the group, does what it is told, and says how long it and its longest call took.
pub fn worker(asked: &CgroupWorker) -> Result<()> {
    fs::write(&asked.procs, std::process::id().to_string())
        .with_context(|| format!("{} can't be written", escape::path(&asked.procs)))?;
    let mut block = work::buffer(BLOCK_BYTES);
    let start = Instant::now();
    let longest = match asked.doing {
        Doing::Both => {
            let written = fill(&mut File::create(&asked.file)?, asked.bytes, &block)?;
            written.max(scan(&asked.file, asked.bytes, &mut block)?)
        }
        Doing::Write | Doing::Append | Doing::Update => {
            let mut options = File::options();
            match asked.doing {
                Doing::Append => options.append(true),
                doing => options.write(true).truncate(true).read(doing == Doing::Update),
            };
            let mut file = options.create(true).open(&asked.file)?;
            let longest = fill(&mut file, asked.bytes, &block)?;
            file.sync_all()?;
            longest
        }
        Doing::Hold => fill(&mut File::create(&asked.file)?, asked.bytes, &block)?,
        Doing::Read => scan(&asked.file, asked.bytes, &mut block)?,
        Doing::Zipf => {
            let &[reader, opens] = &asked.reader[..] else {
                anyhow::bail!("zipf needs a reader and a count")
            };
            super::zipf::read(&asked.file, asked.bytes, reader, opens)?
        }
    };
    println!("{} {}", start.elapsed().as_secs_f64(), longest.as_secs_f64());
    Ok(())
}

/// Writes `bytes` in blocks; the longest call.
fn fill(file: &mut File, bytes: u64, block: &[u8]) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for _ in 0..bytes / block.len() as u64 {
        let start = Instant::now();
        file.write_all(block)?;
        longest = longest.max(start.elapsed());
    }
    Ok(longest)
}

/// Reads a file of `bytes` from front to back; the longest call.
fn scan(path: &Path, bytes: u64, block: &mut [u8]) -> Result<Duration> {
    let mut file = File::open(path)?;
    let (mut total, mut longest) = (0, Duration::ZERO);
    loop {
        let start = Instant::now();
        let got = file.read(block)? as u64;
        longest = longest.max(start.elapsed());
        if got == 0 {
            ensure!(total == bytes, "{} has {total} bytes instead of {bytes}", escape::path(path));
            return Ok(longest);
        }
        total += got;
    }
}
