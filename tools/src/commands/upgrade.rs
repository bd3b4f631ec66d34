//! `aimss upgrade`: another version of the program takes a mount over while it is used.

use crate::commands::Usage;
use crate::{cli, control, duration, escape};
use aimss_fs::control::protocol::{Reply, Request};
use anyhow::{Context as _, Result, anyhow, bail};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the new daemon may take from the end of the old one.
const TAKE_OVER: Duration = Duration::from_secs(60);
/// Between two looks whether it serves.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Upgrades as `asked`.
pub fn run(asked: &cli::Upgrade) -> Result<()> {
    let mountpoint = control::resolve(&asked.mountpoint)?;
    let shown = escape::path(&mountpoint);
    let within = duration::parse(&asked.within).map_err(|why| Usage(format!("--within: {why}")))?;
    let binary = binary(asked.binary.as_deref())?;
    if binary.starts_with(&mountpoint) {
        // The keeper, which reads it, would wait for the daemon that it is to start.
        bail!("{} is on {shown} itself; copy it elsewhere, and give that to --binary", escape::path(&binary));
    }
    let known = control::known_at(&mountpoint)
        .ok_or_else(|| anyhow!("{shown} is not mounted by aimss; `aimss status` lists what is"))?;
    if known.keeper.is_none() {
        bail!("{shown} has no keeper that could start another daemon; unmount it, and mount it again");
    }
    let before = control::status(&known)?;
    match control::connect(&known)?.call(&Request::Upgrade { binary: binary.clone(), within }, &mut |_| {}) {
        Ok(Reply::Error(sentence)) => {
            bail!(
                "{shown} goes on with version {}: {} did not take over: {}",
                before.version,
                escape::path(&binary),
                escape::text(&sentence)
            )
        }
        Ok(other) => return Err(control::unexpected(&other)),
        // It is gone, as it should be.
        Err(_) => {}
    }
    let until = Instant::now() + TAKE_OVER;
    loop {
        let status = control::known_at(&mountpoint)
            .filter(|known| known.pid != before.daemon.pid)
            .and_then(|known| control::status(&known).ok());
        if let Some(status) = status {
            if status.daemon.upgrades == before.daemon.upgrades {
                bail!(
                    "{shown} goes on with version {}: the daemon died while it was to be upgraded",
                    status.version
                );
            }
            eprintln!(
                "aimss: {shown} is served by version {} (process {}), before by {} (process {})",
                status.version, status.daemon.pid, before.version, before.daemon.pid
            );
            return Ok(());
        }
        if Instant::now() > until {
            bail!("no daemon of {shown} answers; `aimss status` and its log tell more");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The program to be started: absolute, and executable.
fn binary(asked: Option<&Path>) -> Result<PathBuf> {
    let binary = match asked {
        Some(path) => std::fs::canonicalize(path).map_err(|error| {
            let why = crate::commands::why(&error);
            anyhow!("--binary {}: {why}; give the path of an aimss program", escape::path(path))
        })?,
        None => std::env::current_exe().context("the path of this program is not known; give --binary")?,
    };
    let metadata = std::fs::metadata(&binary)
        .map_err(|error| anyhow!("{}: {}", escape::path(&binary), crate::commands::why(&error)))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        bail!("--binary {} can't be executed; give the path of an aimss program", escape::path(&binary));
    }
    Ok(binary)
}
