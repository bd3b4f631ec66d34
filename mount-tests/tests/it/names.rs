//! Names of any bytes and of any length that is allowed.

use aimss_mount_tests::tree::{names, path};
use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::Write;

both_modes! {
    fn names_that_are_no_text_are_kept(mount: &Mount) {
        let mut made: Vec<Vec<u8>> =
            vec![b"\xff\xfe".to_vec(), b"a\nb".to_vec(), b"-rf *".to_vec(), vec![b'\x80'; 255], vec![b'n'; 255]];
        // Every byte a name can hold.
        made.extend((1..=255_u8).filter(|byte| !b"/.".contains(byte)).map(|byte| vec![byte]));
        for name in &made {
            fs::write(mount.at(path(name)), name)?;
        }
        mount.drain()?;
        made.sort();
        assert_eq!(names(&mount.point())?, made);
        for name in &made {
            assert_eq!(&fs::read(mount.behind(path(name)))?, name);
        }
    }

    fn a_name_of_256_bytes_is_refused(mount: &Mount) {
        let long = vec![b'n'; 256];
        assert_eq!(mkdirat(CWD, mount.at(path(&long)), Mode::RWXU), Err(Errno::NAMETOOLONG));
        assert!(names(&mount.point())?.is_empty());
    }

    fn a_tree_deeper_than_a_path_may_be_long_is_drained(mount: &Mount) {
        // 24 names of 255 bytes: reached only step by step.
        let name = "d".repeat(255);
        let mut dir = File::open(mount.point())?;
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        for _ in 0..24 {
            mkdirat(&dir, &name, Mode::RWXU)?;
            dir = openat(&dir, &name, flags, Mode::empty())?.into();
        }
        let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        File::from(openat(&dir, "file", create, Mode::RUSR)?).write_all(b"deep")?;
        drop(dir);
        mount.drain()?;
        let mut kept = File::open(mount.backing())?;
        for _ in 0..24 {
            kept = openat(&kept, &name, flags, Mode::empty())?.into();
        }
        let file = File::from(openat(&kept, "file", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
        assert_eq!(std::io::read_to_string(file)?, "deep");
        drop(kept);
        // What follows names everything by whole paths.
        remove_deep(mount)?;
    }
}

/// `rm -rf`, which knows how to go where no path leads.
fn remove_deep(mount: &Mount) -> anyhow::Result<()> {
    let status = std::process::Command::new("rm").arg("-rf").arg(mount.at("d".repeat(255))).status()?;
    anyhow::ensure!(status.success(), "rm -rf of the deep tree: {status}");
    Ok(())
}
