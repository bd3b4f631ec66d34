//! Rows about what the daemon itself costs: processor time and memory.

use super::GB;
use crate::bench::pairs::median;
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, work};
use crate::interrupt;
use crate::scratch::Mounted;
use anyhow::{Context as _, Result};
use rustix::time::ClockId;
use std::fs;
use std::path::Path;

const HOT_BYTES: u64 = 10 << 30;
/// Written and read ten times over: hot is what fits.
const HOT_FILE_BYTES: u64 = 1 << 30;
const FILES: u64 = 100_000;
const BYTES_A_FILE_MAX: f64 = 1024.0;
const PERCENT_MAX: f64 = 1.0;
/// See `bytes`: the file, and the memory that is touched beforehand.
const MEMORY_SHARE: u64 = 15;

/// Processor seconds of this process: the client, for what runs in here.
fn own_processor() -> f64 {
    let time = rustix::time::clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `daemon-cpu`.
pub fn processor(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let file_bytes = context.scaled_to_memory(HOT_FILE_BYTES, MEMORY_SHARE);
    let rounds = context.scaled(HOT_BYTES) / file_bytes;
    let path = mount.point().join("hot");
    let mut block = work::buffer(1 << 20);
    work::write(&path, file_bytes, &block)?;
    let mut share_of = |write: fn(&Path, u64, &[u8]) -> Result<()>| -> Result<f64> {
        let mut shares = Vec::new();
        for _ in 0..context.pairs {
            interrupt::check()?;
            crate::bench::memory::touch(file_bytes)?;
            let before = (mount.status()?.daemon.cpu, own_processor());
            for _ in 0..rounds {
                write(&path, file_bytes, &block)?;
                work::read(&path, file_bytes, &mut block)?;
            }
            let client = own_processor() - before.1;
            let daemon = mount.status()?.daemon.cpu - before.0;
            shares.push(daemon / client * 100.0);
        }
        Ok(median(shares))
    };
    let hot = Outcome::value("%", share_of(work::overwrite)?, Bar::Below(PERCENT_MAX)).note(format!(
        "{rounds} times {} written in place and read a run; the share includes answering two status requests",
        crate::size::human(file_bytes)
    ));
    let emptied = Outcome::value("%", share_of(work::write)?, Bar::Stated)
        .case("emptied first")
        .note("each time emptied by O_TRUNC: the daemon gives the pages back and allocates new ones");
    let before = mount.status()?.daemon.cpu;
    mount.drain()?;
    let drained = mount.status()?.daemon.cpu - before;
    let drain = Outcome::value("s/GB", drained / (file_bytes as f64 / GB), Bar::Stated).case("drain");
    Ok(vec![hot, emptied, drain])
}

/// `heap-100k`: what 100,000 files of 0 bytes cost, while their names wait for the drain and after it. The
/// files are in directories of 1,000.
pub fn heap(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let files = context.scaled(FILES);
    let before = held(mount)?;
    let slab_before = slab()?;
    work::create_tree(mount.point(), files, b"")?;
    let kernel = (slab()? - slab_before).max(0.0) / files as f64;
    let bar = Bar::Below(BYTES_A_FILE_MAX);
    let waiting = Outcome::value("B/file", (held(mount)? - before) / files as f64, bar).case("waiting");
    mount.drain()?;
    let status = mount.status()?;
    let known =
        Outcome::value("B/file", (held(mount)? - before) / files as f64, bar).case("drained").note(format!(
            "heap {}, journal {}, {} known; the kernel's share: {kernel:.0} B a file of slab",
            crate::size::human(status.daemon.heap),
            crate::size::human(status.daemon.journal),
            status.files.known
        ));
    Ok(vec![waiting, known])
}

fn held(mount: &Mounted) -> Result<f64> {
    let daemon = mount.status()?.daemon;
    Ok((daemon.heap + daemon.journal) as f64)
}

/// Bytes of the kernel's slab: inodes and names of our mount, and of the disk's file system beneath.
fn slab() -> Result<f64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("Slab:")).context("/proc/meminfo has no Slab")?;
    let kilobytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes * 1024.0)
}
