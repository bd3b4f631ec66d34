//! What the engine tells about itself.

use super::sync::Backlog;
use super::{CacheCounts, Engine};
use crate::attr::Kind;
use crate::backing::{Outstanding, Room};
use crate::error::Result;
use crate::fetch::{Fetched, Pace};
use crate::ids::Ino;
use crate::namespace::{OpenMode, Place};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A snapshot.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// See [`Backlog`].
    pub backlog: Backlog,
    /// Arena blocks in bytes, now and at most.
    pub used: u64,
    /// The most held.
    pub peak: u64,
    /// The most memory of the process without files, and of it and the arena at one time; 0 where nobody looks.
    pub peak_process: u64,
    /// See `peak_process`.
    pub peak_together: u64,
    /// The budget.
    pub budget: u64,
    /// The most to be held now: the budget, or less while the machine is short.
    pub ceiling: u64,
    /// Files that moved to the backing while they were written.
    pub spilled: u64,
    /// Age of the oldest change that waits.
    pub oldest: Duration,
    /// Bytes written to the backing, in all and a second.
    pub written: u64,
    /// Over the last second or so.
    pub rate: f64,
    /// Of those in all, what went past the page cache: from the arena by io_uring and O_DIRECT.
    pub written_direct: u64,
    /// Changes that cancelled out.
    pub cancelled: u64,
    /// Conflicts kept aside.
    pub conflicts: u64,
    /// Changes and files that are being retried.
    pub failing: u64,
    /// The last failure.
    pub last_error: Option<String>,
    /// Inodes known.
    pub known: u64,
    /// Objects of the backing that keep their inode numbers, known or not.
    pub numbers: u64,
    /// Open handles.
    pub open: u64,
    /// Files with writers behind their last close.
    pub lingering: u64,
    /// Bytes of the journal.
    pub journal: u64,
}

/// A file in use.
#[derive(Debug, Clone)]
pub struct BusyFile {
    /// Relative to the root.
    pub path: Vec<u8>,
    /// Open handles.
    pub handles: u64,
    /// Writers or mappings behind the last close.
    pub mapped: bool,
    /// Device and inode of the file that mappings show: the arena's, or the backing's.
    pub arena: Option<(u64, u64)>,
}

impl Engine {
    /// A snapshot.
    pub fn status(&self) -> Status {
        let backlog = self.backlog();
        let dirty = self.drain.dirty_inodes();
        let oldest_dirty = dirty.iter().map(|(_, due)| due.since).min();
        let oldest = self.oplog.oldest().into_iter().chain(oldest_dirty).min();
        let failing = self.oplog.failing() + dirty.iter().filter(|(_, due)| due.failures > 0).count();
        let lingering = dirty
            .iter()
            .filter_map(|(ino, _)| self.inode(*ino).ok())
            .filter(|inode| {
                let mut state = inode.state.lock();
                self.ask_again(inode.ino, &mut state);
                state.file.lingering
            })
            .count();
        let (known, numbers) = {
            let names = self.names.lock();
            (names.inodes.len() as u64, names.numbers().len() as u64)
        };
        Status {
            backlog,
            used: self.arena.used_bytes(),
            peak: self.arena.peak_bytes(),
            peak_process: self.peaks.process.load(Ordering::Relaxed),
            peak_together: self.peaks.together.load(Ordering::Relaxed),
            budget: self.arena.budget_bytes(),
            ceiling: self.arena.ceiling_bytes(),
            spilled: self.spills.moved(),
            oldest: oldest.map_or(Duration::ZERO, |at| at.elapsed()),
            written: self.drain.written.load(Ordering::Relaxed),
            written_direct: self.drain.written_direct.load(Ordering::Relaxed),
            rate: self.drain.rate.lock().map_or(0.0, |rate| rate.2),
            cancelled: self.drain.cancelled.load(Ordering::Relaxed),
            conflicts: self.drain.conflicts.load(Ordering::Relaxed),
            failing: failing as u64,
            last_error: self.drain.last_error(),
            known,
            numbers,
            open: self.open_handles.load(Ordering::Relaxed),
            lingering: lingering as u64,
            journal: self.journal.bytes(),
        }
    }

    /// Clean files that could be evicted, and their bytes.
    pub fn evictable(&self) -> (u64, u64) {
        let cache = self.cache.lock();
        (cache.len() as u64, cache.bytes())
    }

    /// See [`CacheCounts`].
    pub fn cache_counts(&self) -> CacheCounts {
        *self.cache_counts.lock()
    }

    /// Files that wait to be fetched or are being fetched, and the bytes of the latter.
    pub fn fetching(&self) -> (u64, u64) {
        self.fetcher.under_way()
    }

    /// What was fetched, by the word of its cause.
    pub fn fetched(&self) -> Vec<(&'static str, Fetched)> {
        self.fetcher.counts()
    }

    /// How fast the backing was seen to be.
    pub fn pace(&self) -> Pace {
        self.fetcher.pace()
    }

    /// The oldest call on the backing that has not come back.
    pub fn outstanding(&self) -> Option<Outstanding> {
        self.calls.oldest()
    }

    /// Bytes written to the backing since the start.
    pub fn written(&self) -> u64 {
        self.drain.written.load(Ordering::Relaxed)
    }

    /// Files that are open, or mapped after their close.
    pub fn busy(&self) -> Vec<BusyFile> {
        let inodes: Vec<_> = self.names.lock().inodes.values().cloned().collect();
        let mut busy = Vec::new();
        for inode in inodes.iter().filter(|inode| inode.kind == Kind::File) {
            let mut state = inode.state.lock();
            let handles = u64::from(state.file.handles());
            let content =
                (state.file.place == Place::Arena).then(|| self.arena.open_read(inode.ino).ok()).flatten();
            self.ask_again(inode.ino, &mut state);
            let mapped = state.file.lingering;
            let on_backing = state.file.mapped.clone();
            let daemon = matches!(state.file.epoch.as_ref().map(|e| &e.mode), Some(OpenMode::Daemon(_)));
            drop(state);
            if handles > 0 || mapped {
                let arena = content.filter(|_| !daemon).and_then(|content| Some(content.stat().ok()?.id));
                let arena = arena.or_else(|| Some(super::stat_of_file(on_backing.as_ref()?).ok()?.id));
                busy.push(BusyFile {
                    path: self.path_of(inode.ino).unwrap_or_default(),
                    handles,
                    mapped,
                    arena,
                });
            }
        }
        busy
    }

    /// Paths whose content, attributes or name the backing does not have.
    pub fn pending_paths(&self) -> Vec<Vec<u8>> {
        let mut inos: Vec<Ino> = self.drain.dirty_inodes().into_iter().map(|(ino, _)| ino).collect();
        inos.extend(self.oplog.snapshot().iter().flat_map(|op| op.change.objects()));
        inos.sort_unstable();
        inos.dedup();
        let mut paths: Vec<_> =
            inos.into_iter().filter(|ino| *ino != Ino::ROOT).filter_map(|ino| self.path_of(ino)).collect();
        paths.sort();
        paths
    }

    /// Room on the backing, less what waits to be written there.
    pub fn room(&self) -> Result<Room> {
        let mut room = self.backing.room()?;
        let pending = self.drain_bytes_estimate() / room.block_bytes.max(1);
        room.free = room.free.saturating_sub(pending);
        room.available = room.available.saturating_sub(pending);
        Ok(room)
    }

    /// Dirty bytes as last known, without asking each file.
    fn drain_bytes_estimate(&self) -> u64 {
        let inodes: Vec<_> = {
            let names = self.names.lock();
            self.drain.dirty_inodes().iter().filter_map(|(ino, _)| names.inode(*ino).cloned()).collect()
        };
        inodes
            .iter()
            .map(|inode| {
                let state = inode.state.lock();
                // What is on the backing already is counted there.
                if state.file.dirty && !state.file.place.is_on_backing() {
                    state.attr.size.saturating_sub(state.baseline().map_or(0, |b| b.size))
                } else {
                    0
                }
            })
            .sum()
    }
}
