//! What survives the death of the daemon: every change and every dirty file, written to memory that outlives the
//! process before it is answered.

use crate::ids::{Ino, Seq};
use crate::namespace::{InodeState, Link, Names};
use crate::oplog::Change;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    bytes: AtomicU64,
}

impl Journal {
    /// One that keeps nothing.
    pub fn none() -> Journal {
        Journal::default()
    }
    pub(crate) fn made(&self, _ino: Ino, _link: &Link, _state: &InodeState) {}
    pub(crate) fn context(&self, _names: &Names, _change: &Change) {}
    pub(crate) fn changed(&self, _seq: Seq, _change: &Change) {}
    pub(crate) fn attributes(&self, _ino: Ino, _state: &InodeState) {}
    pub(crate) fn dirty(&self, _ino: Ino, _state: &InodeState) {}
    pub(crate) fn clean(&self, _ino: Ino) {}
    pub(crate) fn cancelled(&self, _ino: Ino) {}
    pub(crate) fn done(&self, _seq: Seq) {}
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
