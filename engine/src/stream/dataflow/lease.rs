//! One user of a directory at a time: the lock that a mount takes, too (`.aimss/lease`), and a note of where
//! the memory is, which outlives its user.

use super::error::{Error, Result};
use crate::stream::segment::sync_directory;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What stands in the lease in place of a mount point: mounts show it to those whom they refuse.
const WHO: &str = "(a dataflow)";

/// The lock; it goes with the process.
#[derive(Debug)]
pub(super) struct Lease {
    home: PathBuf,
    _file: File,
}

impl Lease {
    /// Takes the lease of `directory`.
    pub fn take(directory: &Path) -> Result<Lease> {
        let home = directory.join(".aimss");
        let path = home.join("lease");
        let io = |source| Error::Io { path: path.display().to_string(), source };
        let shown = || directory.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(&home).map_err(io)?;
        let flags = OFlags::CREATE | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file: File =
            rustix::fs::open(&path, flags, Mode::from_raw_mode(0o600)).map_err(|e| io(e.into()))?.into();
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| Error::InUse { directory: shown() })?;
        let mut before = String::new();
        file.read_to_string(&mut before).map_err(io)?;
        if !before.is_empty() && !before.contains(WHO) {
            return Err(Error::MountDied { directory: shown() });
        }
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let pid = std::process::id();
        let text = format!("{{\"node\":\"{node}\",\"pid\":{pid},\"mountpoint\":\"{WHO}\"}}");
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(io)?;
        Ok(Lease { home, _file: file })
    }

    fn note(&self) -> PathBuf {
        self.home.join("dataflow")
    }

    /// Where the last user had its memory, if it did not close.
    pub fn left(&self) -> io::Result<Option<PathBuf>> {
        match fs::read(self.note()) {
            Ok(path) => Ok(Some(OsStr::from_bytes(&path).into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Notes where ours is.
    pub fn note_memory(&self, memory: &Path) -> io::Result<()> {
        fs::write(self.note(), memory.as_os_str().as_bytes())?;
        File::open(self.note())?.sync_all()?;
        sync_directory(&self.home)
    }

    /// There is nothing in memory any more.
    pub fn give_back(&self) -> io::Result<()> {
        fs::remove_file(self.note())?;
        fs::remove_file(self.home.join("lease"))?;
        // Stays where something else is kept in it.
        let _ = fs::remove_dir(&self.home);
        Ok(())
    }
}
