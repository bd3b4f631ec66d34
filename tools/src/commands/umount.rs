//! `aimss umount`: drains, unmounts, and says what it left undone.

use crate::progress::Display;
use crate::unmount::{self, Options, Outcome};
use crate::{cli, control, escape};
use anyhow::Result;

/// Unmounts as `asked`.
pub fn run(asked: &cli::Umount) -> Result<()> {
    let (mountpoint, outcome) = if asked.force {
        let mountpoint = unmount::force::resolve(&asked.mountpoint)?;
        let outcome = unmount::force::run(&mountpoint)?;
        (mountpoint, outcome)
    } else {
        let mountpoint = control::resolve(&asked.mountpoint)?;
        let options = Options { lazy: asked.lazy, export: asked.export.clone() };
        let outcome = unmount::run(&mountpoint, &options, Display::new())?;
        (mountpoint, outcome)
    };
    let shown = escape::path(&mountpoint);
    match (outcome, &asked.export) {
        (Outcome::Gone, None) => {}
        (Outcome::Gone, Some(_)) => eprintln!("aimss: the backing took everything; nothing was exported"),
        (Outcome::Detached, _) => {
            eprintln!("aimss: {shown} is unmounted; its daemon ends when the last open file closes");
        }
        (Outcome::Cleared, _) => eprintln!("aimss: what a dead daemon had left at {shown} is cleared"),
        (Outcome::Exported(count), Some(directory)) => {
            eprintln!(
                "aimss: {count} paths that the backing doesn't have are in {}",
                escape::path(directory)
            );
        }
        (Outcome::Forced { left, stuck }, _) => {
            if let Some(pid) = stuck {
                eprintln!(
                    "aimss: process {pid} is killed and waits in the kernel, perhaps for a disk; it is gone when that answers"
                );
            }
            match left {
                Some(backing) => eprintln!(
                    "aimss: {shown} is taken away; what the backing did not have yet is kept in memory until the machine \
                     is restarted: `aimss mount {} {shown}` takes it up",
                    escape::path(&backing)
                ),
                None => eprintln!("aimss: {shown} is taken away"),
            }
        }
        (Outcome::Exported(count), None) => eprintln!("aimss: {count} paths were exported"),
    }
    Ok(())
}
