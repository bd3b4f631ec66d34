//! Requests that take too long, for status and log, and programs that were killed while they waited.

use super::Daemon;
use crate::adapter::held::Request;
use crate::control::status::{RequestStatus, RequestsStatus};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

impl Daemon {
    /// Lets go who was killed, and says what takes too long.
    pub(super) fn look_at_requests(&self) {
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

    /// Relative to the mount's root; of an object that has no name any more, only the name that was asked for.
    fn path_of(&self, request: &Request) -> PathBuf {
        let mut path =
            PathBuf::from(OsString::from_vec(self.engine.path_of(request.ino).unwrap_or_default()));
        if !request.name.is_empty() {
            path.push(OsString::from_vec(request.name.to_vec()));
        }
        path
    }
}
