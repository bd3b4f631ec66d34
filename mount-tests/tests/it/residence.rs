//! Files are moved into memory and out of it by command, and say where they are.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, binary, both_modes};
use anyhow::{Result, ensure};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

fn state(path: &Path) -> Result<String> {
    let mut value = [0; 256];
    let length = rustix::fs::getxattr(path, "user.aimss.state", &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).into_owned())
}

/// What it says; an error if it fails.
fn aimss(command: &str, paths: &[&Path]) -> Result<String> {
    let output = binary::aimss().arg(command).args(paths).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

both_modes! {
    fn files_go_out_and_come_back(mount: &Mount) {
        const FILES: usize = 5;
        const BYTES: usize = 3 << 20;
        fs::create_dir_all(mount.at("set/more"))?;
        let path = |number: usize| mount.at(format!("set/{}file{number}", if number > 2 { "more/" } else { "" }));
        for number in 0..FILES {
            fs::write(path(number), pattern(number as u64, BYTES))?;
        }
        assert!(state(&path(0))?.contains("dirty"), "{}", state(&path(0))?);
        assert!(aimss("evict", &[&mount.at("set")])?.contains("5 files"));
        for number in 0..FILES {
            assert_eq!(fs::read(mount.behind(path(number).strip_prefix(mount.point())?))?.len(), BYTES);
            assert!(state(&path(number))?.starts_with("backing clean"), "{}", state(&path(number))?);
        }
        assert!(aimss("warm", &[&mount.at("set/more")])?.contains("2 files"));
        assert!(state(&path(3))?.starts_with("both clean"), "{}", state(&path(3))?);
        // A list on standard input, the same file twice.
        let mut warm = binary::aimss().arg("warm").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let list = format!("{0}\n{0}\n{1}\n", path(0).display(), path(1).display());
        warm.stdin.take().expect("a pipe").write_all(list.as_bytes())?;
        assert!(warm.wait_with_output()?.status.success());
        assert!(state(&path(0))?.starts_with("both"), "{}", state(&path(0))?);
        for number in 0..FILES {
            assert!(fs::read(path(number))? == pattern(number as u64, BYTES), "file{number}");
        }
    }

    fn pinned_files_stay(mount: &Mount) {
        fs::write(mount.at("kept"), pattern(1, 1 << 20))?;
        mount.drain()?;
        assert!(aimss("pin", &[&mount.at("kept")])?.contains("1 file"));
        assert!(state(&mount.at("kept"))?.ends_with(" pinned"), "{}", state(&mount.at("kept"))?);
        let refused = aimss("evict", &[&mount.at("kept")]).expect_err("it is pinned").to_string();
        assert!(refused.contains("aimss unpin"), "{refused}");
        aimss("unpin", &[&mount.at("kept")])?;
        aimss("evict", &[&mount.at("kept")])?;
        assert!(fs::read(mount.at("kept"))? == pattern(1, 1 << 20));
    }

    fn the_state_is_neither_set_nor_listed(mount: &Mount) {
        fs::write(mount.at("file"), b"x")?;
        let flags = rustix::fs::XattrFlags::empty();
        let set = rustix::fs::setxattr(mount.at("file"), "user.aimss.state", b"mine", flags);
        assert_eq!(set, Err(rustix::io::Errno::PERM));
        let mut names = [0; 4096];
        let length = rustix::fs::listxattr(mount.at("file"), &mut names)?;
        assert!(!String::from_utf8_lossy(&names[..length]).contains("aimss"));
        assert!(state(&mount.point()).is_err(), "a directory has none");
    }
}
