//! `aimss umount --force`: takes a mount away at once, whatever hangs: the daemon, the backing, programs.
//!
//! 1. Who serves the mount is killed, the keeper first, so that nobody is started any more.
//! 2. The mount is aborted and detached: programs that wait for it get an error.
//!
//! Nothing is drained. What the backing lacks stays in the arena, with the journal, as after a death of both; the next
//! mount takes it up. Nothing here touches the mount itself, which might never answer.

use super::{Outcome, Refused, fusermount};
use crate::{escape, mountinfo, processes};
use aimss_fs::state::{MountRecord, StateDir};
use anyhow::{Result, bail};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a killed process may take to be gone; one that waits for a disk in the kernel takes as long as that.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// The type of our mounts.
pub(super) const KIND: &str = "fuse.aimss";

/// `path` absolute, without asking the mount that it may be: only what lies above it is looked at.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    match (absolute.parent(), absolute.file_name()) {
        (Some(above), Some(name)) if mountinfo::at(&absolute).is_none() => {
            Ok(std::fs::canonicalize(above).map_or(absolute.clone(), |above| above.join(name)))
        }
        _ => Ok(absolute),
    }
}

/// Takes away what is at `mountpoint` (as [`resolve`] gives it).
pub fn run(mountpoint: &Path) -> Result<Outcome> {
    let shown = escape::path(mountpoint);
    let state = StateDir::of(mountpoint);
    let record = state.read_record();
    let is_served = record.as_ref().is_some_and(MountRecord::alive);
    let mount = mountinfo::at(mountpoint);
    match &mount {
        Some(mount) if mount.kind != KIND => {
            bail!("{shown} is a mount of type {}, not of aimss; use `umount --force {shown}`", mount.kind)
        }
        None if !is_served => bail!("{shown} is not mounted; `aimss status` shows what is"),
        _ => {}
    }
    let mut killed = Vec::new();
    if let Some(record) = &record {
        let daemon = record.daemon_lives().then_some(record.pid);
        killed.extend([record.keeper(), state.standby(), daemon].into_iter().flatten());
    }
    for pid in &killed {
        processes::kill(*pid);
    }
    // Several may be stacked.
    while mountinfo::at(mountpoint).is_some_and(|mount| mount.kind == KIND) {
        detach(mountpoint).map_err(Refused::into_error)?;
    }
    if record.is_none() {
        eprintln!(
            "aimss: note: who serves {shown} isn't known here, as of another user's mount; their daemon may go on, and is \
             theirs to end"
        );
    } else if mount.is_none() {
        eprintln!("aimss: note: {shown} was not mounted here; where else it is, it stays, dead");
    }
    let stuck = killed.into_iter().find(|pid| !processes::wait_gone(*pid, KILL_WAIT));
    Ok(Outcome::Forced { left: record.filter(|_| state.has_journal()).map(|record| record.backing), stuck })
}

/// Aborts and detaches what is mounted there last.
pub(super) fn detach(mountpoint: &Path) -> Result<(), Refused> {
    let flags = UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM) => {
            // The mount's owner may, where this is mounted: a daemon that can't end keeps the connection.
            if let Some(mount) = mountinfo::at(mountpoint) {
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", mount.minor), "1");
            }
            fusermount(mountpoint, true)
        }
        // Someone else has unmounted it meanwhile.
        Err(Errno::INVAL) if mountinfo::at(mountpoint).is_none() => Ok(()),
        Err(error) => {
            Err(Refused::Other(anyhow::anyhow!("{} can't be unmounted: {error}", escape::path(mountpoint))))
        }
    }
}
