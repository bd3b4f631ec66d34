//! Who may have passthrough, and who must be served by the daemon.
//!
//! Pages that a process writes first are charged to its memory cgroup. A process that lives in a small one would be
//! killed for filling the arena, so its writes go through the daemon, where they are charged to us. Looking a process
//! up takes tens of microseconds, so the answer is remembered for a moment; a process that enters a small cgroup and
//! writes within that moment is the price.

use aimss_engine::engine::Reason;
use globset::{Glob, GlobSet, GlobSetBuilder};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

/// A cgroup with less room than this is small: a checkpoint's shard doesn't fit.
const SMALL_BYTES: u64 = 4 << 30;
/// How long a look at a process counts.
const REMEMBERED: Duration = Duration::from_secs(2);
/// Processes remembered; beyond, all are forgotten.
const PROCESSES_MAX: usize = 4096;

/// See the module.
#[derive(Debug)]
pub struct Policy {
    excluded: GlobSet,
    /// False once the kernel refused.
    available: std::sync::atomic::AtomicBool,
    processes: Mutex<HashMap<u32, (Instant, bool)>>,
}

impl Policy {
    /// With the globs of `--no-passthrough`.
    pub fn new(globs: &[String], available: bool) -> Result<Policy, globset::Error> {
        let mut excluded = GlobSetBuilder::new();
        for glob in globs {
            excluded.add(Glob::new(glob)?);
            if !glob.contains('/') {
                // A pattern without a slash is about names, wherever they are.
                excluded.add(Glob::new(&format!("**/{glob}"))?);
            }
        }
        Ok(Policy { excluded: excluded.build()?, available: available.into(), processes: Mutex::default() })
    }

    /// Whether an open by `pid` may be passthrough. `path` is asked for only where globs were given.
    pub fn passthrough(
        &self,
        pid: u32,
        write: bool,
        path: impl FnOnce() -> Option<Vec<u8>>,
    ) -> Result<(), Reason> {
        if !self.is_available() {
            return Err(Reason::NotAvailable);
        }
        if !self.excluded.is_empty() {
            use std::os::unix::ffi::OsStrExt;
            let path = path().unwrap_or_default();
            if self.excluded.is_match(std::ffi::OsStr::from_bytes(&path)) {
                return Err(Reason::Excluded);
            }
        }
        if write && self.lives_in_small_cgroup(pid) { Err(Reason::SmallCgroup) } else { Ok(()) }
    }

    /// Whether the kernel has passthrough for us.
    pub fn is_available(&self) -> bool {
        self.available.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The kernel refused passthrough: nobody is offered it again.
    pub fn refused(&self) {
        self.available.store(false, std::sync::atomic::Ordering::Relaxed);
    }

    fn lives_in_small_cgroup(&self, pid: u32) -> bool {
        let mut processes = self.processes.lock();
        if let Some((when, small)) = processes.get(&pid)
            && when.elapsed() < REMEMBERED
        {
            return *small;
        }
        if processes.len() >= PROCESSES_MAX {
            processes.clear();
        }
        let small = memory_limit(pid).is_some_and(|limit| limit < SMALL_BYTES);
        processes.insert(pid, (Instant::now(), small));
        small
    }
}

/// The smallest memory limit on the way from a process's cgroup to the root, version 1 or 2; `None` without one.
pub fn memory_limit(pid: u32) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let mut smallest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (roots, file): (&[&str], &str) = match controllers {
            "" => (&["/sys/fs/cgroup", "/sys/fs/cgroup/unified"], "memory.max"),
            list if list.split(',').any(|c| c == "memory") => {
                (&["/sys/fs/cgroup/memory"], "memory.limit_in_bytes")
            }
            _ => continue,
        };
        for root in roots {
            let mut path = path.trim_end_matches('/');
            while !path.is_empty() {
                let limit = fs::read_to_string(format!("{root}{path}/{file}")).ok();
                if let Some(limit) = limit.and_then(|limit| limit.trim().parse::<u64>().ok()) {
                    smallest = Some(smallest.map_or(limit, |s| s.min(limit)));
                }
                path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            }
        }
    }
    // Version 1 says "no limit" with a number near the largest.
    smallest.filter(|&limit| limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_without_slash_is_about_names_anywhere() {
        let policy = Policy::new(&["*.mdb".into(), "logs/**".into()], true).expect("good globs");
        let refused = |path: &str| policy.passthrough(1, false, || Some(path.as_bytes().to_vec())).is_err();
        assert!(refused("a.mdb") && refused("deep/down/a.mdb") && refused("logs/x/y"));
        assert!(!refused("a.mdbx") && !refused("other/logs2"));
    }
}
