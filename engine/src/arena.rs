//! File data in memory: one file an inode in a private directory, a tmpfs of our own where we may mount one.
//!
//! The kernel carries the bytes: applications read and write these files through FUSE passthrough, at the tmpfs's own
//! speed, while the daemon holds no descriptor that could write. That is what makes [`Content::writers_gone`] true:
//! the kernel grants a read lease only on a file that nobody can change any more, mappings included.
//!
//! Invariants:
//! - The daemon opens arena files for reading. It opens for writing only inside one call ([`Arena::open_write`]) or
//!   while every handle on the file is served by the daemon itself.
//! - A lease is given back before the call that took it returns: while held it would stall opens for 45 seconds.
//! - Nothing here punches holes: a reader or a mapping would see zeros.

mod ahead;
pub(crate) mod brake;
mod lease;
mod overflow;

pub use ahead::Ahead;
pub(crate) use lease::{has_writers, in_use};
pub(crate) use overflow::page_out;
pub use overflow::{Overflow, check_free as check_overflow_free, release as release_overflow};

use crate::ids::Ino;
use crate::{Result, Timestamp};
use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// How files of the arena are opened for reading.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// The directory of arena files.
#[derive(Debug)]
pub struct Arena {
    directory: Arc<OwnedFd>,
    path: PathBuf,
    budget_bytes: u64,
    /// See [`Arena::ceiling_bytes`].
    ceiling_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    /// See [`Arena::measure`].
    measured_bytes: AtomicU64,
    /// Held while it is measured: what moves meanwhile counts afterwards.
    measuring: Mutex<()>,
    /// Whether the directory is a file system of its own, so that its blocks are all ours.
    own_filesystem: bool,
    overflow: Option<Overflow>,
}

/// What a change of an arena file's content leaves behind: the kernel moves at least one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stamp {
    /// Size in bytes.
    pub size: u64,
    /// Time of the last write, truncate, or first store into a page that was not mapped writable before. A store into
    /// a page that was read through a writable shared mapping moves nothing: equal stamps alone don't mean equal
    /// content while anybody could write.
    pub mtime: Timestamp,
}

/// The arena's view of one file.
#[derive(Debug, Clone, Copy, Default)]
pub struct ArenaStat {
    /// See [`Stamp`].
    pub stamp: Stamp,
    /// Last access.
    pub atime: Timestamp,
    /// 512 byte blocks held, allocated ahead included.
    pub blocks: u64,
    /// Device and inode number of the arena file.
    pub id: (u64, u64),
}

impl From<&Metadata> for ArenaStat {
    fn from(m: &Metadata) -> ArenaStat {
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: nanoseconds as u32 };
        ArenaStat {
            stamp: Stamp { size: m.len(), mtime: time(m.mtime(), m.mtime_nsec()) },
            atime: time(m.atime(), m.atime_nsec()),
            blocks: m.blocks(),
            id: (m.dev(), m.ino()),
        }
    }
}

/// A read-only descriptor of an arena file.
#[derive(Debug)]
pub struct Content {
    file: OnceLock<File>,
    /// Where it is, until it is opened.
    later: Option<(Arc<OwnedFd>, Ino)>,
}

impl From<File> for Content {
    fn from(file: File) -> Content {
        Content { file: OnceLock::from(file), later: None }
    }
}

impl Content {
    /// The file's state.
    pub fn stat(&self) -> io::Result<ArenaStat> {
        Ok(ArenaStat::from(&self.file()?.metadata()?))
    }

    /// Whether nothing is left that could change the file: no passthrough writer, no writable shared mapping.
    /// False also where the kernel can't tell.
    pub fn writers_gone(&self) -> bool {
        self.file().is_ok_and(|file| lease::can_hold(file, lease::Kind::Read))
    }

    /// Whether nothing at all uses the file besides this descriptor. Close backing ids first.
    pub fn unused(&self) -> bool {
        self.file().is_ok_and(|file| lease::can_hold(file, lease::Kind::Write))
    }

    /// The descriptor, alone.
    pub fn into_file(self) -> io::Result<File> {
        self.file()?;
        self.file.into_inner().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The descriptor.
    pub fn file(&self) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let (directory, ino) = self.later.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let file = File::from(rustix::fs::openat(directory, name(*ino), READ, Mode::empty())?);
        Ok(self.file.get_or_init(|| file))
    }
}

impl Arena {
    /// Uses the existing, private directory `path`.
    pub fn open(path: &Path, budget_bytes: u64, own_filesystem: bool) -> io::Result<Arena> {
        lease::ignore_breaks();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = Arc::new(rustix::fs::open(path, flags, Mode::empty())?);
        let (peak_bytes, measured_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Ok(Arena {
            directory,
            path: path.into(),
            budget_bytes,
            ceiling_bytes: AtomicU64::new(budget_bytes),
            peak_bytes,
            measured_bytes,
            measuring: Mutex::default(),
            own_filesystem,
            overflow: None,
        })
    }

    /// Gives it a place for memory of open files that nothing else can take.
    #[must_use]
    pub fn with_overflow(self, overflow: Option<Overflow>) -> Arena {
        Arena { overflow, ..self }
    }

    /// Where memory of open files goes that nothing else can take.
    pub fn overflow(&self) -> Option<&Overflow> {
        self.overflow.as_ref()
    }

    /// What is swapped out to there.
    pub(crate) fn swapped_bytes(&self) -> u64 {
        self.overflow.as_ref().map_or(0, Overflow::used_bytes)
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The most the arena should hold, in bytes.
    pub fn budget_bytes(&self) -> u64 {
        self.budget_bytes
    }

    /// The most it should hold now: the budget, or less while the machine is short of memory.
    pub fn ceiling_bytes(&self) -> u64 {
        self.ceiling_bytes.load(Ordering::Relaxed)
    }

    /// Sets the ceiling, at most to the budget.
    pub(crate) fn set_ceiling(&self, bytes: u64) {
        self.ceiling_bytes.store(bytes.min(self.budget_bytes), Ordering::Relaxed);
    }

    /// Makes the (empty) file of an inode and opens it for reading.
    pub fn create(&self, ino: Ino) -> io::Result<Content> {
        let flags = OFlags::CREATE | OFlags::RDONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(File::from(rustix::fs::openat(&self.directory, name(ino), flags, mode)?).into())
    }

    /// The state of the file of an inode.
    pub(crate) fn stat(&self, ino: Ino) -> io::Result<ArenaStat> {
        let m = rustix::fs::statat(&self.directory, name(ino), AtFlags::SYMLINK_NOFOLLOW)?;
        let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: nanoseconds as u32 };
        Ok(ArenaStat {
            stamp: Stamp { size: m.st_size as u64, mtime: time(m.st_mtime, m.st_mtime_nsec) },
            atime: time(m.st_atime, m.st_atime_nsec),
            blocks: m.st_blocks as u64,
            id: (m.st_dev, m.st_ino),
        })
    }

    /// Opens the file of an inode for reading.
    pub fn open_read(&self, ino: Ino) -> io::Result<Content> {
        Ok(File::from(rustix::fs::openat(&self.directory, name(ino), READ, Mode::empty())?).into())
    }

    /// The same, opened when it is first asked for: a daemon that takes over has thousands that nobody asks for at once.
    pub fn open_later(&self, ino: Ino) -> Content {
        Content { file: OnceLock::new(), later: Some((self.directory.clone(), ino)) }
    }

    /// Opens the file of an inode for writing; see the module's invariants.
    pub fn open_write(&self, ino: Ino) -> io::Result<File> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::openat(&self.directory, name(ino), flags, Mode::empty())?))
    }

    /// Makes an empty file beside an inode's, for what is fetched; [`Arena::take_fetched`] or [`Arena::drop_fetched`]
    /// follows.
    pub fn begin_fetch(&self, ino: Ino) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(File::from(rustix::fs::openat(&self.directory, fetched(ino), flags, mode)?))
    }

    /// Lets what was fetched be the inode's file.
    pub fn take_fetched(&self, ino: Ino) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.directory, fetched(ino), &self.directory, name(ino))?)
    }

    /// Drops what was fetched.
    pub fn drop_fetched(&self, ino: Ino) {
        let _ = rustix::fs::unlinkat(&self.directory, fetched(ino), AtFlags::empty());
    }

    /// Gives the memory of an inode's file back (when its last user has gone).
    pub fn remove(&self, ino: Ino) {
        let _ = rustix::fs::unlinkat(&self.directory, name(ino), AtFlags::empty());
        if let Some(overflow) = self.overflow.as_ref().filter(|_| self.swapped_bytes() > 0) {
            overflow.look();
        }
    }

    /// The inodes that have files. What a daemon that died was fetching goes.
    pub(crate) fn files(&self) -> Vec<Ino> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let ours = format!(".{:x}{FETCHED}", std::process::id());
        let ino = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            if name.ends_with(FETCHED) && !name.ends_with(&ours) {
                let _ = std::fs::remove_file(entry.path());
            }
            u64::from_str_radix(&name, 16).ok().map(Ino)
        };
        entries.flatten().filter_map(ino).collect()
    }

    /// Bytes held in memory now.
    pub fn used_bytes(&self) -> u64 {
        let held = if self.own_filesystem {
            rustix::fs::statvfs(&self.path).map_or(0, |s| (s.f_blocks - s.f_bfree) * s.f_frsize)
        } else {
            self.measured_bytes.load(Ordering::Relaxed)
        };
        let used = held.saturating_sub(self.swapped_bytes());
        self.peak_bytes.fetch_max(used, Ordering::Relaxed);
        used
    }

    /// Counts the blocks of all files, where the file system's own count includes others'. Call a few times a second.
    pub fn measure(&self) {
        if self.own_filesystem {
            return;
        }
        let _measuring = self.measuring.lock();
        let Ok(entries) = std::fs::read_dir(&self.path) else { return };
        let used = entries.flatten().filter_map(|e| Some(e.metadata().ok()?.blocks() * 512)).sum();
        self.measured_bytes.store(used, Ordering::Relaxed);
    }

    /// Counts what came in or went out since the last [`Arena::measure`], where that is what counts.
    pub(crate) fn moved(&self, came: u64, went: u64) {
        let _measuring = self.measuring.lock();
        let add = |used: u64| Some(used.saturating_add(came).saturating_sub(went));
        let _ = self.measured_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// The most that [`Arena::used_bytes`] has seen.
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Bytes below the ceiling that are free now.
    pub fn free_bytes(&self) -> u64 {
        self.ceiling_bytes().saturating_sub(self.used_bytes())
    }
}

/// How the names of files end that are being fetched.
const FETCHED: &str = ".fetched";

/// Name of what is fetched by this process for an inode.
fn fetched(ino: Ino) -> String {
    format!("{:x}.{:x}{FETCHED}", ino.0, std::process::id())
}

/// Name of an inode's file.
fn name(ino: Ino) -> String {
    format!("{:x}", ino.0)
}

/// Reads exactly, for callers that know the size; a file that shrank meanwhile is an error to be retried.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    Ok(file.read_exact_at(buffer, offset)?)
}
