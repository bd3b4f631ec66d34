//! The log: one directory, in it sealed segments and, behind them, one active file.
//!
//! The active file holds the stream's bytes and nothing else, so that a writer that knows nothing of us, or
//! the kernel for it, can append to it. Nobody tells us; [`Log::index_new_bytes`] looks how far the file has
//! grown, splits what is new into records and enters each into an index in memory, with its checksum and the
//! time.
//!
//! 1. **Append.** By anybody, to the file at [`Log::active_path`]; or by [`Log::append`], if the caller is
//!    the only writer. Records framed as `write` come by `append` alone, since their bytes don't say where
//!    they end.
//! 2. **Read.** By offset ([`Log::read`]), by position ([`Log::read_bytes`], the plain view), and from a time
//!    on ([`Log::offset_at_time`]), from sealed segments and from the active file alike.
//! 3. **Seal.** Records are taken from the active file's front into a sealed segment, by [`Log::seal`] if
//!    nobody else writes, which goes on in a new active file; else by [`Log::seal_full`], which keeps the
//!    file: its front is then not read any more, and may be given back.
//! 4. **Trim.** [`Log::trim`] removes whole segments from the front.
//! 5. **Open.** The directory's listing and the last segment's header are all that is read of what is sealed.
//!    The active file is indexed anew; its records get the time of its last change, which is the latest they
//!    may have.
//!
//! Invariants:
//! - A record's bytes are served only if they have the checksum that they were indexed or written with; in
//!   the plain view, parts of an active record of more than 1 MiB apart. One that is sealed and was changed in the
//!   active file is read from its segment.
//! - A segment has its name only when it is whole and durable, and records leave the index only after that. A
//!   crash in between leaves records in both; the segment's are the ones that count.
//! - Names say where files begin in the stream (see `names`), so what is missing between two of them is
//!   known.
//! - Offsets and positions are not reused, except those of a torn tail, which never was a record.
//!
//! Not here: threads, clocks and wake-ups. The caller says when, and what time it is; changes take `&mut
//! self`, reads don't, and [`Piece`] does the long part of a seal with no borrow at all.

mod active;
mod cache;
mod copy;
mod hot;
mod index;
mod lend;
mod marks;
pub(crate) mod names;
mod read;
mod read_only;
pub(crate) mod recover;
mod retention;
mod seal;
mod statistics;
mod verify;

pub(super) use active::length_of;
pub use copy::{Copied, News};
pub(in crate::stream) use lend::{Found, Span};
pub use names::Listing;
pub use read::{Batch, Record};
pub use retention::{Retention, Trimmed};
pub use seal::Piece;
pub use statistics::Statistics;

use super::segment::BLOCK_BYTES;
use super::{Compression, Framing, FramingError, Micros, Offset, Position, Result};
use active::Active;
use cache::Cache;
use hot::Hot;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a log is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// How its bytes are divided. A log with sealed records keeps the framing that they have.
    pub framing: Framing,
    /// At how many bytes the active segment is full. Also the longest record. At most
    /// [`SEGMENT_BYTES_MAX`](super::segment::SEGMENT_BYTES_MAX).
    pub segment_bytes: u64,
    /// How new segments are stored.
    pub compression: Compression,
    /// At how many bytes a block of a new segment is closed.
    pub block_bytes: u32,
}

impl Default for LogConfig {
    /// Lines, segments of 64 MiB by LZ4 in blocks of 256 KiB.
    fn default() -> LogConfig {
        LogConfig {
            framing: Framing::Line,
            segment_bytes: 64 << 20,
            compression: Compression::Lz4,
            block_bytes: BLOCK_BYTES,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    config: LogConfig,
    /// In order; each begins where the one before it ends, unless one is missing.
    sealed: Vec<Sealed>,
    /// Sealed, but still in the active file.
    hot: Hot,
    active: Active,
    cache: Cache,
}

/// A sealed segment, as far as its name tells.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    offset: u64,
    position: u64,
    name: String,
}

/// What [`Log::index_new_bytes`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Indexed {
    /// Records that were new.
    pub records: u64,
    /// Bytes behind the last whole record.
    pub pending_bytes: u64,
    /// Why those bytes can't become a record, whatever follows. [`Log::set_tail_aside`] goes on behind them.
    pub refused: Option<FramingError>,
}

impl Log {
    /// Enters what was appended to the active file since the last call, as records of the time `now`.
    pub fn index_new_bytes(&mut self, now: Micros) -> Result<Indexed> {
        let records = self.active.index_new_bytes(now.0)?;
        Ok(Indexed { records, pending_bytes: self.active.pending_bytes()?, refused: self.active.refused() })
    }

    /// Appends one record, framing bytes included, and returns its offset. For logs that nobody else writes
    /// to: an incomplete record at the end is set aside, whoever began it. What fails leaves nothing of the
    /// record.
    pub fn append(&mut self, record: &[u8], now: Micros) -> Result<Offset> {
        self.active.append(record, now.0).map(Offset)
    }

    /// Takes what is behind the last whole record out of the stream, into a file of its own
    /// (`POSITION.torn`), and returns how many bytes that were. No other writer may have the active file
    /// open.
    pub fn set_tail_aside(&mut self) -> Result<u64> {
        self.active.set_tail_aside()
    }

    /// Whether the lengths of active records that are kept beside them are whole, where there are such.
    pub fn marks_agree(&self) -> Result<bool> {
        self.active.marks_agree()
    }

    /// Makes what was appended durable. Without it, what a crash of the machine leaves of the active file is
    /// up to its file system.
    pub fn sync(&self) -> Result<()> {
        self.active.sync()
    }

    /// Gives back the descriptor that [`Log::append`] writes by; the next append opens another.
    pub fn close_writer(&mut self) {
        self.active.close_writer();
    }

    /// Settings.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The active file. Its name changes with each seal, and with [`Log::seal`] also the file.
    pub fn active_path(&self) -> PathBuf {
        self.active.path()
    }

    /// The same as [`Log::index_new_bytes`], of at most so many bytes.
    pub fn index_some(&mut self, now: Micros, bytes_max: u64) -> Result<u64> {
        self.active.index_some(now.0, bytes_max)
    }

    /// How far the active file was looked at, in its bytes.
    pub fn seen(&self) -> u64 {
        self.active.seen()
    }

    /// Whether records are found in the bytes: not where each write(2) is one, nor behind bytes that can't be
    /// divided.
    pub fn is_splitting(&self) -> bool {
        self.config.framing != Framing::Write && !self.is_refused()
    }

    /// Whether bytes at the end can't be divided, whatever follows.
    pub fn is_refused(&self) -> bool {
        self.active.refused().is_some()
    }

    /// The active file, open for reading.
    pub fn active_file(&self) -> Arc<File> {
        Arc::clone(&self.active.file)
    }

    /// Where in the stream a byte of the active file is.
    pub fn position_at(&self, file_at: u64) -> Position {
        Position(self.active.position_at(file_at))
    }

    /// Behind the last byte that was appended, whether it ends a record or not.
    pub fn end_of_bytes(&self) -> Result<Position> {
        Ok(Position(self.active.index.end_position() + self.active.pending_bytes()?))
    }

    /// Reads bytes at or behind the last record's end, which are no record yet.
    pub fn read_pending(&self, from: Position, into: &mut [u8]) -> Result<usize> {
        Ok(super::segment::read_there(&self.active.file, into, self.active.file_at(from.0))?)
    }

    /// How many bytes at the active file's front are in sealed segments, and are not read any more.
    pub fn sealed_front_bytes(&self) -> u64 {
        self.hot.position().map_or(self.active.front_bytes(), |position| self.active.file_at(position))
    }

    /// Bytes of memory for records that are sealed and still read from the active file: theirs, and their
    /// index's.
    pub fn hot_bytes(&self) -> u64 {
        self.hot.bytes()
    }

    /// Reads the oldest of those from their segment from now on; false if there are none.
    pub fn cool(&mut self) -> bool {
        self.hot.cool()
    }

    /// Reads a sealed record, and those before it, from their segments from now on; false if it is not sealed.
    pub fn cool_up_to(&mut self, offset: Offset) -> bool {
        let sealed = offset.0 < self.active.index.offset;
        while sealed && self.hot.of_offset(offset.0).is_some() && self.hot.cool() {}
        sealed
    }

    /// Reads all sealed records from their segments from now on: for a log whose active file is on the same
    /// storage.
    pub fn cool_all(&mut self) {
        self.hot.clear();
    }

    /// Bytes of records that are not sealed.
    pub fn active_bytes(&self) -> u64 {
        self.active.index.bytes()
    }

    /// Bytes that are in no segment, whether they are records or not.
    pub fn unsealed_bytes(&self) -> u64 {
        self.active_bytes() + self.active.pending_bytes().unwrap_or(0)
    }

    /// Number of sealed segments.
    pub fn sealed_segments(&self) -> usize {
        self.sealed.len()
    }

    /// The first record that is retained, and its first byte.
    pub fn first(&self) -> (Offset, Position) {
        let (offset, position) = self.begin_of(0);
        (Offset(offset), Position(position))
    }

    /// Behind the last record that is indexed, and its last byte.
    pub fn end(&self) -> (Offset, Position) {
        (Offset(self.active.index.end_offset()), Position(self.active.index.end_position()))
    }

    /// Where a sealed segment begins, by its name; behind the last one, where the active records do.
    fn begin_of(&self, segment: usize) -> (u64, u64) {
        match self.sealed.get(segment) {
            Some(sealed) => (sealed.offset, sealed.position),
            None => (self.active.index.offset, self.active.index.position),
        }
    }
}
