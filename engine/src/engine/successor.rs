//! Going on where another daemon ended.
//!
//! A [`Successor`] enters what that one's journal says into the tables of an engine: the same inodes under the same numbers,
//! with the same names, and the changes that wait for the drain. It does so while the other still lives, again and again
//! with what was added, so that little is left to be done when that one dies. Then the engine is what the last one was,
//! whether the kernel still knows its inodes (the daemon of a mount died) or not (the mount is a new one, the content is
//! the old).
//!
//! 1. Until the other is gone, nothing is changed, in no file of the two, and the backing is asked for nothing below a
//!    directory that the other may move: it remembers where directories are. What may change without a record is entered
//!    again at the end: files that are open for writing, and what the drain renames before it says so.
//! 2. An object that a record names is taken out of all tables and entered anew, as the journal has it by then.
//! 3. What can't be known is what of the drain's work arrived. A change from the last daemon's time may be on the backing
//!    without its having lived to say so: one that is found done counts as done ([`crate::oplog::Op::resumed`]).

mod tables;

use super::Engine;
use crate::arena::ArenaStat;
use crate::attr::Kind;
use crate::error::Result;
use crate::ids::{Ino, Name, Seq};
use crate::journal::{Basis, Follower, Held, Lost, Node, Recovered, References};
use crate::namespace::{Behind, Dir, Epoch, Inode, Link, Names, OpenMode, Place, Xattrs};
use crate::oplog::Change;
use rustc_hash::{FxHashMap, FxHashSet};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Objects that are worth a second thread.
const MANY: usize = 1000;

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

/// See the module.
#[derive(Debug)]
pub struct Successor {
    engine: Arc<Engine>,
    follower: Follower,
    entered: Entered,
}

/// What of the journal is in the tables.
#[derive(Debug, Default)]
struct Entered {
    /// The names of objects in the directories.
    names: FxHashMap<Ino, Vec<Link>>,
    /// Objects that the journal has and nobody needs.
    left_out: FxHashSet<Ino>,
    /// Those with extended attributes that the backing must be told: it has the others.
    incomplete: FxHashSet<Ino>,
    /// Those of which the backing may say more than the journal: they are looked at again at the end.
    unsure: FxHashSet<Ino>,
}

impl Successor {
    /// Enters what `follower` has read into the tables of `engine`, which is not started, and whose journal is the one that
    /// is followed ([`crate::journal::Journal::beside_another`]).
    pub fn new(engine: Arc<Engine>, follower: Follower) -> Successor {
        Successor { engine, follower, entered: Entered::default() }
    }

    /// Enters what was added to the journal.
    pub fn follow(&mut self) -> std::result::Result<(), Lost> {
        self.follower.follow()?;
        self.enter();
        Ok(())
    }

    /// The engine that goes on.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// What the journal says.
    pub fn left(&self) -> &Recovered {
        &self.follower.left
    }

    /// The other daemon is gone, and its journal was followed to the end; the kernel is the one that it served, and still
    /// has `open`; of those, the ones that can't be served any more. Call before [`Engine::start`].
    pub fn take_over(mut self, open: &[StillOpen]) -> io::Result<(Recovered, Vec<Ino>)> {
        self.engine.journal.take_over(&self.follower.left)?;
        let unserved = self.finish(open);
        let Successor { follower: Follower { left, references, .. }, entered, .. } = self;
        // To give back that memory takes as long as all else here.
        std::thread::spawn(move || drop((references, entered)));
        Ok((left, unserved))
    }

    /// The same for a kernel that knows nothing of what the journal says. Call before [`Successor::follow`].
    pub fn resume(mut self) -> io::Result<Recovered> {
        self.engine.journal.resume(&mut self.follower.left)?;
        self.follower.references = References::default();
        self.finish(&[]);
        Ok(self.follower.left)
    }

    fn enter(&mut self) {
        let Follower { left, references, .. } = &mut self.follower;
        self.engine.enter(left, references, &mut self.entered);
    }

    /// The files of `open` that can't be served any more.
    fn finish(&mut self, open: &[StillOpen]) -> Vec<Ino> {
        {
            let (touched, engine) = (&mut self.follower.left.touched, &self.engine);
            touched.nodes.extend(self.entered.unsure.iter());
            let again = |file: &&StillOpen| {
                file.writers > 0 || file.served == Served::Daemon || engine.inode(file.ino).is_err()
            };
            touched.nodes.extend(open.iter().filter(again).map(|file| file.ino));
        }
        self.enter();
        let (left, engine) = (&self.follower.left, &self.engine);
        engine.look_at_root();
        for ino in &self.entered.left_out {
            let gone = left.nodes.get(ino).is_some_and(|node| left.is_gone(*ino, node));
            engine.journal.dropped(*ino, gone);
        }
        let moved = engine.book_what_was_done();
        for ino in &self.entered.incomplete {
            let completed = engine.inode(*ino).and_then(|inode| engine.complete_xattrs(&inode));
            if let Err(e) = completed {
                log::warn!("extended attributes of inode {} are not all known: {e}", ino.0);
            }
        }
        for &ino in &self.entered.unsure {
            engine.look_again(ino, left);
        }
        let mut unserved = Vec::new();
        for file in open {
            if let Err(e) = engine.take_up_epoch(*file) {
                log::error!("inode {} is open, and can't be served any more: {e}", file.ino.0);
                unserved.push(file.ino);
            }
        }
        for ino in moved {
            engine.drain.unmark_if_nameless(engine, ino);
            engine.drop_if_unused(ino);
        }
        unserved
    }
}

impl Engine {
    /// Brings the tables up to what the journal says.
    fn enter(&self, left: &mut Recovered, references: &References, entered: &mut Entered) {
        let touched = std::mem::take(&mut left.touched);
        let mut nodes = touched.nodes;
        let mut names = self.names.lock();
        for ino in touched.references {
            match (names.inode(ino), references.of(ino)) {
                (Some(inode), Some((slot, count))) => {
                    let mut state = inode.state.lock();
                    (state.slot, state.lookups) = (Some(slot), count);
                }
                // It may be needed now, or no more.
                _ => drop(nodes.insert(ino)),
            }
        }
        for ino in &nodes {
            self.take_out(&mut names, entered, *ino);
        }
        let inodes = self.put_in(&mut names, entered, left, references, &nodes);
        names.reserve(left.highest);
        for id in touched.numbers {
            match left.numbers.get(&id) {
                Some(ino) => names.bind(id, *ino),
                None => names.forget_number(id),
            }
        }
        self.enter_changes(&mut names, left, touched.changes, &touched.cancelled, &touched.done);
        drop(names);
        for inode in inodes {
            let state = inode.state.lock();
            if state.unsettled() {
                self.drain.mark(inode.ino);
            } else if state.file.place == Place::Arena && !state.nameless() {
                let bytes = state.attr.size;
                drop(state);
                self.may_be_evicted(inode.ino, bytes);
            }
        }
    }

    /// Takes an object out of the tables, but for what is in it.
    fn take_out(&self, names: &mut Names, entered: &mut Entered, ino: Ino) {
        for (parent, name) in entered.names.remove(&ino).unwrap_or_default() {
            if let Some(dir) = names.dirs.get_mut(&parent)
                && dir.get(&name).is_some_and(|entry| entry.ino == ino)
            {
                dir.remove(&name);
            }
        }
        entered.left_out.remove(&ino);
        entered.unsure.remove(&ino);
        entered.incomplete.remove(&ino);
        self.drain.unmark(ino);
        if ino != Ino::ROOT && names.inodes.remove(&ino).is_some() {
            self.left_for_good(ino);
        }
    }

    /// Enters those of `nodes` that somebody needs.
    fn put_in(
        &self,
        names: &mut Names,
        entered: &mut Entered,
        left: &Recovered,
        references: &References,
        nodes: &FxHashSet<Ino>,
    ) -> Vec<Arc<Inode>> {
        let mut known: Vec<(Ino, &Node)> = Vec::new();
        for &ino in nodes {
            let node = left.nodes.get(&ino);
            if ino == Ino::ROOT {
                if let Some(root) = names.inode(ino) {
                    let mut state = root.state.lock();
                    state.pending = left.pending(ino);
                    state.attr_dirty = node.is_some_and(|node| node.attr_dirty);
                    state.xattrs = Xattrs::Unknown;
                    for (name, value) in node.iter().flat_map(|node| &node.xattrs) {
                        state.xattrs.set(name, value.as_deref());
                        entered.incomplete.insert(ino);
                    }
                    self.drain.unsynced(ino);
                    // What is not dirty the backing says, see `look_at_root`.
                    if let Some(node) = node.filter(|node| node.attr_dirty) {
                        state.attr = node.attr;
                    }
                }
                continue;
            }
            let Some(node) = node else {
                names.dirs.remove(&ino);
                continue;
            };
            let warm = node.cached || node.pinned || node.attr.kind == Kind::Directory;
            let backings = !left.is_gone(ino, node) && (node.dirty || node.attr_dirty || warm);
            if left.pending(ino) == 0 && references.of(ino).is_none() && !backings {
                names.dirs.remove(&ino);
                entered.left_out.insert(ino);
                continue;
            }
            if node.attr.kind == Kind::Directory {
                // One that the backing has may have more in it than is known here.
                let dir = names.dirs.entry(ino).or_insert_with(Dir::new_complete);
                dir.complete &= node.drained.is_empty();
                // Names that the last daemon gave it on the backing may not be durable there.
                self.drain.unsynced(ino);
            }
            if node.pinned {
                self.pinned.lock().insert(ino);
            }
            if !node.xattrs.is_empty() && !node.drained.is_empty() {
                entered.incomplete.insert(ino);
            }
            if node.dirty && node.held != Held::Arena {
                entered.unsure.insert(ino);
            }
            known.push((ino, node));
        }
        let make = |part: &[(Ino, &Node)]| -> Vec<(Arc<Inode>, Vec<Link>)> {
            let inode = |(ino, node): &(Ino, &Node)| {
                let names = left.final_names(*ino);
                (Arc::new(self.taken_up(*ino, node, &names, left, references)), names)
            };
            part.iter().map(inode).collect()
        };
        // Half of the time goes here, to the arena's files.
        let made = if known.len() < MANY {
            make(&known)
        } else {
            let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            std::thread::scope(|scope| {
                let parts = known.chunks(known.len().div_ceil(processors));
                let parts: Vec<_> = parts.map(|part| scope.spawn(|| make(part))).collect();
                parts.into_iter().flat_map(|part| part.join().expect("no panic")).collect()
            })
        };
        names.inodes.extend(made.iter().map(|(inode, _)| (inode.ino, inode.clone())));
        let mut inodes = Vec::with_capacity(made.len() + 1);
        for (inode, links) in made {
            for link in &links {
                names.take_up_name(link, &inode);
            }
            if !links.is_empty() {
                entered.names.insert(inode.ino, links);
            }
            inodes.push(inode);
        }
        inodes.extend(names.inode(Ino::ROOT).filter(|_| nodes.contains(&Ino::ROOT)).cloned());
        inodes
    }

    fn enter_changes(
        &self,
        names: &mut Names,
        left: &Recovered,
        mut made: Vec<Seq>,
        cancelled: &[Seq],
        done: &[(Seq, Change)],
    ) {
        for (seq, change) in done {
            self.oplog.finished_there(*seq);
            for link in change.links() {
                if let Some(dir) = names.dirs.get_mut(&link.0)
                    && dir.whiteouts.get(&link.1) == Some(seq)
                {
                    dir.whiteouts.remove(&link.1);
                }
            }
        }
        for seq in cancelled {
            self.oplog.cancelled_there(*seq);
        }
        // Numbers of changes that are done are given again by the next daemon.
        made.sort_unstable();
        made.dedup();
        for seq in made {
            let waits = left.changes.get(&seq);
            let Some(change) = waits.or_else(|| left.cancelled.get(&seq)) else { continue };
            let below = match change {
                Change::Rename { ino, .. } | Change::Exchange { ino, .. } => names.directories_below(*ino),
                _ => Vec::new(),
            };
            self.oplog.inherit(seq, change.clone(), &below);
            if waits.is_none() {
                self.oplog.cancelled_there(seq);
            }
            if let Change::Unlink { link, .. } | Change::Rename { from: link, .. } = change
                && let Some(dir) = names.dirs.get_mut(&link.0)
            {
                dir.whiteouts.insert(link.1.clone(), seq);
            }
        }
    }

    /// The root was read from the backing when the engine began.
    fn look_at_root(&self) {
        let (Ok(root), Ok(stat)) = (self.inode(Ino::ROOT), self.backing.stat(b"")) else { return };
        let mut state = root.state.lock();
        if !state.attr_dirty {
            state.attr = stat.attr;
        }
        state.set_baseline(Some(super::baseline(&stat)));
    }

    /// What the backing may have more of than the journal: a new file's name, a file's times.
    fn look_again(&self, ino: Ino, left: &Recovered) {
        let Ok(inode) = self.inode(ino) else { return };
        if left.nodes.get(&ino).is_some_and(|node| node.held == Held::Unnamed)
            && inode.state.lock().file.place == Place::Empty
            && let Some(link) = left.making(ino)
        {
            self.find_named(ino, link);
        }
        if inode.state.lock().file.taken_up
            && let Ok(stat) = self.drained_path(ino).and_then(|path| Ok(self.backing.stat(&path)?))
        {
            inode.state.lock().take_newer_times(&stat.attr);
        }
    }

    /// Removes files of the arena that nobody knows of, which a daemon that died left, and opens what is to be opened later.
    /// Beside everything else.
    pub fn sweep_arena(&self) {
        for ino in self.arena.files() {
            // Nobody finds it meanwhile.
            let names = self.names.lock();
            match names.inode(ino).cloned() {
                None => self.arena.remove(ino),
                Some(inode) => {
                    drop(names);
                    let state = inode.state.lock();
                    if let Some(OpenMode::Arena(content)) = state.file.epoch.as_ref().map(|epoch| &epoch.mode)
                        && let Err(e) = content.file()
                    {
                        log::error!("inode {} is open, and can't be served any more: {e}", ino.0);
                    }
                    if state.file.place != Place::Arena && state.file.epoch.is_none() {
                        self.arena.remove(ino);
                    }
                }
            }
        }
    }

    /// Where the content of an object is; its state, where that can be had. `is_new`: its name is still to be made.
    fn content_of(&self, ino: Ino, node: &Node, is_new: bool, is_gone: bool) -> (Place, Option<ArenaStat>) {
        if node.attr.kind != Kind::File {
            return (Place::Empty, None);
        }
        let content = if !(node.dirty || node.cached || is_gone) {
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

    fn taken_up(
        &self,
        ino: Ino,
        node: &Node,
        names: &[Link],
        left: &Recovered,
        references: &References,
    ) -> Inode {
        let is_gone = left.is_gone(ino, node);
        let (place, content) = self.content_of(ino, node, left.is_new(ino), is_gone);
        let inode = Inode::taken_up(ino, node, is_gone, place, content.as_ref());
        {
            let mut state = inode.state.lock();
            state.place = names.first().cloned().filter(|_| !is_gone);
            if state.place.is_none() && (is_gone || !left.exact || inode.kind == Kind::Directory) {
                // Removed, and waiting to be removed on the backing too, or for its last user.
                state.attr.nlink = 0;
            }
            state.pending = left.pending(ino);
            if let Some((slot, count)) = references.of(ino) {
                (state.slot, state.lookups) = (Some(slot), count);
            }
        }
        inode
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
            Served::Arena => OpenMode::Arena(Arc::new(self.arena.open_later(ino))),
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
    fn taken_up(ino: Ino, node: &Node, is_gone: bool, held: Place, content: Option<&ArenaStat>) -> Inode {
        let place = node.drained.first().cloned().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        let inode = Inode::new(ino, node.attr, place);
        {
            let mut state = inode.state.lock();
            state.drained.extend(node.drained.iter().cloned());
            state.target = node.target.as_deref().map(Box::from);
            state.attr_dirty = node.attr_dirty && !is_gone;
            if !node.drained.is_empty() {
                state.xattrs = Xattrs::Unknown;
            }
            for (name, value) in &node.xattrs {
                state.xattrs.set(name, value.as_deref());
            }
            state.set_baseline(node.basis.map(Basis::baseline));
            if node.dirty || node.attr_dirty {
                state.doubt_baseline();
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
                if node.dirty && !is_gone {
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
