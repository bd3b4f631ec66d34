//! What is due: looks at the dirty inodes a few times a second.

use super::IDLE_MAX;
use crate::engine::Engine;
use crate::ids::Ino;
use crate::machine::Machine;
use crate::namespace::OpenMode;
use crossbeam_channel::Sender;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks.
const TICK: Duration = Duration::from_millis(100);
/// A file that stays open or mapped is drained again this long after it was written, at the earliest.
const OPEN_FILES_EVERY: Duration = Duration::from_secs(5);
/// Above this share of the ceiling clean files are evicted ahead of need.
const HIGH_WATER_PERCENT: u64 = 99;
/// What the kernel holds for a file that is known: measured, 2,140 to 2,231 bytes of slab (`aimss bench --only heap-100k`).
const KERNEL_BYTES_A_FILE: u64 = 2304;

impl Engine {
    pub(super) fn run_scheduler(&self, due: &Sender<Ino>) {
        while !self.stopping.load(Ordering::Relaxed) {
            self.queue_due(due);
            self.give_way();
            self.keep_in_budget();
            self.copy_ahead_if_short();
            self.update_rate();
            self.compact_journal();
            // Whoever makes the first inode dirty wakes us.
            self.drain.rest(if self.drain.is_clean() { IDLE_MAX } else { TICK });
        }
    }

    fn queue_due(&self, queue: &Sender<Ino>) {
        let now = Instant::now();
        let delay = self.delay();
        let urgent = self.drain.urgent.load(Ordering::Relaxed) > 0;
        let mut candidates: Vec<Ino> = Vec::new();
        for (ino, due) in self.drain.dirty_inodes() {
            let rested = now.duration_since(due.since) >= delay;
            let in_time = due.at.is_none_or(|at| at <= now) || (urgent && due.failures == 0);
            if !due.queued && rested && in_time {
                candidates.push(ino);
            }
        }
        for ino in candidates {
            match self.verdict(ino, urgent) {
                Verdict::Now => {
                    if let Some(due) = self.drain.dirty.lock().get_mut(&ino) {
                        due.queued = true;
                    }
                    let _ = queue.send(ino);
                }
                Verdict::Later => {
                    if let Some(due) = self.drain.dirty.lock().get_mut(&ino) {
                        due.at = Some(now + OPEN_FILES_EVERY);
                    }
                }
                Verdict::WhenNamed | Verdict::Settled => {}
            }
        }
    }

    fn verdict(&self, ino: Ino, urgent: bool) -> Verdict {
        let Ok(inode) = self.inode(ino) else {
            self.drain.unmark(ino);
            return Verdict::Settled;
        };
        let mut state = inode.state.lock();
        if !state.unsettled() {
            // Off the list under its lock, so that a writer who comes now puts it there again.
            self.drain.unmark(ino);
            return Verdict::Settled;
        }
        if state.drained.is_empty() {
            return Verdict::WhenNamed;
        }
        let in_use = state.file.dirty && (state.file.writers() > 0 || state.file.lingering);
        if !in_use || urgent {
            return Verdict::Now;
        }
        // Open or mapped: only if something changed since the last drain. A mapping's stores into pages it dirtied
        // before don't show; the last word is the drain after the mapping went.
        match state.file.epoch.as_ref().map(|e| e.mode.clone()) {
            Some(OpenMode::Arena(content)) if state.file.chunks.is_some() => match content.stat() {
                Ok(stat) if stat.stamp == state.file.seen => Verdict::Later,
                _ => Verdict::Now,
            },
            // The storage has it, or is being given it; to sync it while it is written would stop its writers.
            Some(OpenMode::Backing(_) | OpenMode::Daemon(_))
                if state.file.place.is_on_backing() && !state.attr_dirty && !state.xattrs.is_dirty() =>
            {
                Verdict::Later
            }
            None if state.file.lingering => {
                self.ask_again(ino, &mut state);
                // Once, and again when the mapping is gone; of the backing's own file the last is enough.
                let drained_once = state.file.chunks.is_some() || state.file.mapped.is_some();
                if state.file.lingering && drained_once { Verdict::Later } else { Verdict::Now }
            }
            _ => Verdict::Now,
        }
    }

    /// The ceiling follows what the machine has left.
    fn give_way(&self) {
        if !self.config.gives_way {
            return;
        }
        let (used, budget) = (self.arena.used_bytes(), self.arena.budget_bytes());
        let kernel = self.names.lock().inodes.len() as u64 * KERNEL_BYTES_A_FILE;
        if let Some(mut machine) = Machine::look(self.group.as_ref()) {
            machine.own += kernel + self.peaks.beside.load(Ordering::Relaxed);
            self.arena.set_ceiling(machine.ceiling(used, budget));
            self.peaks.process.fetch_max(machine.own, Ordering::Relaxed);
            self.peaks.together.fetch_max(used + machine.own, Ordering::Relaxed);
        }
    }

    fn keep_in_budget(&self) {
        self.arena.measure();
        let high = self.arena.ceiling_bytes() / 100 * HIGH_WATER_PERCENT;
        let used = self.arena.used_bytes();
        if used > high {
            self.evict(used - high);
        }
    }

    fn update_rate(&self) {
        const WINDOW: Duration = Duration::from_secs(1);
        let written = self.drain.written.load(Ordering::Relaxed);
        let mut rate = self.drain.rate.lock();
        match *rate {
            Some((since, before, _)) if since.elapsed() >= WINDOW => {
                let now = written.saturating_sub(before) as f64 / since.elapsed().as_secs_f64();
                *rate = Some((Instant::now(), written, now));
            }
            Some(_) => {}
            None => *rate = Some((Instant::now(), written, 0.0)),
        }
    }
}

/// What is to be done with a dirty inode.
enum Verdict {
    Now,
    Later,
    /// When the change that makes its name is applied.
    WhenNamed,
    /// It is settled, and off the list.
    Settled,
}
