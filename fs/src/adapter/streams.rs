//! Requests on streams and groups: what [`crate::streams`] decided, as replies.

use super::convert::attr_out;
use super::held::{carry, still_awaited};
use super::passthrough::KernelId;
use super::{Adapter, Shared};
use crate::errno::errno;
use crate::posix::Caller;
use crate::streams::{
    self, GroupName, GroupNode, Handle, Node, SENT_FOR, StreamFiles, ViewNode, Way, group_name,
};
use aimss_engine::engine::{Found, Whence};
use aimss_engine::journal::{Answered, Journal};
use aimss_engine::stream::group::MemberId;
use aimss_engine::stream::live::{AtEnd, Refusal, Stream, Waiting};
use aimss_engine::stream::{Framing, Position};
use aimss_engine::{Error, Ino, Result};
use fuser::{
    Errno, FileAttr, FileHandle, FopenFlags, Generation, INodeNo, PollEvents, PollFlags, PollNotifier,
    ReplyCreate, ReplyData, ReplyEntry, ReplyLseek, ReplyOpen, ReplyPoll, ReplyWrite, Request,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Reads and writes come to us, one by one.
const SERVED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;
/// Members read what is next: there is no place in such a file.
const MEMBER: FopenFlags =
    FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_NONSEEKABLE).union(FopenFlags::FOPEN_STREAM);

/// A request of more may be followed by another one of the same call: the kernel takes 256 pages a request,
/// and a buffer may begin and end within a page. A read(2) goes on while its requests are filled: the next one
/// would acknowledge this batch, or wait, before the application has it.
const WHOLE_REQUEST_BYTES: u32 = super::REQUEST_BYTES - 4096;

/// Backing ids of active files, and how many handles use each.
#[derive(Debug, Default)]
pub(super) struct AppenderIds(Mutex<HashMap<Ino, (Arc<KernelId>, u64)>>);

impl AppenderIds {
    fn get(&self, ino: Ino, stream: &Stream, shared: &Shared) -> std::io::Result<Arc<KernelId>> {
        let mut ids = self.0.lock();
        if let Some((id, users)) = ids.get_mut(&ino) {
            *users += 1;
            return Ok(id.clone());
        }
        let id = Arc::new(KernelId::register(shared, stream.active_file().as_fd())?);
        ids.insert(ino, (id.clone(), 1));
        Ok(id)
    }

    fn of(&self, ino: Ino) -> Option<Arc<KernelId>> {
        self.0.lock().get(&ino).map(|(id, _)| id.clone())
    }

    /// One that the last daemon registered.
    pub(super) fn take_up(&self, ino: Ino, id: KernelId) {
        let mut ids = self.0.lock();
        match ids.get_mut(&ino) {
            Some((_, users)) => {
                *users += 1;
                // The same number: it is closed once.
                id.forget();
            }
            None => drop(ids.insert(ino, (Arc::new(id), 1))),
        }
    }

    fn release(&self, ino: Ino) {
        let mut ids = self.0.lock();
        if let Some((_, users)) = ids.get_mut(&ino) {
            *users -= 1;
            if *users == 0 {
                ids.remove(&ino);
            }
        }
    }
}

impl Adapter {
    /// Answers a lookup that found something, as the stream or the twin that it may be.
    pub(super) fn reply_found(&self, mut found: Found, thread: u32, reply: ReplyEntry) {
        if self.streams.was_sent(found.ino, thread) {
            if !still_awaited() {
                self.engine.forget(found.ino, 1);
                return reply.error(Errno::EINTR);
            }
            self.show(found.ino.0, &mut found);
            let mut attr = attr_out(found.ino, &found.attr);
            attr.ino = INodeNo(StreamFiles::appender(found.ino));
            return reply.entry(&Duration::ZERO, &attr, Generation(0));
        }
        let (attr, attr_ttl, entry_ttl) = self.entry(&mut found);
        if !still_awaited() {
            self.forget_entry(attr.ino.0, found.ino);
            return reply.error(Errno::EINTR);
        }
        reply.entry_with_ttls(&attr_ttl, &entry_ttl, &attr, Generation(0));
    }

    /// What a name leads to, and how long the kernel may keep attributes and name. That of a stream leads elsewhere
    /// once its front is gone.
    pub(super) fn entry(&self, found: &mut Found) -> (FileAttr, Duration, Duration) {
        let stream = self.streams.of(found.ino, &found.attr);
        let Some((stream, (number, begin))) = stream
            .and_then(|stream| Some((stream.clone(), self.streams.tell_view(found.ino, &stream).ok()?)))
        else {
            let attr_ttl = self.show(found.ino.0, found);
            return (attr_out(found.ino, &found.attr), attr_ttl, self.ttl(found.ours));
        };
        streams::show(&stream, begin, &mut found.attr);
        let stays = !stream.loses_front() && begin == stream.opened_at();
        let entry_ttl = if stays { self.ttl(found.ours) } else { Duration::ZERO };
        (FileAttr { ino: INodeNo(number), ..attr_out(found.ino, &found.attr) }, Duration::ZERO, entry_ttl)
    }

    /// The kernel forgets pages that lack what came since, before it hears of the new size. Not by a thread that reads
    /// requests: it waits for whoever fills a page.
    pub(super) fn forget_stale_pages(&self, ino: Ino) {
        if !self.streams.has_stale_page(ino) {
            return;
        }
        let Some(notifier) = self.shared.notifier.get() else { return };
        for (number, from) in self.streams.take_stale_pages(ino) {
            let _ = notifier.inval_inode(INodeNo(number), from as i64, 0);
            // The kernel takes no size from an answer to what it asked before it forgot something. It takes one from
            // bytes that it is given: the last one.
            if let Some((at, byte)) = self.streams.last_byte(number) {
                let _ = notifier.store(INodeNo(number), at, &[byte]);
            }
        }
    }

    pub(super) fn seek_stream(handle: &Handle, offset: u64, whence: Whence, reply: ReplyLseek) {
        let Handle::Plain { stream, begin, .. } = handle else { return reply.error(Errno::ESPIPE) };
        match stream.view() {
            Ok(view) => {
                // All that is retained is data.
                let (first, end) =
                    (view.begin.0.saturating_sub(begin.0), view.begin.0 + view.bytes - begin.0);
                match whence {
                    _ if offset >= end => reply.error(Errno::ENXIO),
                    Whence::Data => reply.offset(offset.max(first) as i64),
                    Whence::Hole => reply.offset(end as i64),
                }
            }
            Err(e) => reply.error(errno(&streams::error(e))),
        }
    }

    /// A name that the namespace doesn't have: a group's, perhaps.
    pub(super) fn find_group(&self, parent: Ino, name: &[u8]) -> Option<Result<(FileAttr, GroupNode)>> {
        let (stream, group) = group_name(name)?;
        let base = self.engine.resolve(parent, stream).ok()?;
        if self.streams.of_inode(base).is_none() {
            self.streams.set_of(base)?;
        }
        let GroupName { group, eof } = match group {
            Ok(group) => group,
            Err(e) => return Some(Err(e)),
        };
        let node = GroupNode { stream: base, group: group.into(), eof };
        Some(self.engine.attr(base).map(|attr| (attr_out(base, &streams::group_attr(&attr)), node)))
    }

    pub(super) fn reply_group(&self, found: Result<(FileAttr, GroupNode)>, reply: ReplyEntry) {
        match found {
            Ok(_) if !still_awaited() => reply.error(Errno::EINTR),
            Ok((mut attr, node)) => {
                attr.ino = INodeNo(self.streams.group_number(&node));
                reply.entry(&Duration::ZERO, &attr, Generation(0));
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// Whether [`Adapter::find_group`] waits for storage: it may have to open the stream's log.
    pub(super) fn finding_group_waits(&self, parent: Ino, name: &[u8]) -> bool {
        let base = group_name(name).and_then(|(stream, _)| self.engine.resolve(parent, stream).ok());
        base.is_some_and(|base| self.streams.waits_for(base) || self.streams.set_waits(base))
    }

    /// Opens a stream, its twin, or a group; gives the reply back for other files.
    pub(super) fn open_stream(
        &self,
        caller: Caller,
        number: u64,
        flags: i32,
        reply: ReplyOpen,
    ) -> Option<ReplyOpen> {
        let thread = caller.pid;
        let before = self.noted_before(caller.request);
        if let Some((handle, is)) = before.and_then(|handle| Some((handle, self.streams.handle(handle)?))) {
            if still_awaited() {
                self.opened_before(handle, &is, reply);
            } else {
                self.release_stream(number, FileHandle(handle));
                reply.error(Errno::EINTR);
            }
            return None;
        }
        let _answering = Journal::answering(caller.request);
        match self.streams.node(number) {
            Node::Group(node) => {
                if flags & libc::O_ACCMODE != libc::O_RDONLY {
                    reply.error(Errno::EPERM);
                    return None;
                }
                match self.streams.open_group(&node) {
                    Ok(handle) => self.tell_opened(handle, MEMBER, reply),
                    Err(e) => reply.error(errno(&e)),
                }
                None
            }
            Node::Appender(ino) => {
                self.open_appender(thread, ino, flags, reply);
                None
            }
            Node::Inode(ino) | Node::View(ViewNode { stream: ino, .. }) => {
                let Some(stream) = self.streams.of_inode(ino) else {
                    if flags & libc::O_ACCMODE != libc::O_RDONLY && self.streams.is_broken(ino) {
                        // What would be written would be the marker.
                        reply.error(Errno::EIO);
                        return None;
                    }
                    return Some(reply);
                };
                let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
                let passthrough = write && self.passthrough(ino, thread, true).is_ok();
                let opened =
                    self.streams.way(ino, &stream, flags, passthrough, thread).and_then(|way| match way {
                        Way::Served => {
                            let begin = self.streams.begin(number, &stream);
                            Ok(self.streams.open_plain(ino, stream.clone(), begin, write))
                        }
                        Way::Elsewhere => {
                            self.expect_threads();
                            Err(Error::Stale)
                        }
                    });
                match opened {
                    Ok(handle) => self.tell_opened(handle, SERVED, reply),
                    Err(e) => reply.error(errno(&e)),
                }
                None
            }
        }
    }

    /// Answers an open with a handle, unless nobody waits for it any more.
    fn tell_opened(&self, handle: u64, flags: FopenFlags, reply: ReplyOpen) {
        if still_awaited() {
            return reply.opened(FileHandle(handle), flags);
        }
        drop(self.streams.close(handle));
        reply.error(Errno::EINTR);
    }

    /// Answers an open that the last daemon did not live to answer.
    fn opened_before(&self, number: u64, is: &Handle, reply: ReplyOpen) {
        let handle = FileHandle(number);
        match is {
            Handle::Plain { .. } => reply.opened(handle, SERVED),
            Handle::Member { .. } | Handle::Partitioned { .. } => reply.opened(handle, MEMBER),
            Handle::Appender { .. } => {
                let ino = self.streams.inode_of_handle(number);
                match ino.and_then(|ino| self.appenders.of(ino)) {
                    Some(id) => id.opened(handle, reply),
                    None => reply.error(Errno::EIO),
                }
            }
        }
    }

    /// A create that turns out to be an open of a stream for appending is sent to the twin at once: the kernel looks
    /// again only once.
    pub(super) fn expect_appender(&self, thread: u32, ino: Ino, flags: i32) {
        let Some(stream) = self.streams.of_inode(ino) else { return };
        let passthrough = self.passthrough(ino, thread, true).is_ok();
        if matches!(self.streams.way(ino, &stream, flags, passthrough, thread), Ok(Way::Elsewhere)) {
            self.expect_threads();
        }
    }

    /// Threads that were sent to a twin are looked after until all are there, or are given up.
    fn expect_threads(&self) {
        if self.expecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let (streams, expecting) = (self.streams.clone(), self.expecting.clone());
        self.blocking.spawn(async move {
            loop {
                tokio::time::sleep(SENT_FOR).await;
                expecting.store(false, Ordering::Release);
                let streams = streams.clone();
                let looked = tokio::task::spawn_blocking(move || streams.forget_lost_threads()).await;
                if !looked.unwrap_or(false) || expecting.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    fn open_appender(&self, thread: u32, ino: Ino, flags: i32, reply: ReplyOpen) {
        let Some(stream) = self.streams.of_inode(ino) else { return reply.error(Errno::ENOENT) };
        let appends = flags & libc::O_ACCMODE == libc::O_WRONLY && flags & libc::O_APPEND != 0;
        let counted = self.streams.arrived(ino, thread);
        if !appends || (!counted && !stream.writer_opened(true)) {
            if counted {
                stream.writer_closed(true);
            }
            // By a descriptor in /proc. What it would read or write is not the stream.
            return reply.error(Errno::EPERM);
        }
        match self.appenders.get(ino, &stream, &self.shared) {
            Ok(id) => {
                self.shared.counts.count_append();
                let handle = self.streams.keep_appender(ino, stream, id.raw());
                if !still_awaited() {
                    drop(self.streams.close(handle));
                    self.appenders.release(ino);
                    return reply.error(Errno::EINTR);
                }
                id.opened(FileHandle(handle), reply);
            }
            Err(e) => {
                stream.writer_closed(true);
                reply.error(Errno::from_i32(e.raw_os_error().unwrap_or(libc::EIO)));
            }
        }
    }

    /// Answers the creation of a stream: an appender goes to the twin at once.
    pub(super) fn create_stream(
        &self,
        caller: Caller,
        (parent, name): (Ino, &[u8]),
        found: &Found,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _answering = Journal::answering(caller.request);
        let thread = caller.pid;
        let made = match self.streams.of_inode(found.ino) {
            // By a daemon that died before it had opened it.
            Some(stream) => Ok(stream),
            None => self.streams.make(found.ino, &aimss_engine::stream::Settings::default()),
        };
        let stream = match made {
            Ok(stream) => stream,
            Err(e) => {
                let _ = self.engine.unlink(parent, name);
                self.engine.forget(found.ino, 1);
                return reply.error(errno(&e));
            }
        };
        let mut shown = *found;
        let begin = stream.opened_at();
        streams::show(&stream, begin, &mut shown.attr);
        let mut attr = attr_out(found.ino, &shown.attr);
        let write = flags & libc::O_ACCMODE != libc::O_RDONLY;
        let appends = flags & libc::O_ACCMODE == libc::O_WRONLY && flags & libc::O_APPEND != 0;
        let zero = Duration::ZERO;
        let noted = self.noted_before(caller.request);
        if let Some((handle, is)) = noted.and_then(|handle| Some((handle, self.streams.handle(handle)?))) {
            // By a daemon that did not live to answer.
            let id = self.appenders.of(found.ino).filter(|_| matches!(is, Handle::Appender { .. }));
            return match id {
                Some(id) => {
                    attr.ino = INodeNo(StreamFiles::appender(found.ino));
                    id.created(FileHandle(handle), zero, &attr, reply);
                }
                None => reply.created(&zero, &attr, Generation(0), FileHandle(handle), SERVED),
            };
        }
        if appends && self.passthrough(found.ino, thread, true).is_ok() && stream.writer_opened(true) {
            match self.appenders.get(found.ino, &stream, &self.shared) {
                Ok(id) => {
                    self.shared.counts.count_append();
                    let handle = FileHandle(self.streams.keep_appender(found.ino, stream, id.raw()));
                    if !still_awaited() {
                        return self.take_back_created(found.ino, handle, reply);
                    }
                    attr.ino = INodeNo(StreamFiles::appender(found.ino));
                    return id.created(handle, zero, &attr, reply);
                }
                Err(e) => {
                    log::warn!(
                        "the kernel refuses passthrough to a stream ({e}): its writers go through the daemon"
                    );
                    stream.writer_closed(true);
                }
            }
        }
        let handle = FileHandle(self.streams.open_plain(found.ino, stream, begin, write));
        if !still_awaited() {
            return self.take_back_created(found.ino, handle, reply);
        }
        reply.created(&zero, &attr, Generation(0), handle, SERVED);
    }

    /// Nobody waits for what was made and opened: it is closed, and stays.
    fn take_back_created(&self, ino: Ino, handle: FileHandle, reply: ReplyCreate) {
        self.release_stream(ino.0, handle);
        self.engine.forget(ino, 1);
        reply.error(Errno::EINTR);
    }

    /// `paged`: the kernel keeps what it is given, as pages of this node.
    pub(super) fn read_stream(
        &self,
        req: &Request,
        handle: Handle,
        (offset, paged): (u64, Option<u64>),
        size: u32,
        flags: i32,
        reply: ReplyData,
    ) {
        match handle {
            Handle::Plain { stream, begin, .. } => {
                super::passthrough::with_buffer(size as usize, |buffer| {
                    match stream.read_at(Position(begin.0 + offset), buffer).map_err(streams::error) {
                        Ok(n) => {
                            if let Some(number) = paged.filter(|_| n < buffer.len()) {
                                self.streams.paged(number, Position(begin.0 + offset + n as u64));
                            }
                            reply.data(&buffer[..n]);
                        }
                        Err(e) => reply.error(errno(&e)),
                    }
                });
            }
            Handle::Appender { .. } => reply.error(Errno::EBADF),
            Handle::Member { stream, group, member, eof } => {
                stream.read_group(question(req, group, member, size, reply), at_end(eof, flags));
            }
            Handle::Partitioned { group, member, eof } => {
                let question = question(req, group.name().clone(), member, size, reply);
                group.read(question, at_end(eof, flags));
            }
        }
    }

    pub(super) fn write_stream(
        &self,
        request: u64,
        handle: &Handle,
        offset: u64,
        data: &[u8],
        append: bool,
        reply: ReplyWrite,
    ) {
        let Handle::Plain { stream, begin, write: true } = handle else { return reply.error(Errno::EBADF) };
        // A write(2) of more comes in pieces of the largest request: the first one tells.
        if stream.framing() == Framing::Write && data.len() > WHOLE_REQUEST_BYTES as usize {
            return reply.error(Errno::EMSGSIZE);
        }
        let end = match stream.view() {
            Ok(view) => view.begin.0 + view.bytes,
            Err(e) => return reply.error(errno(&streams::error(e))),
        };
        if let Some(Answered::Appended(at)) = self.before(request) {
            let mut there = vec![0; data.len()];
            if stream.read_at(Position(at), &mut there).is_ok_and(|bytes| there[..bytes] == *data) {
                return reply.written(data.len() as u32);
            }
        } else if !append && begin.0 + offset != end {
            return reply.error(Errno::EPERM);
        }
        let _answering = Journal::answering(request);
        // Nobody holds those back who append by the kernel's way: where it goes is known for sure only afterwards.
        self.engine.journal().appends(Ino(0), end);
        match stream.append_at(data).map_err(streams::error) {
            Ok((at, bytes)) => {
                if at.0 != end {
                    // Somebody was faster, by the kernel's way or beside us: the last word counts.
                    self.engine.journal().appends(Ino(0), at.0);
                }
                match stream.pause_after(bytes) {
                    None => reply.written(bytes as u32),
                    Some(pause) => {
                        // Not answered before that.
                        let request = carry();
                        drop(self.blocking.spawn(async move {
                            tokio::time::sleep(pause).await;
                            reply.written(bytes as u32);
                            drop(request);
                        }));
                    }
                }
            }
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// A stream's handle is closed; false if it was another file's.
    pub(super) fn release_stream(&self, number: u64, handle: FileHandle) -> bool {
        match self.streams.close(handle.0) {
            Some(Handle::Appender { .. }) => self.appenders.release(self.streams.inode(number)),
            Some(_) => {}
            None => return false,
        }
        true
    }

    pub(super) fn poll_stream(
        &self,
        handle: FileHandle,
        notifier: PollNotifier,
        flags: PollFlags,
        reply: ReplyPoll,
    ) {
        let readable = PollEvents::POLLIN | PollEvents::POLLRDNORM;
        match self.streams.handle(handle.0) {
            Some(Handle::Member { stream, group, member, eof }) => {
                self.streams.note_poll(handle.0, notifier.handle().0);
                let ready = eof || stream.poll_group(&group, member, wake(notifier, flags));
                reply.poll(if ready { readable } else { PollEvents::empty() });
            }
            Some(Handle::Partitioned { group, member, eof }) => {
                self.streams.note_poll(handle.0, notifier.handle().0);
                let ready = eof || group.poll(member, wake(notifier, flags));
                reply.poll(if ready { readable } else { PollEvents::empty() });
            }
            _ => reply.poll(readable | PollEvents::POLLOUT | PollEvents::POLLWRNORM),
        }
    }

    /// Whether a name may be a group's, and is nothing else.
    pub(super) fn is_group_name(&self, parent: Ino, name: &[u8]) -> bool {
        name.contains(&b'@') && self.engine.resolve(parent, name).is_err()
    }

    /// Removes a group by its name.
    pub(super) fn unlink_group(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let (_, node) = self.find_group(parent, name).ok_or(Error::NotFound)??;
        self.streams.remove_group(&node)
    }
}

/// What a member asks by a read(2).
fn question(req: &Request, group: Arc<str>, member: MemberId, size: u32, reply: ReplyData) -> Waiting {
    let answer = Box::new(move |answer: std::result::Result<&[u8], Refusal>| match answer {
        Ok(bytes) => reply.data(bytes),
        Err(refusal) => reply.error(refused(&refusal)),
    });
    let bytes_max = (size - u32::from(size > WHOLE_REQUEST_BYTES)) as usize;
    Waiting { group, member, bytes_max, room: size as usize, thread: req.pid(), answer }
}

fn at_end(eof: bool, flags: i32) -> AtEnd {
    match (eof, flags & libc::O_NONBLOCK != 0) {
        (true, _) => AtEnd::End,
        (false, true) => AtEnd::Refuse,
        (false, false) => AtEnd::Wait,
    }
}

/// Tells the kernel that there is something to read, where it wants to know.
fn wake(notifier: PollNotifier, flags: PollFlags) -> Option<Box<dyn FnOnce() + Send>> {
    flags.contains(PollFlags::FUSE_POLL_SCHEDULE_NOTIFY).then(|| -> Box<dyn FnOnce() + Send> {
        Box::new(move || {
            let _ = notifier.notify();
        })
    })
}

fn refused(refusal: &Refusal) -> Errno {
    match refusal {
        Refusal::WouldBlock => Errno::EAGAIN,
        Refusal::TooSmall { .. } => Errno::EMSGSIZE,
        Refusal::Interrupted => Errno::EINTR,
        Refusal::NoGroup => Errno::ENOENT,
        Refusal::Failed(errno) => Errno::from_i32(*errno),
    }
}
