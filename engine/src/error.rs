//! The one error of the engine's operations. Each variant says what the caller does next; `fs` maps it to errno.

use std::io;

/// Shorthand.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an operation did not happen. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such name or inode.
    #[error("no such file or directory")]
    NotFound,
    /// The name that led here means something else by now: look it up again.
    #[error("the name was looked up too long ago")]
    Stale,
    /// The name is taken.
    #[error("the name exists")]
    Exists,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// Anything but a directory was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory still has entries.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The name is longer than [`crate::ids::NAME_BYTES_MAX`].
    #[error("the name is too long")]
    NameTooLong,
    /// The operation makes no sense for this object or with these arguments.
    #[error("invalid argument")]
    Invalid,
    /// The backing has no room (or the quota none) for what would be accepted.
    #[error("no space on the backing")]
    NoSpace,
    /// More hard links than the format allows.
    #[error("too many links")]
    TooManyLinks,
    /// No such extended attribute.
    #[error("no such extended attribute")]
    NoAttribute,
    /// The object, or the backing, does not support it.
    #[error("not supported")]
    NotSupported,
    /// Past the end, for seeks.
    #[error("no data at or behind this offset")]
    NoData,
    /// The file would become larger than the largest offset.
    #[error("the file would be too large")]
    TooLarge,
    /// The backing or the arena failed; retried in the background where data is at stake.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        Error::Io(errno.into())
    }
}
