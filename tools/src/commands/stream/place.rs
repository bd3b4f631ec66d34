//! What a path means: a stream of a mount, whose daemon is to be asked, or one of a backing directory that is
//! not mounted, whose files can be used directly.
//!
//! A path in a backing that this user has mounted is the mount's: its daemon has newer records in memory than
//! the files show. That a backing is mounted by somebody else, or was by a daemon that died, is seen by its
//! lease: readers are told, writers are refused.

use crate::{commands, control, escape};
use aimss_engine::stream::settings::MARKER_BYTES;
use aimss_engine::stream::{Marker, StreamId};
use aimss_fs::control::client::{self, Known};
use aimss_fs::state::{Lease, Owner};
use anyhow::{Result, anyhow, bail};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Where logs are, in a backing.
pub const STREAMS: &str = ".aimss/streams";

/// See the module. Paths are relative to the mount's or the backing's root.
#[derive(Debug, Clone)]
pub enum Place {
    /// The daemon knows.
    Mount { known: Known, path: PathBuf },
    /// The log is in `directory`.
    Backing { top: PathBuf, path: PathBuf, directory: PathBuf },
}

/// The place of the stream at `path`. For a mount, only its daemon can tell whether it is a stream.
pub fn find(path: &Path) -> Result<Place> {
    let shown = escape::path(path);
    if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        bail!("{shown} is a directory; `aimss stream ls {shown}` lists the streams in it");
    }
    let resolved = resolve_name(path)?;
    if let Some((known, path)) = of_mount(&resolved)? {
        return Ok(Place::Mount { known, path });
    }
    let id = marker(&resolved).map_err(|why| anyhow!("{}", sentence(path, &why)))?;
    for top in resolved.ancestors().skip(1) {
        let directory = top.join(STREAMS).join(id.to_string());
        match fs::symlink_metadata(&directory) {
            Ok(_) => {
                refuse_links(&directory)?;
                let path = resolved.strip_prefix(top)?.to_owned();
                return Ok(Place::Backing { top: top.to_owned(), path, directory });
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => bail!(
                "the log of {shown} in {} may not be read by you; ask as the owner of that directory",
                escape::path(&directory)
            ),
            Err(_) => {}
        }
    }
    bail!(
        "the log of {shown} is in no {STREAMS} above it; was the file moved or copied out of its backing directory? \
         It can only be read there"
    )
}

/// Refuses a log to which a link leads: whoever made that may mean something that is no log.
fn refuse_links(directory: &Path) -> Result<()> {
    // The log's, that of all logs, and the private one.
    for path in directory.ancestors().take(3) {
        if !fs::symlink_metadata(path)?.is_dir() {
            bail!(
                "{} is not a directory, and aimss follows no link there; look at it, and move it away",
                escape::path(path)
            );
        }
    }
    Ok(())
}

/// Why a file is not the name of a stream.
pub enum NoStream {
    Missing,
    Plain,
    Unreadable(io::Error),
}

/// The stream that the file at `path` stands for.
pub fn marker(path: &Path) -> Result<StreamId, NoStream> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => NoStream::Missing,
        _ => NoStream::Unreadable(error),
    };
    let metadata = fs::symlink_metadata(path).map_err(unreadable)?;
    // Opening a pipe would wait for its writer.
    if !metadata.is_file() || metadata.len() != MARKER_BYTES as u64 {
        return Err(NoStream::Plain);
    }
    let mut bytes = Vec::with_capacity(MARKER_BYTES + 1);
    let file = fs::File::open(path).map_err(unreadable)?;
    file.take(MARKER_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    Marker::decode(&bytes).map(|Marker(id)| id).ok_or(NoStream::Plain)
}

fn sentence(path: &Path, why: &NoStream) -> String {
    let shown = escape::path(path);
    match why {
        NoStream::Missing => {
            format!("there is no stream {shown}; `aimss stream ls DIRECTORY` lists those that there are")
        }
        NoStream::Plain => {
            format!("{shown} is a plain file and no stream; `aimss stream ls DIRECTORY` lists streams")
        }
        NoStream::Unreadable(error) => {
            format!("{shown} can't be read ({}); check its mode and yours", commands::why(error))
        }
    }
}

/// `path` absolute; its last component may be missing.
pub fn resolve_name(path: &Path) -> Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let absolute = std::path::absolute(path)?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Ok(absolute);
            };
            Ok(control::resolve(parent)?.join(name))
        }
        _ => control::resolve(path),
    }
}

/// The mount that shows `resolved`, or whose backing has it, and the path in it.
pub fn of_mount(resolved: &Path) -> Result<Option<(Known, PathBuf)>> {
    let (known, path) = match control::known_containing(resolved) {
        Some(known) => {
            let path = resolved.strip_prefix(&known.mountpoint)?.to_owned();
            (known, path)
        }
        None => {
            let over = |known: &Known| known.alive && resolved.starts_with(&known.backing);
            let Some(known) = client::mounts().into_iter().find(over) else { return Ok(None) };
            let path = resolved.strip_prefix(&known.backing)?.to_owned();
            (known, path)
        }
    };
    if !known.alive {
        let shown = escape::path(&known.mountpoint);
        bail!(
            "the daemon {} of {shown} is dead; mount again, which brings back what it had, or read the streams in the \
             backing directory {}",
            known.pid,
            escape::path(&known.backing)
        );
    }
    Ok(Some((known, path)))
}

/// The right to change what is in the backing `top`; kept as long as the value.
pub fn lease(top: &Path) -> Result<Lease> {
    let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Ok(Lease::take_briefly(top, &node)?)
}

/// Tells on stderr if the backing `top` may lack records that an owner has in memory.
pub fn note_owner(top: &Path) {
    static NOTED: AtomicBool = AtomicBool::new(false);
    if NOTED.swap(true, Ordering::Relaxed) {
        // Of each partition of a stream it is the same.
        return;
    }
    let lease = top.join(".aimss/lease");
    // A fifo in its place would be waited for.
    if !fs::symlink_metadata(&lease).is_ok_and(|found| found.is_file()) {
        return;
    }
    let Ok(text) = fs::read_to_string(lease) else { return };
    if let Ok(Owner { node, pid, mountpoint }) = serde_json::from_str(&text) {
        eprintln!(
            "aimss: note: {} belongs to the mount at {} (process {pid} on {}); what that has in memory only is missing \
             here",
            escape::path(top),
            escape::path(&mountpoint),
            escape::text(&node),
        );
    }
}
