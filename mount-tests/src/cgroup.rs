//! A memory cgroup of a test's own, removed when dropped.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug)]
pub struct Group(PathBuf);

impl Group {
    /// A group limited to `bytes`, in the memory hierarchy of version 1 if there is one, else of version 2.
    pub fn new(name: &str, bytes: u64) -> Result<Self> {
        let (v1, v2) = (Path::new("/sys/fs/cgroup/memory"), Path::new("/sys/fs/cgroup"));
        let (root, limit) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes")
        } else {
            // Fails where it is on already or may not be; whether the limit's file is there is the test.
            let _ = fs::write(v2.join("cgroup.subtree_control"), "+memory");
            (v2, "memory.max")
        };
        let group = Self(root.join(format!("aimss-test-{name}-{}", std::process::id())));
        fs::create_dir(&group.0).context("a memory cgroup can't be made")?;
        fs::write(group.0.join(limit), bytes.to_string()).context("a memory cgroup can't be limited")?;
        Ok(group)
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

    /// How many processes the kernel killed for lack of memory in it; `None` where it does not say.
    pub fn killed(&self) -> Option<u64> {
        let told = ["memory.oom_control", "memory.events"]
            .iter()
            .find_map(|file| fs::read_to_string(self.0.join(file)).ok())?;
        told.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
    }

    /// The file to which a process writes its number in order to enter.
    pub fn entrance(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Refused while a process is in it, which the test then has left behind.
        let _ = fs::remove_dir(&self.0);
    }
}
