//! One thread at a time for each inode, for as long as it holds the inode's turn.

use crate::ids::Ino;
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashSet;

/// The inodes whose turn somebody has.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    taken: Mutex<FxHashSet<Ino>>,
    ended: Condvar,
}

/// The right to work on one inode; given back when dropped.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    turns: &'t Turns,
    ino: Ino,
}

impl Turns {
    /// Waits until nobody else has `ino`'s. Take no lock before.
    pub fn take(&self, ino: Ino) -> Turn<'_> {
        let mut taken = self.taken.lock();
        while !taken.insert(ino) {
            self.ended.wait(&mut taken);
        }
        Turn { turns: self, ino }
    }
}

impl Turn<'_> {
    /// Whose it is.
    pub fn ino(&self) -> Ino {
        self.ino
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.taken.lock().remove(&self.ino);
        self.turns.ended.notify_all();
    }
}
