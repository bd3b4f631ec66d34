//! The directory on disk behind a mount, as a trait, so that tests and slow-storage models can stand in.
//!
//! Paths are relative to the backing's root, as byte strings without leading or trailing `/`; the empty path is the
//! root itself. No implementation may follow a symbolic link or leave the root, whatever the names are.
//! Every method may block for as long as the storage takes; none is called with the namespace locked.

mod called;
mod local;
mod owner;
mod slow;
mod uring;

pub use called::Outstanding;
pub(crate) use called::{Called, Calls};
pub use local::LocalBacking;
pub use owner::Owner;
pub use slow::{SlowBacking, SlowModel};

use crate::attr::{Attr, Kind, Timestamp};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

/// What the backing says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Device and inode number on the backing.
    pub id: BackingId,
    /// Attributes.
    pub attr: Attr,
}

/// Identity of an object on the backing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackingId {
    /// Device.
    pub dev: u64,
    /// Inode number there.
    pub ino: u64,
}

/// An entry of a listing.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Name.
    pub name: Box<[u8]>,
    /// Inode number on the directory's device.
    pub ino: u64,
    /// Type, where the listing tells.
    pub kind: Option<Kind>,
}

/// What is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Make<'a> {
    /// An empty directory.
    Directory,
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// Fifo, socket or device node.
    Node(Kind, u32),
}

/// Room on the backing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Block size in bytes.
    pub block_bytes: u64,
    /// Blocks in all.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for those who are not root.
    pub available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// How bytes reach the storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From where they are, past the page cache.
    Direct,
    /// Copied through the page cache.
    PageCache,
}

/// How a rename treats its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replaces it.
    Replace,
    /// Fails if there is one, where the file system can tell.
    NoReplace,
    /// Swaps the two.
    Exchange,
}

/// Attributes to be set; those that are `None` stay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AttrChange {
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Access and modification time.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// A directory tree on storage.
pub trait Backing: Send + Sync {
    /// Whether calls travel: then none is made by a thread that others wait for, and what will be read is worth
    /// fetching ahead.
    fn is_remote(&self) -> bool {
        false
    }
    /// Whether the kernel may read and write its files by itself.
    fn can_be_passed_through(&self) -> bool {
        true
    }
    /// Attributes of `path`, symbolic links not followed.
    fn stat(&self, path: &[u8]) -> io::Result<Stat>;
    /// All entries of the directory `path`, without `.` and `..`.
    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>>;
    /// Target of the symbolic link `path`.
    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>>;
    /// Opens the regular file `path` for reading.
    fn open_read(&self, path: &[u8]) -> io::Result<File>;
    /// Opens the regular file `path` for reading and writing, as `owner` where that is allowed.
    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File>;
    /// Makes the empty regular file `path`, owned by `owner`. Fails where the name is taken.
    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File>;
    /// Makes anything but a regular file.
    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()>;
    /// Removes anything but a directory.
    fn unlink(&self, path: &[u8]) -> io::Result<()>;
    /// Removes an empty directory.
    fn rmdir(&self, path: &[u8]) -> io::Result<()>;
    /// Renames.
    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()>;
    /// Gives `from` the further name `to`.
    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()>;
    /// Changes attributes, symbolic links not followed.
    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()>;
    /// The same on an open file.
    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()>;
    /// All extended attributes, names and values.
    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>>;
    /// Sets (or with `None` removes, if present) one extended attribute.
    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()>;
    /// Reads up to `buffer.len()` bytes of `file` at `offset`; 0 at its end.
    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        file.read_at(buffer, offset)
    }
    /// What was read of `file` is held elsewhere now: the kernel needn't keep it, too.
    fn forget_pages(&self, file: &File, range: Range<u64>) {
        let length = std::num::NonZeroU64::new(range.end.saturating_sub(range.start));
        // Advice: where it isn't taken, the kernel keeps them until it needs the memory.
        let _ = rustix::fs::fadvise(file, range.start, length, rustix::fs::Advice::DontNeed);
    }
    /// Has the storage begin to write what the page cache holds of `range`.
    fn begin_write_out(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        sync_range(file, &range, libc::SYNC_FILE_RANGE_WRITE)
    }
    /// Waits until the storage has what the page cache holds of `range`, and lets go of it. Not durable: see
    /// [`Backing::sync_file`].
    fn end_write_out(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        const ALL: libc::c_uint = libc::SYNC_FILE_RANGE_WAIT_BEFORE
            | libc::SYNC_FILE_RANGE_WRITE
            | libc::SYNC_FILE_RANGE_WAIT_AFTER;
        sync_range(file, &range, ALL)?;
        self.forget_pages(file, range);
        Ok(())
    }
    /// Copies `ranges` of `from` to the same offsets of `to`, then cuts `to` to `size` bytes. `written` is told of bytes
    /// as they arrive, and which way they took.
    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()>;
    /// Makes a file's content and size durable.
    fn sync_file(&self, file: &File) -> io::Result<()>;
    /// Makes a directory's entries durable.
    fn sync_dir(&self, path: &[u8]) -> io::Result<()>;
    /// Makes everything durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Room left.
    fn room(&self) -> io::Result<Room>;
}

fn sync_range(file: &File, range: &Range<u64>, flags: libc::c_uint) -> io::Result<()> {
    let length = range.end.saturating_sub(range.start);
    // SAFETY: a call on an open descriptor with plain numbers.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), range.start as i64, length as i64, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
