//! The swap file of a mount, and the note about it: a daemon that dies leaves it in use, and the next one ends it.

use super::StateDir;
use crate::config::OverflowConfig;
use aimss_engine::arena::{Overflow, check_overflow_free, release_overflow};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Name of the note in the state directory; it holds the path.
const NOTE: &str = "overflow";

/// Swaps to what the settings name, if they name something; or goes on with what the last daemon swapped to, if its arena
/// is taken up.
pub fn open_overflow(state: &StateDir, config: Option<&OverflowConfig>) -> io::Result<Option<Overflow>> {
    if let Some(overflow) = overflow_in_use(state)? {
        return Ok(Some(overflow));
    }
    let Some(config) = config else { return Ok(None) };
    let note = state.path().join(NOTE);
    // Somebody else's is neither used nor ever ended by us.
    check_overflow_free(&config.path)?;
    // Before it is there: a daemon that dies in between leaves nothing unnoted.
    fs::write(&note, config.path.as_os_str().as_bytes())?;
    Overflow::open(&config.path, config.bytes).map(Some).inspect_err(|_| drop(fs::remove_file(&note)))
}

/// What another daemon swaps to, or swapped to before it died.
pub fn overflow_in_use(state: &StateDir) -> io::Result<Option<Overflow>> {
    match fs::read(state.path().join(NOTE)) {
        Ok(path) => Overflow::take_up(Path::new(OsStr::from_bytes(&path))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Ends the one that was noted, if there is one; the files whose memory it holds are gone.
pub fn end_overflow(state: &StateDir) {
    let note = state.path().join(NOTE);
    let Ok(path) = fs::read(&note) else { return };
    let path = Path::new(OsStr::from_bytes(&path));
    match release_overflow(path) {
        Ok(()) => drop(fs::remove_file(note)),
        Err(e) => log::warn!("the overflow {} stays in use: {e}", path.display()),
    }
}
