//! `aimss demo`: the main job end to end, on scratch directories, by ordinary means.
//!
//! 1. A checkpoint is made in `/dev/shm`, with the sums of its files by `sha256sum`.
//! 2. It is written three ways (a mount, the bare disk with fsync, `/dev/shm`) by a plain writer and by `cp`,
//!    memory touched once before each, and read back, and verified there by `sha256sum -c`.
//! 3. The mount is drained and unmounted, and `sha256sum -c` verifies the plain files on the backing
//!    directory.
//! 4. It is mounted again and read back.
//!
//! Everything is put away at the end, also after an error or Ctrl-C: the scratch values' drops do it.

mod checkpoint;
mod table;

use crate::commands::Usage;
use crate::scratch::{self, Mounted, Scratch};
use crate::{bench, cli, interrupt, size};
use aimss_fs::control::status::MountStatus;
use anyhow::{Result, bail};
use checkpoint::Checkpoint;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};
use table::Table;

/// 24 files of 64 MiB.
const SIZE_DEFAULT: u64 = 1536 << 20;
/// A file of a page or so: less shows nothing.
const SIZE_MIN: u64 = 1 << 20;
/// The source and two copies are in memory at a time, on each of two sides.
const MEMORY_DIVISOR: u64 = 8;
/// The checkpoint is on the disk four times: twice bare, twice on the backing.
const DISK_DIVISOR: u64 = 6;
/// The disk gets this long before the drain starts by itself, so that `drain` below has it all to show.
const DRAIN_DELAY: Duration = Duration::from_secs(600);

/// Runs the demo as `asked`.
pub fn run(asked: &cli::Demo) -> Result<()> {
    let dir = scratch::default_dir(asked.dir.as_deref());
    let bytes = checkpoint_bytes(asked.size.as_deref(), &dir)?;
    interrupt::note()?;
    // What Ctrl-C makes of the work, such as a `cp` that was killed, is not the thing to say.
    show(&dir, bytes).or_else(|error| interrupt::check().and(Err(error)))
}

fn show(dir: &Path, bytes: u64) -> Result<()> {
    if scratch::in_memory(dir) {
        eprintln!("aimss: {} is in memory, so it can't stand for a disk; give --dir on one", dir.display());
    }
    let disk = Scratch::new(dir, "demo")?;
    let shm = Scratch::new(Path::new("/dev/shm"), "demo")?;
    say(&format!("making a checkpoint of {} (16 shards, 8 optimizer files, an index)", size::human(bytes)));
    let checkpoint = Checkpoint::make(&shm.dir("source")?, bytes)?;
    let bytes = checkpoint.bytes();
    let mut table = Table::new(bytes);

    let (backing, point) = (disk.dir("backing")?, disk.dir("mount")?);
    let mount = Mounted::start(&scratch::settings(&backing, &point, DRAIN_DELAY))?;
    say("writing, copying and reading it through a mount, on the bare disk with fsync, and in /dev/shm");
    for side in [Side::mount(mount.point()), Side::disk(&disk.dir("bare")?), Side::shm(&shm.dir("files")?)] {
        work(&checkpoint, &side, &mut table)?;
    }
    table.add("drain to the disk", "mount", timed(0, || mount.drain())?, 2 * bytes);
    let served = mount.status()?;
    mount.unmount()?;
    say("unmounted; verifying the plain files on the backing directory with sha256sum");
    checkpoint.verify(&backing.join("written"))?;
    checkpoint.verify(&backing.join("copied"))?;
    say("mounting again and reading back");
    let mount = Mounted::start(&scratch::settings(&backing, &point, DRAIN_DELAY))?;
    table.add(
        "mount again, read back",
        "mount",
        timed(bytes, || checkpoint.read(&mount.point().join("written")))?,
        bytes,
    );
    checkpoint.verify(&mount.point().join("written"))?;
    mount.unmount()?;

    println!("\n{}", table.text());
    print!("{}", opens(&served));
    println!("\nAll files verified by sha256sum: on the mount, on the backing directory, and mounted again.");
    Ok(())
}

/// One of the three places, and whether its writers fsync.
struct Side<'a> {
    name: &'static str,
    dir: &'a Path,
    sync: bool,
}

impl<'a> Side<'a> {
    fn mount(dir: &'a Path) -> Self {
        Self { name: "mount", dir, sync: false }
    }

    fn disk(dir: &'a Path) -> Self {
        Self { name: "disk", dir, sync: true }
    }

    fn shm(dir: &'a Path) -> Self {
        Self { name: "/dev/shm", dir, sync: false }
    }
}

fn work(checkpoint: &Checkpoint, side: &Side<'_>, table: &mut Table) -> Result<()> {
    let (written, copied) = (side.dir.join("written"), side.dir.join("copied"));
    let bytes = checkpoint.bytes();
    let content = checkpoint.content()?;
    let time = timed(bytes, || checkpoint.write(&written, &content, side.sync))?;
    table.add("write, own writer", side.name, time, bytes);
    table.add("write, cp -r", side.name, timed(bytes, || checkpoint.copy(&copied, side.sync))?, bytes);
    table.add("read back", side.name, timed(0, || checkpoint.read(&written))?, bytes);
    table.add("sha256sum -c", side.name, timed(0, || checkpoint.verify(&copied))?, bytes);
    if side.name != "mount" {
        fs::remove_dir_all(&written)?;
        fs::remove_dir_all(&copied)?;
    }
    Ok(())
}

fn timed(memory_bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    interrupt::check()?;
    bench::memory::touch(memory_bytes)?;
    let start = Instant::now();
    work()?;
    interrupt::check()?;
    Ok(start.elapsed())
}

fn say(text: &str) {
    eprintln!("aimss: {text}");
}

/// How the mount served its opens, and what it could not have.
fn opens(status: &MountStatus) -> String {
    let mut out = String::from("Opens on the mount:\n");
    for (mode, reasons) in &status.modes {
        for (reason, count) in reasons {
            writeln!(out, "  {count:>6} {mode}: {reason}").expect("a String takes all");
        }
    }
    for limit in &status.limits {
        writeln!(out, "  limit: {limit}").expect("a String takes all");
    }
    out
}

/// What was asked, or the default, less on a small machine or disk.
fn checkpoint_bytes(asked: Option<&str>, dir: &Path) -> Result<u64> {
    let memory = size::machine_bytes();
    if let Some(text) = asked {
        let bytes = text.parse::<size::Size>().map_err(|why| Usage(format!("--size: {why}")))?.of(memory);
        if bytes < SIZE_MIN {
            bail!(Usage(format!("--size {text} is too little to show anything; give 1M or more")));
        }
        if bytes > memory / 2 {
            bail!(Usage(format!(
                "--size {text} is more than half this machine's memory ({}); give less",
                size::human(memory)
            )));
        }
        return Ok(bytes);
    }
    let free = rustix::fs::statvfs(dir).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    Ok(SIZE_DEFAULT.min(memory / MEMORY_DIVISOR).min(free / DISK_DIVISOR).max(SIZE_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_that_show_nothing_or_do_not_fit_are_usage_errors() {
        for text in ["4k", "100%", "zero"] {
            let error = checkpoint_bytes(Some(text), Path::new("/")).expect_err(text);
            assert!(error.is::<Usage>(), "{text}: {error}");
        }
        assert_eq!(checkpoint_bytes(Some("64M"), Path::new("/")).expect("it fits"), 64 << 20);
        assert!(checkpoint_bytes(None, Path::new("/")).expect("a default") <= SIZE_DEFAULT);
    }
}
