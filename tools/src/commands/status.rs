//! `aimss status`: each mount as a block of text of at most 80 columns, or all as JSON.

mod render;

use crate::{cli, control, escape, mountinfo};
use aimss_fs::control::client::{self, ControlError, Known};
use aimss_fs::control::status::MountStatus;
use aimss_fs::state::StateDir;
use anyhow::{Result, anyhow, ensure};
use serde::Serialize;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// A daemon that lives answers at once.
const ANSWER_WAIT: Duration = Duration::from_secs(10);

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
    // One that is waited for keeps no other from being shown.
    let (tell, told) = channel();
    for (place, known) in mounts.iter().cloned().enumerate() {
        let tell = tell.clone();
        std::thread::spawn(move || {
            // Nobody hears it any more who waited too long.
            let _ = tell.send((place, look(&known)));
        });
    }
    drop(tell);
    let until = Instant::now() + ANSWER_WAIT;
    let mut answers: Vec<Option<Result<Option<Shown>>>> = mounts.iter().map(|_| None).collect();
    while let Ok((place, answer)) = told.recv_timeout(until.saturating_duration_since(Instant::now())) {
        answers[place] = Some(answer);
    }
    for (known, answer) in mounts.iter().zip(answers) {
        match answer {
            Some(Ok(found)) => shown.extend(found),
            Some(Err(error)) => silent.push(format!("{error:#}")),
            None => silent.push(format!(
                "{} does not answer within {}: its daemon hangs, or is being started and waits for the backing",
                escape::path(&known.mountpoint),
                crate::duration::human(ANSWER_WAIT)
            )),
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
    let mut pid = known.pid;
    if known.alive {
        match control::status(known) {
            Ok(status) => return Ok(Some(Shown { alive: true, status })),
            Err(error) => match error.downcast_ref::<ControlError>() {
                Some(ControlError::NotMounted(_)) => return Ok(None),
                // Its keeper has no other any more.
                Some(ControlError::Dead { pid: last, .. }) => pid = *last,
                _ => return Err(error),
            },
        }
    }
    let mut status = MountStatus {
        mountpoint: known.mountpoint.clone(),
        backing: known.backing.clone(),
        ..MountStatus::default()
    };
    status.daemon.pid = pid;
    let (b, m) = (escape::path(&known.backing), escape::path(&known.mountpoint));
    let log = StateDir::of(&known.mountpoint).log();
    let said = log.metadata().is_ok_and(|log| log.len() > 0);
    let log = if said { format!(" What went wrong is in {}.", escape::path(&log)) } else { String::new() };
    status.drain.last_error = Some(
        if mountinfo::at(&known.mountpoint).is_some_and(|mount| mount.is_fuse()) {
            format!("The daemon is dead; `aimss umount --lazy {m}` clears its mount.")
        } else {
            format!("The daemon is dead and nothing is mounted; `aimss mount {b} {m}` takes up what it held.")
        } + &log,
    );
    Ok(Some(Shown { alive: false, status }))
}
