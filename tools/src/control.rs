//! Talking to the daemon of a mount: finding the mount a path belongs to, and calls whose answers are turned
//! into values or sentences.

use crate::escape;
use crate::progress::Display;
use aimss_engine::engine::Residence;
use aimss_fs::control::client::{self, Client, ControlError, Heard, Known};
use aimss_fs::control::partitions::PartitionsInfo;
use aimss_fs::control::protocol::{Action, BusyFile, Reply, Request};
use aimss_fs::control::status::MountStatus;
use aimss_fs::control::stream::{StreamInfo, StreamRequest};
use anyhow::{Result, anyhow, bail};
use std::path::{Path, PathBuf};

/// `path` absolute and without symbolic links; also where its last component is a mount point whose daemon is
/// dead, which the usual ways stumble over.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Ok(resolved) => Ok(resolved),
        Err(error) if is_dead(&error) => {
            let absolute = std::path::absolute(path)?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Ok(absolute);
            };
            let parent = std::fs::canonicalize(parent).unwrap_or_else(|_| parent.to_owned());
            Ok(parent.join(name))
        }
        Err(error) => Err(anyhow!(
            "{} can't be reached ({}); check the path",
            escape::path(path),
            crate::commands::why(&error)
        )),
    }
}

/// Whether `error` is what a file system gives whose daemon is gone.
pub fn is_dead(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// The aimss mount at exactly `mountpoint` (resolved), if there is one.
pub fn known_at(mountpoint: &Path) -> Option<Known> {
    client::mounts().into_iter().find(|known| known.mountpoint == mountpoint)
}

/// The aimss mount that `path` (resolved) lies in: the innermost.
pub fn known_containing(path: &Path) -> Option<Known> {
    client::mounts()
        .into_iter()
        .filter(|known| path.starts_with(&known.mountpoint))
        .max_by_key(|known| known.mountpoint.as_os_str().len())
}

/// The mounts that `paths` lie in, each with paths relative to it.
pub fn by_mount(paths: &[PathBuf]) -> Result<Vec<(Known, Vec<PathBuf>)>> {
    let mut mounts: Vec<(Known, Vec<PathBuf>)> = Vec::new();
    for path in paths {
        let resolved = resolve(path)?;
        let known = known_containing(&resolved).ok_or_else(|| {
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
    Ok(mounts)
}

/// What to say of a mount whose daemon is dead.
pub fn dead(known: &Known) -> String {
    let shown = escape::path(&known.mountpoint);
    format!(
        "the daemon {} of {shown} is dead; `aimss umount --lazy {shown}` clears what it left mounted",
        known.pid
    )
}

/// Connects to the daemon of `known`, or to the one that follows it. The error is a [`ControlError`].
pub fn connect(known: &Known) -> Result<Client> {
    Ok(client::connect(&known.mountpoint, &mut |_| say_that_it_waits(&known.mountpoint))?)
}

/// What is said while the next daemon is waited for, which takes as long as its keeper takes to start it.
fn waits(mountpoint: &Path) -> String {
    format!(
        "no daemon serves {} at the moment; waiting for the next one, until Ctrl-C; nothing is lost meanwhile",
        escape::path(mountpoint)
    )
}

fn say_that_it_waits(mountpoint: &Path) {
    eprintln!("aimss: {}", waits(mountpoint));
}

/// Asks what is answered without progress.
fn ask(client: &mut Client, request: &Request) -> Result<Reply> {
    let mountpoint = client.known().mountpoint.clone();
    let mut heard = |heard: Heard| {
        if heard == Heard::Waiting {
            say_that_it_waits(&mountpoint);
        }
    };
    Ok(client.call(request, &mut heard)?)
}

/// Asks what takes its time, and shows how far it is.
fn ask_for_long(
    client: &mut Client,
    request: &Request,
    display: &mut Display,
) -> Result<Reply, ControlError> {
    let waits = waits(&client.known().mountpoint);
    client.call(request, &mut |heard| match heard {
        Heard::Progress(progress) => display.update(progress),
        Heard::Waiting => display.say(&waits),
    })
}

/// The status of `known`. The error is a [`ControlError`] unless the daemon itself gave it.
pub fn status(known: &Known) -> Result<MountStatus> {
    match ask(&mut connect(known)?, &Request::Status)? {
        Reply::Status(status) => Ok(*status),
        other => Err(unexpected(&other)),
    }
}

/// Which files are in use.
pub fn busy(client: &mut Client) -> Result<Vec<BusyFile>> {
    match ask(client, &Request::Busy)? {
        Reply::Busy(files) => Ok(files),
        other => Err(unexpected(&other)),
    }
}

/// Which paths the backing does not have.
pub fn pending(client: &mut Client) -> Result<Vec<PathBuf>> {
    match ask(client, &Request::Pending)? {
        Reply::Pending(paths) => Ok(paths),
        other => Err(unexpected(&other)),
    }
}

/// The directories of what memory has of streams that the backing does not have all of.
pub fn streams_in_memory(client: &mut Client) -> Result<Vec<PathBuf>> {
    match client.call(&Request::StreamsInMemory, &mut |_| {})? {
        Reply::StreamsInMemory(directories) => Ok(directories),
        other => Err(unexpected(&other)),
    }
}

/// Makes `paths` (relative to the mount; empty: everything) durable. The error is the daemon's sentence, or a
/// [`ControlError`].
pub fn drain(client: &mut Client, paths: Vec<PathBuf>, display: &mut Display) -> Result<()> {
    match ask_for_long(client, &Request::Drain { paths }, display)? {
        Reply::Done => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Moves files (relative to the mount) into memory or out of it.
pub fn move_files(
    client: &mut Client,
    action: Action,
    paths: Vec<PathBuf>,
    display: &mut Display,
) -> Result<Residence> {
    match ask_for_long(client, &Request::Residence { action, paths }, display)? {
        Reply::Moved(moved) => Ok(moved),
        other => Err(unexpected(&other)),
    }
}

/// Tells the daemon, or the one that follows it, that it is no longer mounted. False if there is nobody to be told any more:
/// all is done, and nothing is left of the mount.
pub fn finish(client: &mut Client, discard: bool, display: &mut Display) -> Result<bool> {
    match ask_for_long(client, &Request::Finish { discard }, display) {
        Ok(Reply::Done) => Ok(true),
        Ok(other) => Err(unexpected(&other)),
        Err(ControlError::NotMounted(_)) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Asks something of one stream.
pub fn stream(known: &Known, request: StreamRequest) -> Result<StreamInfo> {
    match ask(&mut connect(known)?, &Request::Stream(request))? {
        Reply::Stream(info) => Ok(*info),
        other => Err(unexpected(&other)),
    }
}

/// Makes a directory of partitions, or asks what it has; `None` if the path is nothing of that kind.
pub fn partitioned(known: &Known, request: StreamRequest) -> Result<Option<PartitionsInfo>> {
    match ask(&mut connect(known)?, &Request::Stream(request))? {
        Reply::Partitions(info) => Ok(info.map(|info| *info)),
        other => Err(unexpected(&other)),
    }
}

/// What partitions the directory `path` has.
pub fn partitions(known: &Known, path: PathBuf) -> Result<Option<PartitionsInfo>> {
    partitioned(known, StreamRequest::Partitions { path })
}

/// All streams of a mount.
pub fn streams(known: &Known) -> Result<Vec<StreamInfo>> {
    match ask(&mut connect(known)?, &Request::Stream(StreamRequest::List))? {
        Reply::Streams(streams) => Ok(streams),
        other => Err(unexpected(&other)),
    }
}

pub fn unexpected(reply: &Reply) -> anyhow::Error {
    match reply {
        Reply::Error(sentence) => anyhow!("{}", escape::text(sentence)),
        other => anyhow!(
            "the daemon answered {other:?}, which this version of aimss doesn't know; are both of one version?"
        ),
    }
}
