//! Removed objects that are kept for the kernel, which may know nothing of them.
//!
//! A reference is counted before the answer that gives it, and counted again where the next daemon gives that answer; what the
//! kernel gives back in a message that a daemon read and did not live to work on is given back to nobody. So after a death
//! counts may be too high, never too low, and what was removed would stay, with its memory, until the unmount. Who took over
//! notes what nothing but references holds; the file system above asks the kernel whether it knows it, and if not, takes the
//! references back ([`Engine::forget`]).

use super::Engine;
use crate::ids::Ino;
use crate::namespace::InodeState;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Since when each has been held by nothing else; not there before a daemon took over.
#[derive(Debug, Default)]
pub(crate) struct Unforgotten(OnceLock<Mutex<FxHashMap<Ino, Instant>>>);

impl Unforgotten {
    /// Nothing else needs the object: it is noted if references hold it.
    pub(super) fn note(&self, ino: Ino, state: &InodeState) {
        if let Some(noted) = self.0.get()
            && is_held_by_references_alone(state)
        {
            noted.lock().entry(ino).or_insert_with(Instant::now);
        }
    }

    /// The object is gone.
    pub(super) fn dropped(&self, ino: Ino) {
        if let Some(noted) = self.0.get() {
            noted.lock().remove(&ino);
        }
    }
}

fn is_held_by_references_alone(state: &InodeState) -> bool {
    let in_use = state.pending > 0 || state.file.epoch.is_some() || state.settling;
    state.nameless() && state.lookups > 0 && !in_use
}

impl Engine {
    /// Begins to note them, those that are there already first: a daemon died before this one.
    pub fn note_unforgotten(&self) {
        self.unforgotten.0.get_or_init(Mutex::default);
        let inodes: Vec<_> = self.names.lock().inodes.values().cloned().collect();
        for inode in inodes {
            self.unforgotten.note(inode.ino, &inode.state.lock());
        }
    }

    /// Removed objects that references alone have held for `age` or longer, at most `most`. Those that are returned count
    /// from zero again.
    pub fn unforgotten(&self, age: Duration, most: usize) -> Vec<Ino> {
        let Some(noted) = self.unforgotten.0.get() else { return Vec::new() };
        let old: Vec<Ino> = {
            let noted = noted.lock();
            noted.iter().filter(|(_, since)| since.elapsed() >= age).map(|(ino, _)| *ino).take(most).collect()
        };
        let mut held = Vec::new();
        for ino in old {
            let alone = self.inode(ino).is_ok_and(|inode| is_held_by_references_alone(&inode.state.lock()));
            let mut noted = noted.lock();
            if alone {
                noted.insert(ino, Instant::now());
                held.push(ino);
            } else {
                // Gone, or in use: whoever uses it last notes it again.
                noted.remove(&ino);
            }
        }
        held
    }
}
