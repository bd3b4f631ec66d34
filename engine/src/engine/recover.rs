//! Going on where a daemon ended, and keeping the journal small while one lives.
//!
//! [`Engine::take_up`] enters what the journal says into the tables of an engine: the same inodes under the same numbers,
//! with the same names, and the changes that wait for the drain. Then the engine is what the last one was, whether the
//! kernel still knows its inodes (the daemon of a mount died) or not (the mount is a new one, the content is the old).
//!
//! What can't be known is what of the drain's work arrived. A change from the last daemon's time may be on the backing
//! without its having lived to say so: one that is found done counts as done ([`crate::oplog::Op::resumed`]).

use super::{Engine, PRIVATE_DIRECTORY};
use crate::arena::ArenaStat;
use crate::attr::Kind;
use crate::backing::BackingId;
use crate::error::Result;
use crate::ids::{Ino, Name};
use crate::journal::{Basis, Held, Node, Record, Recovered, References};
use crate::namespace::{Behind, Dir, Epoch, Inode, InodeState, Link, Names, OpenMode, Place, Xattrs};
use crate::oplog::Change;
use std::borrow::Cow;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// How a file was served whose handles outlived the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By passthrough to the arena's file.
    Arena,
    /// By passthrough to the backing's.
    Backing,
    /// By the daemon.
    Daemon,
}

/// A file that was open when the daemon died, and still is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StillOpen {
    /// Which.
    pub ino: Ino,
    /// How its handles are served.
    pub served: Served,
    /// Handles.
    pub handles: u32,
    /// Those that may write.
    pub writers: u32,
    /// Bytes of the arena that were promised to its writers.
    pub promised: u64,
}

impl Engine {
    /// Goes on with what a journal says. Call before [`Engine::start`]; the engine's own journal is to be the same one,
    /// continued. `references` and `open` are what the kernel still has; without a kernel, nothing.
    pub fn take_up(&self, left: &Recovered, references: &References, open: &[StillOpen]) {
        self.journal.take_up(left);
        let final_names = left.final_names();
        let is_open: rustc_hash::FxHashSet<Ino> = open.iter().map(|file| file.ino).collect();
        let mut names = self.names.lock();
        let needed = |ino: Ino, node: &Node| {
            let kernels = references.0.contains_key(&ino) || is_open.contains(&ino);
            let warm = node.cached || node.pinned || node.attr.kind == Kind::Directory;
            kernels || !node.gone && (node.dirty || node.attr_dirty || warm)
        };
        let changed: rustc_hash::FxHashSet<Ino> = left
            .changes
            .values()
            .flat_map(|change| change.objects().into_iter().chain(change.directories()))
            .collect();
        let mut known = Vec::new();
        for (&ino, node) in &left.nodes {
            names.reserve(ino);
            if ino == Ino::ROOT {
                if node.attr_dirty
                    && let Some(root) = names.inode(ino)
                {
                    let mut state = root.state.lock();
                    (state.attr, state.attr_dirty) = (node.attr, true);
                }
                continue;
            }
            if !changed.contains(&ino) && !needed(ino, node) {
                self.journal.dropped(ino, node.gone);
                continue;
            }
            if node.attr.kind == Kind::Directory {
                // One that the backing has may have more in it than is known here.
                names
                    .dirs
                    .insert(ino, if node.drained.is_empty() { Dir::new_complete() } else { Dir::default() });
            }
            known.push((ino, node));
        }
        let making = |change: &Change| match change {
            Change::Make { ino, .. } => Some(*ino),
            _ => None,
        };
        let new: rustc_hash::FxHashSet<Ino> = left.changes.values().filter_map(making).collect();
        let links_of = |ino: &Ino| final_names.get(ino).map_or(&[][..], Vec::as_slice);
        // Half of the time goes here, to the arena's files.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let take_up = |part: &[(Ino, &Node)]| -> Vec<Arc<Inode>> {
            let inode = |(ino, node): &(Ino, &Node)| {
                self.taken_up(*ino, node, links_of(ino), left.exact, new.contains(ino))
            };
            part.iter().map(|known| Arc::new(inode(known))).collect()
        };
        let inodes: Vec<Arc<Inode>> = std::thread::scope(|scope| {
            let parts = known.chunks(known.len().div_ceil(processors).max(1));
            let parts: Vec<_> = parts.map(|part| scope.spawn(|| take_up(part))).collect();
            parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
        });
        names.inodes.extend(inodes.iter().map(|inode| (inode.ino, inode.clone())));
        for (&id, &ino) in &left.numbers {
            names.bind(id, ino);
        }
        for inode in &inodes {
            for link in links_of(&inode.ino) {
                names.take_up_name(link, inode);
            }
        }
        let inodes: Vec<Arc<Inode>> = inodes.into_iter().chain(names.inode(Ino::ROOT).cloned()).collect();
        names.reserve(left.highest);
        self.take_up_changes(&mut names, left);
        drop(names);
        let moved = self.book_what_was_done();
        for change in left.changes.values() {
            if let Change::Make { ino, link } = change
                && left.nodes.get(ino).is_some_and(|node| node.dirty && node.held == Held::Unnamed)
                && self.inode(*ino).is_ok_and(|inode| inode.state.lock().file.place == Place::Empty)
            {
                self.find_named(*ino, link);
            }
        }
        for inode in &inodes {
            let written_there = inode.state.lock().file.taken_up;
            if written_there
                && let Ok(stat) =
                    self.drained_path(inode.ino).and_then(|path| Ok(self.backing.stat(&path)?))
            {
                inode.state.lock().take_newer_times(&stat.attr);
            }
            let mut state = inode.state.lock();
            if let Some((slot, count)) = references.0.get(&inode.ino) {
                (state.slot, state.lookups) = (Some(*slot), *count);
            }
            if state.unsettled() {
                self.drain.mark(inode.ino);
            } else if state.file.place == Place::Arena && !state.nameless() {
                let bytes = state.attr.size;
                drop(state);
                self.may_be_evicted(inode.ino, bytes);
            }
        }
        for inode in inodes.iter().filter(|inode| !inode.state.lock().drained.is_empty()) {
            if let Err(e) = self.complete_xattrs(inode) {
                log::warn!("extended attributes of inode {} are not all known: {e}", inode.ino.0);
            }
        }
        self.pinned.lock().extend(left.nodes.iter().filter(|(_, node)| node.pinned).map(|(ino, _)| *ino));
        for file in open {
            if let Err(e) = self.take_up_epoch(*file) {
                log::error!("inode {} is open, and can't be served any more: {e}", file.ino.0);
            }
        }
        for ino in moved {
            self.drain.unmark_if_nameless(self, ino);
            self.drop_if_unused(ino);
        }
    }

    /// Removes files of the arena that nobody knows of, which a daemon that died left. Beside everything else.
    pub fn sweep_arena(&self) {
        for ino in self.arena.files() {
            // Nobody finds it meanwhile.
            let names = self.names.lock();
            match names.inode(ino).cloned() {
                None => self.arena.remove(ino),
                Some(inode) => {
                    drop(names);
                    let state = inode.state.lock();
                    if state.file.place != Place::Arena && state.file.epoch.is_none() {
                        self.arena.remove(ino);
                    }
                }
            }
        }
    }

    /// Where the content of an object is; its state, where that can be had. `is_new`: its name is still to be made.
    fn content_of(&self, ino: Ino, node: &Node, is_new: bool) -> (Place, Option<ArenaStat>) {
        if node.attr.kind != Kind::File {
            return (Place::Empty, None);
        }
        let content = if !(node.dirty || node.cached || node.gone) {
            None
        } else if node.cached || node.held == Held::Arena {
            let content = self.arena.stat(ino);
            // Cut by an open whose daemon did not live to say so: the backing has what counts.
            let cut = content.as_ref().is_ok_and(|c| !node.dirty && c.stamp.size != node.attr.size);
            Some((Place::Arena, content)).filter(|_| !cut)
        } else if node.held == Held::Unnamed && node.drained.is_empty() {
            let unnamed = self.backing.open_read(&Engine::unnamed_path(ino));
            Some((Place::Unnamed, unnamed.and_then(|file| super::stat_of_file(&file))))
        } else {
            None
        };
        match content {
            Some((place, Ok(content))) => (place, Some(content)),
            // It may be there all the same.
            Some((place, Err(e))) if e.kind() != std::io::ErrorKind::NotFound => {
                log::error!("the content of inode {} can't be looked at: {e}", ino.0);
                (place, None)
            }
            _ if node.drained.is_empty() && (is_new || node.basis.is_none()) => (Place::Empty, None),
            _ => (Place::Backing, None),
        }
    }

    fn taken_up(&self, ino: Ino, node: &Node, links: &[Link], exact: bool, is_new: bool) -> Inode {
        let (place, content) = self.content_of(ino, node, is_new);
        let inode = Inode::taken_up(ino, node, place, content.as_ref());
        {
            let mut state = inode.state.lock();
            state.place = links.first().cloned().filter(|_| !node.gone);
            if state.place.is_none() && (node.gone || !exact || inode.kind == Kind::Directory) {
                // Removed, and waiting to be removed on the backing too, or for its last user.
                state.attr.nlink = 0;
            }
        }
        inode
    }

    fn take_up_changes(&self, names: &mut Names, left: &Recovered) {
        for (&seq, change) in &left.changes {
            for ino in change.objects().into_iter().chain(change.directories()) {
                if let Some(inode) = names.inode(ino) {
                    inode.state.lock().pending += 1;
                }
            }
            let below = match change {
                Change::Rename { ino, .. } | Change::Exchange { ino, .. } => names.directories_below(*ino),
                _ => Vec::new(),
            };
            self.oplog.resume(seq, change.clone(), &below);
            if let Change::Unlink { link, .. } | Change::Rename { from: link, .. } = change
                && let Some(dir) = names.dirs.get_mut(&link.0)
            {
                dir.whiteouts.insert(link.1.clone(), seq);
            }
        }
    }

    /// The time from a file's first open to its last close goes on.
    fn take_up_epoch(&self, file: StillOpen) -> Result<()> {
        let StillOpen { ino, served, handles, writers, promised } = file;
        let inode = self.inode(ino)?;
        let on_backing = |write: bool| -> Result<File> {
            let open = |path: &[u8]| {
                let write = write.then(|| self.backing.open_write(path, crate::backing::Owner::ROOT));
                write.and_then(std::io::Result::ok).map_or_else(|| self.backing.open_read(path), Ok)
            };
            self.open_unnamed(&inode, open)
        };
        let place = inode.state.lock().file.place;
        let mode = match served {
            Served::Arena => OpenMode::Arena(Arc::new(self.arena.open_read(ino)?)),
            Served::Backing => OpenMode::Backing(Arc::new(on_backing(false)?)),
            Served::Daemon if place.is_on_backing() => OpenMode::Daemon(Arc::new(on_backing(true)?)),
            Served::Daemon => OpenMode::Daemon(Arc::new(self.arena.open_write(ino)?)),
        };
        self.reserved.fetch_add(promised, Ordering::Relaxed);
        self.open_handles.fetch_add(u64::from(handles), Ordering::Relaxed);
        let mut state = inode.state.lock();
        if served == Served::Arena {
            state.file.place = Place::Arena;
        }
        let (expected, ahead, moving) = (state.attr.size, None, None);
        let (scan, behind) = (crate::fetch::Scan::default(), Behind::default());
        let epoch = Epoch {
            mode,
            handles,
            writers,
            promised,
            ahead,
            scan,
            expected,
            announced: false,
            moving,
            behind,
        };
        state.file.epoch = Some(Box::new(epoch));
        state.file.lingering = false;
        if writers > 0 {
            state.file.touch();
            if served == Served::Arena {
                self.outgrown.opened(ino);
            }
            drop(state);
            self.cache.lock().forget(ino.0);
            self.drain.mark(ino);
        }
        Ok(())
    }

    /// Rewrites the journal from the live state when it has grown.
    pub(crate) fn compact_journal(&self) {
        if self.journal.wants_rewrite() {
            self.rewrite_journal();
        }
    }

    /// Does so now.
    pub fn rewrite_journal(&self) {
        let (mut records, mut numbers) = (Vec::new(), Vec::new());
        let changes = {
            // What is appended from here on is written behind what is gathered; a change that is done is in one of the two.
            let names = self.names.lock();
            self.journal.begin_rewrite();
            let number = |(id, ino): (BackingId, Ino)| Record::Number { ino, there: (id.dev, id.ino) };
            numbers.extend(names.numbers().map(number));
            // Says which numbers were given out, no more.
            records.push(Record::Dropped { ino: names.last_ino(), gone: false });
            self.oplog.snapshot()
        };
        let inodes: Vec<Arc<Inode>> = self.names.lock().inodes.values().cloned().collect();
        for inode in inodes {
            let state = inode.state.lock();
            records.extend(live(inode.ino, &state, self.pinned.lock().contains(&inode.ino)));
        }
        for op in changes.into_iter().filter(|op| !op.cancelled) {
            records.push(Record::Changed { seq: op.seq, change: Cow::Owned(op.change) });
        }
        // Behind what inodes say, of which some remember a number that is another's by now.
        records.append(&mut numbers);
        if let Err(e) = self.journal.rewrite(&records) {
            log::warn!("the journal can't be rewritten, and goes on growing: {e}");
        }
    }

    /// Removes what an interrupted drain left in our private directory, unless it holds what is still to be named.
    pub fn clear_leftovers(&self) -> Result<()> {
        for listed in self.backing.list(PRIVATE_DIRECTORY)? {
            let unnamed = listed.name.strip_prefix(super::unnamed::UNNAMED_PREFIX.as_bytes());
            let needed = unnamed
                .and_then(|ino| u64::from_str_radix(std::str::from_utf8(ino).ok()?, 16).ok())
                .is_some_and(|ino| {
                    self.inode(Ino(ino)).is_ok_and(|inode| inode.state.lock().file.place == Place::Unnamed)
                });
            if !needed && (unnamed.is_some() || listed.name.starts_with(b"beside-")) {
                self.backing.unlink(&crate::namespace::join_path(PRIVATE_DIRECTORY, &listed.name))?;
            }
        }
        Ok(())
    }
}

/// The records that say all of one inode.
fn live(ino: Ino, state: &InodeState, pinned: bool) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    if state.drained.is_empty() && state.baseline().is_none() {
        let link: Link = state.place.clone().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        records.push(Record::made(ino, &link, state));
    } else {
        records.push(Record::node(ino, state));
        if state.unsettled() || state.settling {
            // What the drain has taken to tell the backing is not told yet.
            let xattrs = match &state.xattrs {
                Xattrs::Known(k) if state.settling => {
                    k.0.iter().map(|(name, value)| (name.to_vec(), Some(value.to_vec()))).collect()
                }
                Xattrs::Known(k) => {
                    k.1.iter()
                        .map(|name| (name.to_vec(), k.0.get(name).map(|value| value.to_vec())))
                        .collect()
                }
                Xattrs::Unknown | Xattrs::None => Vec::new(),
            };
            records.push(Record::Attributes { ino, attr: state.attr, xattrs });
        }
    }
    records.extend(state.baseline().map(|baseline| Record::Basis { ino, basis: baseline.into() }));
    if state.file.dirty || state.file.place == Place::Unnamed {
        records.push(Record::dirty(ino, state));
    } else if state.file.place == Place::Arena {
        records.push(Record::Cached { ino, cached: true });
    }
    if pinned {
        records.push(Record::Pinned { ino, pinned });
    }
    records
}

impl Names {
    /// Enters a name as it was; what is behind it on the backing is told from what isn't.
    fn take_up_name(&mut self, link: &Link, inode: &Inode) {
        let drained = inode.state.lock().drained.contains(link);
        if let Some(dir) = self.dirs.get_mut(&link.0)
            && dir.get(&link.1).is_none()
        {
            dir.insert(link.1.clone(), inode.ino, inode.kind);
            if drained {
                dir.mark_on_backing(&link.1, inode.ino);
            }
        }
    }
}

impl Inode {
    /// An inode as a journal left it.
    fn taken_up(ino: Ino, node: &Node, held: Place, content: Option<&ArenaStat>) -> Inode {
        let place = node.drained.first().cloned().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        let inode = Inode::new(ino, node.attr, place);
        {
            let mut state = inode.state.lock();
            state.drained.extend(node.drained.iter().cloned());
            state.target = node.target.as_deref().map(Box::from);
            state.attr_dirty = node.attr_dirty && !node.gone;
            if !node.drained.is_empty() {
                state.xattrs = Xattrs::Unknown;
            }
            for (name, value) in &node.xattrs {
                state.xattrs.set(name, value.as_deref());
            }
            if !node.dirty && !node.attr_dirty {
                state.set_baseline(node.basis.map(Basis::baseline));
            }
            if node.attr.kind == Kind::File {
                state.file.place = held;
                match content {
                    Some(content) if node.cached && !node.dirty => {
                        state.file.know(content);
                        state.file.clean = Some(content.stamp);
                    }
                    // Not written since its attributes were last set: those are the later word.
                    Some(content) if content.stamp.mtime <= node.attr.ctime => {
                        state.file.know(content);
                        state.attr.size = content.stamp.size;
                    }
                    Some(content) => state.fold(content),
                    None => {}
                }
                if node.dirty && !node.gone {
                    state.file.touch();
                    // A mapping may have outlived the last close; whoever needs to know asks again.
                    state.file.lingering = state.file.place == Place::Arena;
                    state.file.taken_up = state.file.place == Place::Backing;
                }
            }
        }
        inode
    }
}
