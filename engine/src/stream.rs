//! Streams: append-only logs of immutable records, usable without a mount.
//!
//! A stream is a sequence of bytes that some writer appended, and a framing that says where in them records
//! end. Nothing is added to the bytes and nothing is taken away, so that the plain view of a stream is a
//! concatenation.
//!
//! 1. [`framing`] splits bytes into records, as they come.
//! 2. [`segment`] is the format of a sealed segment: blocks of records, compressed and checksummed, with an
//!    index.
//! 3. [`log`] is the log: sealed segments and, behind them, the one active file that writers append to.
//!
//! A place in a stream has two names, which must not be confused: the [`Offset`] counts records and the
//! [`Position`] counts bytes, both from the stream's first one, whether that is still retained or not.
//!
//! What is damaged is found by a checksum, is reported as a [`Problem`], and costs only the records that it
//! hits: they are counted as lost, and those around them are served. No record is served that differs from
//! what was indexed.
//!
//! 4. [`settings`] says what a stream was made with, and how a name on the backing stands for it.
//! 5. [`group`] is who got which records.
//! 6. [`partition`] makes several streams one, and [`assignment`] says which member reads which of them.
//! 7. [`live`] is what a mount runs: streams that are appended to by others and read by members who wait.
//! 8. [`dataflow`] is the same for one program without a mount: streams by name, and shuffles between them.

pub mod assignment;
pub mod dataflow;
mod error;
pub mod framing;
pub mod group;
pub mod live;
pub mod log;
pub mod partition;
mod plain;
pub mod segment;
pub mod settings;

pub use dataflow::Dataflow;
pub use error::{Damage, Error, Problem, Result};
pub use framing::{Framing, FramingError, Splitter};
pub use log::{Batch, Indexed, Log, LogConfig, Record, Retention, Statistics, Trimmed};
pub use partition::Partition;
pub use segment::Compression;
pub use settings::{Marker, Settings, StreamId};

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The number of a record: how many came before it in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub u64);

/// The place of a byte: how many came before it in its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// A point in time in microseconds since 1970. The times of a stream's records never go back, whatever the
/// clock does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// The clock's reading.
    pub fn now() -> Micros {
        SystemTime::now().into()
    }

    /// The point in time that was `age` ago; 1970 at the earliest.
    #[must_use]
    pub fn before(self, age: Duration) -> Micros {
        Micros(self.0.saturating_sub(u64::try_from(age.as_micros()).unwrap_or(u64::MAX)))
    }
}

impl From<SystemTime> for Micros {
    /// Times before 1970 become 1970.
    fn from(time: SystemTime) -> Micros {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }
}
