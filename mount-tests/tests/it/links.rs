//! Hard and symbolic links.

use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};

both_modes! {
    fn hard_links_are_one_file_on_both_sides(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        fs::write(mount.at("a"), "first")?;
        fs::hard_link(mount.at("a"), mount.at("dir/b"))?;
        mount.drain()?;
        fs::hard_link(mount.at("dir/b"), mount.at("c"))?;
        File::options().append(true).open(mount.at("c"))?.write_all(b" and second")?;
        mount.drain()?;
        for tree in [mount.point(), mount.backing()] {
            let ino = fs::metadata(tree.join("a"))?.ino();
            for name in ["a", "dir/b", "c"] {
                let found = fs::metadata(tree.join(name))?;
                assert_eq!((found.ino(), found.nlink()), (ino, 3), "{name}");
                assert_eq!(fs::read(tree.join(name))?, b"first and second", "{name}");
            }
        }
        fs::remove_file(mount.at("a"))?;
        mount.drain()?;
        assert_eq!(fs::metadata(mount.behind("dir/b"))?.nlink(), 2);
        assert!(fs::hard_link(mount.at("dir"), mount.at("d")).is_err());
    }

    fn symbolic_links_dangle_loop_and_are_followed(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        fs::write(mount.at("dir/file"), "content")?;
        let long = "x/".repeat(2047);
        for (target, name) in [("dir", "to dir"), ("missing", "dangling"), ("loop", "loop"), (&long, "long")] {
            symlink(target, mount.at(name))?;
        }
        assert_eq!(fs::read(mount.at("to dir/file"))?, b"content");
        assert_eq!(fs::metadata(mount.at("dangling")).map_err(|e| e.kind()).err(), Some(std::io::ErrorKind::NotFound));
        assert_eq!(fs::metadata(mount.at("loop")).err().and_then(|e| e.raw_os_error()), Some(libc::ELOOP));
        assert_eq!(fs::symlink_metadata(mount.at("long"))?.len(), 4094);
        mount.drain()?;
        assert_eq!(fs::read_link(mount.behind("long"))?.to_str(), Some(long.as_str()));
        // Writing through a dangling one makes its target.
        fs::write(mount.at("dangling"), "made")?;
        assert_eq!(fs::read(mount.at("missing"))?, b"made");
    }
}
