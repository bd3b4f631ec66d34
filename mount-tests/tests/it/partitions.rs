//! Partitioned streams: what programs see of them, and what of them is on the backing.

use aimss_mount_tests::{Mount, binary, both_modes, mount::well, program};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Output, Stdio};

fn aimss(arguments: &[&str], path: &Path) -> Output {
    let mut command = binary::aimss();
    command.args(arguments).arg(path).stdin(Stdio::null());
    command.output().expect("the binary can be run")
}

fn stream(mount: &Mount, name: &str, partitions: u32) -> anyhow::Result<()> {
    well(&aimss(&["stream", "create", "--partitions", &partitions.to_string()], &mount.at(name)))
}

fn append(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    Ok(OpenOptions::new().append(true).open(path)?.write_all(bytes)?)
}

/// All that a group is given until its end. A read needs room for a record, which `read_to_string` may not leave.
fn drain(group: &Path) -> anyhow::Result<String> {
    let (mut file, mut all, mut buffer) = (fs::File::open(group)?, Vec::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(String::from_utf8(all)?),
            n => all.extend_from_slice(&buffer[..n]),
        }
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A stream's name shows its marker on the backing, so that the trees differ.
fn remove(mount: &Mount, name: &str) -> anyhow::Result<()> {
    well(&aimss(&["stream", "rm"], &mount.at(name)))?;
    assert!(!mount.at(name).exists());
    Ok(())
}

both_modes! {
    fn groups_over_partitions(mount: &Mount) {
        let binary = binary::path().to_str().expect("a plain path");
        program::run(mount, "stream_partitions.py", &[binary])?;
    }

    fn partitions_and_offsets_are_there_after_a_remount_and_after_a_death(mount: &Mount) {
        stream(mount, "a.stream", 3)?;
        fs::rename(mount.at("a.stream"), mount.at("b"))?;
        for partition in 0..3 {
            append(&mount.at(format!("b/{partition}")), format!("{partition}\n").as_bytes())?;
        }
        assert_eq!(drain(&mount.at("b@g+eof"))?, "0\n1\n2\n");
        append(&mount.at("b/1"), b"more\n")?;
        mount.umount()?;
        mount.mount_again()?;
        assert_eq!(drain(&mount.at("b@g+eof"))?, "more\n");
        append(&mount.at("b/2"), b"held\n")?;
        let mut member = fs::File::open(mount.at("b@g"))?;
        let mut held = [0; 100];
        assert_eq!(member.read(&mut held)?, 5);
        mount.kill_both()?;
        drop(member);
        well(&mount.aimss(&["umount", "--lazy"]))?;
        mount.mount_again()?;
        let again = drain(&mount.at("b@g+eof"))?;
        assert!(again.ends_with("held\n"), "{again}");
        remove(mount, "b")?;
    }

    fn without_a_mount_it_is_shown_changed_and_removed(mount: &Mount) {
        stream(mount, "a.stream", 2)?;
        for partition in 0..2 {
            append(&mount.at(format!("a.stream/{partition}")), b"one\ntwo\n")?;
        }
        assert_eq!(drain(&mount.at("a.stream@g+eof"))?, "one\ntwo\none\ntwo\n");
        mount.umount()?;
        let behind = mount.behind("a.stream");
        let info = aimss(&["stream", "info", "--json"], &behind);
        well(&info)?;
        let info: serde_json::Value = serde_json::from_slice(&info.stdout)?;
        assert_eq!((info["count"].as_u64(), info["records"].as_u64()), (Some(2), Some(4)));
        let groups = said(&aimss(&["stream", "groups"], &behind));
        assert!(groups.lines().nth(1).is_some_and(|all| all.starts_with("g ")), "{groups}");
        let listed = said(&aimss(&["stream", "ls"], &mount.backing()));
        assert!(listed.contains("a.stream/ (2 partitions)"), "{listed}");
        assert_eq!(said(&aimss(&["stream", "cat"], &behind)), "one\ntwo\none\ntwo\n");
        well(&aimss(&["stream", "verify"], &behind))?;
        fs::rename(mount.behind("a.stream/1"), mount.behind("away"))?;
        let missing = said(&aimss(&["stream", "info"], &behind));
        assert!(missing.contains("partition 1 of 2 is not in"), "{missing}");
        fs::rename(mount.behind("away"), mount.behind("a.stream/1"))?;
        well(&aimss(&["stream", "rm"], &behind))?;
        assert!(!behind.exists());
        mount.mount_again()?;
    }

    fn what_makes_no_sense_is_refused_and_changes_nothing(mount: &Mount) {
        for count in ["0", "1025", "4294967296", "many"] {
            let refused = aimss(&["stream", "create", "--partitions", count], &mount.at("a.stream"));
            assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
        }
        fs::write(mount.at("file"), "x")?;
        fs::create_dir(mount.at("dir"))?;
        for name in ["file", "dir"] {
            let refused = aimss(&["stream", "create", "--partitions", "2"], &mount.at(name));
            assert_eq!(refused.status.code(), Some(1));
            assert!(said(&refused).contains("there is such a name already"), "{}", said(&refused));
        }
        let refused = aimss(&["stream", "info"], &mount.at("dir"));
        assert!(said(&refused).contains("is a directory"), "{}", said(&refused));
        stream(mount, "a.stream", 2)?;
        fs::write(mount.at("a.stream/notes"), "kept")?;
        let partly = aimss(&["stream", "rm"], &mount.at("a.stream"));
        assert!(said(&partly).contains("it has other files"), "{}", said(&partly));
        assert_eq!(fs::read_dir(mount.at("a.stream"))?.count(), 1);
    }
}
