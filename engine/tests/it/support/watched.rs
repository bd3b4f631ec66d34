//! A local backing that counts and logs every call that changes something, knows what is not synced yet, and can fail:
//! from one call on for good (the power is gone), or for a while.
//!
//! A call that is cut in the middle of its bytes writes some of them: that is what a torn write leaves. Each range of
//! a copy counts as a call.

use super::world::Durability;
use aimss_engine::backing::{
    AttrChange, Backing, BackingId, Listed, LocalBacking, Make, Owner, RenameMode, Room, Stat, Way,
};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// When calls fail. Calls are numbered from 0.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    None,
    /// From call `at` on; if that one copies bytes, so many thousandths of them are written. If it changes names, it does
    /// so from the half on, and nobody hears of it.
    Cut {
        at: u64,
        torn: u64,
    },
    /// Calls in this span fail with `errno`.
    Span {
        from: u64,
        until: u64,
        errno: i32,
    },
    /// Reads in this span do: of attributes, listings and content, numbered apart from 0.
    Reads {
        from: u64,
        until: u64,
        errno: i32,
    },
    /// Calls and reads wait until this is over.
    Stall,
    /// Calls from this one on wait so; reads go on.
    StallCalls(u64),
    /// Reads from this one on wait so; calls go on.
    StallReads(u64),
    /// The read of this number waits so; others go on.
    StallRead(u64),
    /// The same, with what it saw: of attributes.
    StallAfterRead(u64),
    /// Copies wait so, when they are done.
    StallAfterCopy,
}

/// See the module.
pub struct Watched {
    inner: Arc<LocalBacking>,
    watch: Mutex<Watch>,
    /// A fault ended.
    over: Condvar,
    remote: bool,
}

#[derive(Debug)]
struct Watch {
    fault: Fault,
    calls: u64,
    reads: u64,
    failed: u64,
    /// Who waits in a stall.
    stalled: u64,
    log: Vec<String>,
    /// Files with bytes and directories with entries that a loss of power may take.
    unsynced: BTreeSet<(u64, u64)>,
    violations: Vec<String>,
}

impl Watched {
    pub fn new(inner: Arc<LocalBacking>, fault: Fault) -> Arc<Watched> {
        let watch = Watch {
            fault,
            calls: 0,
            reads: 0,
            failed: 0,
            stalled: 0,
            log: Vec::new(),
            unsynced: BTreeSet::new(),
            violations: Vec::new(),
        };
        Arc::new(Watched { inner, watch: Mutex::new(watch), over: Condvar::new(), remote: false })
    }

    /// One whose calls travel, so that what is read of it is fetched.
    pub fn remote(inner: Arc<LocalBacking>) -> Arc<Watched> {
        let near = Watched::new(inner, Fault::None);
        Arc::into_inner(near)
            .map(|watched| Arc::new(Watched { remote: true, ..watched }))
            .expect("nobody has it")
    }

    pub fn reads(&self) -> u64 {
        self.watch.lock().reads
    }

    pub fn calls(&self) -> u64 {
        self.watch.lock().calls
    }

    /// Calls that were made to fail.
    pub fn failed(&self) -> u64 {
        self.watch.lock().failed
    }

    /// Calls and reads that wait in a stall.
    pub fn stalled(&self) -> u64 {
        self.watch.lock().stalled
    }

    pub fn set_fault(&self, fault: Fault) {
        self.watch.lock().fault = fault;
        self.over.notify_all();
    }

    pub fn log(&self) -> Vec<String> {
        self.watch.lock().log.clone()
    }

    /// What was done that must never be, such as a rename of a file whose bytes are not durable.
    pub fn violations(&self) -> Vec<String> {
        self.watch.lock().violations.clone()
    }

    /// Whether the power is gone.
    pub fn is_cut(&self) -> bool {
        let watch = self.watch.lock();
        matches!(watch.fault, Fault::Cut { at, .. } if watch.calls > at)
    }

    fn call(&self, what: &str, path: &[u8]) -> io::Result<()> {
        self.live_call(what, path).map(|_| ())
    }

    /// A call that changes names.
    fn names(&self, what: &str, path: &[u8], change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.call(what, path).inspect_err(|_| {
            let watch = self.watch.lock();
            if let Fault::Cut { at, torn } = watch.fault
                && watch.calls == at + 1
                && torn >= 500
            {
                drop(watch);
                let _ = change();
            }
        })
    }

    /// Once no stall is on.
    fn live_call(&self, what: &str, path: &[u8]) -> io::Result<Option<u64>> {
        let stalls = |watch: &Watch| match watch.fault {
            Fault::Stall => true,
            Fault::StallCalls(from) => watch.calls >= from,
            _ => false,
        };
        self.once_not(stalls).call(what, path)
    }

    fn once_not(&self, stalls: impl Fn(&Watch) -> bool) -> parking_lot::MutexGuard<'_, Watch> {
        let mut watch = self.watch.lock();
        while stalls(&watch) {
            watch.stalled += 1;
            self.over.wait(&mut watch);
            watch.stalled -= 1;
        }
        watch
    }

    /// A read is about to be made: its number.
    fn reading(&self) -> io::Result<u64> {
        let number = {
            let mut watch = self.watch.lock();
            watch.reads += 1;
            watch.reads - 1
        };
        let mut watch = self.once_not(|watch| match watch.fault {
            Fault::Stall => true,
            Fault::StallReads(from) => number >= from,
            Fault::StallRead(only) => number == only,
            _ => false,
        });
        match watch.fault {
            Fault::Reads { from, until, errno } if (from..until).contains(&number) => {
                watch.failed += 1;
                Err(io::Error::from_raw_os_error(errno))
            }
            _ => Ok(number),
        }
    }

    /// The directory of `path` has entries that may be lost.
    fn entered(&self, path: &[u8]) {
        let cut = path.iter().rposition(|&b| b == b'/').unwrap_or(0);
        if let Ok(stat) = self.inner.stat(&path[..cut]) {
            self.watch.lock().unsynced.insert(key(stat.id));
        }
    }

    fn bytes_of(&self, file: &File) {
        if let Ok(m) = file.metadata() {
            self.watch.lock().unsynced.insert((m.dev(), m.ino()));
        }
    }

    /// Rule 2: what is about to be named is durable. A new file that is given its first name counts as made there, and
    /// may be filled afterwards.
    fn named(&self, what: &str, path: &[u8]) {
        if path.starts_with(b".aimss/unnamed-") {
            return;
        }
        if let Ok(stat) = self.inner.stat(path)
            && stat.attr.kind == aimss_engine::Kind::File
        {
            let mut watch = self.watch.lock();
            if watch.unsynced.contains(&key(stat.id)) {
                let path = String::from_utf8_lossy(path).into_owned();
                watch.violations.push(format!("{what} of {path}, whose content is not durable"));
            }
        }
    }
}

impl Durability for Arc<Watched> {
    fn is_unsynced(&self, dev: u64, ino: u64) -> bool {
        self.watch.lock().unsynced.contains(&(dev, ino))
    }
}

impl Watch {
    /// Counts a call; says how it fails, or that it is the one that is torn.
    fn call(&mut self, what: &str, path: &[u8]) -> io::Result<Option<u64>> {
        let number = self.calls;
        self.calls += 1;
        let (verdict, torn) = match self.fault {
            Fault::None
            | Fault::Reads { .. }
            | Fault::Stall
            | Fault::StallCalls(_)
            | Fault::StallReads(_)
            | Fault::StallRead(_)
            | Fault::StallAfterRead(_)
            | Fault::StallAfterCopy => (None, None),
            Fault::Cut { at, torn } => ((number >= at).then_some(libc::EIO), (number == at).then_some(torn)),
            Fault::Span { from, until, errno } => ((from..until).contains(&number).then_some(errno), None),
        };
        let end = if verdict.is_some() { " FAILS" } else { "" };
        self.log.push(format!("{number} {what} {}{end}", String::from_utf8_lossy(path)));
        self.failed += u64::from(verdict.is_some());
        match (verdict, torn) {
            (Some(_), Some(torn)) if what == "copy" => Ok(Some(torn)),
            (Some(errno), _) => Err(io::Error::from_raw_os_error(errno)),
            (None, _) => Ok(None),
        }
    }
}

fn key(id: BackingId) -> (u64, u64) {
    (id.dev, id.ino)
}

impl Backing for Watched {
    fn is_remote(&self) -> bool {
        self.remote
    }

    fn can_be_passed_through(&self) -> bool {
        !self.remote
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.reading()?;
        self.inner.read_at(file, buffer, offset)
    }

    fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        let number = self.reading()?;
        let stat = self.inner.stat(path);
        drop(self.once_not(|watch| matches!(watch.fault, Fault::StallAfterRead(only) if number == only)));
        stat
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        self.reading()?;
        self.inner.list(path)
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.read_link(path)
    }

    fn open_read(&self, path: &[u8]) -> io::Result<File> {
        self.reading()?;
        self.inner.open_read(path)
    }

    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File> {
        self.inner.open_write(path, owner)
    }

    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File> {
        self.call("create", path)?;
        let file = self.inner.create(path, mode, owner)?;
        self.entered(path);
        Ok(file)
    }

    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()> {
        let change = || self.inner.make(path, make, mode, owner);
        self.names("make", path, change)?;
        change()?;
        self.entered(path);
        Ok(())
    }

    fn unlink(&self, path: &[u8]) -> io::Result<()> {
        let change = || self.inner.unlink(path);
        self.names("unlink", path, change)?;
        change()?;
        self.entered(path);
        Ok(())
    }

    fn rmdir(&self, path: &[u8]) -> io::Result<()> {
        let change = || self.inner.rmdir(path);
        self.names("rmdir", path, change)?;
        change()?;
        self.entered(path);
        Ok(())
    }

    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()> {
        let both = [from, b" -> ", to].concat();
        let change = || self.inner.rename(from, to, mode);
        self.names(if mode == RenameMode::Exchange { "exchange" } else { "rename" }, &both, change)?;
        self.named("rename", from);
        if mode == RenameMode::Exchange {
            self.named("exchange", to);
        }
        change()?;
        self.entered(from);
        self.entered(to);
        Ok(())
    }

    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let change = || self.inner.link(from, to);
        self.names("link", &[from, b" -> ", to].concat(), change)?;
        // One that is kept for who has it open is named nowhere else.
        if !to.starts_with(b".aimss/unnamed-") {
            self.named("link", from);
        }
        change()?;
        self.entered(to);
        Ok(())
    }

    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()> {
        self.call("set_attr", path)?;
        self.inner.set_attr(path, change)
    }

    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()> {
        self.call("set_file_attr", b"")?;
        self.inner.set_file_attr(file, change)
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.xattrs(path)
    }

    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.call("set_xattr", path)?;
        self.inner.set_xattr(path, name, value)
    }

    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()> {
        // Only for the log.
        let path = std::fs::read_link(format!("/proc/self/fd/{}", to.as_raw_fd())).unwrap_or_default();
        let path = path.as_os_str().as_bytes();
        let mut whole = Vec::new();
        let empty = 0..0;
        for range in if ranges.is_empty() { std::slice::from_ref(&empty) } else { ranges } {
            let verdict = self.live_call("copy", path);
            if matches!(verdict, Ok(None)) {
                whole.push(range.clone());
                continue;
            }
            for range in whole {
                to.write_all_at(&from[range.start as usize..range.end as usize], range.start)?;
            }
            if let Ok(Some(torn)) = verdict {
                let end = range.start + (range.end - range.start) * torn / 1000;
                to.write_all_at(&from[range.start as usize..end as usize], range.start)?;
            }
            self.bytes_of(to);
            return Err(verdict.err().unwrap_or_else(|| io::Error::from_raw_os_error(libc::EIO)));
        }
        self.bytes_of(to);
        let copied = self.inner.copy_in(to, from, ranges, size, written);
        drop(self.once_not(|watch| matches!(watch.fault, Fault::StallAfterCopy)));
        copied
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.call("sync_file", b"")?;
        let m = file.metadata()?;
        self.watch.lock().unsynced.remove(&(m.dev(), m.ino()));
        Ok(())
    }

    fn sync_dir(&self, path: &[u8]) -> io::Result<()> {
        self.call("sync_dir", path)?;
        let stat = self.inner.stat(path)?;
        self.watch.lock().unsynced.remove(&key(stat.id));
        Ok(())
    }

    fn sync_all(&self) -> io::Result<()> {
        self.call("sync_all", b"")?;
        self.watch.lock().unsynced.clear();
        Ok(())
    }

    fn room(&self) -> io::Result<Room> {
        self.inner.room()
    }
}
