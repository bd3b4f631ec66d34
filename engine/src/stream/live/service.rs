//! The threads behind a mount's streams.
//!
//! 1. `streams` takes events of appends, indexes what came, and answers who waits. A stream that was appended
//!    to stays *awake*: it is looked at ten times a second until nothing came between two looks, and then
//!    watched again. Where events of one stream come in quick succession, it is looked at by time instead, so
//!    that neither its writer nor we pay for each.
//! 2. `stream-offsets` writes changed group offsets down.
//! 3. `stream-copy` copies the tails of active files to the backing.
//! 4. `stream-seal` seals full segments, trims, and gives memory back.
//! 5. `stream-ahead` reads what lagging groups will ask for next.
//!
//! A blocked read(2) does not hear of signals through FUSE here (fuser answers INTERRUPT with "not
//! implemented", and the kernel asks no more), and its thread could not even be killed. So the threads that
//! wait are asked for pending signals: often while they are few, more rarely the more they are, so that it
//! costs a bounded share of a processor.

use super::hub::Streams;
use super::stream::Stream;
use crate::stream::{Micros, Result, plain};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File, Metadata};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// Between two looks at a stream that is awake.
const TICK: Duration = Duration::from_millis(100);
/// Events of one stream closer than this are quick: indexing a few hundred records takes as long.
const QUICK: Duration = Duration::from_micros(300);
/// Looks at a stream whose events were quick.
const QUICK_LOOK: Duration = Duration::from_micros(200);
/// So many quick looks in a row without news end that.
const QUICK_LOOKS_MAX: u32 = 5;
/// How long changed offsets wait for more: well under the 100 ms within which they are durable.
const OFFSETS_REST: Duration = Duration::from_millis(50);
/// Between two looks at retention and at late members.
const CHORES_EVERY: Duration = Duration::from_secs(1);
/// Longest rest of a thread that has nothing to do.
const IDLE_MAX: Duration = Duration::from_secs(2);
/// Between two looks for signals, at the least.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);
/// What a look costs for each thread, about, and the share of a processor that looks may take.
const SIGNAL_LOOK: Duration = Duration::from_micros(20);
const SIGNAL_SHARE: f64 = 0.0003;
/// Bytes of memory given back at a time: writers wait meanwhile.
const PUNCH_BYTES: u64 = 4 << 20;

impl Streams {
    /// Starts the threads.
    pub fn start(self: &Arc<Self>) {
        let mut threads = self.threads.lock();
        let mut spawn = |name: &str, run: fn(&Streams)| {
            let streams = self.clone();
            match std::thread::Builder::new().name(name.into()).spawn(move || run(&streams)) {
                Ok(thread) => threads.push(thread),
                Err(e) => log::error!("no thread for streams: {e}"),
            }
        };
        spawn("streams", Streams::serve);
        spawn("stream-offsets", Streams::write_offsets);
        spawn("stream-copy", Streams::copy_tails);
        spawn("stream-seal", Streams::seal_and_trim);
        spawn("stream-ahead", Streams::prepare_ahead);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn serve(&self) {
        let mut awake: Vec<Arc<Stream>> = Vec::new();
        let mut quick: Vec<(Arc<Stream>, u32)> = Vec::new();
        let (mut looked, mut signals) = (Instant::now(), Instant::now());
        while !self.is_stopping() {
            let waiting = self.waiting_questions();
            let mut rest = if awake.is_empty() { Duration::from_secs(5) } else { TICK };
            if !quick.is_empty() {
                rest = QUICK_LOOK;
            } else if waiting > 0 {
                rest = rest.min(signal_period(waiting));
            }
            self.rest(rest);
            for stream in self.watch.events() {
                stream.index_news();
                stream.answer_waiting();
                if stream.is_awaited() {
                    // Part of a record, or not for whoever waits.
                    stream.watch_next();
                    if stream.index_news() > 0 {
                        stream.answer_waiting();
                    }
                }
                if stream.note_event() && !quick.iter().any(|(other, _)| Arc::ptr_eq(other, &stream)) {
                    stream.quick.store(true, Ordering::SeqCst);
                    quick.push((stream.clone(), 0));
                }
                stream.wake();
            }
            quick.retain_mut(|(stream, idle)| stream.look_quickly(idle));
            awake.append(&mut self.woken.lock());
            if looked.elapsed() >= TICK {
                looked = Instant::now();
                awake.retain(Stream::look);
            }
            if waiting > 0 && signals.elapsed() >= signal_period(waiting) {
                for stream in self.all() {
                    stream.answer_interrupted(signal_came);
                }
                for group in self.partitioned.all() {
                    group.answer_interrupted(signal_came);
                }
                signals = Instant::now();
            }
        }
    }

    fn rest(&self, longest: Duration) {
        let timeout = rustix::event::Timespec {
            tv_sec: longest.as_secs() as i64,
            tv_nsec: i64::from(longest.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.watch, PollFlags::IN), PollFd::new(&self.event, PollFlags::IN)];
        if poll(&mut fds, Some(&timeout)).is_ok() && !fds[1].revents().is_empty() {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
    }

    fn waiting_questions(&self) -> usize {
        self.questions.load(Ordering::Relaxed)
    }

    fn prepare_ahead(&self) {
        while let Ok(wanted) = self.wanted.1.recv() {
            wanted.prepare();
        }
    }

    fn write_offsets(&self) {
        while !self.is_stopping() {
            let changed = self.offsets.wait(IDLE_MAX);
            if self.is_stopping() {
                return;
            }
            if !changed {
                continue;
            }
            std::thread::sleep(OFFSETS_REST);
            for stream in self.all() {
                if stream.unsaved.load(Ordering::Relaxed)
                    && let Err(e) = stream.save_offsets()
                {
                    log::warn!("group offsets of stream {} can't be written down: {e}", stream.id);
                }
            }
        }
    }

    fn copy_tails(&self) {
        while !self.is_stopping() {
            if !self.uncopied.wait(IDLE_MAX) {
                continue;
            }
            self.ended.wait(self.limits.flush_every.min(CHORES_EVERY));
            for stream in self.all() {
                let there = stream.uncopied.load(Ordering::Relaxed) && !stream.is_doomed();
                if there && let Err(e) = stream.copy_news() {
                    log::warn!("the tail of stream {} can't be written to the backing: {e}", stream.id);
                }
            }
        }
    }

    fn seal_and_trim(&self) {
        let (mut chores, mut failed) = (Instant::now(), false);
        while !self.is_stopping() {
            let full = self.full.wait(CHORES_EVERY);
            let (chores_due, mut sealed) = (chores.elapsed() >= CHORES_EVERY, false);
            let any = full || failed || chores_due && self.chores.load(Ordering::Relaxed);
            failed = false;
            for stream in if any { self.all() } else { Vec::new() } {
                let full = stream.full.swap(false, Ordering::Relaxed);
                let chores = chores_due && stream.chores.load(Ordering::Relaxed);
                if !full && !chores {
                    continue;
                }
                if let Err(e) = stream.seal_full().and_then(|()| stream.trim()) {
                    log::warn!("stream {} can't be sealed or trimmed, which is tried again: {e}", stream.id);
                    stream.full.store(true, Ordering::Relaxed);
                    failed = true;
                }
                if chores {
                    stream.take_back_late();
                }
                if full && stream.pins.take_withheld() {
                    stream.punch_front();
                }
                sealed |= full;
            }
            if chores_due {
                chores = Instant::now();
                self.partitioned.take_back_late();
                self.remove_doomed(false);
                self.tell_if_behind();
            }
            if sealed {
                self.give_memory_back();
            }
        }
    }

    /// Says, once each time, that memory fills faster than it is sealed.
    fn tell_if_behind(&self) {
        if !self.appended.swap(false, Ordering::Relaxed) && !self.behind_told.load(Ordering::Relaxed) {
            return;
        }
        let behind = self.behind();
        if let Some(bytes) = behind
            && !self.behind_told.load(Ordering::Relaxed)
        {
            log::warn!(
                "streams hold {} MiB in memory that are not sealed yet: their writers are faster than the backing; \
                 slow them down or give the mount more --memory",
                bytes >> 20
            );
        }
        self.behind_told.store(behind.is_some(), Ordering::Relaxed);
    }

    /// Reads records that were sealed longest ago from their segments, where memory is short.
    fn give_memory_back(&self) {
        let streams = self.all();
        let mut hot: u64 = streams.iter().map(|stream| stream.log.read().hot_bytes()).sum();
        while hot > self.limits.hot_bytes && !self.is_stopping() {
            let Some(largest) = streams.iter().max_by_key(|stream| stream.log.read().hot_bytes()) else {
                return;
            };
            let before = largest.log.read().hot_bytes();
            if !largest.log.write().cool() {
                return;
            }
            hot -= before - largest.log.read().hot_bytes();
            largest.punch_front();
        }
    }
}

impl Stream {
    /// The service is to look at this stream for a while.
    pub(super) fn wake(self: &Arc<Self>) {
        if self.awake.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(hub) = self.hub.upgrade() {
            hub.woken.lock().push(self.clone());
            let _ = rustix::io::write(&hub.event, &1_u64.to_ne_bytes());
        }
    }

    /// Somebody waits for the next append.
    pub(super) fn watch_next(self: &Arc<Self>) {
        let Some(hub) = self.hub.upgrade() else { return };
        if self.quick.load(Ordering::SeqCst) {
            return;
        }
        if let Err(e) = hub.watch.arm(self, &self.active_file()) {
            // Every stream that is awake is looked at ten times a second.
            log::warn!("stream {} can't be watched ({e}): see fs.inotify.max_user_watches", self.id);
            self.wake();
        }
    }

    /// Offsets of some group changed.
    pub(super) fn offsets_changed(&self) {
        if !self.unsaved.swap(true, Ordering::Relaxed)
            && let Some(hub) = self.hub.upgrade()
        {
            hub.offsets.set();
        }
    }

    /// Whether this event came quickly after the last.
    fn note_event(&self) -> bool {
        let last = self.woken.lock().replace(Instant::now());
        last.is_some_and(|last| last.elapsed() < QUICK)
    }

    /// A look by time; false when it is not needed any more.
    fn look_quickly(self: &Arc<Self>, idle: &mut u32) -> bool {
        *idle = if self.index_news() > 0 { 0 } else { *idle + 1 };
        self.answer_waiting();
        if *idle < QUICK_LOOKS_MAX {
            return true;
        }
        self.quick.store(false, Ordering::SeqCst);
        if self.is_awaited() {
            self.watch_next();
            if self.index_news() > 0 {
                self.answer_waiting();
            }
        }
        false
    }

    /// One of ten looks a second at a stream that is awake; false when it sleeps again.
    fn look(stream: &Arc<Stream>) -> bool {
        stream.index_news();
        let mut grown = stream.has_grown();
        if grown {
            stream.answer_waiting();
        }
        if let Some(hub) = stream.hub.upgrade()
            && stream.log.read().is_full()
        {
            stream.full.store(true, Ordering::Relaxed);
            hub.full.set();
            // Here, since who seals may not come to anything else.
            hub.tell_if_behind();
        }
        if !grown {
            stream.watch_next();
            stream.awake.store(false, Ordering::Release);
            stream.index_news();
            grown = stream.has_grown() && !stream.awake.swap(true, Ordering::AcqRel);
            if grown || stream.is_awaited() {
                stream.answer_waiting();
            }
        }
        grown
    }

    /// Whether bytes came since this was asked last.
    fn has_grown(&self) -> bool {
        let end = self.log.read().end_of_bytes().map_or(0, |end| end.0);
        let grown = self.end_looked_at.swap(end, Ordering::AcqRel) != end;
        if grown {
            // Also what is no record is copied to the backing.
            self.has_news();
            self.tell_of_refusal();
        }
        grown
    }

    /// Seals what is full and reads all that is sealed from its segments from now on. For tests; the service does it
    /// when there is a reason.
    pub fn seal_and_cool(&self) -> Result<()> {
        self.seal_full()?;
        self.log.write().cool_all();
        self.punch_front();
        Ok(())
    }

    /// Seals while there is a segment's worth.
    pub fn seal_full(&self) -> Result<()> {
        loop {
            let Some(piece) = self.log.read().full_piece() else { return Ok(()) };
            let written = piece.write()?;
            self.log.write().install(&written)?;
            self.has_news();
        }
    }

    /// Removes segments that the stream's retention does not keep.
    pub fn trim(&self) -> Result<()> {
        let retention = self.settings().retention;
        if retention == crate::stream::Retention::default() {
            return Ok(());
        }
        let acknowledged = self.acknowledged();
        self.log.write().trim(&retention, Micros::now(), acknowledged)?;
        Ok(())
    }

    /// Gives the memory of the active file's front back that is not read any more.
    fn punch_front(&self) {
        let (end, path) = {
            let log = self.log.read();
            (log.sealed_front_bytes(), log.active_path())
        };
        let end = self.pins.free(end);
        let mut punched = self.punched.lock();
        if *punched >= end {
            return;
        }
        let Ok(file) = plain::options().write(true).open(path) else { return };
        let before = file.metadata().ok();
        while *punched < end {
            let bytes = PUNCH_BYTES.min(end - *punched);
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if fallocate(&file, flags, *punched, bytes).is_err() {
                break;
            }
            *punched += bytes;
        }
        if let Some(before) = before {
            keep_mtime(&file, &before);
        }
    }

    /// Its name is gone.
    pub fn is_doomed(&self) -> bool {
        self.doomed.load(Ordering::Relaxed)
    }

    /// Whether any group has a member.
    pub(super) fn has_members(&self) -> bool {
        self.groups.lock().values().any(|group| group.members() > 0)
    }
}

fn signal_period(waiting: usize) -> Duration {
    SIGNALS_EVERY.max((SIGNAL_LOOK * waiting as u32).div_f64(SIGNAL_SHARE))
}

/// Gives a file the time of its last append back, unless it was appended to since.
fn keep_mtime(file: &File, before: &Metadata) {
    let was_appended_to = || file.metadata().map_or(true, |now| now.len() != before.len());
    let Ok(mtime) = before.modified() else { return };
    if !was_appended_to() && file.set_modified(mtime).is_ok() && was_appended_to() {
        // Between the two: the append's time is gone, and it was just now.
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Whether a signal is pending for a thread that would end its wait.
fn signal_came(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    let Ok(status) = fs::read_to_string(format!("/proc/{thread}/status")) else { return true };
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let (own, shared, blocked) =
        (set("SigPnd:").unwrap_or(0), set("ShdPnd:").unwrap_or(0), set("SigBlk:").unwrap_or(0));
    (own | shared) & !blocked != 0
}
