//! Whether a directory can be mounted over: there, writable, nobody else's, and apart from the mount point.
//!
//! The mount point may not lie in the backing either: a walk of the mount would come to the mount point and
//! ask the daemon, which would ask itself.

use crate::{control, escape, mountinfo};
use aimss_fs::control::client::{self, Known};
use anyhow::{Result, bail};
use rustix::fs::Access;
use rustix::io::Errno;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `backing` absolute and without symbolic links, or a sentence that says what is wrong with it. `mountpoint`
/// is resolved.
pub fn check(backing: &Path, mountpoint: &Path) -> Result<PathBuf> {
    let shown = escape::path(backing);
    match fs::metadata(backing) {
        Ok(metadata) if !metadata.is_dir() => {
            bail!("the backing {shown} is not a directory; give the directory whose files are to be shown")
        }
        Ok(_) => {}
        Err(error) if control::is_dead(&error) => bail!(
            "the backing {shown} lies on a mount whose daemon is dead; clear that with `aimss umount --lazy {shown}`"
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("the backing directory {shown} doesn't exist; make it with `mkdir -p {shown}`")
        }
        Err(error) => {
            bail!("the backing {shown} can't be reached ({}); check its path", crate::commands::why(&error))
        }
    }
    let resolved = control::resolve(backing)?;
    check_apart(&resolved, mountpoint)?;
    check_unowned(&resolved, &client::mounts())?;
    check_writable(&resolved)?;
    Ok(resolved)
}

fn check_apart(backing: &Path, mountpoint: &Path) -> Result<()> {
    let (b, m) = (escape::path(backing), escape::path(mountpoint));
    if backing == mountpoint {
        bail!(
            "{b} is given as backing and as mount point; give an empty directory elsewhere as the mount point"
        );
    }
    if backing.starts_with(mountpoint) {
        bail!("the backing {b} lies inside the mount point {m} and would be hidden by it; mount elsewhere");
    }
    if mountpoint.starts_with(backing) {
        bail!(
            "the mount point {m} lies inside the backing {b}, so the mount would contain itself; mount elsewhere"
        );
    }
    Ok(())
}

fn check_unowned(backing: &Path, mounts: &[Known]) -> Result<()> {
    let b = escape::path(backing);
    for known in mounts.iter().filter(|known| known.alive) {
        let (m, owned) = (escape::path(&known.mountpoint), escape::path(&known.backing));
        if backing == known.backing {
            bail!(
                "aimss has {b} mounted already, at {m} (process {}); use that, or `aimss umount {m}` first",
                known.pid
            );
        }
        if backing.starts_with(&known.mountpoint) {
            bail!("{b} lies on the aimss mount {m}; mount its backing {owned} instead");
        }
        if backing.starts_with(&known.backing) || known.backing.starts_with(backing) {
            bail!(
                "{b} overlaps with {owned}, which aimss has mounted at {m} (process {}); use that, or `aimss umount \
                 {m}` first",
                known.pid
            );
        }
    }
    for known in mounts.iter().filter(|known| !known.alive && known.backing == backing) {
        let m = escape::path(&known.mountpoint);
        if mountinfo::at(&known.mountpoint).is_some() {
            bail!("{b} is still mounted at {m} by a dead daemon; clear it with `aimss umount --lazy {m}`");
        }
    }
    match mountinfo::containing(backing) {
        Some(mount) if mount.kind == "fuse.aimss" => {
            bail!("{b} lies on the aimss mount {}; mount its backing instead", escape::path(&mount.point))
        }
        _ => Ok(()),
    }
}

fn check_writable(backing: &Path) -> Result<()> {
    let b = escape::path(backing);
    match rustix::fs::access(backing, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(Errno::ROFS) => {
            bail!("the backing {b} is on a read-only file system; remount that writable, or give another")
        }
        Err(Errno::ACCESS | Errno::PERM) => {
            bail!("the backing {b} is not writable for you; `chmod u+rwx` it, or mount as its owner")
        }
        Err(error) => bail!("the backing {b} can't be used ({error}); give another directory"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(mountpoint: &str, backing: &str) -> Known {
        Known {
            mountpoint: mountpoint.into(),
            backing: backing.into(),
            pid: 77,
            started: 0,
            alive: true,
            keeper: None,
            kept_by: None,
            state_dir: PathBuf::from("/run/aimss/x"),
        }
    }

    #[test]
    fn backing_and_mount_point_must_be_apart() {
        for (backing, mountpoint) in [("/a", "/a"), ("/a/b", "/a"), ("/a", "/a/b")] {
            assert!(
                check_apart(Path::new(backing), Path::new(mountpoint)).is_err(),
                "{backing} at {mountpoint}"
            );
        }
        check_apart(Path::new("/ab"), Path::new("/a")).expect("names that begin alike are apart");
    }

    #[test]
    fn a_backing_that_is_mounted_is_refused_with_its_owner() {
        let mounts = [known("/mnt/fast", "/data/ckpt")];
        let refusal =
            check_unowned(Path::new("/data/ckpt"), &mounts).expect_err("it has an owner").to_string();
        assert!(refusal.contains("/mnt/fast (process 77)"), "{refusal}");
        for backing in ["/mnt/fast/sub", "/data", "/data/ckpt/sub"] {
            assert!(check_unowned(Path::new(backing), &mounts).is_err(), "{backing}");
        }
        check_unowned(Path::new("/data/other"), &mounts).expect("it is another directory");
    }
}
