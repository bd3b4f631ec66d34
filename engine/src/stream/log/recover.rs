//! Opening a log, whatever a crash left.
//!
//! 1. Unfinished files are removed: what they were for is still where it was.
//! 2. The last segment says how far the log is sealed. If it can't be read, it counts as damaged if the
//!    active file begins behind it; if the active file still has its records, it is put out of the way, and
//!    those count.
//! 3. The active file is the last one by its name. A seal that was interrupted has left it with a name that
//!    says less than is sealed: it gets the right one. A new active file that was just made has an old one
//!    beside it, in which nothing is left: that is removed.
//! 4. The active file is indexed. What is no whole record at its end stays, for whoever may go on writing it.
//!
//! All is looked at before anything is changed; `read_only` takes the first part alone.

use super::active::{Active, length_of};
use super::cache::Cache;
use super::copy;
use super::hot::Hot;
use super::names::{self, Listing, Name};
use super::{Log, LogConfig, Sealed};
use crate::stream::segment::{Header, SEGMENT_BYTES_MAX, Segment, sync_directory};
use crate::stream::{Error, Result};
use std::cmp::Reverse;
use std::fs;
use std::path::{Path, PathBuf};

/// Ending of a segment that can't be read and whose records the active file has.
pub(crate) const DAMAGED: &str = "damaged";

/// Offset, position, skip: what an active file's name says.
pub(super) type Begin = (u64, u64, u64);

/// What is in a log's directories, and what has to be changed there before anybody appends.
pub(super) struct Found {
    pub sealed: Vec<Sealed>,
    /// Header of the last segment, if it can be read.
    pub last: Option<Header>,
    /// The active file that is in use, as its name says.
    pub active: Option<Begin>,
    /// What its name should say; of a new one if there is none, or if nothing in it is needed.
    pub begin: Begin,
    changes: Vec<Change>,
}

/// Something that a crash left undone; paths are whole.
pub(crate) enum Change {
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

/// What [`Log::open`] would do to a log's directory before anything else, all in the log's own directory.
pub(crate) fn left_undone(directory: &Path, config: &LogConfig) -> Result<Vec<Change>> {
    Ok(find(&Listing::of(directory)?, directory, config)?.changes)
}

impl Log {
    /// Opens the log in `directory`, which is made if it is missing.
    pub fn open(directory: &Path, config: LogConfig) -> Result<Log> {
        fs::create_dir_all(directory)?;
        Log::open_apart(&Listing::of(directory)?, directory, config)
    }

    /// The same with the active file, and its marks, in another directory, on faster storage. What the log's own
    /// directory has of an active file is a copy, which [`Copied`](super::Copied) keeps up to date; where the other
    /// directory has none, it begins with that copy.
    pub fn open_apart(listing: &Listing, active_directory: &Path, config: LogConfig) -> Result<Log> {
        config.check()?;
        fs::create_dir_all(active_directory)?;
        let directory = &listing.directory;
        if directory != active_directory {
            copy::fetch(listing, active_directory)?;
        }
        let found = find(listing, active_directory, &config)?;
        put_right(&found.changes, active_directory)?;
        let (sealed, begin) = (found.sealed, found.begin);
        let last_time = found.last.map_or(0, |header| header.last_time);
        let active = Active::open((active_directory, directory), &config, begin, last_time)?;
        Ok(Log {
            directory: directory.into(),
            config,
            sealed,
            hot: Hot::default(),
            active,
            cache: Cache::default(),
        })
    }
}

/// Looks, and changes nothing.
pub(super) fn find(listing: &Listing, active_directory: &Path, config: &LogConfig) -> Result<Found> {
    let directory = &listing.directory;
    let (mut sealed, mut actives, mut changes) = (Vec::new(), Vec::new(), Vec::new());
    for (name, file) in &listing.files {
        match *name {
            Name::Unfinished => changes.push(Change::Remove(directory.join(file))),
            Name::Sealed { offset, position } => sealed.push(Sealed { offset, position, name: file.clone() }),
            Name::Active { .. } | Name::Torn { .. } => {}
        }
    }
    for (name, _) in names::list(active_directory)? {
        if let Name::Active { offset, position, skip } = name {
            actives.push((offset, position, skip));
        }
    }
    let chosen = choose(active_directory, &actives, &mut changes)?;
    let last = last_sealed(directory, &mut sealed, chosen, &mut changes)?;
    if let Some(header) = &last
        && header.framing != config.framing
    {
        return Err(Error::FramingDiffers { has: header.framing, wanted: config.framing });
    }
    let (active, begin) = settle(active_directory, chosen, last.as_ref(), &mut changes)?;
    drop_misplaced(&mut sealed, begin);
    Ok(Found { sealed, last, active, begin, changes })
}

/// Does what was left undone.
fn put_right(changes: &[Change], active_directory: &Path) -> Result<()> {
    for change in changes {
        match change {
            Change::Remove(path) => fs::remove_file(path)?,
            Change::Rename(from, to) if to.extension().is_some_and(|ending| ending == DAMAGED) => {
                let name = from.file_name().unwrap_or_default().to_string_lossy();
                log::warn!(
                    "{name} can't be read and is put out of the way: it has a name ending in .damaged now"
                );
                fs::rename(from, names::unused(to))?;
            }
            Change::Rename(from, to) => fs::rename(from, to)?,
        }
    }
    if changes.iter().any(|change| matches!(change, Change::Rename(..))) {
        sync_directory(active_directory)?;
    }
    Ok(())
}

/// Forgets segments that don't begin before the one behind them, or the active file, does. Nobody here makes
/// such.
fn drop_misplaced(sealed: &mut Vec<Sealed>, (offset, position, _): Begin) {
    let mut end = (offset, position);
    sealed.reverse();
    sealed.retain(|sealed| {
        let placed = sealed.offset < end.0 && sealed.position < end.1;
        if placed {
            end = (sealed.offset, sealed.position);
        }
        placed
    });
    sealed.reverse();
}

impl LogConfig {
    /// Refuses what can't work.
    pub fn check(&self) -> Result<()> {
        if self.segment_bytes == 0 || self.segment_bytes > SEGMENT_BYTES_MAX {
            return Err(Error::Settings("a segment has from 1 byte to 1 GiB"));
        }
        if self.block_bytes == 0 {
            return Err(Error::Settings("a block has at least 1 byte"));
        }
        Ok(self.framing.check(self.segment_bytes)?)
    }
}

pub(super) fn path_of(directory: &Path, (offset, position, skip): Begin) -> PathBuf {
    directory.join(Name::Active { offset, position, skip }.text())
}

/// The active file that is in use. Others without anything in them are to go.
fn choose(directory: &Path, actives: &[Begin], changes: &mut Vec<Change>) -> Result<Option<Begin>> {
    let mut lengths = Vec::with_capacity(actives.len());
    for begin in actives {
        lengths.push((*begin, length_of(&path_of(directory, *begin))? > begin.2));
    }
    // The last in the stream; of two for the same place the one with something in it, or the new one.
    lengths.sort_by_key(|((offset, position, skip), used)| (*offset, *position, *used, Reverse(*skip)));
    let chosen = lengths.pop();
    for (begin, used) in lengths {
        if !used {
            changes.push(Change::Remove(path_of(directory, begin)));
        }
    }
    Ok(chosen.map(|(begin, _)| begin))
}

/// The header of the last segment, if it can be read.
fn last_sealed(
    directory: &Path,
    sealed: &mut Vec<Sealed>,
    active: Option<Begin>,
    changes: &mut Vec<Change>,
) -> Result<Option<Header>> {
    while let Some(last) = sealed.last() {
        let path = directory.join(&last.name);
        match Segment::open(&path) {
            Ok(segment) => {
                let header = *segment.header();
                if (header.offset, header.position) == (last.offset, last.position) {
                    return Ok(Some(header));
                }
            }
            Err(Error::NotSegment { .. }) => {}
            Err(e) => return Err(e),
        }
        if active.is_some_and(|(offset, ..)| offset > last.offset) {
            return Ok(None);
        }
        let aside = directory.join(format!("{}.{DAMAGED}", last.name));
        changes.push(Change::Rename(path, aside));
        sealed.pop();
    }
    Ok(None)
}

/// The active file if something in it is needed, and where the active records begin.
fn settle(
    directory: &Path,
    active: Option<Begin>,
    last: Option<&Header>,
    changes: &mut Vec<Change>,
) -> Result<(Option<Begin>, Begin)> {
    let sealed = last.map_or((0, 0), |header| (header.end_offset(), header.end_position()));
    let fresh = (sealed.0, sealed.1, 0);
    let Some(active) = active else { return Ok((None, fresh)) };
    let (offset, position, skip) = active;
    if offset >= sealed.0 {
        return Ok((Some(active), active));
    }
    let path = path_of(directory, active);
    let length = length_of(&path)?;
    // A position that is ahead although the offset is behind can't be right, and has no byte in the file.
    let right = (sealed.0, sealed.1, sealed.1.checked_sub(position).map_or(u64::MAX, |bytes| skip + bytes));
    if right.2 <= length {
        changes.push(Change::Rename(path, path_of(directory, right)));
        return Ok((Some(active), right));
    }
    // The file has less than was sealed of it: nothing in it is needed, but it is not what we left.
    if length > skip {
        changes.push(Change::Rename(path, directory.join(Name::Torn { position }.text())));
    } else {
        changes.push(Change::Remove(path));
    }
    Ok((None, fresh))
}
