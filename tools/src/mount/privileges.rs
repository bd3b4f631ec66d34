//! Whether this user may mount at all, and what is missing if not. Root needs `/dev/fuse`; others need
//! `fusermount3`, a mount point they may write, and root's leave to show the mount to others.

use crate::escape;
use anyhow::{Result, bail};
use rustix::fs::Access;
use std::path::{Path, PathBuf};

/// Fails with a sentence if a mount at `mountpoint` can't work for this user.
pub fn check(mountpoint: &Path, allow_other: bool) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        bail!("/dev/fuse is missing, without which nothing can be mounted; load it with `modprobe fuse`");
    }
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    if rustix::fs::access("/dev/fuse", Access::READ_OK | Access::WRITE_OK).is_err() {
        bail!("/dev/fuse can't be opened by you; root can allow it with `chmod 666 /dev/fuse`");
    }
    if fusermount().is_none() {
        bail!("fusermount3, which mounts for others than root, is missing; install it (`apt install fuse3`)");
    }
    if rustix::fs::access(mountpoint, Access::WRITE_OK).is_err() {
        let shown = escape::path(mountpoint);
        bail!("the mount point {shown} is not writable for you; give a directory of your own");
    }
    if allow_other && !user_allow_other() {
        bail!(
            "--allow-other is not allowed here; root can allow it with `echo user_allow_other >> /etc/fuse.conf`"
        );
    }
    Ok(())
}

/// Where `fusermount3` is, if it is on the path.
pub fn fusermount() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join("fusermount3")).find(|file| file.is_file())
}

/// Whether others than root may give other users access.
pub fn user_allow_other() -> bool {
    let text = std::fs::read_to_string("/etc/fuse.conf").unwrap_or_default();
    text.lines().any(|line| line.trim() == "user_allow_other")
}
