//! The drain: brings the backing after the namespace in memory, in the order that a crash must not break.
//!
//! 1. `names`: a thread applies changes of names from the operation log, oldest first, each after what it depends on.
//!    Before a rename or link does, the content of what it names is durable.
//! 2. `content`: threads copy the content of files that rest (closed, or open for long) and whose name is on the
//!    backing. What was replaced whole is written beside and renamed; what was changed is changed in place.
//! 3. `sched`: decides four times a second what is due, asks files with mappings whether they are quiet now, and
//!    keeps the arena inside its budget.
//!
//! Failures keep the data, are retried with growing pauses, and show in status and in the next fsync.

mod attributes;
mod content;
mod in_place;
mod names;
mod sched;
mod turns;
mod unnamed;

pub(crate) use content::BESIDE_PREFIX;
pub(crate) use turns::{Turn, Turns};

use crate::engine::Engine;
use crate::error::Error;
use crate::ids::Ino;
use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// First pause after a failure; doubles up to the longest.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest rest of a thread that has nothing to do: each wake-up costs some 30 us, and an idle mount should cost nothing.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(2);
/// Longest pause between two tries: a backing that comes back is noticed within this.
pub(crate) const RETRY_MAX: Duration = Duration::from_secs(5);

/// State shared by the drain's threads.
#[derive(Debug, Default)]
pub struct Drain {
    /// Inodes whose content or attributes the backing doesn't have.
    dirty: Mutex<FxHashMap<Ino, Due>>,
    /// Inodes that a thread is working on, one at a time each.
    turns: Turns,
    /// Directories with changes that are applied but not yet synced.
    unsynced: Mutex<FxHashSet<Ino>>,
    /// Callers that wait for everything: the drain delay doesn't count then.
    pub(crate) urgent: AtomicUsize,
    /// Bytes written to the backing.
    pub(crate) written: AtomicU64,
    /// Of them, those that went past the page cache.
    pub(crate) written_direct: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    last_error: Mutex<Option<String>>,
    full: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Written bytes a while ago, for the rate.
    pub(crate) rate: Mutex<Option<(Instant, u64, f64)>>,
    wake: Condvar,
    wake_lock: Mutex<()>,
}

/// When a dirty inode is to be worked on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// When it became dirty.
    pub since: Instant,
    /// Not before this.
    pub at: Option<Instant>,
    /// Failures so far; growth of the pause ends long before this does.
    pub failures: u16,
    /// A thread has it.
    pub queued: bool,
}

impl Drain {
    /// Waits until nobody else works on `ino`'s content. Take no lock before.
    pub(crate) fn turn(&self, ino: Ino) -> Turn<'_> {
        self.turns.take(ino)
    }

    /// Puts `ino` on the list of what must reach the backing.
    pub(crate) fn mark(&self, ino: Ino) {
        let now = Instant::now();
        let mut dirty = self.dirty.lock();
        let first = dirty.is_empty();
        dirty.entry(ino).or_insert(Due { since: now, at: None, failures: 0, queued: false });
        drop(dirty);
        if first {
            self.wake();
        }
    }

    /// Whether nothing waits.
    pub(crate) fn is_clean(&self) -> bool {
        self.dirty.lock().is_empty()
    }

    /// A thread is through with `ino`: `settled`, or to be tried again at `again`. The inode is locked.
    pub(crate) fn tried(&self, ino: Ino, settled: bool, again: Instant) {
        self.full.store(false, Ordering::Relaxed);
        let mut dirty = self.dirty.lock();
        if settled {
            dirty.remove(&ino);
        } else if let Some(due) = dirty.get_mut(&ino) {
            (due.queued, due.failures, due.at) = (false, 0, Some(again));
        }
    }

    /// A thread failed with `ino`: again, after a pause that grows.
    pub(crate) fn failed(&self, ino: Ino) {
        if let Some(due) = self.dirty.lock().get_mut(&ino) {
            due.queued = false;
            due.failures = due.failures.saturating_add(1);
            due.at =
                Some(Instant::now() + (RETRY_FIRST * (1 << u32::from(due.failures.min(5)))).min(RETRY_MAX));
        }
    }

    /// When `ino` became dirty, if it is.
    pub(crate) fn dirty_since(&self, ino: Ino) -> Option<Instant> {
        self.dirty.lock().get(&ino).map(|due| due.since)
    }

    pub(crate) fn unmark(&self, ino: Ino) {
        self.dirty.lock().remove(&ino);
    }

    /// A file without names whose changes are all applied has nothing to be drained.
    pub(crate) fn unmark_if_nameless(&self, engine: &Engine, ino: Ino) {
        let nameless = engine.inode(ino).is_ok_and(|inode| {
            let state = inode.state.lock();
            state.nameless() && (state.pending == 0 || state.drained.is_empty())
        });
        if nameless {
            self.unmark(ino);
        }
    }

    /// The inode is gone.
    pub(crate) fn forget(&self, ino: Ino) {
        self.unmark(ino);
        self.unsynced.lock().remove(&ino);
    }

    pub(crate) fn count_cancelled(&self, changes: u64) {
        self.cancelled.fetch_add(changes, Ordering::Relaxed);
    }

    pub(crate) fn dirty_inodes(&self) -> Vec<(Ino, Due)> {
        self.dirty.lock().iter().map(|(ino, due)| (*ino, *due)).collect()
    }

    /// Remembers a failure for status and log.
    pub(crate) fn report(&self, sentence: String) {
        log::warn!("{sentence}");
        *self.last_error.lock() = Some(sentence);
    }

    /// Remembers whether a failure means that there is no room, or no right to write.
    pub(crate) fn note(&self, error: &Error) {
        let full = matches!(error, Error::Io(e) if matches!(
            e.raw_os_error(),
            Some(libc::ENOSPC | libc::EDQUOT | libc::EROFS)
        ));
        self.full.store(full, Ordering::Relaxed);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.last_error.lock().clone()
    }

    /// Wakes the scheduler.
    pub(crate) fn wake(&self) {
        self.wake.notify_all();
    }

    fn rest(&self, time: Duration) {
        let mut guard = self.wake_lock.lock();
        self.wake.wait_for(&mut guard, time);
    }

    pub(crate) fn unsynced(&self, dir: Ino) {
        self.unsynced.lock().insert(dir);
    }

    pub(crate) fn take_unsynced(&self, dir: Ino) -> bool {
        self.unsynced.lock().remove(&dir)
    }
}

impl Engine {
    /// Starts the threads: of the drain, of the fetcher, and of who predicts.
    pub fn start(self: &Arc<Engine>) {
        let (due, work) = crossbeam_channel::unbounded::<Ino>();
        let mut threads = self.drain.threads.lock();
        let mut spawn = |name: &str, run: Box<dyn FnOnce(Arc<Engine>) + Send>| {
            let engine = self.clone();
            if let Ok(thread) = std::thread::Builder::new().name(name.into()).spawn(move || run(engine)) {
                threads.push(thread);
            }
        };
        spawn("drain-names", Box::new(|engine| engine.run_names()));
        for _ in 0..content::THREADS {
            let work = work.clone();
            spawn("drain-content", Box::new(move |engine| engine.run_content(&work)));
        }
        spawn("drain-sched", Box::new(move |engine| engine.run_scheduler(&due)));
        for _ in 0..crate::fetch::THREADS {
            spawn("fetch", Box::new(|engine| engine.run_fetcher()));
        }
        let spills = self.spills.start();
        for _ in 0..crate::engine::SPILL_THREADS {
            let spills = spills.clone();
            spawn("spill", Box::new(move |engine| engine.run_spills(&spills)));
        }
        let write_outs = self.write_outs.start();
        for _ in 0..crate::engine::WRITE_OUT_THREADS {
            let write_outs = write_outs.clone();
            spawn("write-out", Box::new(move |engine| engine.run_write_outs(&write_outs)));
        }
        spawn("follow", Box::new(|engine| engine.run_follow()));
        spawn("outgrown", Box::new(|engine| engine.run_outgrown()));
        if self.predicts() {
            spawn("foresight", Box::new(|engine| engine.run_foresight()));
        }
    }

    /// One more thread, which ends soon after the engine stops. Nobody waits for it: it may be held by a device that hangs.
    pub(crate) fn spawn(self: &Arc<Engine>, name: &str, run: impl FnOnce(&Engine) + Send + 'static) {
        let engine = self.clone();
        if let Err(e) = std::thread::Builder::new().name(name.into()).spawn(move || run(&engine)) {
            log::warn!("no thread for {name}: {e}");
        }
    }

    /// Ends the threads; what is dirty stays so.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.drain.wake();
        self.oplog.wake();
        self.fetcher.wake();
        self.foresight.stop();
        self.spills.stop();
        self.write_outs.stop();
        self.follow.wake();
        self.outgrown.wake();
        if let Some(tier) = self.tier.get() {
            tier.stop();
        }
        let threads = std::mem::take(&mut *self.drain.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
    }

    /// How long a change must have rested.
    pub(crate) fn delay(&self) -> Duration {
        let urgent = self.drain.urgent.load(Ordering::Relaxed) > 0 || self.is_behind();
        if urgent { Duration::ZERO } else { self.config.drain_delay }
    }
}
