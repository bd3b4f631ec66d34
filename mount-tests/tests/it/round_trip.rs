//! What was written through the mount lies on the backing as plain files under the same names: while mounted,
//! after a drain; after unmounting; and seen again through the next mount.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::tree::{Tree, xattrs};
use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, setxattr, utimensat};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

/// A small tree with one of most things.
fn make(mount: &Mount) -> anyhow::Result<()> {
    for dir in ["a", "a/b", "a/b/c", "empty"] {
        fs::create_dir(mount.at(dir))?;
    }
    for (number, size) in [0_usize, 1, 4095, 4096, 65_537, 3 << 20].into_iter().enumerate() {
        let path = mount.at(format!("a/b/file{number}"));
        fs::write(&path, pattern(number as u64, size))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600 + number as u32))?;
        chown(&path, Some(1000 + number as u32), Some(70_000))?;
    }
    fs::set_permissions(mount.at("empty"), Permissions::from_mode(0o1777))?;
    fs::hard_link(mount.at("a/b/file4"), mount.at("a/linked"))?;
    symlink("b/file5", mount.at("a/symlink"))?;
    lchown(mount.at("a/symlink"), Some(12), Some(34))?;
    setxattr(mount.at("a/b/file1"), "user.name", b"a value", XattrFlags::CREATE)?;
    setxattr(mount.at("a/b"), "trusted.of a directory", b"\0\xff", XattrFlags::CREATE)?;
    let then = Timespec { tv_sec: 1_000_000_007, tv_nsec: 123_456_789 };
    for name in ["a/b/file2", "a/b/c"] {
        let times = Timestamps { last_access: then, last_modification: then };
        utimensat(CWD, mount.at(name), &times, AtFlags::empty())?;
    }
    Ok(())
}

both_modes! {
    fn drained_is_plain_files(mount: &Mount) {
        make(mount)?;
        mount.drain()?;
        let (shown, kept) = (Tree::read(&mount.point())?, Tree::read(&mount.backing())?);
        assert_eq!(kept.count(), 12);
        shown.assert_same(&kept, "the mount", "the backing");
    }

    fn unmounted_and_mounted_again_all_is_there(mount: &Mount) {
        make(mount)?;
        let before = Tree::read(&mount.point())?;
        mount.umount()?;
        before.assert_same(&Tree::read(&mount.backing())?, "the mount", "the backing");
        mount.mount_again()?;
        let (before, again) = (before.below_the_root(), Tree::read(&mount.point())?.below_the_root());
        before.assert_same(&again, "the mount", "the second mount");
        assert_eq!(xattrs(&mount.at("a/b/file1"))?[&b"user.name"[..]], b"a value");
    }

    fn files_made_without_a_mount_are_found_and_changed(mount: &Mount) {
        make(mount)?;
        mount.umount()?;
        fs::write(mount.behind("a/made outside"), "plain")?;
        mount.mount_again()?;
        assert_eq!(fs::read(mount.at("a/made outside"))?, b"plain");
        fs::rename(mount.at("a/made outside"), mount.at("empty/moved"))?;
        fs::write(mount.at("a/b/file5"), "shorter")?;
        fs::remove_file(mount.at("a/b/file0"))?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("empty/moved"))?, b"plain");
        assert_eq!(fs::read(mount.behind("a/b/file5"))?, b"shorter");
        assert!(!mount.behind("a/b/file0").exists());
    }
}
