//! A memory cgroup of our own, removed when dropped.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// A group called `NAME-PID`, in version 1's memory hierarchy if there is one, else in version 2's. Without `limit`,
    /// in bytes, it only counts.
    pub fn new(name: &str, limit: Option<u64>) -> Result<Self> {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, file) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else {
            // Fails where it is on already or may not be; whether the limit's file is there is the test.
            let _ = fs::write(v2.join("cgroup.subtree_control"), "+memory");
            (v2, "memory.max")
        };
        let group = Self(root.join(format!("{name}-{}", std::process::id())));
        fs::create_dir(&group.0).context("a memory cgroup can't be made (root is needed)")?;
        if let Some(limit) = limit {
            fs::write(group.0.join(file), limit.to_string())
                .context("a memory cgroup can't be limited here")?;
        }
        Ok(group)
    }

    /// The file to which a process writes its number in order to enter.
    pub fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    /// Takes a running process in: what it touches from now on counts here.
    pub fn take(&self, pid: u32) -> Result<()> {
        fs::write(self.entrance(), pid.to_string()).context("a process can't enter a memory cgroup")
    }

    /// Sends a process out, to the root of the hierarchy.
    pub fn send_out(&self, pid: u32) -> Result<()> {
        let root = self.0.parent().context("a group has a parent")?;
        fs::write(root.join("cgroup.procs"), pid.to_string()).context("a process can't leave a memory cgroup")
    }

    /// Bytes that are charged to it and are no shared memory.
    pub fn bytes_without_shared(&self) -> Option<u64> {
        let used = self.first_of(["memory.usage_in_bytes", "memory.current"])?.trim().parse::<u64>().ok()?;
        let shared = field(&self.first_of(["memory.stat"])?, "shmem ")?;
        Some(used.saturating_sub(shared))
    }

    /// How many processes the kernel killed for lack of memory in it; `None` where it does not say.
    pub fn killed(&self) -> Option<u64> {
        field(&self.first_of(["memory.oom_control", "memory.events"])?, "oom_kill ")
    }

    /// The content of the first of these files that is there: versions differ.
    fn first_of<const N: usize>(&self, files: [&str; N]) -> Option<String> {
        files.iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok())
    }
}

/// The number behind a word at the beginning of a line.
fn field(told: &str, word: &str) -> Option<u64> {
    told.lines().find_map(|line| line.strip_prefix(word)?.trim().parse().ok())
}

impl Drop for Group {
    fn drop(&mut self) {
        // Refused while a process is in it, which somebody has then left behind.
        let _ = fs::remove_dir(&self.0);
    }
}
