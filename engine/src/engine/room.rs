//! Keeping the arena inside its budget: promises to writers, and eviction of what is clean.
//!
//! Eviction takes files in the order of [`crate::cache::S3Fifo`], and of those only what the backing has exactly, that
//! nobody has open, nobody maps (the arena file's write lease says so) and nobody pinned. A file enters that order when
//! it becomes clean or is fetched, and leaves it when it is opened for writing: what can't go isn't asked for.

use super::Engine;
use crate::arena::ArenaStat;
use crate::failpoint;
use crate::ids::Ino;
use crate::namespace::{Inode, InodeState, Place};
use std::sync::atomic::Ordering;

/// Cold files up to this size are fetched whole before they are written; larger ones are changed on the backing.
pub const PROMOTE_BYTES_MAX: u64 = 64 << 20;
/// Evicted beyond what is needed, so that not every open has to evict: one part in so many of the budget, and at most
/// so much.
const SPARE_PART: u64 = 64;
const SPARE_BYTES_MAX: u64 = 32 << 20;

/// What left the arena.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Opens for reading of files that were in memory.
    pub hits: u64,
    /// Of files that were not.
    pub misses: u64,
    /// Files evicted to make room.
    pub evicted_files: u64,
    /// Bytes that this gave back.
    pub evicted_bytes: u64,
}

impl Engine {
    /// Sets `bytes` of the arena aside for a writer or a fetch; false where they can't be had.
    pub(crate) fn promise(&self, bytes: u64) -> bool {
        if bytes > self.arena.ceiling_bytes() {
            return false;
        }
        // At once, so that of two who see the same room one gets it.
        let take = || {
            let free = self.arena.free_bytes();
            let more = |reserved: u64| reserved.checked_add(bytes).filter(|&all| bytes == 0 || all <= free);
            self.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
        };
        take() || (self.make_room(bytes) && take())
    }

    pub(crate) fn promise_ended(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` more fit into the budget, after evicting where that helps. Call with no lock held.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(self.reserved.load(Ordering::Relaxed));
        if wanted <= self.arena.free_bytes() {
            return true;
        }
        if bytes <= self.arena.ceiling_bytes() {
            let spare = (self.arena.ceiling_bytes() / SPARE_PART).min(SPARE_BYTES_MAX);
            self.evict(wanted.saturating_add(spare).saturating_sub(self.arena.free_bytes()));
        }
        wanted <= self.arena.free_bytes()
    }

    /// Evicts at least `bytes`, if that much is clean and unused.
    pub(crate) fn evict(&self, bytes: u64) {
        // What was fetched ahead and is still to be opened goes when nothing else can.
        let freed = self.evict_sparing(bytes, |ino| self.awaited.lock().contains(&ino));
        if freed < bytes {
            self.evict_sparing(bytes - freed, |_| false);
        }
    }

    fn evict_sparing(&self, bytes: u64, spared: impl Fn(Ino) -> bool) -> u64 {
        let mut freed = 0;
        while freed < bytes {
            let victim = self.cache.lock().victim(&mut |key| !spared(Ino(key)) && self.may_leave(Ino(key)));
            let Some((key, size)) = victim else { break };
            let given_back = self.inode(Ino(key)).map_or(0, |inode| self.evict_file(&inode));
            if given_back > 0 {
                freed += given_back;
                let mut counts = self.cache_counts.lock();
                (counts.evicted_files, counts.evicted_bytes) =
                    (counts.evicted_files + 1, counts.evicted_bytes + given_back);
            } else if self.inode(Ino(key)).is_ok_and(|inode| inode.state.lock().file.place == Place::Arena) {
                // Opened between the question and the deed.
                self.cache.lock().admit(key, size);
            }
        }
        freed
    }

    /// Whether a file could be evicted now; also one that is not in memory any more, to get it out of the way.
    fn may_leave(&self, ino: Ino) -> bool {
        if self.pinned.lock().contains(&ino) {
            return false;
        }
        let Ok(inode) = self.inode(ino) else { return true };
        // One that is locked is in use.
        let Some(state) = inode.state.try_lock() else { return false };
        state.file.place != Place::Arena || self.clean_and_unused(&inode, &state).is_some()
    }

    /// The state of a file's content, if the backing has exactly this and nobody uses it.
    pub(super) fn clean_and_unused(&self, inode: &Inode, state: &InodeState) -> Option<ArenaStat> {
        let file = &state.file;
        if file.place != Place::Arena || file.dirty || file.epoch.is_some() || state.drained.is_empty() {
            return None;
        }
        let content = self.arena.open_read(inode.ino).ok()?;
        let stat = content.stat().ok()?;
        (file.clean == Some(stat.stamp) && content.unused()).then_some(stat)
    }

    /// Evicts one file, if it is clean and unused; returns the bytes given back.
    pub(super) fn evict_file(&self, inode: &Inode) -> u64 {
        let Some(mut state) = inode.state.try_lock() else { return 0 };
        let Some(stat) = self.clean_and_unused(inode, &state) else { return 0 };
        self.journal.cached(inode.ino, false);
        failpoint::pass("before", "evicted");
        self.arena.remove(inode.ino);
        self.arena.moved(0, stat.blocks * 512);
        state.file.place = Place::Backing;
        state.file.clean = None;
        state.file.chunks = None;
        drop(state);
        self.awaited.lock().remove(&inode.ino);
        self.went_out(inode.ino);
        // Of an empty file nothing comes back, but it went.
        (stat.blocks * 512).max(1)
    }

    /// A file is in memory and clean: from here on it may be evicted. Call with no lock held.
    pub(crate) fn may_be_evicted(&self, ino: Ino, bytes: u64) {
        self.cache.lock().admit(ino.0, bytes);
        self.copy_ahead_if_short();
    }

    /// A file was opened: it stays longer, or will be changed and is asked for no more.
    pub(super) fn used(&self, ino: Ino, write: bool) {
        self.awaited.lock().remove(&ino);
        if write {
            self.cache.lock().forget(ino.0);
        } else if let Some(mut cache) = self.cache.try_lock() {
            // An eviction under way is not worth waiting for.
            cache.hit(ino.0);
        }
    }

    /// A file is gone.
    pub(super) fn left_for_good(&self, ino: Ino) {
        self.cache.lock().forget(ino.0);
        if let Some(tier) = self.tier.get() {
            tier.forget(ino);
        }
        self.pinned.lock().remove(&ino);
        self.awaited.lock().remove(&ino);
    }
}
