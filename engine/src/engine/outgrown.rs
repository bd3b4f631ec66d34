//! Writers in passthrough that outgrow what was promised to them.
//!
//! Their open file is tied to the arena's, and their writes don't come here: a file that had a megabyte for years can become
//! larger than memory between two looks. So:
//!
//! 1. A thread looks as often as what is free could be filled at the speed of memory. It rests while there are no such
//!    writers.
//! 2. Where memory is nearly full, and a file that grows holds more than was promised for it, clean files make room first.
//!    If that is not enough, the file's writers are held ([`brake`]) while its memory goes to the overflow, if there is
//!    one, in slices of milliseconds: between two of them they write on.
//! 3. Without an overflow nothing can take that memory before the file is closed. Writers are slowed to the rate of the
//!    backing, for all else to be drained and evicted meanwhile; they are not failed, and status says whose file it is.
//!
//! What was swapped out comes back as it is read, by the drain too. While the overflow holds anything, and memory is
//! nearly full, it goes out again.

use super::Engine;
use crate::arena::brake;
use crate::ids::Ino;
use crate::namespace::{InodeState, OpenMode};
use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Bytes a second that writers could fill memory with.
const FILL_RATE: u64 = 10_000_000_000;
/// Between two looks, at least and at most.
const NEAR: Duration = Duration::from_millis(5);
const FAR: Duration = Duration::from_millis(250);
/// After the last writer that was seen, looks go on as if there were one: files are made one after the other.
const GONE_AFTER: Duration = Duration::from_secs(1);
/// Memory is nearly full when less than one part in so many of it is free, and at most so much.
const MARGIN_SHARE: u64 = 16;
const MARGIN_MAX: u64 = 256 << 20;
/// What a file may hold beyond its promise: large pages round up.
const TOLERANCE_BYTES: u64 = 4 << 20;
/// Writers are held for so long at once, and then go on for a moment.
const SLICE: Duration = Duration::from_millis(40);
const BETWEEN: Duration = Duration::from_millis(1);
/// After so many looks in a row that were of no use, it rests in between: what comes back as fast as it goes out hides
/// what one of them did.
const IDLE_LOOKS: u32 = 200;
/// Files held at once, the largest first.
const HELD_MAX: usize = 8;
/// Stay in memory: where the brake writes, and where an appender does.
const FIRST_BYTES: u64 = 2 << 20;
const LAST_BYTES: u64 = 8 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Outgrown {
    /// Files of the arena that are open for writing in passthrough.
    writers: Mutex<FxHashSet<Ino>>,
    /// Nobody is looked at, or looks are of no use: who opens a file wakes the thread.
    rests: AtomicBool,
    look: Condvar,
    looking: Mutex<()>,
    /// Blocks of those that outgrew their promise, as of the last look: who has ceased to grow is left alone, since to
    /// hold dates the file.
    seen: Mutex<FxHashMap<Ino, u64>>,
    /// Files whose memory went to the overflow, and how far.
    overflowed: Mutex<FxHashMap<Ino, u64>>,
    /// The largest that memory was not enough for, as of the last look.
    beyond: Mutex<Option<Ino>>,
}

/// A file that holds more than it was promised.
struct File {
    ino: Ino,
    bytes: u64,
}

impl Outgrown {
    /// A file of the arena was opened for writing in passthrough.
    pub(super) fn opened(&self, ino: Ino) {
        self.writers.lock().insert(ino);
        if self.rests.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(super) fn closed(&self, ino: Ino) {
        self.writers.lock().remove(&ino);
        self.seen.lock().remove(&ino);
    }

    /// For the thread to see that the engine stops, or that there is somebody to look at.
    pub(crate) fn wake(&self) {
        let _looking = self.looking.lock();
        self.look.notify_all();
    }
}

/// Half of the time in which `free` bytes could be filled.
fn until_full(free: u64) -> Duration {
    Duration::from_secs_f64(free as f64 / FILL_RATE as f64 / 2.0).clamp(NEAR, FAR)
}

/// Blocks of a file that is open for writing in passthrough, if they are more than was promised.
fn beyond_promise(state: &InodeState) -> Option<u64> {
    let epoch = state.file.epoch.as_ref().filter(|epoch| epoch.writers > 0)?;
    let OpenMode::Arena(content) = &epoch.mode else { return None };
    let bytes = content.stat().ok()?.blocks * 512;
    (bytes > epoch.expected + TOLERANCE_BYTES).then_some(bytes)
}

impl Engine {
    /// The thread that looks.
    pub(crate) fn run_outgrown(&self) {
        let mut seen: Option<Instant> = None;
        let mut idle = 0;
        let mut looking = self.outgrown.looking.lock();
        while !self.stopping.load(Ordering::Relaxed) {
            // Before the files are looked at: one that is opened after that wakes us.
            self.outgrown.rests.store(true, Ordering::SeqCst);
            if !self.outgrown.writers.lock().is_empty() || self.arena.swapped_bytes() > 0 {
                seen = Some(Instant::now());
            }
            if seen.is_none_or(|at| at.elapsed() >= GONE_AFTER) {
                self.outgrown.look.wait(&mut looking);
            } else if idle >= IDLE_LOOKS {
                self.outgrown.look.wait_for(&mut looking, FAR);
            } else {
                self.outgrown.rests.store(false, Ordering::SeqCst);
                self.outgrown.look.wait_for(&mut looking, until_full(self.unpromised_bytes()));
            }
            let useful = parking_lot::MutexGuard::unlocked(&mut looking, || self.look_at_writers());
            idle = if useful { 0 } else { idle + 1 };
        }
    }

    /// The path of a file that memory and overflow are not enough for, while its writers are slowed.
    pub fn beyond_memory(&self) -> Option<Vec<u8>> {
        let ino = *self.outgrown.beyond.lock();
        self.path_of(ino?)
    }

    fn margin(&self) -> u64 {
        (self.arena.ceiling_bytes() / MARGIN_SHARE).min(MARGIN_MAX)
    }

    fn is_nearly_full(&self) -> bool {
        self.arena.used_bytes() + self.margin() > self.arena.ceiling_bytes()
    }

    /// False if memory is nearly full, and nothing could be done about it.
    fn look_at_writers(&self) -> bool {
        self.count_overflowed();
        let mut before = self.arena.used_bytes();
        while self.is_nearly_full() && !self.stopping.load(Ordering::Relaxed) {
            let outgrown = self.beyond_their_promise();
            if outgrown.is_empty() && self.arena.swapped_bytes() == 0 {
                return true;
            }
            let low = self.arena.ceiling_bytes().saturating_sub(2 * self.margin());
            self.evict(self.arena.used_bytes().saturating_sub(low));
            if !self.is_nearly_full() {
                break;
            }
            if outgrown.is_empty() {
                return self.page_out_again(low);
            }
            let grown = self.arena.used_bytes().saturating_sub(before);
            let files: Vec<_> = (outgrown.iter().take(HELD_MAX))
                .filter_map(|file| self.arena.open_write(file.ino).ok())
                .collect();
            let (enough, held) = brake::hold(&files, || self.relieve(&outgrown, low, grown));
            drop(files);
            if let Err(e) = held {
                log::debug!("writers that outgrow memory were not held: {e}");
            }
            *self.outgrown.beyond.lock() = if enough { None } else { outgrown.first().map(|file| file.ino) };
            before = self.arena.used_bytes();
            std::thread::sleep(BETWEEN);
            self.count_overflowed();
        }
        if !self.is_nearly_full() {
            *self.outgrown.beyond.lock() = None;
        }
        true
    }

    /// Sees how much the overflow holds, and tells it how much of that can be ours.
    fn count_overflowed(&self) {
        let mut overflowed = self.outgrown.overflowed.lock();
        if overflowed.is_empty() {
            return;
        }
        let mut bytes = 0;
        overflowed.retain(|ino, _| {
            let blocks =
                self.arena.open_read(*ino).and_then(|content| content.stat()).map(|stat| stat.blocks);
            bytes += blocks.as_ref().map_or(0, |blocks| blocks * 512);
            blocks.is_ok()
        });
        if let Some(overflow) = self.arena.overflow() {
            overflow.is_for(bytes);
            overflow.look();
        }
    }

    /// Files that hold more than was promised, and more than at the last look, the largest first.
    fn beyond_their_promise(&self) -> Vec<File> {
        let writers: Vec<Ino> = self.outgrown.writers.lock().iter().copied().collect();
        let mut files: Vec<File> = (writers.into_iter())
            .filter_map(|ino| {
                let inode = self.inode(ino).ok()?;
                let state = inode.state.try_lock()?;
                beyond_promise(&state).map(|bytes| File { ino, bytes })
            })
            .filter(|file| {
                self.outgrown.seen.lock().insert(file.ino, file.bytes).is_none_or(|seen| file.bytes > seen)
            })
            .collect();
        files.sort_unstable_by_key(|file| std::cmp::Reverse(file.bytes));
        files
    }

    /// Makes room while the writers of `outgrown` are held, for a slice of time; where that can't be, waits as long as the
    /// backing would have taken for what they wrote since they were held last. True where there is room.
    fn relieve(&self, outgrown: &[File], low: u64, grown: u64) -> bool {
        let swapped = self.arena.swapped_bytes();
        self.page_out_for_a_slice(outgrown.iter().map(|file| file.ino), low);
        let paged = self.arena.swapped_bytes() > swapped;
        if !paged {
            std::thread::sleep(self.spills.pause_of_backing(grown).min(SLICE));
        }
        paged || self.arena.used_bytes() <= low
    }

    /// What came back of files that had gone to the overflow goes there again, for a slice of time. False if nothing did.
    fn page_out_again(&self, low: u64) -> bool {
        let (used, swapped) = (self.arena.used_bytes(), self.arena.swapped_bytes());
        let files: Vec<Ino> = self.outgrown.overflowed.lock().keys().copied().collect();
        self.page_out_for_a_slice(files, low);
        self.arena.used_bytes() < used || self.arena.swapped_bytes() > swapped
    }

    /// Swaps memory of files out, one after the other, until no more than `low` is used or the time is over.
    fn page_out_for_a_slice(&self, files: impl IntoIterator<Item = Ino>, low: u64) {
        let end = Instant::now() + SLICE;
        let enough = || self.arena.used_bytes() <= low || Instant::now() >= end;
        for ino in files {
            if enough() {
                break;
            }
            self.page_out(ino, &enough);
        }
    }

    /// Swaps memory of a file out until it is `enough`, from where that ended last time, and once around.
    fn page_out(&self, ino: Ino, enough: &dyn Fn() -> bool) {
        let Some(overflow) = self.arena.overflow() else { return };
        let start = *self.outgrown.overflowed.lock().entry(ino).or_insert(FIRST_BYTES);
        // Before what it swaps out is looked at; and of one that is gone it lets go.
        self.count_overflowed();
        let opened =
            self.arena.open_read(ino).and_then(|content| Ok((content.stat()?, content.into_file()?)));
        let Ok((stat, file)) = opened else { return };
        let end = stat.stamp.size.saturating_sub(LAST_BYTES).max(FIRST_BYTES);
        let start = start.min(end);
        let mut at = start;
        for range in [start..end, FIRST_BYTES..start] {
            let done = crate::arena::page_out(&file, range, |reached| {
                at = reached;
                overflow.look();
                enough() || overflow.used_bytes() >= overflow.bytes()
            });
            if let Err(e) = done {
                log::debug!("inode {}: its memory can't be swapped out: {e}", ino.0);
                break;
            }
            if enough() {
                break;
            }
        }
        self.outgrown.overflowed.lock().insert(ino, at);
    }
}
