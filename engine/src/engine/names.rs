//! Changes of names: make, link, remove, rename. Each is done in memory under the namespace lock, put into the journal
//! and the operation log, and is then true for everybody; the backing follows.

use super::lookup::{check_name, now_after};
use super::{Engine, Found};
use crate::attr::{Attr, Kind, Timestamp};
use crate::error::{Error, Result};
use crate::ids::{Ino, Name};
use crate::namespace::{Dir, Entry, Inode, Link, Names};
use crate::oplog::Change;
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::time::Duration;

/// As ext4; a number that the types of all file systems hold.
const LINKS_MAX: u32 = 65_000;
/// Changes that wait for the backing may take one part in so many of the memory.
const WAITING_SHARE: u64 = 16;
/// What a change costs that waits, with its object: measured, 1,018 bytes a file (`aimss bench --only heap-100k`).
const WAITING_BYTES: u64 = 1 << 10;
/// So many may always wait.
const WAITING_MIN: u64 = 64;
/// A change waits so long at most for others to reach the backing: who makes them is slowed down, not stopped.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// What is to be made.
#[derive(Debug, Clone)]
pub struct New<'a> {
    /// Type.
    pub kind: Kind,
    /// Permission bits, final.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group, final.
    pub gid: u32,
    /// Device number, of device nodes.
    pub rdev: u32,
    /// Target, of symbolic links.
    pub target: Option<&'a [u8]>,
    /// Extended attributes from the start (ACLs that are inherited).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Engine {
    /// So many changes of names wait before those who make more are slowed to the pace of the backing.
    fn waiting_max(&self) -> usize {
        (self.arena.budget_bytes() / WAITING_SHARE / WAITING_BYTES).max(WAITING_MIN) as usize
    }

    /// Whether so many wait.
    pub fn is_behind(&self) -> bool {
        self.oplog.len() >= self.waiting_max()
    }

    /// Whether the next change may have to wait for that reason.
    pub(super) fn is_nearly_behind(&self) -> bool {
        self.oplog.len() >= self.waiting_max() / 16 * 15
    }

    /// Waits until fewer changes wait, for a moment at most. No lock is held.
    fn keep_pace(&self) {
        self.oplog.wait_for_fewer(self.waiting_max(), PAUSE_MAX);
    }

    /// Makes `name` in `parent`; the kernel then holds a reference.
    pub fn make(&self, parent: Ino, name: &[u8], new: &New<'_>) -> Result<Found> {
        self.resolve_target(parent, name)?;
        self.keep_pace();
        let mut names = self.names.lock();
        if names.dirs.get(&parent).ok_or(Error::NotDirectory)?.get(name).is_some() {
            return Err(Error::Exists);
        }
        names.alive(parent)?;
        let ino = names.new_ino();
        let now = Timestamp::now();
        let attr = Attr {
            kind: new.kind,
            mode: new.mode & 0o7777,
            uid: new.uid,
            gid: new.gid,
            nlink: if new.kind == Kind::Directory { 2 } else { 1 },
            rdev: new.rdev,
            size: new.target.map_or(if new.kind == Kind::Directory { 4096 } else { 0 }, |t| t.len() as u64),
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
        };
        let link: Link = (parent, Name::from(name));
        let inode = Arc::new(Inode::new(ino, attr, link.clone()));
        {
            let mut state = inode.state.lock();
            state.lookups = 1;
            state.target = new.target.map(Box::from);
            state.attr_dirty = true;
            for (key, value) in &new.xattrs {
                state.xattrs.set(key, Some(value));
            }
            self.journal.references(ino, &mut state);
            self.journal.made(ino, &link, &state);
        }
        names.inodes.insert(ino, inode);
        if new.kind == Kind::Directory {
            names.dirs.insert(ino, Dir::new_complete());
        }
        names.enter(&link, ino, new.kind);
        self.record(&mut names, &Change::Make { ino, link }, &[]);
        drop(names);
        self.drain.mark(ino);
        Ok(Found { ino, attr, ours: true })
    }

    /// Gives `ino` the further name `name` in `parent`; the kernel then holds one more reference.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Found> {
        self.resolve_target(parent, name)?;
        let inode = self.inode(ino)?;
        if inode.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        self.keep_pace();
        let mut names = self.names.lock();
        if names.dirs.get(&parent).ok_or(Error::NotDirectory)?.get(name).is_some() {
            return Err(Error::Exists);
        }
        names.alive(parent)?;
        let link: Link = (parent, Name::from(name));
        {
            let mut state = inode.state.lock();
            if state.attr.nlink == 0 {
                return Err(Error::NotFound);
            }
            if state.attr.nlink >= LINKS_MAX {
                return Err(Error::TooManyLinks);
            }
            state.attr.nlink += 1;
            state.attr.ctime = now_after(state.attr.ctime);
            state.lookups += 1;
            self.journal.references(ino, &mut state);
            state.place.get_or_insert_with(|| link.clone());
        }
        names.enter(&link, ino, inode.kind);
        self.record(&mut names, &Change::Link { ino, link }, &[]);
        drop(names);
        let mut state = inode.state.lock();
        Ok(self.found(&inode, &mut state))
    }

    /// Removes anything but a directory.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.find(parent, name)?;
        self.keep_pace();
        let names = self.names.lock();
        let entry = names.entry(parent, name)?;
        if entry.kind == Kind::Directory {
            return Err(Error::IsDirectory);
        }
        self.remove(names, (parent, Name::from(name)), entry)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let inode = self.find(parent, name)?;
        if inode.kind != Kind::Directory {
            return Err(Error::NotDirectory);
        }
        self.load_directory(inode.ino)?;
        self.keep_pace();
        let names = self.names.lock();
        let entry = names.entry(parent, name)?;
        if names.dirs.get(&entry.ino).is_some_and(|dir| !dir.is_empty()) {
            return Err(Error::NotEmpty);
        }
        self.remove(names, (parent, Name::from(name)), entry)
    }

    fn remove(&self, mut names: MutexGuard<'_, Names>, link: Link, entry: Entry) -> Result<()> {
        let ino = entry.ino;
        // A name from a listing whose inode nobody looked up was looked up by our callers.
        let inode = names.inode(ino).cloned().ok_or(Error::NotFound)?;
        names.leave(&link, entry.kind);
        // What is in our private directory stays there for who has it open.
        let cancelled = {
            let mut state = inode.state.lock();
            state.lose_name(&link, entry.kind);
            let only_made = state.pending == 1 && state.nameless() && state.drained.is_empty();
            let cancelled = only_made && self.oplog.cancel_make(ino);
            if cancelled {
                // Its memory goes now, not when the change's turn comes.
                state.pending = 0;
            }
            cancelled
        };
        if cancelled {
            self.drain.count_cancelled(if entry.kind == Kind::Directory { 1 } else { 2 });
            self.journal.withdrawn(ino, self.attrs_of(&names, &[ino, link.0]));
        } else {
            self.record(&mut names, &Change::Unlink { ino, link }, &[]);
        }
        drop(names);
        self.drain.unmark_if_nameless(self, ino);
        self.leave_private_directory(ino);
        self.drop_if_unused(ino);
        Ok(())
    }

    /// Renames. With `no_replace`, an existing target is [`Error::Exists`].
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), no_replace: bool) -> Result<()> {
        let moving = self.find(from.0, from.1)?;
        check_name(to.1)?;
        if to.0 == Ino::ROOT && to.1 == super::PRIVATE_DIRECTORY {
            return Err(Error::Exists);
        }
        let target = match self.find(to.0, to.1) {
            Ok(target) => Some(target),
            Err(Error::NotFound) => None,
            Err(e) => return Err(e),
        };
        if let Some(target) = &target {
            if no_replace {
                return Err(Error::Exists);
            }
            if target.ino == moving.ino {
                return Ok(());
            }
            match (moving.kind == Kind::Directory, target.kind == Kind::Directory) {
                (true, false) => return Err(Error::NotDirectory),
                (false, true) => return Err(Error::IsDirectory),
                (true, true) => self.load_directory(target.ino)?,
                (false, false) => {}
            }
        }
        self.keep_pace();
        let mut names = self.names.lock();
        names.alive(to.0)?;
        let moving_entry = names.entry(from.0, from.1)?;
        let replaced = names.dirs.get(&to.0).ok_or(Error::NotDirectory)?.get(to.1);
        if moving_entry.ino != moving.ino || replaced.map(|e| e.ino) != target.as_ref().map(|t| t.ino) {
            // Somebody was faster; the kernel locks both directories, so only outside changes get here.
            return Err(Error::NotFound);
        }
        if let Some(entry) = replaced
            && entry.kind == Kind::Directory
            && names.dirs.get(&entry.ino).is_some_and(|dir| !dir.is_empty())
        {
            return Err(Error::NotEmpty);
        }
        if moving.kind == Kind::Directory && names.is_below(to.0, moving.ino) {
            return Err(Error::Invalid);
        }
        let (from, to): (Link, Link) = ((from.0, Name::from(from.1)), (to.0, Name::from(to.1)));
        if let (Some(entry), Some(target)) = (replaced, &target) {
            names.leave(&to, entry.kind);
            target.state.lock().lose_name(&to, entry.kind);
        }
        names.leave(&from, moving.kind);
        names.enter(&to, moving.ino, moving.kind);
        {
            let mut state = moving.state.lock();
            if state.place.as_ref().is_none_or(|place| *place == from) || moving.kind == Kind::Directory {
                state.place = Some(to.clone());
            }
            state.attr.ctime = now_after(state.attr.ctime);
        }
        let below =
            if moving.kind == Kind::Directory { names.directories_below(moving.ino) } else { Vec::new() };
        let replaced = replaced.map(|entry| entry.ino);
        self.record(&mut names, &Change::Rename { ino: moving.ino, from, to, replaced }, &below);
        drop(names);
        if let Some(ino) = replaced {
            self.drain.unmark_if_nameless(self, ino);
            self.drop_if_unused(ino);
        }
        Ok(())
    }

    /// Lets two names swap what they stand for.
    pub fn exchange(&self, from: (Ino, &[u8]), to: (Ino, &[u8])) -> Result<()> {
        let (one, other) = (self.find(from.0, from.1)?, self.find(to.0, to.1)?);
        if one.ino == other.ino {
            return Ok(());
        }
        self.keep_pace();
        let mut names = self.names.lock();
        let a = names.entry(from.0, from.1)?;
        let b = names.entry(to.0, to.1)?;
        if names.is_below(to.0, one.ino) || names.is_below(from.0, other.ino) {
            return Err(Error::Invalid);
        }
        let (from, to): (Link, Link) = ((from.0, Name::from(from.1)), (to.0, Name::from(to.1)));
        names.leave(&from, a.kind);
        names.leave(&to, b.kind);
        names.enter(&from, b.ino, b.kind);
        names.enter(&to, a.ino, a.kind);
        for (inode, old, new) in [(&one, &from, &to), (&other, &to, &from)] {
            let mut state = inode.state.lock();
            if state.place.as_ref() == Some(old) {
                state.place = Some(new.clone());
            }
            state.attr.ctime = now_after(state.attr.ctime);
        }
        let mut below = Vec::new();
        for inode in [&one, &other] {
            if inode.kind == Kind::Directory {
                below.extend(names.directories_below(inode.ino));
            }
        }
        self.record(&mut names, &Change::Exchange { ino: one.ino, from, other: other.ino, to }, &below);
        Ok(())
    }

    /// For calls that make a name: an answer from the backing first, so that what exists there counts.
    fn resolve_target(&self, parent: Ino, name: &[u8]) -> Result<()> {
        if parent == Ino::ROOT && name == super::PRIVATE_DIRECTORY {
            return Err(Error::Exists);
        }
        match self.find(parent, name) {
            Ok(_) => Err(Error::Exists),
            Err(Error::NotFound) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// As they are now, of files that are written behind our back, too.
    fn attrs_of(&self, names: &Names, inos: &[Ino]) -> Vec<(Ino, Attr)> {
        let attr = |ino: &Ino| {
            let mut state = names.inode(*ino)?.state.lock();
            self.fold(*ino, &mut state);
            Some((*ino, state.attr))
        };
        inos.iter().filter_map(attr).collect()
    }

    /// Enters a change into journal and operation log; the namespace is locked, so their order is its order.
    fn record(&self, names: &mut Names, change: &Change, below: &[Ino]) {
        for ino in change.objects().into_iter().chain(change.directories()) {
            if let Some(inode) = names.inode(ino) {
                inode.state.lock().pending += 1;
            }
        }
        let seq = self.oplog.push(change.clone(), below);
        let objects = change.objects();
        // Those of an object that is made are in the record before.
        let named = objects.iter().copied().filter(|_| !matches!(change, Change::Make { .. }));
        let touched: Vec<Ino> = named.chain(change.directories()).collect();
        let drained = objects.into_iter().filter_map(|ino| {
            let drained = names.inode(ino)?.state.lock().drained.to_vec();
            (!drained.is_empty()).then_some((ino, drained))
        });
        self.journal.committed(seq, change, self.attrs_of(names, &touched), drained.collect());
        if let Change::Unlink { link, .. } | Change::Rename { from: link, .. } = change
            && let Some(dir) = names.dirs.get_mut(&link.0)
        {
            // The last removal of a name counts: when it is on the backing, so are those before.
            dir.whiteouts.insert(link.1.clone(), seq);
        }
    }
}

impl Names {
    fn entry(&self, parent: Ino, name: &[u8]) -> Result<Entry> {
        self.dirs.get(&parent).ok_or(Error::NotDirectory)?.get(name).ok_or(Error::NotFound)
    }

    /// A removed directory takes no new entries.
    fn alive(&self, dir: Ino) -> Result<()> {
        let inode = self.inode(dir).ok_or(Error::NotFound)?;
        if dir != Ino::ROOT && inode.state.lock().place.is_none() { Err(Error::NotFound) } else { Ok(()) }
    }

    /// Enters a name and dates its directory.
    fn enter(&mut self, link: &Link, ino: Ino, kind: Kind) {
        if let Some(dir) = self.dirs.get_mut(&link.0) {
            // A whiteout of the same name stays until the removal is on the backing: this entry may go before that.
            dir.touch(&link.1);
            dir.insert(link.1.clone(), ino, kind);
        }
        self.date(link.0, kind, 1);
    }

    /// Takes a name away and dates its directory.
    fn leave(&mut self, link: &Link, kind: Kind) {
        if let Some(dir) = self.dirs.get_mut(&link.0) {
            dir.touch(&link.1);
            dir.remove(&link.1);
        }
        self.date(link.0, kind, -1);
    }

    fn date(&self, dir: Ino, kind: Kind, subdirectories: i32) {
        if let Some(inode) = self.inode(dir) {
            let mut state = inode.state.lock();
            let now = now_after(state.attr.ctime);
            (state.attr.mtime, state.attr.ctime) = (now, now);
            state.attr_dirty = true;
            if kind == Kind::Directory {
                state.attr.nlink = state.attr.nlink.saturating_add_signed(subdirectories).max(2);
            }
        }
    }

    /// Whether `dir` is `ancestor` or below it.
    fn is_below(&self, dir: Ino, ancestor: Ino) -> bool {
        let mut at = dir;
        loop {
            if at == ancestor {
                return true;
            }
            if at == Ino::ROOT {
                return false;
            }
            match self.inode(at).and_then(|inode| inode.state.lock().place.clone()) {
                Some((parent, _)) => at = parent,
                None => return false,
            }
        }
    }

    /// Known directories below `dir`.
    pub(crate) fn directories_below(&self, dir: Ino) -> Vec<Ino> {
        let (mut found, mut stack) = (Vec::new(), vec![dir]);
        while let Some(at) = stack.pop() {
            let Some(dir) = self.dirs.get(&at) else { continue };
            if dir.subdirectories > 0 {
                let below: Vec<Ino> =
                    dir.names().filter(|(_, e)| e.kind == Kind::Directory).map(|(_, e)| e.ino).collect();
                found.extend(&below);
                stack.extend(below);
            }
        }
        found
    }
}

impl crate::namespace::InodeState {
    fn lose_name(&mut self, link: &Link, kind: Kind) {
        if kind == Kind::Directory {
            self.place = None;
        }
        self.attr.nlink = if kind == Kind::Directory { 0 } else { self.attr.nlink.saturating_sub(1) };
        self.attr.ctime = now_after(self.attr.ctime);
        if self.place.as_ref() == Some(link) {
            // Another name of a file with several is not remembered here: it is found again by its lookup.
            self.place = None;
        }
    }
}
