//! What this machine allows: one check a fact, each with what it found, what a missing one costs, and the
//! command that gives it. Nothing is changed; a fact that can't be learned here is said to be unknown.

mod backing;
mod gpu;
mod kernel;
mod memory;
mod rights;

use anyhow::Result;
use serde::Serialize;
use std::path::PathBuf;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Not there, and something is lost by that.
    Missing,
    /// It can't be told from here.
    Unknown,
}

/// One fact about the machine.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What it is about.
    pub name: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What a missing one costs; empty if nothing is missing.
    pub cost: &'static str,
    /// The command that gives it; empty if nothing is missing.
    pub remedy: String,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), cost: "", remedy: String::new() }
    }

    fn missing(
        name: &'static str,
        found: impl Into<String>,
        cost: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, verdict: Verdict::Missing, found: found.into(), cost, remedy: remedy.into() }
    }

    fn unknown(
        name: &'static str,
        found: impl Into<String>,
        cost: &'static str,
        remedy: impl Into<String>,
    ) -> Self {
        Self { name, verdict: Verdict::Unknown, found: found.into(), cost, remedy: remedy.into() }
    }
}

/// All checks of the machine, most important first, and those of directories that are, or could be, `backings`.
pub fn checks(backings: &[PathBuf]) -> Result<Vec<Check>> {
    let gpus = aimss_gpu::probe();
    let mut checks = vec![
        rights::fuse_device(),
        kernel::version(),
        kernel::passthrough(),
        rights::sys_admin(),
        rights::fusermount(),
        rights::user_allow_other(),
        kernel::max_pages_limit(),
        memory::shmem_huge_pages(),
        memory::transparent_huge_pages(),
        memory::machine(),
        memory::cgroup(),
        memory::swap(),
        kernel::io_uring(),
        kernel::userfaultfd(),
        gpu::memory(&gpus),
        gpu::checks(&gpus),
        gpu::direct_storage(&gpus),
    ];
    for path in backings {
        checks.extend(backing::checks(path, &gpus)?);
    }
    Ok(checks)
}

/// A one-line file of `/proc` or `/sys`.
fn read(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_names_its_cost_and_the_command_that_gives_it() {
        for check in checks(&["/".into()]).expect("the root can be looked at") {
            assert!(!check.found.is_empty(), "{check:?}");
            assert!(check.verdict == Verdict::Ok || !check.cost.is_empty(), "{check:?}");
            assert!(check.verdict == Verdict::Ok || !check.remedy.is_empty(), "{check:?}");
        }
    }
}
