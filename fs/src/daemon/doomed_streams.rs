//! The logs of streams that had lost their names when the last daemon ended.

use aimss_engine::stream::StreamId;
use aimss_engine::stream::live::Streams;
use aimss_engine::stream::settings::markers_below;
use std::path::Path;

/// Logs whose streams had lost their last name when this daemon began. Those that lose it in its time are open until they
/// are gone. All settings that there are on the backing are read for that, so nobody waits for it.
pub(super) fn find(backing: &Path, streams: &Streams) -> Vec<StreamId> {
    let mut doomed = Streams::doomed(backing).unwrap_or_else(|e| {
        log::warn!("the logs of removed streams can't be looked for: {e}");
        Vec::new()
    });
    let open = streams.all();
    doomed.retain(|id| !open.iter().any(|stream| stream.id() == *id));
    doomed
}

/// Those go now, if the names are gone from the backing as well, unless a crash brought one back, under whatever name
/// it has there: so all of the tree is looked through, in the rare case that there are such logs. If it can't be, they
/// stay, as do those that are open.
pub(super) fn remove(backing: &Path, streams: &Streams, doomed: Vec<StreamId>) {
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
        if let Err(e) = streams.settle_doomed(id, named.contains_key(&id)) {
            log::warn!("the log of removed stream {id} stays: {e}");
        }
    }
}
