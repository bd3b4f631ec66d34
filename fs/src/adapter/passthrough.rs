//! Opening files the way the engine decided, and the kernel's backing ids.
//!
//! A backing id belongs to the time from a file's first open to its last close: the kernel wants the same one for
//! every handle of it. The engine gives each such time its own descriptor, whose address is the key here. Ids are
//! registered from read-only descriptors (they serve writers too), so that we never look like a writer ourselves.

use super::executed::Executed;
use super::{Adapter, handle};
use crate::errno::errno;
use crate::policy::Policy;
use aimss_engine::engine::{Found, Opened, Reason, Want};
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Ino, Result};
use fuser::{BackingId, FopenFlags, Generation, ReplyCreate, ReplyOpen};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

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

/// Ids in use, by the address of the engine's descriptor.
#[derive(Debug, Default)]
pub(super) struct Registered(Mutex<HashMap<usize, Arc<BackingId>>>);

fn key(mode: &OpenMode) -> Option<usize> {
    match mode {
        OpenMode::Arena(content) => Some(Arc::as_ptr(content) as usize),
        OpenMode::Backing(file) => Some(Arc::as_ptr(file) as usize),
        OpenMode::Daemon(_) => None,
    }
}

impl Registered {
    fn id(
        &self,
        mode: &OpenMode,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> io::Result<Option<Arc<BackingId>>> {
        use std::os::fd::AsFd;
        let Some(key) = key(mode) else { return Ok(None) };
        let mut ids = self.0.lock();
        if let Some(id) = ids.get(&key) {
            return Ok(Some(id.clone()));
        }
        let id = Arc::new(match mode {
            OpenMode::Arena(content) => register(content.as_fd())?,
            OpenMode::Backing(file) => register(file.as_fd())?,
            OpenMode::Daemon(_) => return Ok(None),
        });
        ids.insert(key, id.clone());
        Ok(Some(id))
    }

    /// One handle is closed; with the last, the id goes before the engine asks whether the file is quiet.
    pub(super) fn release(&self, engine: &Engine, ino: Ino, write: bool) {
        if let Some(ended) = engine.release(ino, write).last {
            if let Some(key) = key(ended.mode()) {
                self.0.lock().remove(&key);
            }
            engine.closed(ino, ended);
        }
    }
}

/// All that an open needs, so that it can run on another thread.
pub(super) struct OpenContext {
    registered: Arc<Registered>,
    executed: Arc<Executed>,
    policy: Arc<Policy>,
    shared: Arc<super::Shared>,
}

impl Adapter {
    pub(super) fn open_context(&self) -> OpenContext {
        OpenContext {
            registered: self.registered.clone(),
            executed: self.executed.clone(),
            policy: self.policy.clone(),
            shared: self.shared.clone(),
        }
    }
}

impl OpenContext {
    fn try_open(
        &self,
        engine: &Engine,
        ino: Ino,
        want: Want,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Result<Option<Arc<BackingId>>> {
        let opened = engine.open(ino, want)?;
        match self.registered.id(&opened.mode, register) {
            Ok(id) => {
                self.shared.counts.count(&opened);
                Ok(id)
            }
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
                self.shared.counts.count(&opened);
                Ok(None)
            }
        }
    }

    /// `exec`: the handle is exec(2)'s, and counted as such.
    pub(super) fn open(&self, engine: &Engine, ino: Ino, want: Want, exec: bool, reply: ReplyOpen) {
        let fh = handle(want.write, exec);
        match self.try_open(engine, ino, want, |fd| reply.open_backing(fd)) {
            Ok(Some(id)) => reply.opened_passthrough(fh, FopenFlags::empty(), &id),
            Ok(None) => reply.opened(fh, DIRECT),
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
        reply: ReplyCreate,
    ) {
        let (attr, fh) = (super::convert::attr_out(found.ino, &found.attr), handle(want.write, false));
        match self.try_open(engine, found.ino, want, |fd| reply.open_backing(fd)) {
            Ok(Some(id)) => {
                let flags = FopenFlags::empty();
                reply.created_passthrough(&ttl, &attr, Generation(0), fh, flags, &id);
            }
            Ok(None) => reply.created(&ttl, &attr, Generation(0), fh, DIRECT),
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
