//! The row about a restart: the time to a group's next record must not grow with the log.
//!
//! Each log is a backing of its own, so that the whole restart is compared and not only the group's part in
//! it.

use super::Figures;
use super::cold_read::lines_of;
use crate::bench::Bench;
use crate::ours::open_append;
use crate::records::log_text;
use aimss_measure::pairs::{Medians, alternate};
use aimss_measure::report::{Bar, Outcome};
use anyhow::{Context as _, Result, ensure};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::Instant;

const SMALL_GIB: u64 = 1;
const TEXT_BYTES: usize = 64 << 20;
const SEED: u64 = 11;
const GROUP: &str = "steady";
const READ_BYTES: usize = 64 << 10;
/// "The same within 20%".
const RATIO_MAX: f64 = 1.2;

/// `restart`.
pub fn run(bench: &mut Bench) -> Result<Figures> {
    let sizes = [SMALL_GIB, bench.big];
    let conditions = format!(
        "logs of {} and {} MiB of log lines, each in a backing of its own; a group that has acknowledged \
         its first {} KiB; unmounted, then `aimss mount`, open, first read(2); ours is the big log, theirs \
         the small one",
        bench.scaled(sizes[0] << 10),
        bench.scaled(sizes[1] << 10),
        READ_BYTES >> 10
    );
    let bar = Bar::AtMost(RATIO_MAX);
    let Some(backing) = bench.ours.backing().map(ToOwned::to_owned) else {
        let outcomes = ["from ready", "from mount"];
        let outcomes = outcomes.map(|case| Outcome::skipped(bar, "give --backing DIR").case(case)).to_vec();
        return Ok(Figures { outcomes, conditions });
    };
    bench.ours.umount()?;
    let logs = sizes.map(|size| backing.join(format!("log-{size}g")));
    let measured = measure(bench, &sizes, &logs);
    // The rows behind this one find the mount as it was.
    if bench.ours.is_mount() {
        bench.ours.umount()?;
    }
    for log in &logs {
        let _ = fs::remove_dir_all(log);
    }
    bench.ours.mount(&backing)?;
    let outcomes =
        measured?.into_iter().map(|(case, medians)| Outcome::against("1 GiB", "ms", medians, bar).case(case));
    Ok(Figures { outcomes: outcomes.collect(), conditions })
}

fn measure(
    bench: &mut Bench,
    sizes: &[u64; 2],
    logs: &[std::path::PathBuf; 2],
) -> Result<Vec<(&'static str, Medians)>> {
    for (size, log) in sizes.iter().zip(logs) {
        fs::create_dir_all(log)?;
        fill(bench, log, bench.scaled(size << 30))?;
    }
    let (mut from_ready, mut from_mount) = (Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        let small = first_record(bench, &logs[0])?;
        let big = first_record(bench, &logs[1])?;
        from_ready.push((big.0, small.0));
        from_mount.push((big.1, small.1));
    }
    [("from ready", from_ready), ("from mount", from_mount)]
        .into_iter()
        .map(|(case, times)| {
            let (mut big, mut small) = (times.iter().map(|pair| pair.0), times.iter().map(|pair| pair.1));
            let next = |times: &mut dyn Iterator<Item = f64>| times.next().context("as many as pairs");
            Ok((case, alternate(times.len(), || next(&mut big), || next(&mut small))?))
        })
        .collect()
}

/// Writes a log of `bytes`, and has the group acknowledge its first batch.
fn fill(bench: &mut Bench, backing: &Path, bytes: u64) -> Result<()> {
    bench.ours.mount(backing)?;
    bench.ours.scratch()?;
    let stream = bench.ours.at("log.stream");
    let text = log_text(SEED, TEXT_BYTES);
    let mut file = open_append(&stream)?;
    for _ in 0..bytes.div_ceil(text.len() as u64) {
        for piece in lines_of(&text) {
            file.write_all(piece)?;
        }
    }
    drop(file);
    let mut group = File::open(bench.ours.group(&stream, GROUP, false))?;
    let mut buffer = vec![0; READ_BYTES];
    for _ in 0..2 {
        ensure!(group.read(&mut buffer)? > 0, "the group has no record");
    }
    drop(group);
    bench.ours.umount()
}

/// Milliseconds to the first record, from the moment that the mount is ready and from the start of `aimss
/// mount`.
fn first_record(bench: &mut Bench, backing: &Path) -> Result<(f64, f64)> {
    let mut buffer = vec![0; READ_BYTES];
    let start = Instant::now();
    bench.ours.mount(backing)?;
    let ready = Instant::now();
    let path = bench.ours.group(&bench.ours.at("log.stream"), GROUP, false);
    let mut group = File::open(&path).with_context(|| format!("{} can't be read", path.display()))?;
    ensure!(group.read(&mut buffer)? > 0, "the group has no record");
    let (from_ready, from_mount) = (ready.elapsed(), start.elapsed());
    drop(group);
    bench.ours.umount()?;
    let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3;
    Ok((ms(from_ready), ms(from_mount)))
}
