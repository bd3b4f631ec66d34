//! Opening a log without changing anything in its directory, which a running daemon may be writing.
//!
//! 1. The directory is looked at as for any opening (see `recover`), but what a crash, or a seal that is
//!    under way, has left undone stays so: it is only taken into account. So the active file may have a name
//!    that says less than is sealed, and is read from the right place.
//! 2. Files may vanish, be renamed, or lose their front between the listing and the indexing. So the names
//!    are listed again when all is indexed, and if they are others by then, it all begins anew.
//!
//! Such a log is the log as of that moment. Later the daemon may seal records and give back their blocks in
//! the active file, or trim: they read as lost, then, or are not found, until the log is opened anew. Nothing
//! is served that was not written: every record is compared with the checksum that it was indexed with.

use super::active::Active;
use super::cache::Cache;
use super::hot::Hot;
use super::names::{self, Listing, MARKS, Name};
use super::recover::{find, path_of};
use super::{Log, LogConfig};
use crate::stream::segment::open_to_read;
use crate::stream::{Error, Framing, Result};
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// A daemon changes names in a log's directory once a second at most, unless it seals: so the second or third
/// look finds them at rest.
const LOOKS_MAX: u32 = 10;
/// Between two looks: longer than a rename, and the cutting of marks and their writing anew, take.
const PAUSE: Duration = Duration::from_millis(20);

impl Log {
    /// Opens the log in `directory`, which must be there, for reading only. Nothing is ever changed in it,
    /// and what would do so fails with [`Error::ReadOnly`]; what is appended later is seen by opening the log
    /// anew.
    pub fn open_read_only(directory: &Path, config: LogConfig) -> Result<Log> {
        config.check()?;
        let mut before = names_in(directory)?;
        for _ in 0..LOOKS_MAX {
            let looked = look(directory, config);
            let after = names_in(directory)?;
            match looked {
                Ok((log, true)) if after == before => return Ok(log),
                Ok(_) => {}
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if after == before => return Err(e),
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
            before = after;
        }
        // Marks that are missing for good are no reason to refuse the rest.
        let (log, _) = look(directory, config)?;
        if names_in(directory)? == before {
            return Ok(log);
        }
        Err(io::Error::new(io::ErrorKind::ResourceBusy, "the log's files keep changing; try again").into())
    }
}

/// The log, and whether its active bytes have their marks: if not, somebody may be about to write them.
fn look(directory: &Path, config: LogConfig) -> Result<(Log, bool)> {
    let found = find(&Listing::of(directory)?, directory, &config)?;
    let file = match found.active {
        Some(named) => Some((named, open_to_read(&path_of(directory, named))?)),
        None => None,
    };
    let last_time = found.last.map_or(0, |header| header.last_time);
    let active = Active::open_read_only(directory, &config, file, found.begin, last_time)?;
    let marked = config.framing != Framing::Write || active.pending_bytes()? == 0;
    let sealed = found.sealed;
    let (hot, cache) = (Hot::default(), Cache::default());
    let log = Log { directory: directory.into(), config, sealed, hot, active, cache };
    Ok((log, marked))
}

/// What tells that files were sealed, trimmed, or begun anew: their names, and the marks' length where it
/// shrinks.
fn names_in(directory: &Path) -> Result<(Vec<String>, u64)> {
    let files = names::list(directory)?.into_iter().filter(|(name, _)| *name != Name::Unfinished);
    let marks = fs::symlink_metadata(directory.join(MARKS)).map_or(0, |metadata| metadata.len());
    Ok((files.map(|(_, file)| file).collect(), marks))
}
