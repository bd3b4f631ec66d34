//! What must be another process: readers that wait, and holders of many files. A child says `ready` on stdout
//! when the next thing that it does is to wait.

use crate::cli::Worker;
use crate::ours::{open_append, read_waiting};
use crate::processor::now_ns;
use crate::records::are_whole;
use aimss_mount_tests::child;
use anyhow::{Context as _, Result, ensure};
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{Client, Commands};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Length of a record that carries a time: the digits of a u64, padded.
pub const STAMPED_BYTES: usize = 100;
const DIGITS: usize = 20;
const READ_BYTES: usize = 1 << 20;

/// A child, killed when dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Running {
    /// Starts a copy of this program with `arguments` and waits until it is ready.
    pub fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = child::spawn(&mut command)?;
        let said = BufReader::new(child.stdout.take().expect("it was asked for"));
        let mut running = Self { child, said };
        let mut line = String::new();
        running.said.read_line(&mut line)?;
        ensure!(line == "ready\n", "a reader ended before it was ready");
        Ok(running)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What it says until it ends by itself: numbers, a line each.
    pub fn numbers(mut self) -> Result<Vec<u64>> {
        let lines = (&mut self.said).lines().map(|line| Ok(line?.parse()?)).collect::<Result<Vec<u64>>>()?;
        ensure!(self.child.wait()?.success(), "a reader failed");
        Ok(lines)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A record that says when it was written.
pub fn stamped() -> Vec<u8> {
    let mut record = format!("{:0DIGITS$}", now_ns()).into_bytes();
    record.resize(STAMPED_BYTES - 1, b'.');
    record.push(b'\n');
    record
}

/// How many nanoseconds ago `record` was written.
fn age(record: &[u8], now: u64) -> Result<u64> {
    let digits = std::str::from_utf8(record.get(..DIGITS).context("a record is too short")?)?;
    Ok(now.saturating_sub(digits.parse()?))
}

/// A child's life.
pub fn run(task: &Worker) -> Result<()> {
    match task {
        Worker::Drink { group, count } => drink(group, count),
        Worker::Ages { group, count } => say(&ages(group, *count)?),
        Worker::RedisAges { url, key, count } => say(&redis_ages(url, key, *count)?),
        Worker::Hold { dir, streams, readers } => hold(dir, *streams, *readers),
    }
}

fn ready() -> Result<()> {
    println!("ready");
    Ok(std::io::stdout().flush()?)
}

fn say(numbers: &[u64]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    numbers.iter().try_for_each(|number| writeln!(out, "{number}"))?;
    Ok(())
}

fn drink(group: &Path, count: &Path) -> Result<()> {
    let mut file = File::open(group)?;
    let kept = File::create(count)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    ready()?;
    loop {
        total += read_waiting(&mut file, &mut buffer)? as u64;
        kept.write_all_at(&total.to_le_bytes(), 0)?;
    }
}

fn ages(group: &Path, count: usize) -> Result<Vec<u64>> {
    let mut file = File::open(group)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut ages = Vec::with_capacity(count);
    ready()?;
    while ages.len() < count {
        let got = read_waiting(&mut file, &mut buffer)?;
        let now = now_ns();
        ensure!(are_whole(&buffer[..got], STAMPED_BYTES), "{got} bytes are no whole records");
        for record in buffer[..got].chunks_exact(STAMPED_BYTES) {
            ages.push(age(record, now)?);
        }
    }
    Ok(ages)
}

fn redis_ages(url: &str, key: &str, count: usize) -> Result<Vec<u64>> {
    let mut connection = Client::open(url)?.get_connection()?;
    let options = StreamReadOptions::default().block(0);
    let mut ages = Vec::with_capacity(count);
    let mut last = "0".to_owned();
    ready()?;
    while ages.len() < count {
        let reply: Option<StreamReadReply> = connection.xread_options(&[key], &[&last], &options)?;
        let now = now_ns();
        for entry in reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids) {
            let record: Vec<u8> = entry.get("d").context("an entry has no field d")?;
            ages.push(age(&record, now)?);
            last = entry.id;
        }
    }
    Ok(ages)
}

/// The `group`s of a holder are made from the stream's name as [`Ours::group`](crate::ours::Ours::group)
/// does.
fn hold(dir: &Path, streams: usize, readers: usize) -> Result<()> {
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most })?;
    let name = |number: usize| dir.join(format!("idle-{number:04}.stream"));
    let held = (0..streams).map(|number| open_append(&name(number))).collect::<Result<Vec<_>>>()?;
    for number in 0..readers {
        let group = format!("{}@idle", name(number).display());
        // On a stand-in there is no such file: it has no groups, and nothing waits.
        if let Ok(mut file) = File::open(&group) {
            std::thread::spawn(move || read_waiting(&mut file, &mut [0; 4096]));
        }
    }
    ready()?;
    // Until it is killed.
    loop {
        std::thread::park();
        std::hint::black_box(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_says_how_old_it_is() {
        let record = stamped();
        assert!(are_whole(&record, STAMPED_BYTES));
        assert!(age(&record, now_ns() + 1000).expect("it has digits") >= 1000);
    }
}
