//! References that a daemon which died counted, and that the kernel does not have: what was removed would stay in memory for
//! them. See [`aimss_engine::Engine::unforgotten`].

use super::Daemon;
use crate::session;
use crate::streams::StreamFiles;
use aimss_engine::Ino;
use std::collections::HashSet;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks. What the kernel was told before the last one it knows by now, or never will.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The most objects that it is asked about at one look.
const ASKED_MAX: usize = 1000;

/// Asks the kernel every now and then, on a thread of its own: it may have to wait for a file that the kernel is giving up.
pub(super) fn look_after(daemon: &Arc<Daemon>) {
    let mut unknown = HashSet::new();
    let look = move |daemon: &Daemon| {
        daemon.look_at_references(&mut unknown);
        Some(LOOK_EVERY)
    };
    if let Err(e) = daemon.keep_looking("references", LOOK_EVERY, look) {
        log::warn!("no thread to look at references: what is removed may stay in memory: {e}");
    }
}

impl Daemon {
    /// `unknown`: what the kernel didn't know at the last look. What it doesn't know twice it gives back.
    fn look_at_references(&self, unknown: &mut HashSet<Ino>) {
        let before = std::mem::take(unknown);
        let Some(device) = self.shared.device.get() else { return };
        // What is not answered for so long may be about any of them.
        if self.shared.held.oldest() >= LOOK_EVERY {
            return;
        }
        for ino in self.engine.unforgotten(LOOK_EVERY / 2, ASKED_MAX) {
            // Handles of streams, and their other nodes, are not in the engine.
            if self.streams.is_used(ino) {
                continue;
            }
            let numbers = [ino.0, StreamFiles::appender(ino)];
            if numbers.iter().any(|number| session::is_known(device.as_fd(), *number)) {
                continue;
            }
            if before.contains(&ino) {
                self.engine.forget(ino, u64::MAX);
            } else {
                unknown.insert(ino);
            }
        }
    }
}
