//! What this user may do: open /dev/fuse, pass file descriptors through to the kernel, mount at all.

use super::Check;
use crate::mount::privileges;
use std::path::Path;

/// `CAP_SYS_ADMIN` in a capability set of `/proc/self/status`.
const CAP_SYS_ADMIN_BIT: u32 = 21;

/// `/dev/fuse` must be there, and open for us.
pub fn fuse_device() -> Check {
    let name = "/dev/fuse";
    let cost = "nothing can be mounted";
    if !Path::new("/dev/fuse").exists() {
        let remedy = "modprobe fuse   (in a container: run it with --device /dev/fuse)";
        return Check::missing(name, "not there", cost, remedy);
    }
    match std::fs::File::options().read(true).write(true).open("/dev/fuse") {
        Ok(_) => Check::ok(name, "can be opened"),
        Err(error) => Check::missing(
            name,
            crate::commands::why(&error),
            cost,
            "chmod 666 /dev/fuse   (also for users of fusermount3)",
        ),
    }
}

/// Passthrough needs it.
pub fn sys_admin() -> Check {
    let name = "CAP_SYS_ADMIN";
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let cost = "no passthrough: every read and write is a request to the daemon, 5 to 10 times slower";
    match effective_capabilities(&status) {
        Some(set) if set >> CAP_SYS_ADMIN_BIT & 1 == 1 => Check::ok(name, "held"),
        Some(_) => Check::missing(
            name,
            "not held",
            cost,
            "sudo aimss mount --allow-other ...   (in a container: --cap-add SYS_ADMIN)",
        ),
        None => Check::unknown(name, "/proc/self/status doesn't tell", cost, "grep CapEff /proc/self/status"),
    }
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

/// Others than root mount by it.
pub fn fusermount() -> Check {
    let name = "fusermount3";
    match privileges::fusermount() {
        Some(path) => Check::ok(name, path.display().to_string()),
        None => {
            Check::missing(name, "not on the path", "users other than root can't mount", "apt install fuse3")
        }
    }
}

/// Others than root need it for `--allow-other`.
pub fn user_allow_other() -> Check {
    let name = "user_allow_other";
    if privileges::user_allow_other() {
        return Check::ok(name, "set in /etc/fuse.conf");
    }
    let remedy = "echo user_allow_other >> /etc/fuse.conf";
    Check::missing(
        name,
        "not set in /etc/fuse.conf",
        "users other than root can't give --allow-other",
        remedy,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        let status = "Name:\taimss\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\n";
        assert_eq!(effective_capabilities(status), Some(0x1ff_ffff_ffff));
        assert_eq!(effective_capabilities("Name: x"), None);
    }
}
