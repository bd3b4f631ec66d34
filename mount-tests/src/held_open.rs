//! A file whose opens wait, as those of a storage that does not answer: by fanotify(7), which asks a listener that says
//! nothing.

use anyhow::{Context as _, Result, ensure};
use std::ffi::CString;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// As long as it lives, whoever opens the file waits; this process, too.
#[derive(Debug)]
pub struct HeldOpen {
    /// Closed, all who wait may go on.
    _listener: OwnedFd,
}

impl HeldOpen {
    /// Has all who open the file `path` wait. An error without root, or on a kernel without such questions.
    #[allow(unsafe_code)]
    pub fn hold(path: &Path) -> Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        // SAFETY: no pointers.
        let raw = unsafe { libc::fanotify_init(libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC, 0) };
        ensure!(raw >= 0, "fanotify: {}", std::io::Error::last_os_error());
        // SAFETY: the descriptor is new, and ours.
        let listener = unsafe { OwnedFd::from_raw_fd(raw) };
        let (add, opens) = (libc::FAN_MARK_ADD, libc::FAN_OPEN_PERM);
        // SAFETY: the name is a string of C, and lives as long as the call.
        let marked =
            unsafe { libc::fanotify_mark(listener.as_raw_fd(), add, opens, libc::AT_FDCWD, name.as_ptr()) };
        let failed = (marked < 0).then(std::io::Error::last_os_error);
        failed.map_or(Ok(()), Err).with_context(|| format!("fanotify of {}", path.display()))?;
        Ok(Self { _listener: listener })
    }
}
