//! Between the engine's types and `fuser`'s.

use aimss_engine::{Attr, Ino, Kind, Timestamp};
use fuser::{FileAttr, FileType, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const EPOCH: Timestamp = Timestamp { seconds: 0, nanoseconds: 0 };

/// Attributes of nothing, for negative entries.
pub(super) const NOTHING: Attr = Attr {
    kind: Kind::File,
    mode: 0,
    uid: 0,
    gid: 0,
    nlink: 0,
    rdev: 0,
    size: 0,
    blocks: 0,
    atime: EPOCH,
    mtime: EPOCH,
    ctime: EPOCH,
};

pub(super) fn kind_out(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharDevice,
        Kind::BlockDevice => FileType::BlockDevice,
    }
}

/// A time from a request. fuser 0.18 gives times before 1970 with the nanoseconds counted backwards; the kernel's are
/// forward.
pub(super) fn time_in(time: SystemTime) -> Timestamp {
    match UNIX_EPOCH.duration_since(time) {
        Ok(before) if !before.is_zero() => {
            Timestamp { seconds: -(before.as_secs() as i64), nanoseconds: before.subsec_nanos() }
        }
        _ => time.into(),
    }
}

fn time_out(time: Timestamp) -> SystemTime {
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds));
    match u64::try_from(time.seconds) {
        Ok(after) => UNIX_EPOCH + Duration::from_secs(after) + nanoseconds,
        Err(_) => UNIX_EPOCH - Duration::from_secs(time.seconds.unsigned_abs()) + nanoseconds,
    }
}

pub(super) fn attr_out(ino: Ino, attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: time_out(attr.atime),
        mtime: time_out(attr.mtime),
        ctime: time_out(attr.ctime),
        crtime: UNIX_EPOCH,
        kind: kind_out(attr.kind),
        perm: attr.mode as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: 4096,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_come_in_as_the_kernel_sent_them() {
        // The kernel sent -1 s and 999,999,999 ns: one nanosecond before 1970.
        let as_fuser_gives_it = UNIX_EPOCH - Duration::new(1, 999_999_999);
        assert_eq!(time_in(as_fuser_gives_it), Timestamp { seconds: -1, nanoseconds: 999_999_999 });
        assert_eq!(
            time_out(Timestamp { seconds: -1, nanoseconds: 999_999_999 }),
            UNIX_EPOCH - Duration::from_nanos(1)
        );
    }
}
