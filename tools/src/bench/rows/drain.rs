//! The row about the drain: 4 GiB of dirty data made durable, against what fio writes to the same disk
//! directly.
//!
//! fio writes one file of the same size sequentially in 1 MiB blocks with O_DIRECT, eight in flight, and ends
//! with fsync; its own clock counts, without its start. The drain's time is that of the whole request.

use super::rate;
use crate::bench::pairs::{alternate, repeat};
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, timed, work};
use crate::scratch::{self, Mounted};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: u64 = 4 << 30;
/// All of it is dirty at once, and the mount's budget is half the machine.
const MEMORY_SHARE: u64 = 20;
/// fio's blocks in flight, of 1 MiB: enough to keep a local NVMe busy.
const DEPTH: u32 = 8;

/// `drain-4g`.
pub fn run(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let bytes = context.scaled_to_memory(BYTES, MEMORY_SHARE);
    let bar = Bar::AtLeast(0.9);
    let mut run = 0;
    let mut ours = || -> Result<f64> {
        run += 1;
        let path = mount.point().join(format!("dirty-{run}"));
        work::write(&path, bytes, &work::buffer(1 << 20))?;
        let time = timed(0, || mount.drain())?;
        let drained = fs::metadata(mount.backing().join(format!("dirty-{run}")));
        ensure!(
            drained.is_ok_and(|file| file.len() == bytes),
            "the drain ended and the backing lacks the file"
        );
        fs::remove_file(&path)?;
        mount.drain()?;
        Ok(rate(bytes, time))
    };
    let scratch = context.disk("fio")?;
    let Some(engine) = engine(&scratch) else {
        return Ok(vec![Outcome::alone(
            "GB/s",
            repeat(context.pairs, ours)?,
            bar,
            "fio isn't installed (`apt install fio`), or can't write directly here",
        )]);
    };
    let medians = alternate(context.pairs, &mut ours, || {
        let rate = fio(engine, &scratch, bytes, Way::Write);
        remove(&scratch);
        rate
    })?;
    let mut outcome =
        Outcome::against("fio", "GB/s", medians, bar).note(format!("fio with {engine}, depth {DEPTH}"));
    if scratch::in_memory(&scratch) {
        outcome.note += "; the directory is in memory: give --dir on a disk";
    }
    Ok(vec![outcome])
}

/// The faster engine that fio has here.
pub(super) fn engine(scratch: &Path) -> Option<&'static str> {
    let found =
        ["io_uring", "libaio"].into_iter().find(|engine| fio(engine, scratch, 1 << 20, Way::Write).is_ok());
    remove(scratch);
    found
}

/// What fio does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Write,
    /// What was written.
    Read,
}

/// The file that fio writes.
fn written(scratch: &Path) -> PathBuf {
    scratch.join("written")
}

/// Removes what fio wrote.
pub(super) fn remove(scratch: &Path) {
    let _ = fs::remove_file(written(scratch));
}

/// The rate, in GB/s, at which fio writes a file in `scratch`, or reads it.
pub(super) fn fio(engine: &str, scratch: &Path, bytes: u64, way: Way) -> Result<f64> {
    let word = if way == Way::Write { "write" } else { "read" };
    let output = Command::new("fio")
        .args(["--name=sequential", "--bs=1M", "--direct=1", "--end_fsync=1", "--output-format=json"])
        .arg(format!("--rw={word}"))
        .arg(format!("--ioengine={engine}"))
        .arg(format!("--iodepth={DEPTH}"))
        .arg(format!("--size={bytes}"))
        .arg(format!("--filename={}", written(scratch).display()))
        .output()
        .context("fio can't be run")?;
    ensure!(output.status.success(), "fio failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    parse(&output.stdout, word)
}

/// The bytes a second, in GB, that fio's JSON has for `word` (lines of notes may stand before it).
fn parse(said: &[u8], word: &str) -> Result<f64> {
    let start = said.iter().position(|byte| *byte == b'{').context("fio printed no JSON")?;
    let report: serde_json::Value = serde_json::from_slice(&said[start..])?;
    let rate = report["jobs"][0][word]["bw_bytes"].as_f64().context("fio's report has no rate")?;
    Ok(rate / super::GB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fios_rate_is_read_behind_its_notes() {
        let said = b"fio: this platform...\n{\"jobs\": [{\"write\": {\"bw_bytes\": 1500000000}}]}";
        assert!((parse(said, "write").expect("it has a rate") - 1.5).abs() < 1e-9);
        assert!(parse(b"fio: nothing", "read").is_err());
    }
}
