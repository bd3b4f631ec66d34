//! Copies what the backing does not have to another directory: the way out when the backing is full or gone.
//!
//! Paths come from the daemon, relative to the mount. Each is copied with its type, mode, owner, times and
//! extended attributes; directories above it are made as they are in the mount. Hard links become separate
//! files. What has gone meanwhile (a deleted name waits for the backing too) is skipped. Nothing in the
//! target is overwritten.
//!
//! A stream's log is not a file of the mount: what memory has of it and no segment lies in `.aimss/streams/ID` of
//! the target, as it would on the backing.

use crate::escape;
use aimss_engine::stream::live::Streams;
use anyhow::{Context as _, Result, anyhow, bail};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Longest list or value of extended attributes the kernel gives (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const XATTR_BYTES_MAX: usize = 64 << 10;

/// Whether `directory` can be exported to: new or empty, and not on the mount itself.
pub fn check_directory(directory: &Path, mountpoint: &Path) -> Result<()> {
    let shown = escape::path(directory);
    let absolute = std::path::absolute(directory)?;
    let resolved = absolute.ancestors().find_map(|above| fs::canonicalize(above).ok()).unwrap_or(absolute);
    if resolved.starts_with(mountpoint) {
        bail!("the export directory {shown} is on the mount itself; give one on another disk");
    }
    match fs::read_dir(directory) {
        Ok(mut entries) => match entries.next() {
            Some(_) => bail!("the export directory {shown} isn't empty; give a new one"),
            None => Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            bail!(
                "the export directory {shown} can't be used ({}); give another",
                crate::commands::why(&error)
            )
        }
    }
}

/// Copies `paths` of the mount at `mountpoint` below `directory`; how many there were.
pub fn copy(mountpoint: &Path, paths: &[PathBuf], directory: &Path) -> Result<usize> {
    fs::create_dir_all(directory)
        .map_err(|error| anyhow!("{} can't be made: {error}", escape::path(directory)))?;
    let mut sorted: Vec<&PathBuf> = paths.iter().filter(|path| !path.as_os_str().is_empty()).collect();
    sorted.sort();
    let mut directories = BTreeSet::new();
    let mut copied = 0;
    for path in sorted {
        for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
            directories.insert(above.to_owned());
        }
        fs::create_dir_all(directory.join(path.parent().unwrap_or(Path::new(""))))?;
        let from = mountpoint.join(path);
        let metadata = match fs::symlink_metadata(&from) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => bail!("{} can't be exported: {error}", escape::path(&from)),
        };
        if metadata.is_dir() {
            fs::create_dir_all(directory.join(path))?;
            directories.insert(path.clone());
        } else {
            copy_one(&from, &directory.join(path), &metadata)
                .with_context(|| format!("{} can't be exported", escape::path(&from)))?;
        }
        copied += 1;
    }
    // Deepest first and last of all: a directory's times change with what is made in it, and its mode may
    // forbid it.
    for path in directories.into_iter().rev() {
        let from = mountpoint.join(&path);
        let metadata = fs::symlink_metadata(&from)?;
        copy_attributes(&from, &directory.join(&path), &metadata)
            .with_context(|| format!("{} can't be exported", escape::path(&from)))?;
    }
    Ok(copied)
}

/// Saves what `memory` has of streams, a directory for each, below `directory`, as the `backing` would have it.
pub fn save_streams(memory: &[PathBuf], backing: &Path, directory: &Path) -> Result<()> {
    for memory in memory {
        Streams::save(memory, backing, directory).with_context(|| {
            format!("{}, which a stream has in memory, can't be exported", escape::path(memory))
        })?;
    }
    Ok(())
}

fn copy_one(from: &Path, to: &Path, metadata: &Metadata) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        symlink(fs::read_link(from)?, to)?;
    } else if kind.is_file() {
        let mut target = File::create_new(to)?;
        io::copy(&mut File::open(from)?, &mut target)?;
        target.sync_all()?;
    } else {
        let file_type = if kind.is_fifo() {
            rustix::fs::FileType::Fifo
        } else if kind.is_socket() {
            rustix::fs::FileType::Socket
        } else if kind.is_block_device() {
            rustix::fs::FileType::BlockDevice
        } else {
            rustix::fs::FileType::CharacterDevice
        };
        rustix::fs::mknodat(CWD, to, file_type, Mode::RUSR | Mode::WUSR, metadata.rdev())?;
    }
    copy_attributes(from, to, metadata)
}

/// Owner before mode (a change of owner clears suid), mode before extended attributes (which may be an ACL),
/// times last.
fn copy_attributes(from: &Path, to: &Path, metadata: &Metadata) -> Result<()> {
    let owner = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    let changed = rustix::fs::chownat(CWD, to, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW);
    if rustix::process::geteuid().is_root() {
        changed?;
    }
    let is_symlink = metadata.file_type().is_symlink();
    if !is_symlink {
        rustix::fs::chmod(to, Mode::from_raw_mode(metadata.mode() & 0o7777))?;
    }
    copy_xattrs(from, to)?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: metadata.atime(), tv_nsec: metadata.atime_nsec() },
        last_modification: Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() },
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(())
}

/// Those the target takes: `trusted.` and `security.` need privileges, and another file system may have none.
fn copy_xattrs(from: &Path, to: &Path) -> Result<()> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let Ok(length) = rustix::fs::llistxattr(from, &mut names[..]) else { return Ok(()) };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_BYTES_MAX];
        let name = OsStr::from_bytes(name);
        let Ok(length) = rustix::fs::lgetxattr(from, name, &mut value[..]) else { continue };
        let set = rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty());
        if name.as_bytes().starts_with(b"user.") {
            set.with_context(|| format!("its attribute {}", escape::name(name)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_come_with_mode_times_and_the_directories_above_them() {
        let from = tempfile::tempdir().expect("a temporary directory");
        let to = tempfile::tempdir().expect("a temporary directory");
        let target = to.path().join("rescue");
        fs::create_dir_all(from.path().join("a/b")).expect("it is ours");
        fs::write(from.path().join("a/b/f"), "bytes").expect("it is ours");
        symlink("f", from.path().join("a/b/l")).expect("it is ours");
        fs::set_permissions(from.path().join("a"), fs::Permissions::from_mode(0o2750)).expect("it is ours");
        fs::set_permissions(from.path().join("a/b/f"), fs::Permissions::from_mode(0o640))
            .expect("it is ours");
        let paths = ["a/b/f", "a/b/l", "a/gone", "a"].map(PathBuf::from);
        assert_eq!(copy(from.path(), &paths, &target).expect("nothing is in the way"), 3);
        assert_eq!(fs::read(target.join("a/b/f")).expect("copied"), b"bytes");
        assert_eq!(fs::read_link(target.join("a/b/l")).expect("copied"), Path::new("f"));
        for path in ["a", "a/b/f"] {
            let (old, new) = (from.path().join(path), target.join(path));
            let (old, new) = (fs::metadata(old).expect("there"), fs::metadata(new).expect("copied"));
            assert_eq!((old.mode(), old.mtime_nsec()), (new.mode(), new.mtime_nsec()), "{path}");
        }
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let to = tempfile::tempdir().expect("a temporary directory");
        let nowhere = Path::new("/nowhere");
        check_directory(to.path(), nowhere).expect("it is empty");
        fs::write(to.path().join("f"), "").expect("it is ours");
        assert!(check_directory(to.path(), nowhere).is_err());
        assert!(
            check_directory(&to.path().join("new"), &fs::canonicalize(to.path()).expect("there")).is_err()
        );
    }
}
