//! How a file is served from its first open to its last close.
//!
//! The decision is made once, at the first open, since the kernel allows one way at a time for an inode:
//!
//! 1. In the arena, or about to be: passthrough to the arena file, if the bytes that will probably be written are
//!    promised room (the size the file had, or what its siblings in the directory had). Memory is allocated ahead.
//! 2. Cold, and to be read, or too large to be fetched for a few changes: passthrough to the backing's own file.
//!    Writers then go to the backing's page cache, and fsync is the backing's.
//! 3. New, and nothing tells how large it will be, or memory can't be promised for it: passthrough to a file of the
//!    backing that has no name yet ([`Place::Unnamed`]). Its writers have the speed of the backing's page cache, the
//!    kernel bounds what is dirty, and the file may become larger than memory. The drain only syncs and names it.
//! 4. Otherwise through the daemon: the writer lives in a small memory cgroup, the user excluded the name from
//!    passthrough, or the kernel has none. The daemon can move such a file to the backing under its writers at any time.
//!
//! Closing is not the end of writing: a mapping lives on. [`Engine::closed`] asks the arena file's lease, and a file
//! with writers left is *lingering*: dirty until the answer changes.

use super::Engine;
use super::lookup::now_after;
use super::room::PROMOTE_BYTES_MAX;
use super::unnamed::MadeUnnamed;
use super::unnamed::{NAMING_LOOKS_MAX, NAMING_PAUSE};
use crate::arena::{Ahead, Content};
use crate::attr::Kind;
use crate::backing::Owner;
use crate::error::{Error, Result};
use crate::fetch::Cause;
use crate::fetch::Scan;
use crate::ids::Ino;
use crate::namespace::{Behind, Epoch, Expected, Inode, InodeState, OpenMode, Place};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Files expected to be smaller are not allocated ahead: a handful of page allocations costs less than the call.
const AHEAD_BYTES_MIN: u64 = 256 << 10;
/// Files of a remote backing up to this size are fetched whole by the first open: one call brings as much.
const READ_WHOLE_BYTES_MAX: u64 = 1 << 20;
/// A file comes back from a device when it is opened if it has at most one part in so many of the memory.
const COPIED_SHARE: u64 = 4;
/// Allocated before the open returns; the rest follows while the writer writes.
const AHEAD_FIRST_BYTES: u64 = 2 << 20;

/// How a file is to be opened.
#[derive(Debug, Clone, Copy)]
pub struct Want {
    /// For writing.
    pub write: bool,
    /// And emptied first.
    pub truncate: bool,
    /// Whether passthrough is possible, or why not.
    pub passthrough: std::result::Result<(), Reason>,
    /// Who opens it: files follow each other within a process.
    pub process: u32,
}

impl Want {
    /// Whether passthrough to a file of the backing is possible, or why not: its page cache may be charged to a small
    /// cgroup, from which the kernel takes it again.
    fn passthrough_to_backing(self) -> std::result::Result<(), Reason> {
        match self.passthrough {
            Err(Reason::SmallCgroup) => Ok(()),
            other => other,
        }
    }

    /// Whether the opener's cgroup is too small for pages of the arena.
    pub(super) fn is_small(self) -> bool {
        self.passthrough == Err(Reason::SmallCgroup)
    }

    /// Whether a new file may be one of the backing, in passthrough.
    pub(super) fn may_be_unnamed(self) -> bool {
        self.write && self.passthrough_to_backing().is_ok()
    }
}

/// Why a file is served as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Its bytes are in memory.
    InMemory,
    /// The size it will have is known from its past or its siblings, and there is room.
    SizeKnown,
    /// It is on the backing alone, and read.
    Cold,
    /// It is on the backing alone, and too large to be fetched for writing.
    ColdLarge,
    /// It is open already, and all handles are served alike.
    AsOpen,
    /// Nothing tells how large it will be.
    SizeUnknown,
    /// Memory can't be promised for the size it will have.
    NoRoom,
    /// The opener's memory cgroup is too small for pages charged to it.
    SmallCgroup,
    /// Excluded by `--no-passthrough`.
    Excluded,
    /// This kernel, or this user, has no passthrough.
    NotAvailable,
}

impl Reason {
    /// A word for `status`.
    pub fn word(self) -> &'static str {
        match self {
            Reason::InMemory => "in-memory",
            Reason::SizeKnown => "size-known",
            Reason::Cold => "cold",
            Reason::ColdLarge => "cold-large",
            Reason::AsOpen => "as-open",
            Reason::SizeUnknown => "size-unknown",
            Reason::NoRoom => "no-room",
            Reason::SmallCgroup => "small-cgroup",
            Reason::Excluded => "excluded",
            Reason::NotAvailable => "not-available",
        }
    }
}

/// An open file.
#[derive(Debug, Clone)]
pub struct Opened {
    /// How it is served.
    pub mode: OpenMode,
    /// Why.
    pub reason: Reason,
    /// Bytes of the arena promised to its writers.
    pub promised: u64,
}

/// What a release left.
#[derive(Debug)]
pub struct Released {
    /// The last handle is closed: drop the kernel's backing id, then call [`Engine::closed`] with this.
    pub last: Option<Ended>,
}

/// An epoch that ended.
#[derive(Debug)]
pub struct Ended {
    mode: OpenMode,
    promised: u64,
}

impl Ended {
    /// How the file was served.
    pub fn mode(&self) -> &OpenMode {
        &self.mode
    }
}

/// See [`Engine::known_before`].
pub(super) struct KnownBefore<'e> {
    place: Place,
    /// What the file will probably hold when closed.
    pub(super) expected: Expected,
    /// Bytes that it holds and keeps.
    kept: u64,
    /// The growth to the expected size was promised.
    pub(super) room: bool,
    promised: u64,
    /// See [`Engine::is_on_root_device`]; false where nobody asks.
    pub(super) name_on_root_device: bool,
    /// Made for it, to be taken if it still is what it was.
    unnamed: Option<MadeUnnamed<'e>>,
}

impl Engine {
    /// Opens a regular file.
    pub fn open(&self, ino: Ino, want: Want) -> Result<Opened> {
        let inode = self.inode(ino)?;
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        }
        if self.revalidate(&inode) {
            return Err(Error::Stale);
        }
        if !want.write {
            self.opened_for_reading(&inode, want.process);
        }
        self.bring_for(&inode, want);
        let mut looks = 0;
        let (mut state, opened) = loop {
            let mut known = self.known_before(&inode, want);
            known.unnamed = self.make_unnamed(&inode, want, &known);
            // What is in the arena is opened while the drain moves things on a backing that stalls.
            let _shape = known.place.is_on_backing().then(|| self.shape.read_recursive());
            let path = match known.place {
                Place::Backing => self.drained_path(ino).ok(),
                Place::Unnamed => Some(Engine::unnamed_path(ino)),
                Place::Arena | Place::Empty => None,
            };
            let mut state = inode.state.lock();
            // Not while we looked, but since: another open or the drain changed where the file is.
            if state.file.epoch.is_some() || state.file.place == known.place {
                let opened = self.open_locked(&inode, &mut state, want, &mut known, path.as_deref());
                let took = state.file.epoch.as_ref().is_some_and(|epoch| epoch.handles == 0);
                if !took {
                    self.promise_ended(known.promised);
                }
                match opened {
                    // The drain gives it its name just now.
                    Err(Error::Io(e))
                        if e.kind() == std::io::ErrorKind::NotFound
                            && state.file.place == Place::Unnamed
                            && looks < NAMING_LOOKS_MAX =>
                    {
                        looks += 1;
                        drop(state);
                        std::thread::sleep(NAMING_PAUSE);
                        continue;
                    }
                    opened => break (state, opened?),
                }
            }
            self.promise_ended(known.promised);
        };
        if want.truncate
            && let Err(e) = empty(&mut state, &opened.mode)
        {
            if state.file.handles() == 0
                && let Some(epoch) = state.file.epoch.take()
            {
                self.promise_ended(epoch.promised);
            }
            return Err(e);
        }
        if let Some(epoch) = &mut state.file.epoch {
            epoch.handles += 1;
            epoch.writers += u32::from(want.write);
        }
        if !want.write && state.file.place == Place::Arena && state.file.clean.is_none() && !state.file.dirty
        {
            // Empty, and in the arena since just now: a handle is served from there.
            self.journal.cached(ino, true);
        }
        if want.write {
            match &opened.mode {
                OpenMode::Arena(_) => self.outgrown.opened(ino),
                OpenMode::Backing(_) if want.is_small() => self.follow.opened(ino, state.attr.size),
                _ => {}
            }
            self.journal.dirty(ino, &state);
            state.file.touch();
            self.drain.mark(ino);
        }
        drop(state);
        self.used(ino, want.write);
        self.open_handles.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// How an open file is served.
    pub fn served(&self, ino: Ino) -> Option<OpenMode> {
        self.inode(ino).ok()?.state.lock().file.epoch.as_ref().map(|epoch| epoch.mode.clone())
    }

    /// Whether an open would wait for storage: a cold file that is fetched, or a new one that is made on the backing.
    pub fn open_waits(&self, ino: Ino, want: Want) -> bool {
        let Ok(inode) = self.inode(ino) else { return false };
        if !want.write {
            let cold = {
                let state = inode.state.lock();
                state.file.place == Place::Backing && state.file.epoch.is_none()
            };
            let travels = self.backing.is_remote() && (cold || !self.still_valid(&inode));
            return travels || (cold && (self.fetcher.knows(ino) || self.may_have_copy(ino)));
        }
        let name = {
            let state = inode.state.lock();
            match state.file.place {
                Place::Backing => return !want.truncate && state.file.epoch.is_none(),
                Place::Empty if want.may_be_unnamed() => state.place.clone(),
                _ => None,
            }
        };
        name.is_some_and(|(parent, name)| self.names.lock().expected_size(parent, &name) == Expected::Unknown)
    }

    /// What an open needs of other inodes and of the arena, taken before this inode is locked.
    fn known_before(&self, inode: &Inode, want: Want) -> KnownBefore<'_> {
        let (place, name, now, before, open) = {
            let state = inode.state.lock();
            let before = state.attr.size.max(state.baseline().map_or(0, |b| b.size));
            (state.file.place, state.place.clone(), state.attr.size, before, state.file.epoch.is_some())
        };
        let parent = name.as_ref().map(|(parent, _)| *parent);
        let siblings = name.map(|(parent, name)| self.names.lock().expected_size(parent, &name));
        let expected = match siblings.unwrap_or(Expected::Unknown) {
            Expected::Like(size) => Expected::Like(size.max(before)),
            Expected::Perhaps(_) | Expected::Unknown if before > 0 => Expected::Like(before),
            other => other,
        };
        let kept = if want.truncate || place == Place::Empty { 0 } else { now };
        let growth = match expected {
            Expected::Unknown => None,
            Expected::Perhaps(size) | Expected::Like(size) => Some(size.saturating_sub(kept)),
        };
        let asked = want.write && want.passthrough.is_ok() && !open;
        let promised = growth.filter(|growth| asked && self.promise(*growth));
        // What the daemon serves is promised nothing, since it can move; of a new file it tells where that begins.
        let fits = want.is_small()
            && !open
            && place == Place::Empty
            && growth.is_some_and(|growth| self.make_room(growth));
        let room = promised.is_some() || fits;
        let promised = promised.unwrap_or(0);
        // With room it doesn't matter: the file goes to the arena.
        let may_go_there = want.may_be_unnamed() && !open && !room && place == Place::Empty;
        let name_on_root_device = may_go_there && parent.is_some_and(|parent| self.is_on_root_device(parent));
        KnownBefore { place, expected, kept, room, promised, name_on_root_device, unnamed: None }
    }

    fn open_locked(
        &self,
        inode: &Inode,
        state: &mut InodeState,
        want: Want,
        known: &mut KnownBefore<'_>,
        path: Option<&[u8]>,
    ) -> Result<Opened> {
        if let Some(epoch) = &state.file.epoch {
            return Ok(Opened { mode: epoch.mode.clone(), reason: Reason::AsOpen, promised: 0 });
        }
        let epoch = |mode, promised, ahead| {
            let (scan, behind) = (Scan::default(), Behind::default());
            let expected = match known.expected {
                Expected::Like(size) | Expected::Perhaps(size) => size,
                Expected::Unknown => 0,
            };
            Some(Box::new(Epoch {
                mode,
                handles: 0,
                writers: 0,
                promised,
                ahead,
                scan,
                expected,
                announced: false,
                moving: None,
                behind,
            }))
        };
        let fresh = state.file.place == Place::Empty
            || (want.truncate && state.file.place.is_on_backing() && !state.file.lingering);
        if !fresh && state.file.place.is_on_backing() {
            let write_reason = match state.file.place {
                Place::Unnamed => Reason::SizeUnknown,
                _ => Reason::ColdLarge,
            };
            let opened = self.serve_backing(path.ok_or(Error::NotFound)?, want, write_reason)?;
            if let OpenMode::Backing(file) | OpenMode::Daemon(file) = &opened.mode
                && !state.file.dirty
            {
                // Its times there are not news: they may be older than what was set here and waits.
                state.file.know(&super::attrs::stat_of_file(file)?);
            }
            state.file.epoch = epoch(opened.mode.clone(), 0, None);
            self.promise_ended(known.promised);
            return Ok(opened);
        }
        if fresh
            && state.file.place == Place::Empty
            && let Some(reason) = self.fits_backing_better(state, want, known)
            && let Some(file) = known.unnamed.take().and_then(|made| made.take(state))
        {
            let opened = Opened { mode: OpenMode::Backing(Arc::new(file)), reason, promised: 0 };
            state.file.epoch = epoch(opened.mode.clone(), 0, None);
            self.promise_ended(known.promised);
            return Ok(opened);
        }
        let content = if fresh {
            if state.file.place == Place::Backing && state.file.dirty {
                // Written in place on the backing a moment ago: that is our own doing, not somebody else's.
                state.set_baseline(
                    path.and_then(|path| self.backing.stat(path).ok()).map(|stat| super::baseline(&stat)),
                );
            }
            // A file in the arena that was left from an earlier life of this inode goes first.
            self.arena.remove(inode.ino);
            let content = self.arena.create(inode.ino)?;
            if state.file.place == Place::Unnamed {
                self.remove_unnamed(inode.ino);
            }
            state.file.replaced = !state.drained.is_empty();
            state.file.mapped = None;
            state.file.place = Place::Arena;
            state.attr.size = 0;
            Arc::new(content)
        } else {
            if want.truncate && state.attr.size > 0 {
                // Or who goes on after a death in between takes what is left for the backing's.
                self.journal.dirty(inode.ino, state);
                // Before pages are allocated ahead, so that they don't go with the old ones.
                self.arena.open_write(inode.ino)?.set_len(0)?;
            }
            Arc::new(self.arena.open_read(inode.ino)?)
        };
        let (opened, ahead) = self.serve_arena(inode.ino, state.file.lingering, known, &content, want)?;
        if !state.file.lingering {
            // What allocation ahead did to the file's times is not a change.
            let stat = content.stat()?;
            state.file.know(&stat);
        }
        let promised = if opened.reason == Reason::SizeKnown { known.promised } else { 0 };
        if promised != known.promised {
            self.promise_ended(known.promised);
        }
        state.file.epoch = epoch(opened.mode.clone(), promised, ahead);
        Ok(Opened { promised, ..opened })
    }

    /// A file whose content is (or will be) in the arena. `mapped`: mappings outlived its last close.
    fn serve_arena(
        &self,
        ino: Ino,
        mapped: bool,
        known: &KnownBefore<'_>,
        content: &Arc<Content>,
        want: Want,
    ) -> Result<(Opened, Option<Arc<Ahead>>)> {
        // A mapping of the arena file lives on: what the kernel cached for a file that we serve would not see it.
        let passthrough = match want.passthrough {
            Err(Reason::SmallCgroup) if mapped => Ok(()),
            other => other,
        };
        let verdict = match passthrough {
            Err(reason) => Err(reason),
            Ok(()) => match (want.write, known.expected) {
                (false, _) => Ok(Reason::InMemory),
                (true, _) if mapped => Ok(Reason::InMemory),
                (true, Expected::Unknown) => Err(Reason::SizeUnknown),
                (true, _) if known.room => Ok(Reason::SizeKnown),
                (true, _) => Err(Reason::NoRoom),
            },
        };
        match verdict {
            Ok(reason) => {
                let ahead = match known.expected {
                    Expected::Like(size) if reason == Reason::SizeKnown && size >= AHEAD_BYTES_MIN => {
                        self.allocate_ahead(ino, known.kept, size)
                    }
                    _ => None,
                };
                Ok((Opened { mode: OpenMode::Arena(content.clone()), reason, promised: 0 }, ahead))
            }
            Err(reason) => {
                let file = self.arena.open_write(ino)?;
                Ok((Opened { mode: OpenMode::Daemon(Arc::new(file)), reason, promised: 0 }, None))
            }
        }
    }

    /// A file that is on the backing alone and stays there.
    fn serve_backing(&self, path: &[u8], want: Want, write_reason: Reason) -> Result<Opened> {
        match want.passthrough_to_backing() {
            Ok(()) if self.backing_stacks.load(Ordering::Relaxed) => {
                let file = Arc::new(self.backing.open_read(path)?);
                let reason = if want.write { write_reason } else { Reason::Cold };
                Ok(Opened { mode: OpenMode::Backing(file), reason, promised: 0 })
            }
            other => {
                let reason = other.err().unwrap_or(Reason::NotAvailable);
                // A backing that can only be read still serves readers.
                let file = self.backing.open_write(path, Owner::ROOT);
                let file = if want.write { file? } else { file.or_else(|_| self.backing.open_read(path))? };
                Ok(Opened { mode: OpenMode::Daemon(Arc::new(file)), reason, promised: 0 })
            }
        }
    }

    /// Allocates the first part of a writer's pages now and the rest beside it.
    fn allocate_ahead(&self, ino: Ino, from: u64, to: u64) -> Option<Arc<Ahead>> {
        let ahead = Arc::new(Ahead::of(self.arena.open_write(ino).ok()?));
        let first = to.min(from.saturating_add(AHEAD_FIRST_BYTES));
        if ahead.allocate(from..first).is_err() || first >= to {
            ahead.call_off();
            return None;
        }
        let beside = ahead.clone();
        // The thread ends with the range or when the file is closed; a writer that is faster allocates for itself.
        let run = move || {
            let _ = beside.allocate(first..to);
            beside.call_off();
        };
        std::thread::Builder::new().name("allocate-ahead".into()).spawn(run).ok()?;
        Some(ahead)
    }

    /// One handle of `ino` is closed.
    pub fn release(&self, ino: Ino, write: bool) -> Released {
        self.open_handles.fetch_sub(1, Ordering::Relaxed);
        let Ok(inode) = self.inode(ino) else { return Released { last: None } };
        let mut state = inode.state.lock();
        self.fold(ino, &mut state);
        let Some(epoch) = &mut state.file.epoch else { return Released { last: None } };
        epoch.handles = epoch.handles.saturating_sub(1);
        epoch.writers = epoch.writers.saturating_sub(u32::from(write));
        if epoch.handles > 0 {
            return Released { last: None };
        }
        let last = state.file.epoch.take().map(|epoch| {
            if let Some(ahead) = &epoch.ahead {
                ahead.call_off();
            }
            self.outgrown.closed(ino);
            if let OpenMode::Daemon(file) = &epoch.mode
                && let Ok(stat) = super::attrs::stat_of_file(file)
            {
                // We dated every write ourselves; the file's own times say nothing new, to the drain neither.
                state.file.know(&stat);
            }
            Ended { mode: epoch.mode, promised: epoch.promised }
        });
        Released { last }
    }

    /// The last handle is closed and the kernel's backing id dropped: is the file quiet now?
    pub fn closed(&self, ino: Ino, ended: Ended) {
        let Ok(inode) = self.inode(ino) else { return };
        let mut state = inode.state.lock();
        state.file.used = Some(Instant::now());
        let mut learned = None;
        if let (OpenMode::Arena(content), true) = (&ended.mode, state.file.dirty) {
            state.file.lingering = !content.writers_gone();
            if let Ok(stat) = content.stat() {
                state.fold(&stat);
                self.trim(ino, &mut state, stat.blocks);
            }
        }
        if let (OpenMode::Backing(file), true) = (&ended.mode, state.file.dirty)
            && state.file.epoch.is_none()
            && state.file.place.is_on_backing()
            && self.backing_leases.load(Ordering::Relaxed)
        {
            state.linger_on(file);
        }
        if state.file.dirty {
            // Of a sparse file, what it holds; the backing's blocks may be counted later, or be compressed.
            let on_backing = state.file.place.is_on_backing();
            let held =
                if on_backing { state.attr.size } else { state.attr.size.min(state.attr.blocks * 512) };
            learned = state.place.clone().map(|link| (link, held));
            state.attr_dirty = true;
            if state.attr.size > 0 || !state.drained.is_empty() {
                // Of a new file that is still empty the journal knows all.
                self.journal.attributes(ino, &state);
            }
            self.drain.mark(ino);
        }
        let nameless = state.nameless();
        let (read, clean) = (!state.file.dirty, state.file.clean);
        drop(state);
        if read && let Some(stamp) = clean {
            // It may have left the order of eviction when a writer opened it who wrote nothing.
            self.may_be_evicted(ino, stamp.size);
            self.closed_after_reading(ino);
        }
        self.promise_ended(ended.promised);
        drop(ended);
        if let Some(((parent, name), size)) = learned {
            self.names.lock().learn_size(parent, &name, size);
        }
        if nameless {
            self.drain.unmark_if_nameless(self, ino);
            self.leave_private_directory(ino);
            self.drop_if_unused(ino);
        }
    }

    /// Gives pages back that were allocated ahead and not written. Nobody has the file open.
    fn trim(&self, ino: Ino, state: &mut InodeState, blocks: u64) {
        let needed = state.attr.size.next_multiple_of(2 << 20) / 512;
        if blocks > needed && !state.file.lingering {
            let mtime = state.attr.mtime;
            if let Ok(file) = self.arena.open_write(ino) {
                let _ = file.set_len(state.attr.size);
            }
            if let Ok(stat) = self.arena.open_read(ino).and_then(|content| content.stat()) {
                state.file.know(&stat);
                state.attr.mtime = mtime;
            }
        }
    }

    /// Brings a cold file into the arena for who opens it: waits for one that is on its way, and fetches one that is to be
    /// written and small, or to be read and so small that its first piece is all of it, if calls to the backing travel.
    fn bring_for(&self, inode: &Inode, want: Want) {
        let (cold, size, copied) = {
            let state = inode.state.lock();
            let cold = state.file.place == Place::Backing && state.file.epoch.is_none();
            // From a device even a large file comes in sooner than its reader would have it from the backing.
            let copied = cold
                && !want.write
                && state.attr.size <= self.arena.budget_bytes() / COPIED_SHARE
                && self.copy_of(inode.ino, &state).is_some();
            (cold, state.attr.size, copied)
        };
        if !cold || want.truncate {
            return;
        }
        let small = if want.write { PROMOTE_BYTES_MAX } else { READ_WHOLE_BYTES_MAX };
        let worth_it = want.write || self.backing.is_remote();
        if self.fetcher.knows(inode.ino) || copied || (worth_it && size <= small) {
            self.fetch_now(inode, Cause::Demand);
        }
    }
}

/// Cuts the content of an open file to nothing.
fn empty(state: &mut InodeState, mode: &OpenMode) -> Result<()> {
    let stat = match mode {
        OpenMode::Arena(content) => {
            if content.stat()?.stamp.size > 0 {
                reopen(content.file()?)?.set_len(0)?;
            }
            content.stat()?
        }
        OpenMode::Backing(file) => {
            reopen(file)?.set_len(0)?;
            super::attrs::stat_of_file(file)?
        }
        OpenMode::Daemon(file) => {
            file.set_len(0)?;
            super::attrs::stat_of_file(file)?
        }
    };
    state.file.replaced = state.file.place == Place::Arena && !state.drained.is_empty();
    state.file.changed(None);
    state.seen(&stat);
    let now = now_after(state.attr.ctime);
    (state.attr.mtime, state.attr.ctime) = (now, now);
    Ok(())
}

/// A second descriptor of an open file, for writing; also of one that has no name any more.
pub(crate) fn reopen(file: &File) -> std::io::Result<File> {
    use std::os::fd::AsRawFd;
    File::options().read(true).write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
