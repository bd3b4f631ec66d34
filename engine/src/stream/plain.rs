//! Opens the files of logs by their paths, and never what a symbolic link in their place leads to: who prepared the
//! directory that a log is in has no other file read or written by it.
//!
//! That is said of the last component of a path; [`directory_in`] looks at those above. Between that look and an
//! opening somebody who may write to `.aimss` can change them, which is why that has to be ours alone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Options to open a file that is no link.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NOFOLLOW);
    options
}

/// An empty file to be written: a new one, or what has its name, emptied.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    options().write(true).create(true).truncate(true).open(path)
}

/// The directory of a log in `home`, the directory of all logs. Fails if one of them, or what `home` is in, is no directory
/// itself; with [`io::ErrorKind::NotFound`] if it is not there.
pub(crate) fn directory_in(home: &Path, name: impl AsRef<Path>) -> io::Result<PathBuf> {
    check_home(home)?;
    let directory = home.join(name);
    check_directory(&directory)?;
    Ok(directory)
}

/// The same of `home` alone.
pub(crate) fn check_home(home: &Path) -> io::Result<()> {
    home.parent().map_or(Ok(()), check_directory)?;
    check_directory(home)
}

fn check_directory(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    let why = format!("{} is not a directory, and no link is followed there", path.display());
    Err(io::Error::new(io::ErrorKind::NotADirectory, why))
}
