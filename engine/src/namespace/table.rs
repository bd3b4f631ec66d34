//! All inodes and directories that are known, and the numbers given to objects of the backing.

use super::{Dir, Expected, Inode, Link};
use crate::backing::BackingId;
use crate::ids::Ino;
use rustc_hash::FxHashMap;
use std::sync::Arc;

/// The tables behind the namespace lock.
#[derive(Debug, Default)]
pub struct Names {
    /// Inodes in memory.
    pub inodes: FxHashMap<Ino, Arc<Inode>>,
    /// Entries of the directories among them.
    pub dirs: FxHashMap<Ino, Dir>,
    /// Numbers given to objects of the backing, so that they keep them when the inode is dropped and found again.
    numbers: FxHashMap<BackingId, Ino>,
    next: u64,
}

impl Names {
    /// Empty tables; numbers start behind the root's.
    pub fn new() -> Names {
        Names { next: Ino::ROOT.0 + 1, ..Names::default() }
    }

    /// A number never used before.
    pub fn new_ino(&mut self) -> Ino {
        let ino = Ino(self.next);
        self.next += 1;
        ino
    }

    /// The last number that was given out.
    pub fn last_ino(&self) -> Ino {
        Ino(self.next - 1)
    }

    /// Keeps numbers up to and including `ino` from being given out.
    pub fn reserve(&mut self, ino: Ino) {
        self.next = self.next.max(ino.0 + 1);
    }

    /// The number of an object of the backing, given on first sight.
    pub fn ino_of(&mut self, id: BackingId) -> Ino {
        if let Some(&ino) = self.numbers.get(&id) {
            return ino;
        }
        let ino = self.new_ino();
        self.numbers.insert(id, ino);
        ino
    }

    /// The number of an object of the backing, if it was given one.
    pub fn number_of(&self, id: BackingId) -> Option<Ino> {
        self.numbers.get(&id).copied()
    }

    /// All of them.
    pub fn numbers(&self) -> impl ExactSizeIterator<Item = (BackingId, Ino)> {
        self.numbers.iter().map(|(&id, &ino)| (id, ino))
    }

    /// Remembers which object of the backing an inode became.
    pub fn bind(&mut self, id: BackingId, ino: Ino) {
        self.numbers.insert(id, ino);
    }

    /// Forgets an object that the backing no longer has: its number there may be given to another.
    pub fn unbind(&mut self, id: BackingId, ino: Ino) {
        if self.numbers.get(&id) == Some(&ino) {
            self.numbers.remove(&id);
        }
    }

    /// Forgets a number, whoever has it.
    pub fn forget_number(&mut self, id: BackingId) {
        self.numbers.remove(&id);
    }

    /// The names of an inode in the directories that are known: a search through all of them.
    pub fn links_of(&self, ino: Ino) -> Vec<Link> {
        let entries =
            self.dirs.iter().flat_map(|(&dir, entries)| entries.names().map(move |entry| (dir, entry)));
        entries
            .filter(|(_, (_, entry))| entry.ino == ino)
            .map(|(dir, (name, _))| (dir, name.clone()))
            .collect()
    }

    /// What a file `name` in `parent` will probably hold: by its siblings, else by files of such a name in the
    /// directories beside `parent`.
    pub fn expected_size(&self, parent: Ino, name: &[u8]) -> Expected {
        let expected = self.dirs.get(&parent).map_or(Expected::Unknown, |dir| dir.expected_size(name));
        match (expected, self.above(parent)) {
            (Expected::Like(_), _) | (_, None) => expected,
            (_, Some(above)) => above.expected_size_below(name).map_or(expected, Expected::Like),
        }
    }

    /// Learns what a file `name` in `parent` held when it was closed.
    pub fn learn_size(&mut self, parent: Ino, name: &[u8], size: u64) {
        if let Some(dir) = self.dirs.get_mut(&parent) {
            dir.learn_size(name, size);
        }
        let above = self.parent_of(parent);
        if let Some(above) = above.and_then(|above| self.dirs.get_mut(&above)) {
            above.learn_size_below(name, size);
        }
    }

    fn above(&self, dir: Ino) -> Option<&Dir> {
        self.dirs.get(&self.parent_of(dir)?)
    }

    fn parent_of(&self, dir: Ino) -> Option<Ino> {
        if dir == Ino::ROOT {
            return None;
        }
        self.inode(dir)?.state.lock().place.as_ref().map(|(parent, _)| *parent)
    }

    /// The inode, if it is known.
    pub fn inode(&self, ino: Ino) -> Option<&Arc<Inode>> {
        self.inodes.get(&ino)
    }
}
