//! The row about a program in a small memory cgroup, and the worker that runs in it.
//!
//! Memory counts against the group of the process that first touches it. A program limited to 128 MiB must
//! still be able to write 2 GiB to the mount: the daemon's arena is not the program's memory. The worker is
//! this binary again, which enters the group by itself before it touches anything.

use super::pairs::median;
use super::report::{Bar, Outcome};
use super::{Context, work};
use crate::cli::CgroupWorker;
use crate::scratch::Mounted;
use crate::{escape, interrupt};
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const LIMIT_BYTES: u64 = 128 << 20;
const BYTES: u64 = 2 << 30;
/// Of the machine, as the mount's budget is half of it.
const MEMORY_SHARE: u64 = 25;

/// `cgroup-128m`.
pub fn run(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let group = match Group::new() {
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
        let status = Command::new("/proc/self/exe")
            .arg("cgroup-worker")
            .arg(group.0.join("cgroup.procs"))
            .arg(&path)
            .arg(bytes.to_string())
            .status()?;
        if !status.success() {
            let note = format!("the program in the cgroup ended with {status}");
            let failed = Outcome::value("", 0.0, Bar::Completes).note(note);
            return Ok(vec![Outcome { met: Some(false), ours: None, ..failed }]);
        }
        rates.push((bytes * 2) as f64 / super::rows::GB / start.elapsed().as_secs_f64());
        fs::remove_file(&path)?;
    }
    Ok(vec![Outcome::value("GB/s", median(rates), Bar::Completes).note("written and read, together")])
}

/// The worker: enters the group, writes, reads.
pub fn worker(asked: &CgroupWorker) -> Result<()> {
    fs::write(&asked.procs, std::process::id().to_string())
        .with_context(|| format!("{} can't be written", escape::path(&asked.procs)))?;
    let mut block = work::buffer(1 << 20);
    work::write(&asked.file, asked.bytes, &block)?;
    work::read(&asked.file, asked.bytes, &mut block)
}

/// A memory cgroup of our own, removed when dropped.
struct Group(PathBuf);

impl Group {
    /// In version 1's memory hierarchy if it is there, else in version 2's.
    fn new() -> Result<Self> {
        let name = format!("aimss-bench-{}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let v2 = Path::new("/sys/fs/cgroup");
        let (root, limit) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else {
            // Fails where it is on already or may not be; the limit's file below is the test.
            let _ = fs::write(v2.join("cgroup.subtree_control"), "+memory");
            (v2, "memory.max")
        };
        let group = Self(root.join(name));
        fs::create_dir(&group.0).context("a memory cgroup can't be made (root is needed)")?;
        fs::write(group.0.join(limit), LIMIT_BYTES.to_string())
            .context("a memory cgroup can't be limited here")?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}
