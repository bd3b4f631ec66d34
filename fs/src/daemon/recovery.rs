//! Before a mount: finishing what a daemon that died left in arena and journal.

use super::{ServeError, build_engine};
use crate::config::MountConfig;
use crate::state::{self, StateDir};
use aimss_engine::journal::{Journal, replay};
use aimss_engine::stream::live::Streams;

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
    let engine = build_engine(config, &arena, node.into(), journal)?;
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
