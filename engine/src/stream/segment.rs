//! Sealed segments: immutable files of records, whose bytes docs/format.md draws.
//!
//! A segment is a header, then blocks, then a footer. Each block has a head, a table with one entry a record
//! (length, time, checksum), and the records' bytes as they are in the stream, by LZ4 or plain.
//!
//! 1. [`Writer`] takes records one by one, cuts blocks at 256 KiB of them, and writes to a file beside. What
//!    was synced is renamed, so that a segment is there whole or not at all.
//! 2. [`Segment`] opens one by its header and its footer. The footer repeats the header and all heads; it is
//!    the sparse index, and either end of the file can stand in for the other. A block is read when somebody
//!    asks for it.
//! 3. [`Block`] is one block in memory, and knows which of its records are as they were written.
//!
//! Every byte is under a checksum, and each in more than one way useful: where a block as a whole is as it
//! was, its records need not be looked at one by one; where it is not, each one's own checksum says whether
//! it was hit. So a flipped bit in a plain block costs one record at most. In a block by LZ4 it costs what
//! was made from it, which is anything from one record to the rest of that block.
//!
//! Not here: more than one segment, and names of files.

mod block;
mod layout;
mod mend;
mod reader;
mod writer;

pub use block::Block;
pub use layout::{HEADER_BYTES, Header, VERSION};
pub use reader::{Fault, Segment};
pub use writer::{Writer, Written};

pub(crate) use reader::{open_to_read, read_there};
pub(crate) use writer::sync_directory;

/// Raw bytes at which a block is closed: LZ4 reaches back 64 KiB and gains little from more, a reader of one
/// record unpacks one block (some 0.1 ms), and the table in memory is a thousandth of a percent of the data.
pub const BLOCK_BYTES: u32 = 256 << 10;

/// The largest segment. A block holds at least one whole record and counts its bytes in 32 bits.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How blocks are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// By LZ4, where that makes them smaller.
    #[default]
    Lz4,
    /// As they are.
    None,
}
