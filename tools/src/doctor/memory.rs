//! What memory there is for file data, and on which pages.

use super::{Check, read};
use crate::size::{human, machine_bytes};

/// Less than this leaves a quarter, the default budget, too small for one shard of a checkpoint.
const MACHINE_BYTES_WANTED: u64 = 4 << 30;

const SMALL_PAGES: &str = "file data is on 4 KiB pages: writes run at a third to a fifth of the speed";

/// Whether a tmpfs may have huge pages by its own mount option.
pub fn shmem_huge_pages() -> Check {
    let name = "huge pages for tmpfs";
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Some(text) = read(path) else {
        let remedy = "use a kernel built with CONFIG_TRANSPARENT_HUGEPAGE=y";
        return Check::missing(name, "not in this kernel", SMALL_PAGES, remedy);
    };
    match chosen(&text) {
        // `never` is the default for the kernel's own tmpfs; mounts choose for themselves, as ours does.
        Some("deny") => Check::missing(name, "denied to all", SMALL_PAGES, format!("echo never > {path}")),
        Some(_) => Check::ok(name, "allowed by mount option (huge=within_size)"),
        None => Check::unknown(name, text, SMALL_PAGES, format!("cat {path}")),
    }
}

/// Whether a program's memory may have huge pages.
pub fn transparent_huge_pages() -> Check {
    let name = "transparent huge pages";
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    let cost = "the daemon's own buffers are on 4 KiB pages: the drain costs more processor time";
    let remedy = format!("echo madvise > {path}");
    match read(path) {
        Some(text) => match chosen(&text) {
            Some("never") => Check::missing(name, "never", cost, remedy),
            Some(choice) => Check::ok(name, choice),
            None => Check::unknown(name, text, cost, remedy),
        },
        None => Check::missing(
            name,
            "not in this kernel",
            cost,
            "use a kernel built with CONFIG_TRANSPARENT_HUGEPAGE=y",
        ),
    }
}

/// `always [madvise] never` is `madvise`.
fn chosen(text: &str) -> Option<&str> {
    text.split_once('[')?.1.split_once(']').map(|(choice, _)| choice)
}

/// The machine's memory.
pub fn machine() -> Check {
    let name = "memory";
    let total = machine_bytes();
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available(&text)).unwrap_or(0);
    let found =
        format!("{}, {} available; a mount takes {} by default", human(total), human(free), human(total / 4));
    if total >= MACHINE_BYTES_WANTED && free >= total / 4 {
        return Check::ok(name, found);
    }
    let cost = "what doesn't fit goes at the disk's speed";
    Check::missing(name, found, cost, "aimss mount --memory SIZE   (or end what uses the memory)")
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// The limit of our own memory cgroup: arena pages count against whoever allocates them.
pub fn cgroup() -> Check {
    let name = "memory cgroup";
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let total = machine_bytes();
    match files(&own).iter().filter_map(|file| read(file)).filter_map(|text| text.parse::<u64>().ok()).min() {
        Some(limit) if limit < total => {
            let cost = "file data counts against this limit; a mount started here can't use more";
            Check::missing(
                name,
                format!("limited to {}", human(limit)),
                cost,
                "start `aimss mount` outside this cgroup, or raise memory.max",
            )
        }
        _ => Check::ok(name, "no limit"),
    }
}

/// Where the limits of the groups in `own` (the text of `/proc/self/cgroup`) stand: version 2 and version 1.
fn files(own: &str) -> Vec<String> {
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_end_matches('/'));
            match controllers {
                "" => Some(format!("/sys/fs/cgroup{path}/memory.max")),
                "memory" => Some(format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")),
                _ => None,
            }
        })
        .collect()
}

/// Swap: cold file data could be pushed out of memory behind our back.
pub fn swap() -> Check {
    let name = "swap";
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    let devices = text.lines().skip(1).filter(|line| !line.trim().is_empty()).count();
    if devices == 0 {
        return Check::ok(name, "none, so file data in memory stays there");
    }
    let cost = "the kernel may swap file data out, and a hot read then waits for the swap device";
    Check::missing(
        name,
        format!("{devices} devices or files"),
        cost,
        "swapoff -a   (or sysctl vm.swappiness=1)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chosen_word_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always madvise never"), None);
    }

    #[test]
    fn limits_are_looked_up_in_both_versions_of_cgroups() {
        let own = "4:memory:/a/b\n3:cpu:/x\n0::/\n";
        assert_eq!(
            files(own),
            ["/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"]
        );
    }

    #[test]
    fn available_memory_is_read_in_bytes() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   2048 kB\n"), Some(2 << 20));
    }
}
