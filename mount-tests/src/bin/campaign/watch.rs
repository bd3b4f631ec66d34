//! What daemons and keeper hold while they die and are replaced: descriptors, memory, files of the arena; and how fast
//! programs go on. What grows from one quarter of a long campaign to the last one leaks.

use aimss_measure::pairs::median;
use aimss_mount_tests::Mount;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Instant;

/// At one moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sample {
    /// Since the round began.
    pub seconds: f64,
    /// Descriptors of the daemon, and of its keeper.
    pub daemon_fds: u64,
    /// The keeper's.
    pub keeper_fds: u64,
    /// Resident memory of the daemon, in bytes.
    pub daemon_bytes: u64,
    /// Of its keeper.
    pub keeper_bytes: u64,
    /// Files in the arena.
    pub arena_files: u64,
    /// Bytes that the arena's file system holds beyond those that status counts as used: what is held by ids that leaked.
    pub arena_bytes_unaccounted: i64,
    /// Files that the daemon knows.
    pub files_known: u64,
    /// Objects of the backing that keep their inode numbers.
    #[serde(default)]
    pub numbers: u64,
    /// Steps of all works so far.
    pub steps: u64,
}

impl Sample {
    /// One now, in a round that has `begun` and whose works have done `steps`.
    pub fn take(begun: Instant, mount: &Mount, steps: u64) -> Result<Sample> {
        let status = mount.status()?;
        let daemon = status["daemon"]["pid"].as_u64().context("status names the daemon")?;
        let keeper = status["keeper"]["pid"].as_u64().context("status names the keeper")?;
        let arena = mount.arena().context("the mount has an arena")?;
        let files = fs::read_dir(arena.join("files")).map_or(0, Iterator::count);
        let held = rustix::fs::statvfs(&arena)?;
        let held = (held.f_blocks - held.f_bfree) * held.f_frsize;
        Ok(Sample {
            seconds: begun.elapsed().as_secs_f64(),
            daemon_fds: descriptors(daemon),
            keeper_fds: descriptors(keeper),
            daemon_bytes: status["daemon"]["resident"].as_u64().unwrap_or(0),
            keeper_bytes: resident(keeper),
            arena_files: files as u64,
            arena_bytes_unaccounted: held as i64 - status["memory"]["used"].as_u64().unwrap_or(0) as i64,
            files_known: status["files"]["known"].as_u64().unwrap_or(0),
            numbers: status["files"]["numbers"].as_u64().unwrap_or(0),
            steps,
        })
    }
}

fn descriptors(pid: u64) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count) as u64
}

fn resident(pid: u64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// What is shown of a sample: its label, and the figure.
type Shown = (&'static str, fn(&Sample) -> f64);

const ROWS: [Shown; 8] = [
    ("descriptors of the daemon", |s| s.daemon_fds as f64),
    ("descriptors of the keeper", |s| s.keeper_fds as f64),
    ("memory of the daemon, KiB", |s| s.daemon_bytes as f64 / 1024.0),
    ("memory of the keeper, KiB", |s| s.keeper_bytes as f64 / 1024.0),
    ("files of the arena", |s| s.arena_files as f64),
    ("arena not accounted for, KiB", |s| s.arena_bytes_unaccounted as f64 / 1024.0),
    ("files known", |s| s.files_known as f64),
    ("numbers of the backing", |s| s.numbers as f64),
];

/// All rests of a round, in a row.
pub fn tell_at_rest(samples: &[Sample]) {
    if samples.is_empty() {
        return;
    }
    println!("at each rest, with nothing left on the mount:");
    for (what, of) in ROWS {
        let each: Vec<String> = samples.iter().map(|sample| format!("{:.0}", of(sample))).collect();
        println!("  {what:28} {}", each.join(" "));
    }
}

/// Compares the second quarter with the last one: in the first, everything is still growing to its size.
pub fn tell<'s>(samples: impl Iterator<Item = &'s Sample>) {
    let samples: Vec<&Sample> = samples.collect();
    let quarter = samples.len() / 4;
    if quarter < 4 {
        return;
    }
    let (early, late) = (&samples[quarter..2 * quarter], &samples[3 * quarter..]);
    println!("medians of the second quarter and of the last one:");
    for (what, of) in ROWS {
        let median = |part: &[&Sample]| median(part.iter().map(|sample| of(sample)).collect());
        println!("  {what:28} {:14.0} {:14.0}", median(early), median(late));
    }
    let rate = |part: &[&Sample]| {
        let (first, last) = (part[0], part[part.len() - 1]);
        last.steps.saturating_sub(first.steps) as f64 / (last.seconds - first.seconds).max(1e-3)
    };
    // Each round begins anew.
    if samples.is_sorted_by(|a, b| a.seconds <= b.seconds) {
        println!("  {:28} {:14.0} {:14.0}", "steps a second", rate(early), rate(late));
    }
}
