//! What is mounted where, from `/proc/self/mountinfo`: read without touching any mount, so that it also tells
//! of mounts whose daemon is dead or hangs.

use rustix::mount::MountFlags;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device numbers, as `st_dev` of its files shows them.
    pub major: u32,
    /// See `major`; names the connection under `/sys/fs/fuse/connections`.
    pub minor: u32,
    /// Where.
    pub point: PathBuf,
    /// Options of this mount, such as `rw,nosuid,relatime`.
    pub options: String,
    /// Type, such as `fuse.aimss`.
    pub kind: String,
    /// What was mounted.
    pub source: OsString,
    /// Options of the file system itself, such as `rw,data=ordered`, all that mounts of it share.
    pub settings: String,
}

impl Mount {
    /// Whether it is served by a user-space daemon.
    pub fn is_fuse(&self) -> bool {
        self.kind == "fuse" || self.kind.starts_with("fuse.")
    }

    /// Its options as mount(2) takes them: what a remount must repeat in order not to lose it.
    pub fn flags(&self) -> MountFlags {
        self.options.split(',').fold(MountFlags::empty(), |flags, option| {
            flags
                | match option {
                    "ro" => MountFlags::RDONLY,
                    "nosuid" => MountFlags::NOSUID,
                    "nodev" => MountFlags::NODEV,
                    "noexec" => MountFlags::NOEXEC,
                    "noatime" => MountFlags::NOATIME,
                    "nodiratime" => MountFlags::NODIRATIME,
                    "relatime" => MountFlags::RELATIME,
                    _ => MountFlags::empty(),
                }
        })
    }
}

/// All mounts, in the order they were made. Empty if `/proc` is not there.
pub fn all() -> Vec<Mount> {
    // Bytes, not text: a mount point's name may be no UTF-8.
    parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default())
}

/// The mount a path with exactly this name shows: the last one made there.
pub fn at(point: &Path) -> Option<Mount> {
    all().into_iter().rev().find(|mount| mount.point == point)
}

/// The mount that `path` (absolute, without symbolic links) lies on.
pub fn containing(path: &Path) -> Option<Mount> {
    let mounts = all();
    path.ancestors().find_map(|above| mounts.iter().rev().find(|mount| mount.point == above).cloned())
}

fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|byte| *byte == b'\n').filter_map(parse_line).collect()
}

/// `36 35 98:0 /root /mnt rw,noatime master:1 - ext4 /dev/root rw` (see `proc_pid_mountinfo(5)`).
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let point = PathBuf::from(unescape(fields.nth(1)?));
    let options = String::from_utf8_lossy(fields.next()?).into_owned();
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    Some(Mount {
        major: major.parse().ok()?,
        minor: minor.parse().ok()?,
        point,
        options,
        kind: unescape(tail.next()?).to_string_lossy().into_owned(),
        source: unescape(tail.next()?),
        settings: String::from_utf8_lossy(tail.next().unwrap_or_default()).into_owned(),
    })
}

/// The kernel writes space, tab, newline and backslash as three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) = (first, tail) {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(*first);
        }
    }
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_with_and_without_optional_fields_are_read() {
        let text = b"36 35 98:0 /a /mnt/a\\040b rw,noatime master:1 shared:2 - ext4 /dev/root rw\n\
                     40 36 0:45 / /mnt/fast rw,nosuid - fuse.aimss aimss rw,user_id=0\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!(mounts[0].point, Path::new("/mnt/a b"));
        assert_eq!((mounts[0].major, mounts[0].minor), (98, 0));
        assert_eq!(mounts[1].settings, "rw,user_id=0");
        assert_eq!(mounts[1].kind, "fuse.aimss");
        assert_eq!(mounts[1].flags(), MountFlags::NOSUID);
        assert!(mounts[1].is_fuse() && !mounts[0].is_fuse());
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(at(Path::new("/")).is_some());
        assert_eq!(containing(Path::new("/")), at(Path::new("/")));
    }
}
