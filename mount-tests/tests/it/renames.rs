//! rename(2) in all its forms, here and on the backing.

use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};

fn rename(mount: &Mount, from: &str, to: &str, flags: RenameFlags) -> rustix::io::Result<()> {
    renameat_with(CWD, mount.at(from), CWD, mount.at(to), flags)
}

both_modes! {
    fn noreplace_refuses_a_taken_name_and_changes_nothing(mount: &Mount) {
        fs::write(mount.at("a"), "a")?;
        fs::write(mount.at("b"), "b")?;
        assert_eq!(rename(mount, "a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
        assert_eq!(fs::read(mount.at("b"))?, b"b");
        rename(mount, "a", "c", RenameFlags::NOREPLACE)?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("c"))?, b"a");
        assert!(!mount.behind("a").exists());
    }

    fn exchange_swaps_whatever_the_names_stand_for(mount: &Mount) {
        fs::create_dir_all(mount.at("dir/inside"))?;
        fs::write(mount.at("file"), "content")?;
        symlink("nowhere", mount.at("link"))?;
        // Once before the backing knows them, once after.
        rename(mount, "dir", "file", RenameFlags::EXCHANGE)?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("dir"))?, b"content");
        assert!(mount.behind("file/inside").is_dir());
        rename(mount, "file", "link", RenameFlags::EXCHANGE)?;
        assert!(mount.at("link/inside").is_dir());
        mount.drain()?;
        assert_eq!(fs::read_link(mount.behind("file"))?.to_str(), Some("nowhere"));
        assert!(mount.behind("link/inside").is_dir());
        assert_eq!(rename(mount, "file", "missing", RenameFlags::EXCHANGE), Err(Errno::NOENT));
    }

    fn a_file_renamed_over_another_takes_its_place_and_readers_keep_the_old(mount: &Mount) {
        fs::write(mount.at("old"), "old")?;
        mount.drain()?;
        let reader = File::open(mount.at("old"))?;
        fs::write(mount.at("new"), "new content")?;
        let ino = fs::metadata(mount.at("new"))?.ino();
        fs::rename(mount.at("new"), mount.at("old"))?;
        assert_eq!(fs::metadata(mount.at("old"))?.ino(), ino);
        assert_eq!(std::io::read_to_string(&reader)?, "old");
        assert_eq!(reader.metadata()?.nlink(), 0);
        drop(reader);
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("old"))?, b"new content");
    }

    fn directories_move_with_all_below_and_not_into_themselves(mount: &Mount) {
        fs::create_dir_all(mount.at("a/b/c"))?;
        fs::write(mount.at("a/b/c/file"), "deep")?;
        fs::create_dir_all(mount.at("empty"))?;
        assert_eq!(rename(mount, "a", "a/b/x", RenameFlags::empty()), Err(Errno::INVAL));
        assert_eq!(rename(mount, "empty", "a", RenameFlags::empty()), Err(Errno::NOTEMPTY));
        fs::rename(mount.at("a/b"), mount.at("empty"))?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("empty/c/file"))?, b"deep");
        assert!(!mount.behind("a/b").exists());
    }
}
