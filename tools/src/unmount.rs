//! Unmounting without losing or leaving anything.
//!
//! 1. Unless `lazy`: who uses the mount? If anyone, refuse and name them; nothing has happened yet.
//! 2. Drain. If that fails and there is no `export`, the mount stays as it is.
//! 3. With `export`, make the mount read-only and copy what the backing does not have: files by their names, of streams what
//!    memory has of their logs.
//! 4. Unmount: umount2(2), or `fusermount3 -u` for those who may not.
//! 5. Tell the daemon, wait until its process and its state directory are gone.
//!
//! A daemon that dies meanwhile, at whichever step, is followed by the next: that one is asked and told the same, and is
//! waited for in its place. Only if its keeper is gone as well, nobody sees the unmount through, and it fails.
//!
//! By force it goes another way: see [`force`].
//!
//! A mount whose daemon is dead is only cleared when asked to (`lazy`): its connection is aborted, so that
//! programs stuck in it get an error, and its name is taken away.

pub mod force;

use crate::holders::{self, Wanted};
use crate::mountinfo::{self, Mount};
use crate::progress::Display;
use crate::{control, escape, export, processes};
use aimss_fs::control::client::{Client, ControlError, Known};
use anyhow::{Context as _, Result, anyhow, bail};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// How many holders a refusal names; the rest is a number.
const HOLDERS_NAMED_MAX: usize = 5;
/// How long a lazy unmount looks whether the daemon ends at once, to say what happens next.
const LAZY_LOOK: Duration = Duration::from_secs(2);
/// How long a file that no process holds may still count as open, and how often to look.
const CLOSE_WAIT: Duration = Duration::from_secs(2);
const CLOSE_LOOK: Duration = Duration::from_millis(20);
/// How long a daemon that was told to finish may rest after its drain: it seals what streams hold, which takes as long as
/// that is large, closes and removes.
const END_WAIT: Duration = Duration::from_secs(60);
/// Nobody need be told of a wait for its end that is over before that.
const UNTOLD: Duration = Duration::from_secs(5);
/// Between two looks who serves a mount whose end is waited for.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How to unmount.
#[derive(Debug, Default)]
pub struct Options {
    /// Don't wait for open files.
    pub lazy: bool,
    /// Where to put what the backing can't take.
    pub export: Option<PathBuf>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing is left.
    Gone,
    /// The name is gone, the daemon ends when the last file closes.
    Detached,
    /// A dead daemon's mount was cleared.
    Cleared,
    /// Gone, and so many paths were copied to the export directory.
    Exported(usize),
    /// Taken away by force.
    Forced {
        /// The backing of what stays in memory, if anything may.
        left: Option<PathBuf>,
        /// A process that was killed and is not gone yet.
        stuck: Option<u32>,
    },
}

/// Unmounts what is at `mountpoint` (resolved).
pub fn run(mountpoint: &Path, options: &Options, display: Display) -> Result<Outcome> {
    let shown = escape::path(mountpoint);
    match control::known_at(mountpoint) {
        Some(known) if known.alive => live(&known, options, display),
        Some(known) if options.lazy => clear(mountpoint, Some(&known)),
        Some(known) => bail!(
            "the daemon {} of {shown} is dead; `aimss umount --lazy {shown}` clears what it left mounted",
            known.pid
        ),
        None => match mountinfo::at(mountpoint) {
            Some(mount) if mount.is_fuse() && is_stale(mountpoint) && options.lazy => clear(mountpoint, None),
            Some(mount) if mount.is_fuse() && is_stale(mountpoint) => {
                bail!("{shown} is a mount whose daemon is dead; `aimss umount --lazy {shown}` clears it")
            }
            Some(mount) => {
                bail!("{shown} is a mount of type {}, not of aimss; use `umount {shown}`", mount.kind)
            }
            None => bail!("{shown} is not mounted; `aimss status` shows what is"),
        },
    }
}

/// Gives up a scratch mount and what is in it.
pub fn abandon(known: &Known) -> Result<()> {
    let client = control::connect(known);
    if mountinfo::at(&known.mountpoint).is_some() {
        detach(&known.mountpoint, true).map_err(Refused::into_error)?;
    }
    control::finish(&mut client?, true, &mut Display::silent())?;
    Ok(())
}

/// Takes a mount away whose daemon and keeper are dead. What they held stays.
pub fn detach_dead(mountpoint: &Path) -> Result<()> {
    detach(mountpoint, true).map_err(Refused::into_error)
}

/// Whether the daemon of the mount at `mountpoint` is dead: the kernel answers for it.
pub fn is_stale(mountpoint: &Path) -> bool {
    // Attributes may be the kernel's memory of a daemon that is dead; this is asked anew each time.
    rustix::fs::statfs(mountpoint).is_err_and(|error| control::is_dead(&error.into()))
}

fn live(known: &Known, options: &Options, mut display: Display) -> Result<Outcome> {
    let mountpoint = &known.mountpoint;
    let mount = mountinfo::at(mountpoint);
    if let Some(over) = mount.as_ref().filter(|mount| mount.kind != force::KIND) {
        let shown = escape::path(mountpoint);
        bail!("a file system of type {} was mounted over {shown}; `umount {shown}` first", over.kind);
    }
    let mut client = control::connect(known)?;
    if !options.lazy {
        refuse_if_used(mount.as_ref(), &mut client)?;
    }
    if let Some(directory) = &options.export {
        export::check_directory(directory, mountpoint)?;
    }
    let drained = control::drain(&mut client, Vec::new(), &mut display);
    let outcome = match (drained, &options.export) {
        (Ok(()), _) if options.lazy => Outcome::Detached,
        (Ok(()), _) => Outcome::Gone,
        // Nobody could be asked, which says nothing of the backing.
        (Err(why), _) if why.is::<ControlError>() => return Err(why),
        (Err(why), None) => bail!(
            "{} can't be unmounted without loss: {why:#}; everything is still in memory: make room and try again, or \
             take it elsewhere with `aimss umount --export DIR {}`",
            escape::path(mountpoint),
            escape::path(mountpoint)
        ),
        (Err(_), Some(directory)) => {
            Outcome::Exported(export_pending(known, mount.as_ref(), &mut client, directory)?)
        }
    };
    if mount.is_some() {
        detach_or_name_users(mount.as_ref(), options.lazy, &mut client)?;
    }
    end(client, outcome, display)
}

fn refuse_if_used(mount: Option<&Mount>, client: &mut Client) -> Result<()> {
    let device = mount.map(|mount| (mount.major, mount.minor));
    let mountpoint = client.known().mountpoint.clone();
    let shown = escape::path(&mountpoint);
    let start = Instant::now();
    // The kernel tells the daemon of a close only after close(2) has returned: what nobody holds may be on
    // its way.
    let (busy, holders) = loop {
        let busy = control::busy(client)?;
        let wanted = Wanted::new(device, &busy, &mountpoint);
        let holders = holders::find(&wanted, &[client.known().pid, std::process::id()]);
        if busy.is_empty() || !holders.is_empty() || start.elapsed() > CLOSE_WAIT {
            break (busy, holders);
        }
        std::thread::sleep(CLOSE_LOOK);
    };
    if !holders.is_empty() {
        let who = holders::describe(&holders, HOLDERS_NAMED_MAX);
        bail!(
            "{shown} is in use: {who}; close them, or `aimss umount --lazy {shown}` to go ahead once they close"
        );
    }
    // Handles nobody in /proc accounts for: another user's process seen by no one but root, or a file in
    // flight.
    if let Some(file) = busy.first() {
        let more = if busy.len() > 1 { format!(" and {} more", busy.len() - 1) } else { String::new() };
        bail!(
            "{shown} is in use: {}{more} is open in a process that can't be seen from here (another user's, or one in \
             another container); `aimss umount --lazy {shown}` goes ahead once it closes",
            escape::path(&mountpoint.join(&file.path))
        );
    }
    Ok(())
}

fn export_pending(
    known: &Known,
    mount: Option<&Mount>,
    client: &mut Client,
    directory: &Path,
) -> Result<usize> {
    // What can't be read here looks like what was deleted, and would be given up below.
    let not_here = || {
        let (m, b) = (escape::path(&known.mountpoint), escape::path(&known.backing));
        anyhow!(
            "{m} is not mounted here any more, so that nothing can be copied from it; what the backing lacks is still in \
             memory: `aimss umount --force {m}`, `aimss mount {b} {m}`, then `--export` to a new directory"
        )
    };
    let mount = mount.ok_or_else(not_here)?;
    // So that nothing written behind our backs is given up below; only root may, and others have no better
    // way.
    let flags = mount.flags() | MountFlags::BIND;
    let read_only = rustix::mount::mount_remount(&known.mountpoint, flags | MountFlags::RDONLY, "").is_ok();
    let copied = control::pending(client)
        .and_then(|paths| export::copy(&known.mountpoint, &paths, directory))
        .and_then(|copied| Ok(copied + export_streams(known, client, directory)?));
    if copied.is_err() && read_only {
        let _ = rustix::mount::mount_remount(&known.mountpoint, flags, "");
    }
    let is_there = mountinfo::at(&known.mountpoint)
        .is_some_and(|now| (now.major, now.minor) == (mount.major, mount.minor));
    match copied {
        Ok(_) if !is_there => Err(not_here()),
        // Where nobody serves the mount any more, that is the reason.
        Err(error) => Err(client.look().err().map_or(error, Into::into)),
        copied => copied,
    }
}

/// Saves what memory has of streams; how many there were.
fn export_streams(known: &Known, client: &mut Client, directory: &Path) -> Result<usize> {
    let memory = control::streams_in_memory(client)?;
    export::save_streams(&memory, &known.backing, directory)?;
    Ok(memory.len())
}

fn detach_or_name_users(mount: Option<&Mount>, lazy: bool, client: &mut Client) -> Result<()> {
    let mountpoint = client.known().mountpoint.clone();
    match detach(&mountpoint, lazy) {
        Ok(()) => Ok(()),
        Err(Refused::Busy) => {
            let shown = escape::path(&mountpoint);
            if let Some(inner) = mountinfo::all()
                .into_iter()
                .find(|inner| inner.point != mountpoint && inner.point.starts_with(&mountpoint))
            {
                let inner = escape::path(&inner.point);
                bail!("{shown} is in use: {inner} is mounted inside it; `umount {inner}` first");
            }
            refuse_if_used(mount, client)?;
            bail!("{shown} is in use by something that ended just now; try again")
        }
        Err(refused) => Err(refused.into_error()),
    }
}

/// The mount's name is gone: sees to it that the rest goes, too.
fn end(mut client: Client, outcome: Outcome, mut display: Display) -> Result<Outcome> {
    let discard = matches!(outcome, Outcome::Exported(_));
    if outcome == Outcome::Detached {
        let known = client.known().clone();
        // The last file may close in a week, and a daemon that hangs answers nobody: don't wait for it.
        std::thread::spawn(move || control::finish(&mut client, discard, &mut Display::silent()));
        return look_a_while(known);
    }
    if let Err(error) = finish(&mut client, discard, &mut display) {
        return Err(match error.downcast_ref::<ControlError>() {
            Some(ControlError::Dead { .. }) => left_in_memory(client.known()),
            _ => error,
        });
    }
    let known = client.known();
    // Unless another mount has been made there since.
    if known.state_dir.exists() && control::known_at(&known.mountpoint).is_none() {
        bail!(
            "{} is unmounted, but its daemon left {} behind; the next `aimss mount` of {} takes it up",
            escape::path(&known.mountpoint),
            escape::path(&known.state_dir),
            escape::path(&known.backing)
        );
    }
    Ok(outcome)
}

/// Has the daemon finish, and each that follows one that dies over it; returns when the last of them has ended, and its
/// keeper.
fn finish(client: &mut Client, discard: bool, display: &mut Display) -> Result<()> {
    while control::finish(client, discard, display)? {
        match client.look() {
            Ok(known) if known.daemon_lives() => wait_for_end(known, display)?,
            // It ended just now, or the next one has been told that has not entered its name yet.
            _ => std::thread::sleep(LOOK_AGAIN),
        }
    }
    // The last thing that it does is to remove what said that it was there.
    let known = client.known();
    wait_for_end(known, display)?;
    if let Some(keeper) = known.keeper {
        processes::wait_gone(keeper, LAZY_LOOK);
    }
    Ok(())
}

/// Waits until the daemon has ended, in whatever way.
fn wait_for_end(known: &Known, display: &Display) -> Result<()> {
    if !known.daemon_lives() || processes::wait_gone(known.pid, UNTOLD) {
        return Ok(());
    }
    let shown = escape::path(&known.mountpoint);
    display.say(&format!(
        "{shown} is unmounted; waiting for its daemon (process {}) to bring the rest to the backing; Ctrl-C ends the wait \
         and not the daemon",
        known.pid
    ));
    if !processes::wait_ended(known.pid, END_WAIT) {
        bail!(
            "{shown} is unmounted, but its daemon {} does nothing and hasn't ended; its log says why",
            known.pid
        );
    }
    Ok(())
}

/// Looks for a moment whether the daemon ends at once.
fn look_a_while(mut known: Known) -> Result<Outcome> {
    let start = Instant::now();
    while start.elapsed() < LAZY_LOOK {
        match known.look_again() {
            Err(ControlError::Dead { .. }) => return Err(left_in_memory(&known)),
            Err(_) if !known.daemon_lives() => return Ok(Outcome::Gone),
            _ => std::thread::sleep(LOOK_AGAIN),
        }
    }
    Ok(Outcome::Detached)
}

/// What to say of an unmount that nobody sees through. The mount itself is gone.
fn left_in_memory(known: &Known) -> anyhow::Error {
    let (m, b) = (escape::path(&known.mountpoint), escape::path(&known.backing));
    anyhow!(
        "{m} is unmounted, but its daemon (process {}) is gone before it was done, and no other follows; `aimss mount {b} \
         {m}` brings back what it had",
        known.pid
    )
}

fn clear(mountpoint: &Path, known: Option<&Known>) -> Result<Outcome> {
    let mut cleared = false;
    // Several may be stacked; what lives, or isn't of this kind, is left alone.
    while mountinfo::at(mountpoint).is_some_and(|mount| mount.is_fuse() && is_stale(mountpoint)) {
        // Programs stuck in it get an error.
        force::detach(mountpoint).map_err(Refused::into_error)?;
        cleared = true;
    }
    if let Some(known) = known.filter(|_| !cleared) {
        bail!(
            "{} is not mounted, and what its dead daemon held is kept; `aimss mount {} {}` takes it up",
            escape::path(mountpoint),
            escape::path(&known.backing),
            escape::path(mountpoint)
        );
    }
    aimss_fs::state::clear_stale(mountpoint).with_context(|| {
        format!("{} is unmounted, but what its daemon left isn't cleared", escape::path(mountpoint))
    })?;
    Ok(Outcome::Cleared)
}

/// Why an unmount didn't happen.
enum Refused {
    Busy,
    Other(anyhow::Error),
}

impl Refused {
    fn into_error(self) -> anyhow::Error {
        match self {
            Self::Busy => anyhow!("it is in use"),
            Self::Other(error) => error,
        }
    }
}

fn detach(mountpoint: &Path, lazy: bool) -> Result<(), Refused> {
    let flags = if lazy { UnmountFlags::DETACH | UnmountFlags::NOFOLLOW } else { UnmountFlags::NOFOLLOW };
    match rustix::mount::unmount(mountpoint, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(Refused::Busy),
        Err(Errno::PERM) => fusermount(mountpoint, lazy),
        // Someone else has unmounted it meanwhile.
        Err(Errno::INVAL) if mountinfo::at(mountpoint).is_none() => Ok(()),
        Err(error) => {
            let error = anyhow!("{} can't be unmounted: {error}", escape::path(mountpoint));
            Err(Refused::Other(error))
        }
    }
}

fn fusermount(mountpoint: &Path, lazy: bool) -> Result<(), Refused> {
    let mut command = Command::new("fusermount3");
    command.arg("-u");
    if lazy {
        command.arg("-z");
    }
    let output = command.arg("--").arg(mountpoint).output().map_err(|error| {
        Refused::Other(anyhow!(
            "fusermount3, which unmounts for others than root, can't be run ({error}); install it (`apt install fuse3`)"
        ))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("busy") {
        return Err(Refused::Busy);
    }
    let said = escape::text(said.trim());
    Err(Refused::Other(anyhow!("{} can't be unmounted: {said}", escape::path(mountpoint))))
}
