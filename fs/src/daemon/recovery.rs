//! Before a mount is served: taking up what a daemon that died left in arena and journal, and removing the logs of streams
//! that had lost their names.

use super::{Fresh, Memory, ServeError};
use crate::config::MountConfig;
use crate::state::{self, StateDir};
use aimss_engine::arena::Overflow;
use aimss_engine::journal::{Journal, Recovered, References, replay};
use aimss_engine::stream::live::Streams;
use aimss_engine::stream::settings::MARKER_BYTES;
use aimss_engine::stream::{Marker, StreamId};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// The memory of the last daemon, or a new one. `takes_over`: the kernel is the same, too.
pub(super) fn memory(config: &MountConfig, state: &StateDir, takes_over: bool) -> Result<Memory, ServeError> {
    let io = |what: &str| {
        let what = what.to_string();
        move |source| ServeError::Io { what, source }
    };
    let overflow = |source| {
        let path = config.overflow.as_ref().map_or_else(String::new, |o| o.path.display().to_string());
        ServeError::Overflow { path, source }
    };
    let unreadable = "the arena that the last daemon left can't be read";
    let path = state.arena().join("journal");
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound && !takes_over => {
            // Of a daemon that died before it had anything.
            state::end_overflow(state);
            let overflow = state::open_overflow(state, config.overflow.as_ref()).map_err(overflow)?;
            let bytes = config.memory_bytes + overflow.as_ref().map_or(0, Overflow::bytes);
            let arena = state::mount_arena(&state.arena(), bytes).map_err(io("no memory for the arena"))?;
            let arena = Fresh { arena: Some(arena), made: true };
            let journal = Journal::create(&arena.journal()).map_err(io("no memory for the journal"))?;
            let (recovered, references) = (Recovered::default(), References::default());
            return Ok(Memory { arena, overflow, journal, recovered, references });
        }
        Err(e) => return Err(io(unreadable)(e)),
    };
    let overflow = state::open_overflow(state, config.overflow.as_ref()).map_err(overflow)?;
    let arena = state::mount_arena(&state.arena(), config.memory_bytes).map_err(io(unreadable))?;
    let arena = Fresh { arena: Some(arena), made: false };
    let mut recovered = replay(&bytes);
    let (journal, references) = if takes_over {
        Journal::take_over(&path, &recovered).map_err(io(unreadable))?
    } else {
        // Streams are all that the journal does not know of.
        Streams::recover(&config.backing, &arena.streams())
            .map_err(|e| io(unreadable)(io::Error::other(e.to_string())))?;
        (Journal::resume(&path, &mut recovered).map_err(io(unreadable))?, References::default())
    };
    if !recovered.is_empty() {
        log::info!(
            "the last daemon died with {} changes of names and {} files not on the backing: they are kept and drained",
            recovered.changes.len(),
            recovered.nodes.values().filter(|node| node.dirty && !node.gone).count()
        );
    }
    Ok(Memory { arena, overflow, journal, recovered, references })
}

/// Logs whose streams had lost their last name when this daemon began.
pub(super) fn doomed_streams(backing: &Path) -> Vec<StreamId> {
    Streams::doomed(backing).unwrap_or_else(|e| {
        log::warn!("the logs of removed streams can't be looked for: {e}");
        Vec::new()
    })
}

/// Those go now, if the names are gone from the backing as well, unless a crash brought one back, under whatever name
/// it has there: so all of the tree is looked through, in the rare case that there are such logs. If it can't be, they
/// stay, as do those that are open.
pub(super) fn remove_doomed_streams(
    backing: &Path,
    doomed: Vec<StreamId>,
    is_open: impl Fn(StreamId) -> bool,
) {
    let named = match markers_below(backing) {
        Ok(named) => named,
        Err(e) => {
            return log::warn!(
                "the logs of {} removed streams stay until the next mount: the backing can't be looked through for \
                 their names: {e}",
                doomed.len()
            );
        }
    };
    for id in doomed {
        // Somebody may have found it under a name that came back.
        if is_open(id) {
            continue;
        }
        if let Err(e) = Streams::settle_doomed(backing, id, named.contains(&id)) {
            log::warn!("the log of removed stream {id} stays: {e}");
        }
    }
}

/// The streams that have a marker somewhere on a backing.
fn markers_below(backing: &Path) -> io::Result<HashSet<StreamId>> {
    let mut found = HashSet::new();
    let mut directories = vec![backing.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() && path != backing.join(".aimss") {
                directories.push(path);
            } else if kind.is_file() && entry.metadata()?.len() == MARKER_BYTES as u64 {
                found.extend(Marker::decode(&fs::read(path)?).map(|marker| marker.0));
            }
        }
    }
    Ok(found)
}
