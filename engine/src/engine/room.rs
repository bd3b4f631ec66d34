//! Keeping the arena inside its budget: promises to writers, eviction of what is clean, and moving a file that is
//! served by the daemon to the backing while it is open.
//!
//! Eviction takes the files that were closed longest ago, and of those only what the backing has exactly, that nobody
//! has open and nobody maps (the arena file's write lease says so). Which policy would be better is an issue of its
//! own.

use super::Engine;
use crate::attr::Kind;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Inode, OpenMode, Place};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Cold files up to this size are fetched whole before they are written; larger ones are changed on the backing.
pub const PROMOTE_BYTES_MAX: u64 = 64 << 20;
/// Evicted beyond what is needed, so that not every open has to evict.
const SPARE_BYTES: u64 = 32 << 20;

impl Engine {
    /// Sets `bytes` of the arena aside for a writer; false where they can't be had.
    pub(super) fn promise(&self, bytes: u64) -> bool {
        if bytes > 0 && !self.make_room(bytes) {
            return false;
        }
        self.reserved.fetch_add(bytes, Ordering::Relaxed);
        true
    }

    pub(super) fn promise_ended(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Whether `bytes` more fit into the budget, after evicting where that helps. Call with no lock held.
    pub(crate) fn make_room(&self, bytes: u64) -> bool {
        let wanted = bytes.saturating_add(self.reserved.load(Ordering::Relaxed));
        if wanted <= self.arena.free_bytes() {
            return true;
        }
        if bytes <= self.arena.budget_bytes() {
            self.evict(wanted.saturating_add(SPARE_BYTES).saturating_sub(self.arena.free_bytes()));
        }
        wanted <= self.arena.free_bytes()
    }

    /// Evicts at least `bytes`, if that much is clean and unused.
    pub(crate) fn evict(&self, bytes: u64) {
        let files: Vec<Arc<Inode>> =
            self.names.lock().inodes.values().filter(|inode| inode.kind == Kind::File).cloned().collect();
        let mut candidates: Vec<(Option<Instant>, Arc<Inode>)> = files
            .into_iter()
            .filter_map(|inode| {
                // One that is locked is in use.
                let state = inode.state.try_lock()?;
                let clean =
                    state.file.place == Place::Arena && !state.file.dirty && state.file.epoch.is_none();
                let used = state.file.used;
                drop(state);
                clean.then_some((used, inode))
            })
            .collect();
        candidates.sort_by_key(|(used, _)| *used);
        let mut freed = 0;
        for (_, inode) in candidates {
            if freed >= bytes {
                break;
            }
            freed += self.evict_file(&inode);
        }
    }

    /// Evicts one file, if it is clean and unused; returns the bytes given back.
    fn evict_file(&self, inode: &Inode) -> u64 {
        let Some(mut state) = inode.state.try_lock() else { return 0 };
        let file = &state.file;
        if file.place != Place::Arena || file.dirty || file.epoch.is_some() || state.drained.is_empty() {
            return 0;
        }
        let Ok(content) = self.arena.open_read(inode.ino) else { return 0 };
        let Ok(stat) = content.stat() else { return 0 };
        if file.clean != Some(stat.stamp) || !content.unused() {
            return 0;
        }
        self.arena.remove(inode.ino);
        state.file.place = Place::Backing;
        state.file.clean = None;
        state.file.chunks = None;
        stat.blocks * 512
    }

    /// Moves an open file that the daemon serves from the arena to the backing, content first. Its handles go on.
    pub(super) fn move_to_backing(&self, ino: Ino) -> Result<()> {
        let inode = self.inode(ino)?;
        if inode.state.lock().nameless() {
            // Nothing on the backing to move to: it lives in the arena until its last close.
            return Err(Error::NotFound);
        }
        self.apply_names_of(ino)?;
        self.settle(&inode, false)?;
        let _turn = self.drain.turn(ino);
        let (file, path) = {
            let _shape = self.shape.read_recursive();
            let path = self.drained_path(ino)?;
            (Arc::new(self.backing.open_write(&path, crate::backing::Owner::ROOT)?), path)
        };
        let mut state = inode.state.lock();
        let Some(epoch) = &mut state.file.epoch else { return Ok(()) };
        let OpenMode::Daemon(arena_file) = &epoch.mode else { return Err(Error::NotFound) };
        // What was written since the content was settled: compare sizes and copy the rest under the lock.
        copy_difference(arena_file, &file)?;
        epoch.mode = OpenMode::Daemon(file.clone());
        state.file.place = Place::Backing;
        state.file.chunks = None;
        state.file.know(&super::attrs::stat_of_file(&file)?);
        // What was just written there is our own doing.
        let now = self.backing.stat(&path)?;
        state.set_baseline(Some(super::baseline(&now)));
        self.journal.dirty(ino, &state);
        self.arena.remove(ino);
        drop(state);
        Ok(())
    }
}

/// Makes `to` equal `from`, writing only what differs.
fn copy_difference(from: &std::fs::File, to: &std::fs::File) -> Result<()> {
    use std::os::unix::fs::FileExt;
    const STEP_BYTES: usize = 1 << 20;
    let size = from.metadata()?.len();
    let (mut a, mut b) = (vec![0; STEP_BYTES], vec![0; STEP_BYTES]);
    let mut at = 0;
    while at < size {
        let n = STEP_BYTES.min((size - at) as usize);
        from.read_exact_at(&mut a[..n], at)?;
        let same = to.read_exact_at(&mut b[..n], at).is_ok() && a[..n] == b[..n];
        if !same {
            to.write_all_at(&a[..n], at)?;
        }
        at += n as u64;
    }
    to.set_len(size)?;
    Ok(())
}
