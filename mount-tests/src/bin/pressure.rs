//! Many processes that write, append, map, read, rename and remove files, together more than memory holds.
//!
//! Each process has a directory of its own and a seed. It makes files of 4 KiB to 16 MiB whose bytes follow from
//! the seed and a number, appends to them, renames them, reads them back (some through a mapping) and removes
//! the oldest once it has 8. Whatever it reads is compared; at the end what is left is compared once more.
//!
//! The parent asks for the mount's attributes twice a second. An answer that takes longer than 30 s is a
//! failure, as is a process that failed or was killed. A process needs less than 1 MiB of its own, so that the
//! memory that is short is the mount's.

use aimss_measure::cgroup::Group;
use aimss_mount_tests::bytes::{self, Pattern};
use aimss_mount_tests::child;
use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, exit};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Bytes that a process writes and compares at a time.
const CHUNK_BYTES: usize = 64 << 10;
const SMALLEST_BYTES: u64 = 4 << 10;
/// Of powers of two that a size is drawn from.
const SIZES: u64 = 12;
const KEPT: usize = 8;
const ANSWER_MAX: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long processes may take to end after their time.
const END_MAX: Duration = Duration::from_secs(600);

/// Puts a mount under pressure by many processes and compares what they read.
#[derive(Debug, Parser)]
struct Cli {
    /// A directory of the mount; what is made in it is removed at the end
    dir: PathBuf,
    /// How many processes
    #[arg(long, default_value_t = 100)]
    processes: u32,
    /// How long, in seconds
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Runs the processes, and the daemon too, in one memory cgroup of so many MiB (needs root)
    #[arg(long, requires = "daemon", value_name = "MIB")]
    limit: Option<u64>,
    /// The mount's daemon, by its process id
    #[arg(long, value_name = "PID")]
    daemon: Option<u32>,
    /// The seed; the time if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// A process: its directory is DIR, its seed SEED
    #[arg(long, hide = true)]
    process: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let seed = match cli.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    if cli.process { process(&cli.dir, seed, Duration::from_secs(cli.seconds)) } else { press(&cli, seed) }
}

fn press(cli: &Cli, seed: u64) -> Result<()> {
    let home = cli.dir.join(format!("pressure-{}", std::process::id()));
    fs::create_dir(&home).with_context(|| format!("{} can't be made", home.display()))?;
    println!("seed {seed}, {} processes, {} s", cli.processes, cli.seconds);
    let group = cli.limit.map(|limit| Group::new("aimss-test-pressure", Some(limit << 20))).transpose()?;
    if let (Some(group), Some(daemon)) = (&group, cli.daemon) {
        group.take(daemon)?;
    }
    let pressed = run(cli, seed, &home, group.as_ref());
    let killed = group.as_ref().and_then(Group::killed);
    if let (Some(group), Some(daemon)) = (&group, cli.daemon) {
        group.send_out(daemon)?;
    }
    let (files, slowest) = pressed?;
    ensure!(killed.unwrap_or(0) == 0, "{killed:?} processes of the group were killed for lack of memory");
    fs::remove_dir_all(&home)?;
    println!(
        "ok: {} processes, {} s, {files} files; slowest answer {} ms",
        cli.processes,
        cli.seconds,
        slowest.as_millis()
    );
    Ok(())
}

/// Runs the processes to their end; how many files they made, and how long the slowest answer took.
fn run(cli: &Cli, seed: u64, home: &Path, group: Option<&Group>) -> Result<(u64, Duration)> {
    let start = Instant::now();
    let mut children = Vec::new();
    for place in 0..cli.processes {
        let directory = home.join(place.to_string());
        fs::create_dir(&directory)?;
        children.push((place, start_process(&directory, seed + u64::from(place), cli.seconds)?));
        if let (Some(group), Some((_, child))) = (group, children.last()) {
            group.take(child.id())?;
        }
    }
    let (mut files, mut slowest, mut failed) = (0, Duration::ZERO, Vec::new());
    while !children.is_empty() {
        slowest = slowest.max(answer(home)?);
        for (place, child) in &mut children {
            if let Some(status) = child.try_wait()? {
                let mut said = String::new();
                child.stdout.take().context("a process without output")?.read_to_string(&mut said)?;
                match said.trim().parse::<u64>() {
                    Ok(made) if status.success() => files += made,
                    _ => failed.push(format!("{place} ({status})")),
                }
            }
        }
        children.retain(|(_, child)| child.stdout.is_some());
        if start.elapsed() > Duration::from_secs(cli.seconds) + END_MAX {
            bail!("{} processes did not end within {} s of their time", children.len(), END_MAX.as_secs());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    ensure!(failed.is_empty(), "these processes failed or were killed: {}", failed.join(", "));
    Ok((files, slowest))
}

fn start_process(directory: &Path, seed: u64, seconds: u64) -> Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(directory).arg("--process");
    command.args(["--seed", &seed.to_string(), "--seconds", &seconds.to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    Ok(child::spawn(&mut command)?)
}

/// Asks for the mount's attributes by a thread that may be left behind; how long that took.
fn answer(home: &Path) -> Result<Duration> {
    let (told, heard) = channel();
    let (asked, start) = (home.to_path_buf(), Instant::now());
    std::thread::spawn(move || {
        let answered = rustix::fs::statvfs(&asked).map_err(anyhow::Error::from);
        let _ = told.send(answered.and_then(|_| Ok(fs::metadata(&asked)?)));
    });
    match heard.recv_timeout(ANSWER_MAX) {
        Ok(answered) => answered.map(|_| start.elapsed()).context("the mount answers with an error"),
        Err(RecvTimeoutError::Timeout) => {
            // The thread hangs in the kernel, and so would a return.
            eprintln!("the mount did not answer for {} s", ANSWER_MAX.as_secs());
            exit(1);
        }
        Err(error) => Err(error.into()),
    }
}

/// A file that a process made.
struct Made {
    path: PathBuf,
    seed: u64,
    bytes: u64,
}

fn process(directory: &Path, seed: u64, time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    let mut draw = Pattern::new(seed);
    let (mut files, mut number) = (VecDeque::new(), 0);
    while Instant::now() < end {
        number += 1;
        let size = SMALLEST_BYTES << (draw.next_number() % SIZES);
        let made = Made {
            path: directory.join(format!("file-{number}")),
            seed: seed.wrapping_mul(1_000_003).wrapping_add(number),
            bytes: size + draw.next_number() % size,
        };
        files.push_back(make(made, &mut draw)?);
        let any = draw.next_number() as usize % files.len();
        let mapped = one_in(&mut draw, 3);
        if let Some(made) = files.get(any) {
            compare(made, mapped)?;
        }
        if files.len() > KEPT
            && let Some(oldest) = files.pop_front()
        {
            fs::remove_file(&oldest.path).with_context(|| at(&oldest))?;
        }
    }
    files.iter().try_for_each(|made| compare(made, false))?;
    println!("{number}");
    Ok(())
}

fn one_in(draw: &mut Pattern, count: u64) -> bool {
    (draw.next_number() >> 32).is_multiple_of(count)
}

/// Writes a file, some in two opens, some durably, and gives some another name.
fn make(mut made: Made, draw: &mut Pattern) -> Result<Made> {
    let words = made.bytes.div_ceil(8);
    let cut = if one_in(draw, 3) { draw.next_number() % words * 8 } else { made.bytes };
    let mut content = Pattern::new(made.seed);
    let mut file = File::create(&made.path).with_context(|| at(&made))?;
    write(&mut file, cut.min(made.bytes), &mut content).with_context(|| at(&made))?;
    if one_in(draw, 20) {
        file.sync_all().with_context(|| at(&made))?;
    }
    drop(file);
    if cut < made.bytes {
        let mut file = File::options().append(true).open(&made.path).with_context(|| at(&made))?;
        write(&mut file, made.bytes - cut, &mut content).with_context(|| at(&made))?;
    }
    if one_in(draw, 3) {
        let renamed = made.path.with_extension("renamed");
        fs::rename(&made.path, &renamed).with_context(|| at(&made))?;
        made.path = renamed;
    }
    Ok(made)
}

fn write(file: &mut File, bytes: u64, content: &mut Pattern) -> std::io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK_BYTES as u64) as usize;
        content.fill(&mut chunk[..now]);
        file.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(())
}

/// Fails unless the file holds what was written.
fn compare(made: &Made, mapped: bool) -> Result<()> {
    let mut file = File::open(&made.path).with_context(|| at(made))?;
    let length = file.metadata()?.len();
    ensure!(length == made.bytes, "{} has {length} bytes", at(made));
    let mut content = Pattern::new(made.seed);
    let mut expected = vec![0; CHUNK_BYTES];
    let mut same = |got: &[u8], from: usize| {
        content.fill(&mut expected[..got.len()]);
        let differs = got.iter().zip(&expected).position(|(got, expected)| got != expected);
        match differs {
            Some(i) => bail!("{} differs at byte {}", at(made), from + i),
            None => Ok(()),
        }
    };
    if mapped {
        let map = bytes::map(&file)?;
        return map.chunks(CHUNK_BYTES).enumerate().try_for_each(|(i, got)| same(got, i * CHUNK_BYTES));
    }
    let (mut chunk, mut from) = (vec![0; CHUNK_BYTES], 0);
    while from < length as usize {
        let now = CHUNK_BYTES.min(length as usize - from);
        file.read_exact(&mut chunk[..now]).with_context(|| at(made))?;
        same(&chunk[..now], from)?;
        from += now;
    }
    Ok(())
}

fn at(made: &Made) -> String {
    format!("{} (seed {}, {} bytes)", made.path.display(), made.seed, made.bytes)
}
