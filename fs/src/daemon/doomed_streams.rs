//! The logs of streams that had lost their names when the last daemon ended.

use aimss_engine::stream::StreamId;
use aimss_engine::stream::live::Streams;
use aimss_engine::stream::settings::markers_below;
use std::path::Path;

/// Logs whose streams had lost their last name when this daemon began.
pub(super) fn find(backing: &Path) -> Vec<StreamId> {
    Streams::doomed(backing).unwrap_or_else(|e| {
        log::warn!("the logs of removed streams can't be looked for: {e}");
        Vec::new()
    })
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
