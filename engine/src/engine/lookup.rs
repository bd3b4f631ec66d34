//! Finding names, on the backing where they are not known yet, and listing directories.
//!
//! A look at the backing happens without locks; the directory tells afterwards whether a change of this name
//! overtook it, and then it is done again. Entries that are in step with the backing are compared with it again when
//! they are looked up or opened and the last comparison is older than [`super::EngineConfig::revalidate`]: changes made outside show up within
//! that time, or at the next open.

use super::together::together;
use super::{Engine, PRIVATE_DIRECTORY};
use crate::attr::{Attr, Kind, Timestamp};
use crate::backing::{BackingId, Listed, Stat};
use crate::error::{Error, Result};
use crate::ids::{Ino, NAME_BYTES_MAX, Name};
use crate::namespace::{Baseline, Dir, Inode, InodeState, Link, Names, Place, join_path};
use rustc_hash::FxHashSet;
use std::io;
use std::sync::Arc;
use std::time::Instant;

/// Looks at the backing that a change here may overtake before we give up; each needs a change of that very name.
const LOOKS_MAX: u32 = 64;

/// What a lookup found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The inode.
    pub ino: Ino,
    /// Its attributes.
    pub attr: Attr,
    /// It was made or changed here, so nobody outside is expected to change it.
    pub ours: bool,
}

/// An entry as a directory read shows it.
#[derive(Debug, Clone)]
pub struct DirEntry {
    /// Name.
    pub name: Name,
    /// Inode number.
    pub ino: Ino,
    /// Type.
    pub kind: Kind,
    /// Where to go on reading behind it.
    pub cookie: u64,
}

/// What a look at the backing brought that the journal doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    None,
    /// A further name of it.
    Name,
    /// Somebody changed it.
    Changed,
    /// It was not known.
    New,
}

/// What the tables alone can say about a name.
enum Known {
    Yes(Ino),
    No,
    /// Ask the backing.
    Ask,
}

impl Engine {
    pub(super) fn load_root(&self) -> Result<()> {
        let stat = self.backing.stat(b"")?;
        let mut names = self.names.lock();
        names.bind(stat.id, Ino::ROOT);
        let root = Inode::found(Ino::ROOT, stat.attr, (Ino::ROOT, Name::from(&b""[..])), baseline(&stat));
        names.inodes.insert(Ino::ROOT, Arc::new(root));
        names.dirs.insert(Ino::ROOT, Dir::default());
        Ok(())
    }

    /// Finds `name` in `parent` for the kernel, which then holds a reference until [`Engine::forget`].
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Found> {
        loop {
            let inode = self.find(parent, name)?;
            let found = {
                let mut state = inode.state.lock();
                state.lookups += 1;
                self.journal.references(inode.ino, &mut state);
                state.place.get_or_insert_with(|| (parent, Name::from(name)));
                self.found(&inode, &mut state)
            };
            // It may have been forgotten between the two; the kernel must not be given what is not known here.
            if self.names.lock().inode(inode.ino).is_some_and(|known| Arc::ptr_eq(known, &inode)) {
                return Ok(found);
            }
            let mut state = inode.state.lock();
            state.lookups -= 1;
            self.journal.references(inode.ino, &mut state);
        }
    }

    /// The inode number that `name` in `parent` stands for, without a reference.
    pub fn resolve(&self, parent: Ino, name: &[u8]) -> Result<Ino> {
        Ok(self.find(parent, name)?.ino)
    }

    /// Looks at those of `names` in `parent` together for which a lookup would wait: a listing with attributes takes a
    /// trip a name otherwise. Says nothing: whoever looks them up next finds them known.
    pub fn look_together<'n>(&self, parent: Ino, names: impl Iterator<Item = &'n [u8]>) {
        let waiting: Vec<&[u8]> = names.filter(|name| self.lookup_waits(parent, name)).collect();
        together(&waiting, |name| {
            // It is asked for again where this failed.
            let _ = self.find(parent, name);
        });
    }

    /// The inode that `name` in `parent` stands for.
    pub(crate) fn find(&self, parent: Ino, name: &[u8]) -> Result<Arc<Inode>> {
        check_name(name)?;
        for _ in 0..LOOKS_MAX {
            let begun = {
                let mut names = self.names.lock();
                match self.known(&names, parent, name)? {
                    Known::Yes(ino) => match names.named(parent, name, ino) {
                        Some((inode, news)) if self.still_valid(&inode) => {
                            if news {
                                self.journal.found(inode.ino, &inode.state.lock());
                            }
                            return Ok(inode);
                        }
                        _ => {}
                    },
                    Known::No => return Err(Error::NotFound),
                    Known::Ask => {}
                }
                names.dirs.get_mut(&parent).ok_or(Error::NotDirectory)?.begin_look(name)
            };
            let asked = Instant::now();
            let found = self.look(parent, name);
            let mut names = self.names.lock();
            if names.dirs.get_mut(&parent).ok_or(Error::NotDirectory)?.end_look(name, begun) {
                continue;
            }
            return match found {
                Ok(stat) => {
                    let (inode, news) = names.adopt(parent, name, &stat, asked);
                    // First: what the arena has is not what the backing has now.
                    if news == News::Changed && inode.kind == Kind::File {
                        self.journal.cached(inode.ino, false);
                    }
                    if news != News::None {
                        self.journal.found(inode.ino, &inode.state.lock());
                    }
                    Ok(inode)
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let Some(entry) = names.dirs.get(&parent).and_then(|dir| dir.get(name)) else {
                        return Err(Error::NotFound);
                    };
                    if !names.may_vanish(entry.ino) {
                        // Gone outside, but with changes here that the drain will bring back there.
                        return names.inode(entry.ino).cloned().ok_or(Error::NotFound);
                    }
                    if let Some(dir) = names.dirs.get_mut(&parent) {
                        dir.remove(name);
                    }
                    drop(names);
                    self.lost_outside(entry.ino, &(parent, Name::from(name)));
                    Err(Error::NotFound)
                }
                Err(e) => Err(e.into()),
            };
        }
        Err(Error::Io(io::ErrorKind::Interrupted.into()))
    }

    /// Asks the backing for `name` in `parent`.
    fn look(&self, parent: Ino, name: &[u8]) -> io::Result<Stat> {
        let _shape = self.shape.read_recursive();
        match self.drained_path(parent) {
            Ok(path) => self.backing.stat(&join_path(&path, name)),
            Err(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Compares a file with the backing before it is opened; close-to-open for changes made outside.
    /// True: it is gone there, or another took its name.
    pub(super) fn revalidate(&self, inode: &Inode) -> bool {
        if self.still_valid(inode) {
            return false;
        }
        let asked = Instant::now();
        let stat = {
            let _shape = self.shape.read_recursive();
            self.drained_path(inode.ino).and_then(|path| Ok(self.backing.stat(&path)?))
        };
        let mut state = inode.state.lock();
        if state.baseline().is_some_and(|b| b.checked > asked) {
            // The drain was there meanwhile, and knows better.
            return false;
        }
        match stat {
            // The number alone says little: the file system gives that of a removed file to the next thing it makes.
            Ok(stat) if Some(stat.id) == state.baseline().map(|b| b.id) && stat.attr.kind == inode.kind => {
                self.compare(inode.ino, &mut state, &stat);
                false
            }
            // Whoever holds the inode keeps what we have; the next lookup finds what is there now.
            Ok(_) => state.in_step(),
            Err(Error::Io(e)) => e.kind() == io::ErrorKind::NotFound && state.in_step(),
            Err(_) => false,
        }
    }

    /// Takes over what changed outside in an object that is in step and not open.
    fn compare(&self, ino: Ino, state: &mut InodeState, stat: &Stat) {
        let now = baseline(stat);
        let Some(before) = state.baseline() else { return };
        if !state.in_step() {
            return;
        }
        if (before.size, before.mtime) != (now.size, now.mtime) && state.file.place == Place::Arena {
            self.journal.cached(ino, false);
            self.arena.remove(ino);
        }
        if state.take_over(stat, now) {
            self.journal.found(ino, state);
        }
    }

    /// The backing no longer has a name that we thought in step.
    fn lost_outside(&self, ino: Ino, link: &Link) {
        if let Ok(inode) = self.inode(ino) {
            let mut names = self.names.lock();
            let mut state = inode.state.lock();
            state.drained.retain(|drained| drained != link);
            if state.place.as_ref() == Some(link) {
                state.place = state.drained.first().cloned();
            }
            if state.drained.is_empty() && inode.kind != Kind::Directory {
                state.attr.nlink = 0;
            }
            self.journal.found(ino, &state);
            // Whatever is left of it is looked at afresh.
            if let Some(baseline) = state.set_baseline(None).filter(|_| state.nameless()) {
                names.unbind(baseline.id, ino);
            }
        }
        self.drop_if_unused(ino);
    }

    pub(super) fn found(&self, inode: &Inode, state: &mut InodeState) -> Found {
        self.fold(inode.ino, state);
        let ours = state.unsettled() || state.pending > 0;
        Found { ino: inode.ino, attr: state.attr, ours }
    }

    /// The kernel gives `count` references to `ino` back.
    pub fn forget(&self, ino: Ino, count: u64) {
        if let Ok(inode) = self.inode(ino) {
            let mut state = inode.state.lock();
            state.lookups = state.lookups.saturating_sub(count);
            self.journal.references(ino, &mut state);
            if state.lookups > 0 {
                return;
            }
        }
        self.drop_if_unused(ino);
    }

    /// Drops an inode that has no name, no user and no change left, and gives its memory back. Cold files in step
    /// with the backing are dropped too: they are found again under the same number.
    pub(crate) fn drop_if_unused(&self, ino: Ino) {
        let mut names = self.names.lock();
        let Some(inode) = names.inode(ino).cloned() else { return };
        let state = inode.state.lock();
        let in_use = state.lookups > 0 || state.pending > 0 || state.file.epoch.is_some();
        let busy = in_use || state.settling || ino == Ino::ROOT;
        let nameless = state.nameless();
        let cold = inode.kind == Kind::File && state.file.place == Place::Backing && !state.unsettled();
        if busy || !(nameless || cold) {
            return self.unforgotten.note(ino, &state);
        }
        let place = state.file.place;
        let number = state.last_baseline().filter(|_| nameless).map(|b| b.id);
        if let Some(tier) = self.tier.get() {
            if nameless { tier.forget(ino) } else { tier.forgotten(ino, &state) }
        }
        drop(state);
        names.inodes.remove(&ino);
        names.dirs.remove(&ino);
        self.unforgotten.dropped(ino);
        self.journal.dropped(ino, nameless);
        if let Some(id) = number {
            names.unbind(id, ino);
        }
        drop(names);
        if nameless {
            self.drain.forget(ino);
        }
        match place {
            Place::Arena => {
                self.arena.remove(ino);
                self.left_for_good(ino);
            }
            Place::Unnamed => self.remove_unnamed(ino),
            Place::Empty | Place::Backing => {}
        }
    }

    /// Makes sure that all names of a directory are known, and that names changed outside show up.
    pub fn load_directory(&self, ino: Ino) -> Result<()> {
        let known_mtime = {
            let mut names = self.names.lock();
            let dir = names.dirs.get_mut(&ino).ok_or(Error::NotDirectory)?;
            if dir.complete && self.fresh(dir) {
                return Ok(());
            }
            dir.listings += 1;
            dir.validated.filter(|_| dir.complete).map(|v| v.1)
        };
        let listing = self.list(ino, known_mtime);
        let mut names = self.names.lock();
        let dir = names.dirs.get_mut(&ino).ok_or(Error::NotFound)?;
        dir.listings -= 1;
        let touched = if dir.listings == 0 { std::mem::take(&mut dir.touched) } else { dir.touched.clone() };
        let gone = match listing? {
            // Not on the backing (any more): what is known is all there is.
            None => {
                dir.complete = true;
                dir.validated = None;
                Vec::new()
            }
            Some((stat, listed)) => {
                dir.validated = Some((Instant::now(), stat.attr.mtime));
                dir.complete = true;
                listed.map(|listed| names.merge(ino, stat.id.dev, &listed, &touched)).unwrap_or_default()
            }
        };
        drop(names);
        for (child, name) in gone {
            self.lost_outside(child, &(ino, name));
        }
        Ok(())
    }

    /// What the backing lists in a directory; no listing where its time of change is `known`, nothing where it doesn't
    /// have the directory.
    #[allow(clippy::type_complexity, reason = "used once, right above")]
    fn list(&self, ino: Ino, known: Option<Timestamp>) -> Result<Option<(Stat, Option<Vec<Listed>>)>> {
        let _shape = self.shape.read_recursive();
        let Ok(path) = self.drained_path(ino) else { return Ok(None) };
        let stat = self.backing.stat(&path)?;
        let unchanged = known == Some(stat.attr.mtime);
        Ok(Some((stat, if unchanged { None } else { Some(self.backing.list(&path)?) })))
    }

    /// Whether all names of a directory are known, so that it can be read. It was loaded when it was opened, but perhaps by
    /// a daemon that died.
    pub fn is_listed(&self, ino: Ino) -> bool {
        self.names.lock().dirs.get(&ino).is_none_or(|dir| dir.complete)
    }

    /// Entries of a directory behind `cookie`; `visit` says false when it has no room for more.
    pub fn read_directory(
        &self,
        ino: Ino,
        cookie: u64,
        mut visit: impl FnMut(&DirEntry) -> bool,
    ) -> Result<()> {
        let names = self.names.lock();
        let dir = names.dirs.get(&ino).ok_or(Error::NotDirectory)?;
        for (name, entry) in dir.after(cookie) {
            let entry =
                DirEntry { name: name.clone(), ino: entry.ino, kind: entry.kind, cookie: entry.cookie };
            if !visit(&entry) {
                break;
            }
        }
        Ok(())
    }

    /// Loads a directory for somebody who is going to read it; says whether nothing changed since the last time.
    pub fn open_directory(&self, ino: Ino) -> Result<bool> {
        self.load_directory(ino)?;
        let mut names = self.names.lock();
        let dir = names.dirs.get_mut(&ino).ok_or(Error::NotDirectory)?;
        let unchanged = dir.shown_version == Some(dir.version);
        dir.shown_version = Some(dir.version);
        Ok(unchanged)
    }

    /// Whether a name that is missing in `dir` can only appear through us.
    pub fn absence_is_ours(&self, dir: Ino) -> bool {
        self.names.lock().dirs.get(&dir).is_some_and(|dir| dir.complete && dir.validated.is_none())
    }

    /// The parent of a directory; the root is its own.
    pub fn parent(&self, ino: Ino) -> Result<Ino> {
        let inode = self.inode(ino)?;
        let place = inode.state.lock().place.clone();
        Ok(place.map_or(Ino::ROOT, |(parent, _)| parent))
    }
}

impl Names {
    /// The inode that an entry stands for. A file with several names may have been found under another of them: this
    /// one counts from here on, too; whether it is news.
    fn named(&self, parent: Ino, name: &[u8], ino: Ino) -> Option<(Arc<Inode>, bool)> {
        let inode = self.inode(ino)?;
        let entry = self.dirs.get(&parent).and_then(|dir| dir.get(name));
        let mut news = false;
        if entry.is_some_and(|entry| entry.on_backing && entry.ino == ino) {
            let mut state = inode.state.lock();
            let link: Link = (parent, Name::from(name));
            if state.attr.nlink > 1 && inode.kind != Kind::Directory && !state.drained.contains(&link) {
                state.drained.push(link);
                news = true;
            }
        }
        Some((inode.clone(), news))
    }

    /// Enters what the backing has under `name`, `asked` then, or refreshes what is known of it; whether that is news to
    /// the journal.
    fn adopt(&mut self, parent: Ino, name: &[u8], stat: &Stat, asked: Instant) -> (Arc<Inode>, News) {
        let entry = self.dirs.get(&parent).and_then(|dir| dir.get(name));
        let mut ino = self.ino_of(stat.id);
        // The backing gave the number of something that is gone there to something new: to us that is a new inode.
        let another = self.inode(ino).is_some_and(|inode| {
            let state = inode.state.lock();
            inode.kind != stat.attr.kind
                || state.baseline().is_some_and(|b| b.id != stat.id)
                || state.nameless()
        });
        if another {
            ino = self.new_ino();
            self.bind(stat.id, ino);
        }
        let link: Link = (parent, Name::from(name));
        let mut news = News::None;
        let inode = if let Some(inode) = self.inode(ino) {
            inode.clone()
        } else {
            let inode = Arc::new(Inode::found(ino, stat.attr, link.clone(), baseline(stat)));
            self.inodes.insert(ino, inode.clone());
            news = News::New;
            if stat.attr.kind == Kind::Directory {
                self.dirs.insert(ino, Dir::default());
            }
            inode
        };
        if let Some(dir) = self.dirs.get_mut(&parent) {
            match entry {
                Some(entry) if entry.ino == ino => {}
                Some(_) => dir.replace(name, ino, stat.attr.kind),
                None => dir.insert(link.1.clone(), ino, stat.attr.kind),
            }
            dir.mark_on_backing(name, ino);
        }
        let mut state = inode.state.lock();
        if state.place.is_none() {
            state.place = Some(link.clone());
        }
        if !state.drained.contains(&link) {
            state.drained.push(link);
            news = news.max(News::Name);
        }
        // Unless the drain brought something there meanwhile, and knows better.
        if state.in_step() && state.baseline().is_none_or(|b| b.checked <= asked) {
            // Stale content in the arena is forgotten here and removed by the next open.
            if state.take_over(stat, baseline(stat)) {
                news = news.max(News::Changed);
            }
        }
        drop(state);
        (inode, news)
    }

    /// Brings a directory's entries in line with a full listing, but for names that were `touched` while it was made;
    /// returns those whose names are gone.
    fn merge(
        &mut self,
        parent: Ino,
        dev: u64,
        listed: &[Listed],
        touched: &FxHashSet<Name>,
    ) -> Vec<(Ino, Name)> {
        let on_backing: FxHashSet<&[u8]> = listed.iter().map(|item| &*item.name).collect();
        let Some(dir) = self.dirs.get(&parent) else { return Vec::new() };
        let missing: Vec<(Ino, Name)> = dir
            .names()
            .filter(|(name, _)| !on_backing.contains(&***name) && !touched.contains(*name))
            .map(|(name, entry)| (entry.ino, name.clone()))
            .collect();
        let mut gone = Vec::new();
        for (ino, name) in missing {
            if self.may_vanish(ino) {
                if let Some(dir) = self.dirs.get_mut(&parent) {
                    dir.remove(&name);
                }
                gone.push((ino, name));
            }
        }
        for item in listed {
            let hidden = parent == Ino::ROOT && *item.name == *PRIVATE_DIRECTORY;
            let unknown = self.dirs.get(&parent).is_some_and(|dir| {
                let known = dir.get(&item.name).is_some() || dir.whiteouts.contains_key(&*item.name);
                !known && !touched.contains(&*item.name)
            });
            if hidden || !unknown {
                continue;
            }
            let id = BackingId { dev, ino: item.ino };
            let mut ino = self.ino_of(id);
            // A number that was given to another object before.
            if self.inode(ino).is_some_and(|known| known.state.lock().baseline().is_some_and(|b| b.id != id))
            {
                ino = self.new_ino();
                self.bind(id, ino);
            }
            if let Some(dir) = self.dirs.get_mut(&parent) {
                dir.insert(Name::from(&*item.name), ino, item.kind.unwrap_or(Kind::File));
                dir.mark_on_backing(&item.name, ino);
            }
        }
        gone
    }

    /// Whether an object may go because its name went outside: nothing of it, or of what is known below it, waits here.
    fn may_vanish(&self, ino: Ino) -> bool {
        let in_step = |ino: &Ino| self.inode(*ino).is_none_or(|inode| inode.state.lock().in_step());
        if !in_step(&ino) {
            return false;
        }
        let mut below = self.directories_below(ino);
        below.push(ino);
        below.iter().filter_map(|dir| self.dirs.get(dir)).all(|dir| dir.names().all(|(_, e)| in_step(&e.ino)))
    }
}

impl InodeState {
    /// Takes over what somebody changed on the backing, in an object that is in step and not open; false if nobody did.
    fn take_over(&mut self, stat: &Stat, now: Baseline) -> bool {
        let before = self.baseline();
        self.set_baseline(Some(now));
        if before.is_some_and(|b| (b.id, b.ctime) == (now.id, now.ctime)) {
            return false;
        }
        if before.is_none_or(|b| (b.size, b.mtime) != (now.size, now.mtime)) && self.attr.kind == Kind::File {
            self.file.place = Place::Backing;
            self.file.clean = None;
            self.file.chunks = None;
        }
        self.attr = stat.attr;
        self.target = None;
        self.xattrs = crate::namespace::Xattrs::Unknown;
        true
    }
}

impl Engine {
    /// What the tables alone say about `name` in `parent`.
    fn known(&self, names: &Names, parent: Ino, name: &[u8]) -> Result<Known> {
        let dir = names.dirs.get(&parent).ok_or(Error::NotDirectory)?;
        Ok(match dir.get(name) {
            Some(entry) => Known::Yes(entry.ino),
            None if parent == Ino::ROOT && name == PRIVATE_DIRECTORY => Known::No,
            None if dir.complete && self.fresh(dir) => Known::No,
            None if dir.whiteouts.contains_key(name) => Known::No,
            None => Known::Ask,
        })
    }

    /// Whether the backing's calls travel, so that each may take long.
    pub fn is_remote(&self) -> bool {
        self.backing.is_remote()
    }

    /// Whether a lookup would wait for a backing whose calls travel.
    pub fn lookup_waits(&self, parent: Ino, name: &[u8]) -> bool {
        if !self.backing.is_remote() {
            return false;
        }
        let names = self.names.lock();
        match self.known(&names, parent, name) {
            Ok(Known::Yes(ino)) => names.inode(ino).is_none_or(|inode| !self.still_valid(inode)),
            Ok(Known::Ask) => true,
            Ok(Known::No) | Err(_) => false,
        }
    }

    /// Whether attributes would wait for such a backing.
    pub fn attr_waits(&self, ino: Ino) -> bool {
        self.backing.is_remote() && self.inode(ino).is_ok_and(|inode| !self.still_valid(&inode))
    }

    /// Whether a change of `name` in `parent` would wait for it: it has to know the name, what new ones inherit, and
    /// whether a directory that goes is empty; or for earlier changes, where too many wait for the backing.
    pub fn change_waits(&self, parent: Ino, name: &[u8]) -> bool {
        if self.is_nearly_behind() {
            return true;
        }
        if !self.is_remote() {
            return false;
        }
        let there = self.names.lock().dirs.get(&parent).and_then(|dir| dir.get(name)).map(|entry| entry.ino);
        self.lookup_waits(parent, name)
            || self.attr_waits(parent)
            || self.xattrs_wait(parent)
            || there.is_some_and(|ino| self.listing_waits(ino))
    }

    /// Whether reading a directory would wait for such a backing.
    pub fn listing_waits(&self, dir: Ino) -> bool {
        self.backing.is_remote()
            && self.names.lock().dirs.get(&dir).is_some_and(|dir| !dir.complete || !self.fresh(dir))
    }

    /// Whether what is known of an inode can be used as it is: it is ours, or was compared a moment ago.
    pub(super) fn still_valid(&self, inode: &Inode) -> bool {
        let state = inode.state.lock();
        if state.drained.is_empty() && state.pending == 0 && !state.nameless() && state.baseline().is_some() {
            // The name that was known is gone on the backing; it has another there, which is to be found.
            return false;
        }
        let compared = state.baseline().is_none_or(|b| b.checked.elapsed() < self.config.revalidate);
        !state.in_step() || compared || inode.ino == Ino::ROOT
    }

    /// Whether a directory needs no comparison with the backing now.
    fn fresh(&self, dir: &Dir) -> bool {
        dir.validated.is_none_or(|(when, _)| when.elapsed() < self.config.revalidate)
    }
}

pub(crate) fn baseline(stat: &Stat) -> Baseline {
    let Attr { size, mtime, ctime, .. } = stat.attr;
    Baseline { id: stat.id, size, mtime, ctime, checked: Instant::now() }
}

pub(super) fn check_name(name: &[u8]) -> Result<()> {
    // The kernel asks for none of these; to the backing they would be the directory itself, or its parent.
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Error::Invalid);
    }
    if name.len() > NAME_BYTES_MAX { Err(Error::NameTooLong) } else { Ok(()) }
}

/// The later of the clock and a time that was shown before: times never run backwards within an inode.
pub(crate) fn now_after(before: Timestamp) -> Timestamp {
    Timestamp::now().max(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_stand_for_other_directories_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b"] {
            assert!(matches!(check_name(name), Err(Error::Invalid)));
        }
        assert!(check_name(b"...").is_ok() && check_name(b"@").is_ok() && check_name(&[255; 255]).is_ok());
        assert!(matches!(check_name(&[b'x'; 256]), Err(Error::NameTooLong)));
    }
}
