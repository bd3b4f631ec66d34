//! Bringing files from the backing into the arena: for an open that waits, for `aimss warm`, and ahead of opens that
//! were predicted.
//!
//! 1. A [`Request`] waits in the queue. Whoever takes it promises room, opens the backing's file and makes a file beside
//!    the inode's own: a *flight*.
//! 2. A flight is read in pieces by several threads at once, the oldest flight first, so that the first file is whole
//!    as soon as can be, and the next one begins when the last piece of this one is given out.
//! 3. Who reads the last piece ends the flight: if the file is still as it was when it began, what was read becomes its
//!    content in the arena, and the next open is passthrough. Otherwise it is dropped.
//!
//! Pieces are sized by what is measured: so large that the latency of a call is a small part of it ([`Pace`]). They are
//! read into a mapping of the new file, which nobody else can cut: one copy, and the reads are system calls, so that a
//! failure is an error and no signal.
//!
//! An open that needs a file that is in flight waits for it and helps; one that is still queued is taken over. Nothing
//! here needs threads of its own then, which is how an engine without any works.

use crate::engine::Engine;
use crate::error::Result;
use crate::ids::{Ino, Name};
use crate::namespace::{Baseline, Inode, Place};
use crate::predict::By;
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Large pieces read at once. Parallel file systems give one client about as many streams; more wait there instead of
/// here.
const STREAMS: usize = 8;
/// Threads. A small file is three calls that only wait: more of them are under way at once.
pub(crate) const THREADS: usize = 32;
/// Pieces up to this size go through a buffer of the thread: a mapping costs more than the second copy.
const BUFFER_BYTES: u64 = 1 << 20;
/// Pieces of a file before anything was measured, and the least and most later. Whole huge pages.
const PIECE_BYTES: u64 = 8 << 20;
const PIECE_BYTES_MIN: u64 = 2 << 20;
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// A piece takes so many times the latency of a call: about 6% are lost to it then.
const LATENCIES: f64 = 16.0;
/// Reads up to this size tell the latency, those from [`BUFFER_BYTES`] on the rate.
const LATENCY_BYTES_MAX: u64 = 128 << 10;
/// Weight of a new measurement.
const WEIGHT: f64 = 0.2;

/// Why a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// An open waits for it.
    Demand,
    /// Somebody asked for it to be in memory.
    Warm,
    /// It was predicted.
    Predicted(By),
}

/// A file to be fetched.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its inode.
    pub ino: Ino,
    /// A name to look it up by, where the inode may not be known yet.
    pub link: Option<(Ino, Name)>,
    /// Why.
    pub cause: Cause,
}

/// What came in, by cause, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Whole files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not fetched after all: no room, changed meanwhile, or the backing failed.
    pub dropped: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Fetcher {
    queue: Mutex<Queue>,
    /// There is something to do.
    work: Condvar,
    /// A request is through.
    ended: Condvar,
    pace: Mutex<Pace>,
    counts: Mutex<FxHashMap<Cause, Fetched>>,
}

/// A leaf lock.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Request>,
    flights: VecDeque<Arc<Flight>>,
    /// Inodes of both.
    known: FxHashMap<Ino, Cause>,
    in_flight_bytes: u64,
    /// Large pieces that are being read.
    streams: usize,
}

impl Queue {
    /// A piece to be read: of the oldest flight that has one, if a stream is free for it.
    fn next_piece(&mut self) -> Option<(Arc<Flight>, Range<u64>)> {
        let streams = self.streams;
        let (flight, piece) = self
            .flights
            .iter()
            .filter(|flight| !flight.is_large() || streams < STREAMS)
            .find_map(|flight| Some((flight.clone(), flight.take_piece()?)))?;
        self.streams += usize::from(flight.is_large());
        Some((flight, piece))
    }
}

/// A file on its way.
#[derive(Debug)]
struct Flight {
    inode: Arc<Inode>,
    request: Request,
    size: u64,
    /// What the file was when it began: changes counted, and what the backing held.
    touched: u64,
    baseline: Option<Baseline>,
    source: File,
    /// Gone before the flight ends: no descriptor of ours that writes may be left.
    target: Mutex<Option<Arc<File>>>,
    piece_bytes: u64,
    next: AtomicU64,
    left: AtomicU64,
    failed: AtomicBool,
}

impl Flight {
    /// Larger than what is read by one call into a buffer.
    fn is_large(&self) -> bool {
        self.size > BUFFER_BYTES
    }

    /// A piece that nobody reads yet.
    fn take_piece(&self) -> Option<Range<u64>> {
        let start = self.next.fetch_add(self.piece_bytes, Ordering::Relaxed);
        (start < self.size).then(|| start..self.size.min(start + self.piece_bytes))
    }

    /// One is read; true for the last.
    fn piece_done(&self) -> bool {
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }
}

/// What the backing was seen to do: time to answer, and bytes a second of one stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    latency: Option<f64>,
    rate: Option<f64>,
}

impl Pace {
    fn learn(&mut self, bytes: u64, took: Duration) {
        let took = took.as_secs_f64();
        let mix = |known: &mut Option<f64>, new: f64| {
            *known = Some(known.map_or(new, |old| old + (new - old) * WEIGHT));
        };
        if bytes <= LATENCY_BYTES_MAX {
            mix(&mut self.latency, took);
        } else if bytes >= BUFFER_BYTES {
            // Where the latency isn't known, it counts as a part of the rate: pieces are small then, and grow.
            let moving = (took - self.latency.unwrap_or(0.0)).max(took / 4.0);
            mix(&mut self.rate, bytes as f64 / moving.max(1e-6));
        }
    }

    /// Seconds until a call is answered; `None` before one was small enough to tell.
    pub fn latency(&self) -> Option<f64> {
        self.latency
    }

    /// Bytes a second of one stream; `None` before one was large enough to tell.
    pub fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Bytes of a piece of a file of `size`: small enough for all streams to have a share.
    fn piece_bytes(&self, size: u64) -> u64 {
        let good = match (self.latency, self.rate) {
            (Some(latency), Some(rate)) => (latency * rate * LATENCIES) as u64,
            _ => PIECE_BYTES,
        };
        let share = size.div_ceil(STREAMS as u64);
        good.min(share.max(PIECE_BYTES_MIN))
            .clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
            .next_multiple_of(PIECE_BYTES_MIN)
    }
}

impl Fetcher {
    /// What came in so far.
    pub fn counts(&self) -> Vec<(Cause, Fetched)> {
        self.counts.lock().iter().map(|(cause, fetched)| (*cause, *fetched)).collect()
    }

    /// What was measured.
    pub fn pace(&self) -> Pace {
        *self.pace.lock()
    }

    /// Files queued or in flight, and the bytes in flight.
    pub fn under_way(&self) -> (u64, u64) {
        let queue = self.queue.lock();
        (queue.known.len() as u64, queue.in_flight_bytes)
    }

    /// Whether a file is queued or in flight.
    pub(crate) fn knows(&self, ino: Ino) -> bool {
        self.queue.lock().known.contains_key(&ino)
    }

    /// Queues files behind what is queued. What is known already stays where it is.
    pub(crate) fn add(&self, requests: impl IntoIterator<Item = Request>) {
        let mut queue = self.queue.lock();
        for request in requests {
            if let std::collections::hash_map::Entry::Vacant(free) = queue.known.entry(request.ino) {
                free.insert(request.cause);
                queue.waiting.push_back(request);
            }
        }
        drop(queue);
        self.work.notify_all();
    }

    /// Waits until all that was asked for by [`Cause::Warm`] is through; `progress` is told the files and bytes left.
    pub(crate) fn wait_for_warm(&self, mut progress: impl FnMut(u64)) {
        const TELL_EVERY: Duration = Duration::from_millis(100);
        let mut queue = self.queue.lock();
        loop {
            let left = queue.known.values().filter(|cause| **cause == Cause::Warm).count() as u64;
            if left == 0 {
                return;
            }
            parking_lot::MutexGuard::unlocked(&mut queue, || progress(left));
            self.ended.wait_for(&mut queue, TELL_EVERY);
        }
    }

    fn count(&self, cause: Cause, taken: Option<u64>) {
        let mut counts = self.counts.lock();
        let fetched = counts.entry(cause).or_default();
        match taken {
            Some(bytes) => (fetched.files, fetched.bytes) = (fetched.files + 1, fetched.bytes + bytes),
            None => fetched.dropped += 1,
        }
    }

    /// A request is through, with or without a flight.
    fn end(&self, ino: Ino, flight: Option<&Arc<Flight>>) {
        let mut queue = self.queue.lock();
        if let Some(flight) = flight {
            queue.flights.retain(|other| !Arc::ptr_eq(other, flight));
            queue.in_flight_bytes -= flight.size;
        }
        queue.known.remove(&ino);
        drop(queue);
        self.ended.notify_all();
    }

    /// Wakes the threads, for them to see that the engine stops.
    pub(crate) fn wake(&self) {
        // Not between a thread's look and its rest.
        let _queue = self.queue.lock();
        self.work.notify_all();
    }
}

impl Engine {
    /// One of the threads that fetch.
    pub(crate) fn run_fetcher(&self) {
        let mut queue = self.fetcher.queue.lock();
        while !self.stopping.load(Ordering::Relaxed) {
            if let Some((flight, piece)) = queue.next_piece() {
                drop(queue);
                self.fetch_piece(&flight, piece);
                if flight.is_large() {
                    self.fetcher.queue.lock().streams -= 1;
                    self.fetcher.work.notify_one();
                }
                drop(flight);
            } else if let Some(request) = queue.waiting.pop_front() {
                drop(queue);
                self.begin(request, false);
            } else {
                self.fetcher.work.wait(&mut queue);
                continue;
            }
            queue = self.fetcher.queue.lock();
        }
    }

    /// Brings a closed, cold file into the arena, and waits for it. It stays where it is if there is no room, if it is
    /// in use there, or if it changes meanwhile.
    pub(crate) fn fetch_now(&self, inode: &Inode, cause: Cause) {
        let mine = {
            let mut queue = self.fetcher.queue.lock();
            if let Some(at) = queue.waiting.iter().position(|request| request.ino == inode.ino) {
                queue.waiting.remove(at)
            } else if queue.known.contains_key(&inode.ino) {
                None
            } else {
                queue.known.insert(inode.ino, cause);
                Some(Request { ino: inode.ino, link: None, cause })
            }
        };
        if let Some(request) = mine
            && let Some(flight) = self.begin(request, true)
        {
            while let Some(piece) = flight.take_piece() {
                self.fetch_piece(&flight, piece);
            }
        }
        let mut queue = self.fetcher.queue.lock();
        while queue.known.contains_key(&inode.ino) {
            self.fetcher.ended.wait(&mut queue);
        }
    }

    /// Lets a request take off, ahead of all others if somebody waits for it.
    fn begin(&self, request: Request, first: bool) -> Option<Arc<Flight>> {
        let (ino, cause) = (request.ino, request.cause);
        match self.take_off(request) {
            Ok(Some(flight)) => {
                let flight = Arc::new(flight);
                let mut queue = self.fetcher.queue.lock();
                queue.in_flight_bytes += flight.size;
                if first {
                    queue.flights.push_front(flight.clone());
                } else {
                    queue.flights.push_back(flight.clone());
                }
                drop(queue);
                if flight.size > flight.piece_bytes || !first {
                    self.fetcher.work.notify_all();
                }
                Some(flight)
            }
            other => {
                if let Err(e) = other {
                    log::debug!("inode {} is not fetched: {e}", ino.0);
                }
                self.fetcher.count(cause, None);
                self.not_fetched(ino);
                self.fetcher.end(ino, None);
                None
            }
        }
    }

    fn take_off(&self, request: Request) -> Result<Option<Flight>> {
        let inode = match &request.link {
            Some((directory, name)) => self.find(*directory, name)?,
            None => self.inode(request.ino)?,
        };
        let (size, touched, baseline) = {
            let state = inode.state.lock();
            if state.file.place != Place::Backing || state.file.epoch.is_some() || state.file.dirty {
                return Ok(None);
            }
            (state.attr.size, state.file.touched, state.baseline())
        };
        if size == 0 || !self.promise(size) {
            return Ok(None);
        }
        let opened = self.open_both_ends(&inode, size);
        let Ok(Some((source, target))) = opened else {
            self.promise_ended(size);
            return opened.map(|_| None);
        };
        let piece_bytes = self.fetcher.pace.lock().piece_bytes(size);
        Ok(Some(Flight {
            inode,
            request,
            size,
            touched,
            baseline,
            source,
            target: Mutex::new(Some(Arc::new(target))),
            piece_bytes,
            next: AtomicU64::new(0),
            left: AtomicU64::new(size.div_ceil(piece_bytes)),
            failed: AtomicBool::new(false),
        }))
    }

    fn open_both_ends(&self, inode: &Inode, size: u64) -> Result<Option<(File, File)>> {
        let source = {
            let _shape = self.shape.read_recursive();
            self.backing.open_read(&self.drained_path(inode.ino)?)?
        };
        if crate::arena::in_use(&source) {
            // A mapping of the backing's file outlived its close: a copy would not see what is stored there.
            return Ok(None);
        }
        let target = self.arena.begin_fetch(inode.ino)?;
        target.set_len(size)?;
        Ok(Some((source, target)))
    }

    fn fetch_piece(&self, flight: &Arc<Flight>, piece: Range<u64>) {
        let target = flight.target.lock().clone();
        let read = match &target {
            Some(target) if !flight.failed.load(Ordering::Relaxed) => {
                self.read_piece(&flight.source, target, piece)
            }
            _ => Ok(()),
        };
        drop(target);
        if let Err(e) = read {
            log::debug!("inode {} is not fetched: {e}", flight.inode.ino.0);
            flight.failed.store(true, Ordering::Relaxed);
        }
        if flight.piece_done() {
            self.land(flight);
        }
    }

    fn read_piece(&self, source: &File, target: &File, piece: Range<u64>) -> io::Result<()> {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let bytes = piece.end - piece.start;
        if bytes <= BUFFER_BYTES {
            BUFFER.with_borrow_mut(|buffer| {
                buffer.resize(BUFFER_BYTES as usize, 0);
                let part = &mut buffer[..bytes as usize];
                self.read_exact(source, part, piece.start)?;
                target.write_all_at(part, piece.start)
            })?;
        } else {
            // SAFETY: the file is ours alone until it lands, so that nobody cuts it; what fills it are system calls.
            let mut map =
                unsafe { memmap2::MmapOptions::new().offset(piece.start).len(bytes as usize).map_mut(target)? };
            // At once and in large pages. Where memory ends here it ends below, too, with an error.
            let _ = map.advise(memmap2::Advice::PopulateWrite);
            self.read_exact(source, &mut map, piece.start)?;
        }
        self.backing.forget_pages(source, piece);
        Ok(())
    }

    fn read_exact(&self, source: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let start = Instant::now();
            match self.backing.read_at(source, &mut buffer[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.fetcher.pace.lock().learn(n as u64, start.elapsed());
                    done += n;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// All pieces are read: the file is in memory now, if it is still the one that took off.
    fn land(&self, flight: &Arc<Flight>) {
        drop(flight.target.lock().take());
        let ino = flight.inode.ino;
        let taken = !flight.failed.load(Ordering::Relaxed) && self.take_in(flight).unwrap_or(false);
        self.promise_ended(flight.size);
        if taken {
            self.fetcher.count(flight.request.cause, Some(flight.size));
            self.came_in(ino, flight.size);
        } else {
            self.arena.drop_fetched(ino);
            self.fetcher.count(flight.request.cause, None);
            self.not_fetched(flight.request.ino);
        }
        self.fetcher.end(flight.request.ino, Some(flight));
    }

    fn take_in(&self, flight: &Flight) -> Result<bool> {
        let ino = flight.inode.ino;
        let _turn = self.drain.turn(ino);
        let mut state = flight.inode.state.lock();
        let held = |baseline: Option<Baseline>| baseline.map(|b| (b.id, b.size, b.mtime));
        let same = state.file.touched == flight.touched
            && state.attr.size == flight.size
            && held(state.baseline()) == held(flight.baseline);
        if !same || state.file.place != Place::Backing || state.file.epoch.is_some() || state.file.dirty {
            return Ok(false);
        }
        self.arena.take_fetched(ino)?;
        let stat = self.arena.open_read(ino)?.stat()?;
        self.arena.moved(stat.blocks * 512, 0);
        state.file.place = Place::Arena;
        state.file.know(&stat);
        state.file.clean = Some(stat.stamp);
        state.file.chunks = None;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_so_large_that_latency_is_a_small_part() {
        let mut pace = Pace::default();
        assert_eq!(pace.piece_bytes(1 << 30), PIECE_BYTES);
        for _ in 0..100 {
            pace.learn(4096, Duration::from_millis(5));
            pace.learn(8 << 20, Duration::from_secs_f64(0.005 + 8.0 / 300.0));
        }
        let piece = pace.piece_bytes(1 << 30) as f64;
        let moving = piece / f64::from(300 << 20);
        assert!(0.005 / (0.005 + moving) < 0.07, "{piece}");
        // A small file is shared out, but not into crumbs.
        assert_eq!(pace.piece_bytes(32 << 20), 4 << 20);
        assert_eq!(pace.piece_bytes(3 << 20), PIECE_BYTES_MIN);
    }
}
