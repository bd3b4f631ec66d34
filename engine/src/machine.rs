//! What memory the machine has left for us: the arena's ceiling follows it.
//!
//! Others come first. Of what the machine could give (MemAvailable, and room in our memory cgroup), a reserve is left
//! alone, and twice that while processes stall for memory (PSI). What the daemon itself holds (heap, buffers, stacks)
//! counts against the budget as the arena does.

use std::fs;
use std::path::{Path, PathBuf};

/// Left to others: one part in so many of the machine's memory.
const RESERVE_SHARE: u64 = 16;
/// Of our cgroup's limit.
const GROUP_RESERVE_SHARE: u64 = 32;
/// Percent of the last ten seconds in which somebody stalled for memory, from which on the machine is short.
const STALLED_PERCENT: f64 = 10.0;
/// Of the budget, for what the daemon comes to hold between two looks.
const SLACK_SHARE: u64 = 64;
/// The arena keeps one part in so many of its budget whatever happens: with less it would only shuffle.
const KEPT_SHARE: u64 = 4;

/// A look at the machine.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Memory in all.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
    /// Limit of our memory cgroup, and what could be had below it.
    pub group: Option<(u64, u64)>,
    /// Percent of time in which somebody stalled for memory.
    pub stalled_percent: f64,
    /// Memory of this process that is no file.
    pub own: u64,
}

impl Machine {
    /// Looks; `None` where /proc doesn't tell.
    pub fn look(group: Option<&Group>) -> Option<Machine> {
        let info = fs::read_to_string("/proc/meminfo").ok()?;
        let kib = |key: &str| Some(field(&info, key)? * 1024);
        let pressure = fs::read_to_string("/proc/pressure/memory").unwrap_or_default();
        let process = fs::read_to_string("/proc/self/status").ok()?;
        Some(Machine {
            total: kib("MemTotal:")?,
            // What was swapped out and is still cached goes as clean pages do, and is not counted there.
            available: kib("MemAvailable:")? + kib("SwapCached:").unwrap_or(0),
            group: group.and_then(Group::room),
            stalled_percent: stalled(&pressure).unwrap_or(0.0),
            own: field(&process, "RssAnon:")? * 1024,
        })
    }

    /// The most that an arena with `used` bytes and a budget should hold.
    pub fn ceiling(&self, used: u64, budget: u64) -> u64 {
        let patience = if self.stalled_percent >= STALLED_PERCENT { 2 } else { 1 };
        let room = |available: u64, reserve: u64| (used + available).saturating_sub(reserve * patience);
        let machine = room(self.available, self.total / RESERVE_SHARE);
        let group = self.group.map_or(u64::MAX, |(limit, left)| room(left, limit / GROUP_RESERVE_SHARE));
        let ours = budget.saturating_sub(self.own + budget / SLACK_SHARE);
        ours.min(machine).min(group).max(budget / KEPT_SHARE)
    }
}

/// The memory cgroup of this process and those above it that have a limit, as far as there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    limited: Vec<PathBuf>,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Group {
    /// `None` where nothing is limited.
    pub fn of_this_process() -> Option<Group> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            let (version, root) = match controllers {
                "" => (Version::Two, "/sys/fs/cgroup"),
                list if list.split(',').any(|c| c == "memory") => (Version::One, "/sys/fs/cgroup/memory"),
                _ => return None,
            };
            let own = Path::new(root).join(path.trim_start_matches('/'));
            let above = own.ancestors().take_while(|directory| directory.starts_with(root));
            let limited: Vec<PathBuf> =
                above.filter(|directory| version.limit(directory).is_some()).map(Path::to_owned).collect();
            (!limited.is_empty()).then_some(Group { limited, version })
        })
    }

    /// The limit of the one with the least room, and what could be had below it.
    fn room(&self) -> Option<(u64, u64)> {
        let rooms = self.limited.iter().filter_map(|directory| self.version.room(directory));
        rooms.min_by_key(|(_, left)| *left)
    }
}

impl Version {
    fn limit(self, directory: &Path) -> Option<u64> {
        let file = match self {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        // Version 1 says "no limit" with a number near the largest.
        number(&directory.join(file)).filter(|&limit| limit < 1 << 60)
    }

    /// The limit, and what could be had below it: page cache that is no shared memory goes when it must.
    fn room(self, directory: &Path) -> Option<(u64, u64)> {
        let (usage, cache) = match self {
            Version::One => ("memory.usage_in_bytes", "total_cache"),
            Version::Two => ("memory.current", "file"),
        };
        let (limit, used) = (self.limit(directory)?, number(&directory.join(usage))?);
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        let shared = field(&stat, "total_shmem").or_else(|| field(&stat, "shmem")).unwrap_or(0);
        let cache = field(&stat, cache).unwrap_or(0).saturating_sub(shared);
        Some((limit, limit.saturating_sub(used) + cache))
    }
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The number behind `key` at the beginning of a line.
fn field(text: &str, key: &str) -> Option<u64> {
    let line =
        text.lines().find_map(|line| line.strip_prefix(key).filter(|rest| rest.starts_with([' ', '\t'])))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The `some avg10` of a pressure file.
fn stalled(pressure: &str) -> Option<f64> {
    let some = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn machine(available: u64) -> Machine {
        Machine { total: 32 * GIB, available, group: None, stalled_percent: 0.0, own: 0 }
    }

    #[test]
    fn the_ceiling_is_the_budget_while_there_is_room() {
        let slack = 8 * GIB / SLACK_SHARE;
        assert_eq!(machine(20 * GIB).ceiling(GIB, 8 * GIB), 8 * GIB - slack);
        let own = Machine { own: GIB, ..machine(20 * GIB) };
        assert_eq!(own.ceiling(GIB, 8 * GIB), 7 * GIB - slack);
    }

    #[test]
    fn the_ceiling_sinks_with_what_the_machine_has() {
        // A reserve of 2 GiB: half a GiB more may come in, or must go.
        assert_eq!(machine(5 * GIB / 2).ceiling(4 * GIB, 8 * GIB), 9 * GIB / 2);
        assert_eq!(machine(3 * GIB / 2).ceiling(4 * GIB, 8 * GIB), 7 * GIB / 2);
        let stalled = Machine { stalled_percent: 20.0, ..machine(5 * GIB / 2) };
        assert_eq!(stalled.ceiling(4 * GIB, 8 * GIB), 5 * GIB / 2);
        assert_eq!(machine(0).ceiling(GIB, 8 * GIB), 2 * GIB, "a part is kept");
    }

    #[test]
    fn a_small_group_counts_as_a_small_machine() {
        let grouped = Machine { group: Some((4 * GIB, GIB)), ..machine(20 * GIB) };
        assert_eq!(grouped.ceiling(2 * GIB, 8 * GIB), 3 * GIB - GIB / 8);
    }

    #[test]
    fn the_kernels_files_are_understood() {
        let pressure =
            "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=3.00 avg60=0 avg300=0 total=1\n";
        assert_eq!(stalled(pressure), Some(12.5));
        assert_eq!(stalled(""), None);
        assert_eq!(field("MemTotal:       100 kB\nMemAvailable:   50 kB\n", "MemAvailable:"), Some(50));
        assert_eq!(field("shmem_thp 7\nshmem 9\n", "shmem"), Some(9));
        let looked = Machine::look(None).expect("there is /proc here");
        assert!(looked.total >= looked.available && looked.own > 0);
    }
}
