//! What a log refuses, and what it found damaged.

use super::{Framing, FramingError, Offset, Position};
use std::fmt;
use std::io;
use std::ops::Range;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation on a stream did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The framing, or a record that doesn't keep to it. Nothing was changed.
    #[error(transparent)]
    Framing(#[from] FramingError),
    /// A setting makes no sense: choose another.
    #[error("{0}")]
    Settings(&'static str),
    /// The segment was written by a later version: read it with that one. Nothing was changed.
    #[error("{file} has version {version} of the segment format; this program reads versions up to {known}")]
    Newer {
        /// Name of the file.
        file: String,
        /// Its version.
        version: u32,
        /// The last version known here.
        known: u32,
    },
    /// Neither the beginning nor the end of the file says what it holds. Its records are lost.
    #[error("{file} is not a segment, or is damaged at both ends")]
    NotSegment {
        /// Name of the file.
        file: String,
    },
    /// The stream has data with another framing: open it with that one.
    #[error("the stream has records framed as `{has}`, which can't be read as `{wanted}`")]
    FramingDiffers {
        /// Of the records that are there.
        has: Framing,
        /// As the caller said.
        wanted: Framing,
    },
    /// Retention has removed it: go on from `first`.
    #[error("trimmed: the first record that is left has offset {}", first.0)]
    Trimmed {
        /// The first record that is left.
        first: Offset,
        /// And its first byte.
        position: Position,
    },
    /// Behind the end of the stream.
    #[error("behind the end of the stream")]
    PastEnd,
    /// There is no such record, and never was or not any more.
    #[error("record {} is not there: the stream has records {} to {}", offset.0, first.0, end.0)]
    OutOfRange {
        /// As asked.
        offset: Offset,
        /// The first that is retained.
        first: Offset,
        /// Behind the last.
        end: Offset,
    },
    /// Not one record fits: come back with more room.
    #[error("the record needs a buffer of {needed_bytes} bytes")]
    BufferTooSmall {
        /// Length of the record.
        needed_bytes: usize,
    },
    /// The bytes are damaged or missing: go on at `until`.
    #[error("the bytes up to byte {} of the stream are damaged or missing", until.0)]
    Lost {
        /// The next byte that may be read.
        until: Position,
    },
    /// This failed with one of several streams: look at that one, or try again. With the others all was done.
    #[error("stream {stream}: {source}")]
    Stream {
        /// Where it is, as far as is known, and its id.
        stream: String,
        /// Why.
        source: Box<Error>,
    },
    /// The log was opened for reading only: open it with [`Log::open`](super::Log::open). Nothing was
    /// changed.
    #[error("the log was opened for reading only")]
    ReadOnly,
    /// A file of the log could not be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What is wrong with a place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Damage {
    /// Records between two files are in none.
    Missing,
    /// The file can't be read as a segment.
    NotSegment,
    /// The file holds other records than its name says.
    Misplaced,
    /// The segment's header; the copy in the footer was used.
    Header,
    /// The segment's footer; the blocks themselves were asked.
    Footer,
    /// The file ends before its last block does.
    Cut,
    /// The head of a block; the copy in the footer was used.
    BlockHead,
    /// The table of a block's records.
    Entries,
    /// The stored bytes of a block.
    Stored,
    /// Records differ from their checksums.
    Records,
    /// Bytes at the end of the active file that are no whole record.
    TornTail,
    /// Bytes that are no record, taken out of the stream and kept in a file of their own.
    SetAside,
    /// A file with the name of an active file or a segment that has no place in the stream, and is not in
    /// use.
    Leftover,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Damage::Missing => "a segment is missing",
            Damage::NotSegment => "not a segment, or damaged at both ends",
            Damage::Misplaced => "holds other records than its name says",
            Damage::Header => "the header is damaged",
            Damage::Footer => "the footer is damaged or missing",
            Damage::Cut => "the file is cut short",
            Damage::BlockHead => "the head of a block is damaged",
            Damage::Entries => "the table of a block is damaged",
            Damage::Stored => "the stored bytes of a block are damaged",
            Damage::Records => "records differ from their checksums",
            Damage::TornTail => "the last record is not complete",
            Damage::SetAside => "bytes that are no record were set aside",
            Damage::Leftover => "a file that has no place in the stream",
        })
    }
}

/// Something that [`verify`](super::Log::verify) found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file in the log's directory.
    pub file: String,
    /// Place in that file, in bytes.
    pub at: u64,
    /// What is wrong there.
    pub damage: Damage,
    /// Records that are lost by it; empty where nothing is.
    pub lost: Range<u64>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at byte {}: {}", self.file, self.at, self.damage)?;
        if self.lost.is_empty() {
            return Ok(());
        }
        write!(f, "; lost are records {} to {}", self.lost.start, self.lost.end - 1)
    }
}
