//! Changes made on the backing without the mount: seen at the next open, and never overwritten unseen.

use aimss_mount_tests::tree::names;
use aimss_mount_tests::{Mount, both_modes};
use std::fs;
use std::time::Duration;

/// Longer than what the backing once said is taken for granted, by the daemon and by the kernel: a second.
const STALE: Duration = Duration::from_millis(2500);

both_modes! {
    fn outside_changes_show_at_the_next_open(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        fs::write(mount.at("dir/file"), "written here")?;
        fs::write(mount.at("dir/removed"), "x")?;
        mount.drain()?;
        assert_eq!(fs::read(mount.at("dir/file"))?, b"written here");
        assert!(!mount.at("dir/new").exists());
        fs::write(mount.behind("dir/file"), "changed outside, and longer")?;
        fs::write(mount.behind("dir/new"), "new")?;
        fs::remove_file(mount.behind("dir/removed"))?;
        std::thread::sleep(STALE);
        assert_eq!(fs::read(mount.at("dir/file"))?, b"changed outside, and longer");
        assert_eq!(fs::read(mount.at("dir/new"))?, b"new");
        // The kernel remembers a name made here for up to a minute; an open asks.
        let removed = fs::File::open(mount.at("dir/removed")).expect_err("it is gone");
        assert_eq!(removed.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(names(&mount.at("dir"))?, [b"file".to_vec(), b"new".to_vec()]);
    }

    with { drain_delay: "1h" }
    fn a_file_changed_on_both_sides_is_kept_twice(mount: &Mount) {
        fs::write(mount.at("file"), "first")?;
        mount.drain()?;
        fs::write(mount.at("file"), "changed here")?;
        fs::write(mount.behind("file"), "changed outside, too")?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("file"))?, b"changed here");
        let kept = names(&mount.backing())?;
        let aside: Vec<_> = kept.iter().filter(|name| name.starts_with(b"file.aimss-conflict-")).collect();
        assert_eq!(aside.len(), 1, "{kept:?}");
        let aside = mount.behind(aimss_mount_tests::tree::path(aside[0]));
        assert_eq!(fs::read(aside)?, b"changed outside, too");
        assert_eq!(mount.status()?["drain"]["conflicts"], 1);
        // The mount shows it as well, once it looks again.
        std::thread::sleep(STALE);
        assert_eq!(names(&mount.point())?.len(), 2);
    }
}
