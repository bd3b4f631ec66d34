//! A backing that knows which calls on it have not come back yet: storage that stalls gives no error, and nothing else
//! would tell why a drain, a fetch or an fsync doesn't move.

use super::{AttrChange, Backing, Listed, Make, Owner, RenameMode, Room, Stat, Way};
use crate::failpoint;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A call that has not come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outstanding {
    /// What was called: the name of the method of [`Backing`].
    pub call: &'static str,
    /// On which path; empty for the root, and for calls on open files.
    pub path: Vec<u8>,
    /// For how long.
    pub age: Duration,
}

/// Calls under way, in the order in which they began.
#[derive(Debug, Default)]
pub(crate) struct Calls(Mutex<Begun>);

#[derive(Debug, Default)]
struct Begun {
    next: u64,
    calls: BTreeMap<u64, (&'static str, Vec<u8>, Instant)>,
}

impl Calls {
    fn during<T>(&self, call: &'static str, path: &[u8], run: impl FnOnce() -> T) -> T {
        let number = {
            let mut begun = self.0.lock();
            begun.next += 1;
            let number = begun.next;
            begun.calls.insert(number, (call, path.to_vec(), Instant::now()));
            number
        };
        failpoint::pass("before", call);
        // A call that panics would be shown for ever; none does, and a daemon that panics ends.
        let result = run();
        failpoint::pass("after", call);
        self.0.lock().calls.remove(&number);
        result
    }

    /// The one that began first.
    pub(crate) fn oldest(&self) -> Option<Outstanding> {
        let begun = self.0.lock();
        let (call, path, since) = begun.calls.values().next()?;
        Some(Outstanding { call, path: path.clone(), age: since.elapsed() })
    }
}

/// See the module.
pub(crate) struct Called {
    below: Arc<dyn Backing>,
    calls: Arc<Calls>,
}

impl Called {
    pub(crate) fn new(below: Arc<dyn Backing>) -> (Called, Arc<Calls>) {
        let calls = Arc::new(Calls::default());
        (Called { below, calls: calls.clone() }, calls)
    }
}

impl Backing for Called {
    fn is_remote(&self) -> bool {
        self.below.is_remote()
    }

    fn can_be_passed_through(&self) -> bool {
        self.below.can_be_passed_through()
    }

    fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        self.calls.during("stat", path, || self.below.stat(path))
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        self.calls.during("list", path, || self.below.list(path))
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.calls.during("read_link", path, || self.below.read_link(path))
    }

    fn open_read(&self, path: &[u8]) -> io::Result<File> {
        self.calls.during("open_read", path, || self.below.open_read(path))
    }

    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File> {
        self.calls.during("open_write", path, || self.below.open_write(path, owner))
    }

    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File> {
        self.calls.during("create", path, || self.below.create(path, mode, owner))
    }

    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()> {
        self.calls.during("make", path, || self.below.make(path, make, mode, owner))
    }

    fn unlink(&self, path: &[u8]) -> io::Result<()> {
        self.calls.during("unlink", path, || self.below.unlink(path))
    }

    fn rmdir(&self, path: &[u8]) -> io::Result<()> {
        self.calls.during("rmdir", path, || self.below.rmdir(path))
    }

    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()> {
        self.calls.during("rename", from, || self.below.rename(from, to, mode))
    }

    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        self.calls.during("link", to, || self.below.link(from, to))
    }

    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()> {
        self.calls.during("set_attr", path, || self.below.set_attr(path, change))
    }

    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()> {
        self.calls.during("set_file_attr", b"", || self.below.set_file_attr(file, change))
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.calls.during("xattrs", path, || self.below.xattrs(path))
    }

    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.calls.during("set_xattr", path, || self.below.set_xattr(path, name, value))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.calls.during("read_at", b"", || self.below.read_at(file, buffer, offset))
    }

    fn forget_pages(&self, file: &File, range: Range<u64>) {
        self.below.forget_pages(file, range);
    }

    fn begin_write_out(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.calls.during("begin_write_out", b"", || self.below.begin_write_out(file, range))
    }

    fn end_write_out(&self, file: &File, range: Range<u64>) -> io::Result<()> {
        self.calls.during("end_write_out", b"", || self.below.end_write_out(file, range))
    }

    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()> {
        self.calls.during("copy_in", b"", || self.below.copy_in(to, from, ranges, size, written))
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.calls.during("sync_file", b"", || self.below.sync_file(file))
    }

    fn sync_dir(&self, path: &[u8]) -> io::Result<()> {
        self.calls.during("sync_dir", path, || self.below.sync_dir(path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.calls.during("sync_all", b"", || self.below.sync_all())
    }

    fn room(&self) -> io::Result<Room> {
        self.calls.during("room", b"", || self.below.room())
    }
}
