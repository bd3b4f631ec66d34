//! Engine errors as errno values. The match has no wildcard: a new kind of error is given its number here.

use aimss_engine::Error;
use fuser::Errno;

/// What the application is told.
pub fn errno(error: &Error) -> Errno {
    match error {
        Error::NotFound => Errno::ENOENT,
        // The kernel looks the name up again and tries once more.
        Error::Stale => Errno::ESTALE,
        Error::Exists => Errno::EEXIST,
        Error::NotDirectory => Errno::ENOTDIR,
        Error::IsDirectory => Errno::EISDIR,
        Error::NotEmpty => Errno::ENOTEMPTY,
        Error::NameTooLong => Errno::ENAMETOOLONG,
        Error::Invalid => Errno::EINVAL,
        Error::NoSpace => Errno::ENOSPC,
        Error::TooManyLinks => Errno::EMLINK,
        Error::NoAttribute => Errno::ENODATA,
        Error::NotSupported => Errno::EOPNOTSUPP,
        Error::NoData => Errno::ENXIO,
        Error::TooLarge => Errno::EFBIG,
        Error::Io(e) => Errno::from_i32(e.raw_os_error().unwrap_or(libc::EIO)),
    }
}
