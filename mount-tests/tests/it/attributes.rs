//! Extended attributes, access control lists, times and what statfs says.

use aimss_mount_tests::tree::xattrs;
use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, removexattr, setxattr, statvfs, utimensat};
use rustix::io::Errno;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NOBODY: u32 = 65_534;

/// An ACL as the kernel takes it: version 2, then tag, permissions and id of each entry. Here: the owner and one
/// user may do all, others nothing.
fn acl_for(user: u32) -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] = [(1, 7, !0), (2, 7, user), (4, 0, !0), (0x10, 7, !0), (0x20, 0, !0)];
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Whether `nobody` can read the file.
fn nobody_reads(path: &Path) -> anyhow::Result<bool> {
    let setpriv = ["--reuid=65534", "--regid=65534", "--clear-groups", "cat"];
    Ok(Command::new("setpriv").args(setpriv).arg(path).output()?.status.success())
}

both_modes! {
    fn xattrs_are_set_replaced_listed_removed_and_kept(mount: &Mount) {
        fs::write(mount.at("file"), "x")?;
        let file = mount.at("file");
        let large = vec![7; 2000];
        setxattr(&file, "user.a", b"1", XattrFlags::CREATE)?;
        setxattr(&file, "user.large", &large, XattrFlags::empty())?;
        setxattr(&file, "user.gone", b"", XattrFlags::empty())?;
        setxattr(&file, "trusted.t", b"\0binary", XattrFlags::empty())?;
        assert_eq!(setxattr(&file, "user.a", b"2", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(setxattr(&file, "user.b", b"2", XattrFlags::REPLACE), Err(Errno::NODATA));
        mount.drain()?;
        setxattr(&file, "user.a", b"replaced", XattrFlags::REPLACE)?;
        removexattr(&file, "user.gone")?;
        assert_eq!(removexattr(&file, "user.gone"), Err(Errno::NODATA));
        mount.drain()?;
        for path in [file, mount.behind("file")] {
            let found = xattrs(&path)?;
            assert_eq!(found[&b"user.a"[..]], b"replaced");
            assert_eq!(found[&b"user.large"[..]], large);
            assert_eq!(found[&b"trusted.t"[..]], b"\0binary");
            assert!(!found.contains_key(&b"user.gone"[..]));
        }
    }

    fn an_acl_lets_one_user_in_and_is_kept(mount: &Mount) {
        fs::write(mount.at("file"), "for some")?;
        fs::set_permissions(mount.at("file"), fs::Permissions::from_mode(0o600))?;
        assert!(!nobody_reads(&mount.at("file"))?);
        setxattr(mount.at("file"), ACCESS, &acl_for(NOBODY), XattrFlags::empty())?;
        assert!(nobody_reads(&mount.at("file"))?);
        assert_eq!(fs::metadata(mount.at("file"))?.mode() & 0o777, 0o770);
        mount.drain()?;
        assert_eq!(xattrs(&mount.behind("file"))?[ACCESS.as_bytes()], acl_for(NOBODY));
        // The mask is what chmod changes for the group.
        fs::set_permissions(mount.at("file"), fs::Permissions::from_mode(0o600))?;
        assert!(!nobody_reads(&mount.at("file"))?);
    }

    fn a_default_acl_is_inherited(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        fs::set_permissions(mount.at("dir"), fs::Permissions::from_mode(0o755))?;
        setxattr(mount.at("dir"), DEFAULT, &acl_for(NOBODY), XattrFlags::empty())?;
        fs::write(mount.at("dir/file"), "x")?;
        fs::create_dir(mount.at("dir/dir"))?;
        assert!(nobody_reads(&mount.at("dir/file"))?);
        mount.drain()?;
        assert!(xattrs(&mount.behind("dir/file"))?.contains_key(ACCESS.as_bytes()));
        assert_eq!(xattrs(&mount.behind("dir/dir"))?[DEFAULT.as_bytes()], acl_for(NOBODY));
    }

    fn times_are_kept_to_the_nanosecond_and_before_1970(mount: &Mount) {
        let times = [(1_700_000_000, 1), (1_700_000_000, 999_999_999), (-1, 5), (-1_000_000_000, 123_456_789), (5_000_000_000, 0)];
        for (number, (seconds, nanoseconds)) in times.into_iter().enumerate() {
            let path = mount.at(number.to_string());
            fs::write(&path, "x")?;
            let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
            utimensat(CWD, &path, &Timestamps { last_access: time, last_modification: time }, AtFlags::empty())?;
        }
        mount.drain()?;
        for (number, expected) in times.into_iter().enumerate() {
            for path in [mount.at(number.to_string()), mount.behind(number.to_string())] {
                let found = fs::metadata(&path)?;
                assert_eq!((found.mtime(), found.mtime_nsec()), expected, "mtime of {}", path.display());
                assert_eq!((found.atime(), found.atime_nsec()), expected, "atime of {}", path.display());
            }
        }
    }

    fn statfs_is_the_backings(mount: &Mount) {
        let (ours, theirs) = (statvfs(mount.point())?, statvfs(mount.backing())?);
        let total = |stat: &rustix::fs::StatVfs| stat.f_blocks * stat.f_frsize;
        assert_eq!(total(&ours), total(&theirs));
        assert_eq!(ours.f_namemax, 255);
        // Other tests write to the same disk meanwhile.
        let free = ours.f_bavail * ours.f_frsize;
        assert!(free > 0 && free <= theirs.f_bfree * theirs.f_frsize + (4 << 30));
    }
}
