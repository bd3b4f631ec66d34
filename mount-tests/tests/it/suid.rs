//! Set-user-id and set-group-id bits go when a file is given away or written by somebody else.

use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

fn mode(path: &Path) -> std::io::Result<u32> {
    Ok(fs::metadata(path)?.mode() & 0o7777)
}

fn made(mount: &Mount, name: &str) -> anyhow::Result<()> {
    fs::write(mount.at(name), "#!/bin/true\n")?;
    fs::set_permissions(mount.at(name), Permissions::from_mode(0o6777))?;
    assert_eq!(mode(&mount.at(name))?, 0o6777);
    Ok(())
}

/// Lets `nobody` run a line of shell with the file as `$1`.
fn as_nobody(line: &str, path: &Path) -> anyhow::Result<()> {
    let setpriv = ["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", line, "sh"];
    let status = Command::new("setpriv").args(setpriv).arg(path).status()?;
    anyhow::ensure!(status.success(), "{line}: {status}");
    Ok(())
}

both_modes! {
    fn chown_clears_them(mount: &Mount) {
        made(mount, "file")?;
        chown(mount.at("file"), Some(1234), Some(1234))?;
        assert_eq!(mode(&mount.at("file"))?, 0o777);
        mount.drain()?;
        assert_eq!(mode(&mount.behind("file"))?, 0o777);
    }

    fn a_write_by_another_user_clears_them(mount: &Mount) {
        for (name, line) in [
            ("overwritten", "printf x | dd of=\"$1\" conv=notrunc status=none"),
            ("appended", "echo x >>\"$1\""),
            ("emptied", ": >\"$1\""),
            ("truncated", "truncate -s 3 \"$1\""),
        ] {
            made(mount, name)?;
            as_nobody(line, &mount.at(name))?;
            assert_eq!(mode(&mount.at(name))?, 0o777, "{name}");
            mount.drain()?;
            assert_eq!(mode(&mount.behind(name))?, 0o777, "{name} on the backing");
        }
    }

    fn a_write_by_root_keeps_them(mount: &Mount) {
        made(mount, "file")?;
        fs::write(mount.at("file"), "written by root")?;
        assert_eq!(mode(&mount.at("file"))?, 0o6777);
    }

    fn files_inherit_the_group_of_a_setgid_directory(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        chown(mount.at("dir"), None, Some(4321))?;
        fs::set_permissions(mount.at("dir"), Permissions::from_mode(0o2777))?;
        as_nobody("echo x >\"$1/file\" && mkdir \"$1/inner\"", &mount.at("dir"))?;
        assert_eq!(fs::metadata(mount.at("dir/file"))?.gid(), 4321);
        assert_eq!(fs::metadata(mount.at("dir/inner"))?.mode() & 0o2000, 0o2000);
        mount.drain()?;
        let kept = fs::metadata(mount.behind("dir/file"))?;
        assert_eq!((kept.uid(), kept.gid()), (65_534, 4321));
    }
}
