//! The private directory of a backing, `.aimss`, by a descriptor: a backing may be writable for somebody else, who
//! puts links, fifos or another directory where we expect our own.
//!
//! 1. The directory itself is opened without following a link, and has to be ours, writable for nobody else. Storage
//!    on another machine may give what root makes to another owner (root_squash), so there only the mode counts.
//! 2. Files in it are opened below the descriptor, without following links and without waiting, and have to be
//!    regular ones with one name: what is written there changes no other file.

use aimss_engine::backing::{Backing, LocalBacking};
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const NAME: &str = ".aimss";
/// Group and others may write.
const OTHERS_WRITE: u32 = 0o022;

/// See the module.
#[derive(Debug)]
pub struct Private {
    directory: OwnedFd,
    path: PathBuf,
}

impl Private {
    /// The one of `backing`, made if it isn't there. An error if something else lies there, or it isn't ours.
    pub fn make(backing: &Path) -> io::Result<Private> {
        match rustix::fs::mkdir(backing.join(NAME), Mode::RWXU) {
            Err(e) if e != rustix::io::Errno::EXIST => Err(e.into()),
            _ => Private::open(backing),
        }
    }

    /// The one of `backing`. As [`Private::make`].
    pub fn open(backing: &Path) -> io::Result<Private> {
        let path = backing.join(NAME);
        let wrong =
            |what: &str| io::Error::other(format!("{} {what}: aimss keeps its lease there", path.display()));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match rustix::fs::open(&path, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Err(wrong("is in the way")),
            other => File::from(other?),
        };
        let found = directory.metadata()?;
        let ours = found.uid() == rustix::process::geteuid().as_raw()
            || LocalBacking::open(backing).is_ok_and(|backing| backing.is_remote());
        if !ours || found.mode() & OTHERS_WRITE != 0 {
            let (uid, mode) = (found.uid(), found.mode() & 0o777);
            return Err(wrong(&format!(
                "is not yours alone (it is of user {uid}, mode {mode:o}; if nobody misuses it, chown and chmod 700 it)"
            )));
        }
        Ok(Private { directory: directory.into(), path })
    }

    /// Where it was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file `name`, with `flags` besides.
    pub fn file(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(0o600))?);
        let found = file.metadata()?;
        if !found.is_file() || found.nlink() != 1 {
            let what = "is no file of its own; remove it";
            return Err(io::Error::other(format!("{} {what}", self.path.join(name).display())));
        }
        Ok(file)
    }

    /// Gives `from` the name `to`.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, from, &self.directory, to)?)
    }

    /// Removes the file `name`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, name, AtFlags::empty())?)
    }
}
