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
//!   the plain view, parts of an active record of more than 1 MiB apart.
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
mod index;
mod marks;
mod names;
mod read;
mod read_only;
mod recover;
mod retention;
mod seal;
mod statistics;
mod verify;

pub use copy::{Copied, News};
pub use read::{Batch, Record};
pub use retention::{Retention, Trimmed};
pub use seal::Piece;
pub use statistics::Statistics;

use super::segment::BLOCK_BYTES;
use super::{Compression, Framing, FramingError, Micros, Offset, Position, Result};
use active::Active;
use cache::Cache;
use std::path::{Path, PathBuf};

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

    /// How many bytes at the active file's front are in sealed segments, and are not read any more.
    pub fn sealed_front_bytes(&self) -> u64 {
        self.active.front_bytes()
    }

    /// Bytes of records that are not sealed.
    pub fn active_bytes(&self) -> u64 {
        self.active.index.bytes()
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
