//! Files that outgrow memory while they are written: from the arena to the backing, under their writers.
//!
//! A file that the daemon serves may move at any time, because every write of it comes here. Where memory is short, it
//! does so ahead of need:
//!
//! 1. From now on what is written to it is noted ([`Moving`]), and its writers are slowed to a part of what the backing
//!    takes: what they add meanwhile is copied in turn, and each round has a part of the last one's.
//! 2. Its content is drained as any other's, and then what was written meanwhile, until that is little. Should it never
//!    become little, writers wait for one more round.
//! 3. The rest is copied with the inode locked, and the handles go on with the backing's file.
//!
//! Who moves a file has its turn in the drain from before the first copy to the end.
//!
//! From there on writers fill the backing's page cache; see `write_out`.

use super::Engine;
use super::attrs::stat_of_file;
use crate::arena::Content;
use crate::backing::Owner;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Inode, InodeState, Moving, OpenMode, Place, Written};
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Files that move by themselves at once; more wait for their turn.
pub(crate) const THREADS: usize = 2;
/// Memory is short when less than one part in so many of it is free or clean.
const SHORT_SHARE: u64 = 4;
/// It is crowded when less than one part in so many of it is.
const CROWDED_SHARE: u64 = 16;
/// What is worth moving: one part in so many of the memory.
const WORTH_SHARE: u64 = 16;
/// Writers of a file that moves have one part in so many of the backing's rate, all together: what they add in all then
/// fits into what is free when memory is called short.
const PACE_SHARE: u64 = 5;
/// So little is copied with the inode locked.
const LAST_BYTES_MAX: u64 = 4 << 20;
/// Rounds of copying what was written meanwhile before writers have to wait.
const ROUNDS_MAX: u32 = 8;
/// Bytes a second of a backing that was not measured yet.
const RATE_UNKNOWN: u64 = 200 << 20;
/// Too little to tell a rate by.
const MEASURED_BYTES_MIN: u64 = 4 << 20;
/// A write waits so long at most: a writer is slowed down, not stopped.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// Between two looks of a writer that waits for the last round.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// After a failure, so long until the next try that nobody waits for.
const RETRY: Duration = Duration::from_secs(1);

/// What all moving files share.
#[derive(Debug, Default)]
pub(crate) struct Spills {
    /// To the threads; without them a file moves when there is no room at all.
    queue: Mutex<Option<crossbeam_channel::Sender<Ino>>>,
    /// Bytes a second that the backing took from the last one; 0 before.
    rate: AtomicU64,
    failed: Mutex<Option<Instant>>,
    /// Files announced, or moving.
    under_way: AtomicU64,
    /// Numbers those who move.
    movers: AtomicU64,
    /// Files moved since the start.
    moved: AtomicU64,
}

impl Spills {
    /// The threads take what comes here.
    pub(crate) fn start(&self) -> crossbeam_channel::Receiver<Ino> {
        let (queue, work) = crossbeam_channel::unbounded();
        *self.queue.lock() = Some(queue);
        work
    }

    /// Nothing comes any more, and who waits for it is told.
    pub(crate) fn stop(&self) {
        *self.queue.lock() = None;
    }

    /// Files that moved to the backing while they were written.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How long a write of `bytes` waits while its file moves, which has `writers`.
    fn pause(&self, bytes: u64, writers: u32) -> Duration {
        let share = self.rate() as f64 / PACE_SHARE as f64 / f64::from(writers.max(1));
        Duration::from_secs_f64(bytes as f64 / share).min(PAUSE_MAX)
    }

    /// How long the backing takes for so much.
    pub(super) fn pause_of_backing(&self, bytes: u64) -> Duration {
        Duration::from_secs_f64(bytes as f64 / self.rate() as f64).min(PAUSE_MAX)
    }

    fn rate(&self) -> u64 {
        match self.rate.load(Ordering::Relaxed) {
            0 => RATE_UNKNOWN,
            rate => rate,
        }
    }

    fn learn_rate(&self, bytes: u64, took: Duration) {
        if bytes >= MEASURED_BYTES_MIN {
            self.rate.store((bytes as f64 / took.as_secs_f64().max(1e-3)) as u64, Ordering::Relaxed);
        }
    }

    fn may_try(&self) -> bool {
        self.failed.lock().is_none_or(|at| at.elapsed() >= RETRY)
    }
}

impl Engine {
    /// Whether a write might wait: for the backing, for memory, or for who has the file locked.
    pub fn write_waits(&self, ino: Ino) -> bool {
        let Ok(inode) = self.inode(ino) else { return false };
        let Some(state) = inode.state.try_lock() else { return true };
        let (place, moves) = (state.file.place, is_moving(&state));
        drop(state);
        place.is_on_backing() || moves || (place == Place::Arena && self.may_be_short())
    }

    /// Makes room for a write of `bytes` that comes to the daemon. Where memory is short the file begins to move to the
    /// backing; where there is none, it moves now.
    pub(super) fn make_way(&self, inode: &Arc<Inode>, bytes: u64) -> Result<()> {
        let (place, size, moves, writers, expected) = {
            let state = inode.state.lock();
            let expected = state.file.epoch.as_ref().map_or(0, |epoch| epoch.expected);
            (state.file.place, state.attr.size, is_moving(&state), state.file.writers(), expected)
        };
        if place != Place::Arena {
            return Ok(());
        }
        // One that is as large as it will be is not what memory is short for, and one at a time is enough, as long as
        // there is room to wait for it.
        let grows = size + bytes > expected && self.spills.under_way.load(Ordering::Relaxed) == 0;
        let worth_it = size >= self.arena.ceiling_bytes() / WORTH_SHARE && (grows || self.is_crowded());
        if moves || (worth_it && self.is_short() && self.announce(inode)) {
            std::thread::sleep(self.spills.pause(bytes, writers));
            while is_closing(&inode.state.lock()) {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        if self.make_room(bytes) {
            return Ok(());
        }
        match self.move_to_backing(inode.ino) {
            // It has no name there, or is in passthrough: it stays.
            Err(Error::NotFound) => Ok(()),
            // The ceiling may have sunk for others' sake; that is no reason to fail.
            Err(_) if self.arena.used_bytes() + bytes <= self.arena.budget_bytes() => Ok(()),
            other => other,
        }
    }

    /// Whether so little memory is free, or could be, that files that grow should not stay in it.
    fn is_short(&self) -> bool {
        let enough = self.arena.ceiling_bytes() / SHORT_SHARE;
        let free = self.unpromised_bytes();
        // An eviction under way is not worth waiting for.
        free < enough && self.cache.try_lock().is_some_and(|cache| free + cache.bytes() < enough)
    }

    fn is_crowded(&self) -> bool {
        self.unpromised_bytes() < self.arena.ceiling_bytes() / CROWDED_SHARE
    }

    /// Whether a write might find memory short, or have to evict.
    fn may_be_short(&self) -> bool {
        self.unpromised_bytes() < self.arena.ceiling_bytes() / SHORT_SHARE
    }

    pub(super) fn unpromised_bytes(&self) -> u64 {
        self.arena.free_bytes().saturating_sub(self.reserved.load(Ordering::Relaxed))
    }

    /// Has a file moved beside its writers; false where that can't be.
    fn announce(&self, inode: &Inode) -> bool {
        let Some(queue) = self.spills.queue.lock().clone() else { return false };
        if !self.spills.may_try() {
            return false;
        }
        let mut state = inode.state.lock();
        if may_move(&state).is_err() {
            return false;
        }
        let Some(epoch) = &mut state.file.epoch else { return false };
        // One of two writers who see it first.
        if !epoch.announced {
            epoch.announced = queue.send(inode.ino).is_ok();
            log::debug!("inode {}: memory is short, it moves to the backing", inode.ino.0);
            self.spills.under_way.fetch_add(u64::from(epoch.announced), Ordering::Relaxed);
        }
        epoch.announced
    }

    pub(crate) fn run_spills(&self, work: &crossbeam_channel::Receiver<Ino>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let Ok(ino) = work.recv_timeout(crate::drain::IDLE_MAX) else { continue };
            let moved = self.move_to_backing(ino);
            self.spills.under_way.fetch_sub(1, Ordering::Relaxed);
            if let Err(e) = moved
                && !matches!(e, Error::NotFound)
            {
                self.kept(ino, "can't move to the backing yet, kept in memory", &e);
            }
        }
    }

    /// Moves an open file that the daemon serves from the arena to the backing. Its handles go on. Where it is closed or
    /// moved already that is all.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: it has no name on the backing, or is in passthrough. Others are the backing's.
    pub(super) fn move_to_backing(&self, ino: Ino) -> Result<()> {
        let inode = self.inode(ino)?;
        let moved = self.move_named(&inode);
        if matches!(&moved, Err(e) if !matches!(e, Error::NotFound)) {
            *self.spills.failed.lock() = Some(Instant::now());
        }
        if let Some(epoch) = &mut inode.state.lock().file.epoch {
            epoch.announced = false;
        }
        moved
    }

    fn move_named(&self, inode: &Arc<Inode>) -> Result<()> {
        {
            let state = inode.state.lock();
            if state.file.place != Place::Arena || state.file.epoch.is_none() {
                return Ok(());
            }
            may_move(&state)?;
        }
        self.apply_names_of(inode.ino)?;
        let turn = self.drain.turn(inode.ino);
        let mover = self.spills.movers.fetch_add(1, Ordering::Relaxed);
        {
            let mut state = inode.state.lock();
            if state.file.place != Place::Arena || state.file.epoch.is_none() {
                return Ok(());
            }
            may_move(&state)?;
            if let Some(epoch) = &mut state.file.epoch {
                let moving = Moving { mover, written: Written::default(), round: 0, closing: false };
                epoch.moving = Some(Box::new(moving));
            }
        }
        let moved = self.copy_and_hand_over(&turn, inode, mover);
        let mut state = inode.state.lock();
        if moving(&mut state, mover).is_some()
            && let Some(epoch) = &mut state.file.epoch
        {
            epoch.moving = None;
        }
        let stays = state.file.place == Place::Arena;
        if stays {
            // Rounds wrote more than the checksums tell: what is there is not known chunk by chunk any more.
            state.file.chunks = None;
        }
        drop(state);
        if stays {
            // What was copied is our own doing, not somebody else's.
            self.own_what_is_there(inode, false);
        }
        moved
    }

    fn copy_and_hand_over(
        &self,
        turn: &crate::drain::Turn<'_>,
        inode: &Arc<Inode>,
        mover: u64,
    ) -> Result<()> {
        let (start, before) = (Instant::now(), self.written());
        self.settle_holding(turn, inode, false)?;
        let copied = self.written() - before;
        log::debug!("inode {}: {copied} bytes moved in {:?}", inode.ino.0, start.elapsed());
        self.spills.learn_rate(copied, start.elapsed());
        let file = {
            let _shape = self.shape.read_recursive();
            Arc::new(self.backing.open_write(&self.drained_path(inode.ino)?, Owner::ROOT)?)
        };
        let content = self.arena.open_read(inode.ino)?;
        loop {
            let (ranges, size) = {
                let mut state = inode.state.lock();
                let size = state.attr.size;
                let Some(moving) = moving(&mut state, mover) else { return Ok(()) };
                if moving.written.bytes(size) <= LAST_BYTES_MAX {
                    drop(state);
                    if self.hand_over(inode, &file, &content, mover)? {
                        return Ok(());
                    }
                    continue;
                }
                moving.round += 1;
                moving.closing = moving.round >= ROUNDS_MAX;
                (moving.written.take(size), size)
            };
            self.copy(&file, &content, &ranges, size)?;
        }
    }

    /// The last of the content, and from here on the backing's file is the one. False where that became more than a
    /// little.
    fn hand_over(&self, inode: &Inode, file: &Arc<File>, content: &Content, mover: u64) -> Result<bool> {
        let blocks = content.stat()?.blocks;
        let _shape = self.shape.read_recursive();
        let path = self.drained_path(inode.ino)?;
        let mut state = inode.state.lock();
        may_move(&state)?;
        let size = state.attr.size;
        let Some(moving) = moving(&mut state, mover) else { return Ok(true) };
        if moving.written.bytes(size) > LAST_BYTES_MAX && moving.round < ROUNDS_MAX * 2 {
            return Ok(false);
        }
        let ranges = moving.written.take(size);
        self.copy(file, content, &ranges, size)?;
        file.set_len(size)?;
        let (stat, now) = (stat_of_file(file)?, self.backing.stat(&path)?);
        if stat.id != (now.id.dev, now.id.ino) {
            return Err(Error::Io(io::Error::other("somebody put another file in its place on the backing")));
        }
        if let Some(epoch) = &mut state.file.epoch {
            epoch.mode = OpenMode::Daemon(file.clone());
            epoch.moving = None;
        }
        state.file.place = Place::Backing;
        (state.file.chunks, state.file.clean, state.file.replaced) = (None, None, false);
        state.file.know(&stat);
        // What was just written there is our own doing.
        state.set_baseline(Some(super::baseline(&now)));
        self.journal.dirty(inode.ino, &state);
        self.arena.remove(inode.ino);
        self.arena.moved(0, blocks * 512);
        drop(state);
        log::debug!("inode {}: is on the backing", inode.ino.0);
        self.spills.moved.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }
}

/// Whether the daemon serves a file from the arena, whose name the backing has or will have.
fn may_move(state: &InodeState) -> Result<()> {
    let served = state.file.epoch.as_ref().is_some_and(|epoch| matches!(epoch.mode, OpenMode::Daemon(_)));
    // Without a name there is nothing on the backing to move to: it lives in the arena until its last close. What a
    // mapping that outlived its close stores would not move with it.
    if state.nameless() || state.file.lingering || state.file.place != Place::Arena || !served {
        return Err(Error::NotFound);
    }
    Ok(())
}

fn is_moving(state: &InodeState) -> bool {
    state.file.epoch.as_ref().is_some_and(|epoch| epoch.announced || epoch.moving.is_some())
}

fn is_closing(state: &InodeState) -> bool {
    let moving = state.file.epoch.as_ref().and_then(|epoch| epoch.moving.as_ref());
    moving.is_some_and(|moving| moving.closing)
}

/// A move, if it is still `mover`'s: not where the file was closed since it began.
fn moving(state: &mut InodeState, mover: u64) -> Option<&mut Moving> {
    state.file.epoch.as_mut()?.moving.as_deref_mut().filter(|moving| moving.mover == mover)
}
