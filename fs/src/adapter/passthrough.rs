//! Opening files the way the engine decided, and the kernel's backing ids.
//!
//! A backing id belongs to the time from a file's first open to its last close: the kernel wants the same one for
//! every handle of it, also over the death of a daemon. The engine gives each such time its own descriptor, whose address
//! is the key here. Ids are registered from read-only descriptors (they serve writers too), so that we never look like a
//! writer ourselves. They are closed by us and not by `fuser`, which would close them with its own values.

use super::executed::Executed;
use super::handles::{Handles, KeptFile};
use super::held::still_awaited;
use super::{Adapter, Shared};
use crate::errno::errno;
use crate::policy::Policy;
use aimss_engine::engine::{Found, Opened, Reason, Served, Want};
use aimss_engine::failpoint;
use aimss_engine::journal::Journal;
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Ino, Result};
use fuser::{BackingId, Errno, FileHandle, FopenFlags, Generation, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// FUSE_DEV_IOC_BACKING_CLOSE, as the kernel's `linux/fuse.h` has it.
const BACKING_CLOSE: libc::Ioctl = rustix::ioctl::opcode::write::<u32>(229, 2) as libc::Ioctl;
/// Ids before the next one that a dead daemon may have registered without noting it.
const UNNOTED_MAX: u32 = 1024;

/// Writes of several handles at once; their order is the application's business, as on any file system.
const DIRECT: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// How opens were served: mode, reason, count.
#[derive(Debug, Default)]
pub struct ModeCounts(Mutex<HashMap<(&'static str, &'static str), u64>>);

impl ModeCounts {
    fn count(&self, opened: &Opened) {
        *self.0.lock().entry((mode_word(&opened.mode), opened.reason.word())).or_default() += 1;
    }

    /// An appender of a stream.
    pub(super) fn count_append(&self) {
        *self.0.lock().entry(("passthrough-arena", "stream-append")).or_default() += 1;
    }

    /// For status.
    pub fn snapshot(&self) -> BTreeMap<String, BTreeMap<String, u64>> {
        let mut modes: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        for ((mode, reason), count) in self.0.lock().iter() {
            modes.entry((*mode).into()).or_default().insert((*reason).into(), *count);
        }
        modes
    }
}

fn mode_word(mode: &OpenMode) -> &'static str {
    match mode {
        OpenMode::Arena(_) => "passthrough-arena",
        OpenMode::Backing(_) => "passthrough-backing",
        OpenMode::Daemon(_) => "daemon",
    }
}

/// A backing id; dropped, it is closed. Files that are open with it stay so.
#[derive(Debug)]
pub(super) struct KernelId {
    raw: u32,
    /// None: it is somebody else's to close.
    device: Option<Arc<OwnedFd>>,
}

impl KernelId {
    /// Registers a file.
    pub fn register(shared: &Shared, file: BorrowedFd<'_>) -> io::Result<KernelId> {
        let device = shared.device.get().ok_or(io::ErrorKind::NotConnected)?.clone();
        Ok(KernelId { raw: BackingId::create_raw(device.as_fd(), file)?, device: Some(device) })
    }

    /// One that the last daemon registered.
    pub fn taken_up(shared: &Shared, raw: u32) -> Option<KernelId> {
        Some(KernelId { raw, device: Some(shared.device.get()?.clone()) })
    }

    /// It is not ours to close.
    pub fn forget(mut self) {
        self.device = None;
    }

    /// The kernel's number.
    pub fn raw(&self) -> u32 {
        self.raw
    }

    /// Replies with it.
    pub fn opened(&self, handle: FileHandle, reply: ReplyOpen) {
        // SAFETY: the id is the session's and open; it is given back below, before it could be closed.
        let id = unsafe { reply.wrap_backing(self.raw) };
        reply.opened_passthrough(handle, FopenFlags::empty(), &id);
        id.into_raw();
    }

    /// The same for a file that was made.
    pub fn created(&self, handle: FileHandle, ttl: Duration, attr: &fuser::FileAttr, reply: ReplyCreate) {
        // SAFETY: as above.
        let id = unsafe { reply.wrap_backing(self.raw) };
        reply.created_passthrough(&ttl, attr, Generation(0), handle, FopenFlags::empty(), &id);
        id.into_raw();
    }
}

impl Drop for KernelId {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            close_id(device, self.raw);
        }
    }
}

fn close_id(device: &OwnedFd, raw: u32) {
    // SAFETY: the call reads a number that lives as long as it. After an unmount there is nothing to close.
    unsafe { libc::ioctl(device.as_raw_fd(), BACKING_CLOSE, &raw) };
}

/// Ids that a dead daemon registered and did not live to note: all up to `next`, one that was registered later, that are
/// not `known`. The kernel counts upwards.
#[derive(Debug, Default)]
pub struct Unnoted {
    pub(super) device: Option<Arc<OwnedFd>>,
    pub(super) known: HashSet<u32>,
    pub(super) next: u32,
}

impl Unnoted {
    /// Closes them.
    pub fn close(self) {
        let Some(device) = &self.device else { return };
        for raw in self.next.saturating_sub(UNNOTED_MAX).max(1)..self.next {
            if !self.known.contains(&raw) {
                close_id(device, raw);
            }
        }
    }
}

/// Ids in use.
#[derive(Debug, Default)]
pub(super) struct Registered(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    /// By the address of the engine's descriptor.
    of: HashMap<usize, Arc<KernelId>>,
    /// Of files that were open when the last daemon died, and were asked for by nobody since.
    left: HashMap<Ino, KernelId>,
}

fn key(mode: &OpenMode) -> Option<usize> {
    match mode {
        OpenMode::Arena(content) => Some(Arc::as_ptr(content) as usize),
        OpenMode::Backing(file) => Some(Arc::as_ptr(file) as usize),
        OpenMode::Daemon(_) => None,
    }
}

impl Registered {
    fn id(&self, ino: Ino, mode: &OpenMode, shared: &Shared) -> io::Result<Option<Arc<KernelId>>> {
        let Some(key) = key(mode) else { return Ok(None) };
        let mut ids = self.0.lock();
        if let Some(id) = ids.of.get(&key) {
            return Ok(Some(id.clone()));
        }
        let id = Arc::new(match (ids.left.remove(&ino), mode) {
            (Some(id), _) => id,
            (None, OpenMode::Arena(content)) => KernelId::register(shared, content.file()?.as_fd())?,
            (None, OpenMode::Backing(file)) => KernelId::register(shared, file.as_fd())?,
            (None, OpenMode::Daemon(_)) => return Ok(None),
        });
        ids.of.insert(key, id.clone());
        Ok(Some(id))
    }

    /// Ids that the last daemon registered for files that are open still.
    pub(super) fn take_up(&self, left: HashMap<Ino, KernelId>) {
        self.0.lock().left = left;
    }

    /// One handle is closed; with the last, the id goes before the engine asks whether the file is quiet.
    pub(super) fn release(&self, engine: &Engine, ino: Ino, write: bool) {
        if let Some(ended) = engine.release(ino, write).last {
            if let Some(key) = key(ended.mode()) {
                let mut ids = self.0.lock();
                drop((ids.of.remove(&key), ids.left.remove(&ino)));
            }
            engine.closed(ino, ended);
        }
    }
}

/// All that an open needs, so that it can run on another thread.
pub(super) struct OpenContext {
    registered: Arc<Registered>,
    executed: Arc<Executed>,
    handles: Arc<Handles>,
    policy: Arc<Policy>,
    shared: Arc<Shared>,
}

impl Adapter {
    pub(super) fn open_context(&self) -> OpenContext {
        OpenContext {
            registered: self.registered.clone(),
            executed: self.executed.clone(),
            handles: self.handles.clone(),
            policy: self.policy.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl OpenContext {
    fn serve(&self, engine: &Engine, ino: Ino, want: Want) -> Result<(Opened, Option<Arc<KernelId>>)> {
        let opened = engine.open(ino, want)?;
        match self.registered.id(ino, &opened.mode, &self.shared) {
            Ok(id) => Ok((opened, id)),
            Err(e) => {
                // Without privilege, or on a file system that can't be stacked upon.
                if matches!(opened.mode, OpenMode::Arena(_)) {
                    self.policy.refused();
                    let limit = format!("the kernel refuses passthrough ({e}): all goes through the daemon");
                    log::warn!("{limit}");
                    self.shared.limits.lock().push(limit);
                } else {
                    engine.backing_refuses_passthrough();
                }
                self.registered.release(engine, ino, want.write);
                let opened = engine.open(ino, Want { passthrough: Err(Reason::NotAvailable), ..want })?;
                if key(&opened.mode).is_some() {
                    // Somebody else has it open in passthrough: the kernel took that id a moment ago.
                    self.registered.release(engine, ino, want.write);
                    return Err(aimss_engine::Error::Io(e));
                }
                Ok((opened, None))
            }
        }
    }

    /// Opens, and notes the handle before anybody is told of it.
    fn try_open(
        &self,
        engine: &Engine,
        ino: Ino,
        want: Want,
        exec: bool,
    ) -> Result<(FileHandle, Option<Arc<KernelId>>)> {
        let (opened, id) = self.serve(engine, ino, want)?;
        failpoint::pass("before", "handle-noted");
        self.shared.counts.count(&opened);
        let served = match opened.mode {
            OpenMode::Arena(_) => Served::Arena,
            OpenMode::Backing(_) => Served::Backing,
            OpenMode::Daemon(_) => Served::Daemon,
        };
        let (write, promised, raw) = (want.write, opened.promised, id.as_deref().map(KernelId::raw));
        let file = KeptFile { ino: ino.0, write, exec, served: served.into(), id: raw, promised };
        Ok((self.handles.keep_file(engine.journal(), file), id))
    }

    /// A handle is closed.
    pub(super) fn close(&self, engine: &Engine, handle: FileHandle) {
        let Some(file) = self.handles.close(engine.journal(), handle.0) else { return };
        if file.exec {
            self.executed.closed(Ino(file.ino));
        }
        self.registered.release(engine, Ino(file.ino), file.write);
    }

    /// The open of a request that a daemon noted before it died.
    fn again(&self, engine: &Engine, handle: u64) -> Option<(FileHandle, Option<Arc<KernelId>>)> {
        let file = self.handles.file(handle)?;
        let mode = engine.served(Ino(file.ino))?;
        Some((FileHandle(handle), self.registered.id(Ino(file.ino), &mode, &self.shared).ok()?))
    }

    /// `exec`: the handle is exec(2)'s, and counted as such. `noted`: the handle that this request was given before.
    pub(super) fn open(
        &self,
        engine: &Engine,
        ino: Ino,
        want: Want,
        exec: bool,
        (request, noted): (u64, Option<u64>),
        reply: ReplyOpen,
    ) {
        let _answering = Journal::answering(request);
        let opened = match noted.and_then(|handle| self.again(engine, handle)) {
            Some(opened) => Ok(opened),
            None => self.try_open(engine, ino, want, exec),
        };
        match opened {
            Ok((handle, _)) if !still_awaited() => {
                self.close(engine, handle);
                reply.error(Errno::EINTR);
            }
            Ok((handle, Some(id))) => id.opened(handle, reply),
            Ok((handle, None)) => reply.opened(handle, DIRECT),
            Err(e) => {
                if exec {
                    self.executed.closed(ino);
                }
                reply.error(errno(&e));
            }
        }
    }

    pub(super) fn create(
        &self,
        engine: &Engine,
        found: &Found,
        ttl: Duration,
        want: Want,
        (request, noted): (u64, Option<u64>),
        reply: ReplyCreate,
    ) {
        let _answering = Journal::answering(request);
        let attr = super::convert::attr_out(found.ino, &found.attr);
        let opened = match noted.and_then(|handle| self.again(engine, handle)) {
            Some(opened) => Ok(opened),
            None => self.try_open(engine, found.ino, want, false),
        };
        match opened {
            Ok((handle, _)) if !still_awaited() => {
                self.close(engine, handle);
                engine.forget(found.ino, 1);
                reply.error(Errno::EINTR);
            }
            Ok((handle, Some(id))) => id.created(handle, ttl, &attr, reply),
            Ok((handle, None)) => reply.created(&ttl, &attr, Generation(0), handle, DIRECT),
            Err(e) => {
                engine.forget(found.ino, 1);
                reply.error(errno(&e));
            }
        }
    }
}

/// Calls `run` with a buffer that this thread keeps, so that reads don't allocate and stay in the cache.
pub(super) fn with_buffer<T>(bytes: usize, run: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < bytes {
            buffer.resize(bytes, 0);
        }
        run(&mut buffer[..bytes])
    })
}
