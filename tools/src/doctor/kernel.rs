//! What the kernel offers: FUSE passthrough, request sizes, io_uring, userfaultfd.

use super::{Check, read};
use std::io::Read;
use std::process::{Command, Stdio};

const SLOW: &str =
    "every read and write is a request to the daemon: 5 to 10 times slower, still beside /dev/shm";
/// First release with FUSE passthrough.
const PASSTHROUGH_SINCE: (u32, u32) = (6, 9);
/// Pages in one request that let a read(2) or write(2) of 4 MiB be one; the default is 256 (1 MiB).
const PAGES_WANTED: u32 = 1024;

/// The kernel's release.
pub fn version() -> Check {
    let name = "kernel 6.9 or newer";
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match parse_release(&release) {
        Some(version) if version >= PASSTHROUGH_SINCE => Check::ok(name, release),
        Some(_) => {
            Check::missing(name, release, SLOW, "install a kernel of 6.9 or newer from your distribution")
        }
        None => Check::unknown(name, release, SLOW, "uname -r"),
    }
}

fn parse_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether the kernel was built with FUSE passthrough.
pub fn passthrough() -> Check {
    let name = "FUSE passthrough";
    let remedy = "use a kernel built with CONFIG_FUSE_PASSTHROUGH=y";
    let Some(config) = kernel_config() else {
        return Check::unknown(
            name,
            "the kernel doesn't show its configuration",
            SLOW,
            "zgrep FUSE /proc/config.gz /boot/config-$(uname -r)",
        );
    };
    if config.lines().any(|line| line == "CONFIG_FUSE_PASSTHROUGH=y") {
        Check::ok(name, "built into the kernel")
    } else {
        Check::missing(name, "not built into the kernel", SLOW, remedy)
    }
}

/// `/proc/config.gz` through gzip (one use of gzip doesn't earn a package), or the distribution's copy in
/// `/boot`.
fn kernel_config() -> Option<String> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let packed = || {
        let file = std::fs::File::open("/proc/config.gz").ok()?;
        let mut gzip = Command::new("gzip").arg("-dc").stdin(file).stdout(Stdio::piped()).spawn().ok()?;
        let mut text = String::new();
        gzip.stdout.take()?.read_to_string(&mut text).ok()?;
        gzip.wait().ok()?.success().then_some(text)
    };
    packed().or_else(|| read(&format!("/boot/config-{release}")))
}

/// How large one request can be.
pub fn max_pages_limit() -> Check {
    let name = "fs.fuse.max_pages_limit";
    let remedy = format!("sysctl fs.fuse.max_pages_limit={PAGES_WANTED}   (before the mount)");
    let cost = "requests to the daemon are at most 1 MiB, so its path has more round trips; passthrough is not touched";
    match read("/proc/sys/fs/fuse/max_pages_limit").and_then(|text| text.parse::<u32>().ok()) {
        Some(pages) if pages >= PAGES_WANTED => Check::ok(name, format!("{pages} pages a request")),
        Some(pages) => Check::missing(name, format!("{pages} pages a request"), cost, remedy),
        None => {
            Check::missing(name, "the kernel has no such setting", cost, "install a kernel of 6.13 or newer")
        }
    }
}

/// Whether io_uring may be used: the drain writes with it.
pub fn io_uring() -> Check {
    let name = "io_uring";
    let cost = "the drain writes with plain calls from several threads: more processor time a GB";
    let remedy = "sysctl kernel.io_uring_disabled=0";
    match read("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("0") => Check::ok(name, "allowed"),
        Some("1") if rustix::process::geteuid().is_root() => Check::ok(name, "allowed for root"),
        Some(_) => Check::missing(name, "switched off", cost, remedy),
        // Older kernels have no switch.
        None => Check::ok(name, "no switch against it"),
    }
}

/// Whether userfaultfd may be used: it pauses writers when memory runs short.
pub fn userfaultfd() -> Check {
    let name = "userfaultfd";
    let root = rustix::process::geteuid().is_root();
    let cost = "writers that outrun the disk go through the daemon instead of being paused";
    match read("/proc/sys/vm/unprivileged_userfaultfd").as_deref() {
        Some("1") => Check::ok(name, "allowed for all"),
        Some(_) if root => Check::ok(name, "allowed for root"),
        Some(_) => Check::missing(name, "for root only", cost, "sysctl vm.unprivileged_userfaultfd=1"),
        None => {
            Check::missing(name, "not in this kernel", cost, "use a kernel built with CONFIG_USERFAULTFD=y")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_read() {
        assert_eq!(parse_release("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(parse_release("5.14.0-427.el9.x86_64"), Some((5, 14)));
        assert_eq!(parse_release("unknown"), None);
    }
}
