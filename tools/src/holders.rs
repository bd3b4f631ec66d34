//! Who uses a mount: found in `/proc`, without a request to the mount itself.
//!
//! 1. For each process, the files behind `/proc/PID/{cwd,root,exe}` and `/proc/PID/fd/*` are looked at with a
//!    `statx` that asks the kernel for nothing but what it knows already (`AT_STATX_DONT_SYNC`, no fields):
//!    that gives the device and sends no request to the daemon, so it works on a mount whose daemon hangs.
//! 2. For each process, `/proc/PID/maps` is searched for the mount's device and, since a mapping of a
//!    passthrough file shows the memory file behind it, for the device and inode pairs the daemon names.
//!
//! Processes of other users are seen by root only; what can't be read is left out.

use crate::escape;
use aimss_fs::control::protocol::BusyFile;
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// One use of the mount by one process.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its program's name.
    pub program: String,
    /// The file, as the process sees it.
    pub path: PathBuf,
    /// `open`, `working directory`, `root`, `running` or `mapped`.
    pub how: &'static str,
}

/// What to look for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Major and minor of the mount.
    pub device: Option<(u32, u32)>,
    /// Device, inode and path of memory files behind mapped files.
    pub mapped: Vec<(u64, u64, PathBuf)>,
}

impl Wanted {
    /// The mount with `device`, whose daemon says that `busy` files are in use. Paths are shown below `root`.
    pub fn new(device: Option<(u32, u32)>, busy: &[BusyFile], root: &Path) -> Self {
        let mapped = busy
            .iter()
            .filter_map(|file| file.arena.map(|(dev, ino)| (dev, ino, root.join(&file.path))))
            .collect();
        Self { device, mapped }
    }
}

/// All uses of the mount but those by the processes in `except` (the daemon, ourselves).
pub fn find(wanted: &Wanted, except: &[u32]) -> Vec<Holder> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if except.contains(&pid) {
            continue;
        }
        for (path, how) in uses(pid, wanted) {
            found.insert(Holder { pid, program: crate::processes::name(pid), path, how });
        }
    }
    found.into_iter().collect()
}

fn uses(pid: u32, wanted: &Wanted) -> Vec<(PathBuf, &'static str)> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let mut links = vec![
        (process.join("cwd"), "working directory"),
        (process.join("root"), "root"),
        (process.join("exe"), "running"),
    ];
    links.extend(
        fs::read_dir(process.join("fd")).into_iter().flatten().flatten().map(|fd| (fd.path(), "open")),
    );
    let mut found = Vec::new();
    for (link, how) in links {
        if wanted.device.is_some() && device_of(&link) == wanted.device {
            found.push((fs::read_link(&link).unwrap_or(link), how));
        }
    }
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    found.extend(mappings(&maps, wanted).into_iter().map(|path| (path, "mapped")));
    found
}

fn device_of(link: &Path) -> Option<(u32, u32)> {
    let stat = rustix::fs::statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// The files in `maps` (the text of a `/proc/PID/maps`) that are `wanted`.
fn mappings(maps: &[u8], wanted: &Wanted) -> BTreeSet<PathBuf> {
    String::from_utf8_lossy(maps).lines().filter_map(|line| mapping(line, wanted)).collect()
}

/// `7f00-7f10 rw-s 00000000 00:2f 1234    /path`
fn mapping(line: &str, wanted: &Wanted) -> Option<PathBuf> {
    let mut fields = line.split_ascii_whitespace();
    let device = fields.nth(3)?;
    let inode: u64 = fields.next()?.parse().ok()?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor) = (u32::from_str_radix(major, 16).ok()?, u32::from_str_radix(minor, 16).ok()?);
    if inode == 0 {
        return None;
    }
    let dev = rustix::fs::makedev(major, minor);
    if let Some((_, _, path)) = wanted.mapped.iter().find(|(d, i, _)| *d == dev && *i == inode) {
        return Some(path.clone());
    }
    let path = || line.find('/').map_or_else(PathBuf::new, |at| PathBuf::from(&line[at..]));
    (wanted.device == Some((major, minor))).then(path)
}

/// `holders` in words: `python3 (1234) has /mnt/a open`. At most `limit` of them, then how many more.
pub fn describe(holders: &[Holder], limit: usize) -> String {
    let mut words: Vec<String> = holders.iter().take(limit).map(describe_one).collect();
    if holders.len() > limit {
        words.push(format!("and {} more", holders.len() - limit));
    }
    words.join(", ")
}

fn describe_one(holder: &Holder) -> String {
    let Holder { pid, program, path, how } = holder;
    let path = escape::path(path);
    match *how {
        "working directory" => format!("{program} ({pid}) works in {path}"),
        "root" => format!("{program} ({pid}) has its root at {path}"),
        "running" => format!("{program} ({pid}) runs from {path}"),
        how => format!("{program} ({pid}) has {path} {how}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &[u8] = b"\
55d0-55d1 r--p 00000000 fe:00 131 /usr/bin/cat\n\
7f00-7f10 rw-s 00000000 00:2f 77 /arena/77 (deleted)\n\
7f10-7f20 rw-s 00000000 00:30 9                          /mnt/fast/a b\n\
7ffd-7ffe rw-p 00000000 00:00 0                          [stack]\n";

    #[test]
    fn a_mapping_of_the_memory_file_is_shown_by_the_name_it_has_in_the_mount() {
        let arena = (rustix::fs::makedev(0, 0x2f), 77, PathBuf::from("/mnt/fast/w"));
        let wanted = Wanted { device: Some((0, 0x40)), mapped: vec![arena] };
        assert_eq!(mappings(MAPS, &wanted), BTreeSet::from([PathBuf::from("/mnt/fast/w")]));
    }

    #[test]
    fn a_mapping_of_the_mount_itself_is_found_by_its_device() {
        let wanted = Wanted { device: Some((0, 0x30)), mapped: vec![] };
        assert_eq!(mappings(MAPS, &wanted), BTreeSet::from([PathBuf::from("/mnt/fast/a b")]));
    }

    #[test]
    fn nothing_wanted_nothing_found() {
        assert!(mappings(MAPS, &Wanted::default()).is_empty());
    }

    #[test]
    fn an_open_file_is_found_by_its_device() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let device = device_of(file.path());
        let me = std::process::id();
        let open = fs::canonicalize(file.path()).expect("it is there");
        let wanted = Wanted { device, mapped: vec![] };
        assert!(uses(me, &wanted).contains(&(open, "open")));
        assert!(find(&wanted, &[me]).iter().all(|holder| holder.pid != me));
    }

    #[test]
    fn many_holders_are_summed_up() {
        let holder = |pid| Holder { pid, program: "cat".into(), path: "/m/f".into(), how: "open" };
        let text = describe(&[holder(1), holder(2), holder(3)], 2);
        assert_eq!(text, "cat (1) has /m/f open, cat (2) has /m/f open, and 1 more");
    }
}
