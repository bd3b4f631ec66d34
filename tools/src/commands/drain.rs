//! `aimss drain`: returns when what was named, or everything, is durable on the backing.

use crate::progress::Display;
use crate::{cli, control, escape};
use aimss_fs::control::client::{self, Known};
use anyhow::{Context as _, Result, bail};
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
                bail!(control::dead(&known));
            }
            mounts.push((known, Vec::new()));
        }
        return Ok(mounts);
    }
    let mut mounts = control::by_mount(&asked.paths)?;
    // The mount point itself stands for everything.
    for (_, paths) in &mut mounts {
        if paths.iter().any(|path| path.as_os_str().is_empty()) {
            paths.clear();
        }
    }
    Ok(mounts)
}
