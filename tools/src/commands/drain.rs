//! `aimss drain`: returns when what was named, or everything, is durable on the backing.

use crate::progress::Display;
use crate::{cli, control, escape};
use aimss_fs::control::client::{self, Known};
use anyhow::{Context as _, Result, anyhow, bail};
use std::path::PathBuf;

/// Drains as `asked`.
pub fn run(asked: &cli::Drain) -> Result<()> {
    for (known, paths) in by_mount(asked)? {
        let mut client = control::connect(&known)?;
        control::drain(&mut client, paths, &mut Display::new()).with_context(|| {
            format!("{} isn't drained; the data is still in memory", escape::path(&known.mountpoint))
        })?;
    }
    Ok(())
}

/// The mounts that are meant, each with paths relative to it; none of them: everything.
fn by_mount(asked: &cli::Drain) -> Result<Vec<(Known, Vec<PathBuf>)>> {
    if asked.paths.is_empty() {
        let mut mounts = Vec::new();
        for known in client::mounts() {
            if !known.alive {
                bail!(dead(&known));
            }
            mounts.push((known, Vec::new()));
        }
        return Ok(mounts);
    }
    let mut mounts: Vec<(Known, Vec<PathBuf>)> = Vec::new();
    for path in &asked.paths {
        let resolved = control::resolve(path)?;
        let known = control::known_containing(&resolved).ok_or_else(|| {
            anyhow!("{} is on no aimss mount; `aimss status` shows them", escape::path(path))
        })?;
        if !known.alive {
            bail!(dead(&known));
        }
        let relative = resolved.strip_prefix(&known.mountpoint)?.to_owned();
        match mounts.iter_mut().find(|(other, _)| other.mountpoint == known.mountpoint) {
            Some((_, paths)) => paths.push(relative),
            None => mounts.push((known, vec![relative])),
        }
    }
    // The mount point itself stands for everything.
    for (_, paths) in &mut mounts {
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            paths.clear();
        }
    }
    Ok(mounts)
}

fn dead(known: &Known) -> String {
    let shown = escape::path(&known.mountpoint);
    format!(
        "the daemon {} of {shown} is dead; `aimss umount --lazy {shown}` clears what it left mounted",
        known.pid
    )
}
