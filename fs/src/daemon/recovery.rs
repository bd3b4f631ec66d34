//! Before a mount: finishing what a daemon that died left in arena and journal, and removing the logs of streams that
//! had lost their names.

use super::{ServeError, build_engine};
use crate::config::MountConfig;
use crate::state::{self, StateDir};
use aimss_engine::journal::{Journal, replay};
use aimss_engine::stream::live::Streams;
use aimss_engine::stream::settings::MARKER_BYTES;
use aimss_engine::stream::{Marker, StreamId};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::Path;

/// Drains what is left, if anything; afterwards the arena is gone. On an error all of it stays.
pub(super) fn finish_what_was_left(
    config: &MountConfig,
    state: &StateDir,
    node: &str,
) -> Result<(), ServeError> {
    let io =
        |source| ServeError::Io { what: "the arena that the last daemon left can't be read".into(), source };
    let journal = state.arena().join("journal");
    let bytes = match std::fs::read(&journal) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io(e)),
    };
    // Streams are all that the journal does not know of.
    let streams = state.arena().join(state::STREAMS);
    Streams::recover(&config.backing, &streams).map_err(|e| ServeError::Recovery {
        mountpoint: config.mountpoint.display().to_string(),
        backing: config.backing.display().to_string(),
        source: crate::streams::error(e),
    })?;
    let recovered = replay(&bytes);
    let arena = state::mount_arena(&state.arena(), config.memory_bytes).map_err(io)?;
    if recovered.is_empty() {
        arena.discard();
        return Ok(());
    }
    log::info!(
        "the last daemon died with {} changes of names and {} files not on the backing: they are drained first",
        recovered.changes.len(),
        recovered.nodes.values().filter(|node| node.dirty).count()
    );
    let journal = Journal::resume(&journal).map_err(io)?;
    let engine = build_engine(config, &arena, None, node.into(), journal)?;
    engine.recover(&recovered);
    engine.start();
    let drained = engine.drain_all(|_| {});
    engine.stop();
    if let Err(source) = drained {
        return Err(ServeError::Recovery {
            mountpoint: config.mountpoint.display().to_string(),
            backing: config.backing.display().to_string(),
            source,
        });
    }
    arena.discard();
    Ok(())
}

/// Logs whose streams lost their last name before a crash go now, unless it brought a name back, under whatever name
/// the backing had: so all of the tree is looked through, in the rare case that there are such logs. If it can't be,
/// they stay.
pub(super) fn remove_doomed_streams(backing: &Path) {
    let doomed = match Streams::doomed(backing) {
        Ok(doomed) if doomed.is_empty() => return,
        Ok(doomed) => doomed,
        Err(e) => return log::warn!("the logs of removed streams can't be looked for: {e}"),
    };
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
