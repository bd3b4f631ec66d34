//! `aimss status`: each mount as a block of text of at most 80 columns, or all as JSON.

mod render;

use crate::{cli, control, escape, mountinfo};
use aimss_fs::control::client::{self, Known};
use aimss_fs::control::status::MountStatus;
use anyhow::{Result, anyhow, ensure};
use serde::Serialize;

/// Daemons of one mount that may die one after the other while they are asked.
const DEATHS_MAX: u32 = 5;

/// The JSON: a stable schema, to which fields are added.
#[derive(Serialize)]
struct Report {
    mounts: Vec<Shown>,
}

/// One mount, and whether its daemon lives.
#[derive(Serialize)]
struct Shown {
    alive: bool,
    #[serde(flatten)]
    status: MountStatus,
}

/// Shows what was `asked` for.
pub fn run(asked: &cli::Status) -> Result<()> {
    let mounts = match &asked.mountpoint {
        None => client::mounts(),
        Some(mountpoint) => {
            let resolved = control::resolve(mountpoint)?;
            let known = control::known_containing(&resolved).ok_or_else(|| {
                anyhow!(
                    "{} is on no aimss mount; `aimss status` without a name shows all",
                    escape::path(mountpoint)
                )
            })?;
            vec![known]
        }
    };
    let mut shown = Vec::new();
    let mut silent = Vec::new();
    for known in &mounts {
        match look(known) {
            Ok(found) => shown.extend(found),
            Err(error) => silent.push(format!("{error:#}")),
        }
    }
    print(asked.json, shown, silent.is_empty())?;
    ensure!(silent.is_empty(), "{}", silent.join("; "));
    Ok(())
}

fn print(json: bool, mounts: Vec<Shown>, all: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(&Report { mounts })?);
    } else if mounts.is_empty() && all {
        println!("nothing is mounted; `aimss mount BACKING MOUNTPOINT` mounts a directory");
    } else {
        let blocks: Vec<String> =
            mounts.iter().map(|shown| render::block(&shown.status, shown.alive)).collect();
        print!("{}", blocks.join("\n"));
    }
    Ok(())
}

/// `None` if the mount ended between being listed and being asked.
fn look(known: &Known) -> Result<Option<Shown>> {
    let mut known = known.clone();
    let mut deaths = 0;
    while known.alive {
        match control::status(&known) {
            Ok(status) => return Ok(Some(Shown { alive: true, status })),
            Err(_) if deaths < DEATHS_MAX && !crate::processes::runs(known.pid) => deaths += 1,
            Err(error) => return Err(error),
        }
        // Its keeper may have the next one.
        match control::known_at(&known.mountpoint) {
            Some(next) => known = next,
            None => return Ok(None),
        }
    }
    let mut status = MountStatus {
        mountpoint: known.mountpoint.clone(),
        backing: known.backing.clone(),
        ..MountStatus::default()
    };
    status.daemon.pid = known.pid;
    let (b, m) = (escape::path(&known.backing), escape::path(&known.mountpoint));
    status.drain.last_error =
        Some(if mountinfo::at(&known.mountpoint).is_some_and(|mount| mount.is_fuse()) {
            format!("The daemon is dead; `aimss umount --lazy {m}` clears its mount.")
        } else {
            format!("The daemon is dead and nothing is mounted; `aimss mount {b} {m}` takes up what it held.")
        });
    Ok(Some(Shown { alive: false, status }))
}
