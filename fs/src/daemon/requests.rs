//! Requests that take too long, for status and log, and programs that were killed while they waited.

use super::Daemon;
use crate::adapter::held::Request;
use crate::control::status::{RequestStatus, RequestsStatus};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks at requests every now and then, on a thread of its own, which waits for nobody, until the daemon is gone.
pub(super) fn look_after(daemon: &Arc<Daemon>) {
    let look = |daemon: &Daemon| {
        daemon.look_at_requests();
        Some(LOOK_EVERY)
    };
    if let Err(e) = daemon.keep_looking("requests", LOOK_EVERY, look) {
        log::warn!(
            "no thread to look at requests that take long: programs that wait for them can't be killed: {e}"
        );
    }
}

impl Daemon {
    /// Lets go who was killed, and says what takes too long.
    fn look_at_requests(&self) {
        if let Some(device) = self.shared.device.get() {
            self.shared.held.let_killed_go(device);
        }
        for request in self.shared.held.newly_too_long() {
            let (age, path) = (request.since.elapsed().as_secs(), self.path_of(&request));
            let (operation, path) = (request.operation, path.display());
            log::warn!("{operation} of {path:?} by thread {} is not answered for {age} s", request.thread);
        }
    }

    /// For `aimss status`.
    pub(super) fn requests(&self) -> RequestsStatus {
        let (oldest, more) = self.shared.held.too_long();
        let oldest: Vec<RequestStatus> = oldest
            .iter()
            .map(|request| RequestStatus {
                operation: request.operation.into(),
                path: self.path_of(request),
                thread: request.thread,
                age: request.since.elapsed().as_secs_f64(),
            })
            .collect();
        RequestsStatus { too_long: (oldest.len() + more) as u64, oldest }
    }

    /// Relative to the mount's root. Of what has no name any more, or is held by whom the request waits for, the number:
    /// nobody waits here for what hangs.
    fn path_of(&self, request: &Request) -> PathBuf {
        let path = self.engine.path_if_free(request.ino);
        let path = path.unwrap_or_else(|| format!("(inode {})", request.ino.0).into_bytes());
        let mut path = PathBuf::from(OsString::from_vec(path));
        if !request.name.is_empty() {
            path.push(OsString::from_vec(request.name.to_vec()));
        }
        path
    }
}
