//! The FUSE adapter: decodes a request, calls the engine (through [`crate::posix`] where Linux has its own ideas),
//! and replies. One method a request, no decisions.
//!
//! What the kernel is told to remember: names and attributes that only we can change, for a minute; those that are
//! merely in step with the backing, until they are to be compared again; those of files that are written behind our back, not at all.
//! FLUSH is answered with "not implemented" once, so that a close costs no round trip.

mod convert;
mod executed;
mod handles;
pub mod held;
mod passthrough;
mod streams;

use crate::errno::errno;
use crate::latency::Latency;
use crate::policy::Policy;
use crate::posix::{self, Caller};
use crate::streams::kept::{AppenderId, is_stream_handle};
use crate::streams::{Node, StreamFiles};
use aimss_engine::engine::{DirEntry, Found, SetAttr, StillOpen, Want, Whence};
use aimss_engine::journal::{Answered, Journal, Recovered};
use aimss_engine::{Engine, Ino, Kind, Result, Timestamp};
use convert::{attr_out, kind_out, time_in};
use executed::Executed;
use fuser::{
    AccessFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use handles::Handles;
use held::{Held, carry, still_awaited};
use passthrough::{KernelId, Registered};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};
use streams::AppenderIds;

pub use passthrough::{ModeCounts, Unnoted};

/// How long the kernel keeps what only we change.
const OURS: Duration = Duration::from_secs(60);
/// Largest request; the kernel's own limit unless fs.fuse.max_pages_limit was raised.
const REQUEST_BYTES: u32 = 1 << 20;
/// Where a file is, and whether that is all of it; not listed, so that copying a file's attributes leaves it out.
const STATE_XATTR: &[u8] = b"user.aimss.state";
/// Entries of a listing with attributes that are looked at ahead on a backing whose calls travel.
const LOOKED_TOGETHER: usize = 128;
/// Requests the kernel may have under way that nobody waits for (read-ahead, releases).
const BACKGROUND_MAX: u16 = 64;

/// What a daemon tells the file system after the handshake, and asks of it.
#[derive(Debug, Default)]
pub struct Shared {
    /// How opens were served.
    pub counts: ModeCounts,
    /// What the kernel would not give, in sentences.
    pub limits: parking_lot::Mutex<Vec<String>>,
    /// Tells the kernel what to forget; there once it is mounted.
    pub notifier: OnceLock<fuser::Notifier>,
    /// The connection to the kernel; there once it is mounted.
    pub device: OnceLock<Arc<OwnedFd>>,
    /// What is not answered yet.
    pub held: Arc<Held>,
}

/// What a daemon finds of the one before.
#[derive(Debug, Default)]
pub struct Left {
    handles: Handles,
    /// What its requests came to.
    answered: HashMap<u64, Answered>,
}

impl Left {
    /// From the journal.
    pub fn of(recovered: &Recovered) -> Left {
        let files = recovered.notes.iter().filter(|(key, _)| **key < crate::streams::NODE_FIRST);
        Left {
            handles: Handles::take_up(files.map(|(key, note)| (*key, &note[..]))),
            answered: recovered.answered.iter().collect(),
        }
    }

    /// These files can't be served any more: when they are opened again, it is not with the ids of their handles.
    pub fn forget_ids_of(&mut self, files: &[Ino]) {
        self.handles.forget_ids_of(files);
    }

    /// Files that are open still.
    pub fn still_open(&self) -> Vec<StillOpen> {
        self.handles.still_open()
    }
}

/// See the module. Its copies are the same adapter: a request that waits takes one along.
#[derive(Debug, Clone)]
pub struct Adapter {
    engine: Arc<Engine>,
    policy: Arc<Policy>,
    shared: Arc<Shared>,
    held: Arc<Held>,
    registered: Arc<Registered>,
    executed: Arc<Executed>,
    handles: Arc<Handles>,
    /// What requests came to that the last daemon may not have answered.
    answered: Arc<HashMap<u64, Answered>>,
    streams: Arc<StreamFiles>,
    appenders: Arc<AppenderIds>,
    /// Somebody looks for threads that don't get to where they were sent.
    expecting: Arc<AtomicBool>,
    latency: Arc<Latency>,
    /// Runs what waits for storage, so that the threads that read requests don't.
    blocking: tokio::runtime::Handle,
}

impl Adapter {
    /// An adapter over `engine`, which took up what is `left`; requests that wait for storage run on `blocking`.
    pub fn new(
        engine: Arc<Engine>,
        policy: Arc<Policy>,
        shared: Arc<Shared>,
        streams: Arc<StreamFiles>,
        left: Left,
        blocking: tokio::runtime::Handle,
    ) -> Adapter {
        let latency = Latency::start();
        let held = shared.held.clone();
        engine.journal().keep_answers_while(move |request| held.awaits(request));
        Adapter {
            engine,
            policy,
            held: shared.held.clone(),
            shared,
            registered: Arc::default(),
            executed: Arc::default(),
            handles: Arc::new(left.handles),
            answered: Arc::new(left.answered),
            streams,
            appenders: Arc::default(),
            expecting: Arc::default(),
            latency,
            blocking,
        }
    }

    /// Runs what may wait for the backing beside the threads that read requests.
    fn aside(&self, run: impl FnOnce(&Engine) + Send + 'static) {
        let (engine, request) = (self.engine.clone(), carry());
        drop(self.blocking.spawn_blocking(move || {
            let _here = request.arrive();
            run(&engine);
        }));
    }

    /// The same, where it `waits`; at once where it does not.
    fn aside_if(&self, waits: bool, run: impl FnOnce(&Adapter) + Send + 'static) {
        if waits {
            let (adapter, request) = (self.clone(), carry());
            drop(self.blocking.spawn_blocking(move || {
                let _here = request.arrive();
                run(&adapter);
            }));
        } else {
            run(self);
        }
    }

    /// Takes up the backing ids of files that are open, and of streams that are appended to. Call once [`Shared::device`]
    /// is there, before requests come.
    /// What is returned is to be closed when there is time.
    pub fn take_up(&self, appenders: Vec<AppenderId>) -> Unnoted {
        let files = self.handles.all();
        let mut known = HashSet::with_capacity(files.len() + appenders.len());
        for AppenderId { ino, id } in appenders {
            known.insert(id);
            if let Some(id) = KernelId::taken_up(&self.shared, id) {
                self.appenders.take_up(ino, id);
            }
        }
        let mut left = HashMap::with_capacity(files.len());
        for file in &files {
            if file.exec {
                self.executed.opened(Ino(file.ino));
            }
            if let Some(raw) = file.id.filter(|raw| known.insert(*raw))
                && let Some(id) = KernelId::taken_up(&self.shared, raw)
            {
                left.insert(Ino(file.ino), id);
            }
        }
        self.registered.take_up(left);
        // Any file will do to learn the next number.
        let any = rustix::fs::memfd_create("next-id", rustix::fs::MemfdFlags::CLOEXEC);
        if let (Some(device), Ok(any)) = (self.shared.device.get(), any)
            && let Ok(next) = KernelId::register(&self.shared, any.as_fd())
        {
            return Unnoted { device: Some(device.clone()), known, next: next.raw() };
        }
        Unnoted::default()
    }

    /// What a request came to that the last daemon worked on, if this is one that it may not have answered.
    fn before(&self, request: u64) -> Option<Answered> {
        self.answered.get(&crate::session::first_number(request)?).copied()
    }

    fn get_attr(&self, number: INodeNo, reply: ReplyAttr) {
        match self.engine.attr_and_age(self.ino(number)) {
            Ok(found) if let Node::Group(_) = self.streams.node(number.0) => {
                let attr = attr_out(Ino(number.0), &crate::streams::group_attr(&found.attr));
                reply.attr(&Duration::ZERO, &attr);
            }
            Ok(found) => {
                self.answer_with(found, move |adapter, found| adapter.reply_attr(number, found, reply));
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// The object that such a request made or changed.
    fn done_before(&self, request: u64) -> Option<Ino> {
        match self.before(request) {
            Some(Answered::Done(ino)) => Some(ino),
            _ => None,
        }
    }

    /// The handle that such a request was given.
    fn noted_before(&self, request: u64) -> Option<u64> {
        match self.before(request) {
            Some(Answered::Noted(handle)) => Some(handle),
            _ => None,
        }
    }

    /// The entry that such a request made: the kernel's reference was counted.
    fn made_before(&self, request: u64) -> Option<Result<Found>> {
        Some(self.engine.attr_and_age(self.done_before(request)?))
    }

    fn passthrough(
        &self,
        ino: Ino,
        pid: u32,
        write: bool,
    ) -> std::result::Result<(), aimss_engine::engine::Reason> {
        self.policy.passthrough(pid, write, || self.engine.path_of(ino))
    }

    fn want(&self, ino: Ino, pid: u32, flags: i32) -> Want {
        let write = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        let truncate = flags & libc::O_TRUNC != 0;
        Want { write, truncate, passthrough: self.passthrough(ino, pid, write), process: pid }
    }

    /// The inode behind a node's number, its twin's and a group's included.
    fn ino(&self, number: INodeNo) -> Ino {
        self.streams.inode(number.0)
    }

    /// Shows a stream as its bytes, from the first of this node on; returns how long the kernel may keep the
    /// attributes.
    fn show(&self, number: u64, found: &mut Found) -> Duration {
        if let Some(stream) = self.streams.of(found.ino, &found.attr) {
            crate::streams::show(&stream, self.streams.begin(number, &stream), &mut found.attr);
            return Duration::ZERO;
        }
        if self.engine.changes_unseen(found.ino) { Duration::ZERO } else { self.ttl(found.ours) }
    }

    /// How long the kernel may keep what is `ours`, or what somebody may change on the backing.
    fn ttl(&self, ours: bool) -> Duration {
        if ours { OURS } else { self.engine.revalidates_after().min(OURS) }
    }

    fn reply_entry(&self, result: Result<Found>, reply: ReplyEntry) {
        match result {
            Ok(found) => self.reply_found(found, 0, reply),
            Err(e) => reply.error(errno(&e)),
        }
    }
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), pid: req.pid(), request: req.unique().0 }
}

fn reply_empty(result: Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = [
            (InitFlags::FUSE_ATOMIC_O_TRUNC, ""),
            (InitFlags::FUSE_PARALLEL_DIROPS, ""),
            (InitFlags::FUSE_DO_READDIRPLUS, ""),
            (InitFlags::FUSE_READDIRPLUS_AUTO, ""),
            (InitFlags::FUSE_DONT_MASK, "default ACLs are not inherited"),
            (InitFlags::FUSE_POSIX_ACL, "POSIX ACLs are not enforced"),
            (InitFlags::FUSE_CACHE_SYMLINKS, ""),
            (InitFlags::FUSE_ASYNC_DIO, ""),
            (
                InitFlags::FUSE_HANDLE_KILLPRIV_V2,
                "every write asks for capabilities, which makes small ones slow",
            ),
            (InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP, "files that the daemon serves can't be mapped shared"),
            (InitFlags::FUSE_EXPLICIT_INVAL_DATA, ""),
        ];
        let mut limits = self.shared.limits.lock();
        for (flag, cost) in wanted {
            if config.add_capabilities(flag).is_err() && !cost.is_empty() {
                limits.push(format!("this kernel lacks a FUSE feature: {cost}"));
            }
        }
        if self.policy.is_available() {
            let stack = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
            if !stack || config.set_max_stack_depth(1).is_err() {
                self.policy.refused();
                limits.push("this kernel has no FUSE passthrough (Linux 6.9 or later has): all goes through the daemon".into());
            }
        }
        let _ = config.set_max_write(REQUEST_BYTES);
        let _ = config.set_max_readahead(REQUEST_BYTES);
        let _ = config.set_max_background(BACKGROUND_MAX);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _here = self.held.enter(req, "lookup", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (parent, thread) = (self.ino(parent), req.pid());
        if self.engine.lookup_waits(parent, name.as_bytes()) {
            let name = name.to_owned();
            return self.aside_if(true, move |adapter| {
                adapter.look_up(thread, parent, name.as_bytes(), reply);
            });
        }
        self.look_up(thread, parent, name.as_bytes(), reply);
    }

    fn forget(&self, _req: &Request, number: INodeNo, count: u64) {
        let ino = self.ino(number);
        if !self.streams.forget(number.0, count) {
            self.engine.forget(ino, count);
        }
    }

    fn getattr(&self, req: &Request, number: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        let _here = self.held.enter(req, "getattr", self.ino(number), b"");
        self.latency.request();
        self.aside_if(self.engine.attr_waits(self.ino(number)), move |adapter| {
            adapter.get_attr(number, reply);
        });
    }

    fn setattr(
        &self,
        req: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _here = self.held.enter(req, "setattr", self.ino(number), b"");
        self.latency.request();
        let time = |t| match t {
            TimeOrNow::Now => Timestamp::now(),
            TimeOrNow::SpecificTime(t) => time_in(t),
        };
        let change = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
        let (ino, caller) = (self.ino(number), caller(req));
        if self.done_before(caller.request).is_some() {
            return self.getattr(req, number, None, reply);
        }
        // Whose a stream is, and a time that is set, are noted beside its log.
        let noted = uid.is_some() || mtime.is_some();
        // An ACL goes with the mode, and capabilities with the owner.
        let acl = mode.is_some() || uid.is_some() || gid.is_some() || size.is_some();
        let waits = self.engine.attr_waits(ino)
            || self.streams.waits_for(ino)
            || (noted && self.streams.is_known(ino))
            || (acl && self.engine.xattrs_wait(ino))
            || (size.is_some() && self.engine.read_waits(ino));
        self.aside_if(waits, move |adapter| {
            let _answering = Journal::answering(caller.request);
            adapter.change_attributes(number, caller, change, reply);
        });
    }

    fn readlink(&self, req: &Request, number: INodeNo, reply: ReplyData) {
        let _here = self.held.enter(req, "readlink", self.ino(number), b"");
        let ino = self.ino(number);
        self.aside_if(self.engine.read_link_waits(ino), move |adapter| match adapter.engine.read_link(ino) {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let _here = self.held.enter(req, "mknod", self.ino(parent), name.as_bytes());
        let Some(kind) = Kind::from_mode(mode) else { return reply.error(Errno::EINVAL) };
        let (parent, caller) = (self.ino(parent), caller(req));
        self.change_name(caller.request, parent, name, move |adapter, name| {
            let make = || {
                let mut new = posix::prepare(&adapter.engine, parent, caller, kind, mode, umask)?;
                new.rdev = rdev;
                adapter.engine.make(parent, name, &new)
            };
            let made = adapter.made_before(caller.request).unwrap_or_else(make);
            adapter.reply_entry(made, reply);
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let _here = self.held.enter(req, "mkdir", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (parent, caller) = (self.ino(parent), caller(req));
        self.change_name(caller.request, parent, name, move |adapter, name| {
            let make = || {
                let new = posix::prepare(&adapter.engine, parent, caller, Kind::Directory, mode, umask)?;
                adapter.engine.make(parent, name, &new)
            };
            let made = adapter.made_before(caller.request).unwrap_or_else(make);
            adapter.reply_entry(made, reply);
        });
    }

    fn unlink(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _here = self.held.enter(req, "unlink", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (parent, request) = (self.ino(parent), req.unique().0);
        if let Some(gone) = self.done_before(request) {
            return self.after_names_changed(Ok(()), None, Some(gone), reply);
        }
        if self.is_group_name(parent, name.as_bytes()) {
            let name = name.as_bytes().to_vec();
            return self.aside_if(true, move |adapter| match adapter.unlink_group(parent, &name) {
                // It was removed, by a daemon that did not live to say so.
                Err(aimss_engine::Error::NotFound) if crate::session::first_number(request).is_some() => {
                    reply.ok();
                }
                removed => reply_empty(removed, reply),
            });
        }
        self.change_name(request, parent, name, move |adapter, name| {
            let gone = adapter.streams.named(parent, name);
            adapter.streams.going(gone);
            let removed = adapter.engine.unlink(parent, name);
            adapter.after_names_changed(removed, None, gone, reply);
        });
    }

    fn rmdir(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _here = self.held.enter(req, "rmdir", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (parent, request) = (self.ino(parent), req.unique().0);
        if self.done_before(request).is_some() {
            return reply.ok();
        }
        self.change_name(request, parent, name, move |adapter, name| {
            reply_empty(adapter.engine.rmdir(parent, name), reply);
        });
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let _here = self.held.enter(req, "symlink", self.ino(parent), name.as_bytes());
        let (parent, caller, target) = (self.ino(parent), caller(req), target.as_os_str().to_owned());
        self.change_name(caller.request, parent, name, move |adapter, name| {
            let make = || {
                let mut new = posix::prepare(&adapter.engine, parent, caller, Kind::Symlink, 0o777, 0)?;
                new.target = Some(target.as_bytes());
                adapter.engine.make(parent, name, &new)
            };
            let made = adapter.made_before(caller.request).unwrap_or_else(make);
            adapter.reply_entry(made, reply);
        });
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let _here = self.held.enter(req, "rename", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (from_parent, to_parent) = (self.ino(parent), self.ino(newparent));
        let request = req.unique().0;
        let waits = self.engine.change_waits(from_parent, name.as_bytes())
            || self.engine.change_waits(to_parent, newname.as_bytes());
        let (name, newname) = (name.to_owned(), newname.to_owned());
        self.aside_if(waits, move |adapter| {
            let from = (from_parent, name.as_bytes());
            let to = (to_parent, newname.as_bytes());
            let done = adapter.done_before(request).is_some();
            // What is there by now moved; of what was, `StreamFiles::gone` knows.
            let replaced = adapter.streams.named(to.0, to.1).filter(|_| !done);
            adapter.streams.going(replaced);
            let _answering = Journal::answering(request);
            let result = if done {
                Ok(())
            } else if flags == RenameFlags::RENAME_EXCHANGE {
                adapter.engine.exchange(from, to)
            } else if flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty() {
                adapter.engine.rename(from, to, flags.contains(RenameFlags::RENAME_NOREPLACE))
            } else {
                Err(aimss_engine::Error::Invalid)
            };
            let moved = adapter.streams.named(to.0, to.1);
            adapter.after_names_changed(result, moved, replaced, reply);
        });
    }

    fn link(&self, req: &Request, number: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let _here = self.held.enter(req, "link", self.ino(newparent), newname.as_bytes());
        let (ino, parent, request) = (self.ino(number), self.ino(newparent), req.unique().0);
        self.change_name(request, parent, newname, move |adapter, name| {
            let link = || adapter.engine.link(ino, parent, name);
            let linked = adapter.made_before(request).unwrap_or_else(link);
            adapter.reply_entry(linked, reply);
        });
    }

    fn open(&self, req: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let operation = if flags.0 & libc::O_TRUNC == 0 { "open" } else { "setattr" };
        let _here = self.held.enter(req, operation, self.ino(number), b"");
        self.latency.request();
        let (waits, caller) = (self.streams.open_waits(number.0, flags.0), caller(req));
        self.aside_if(waits, move |adapter| {
            if let Some(reply) = adapter.open_stream(caller, number.0, flags.0, reply) {
                adapter.open_file(caller, number, flags.0, reply);
            }
        });
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _here = self.held.enter(req, "create", self.ino(parent), name.as_bytes());
        self.latency.request();
        let (parent, caller) = (self.ino(parent), caller(req));
        self.change_name(caller.request, parent, name, move |adapter, name| {
            adapter.create_file(caller, (parent, name), (mode, umask), flags, reply);
        });
    }

    fn read(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _here = self.held.enter(req, "read", self.ino(number), b"");
        self.latency.request();
        if let Some(handle) = self.streams.handle(fh.0) {
            // A read(2) names its caller's files; what fills a page, for sendfile(2) or a mapping, does not.
            let paged = lock_owner.is_none().then_some(number.0);
            return self.read_stream(req, handle, (offset, paged), size, flags.0, reply);
        }
        if is_stream_handle(fh.0) {
            // It could not be had back from the last daemon.
            return reply.error(Errno::EIO);
        }
        let ino = self.ino(number);
        self.aside_if(self.engine.read_waits(ino), move |adapter| {
            passthrough::with_buffer(size as usize, |buffer| {
                match adapter.engine.read(ino, offset, buffer) {
                    Ok(n) => reply.data(&buffer[..n]),
                    Err(e) => reply.error(errno(&e)),
                }
            });
        });
    }

    fn write(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _here = self.held.enter(req, "write", self.ino(number), b"");
        self.latency.request();
        let ino = self.ino(number);
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let kill = move |engine: &Engine| {
            if kills {
                let _ = posix::kill_privileges(engine, ino);
            }
        };
        let from_mapping = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let append = flags.0 & libc::O_APPEND != 0 && !from_mapping;
        if from_mapping && self.streams.of_inode(ino).is_some() {
            return reply.error(Errno::EPERM);
        }
        if let Some(handle) = self.streams.handle(fh.0) {
            kill(&self.engine);
            return self.write_stream(req.unique().0, &handle, offset, data, append, reply);
        }
        if is_stream_handle(fh.0) {
            return reply.error(Errno::EIO);
        }
        let request = req.unique().0;
        // What was appended before is written to the same place.
        let (offset, append) = match self.before(request) {
            Some(Answered::Appended(offset)) if append => (offset, false),
            _ => (offset, append),
        };
        let write = move |engine: &Engine, data: &[u8]| {
            let _answering = Journal::answering(request);
            kill(engine);
            match engine.write(ino, offset, data, append) {
                Ok(()) => reply.written(data.len() as u32),
                Err(e) => reply.error(errno(&e)),
            }
        };
        if self.engine.write_waits(ino) || (kills && self.engine.xattrs_wait(ino)) {
            let data = data.to_vec();
            self.aside(move |engine| write(engine, &data));
        } else {
            write(&self.engine, data);
        }
    }

    fn flush(&self, _req: &Request, _number: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let _here = self.held.enter(req, "release", self.ino(number), b"");
        self.latency.request();
        self.aside_if(self.streams.close_waits(fh.0), move |adapter| {
            if !adapter.release_stream(number.0, fh) {
                adapter.open_context().close(&adapter.engine, fh);
            }
            reply.ok();
        });
    }

    fn fsync(&self, req: &Request, number: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let _here = self.held.enter(req, "fsync", self.ino(number), b"");
        let (ino, streams) = (self.ino(number), self.streams.clone());
        self.aside(move |engine| {
            let synced = match streams.of_inode(ino) {
                Some(stream) => stream.sync().map_err(crate::streams::error),
                None => Ok(()),
            };
            reply_empty(synced.and_then(|()| engine.sync(ino)), reply);
        });
    }

    fn fsyncdir(&self, req: &Request, number: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let _here = self.held.enter(req, "fsyncdir", self.ino(number), b"");
        let ino = self.ino(number);
        self.aside(move |engine| reply_empty(engine.sync(ino), reply));
    }

    fn opendir(&self, req: &Request, number: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let _here = self.held.enter(req, "opendir", self.ino(number), b"");
        let dir = self.ino(number);
        self.aside_if(self.engine.listing_waits(dir), move |adapter| {
            match adapter.engine.open_directory(dir) {
                Ok(_) if !still_awaited() => {
                    // The listing counts as shown, and what the kernel has may be an older one.
                    if let Some(notifier) = adapter.shared.notifier.get() {
                        let _ = notifier.inval_inode(number, 0, 0);
                    }
                    reply.error(Errno::EINTR);
                }
                Ok(unchanged) => {
                    let keep = if unchanged { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
                    reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | keep);
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn readdir(
        &self,
        req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _here = self.held.enter(req, "readdir", self.ino(number), b"");
        let dir = self.ino(number);
        self.listed(dir, move |adapter| {
            if adapter.dots(dir, offset, |at, cookie, name| {
                reply.add(INodeNo(at.0), cookie, fuser::FileType::Directory, name)
            }) {
                return reply.ok();
            }
            let result = adapter.engine.read_directory(dir, offset, |entry: &DirEntry| {
                let (ino, kind) = (INodeNo(entry.ino.0), kind_out(entry.kind));
                !reply.add(ino, entry.cookie, kind, OsStr::from_bytes(&entry.name))
            });
            match result {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn readdirplus(
        &self,
        req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let _here = self.held.enter(req, "readdirplus", self.ino(number), b"");
        let dir = self.ino(number);
        self.listed(dir, move |adapter| adapter.list_with_attributes(dir, offset, reply));
    }

    fn statfs(&self, req: &Request, number: INodeNo, reply: ReplyStatfs) {
        let _here = self.held.enter(req, "statfs", self.ino(number), b"");
        self.aside_if(self.engine.is_remote(), move |adapter| match adapter.engine.room() {
            Ok(r) => {
                let block = u32::try_from(r.block_bytes).unwrap_or(4096);
                reply.statfs(r.blocks, r.free, r.available, r.files, r.files_free, block, 255, block);
            }
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn setxattr(
        &self,
        req: &Request,
        number: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let _here = self.held.enter(req, "setxattr", self.ino(number), b"");
        let ours =
            name.as_bytes().starts_with(b"user.aimss.") && self.streams.of_inode(self.ino(number)).is_some();
        if ours || name.as_bytes() == STATE_XATTR {
            return reply.error(Errno::EPERM);
        }
        let (create, replace) = (flags & libc::XATTR_CREATE != 0, flags & libc::XATTR_REPLACE != 0);
        let (name, value, request) = (name.to_owned(), value.to_owned(), req.unique().0);
        if self.done_before(request).is_some() {
            return reply.ok();
        }
        self.with_xattrs(number, move |adapter| {
            let _answering = Journal::answering(request);
            let ino = adapter.ino(number);
            let set = posix::set_xattr(&adapter.engine, ino, name.as_bytes(), &value, create, replace);
            reply_empty(set, reply);
        });
    }

    fn getxattr(&self, req: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _here = self.held.enter(req, "getxattr", self.ino(number), b"");
        self.latency.request();
        if let Some(value) = self.made_up_xattr(number, name) {
            return match value {
                Ok(value) => reply_sized(value.as_bytes(), size, reply),
                Err(e) => reply.error(e),
            };
        }
        let name = name.to_owned();
        self.with_xattrs(number, move |adapter| {
            let ino = adapter.ino(number);
            adapter.engine.load_xattrs_ahead(ino);
            match adapter.engine.xattr(ino, name.as_bytes()) {
                Ok(value) => reply_sized(&value, size, reply),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn listxattr(&self, req: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let _here = self.held.enter(req, "listxattr", self.ino(number), b"");
        self.with_xattrs(number, move |adapter| {
            let ino = adapter.ino(number);
            adapter.engine.load_xattrs_ahead(ino);
            match adapter.engine.xattr_names(ino) {
                Ok(mut names) => {
                    if let Some(stream) = adapter.streams.of_inode(ino) {
                        names.extend(adapter.streams.xattr_names(&stream));
                    }
                    let list: Vec<u8> =
                        names.iter().flat_map(|name| name.iter().copied().chain([0])).collect();
                    reply_sized(&list, size, reply);
                }
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn removexattr(&self, req: &Request, number: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let _here = self.held.enter(req, "removexattr", self.ino(number), b"");
        let (name, request) = (name.to_owned(), req.unique().0);
        if self.done_before(request).is_some() {
            return reply.ok();
        }
        self.with_xattrs(number, move |adapter| {
            let _answering = Journal::answering(request);
            reply_empty(adapter.engine.remove_xattr(adapter.ino(number), name.as_bytes()), reply);
        });
    }

    fn access(&self, _req: &Request, _number: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        // The kernel checks permissions itself; it remembers this answer and asks no more.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        req: &Request,
        number: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let _here = self.held.enter(req, "fallocate", self.ino(number), b"");
        if self.streams.of_inode(self.ino(number)).is_some() {
            // Room that changes no size is no change of records.
            let harmless = mode == libc::FALLOC_FL_KEEP_SIZE;
            return if harmless { reply.ok() } else { reply.error(Errno::EPERM) };
        }
        reply_empty(self.engine.fallocate(self.ino(number), offset, length, mode), reply);
    }

    fn poll(
        &self,
        _req: &Request,
        _number: INodeNo,
        fh: FileHandle,
        notifier: fuser::PollNotifier,
        _events: fuser::PollEvents,
        flags: fuser::PollFlags,
        reply: fuser::ReplyPoll,
    ) {
        self.poll_stream(fh, notifier, flags, reply);
    }

    fn ioctl(
        &self,
        _req: &Request,
        _number: INodeNo,
        _fh: FileHandle,
        _flags: fuser::IoctlFlags,
        _cmd: u32,
        _in_data: &[u8],
        _out_size: u32,
        reply: fuser::ReplyIoctl,
    ) {
        // As a file system without ioctls of its own says; isatty(3) asks this of every file.
        reply.error(Errno::ENOTTY);
    }

    fn lseek(
        &self,
        req: &Request,
        number: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _here = self.held.enter(req, "lseek", self.ino(number), b"");
        let whence = match whence {
            libc::SEEK_DATA => Whence::Data,
            libc::SEEK_HOLE => Whence::Hole,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        if let Some(handle) = self.streams.handle(fh.0) {
            return Adapter::seek_stream(&handle, offset, whence, reply);
        }
        match self.engine.seek(self.ino(number), offset, whence) {
            Ok(found) => reply.offset(found as i64),
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn copy_file_range(
        &self,
        req: &Request,
        ino_in: INodeNo,
        _fh_in: FileHandle,
        offset_in: u64,
        ino_out: INodeNo,
        _fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: fuser::CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let _here = self.held.enter(req, "copy_file_range", self.ino(ino_out), b"");
        // A request's result is 32 bits wide; the caller comes back for the rest.
        let len = len.min(1 << 30);
        let (ino_in, ino_out) = (self.ino(ino_in), self.ino(ino_out));
        if self.streams.of_inode(ino_in).is_some() || self.streams.of_inode(ino_out).is_some() {
            // The caller reads and writes instead.
            return reply.error(Errno::EOPNOTSUPP);
        }
        self.aside(move |engine| match engine.copy_range((ino_in, offset_in), (ino_out, offset_out), len) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(errno(&e)),
        });
    }
}

impl Adapter {
    /// Whether showing what was found waits: for storage, or for the kernel, which has to forget pages first.
    fn showing_waits(&self, found: &Found) -> bool {
        self.streams.waits(found.ino, &found.attr) || self.streams.has_stale_page(found.ino)
    }

    /// Answers with what was found, aside where showing it waits.
    fn answer_with(&self, found: Found, answer: impl FnOnce(&Adapter, Found) + Send + 'static) {
        self.aside_if(self.showing_waits(&found), move |adapter| {
            adapter.forget_stale_pages(found.ino);
            answer(adapter, found);
        });
    }

    fn reply_attr(&self, number: INodeNo, mut found: Found, reply: ReplyAttr) {
        let ttl = self.show(number.0, &mut found);
        reply.attr(&ttl, &attr_out(found.ino, &found.attr));
    }

    fn reply_absent(&self, parent: Ino, name: &[u8], reply: ReplyEntry) {
        if let Some(group) = self.find_group(parent, name) {
            return self.reply_group(group, reply);
        }
        // Tomorrow there may be a stream whose group this is.
        let may_come = crate::streams::group_name(name).is_some();
        let ttl = if may_come { Duration::ZERO } else { self.ttl(self.engine.absence_is_ours(parent)) };
        // Inode 0 with a lifetime: the kernel remembers that there is no such name.
        let none = fuser::FileAttr { ino: INodeNo(0), ..attr_out(Ino(0), &convert::NOTHING) };
        reply.entry(&ttl, &none, Generation(0));
    }

    fn change_attributes(&self, number: INodeNo, caller: Caller, change: SetAttr, reply: ReplyAttr) {
        let (ino, size) = (self.ino(number), change.size);
        let stream = self.streams.of_inode(ino);
        let cut = size.is_some_and(|size| {
            stream.as_ref().is_some_and(|stream| {
                let begin = self.streams.begin(number.0, stream);
                stream.view().map_or(true, |view| view.begin.0 + view.bytes != begin.0 + size)
            })
        });
        if size.is_some() && stream.is_none() && self.streams.is_broken(ino) {
            return reply.error(Errno::EIO);
        }
        if cut || matches!(self.streams.node(number.0), Node::Group(_)) {
            return reply.error(Errno::EPERM);
        }
        let change = SetAttr { size: size.filter(|_| stream.is_none()), ..change };
        if let (Some(stream), Some(_)) = (&stream, change.uid)
            && let Err(e) = stream.change_settings(|settings| settings.owner = None)
        {
            // The old owner's and the new one's, until it is noted whose: this daemon may not live to do that.
            return reply.error(errno(&crate::streams::error(e)));
        }
        match posix::set_attr(&self.engine, ino, caller, change) {
            Ok(attr) => {
                if let (Some(stream), Some(_)) = (&stream, change.mtime)
                    && let Err(e) = stream.set_mtime(attr.mtime)
                {
                    return reply.error(errno(&crate::streams::error(e)));
                }
                if change.uid.is_some() {
                    self.streams.changed(ino);
                }
                self.reply_attr(number, Found { ino, attr, ours: true }, reply);
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// Names changed: a stream that has a new one, and one that lost one, are told.
    fn after_names_changed(
        &self,
        result: Result<()>,
        moved: Option<Ino>,
        gone: Option<Ino>,
        reply: ReplyEmpty,
    ) {
        let known = |ino: &Ino| self.streams.is_known(*ino);
        let (moved, gone) = (moved.filter(known), gone.filter(known));
        self.aside_if(moved.is_some() || gone.is_some(), move |adapter| {
            if let Some(moved) = moved.filter(|_| result.is_ok()) {
                adapter.streams.changed(moved);
            }
            if let Some(gone) = gone {
                if result.is_ok() {
                    adapter.streams.name_gone(gone);
                }
                adapter.streams.seen_to(gone);
            }
            reply_empty(result, reply);
        });
    }

    /// Answers a lookup by the thread `thread`.
    fn look_up(&self, thread: u32, parent: Ino, name: &[u8], reply: ReplyEntry) {
        match self.engine.lookup(parent, name) {
            Err(aimss_engine::Error::NotFound) => {
                let name = name.to_vec();
                let waits = self.finding_group_waits(parent, &name);
                self.aside_if(waits, move |adapter| adapter.reply_absent(parent, &name, reply));
            }
            Ok(found) => {
                self.answer_with(found, move |adapter, found| adapter.reply_found(found, thread, reply));
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    fn open_file(&self, caller: Caller, number: INodeNo, flags: i32, reply: ReplyOpen) {
        let ino = self.ino(number);
        if self.executed.refuses(ino, flags) {
            return reply.error(Errno::ETXTBSY);
        }
        let exec = Executed::is_exec(flags);
        let before = (caller.request, self.noted_before(caller.request));
        if exec && before.1.is_none() {
            self.executed.opened(ino);
        }
        let want = self.want(ino, caller.pid, flags);
        let kills = want.truncate && caller.uid != 0;
        let context = self.open_context();
        let open = move |engine: &Engine| {
            if kills {
                let _ = posix::kill_privileges(engine, ino);
            }
            context.open(engine, ino, want, exec, before, reply);
        };
        let waits = self.engine.open_waits(ino, want) || (kills && self.engine.xattrs_wait(ino));
        if waits { self.aside(open) } else { open(&self.engine) }
    }

    /// Runs a change of `name` in `parent` for a request, aside where it waits for storage.
    fn change_name(
        &self,
        request: u64,
        parent: Ino,
        name: &OsStr,
        run: impl FnOnce(&Adapter, &[u8]) + Send + 'static,
    ) {
        if self.engine.change_waits(parent, name.as_bytes()) {
            let name = name.to_owned();
            self.aside_if(true, move |adapter| {
                let _answering = Journal::answering(request);
                run(adapter, name.as_bytes());
            });
        } else {
            let _answering = Journal::answering(request);
            run(self, name.as_bytes());
        }
    }

    /// Makes a file and opens it.
    fn create_file(
        &self,
        caller: Caller,
        (parent, name): (Ino, &[u8]),
        (mode, umask): (u32, u32),
        flags: i32,
        reply: ReplyCreate,
    ) {
        let noted = self.noted_before(caller.request);
        let of_file = |handle| self.handles.file(handle).map(|file| Ino(file.ino));
        let ino = noted.and_then(|handle| of_file(handle).or_else(|| self.streams.inode_of_handle(handle)));
        let made = match ino.or_else(|| self.done_before(caller.request)) {
            Some(ino) => self.engine.attr_and_age(ino),
            None => posix::prepare(&self.engine, parent, caller, Kind::File, mode, umask)
                .and_then(|new| self.engine.make(parent, name, &new)),
        };
        match made {
            Ok(found) if self.streams.is_stream_name(parent, name) => {
                let name = name.to_vec();
                self.aside_if(true, move |adapter| {
                    adapter.create_stream(caller, (parent, &name), &found, flags, reply);
                });
            }
            Ok(found) => {
                // The handle may write whatever the mode bits of the new file say; O_RDONLY with O_CREAT may not.
                let want =
                    Want { truncate: false, ..self.want(found.ino, caller.pid, flags & !libc::O_TRUNC) };
                let context = self.open_context();
                let open = move |engine: &Engine| {
                    context.create(engine, &found, OURS, want, (caller.request, noted), reply);
                };
                if self.engine.open_waits(found.ino, want) { self.aside(open) } else { open(&self.engine) }
            }
            // The kernel thinks that there is no such name, and may be wrong: it looks again, and opens what is there.
            Err(aimss_engine::Error::Exists) if flags & libc::O_EXCL == 0 => {
                let found = self.engine.resolve(parent, name).ok();
                let waits = found.is_some_and(|ino| self.streams.open_waits(ino.0, flags));
                self.aside_if(waits, move |adapter| {
                    if let Some(ino) = found {
                        adapter.expect_appender(caller.pid, ino, flags);
                    }
                    reply.error(Errno::ESTALE);
                });
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// Runs what needs a file's extended attributes, aside where they are still to be asked for.
    fn with_xattrs(&self, number: INodeNo, run: impl FnOnce(&Adapter) + Send + 'static) {
        self.aside_if(self.engine.xattrs_wait(self.ino(number)), run);
    }

    /// An attribute that no file has and that we answer for: where a file is, and the settings of a stream. `None` for all
    /// others.
    fn made_up_xattr(&self, number: INodeNo, name: &OsStr) -> Option<std::result::Result<String, Errno>> {
        let (ino, name) = (self.ino(number), name.as_bytes());
        let value = match self.streams.of_inode(ino) {
            Some(stream) if name.starts_with(b"user.aimss.") => self.streams.xattr(&stream, name),
            None if name == STATE_XATTR => self.engine.file_state(ino).ok().map(|state| state.to_string()),
            _ => return None,
        };
        Some(value.ok_or(Errno::ENODATA))
    }

    /// Runs what reads a directory, once all of its names are known.
    fn listed(&self, dir: Ino, run: impl FnOnce(&Adapter) + Send + 'static) {
        if self.engine.is_listed(dir) {
            return run(self);
        }
        self.aside_if(self.engine.listing_waits(dir), move |adapter| {
            // What can't be listed now is read as far as it is known.
            let _ = adapter.engine.load_directory(dir);
            run(adapter);
        });
    }

    fn list_with_attributes(&self, dir: Ino, offset: u64, mut reply: ReplyDirectoryPlus) {
        let none = attr_out(Ino(0), &convert::NOTHING);
        let full = self.dots(dir, offset, |at, cookie, name| {
            let attr = fuser::FileAttr { ino: INodeNo(at.0), kind: fuser::FileType::Directory, ..none };
            // The kernel takes no reference for these two.
            reply.add(INodeNo(at.0), cookie, name, &Duration::ZERO, &attr, Generation(0))
        });
        if full {
            return reply.ok();
        }
        let mut batch: Vec<DirEntry> = Vec::new();
        // A reply holds at most a few hundred entries with attributes.
        const BATCH_MAX: usize = 1024;
        let listed = self.engine.read_directory(dir, offset, |entry: &DirEntry| {
            batch.push(entry.clone());
            batch.len() < BATCH_MAX
        });
        if let Err(e) = listed {
            return reply.error(errno(&e));
        }
        self.add_entries(dir, batch.into_iter(), Vec::new(), false, reply);
    }

    /// Fills a reply with entries and their attributes, from the first one on that waits aside, unless this `is_aside`;
    /// these were `added`, by node and inode.
    fn add_entries(
        &self,
        dir: Ino,
        mut entries: std::vec::IntoIter<DirEntry>,
        mut added: Vec<(u64, Ino)>,
        is_aside: bool,
        mut reply: ReplyDirectoryPlus,
    ) {
        let mut looked = 0_usize;
        while let Some(entry) = entries.as_slice().first() {
            if is_aside && looked == 0 {
                looked = LOOKED_TOGETHER;
                let names = entries.as_slice().iter().take(looked);
                self.engine.look_together(dir, names.map(|entry| &*entry.name));
            }
            looked = looked.saturating_sub(1);
            if !is_aside && self.engine.lookup_waits(dir, &entry.name) {
                return self
                    .aside_if(true, move |adapter| adapter.add_entries(dir, entries, added, true, reply));
            }
            // Looked up only to be shown; gone meanwhile means not shown.
            let Ok(mut found) = self.engine.lookup(dir, &entry.name) else {
                entries.next();
                continue;
            };
            let ino = found.ino;
            if !is_aside && self.showing_waits(&found) {
                self.engine.forget(ino, 1);
                return self
                    .aside_if(true, move |adapter| adapter.add_entries(dir, entries, added, true, reply));
            }
            self.forget_stale_pages(ino);
            let (attr, ttl, _) = self.entry(&mut found);
            let name = OsStr::from_bytes(&entry.name);
            if reply.add(INodeNo(ino.0), entry.cookie, name, &ttl, &attr, Generation(0)) {
                self.forget_entry(attr.ino.0, ino);
                break;
            }
            added.push((attr.ino.0, ino));
            entries.next();
        }
        if !still_awaited() {
            for (number, ino) in added {
                self.forget_entry(number, ino);
            }
            return reply.error(Errno::EINTR);
        }
        reply.ok();
    }

    /// The kernel was not told of an entry after all.
    pub(super) fn forget_entry(&self, number: u64, ino: Ino) {
        self.streams.forget(number, 1);
        self.engine.forget(ino, 1);
    }

    /// `.` and `..` at the head of a directory; true when the reply was full.
    fn dots(&self, dir: Ino, offset: u64, mut add: impl FnMut(Ino, u64, &'static str) -> bool) -> bool {
        let parent = self.engine.parent(dir).unwrap_or(Ino::ROOT);
        [(dir, 1, "."), (parent, 2, "..")]
            .into_iter()
            .filter(|(_, cookie, _)| *cookie > offset)
            .any(|(at, cookie, name)| add(at, cookie, name))
    }
}

/// The size where only that is asked for, the value where it fits.
fn reply_sized(value: &[u8], size: u32, reply: ReplyXattr) {
    match size as usize {
        0 => reply.size(value.len() as u32),
        room if room < value.len() => reply.error(Errno::ERANGE),
        _ => reply.data(value),
    }
}
