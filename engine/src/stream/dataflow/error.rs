//! What a dataflow refuses.

use crate::stream::{self, Framing};
use std::io;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation did not happen. Nothing was changed, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory is in use: close what uses it.
    #[error("{directory} is in use by a mount or another dataflow; unmount or close that first")]
    InUse {
        /// The directory.
        directory: String,
    },
    /// What a dead mount had in memory must come first.
    #[error("a mount of {directory} died and left data in memory; mount it there again and unmount it first")]
    MountDied {
        /// The directory.
        directory: String,
    },
    /// A name that no stream can have.
    #[error("'{name}' can't be a stream's name: that is the name of a file, without / and @")]
    StreamName {
        /// The name.
        name: String,
    },
    /// A name that no group can have.
    #[error("'{name}' can't be a group's name: that has 1 to 64 letters, digits, '.', '_', '-'")]
    GroupName {
        /// The name.
        name: String,
    },
    /// There is none of this name.
    #[error("there is no stream {name}; create it first")]
    NoStream {
        /// The name.
        name: String,
    },
    /// The name is taken.
    #[error("there is a stream or another file {name} already; destroy it, or choose another name")]
    Exists {
        /// The name.
        name: String,
    },
    /// Nothing more is appended to a stream that is finished.
    #[error("stream {name} is finished; what is to be appended goes to another stream")]
    Finished {
        /// The stream.
        name: String,
    },
    /// It has writers, who may be about to append: drop them.
    #[error("stream {name} has writers; drop them first")]
    HasWriters {
        /// The stream.
        name: String,
    },
    /// It was destroyed while it was used: stop using it.
    #[error("stream {name}, or the group, was removed")]
    Destroyed {
        /// The stream.
        name: String,
    },
    /// An append that is not whole records.
    #[error("the bytes are not whole records framed as `{framing}`, as stream {name} has them")]
    NotRecords {
        /// The stream.
        name: String,
        /// Its framing.
        framing: Framing,
    },
    /// The streams of a shuffle have one framing.
    #[error(
        "stream {name} is framed as `{framing}`, others of the shuffle are not; give all the same framing"
    )]
    FramingDiffers {
        /// A stream that is not like the first output.
        name: String,
        /// Its framing.
        framing: Framing,
    },
    /// A shuffle without outputs.
    #[error("a shuffle needs at least one output")]
    NoOutputs,
    /// An output has records that the shuffle did not put there: destroy it and create it anew.
    #[error("stream {name} has other records than this shuffle's; destroy it and create it anew")]
    OtherRecords {
        /// The output.
        name: String,
    },
    /// The stream's log.
    #[error("stream {name}: {source}")]
    Stream {
        /// The stream.
        name: String,
        /// What it says.
        source: stream::Error,
    },
    /// A file or directory could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
}
