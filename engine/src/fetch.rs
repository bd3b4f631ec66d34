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
//! Pieces are sized by what is measured: so large that the latency of a call is a small part of it ([`Pace`]). They go
//! through buffers that are kept while there is work; reading into a mapping of the new file saves a copy, and was no
//! faster (docs/design/0005).
//!
//! An open that needs a file that is in flight waits for it and helps; one that is still queued is taken over. So
//! opens need no threads of ours, which is how an engine that was not started works; what is only queued does.

use crate::engine::Engine;
use crate::error::Result;
use crate::failpoint;
use crate::ids::{Ino, Name};
use crate::namespace::{Baseline, Inode, InodeState, OpenMode, Place};
use crate::predict::By;
use crate::tier::Copy;
use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod scan;

pub use scan::{Course, Scan};

/// Large pieces under way at once: parallel file systems give one client about eight streams, and while a piece is
/// written to the arena its stream would be idle.
const PIECES: u64 = 12;
/// Threads. A small file is three calls that only wait: more of them are under way at once.
pub(crate) const THREADS: usize = 32;
/// Files up to this size are read by one call.
const SMALL_BYTES: u64 = 1 << 20;
/// Pieces of a file before anything was measured, and the least and most later. Each is a buffer.
const PIECE_BYTES: u64 = 8 << 20;
const PIECE_BYTES_MIN: u64 = 1 << 20;
const PIECE_BYTES_MAX: u64 = 32 << 20;
/// Pieces of a file that comes from a device: whole pages of its copy.
const COPIED_PIECE_BYTES: u64 = 4 * crate::tier::PAGE_BYTES;
/// A file that is scanned is fetched whole if it is at most one part in so many of the budget.
const SCANNED_SHARE: u64 = 2;
/// Buffers take one part in so many of the budget at most.
const BUFFERS_SHARE: u64 = 16;
/// A piece takes so many times the latency of a call: about 3% are lost to it then.
const LATENCIES: f64 = 32.0;
/// Reads up to this size tell the latency, those from [`SMALL_BYTES`] on the rate.
const LATENCY_BYTES_MAX: u64 = 128 << 10;
/// Weight of a new measurement.
const WEIGHT: f64 = 0.2;

thread_local! {
    /// A small file on its way.
    static SMALL: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Why a file is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// An open waits for it.
    Demand,
    /// Somebody asked for it to be in memory.
    Warm,
    /// It was predicted.
    Predicted(By),
    /// It is read in an order, and its reader is there.
    Scan(Course),
}

impl Cause {
    /// A word for status.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Demand => "demand",
            Cause::Warm => "warm",
            Cause::Predicted(by) => by.word(),
            Cause::Scan(_) => "scan",
        }
    }

    /// Whether somebody is waiting for it already, and not only expected to.
    fn has_reader(self) -> bool {
        matches!(self, Cause::Demand | Cause::Scan(_))
    }
}

/// A file to be fetched.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its inode.
    pub ino: Ino,
    /// A name to look it up by, where the inode may not be known yet.
    pub link: Option<(Ino, Name)>,
    /// Its size, about; 0 where nobody knows.
    pub bytes: u64,
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
    /// Of large pieces, while there are any: as many as streams. Mapped, so that their memory goes back at once.
    buffers: Mutex<Vec<memmap2::MmapMut>>,
    pace: Mutex<Pace>,
    counts: Mutex<FxHashMap<&'static str, Fetched>>,
}

/// A leaf lock.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Those that are waited for first, then as they were queued.
    flights: VecDeque<Arc<Flight>>,
    /// Requests so far.
    turn: u64,
    /// Pieces of large files that are taking off, as far as their sizes were known.
    taking_off: u64,
    /// Inodes of both.
    known: FxHashSet<Ino>,
    /// Inodes that somebody waits for, and that are taking off.
    wanted: FxHashSet<Ino>,
    in_flight_bytes: u64,
    /// Large pieces that are under way.
    large: u64,
}

/// A request in the queue.
#[derive(Debug)]
struct Waiting {
    request: Request,
    /// Its number: take-offs take differently long, and what was queued first is wanted first.
    turn: u64,
}

impl Waiting {
    /// About so many, if it is large.
    fn pieces(&self) -> u64 {
        if self.request.bytes > SMALL_BYTES { self.request.bytes.div_ceil(PIECE_BYTES) } else { 0 }
    }

    fn has_reader(&self) -> bool {
        self.request.cause.has_reader()
    }
}

impl Queue {
    /// The next to take off that somebody waits for.
    fn next_waited_for(&mut self) -> Option<Waiting> {
        if self.waiting.front()?.has_reader() { self.waiting.pop_front() } else { None }
    }

    /// The next to take off; small files pass by large ones while enough pieces of those wait to be read. What takes
    /// off later does so when more is known of the backing, or not at all.
    fn next_waiting(&mut self) -> Option<Waiting> {
        let large = self.flights.iter().filter(|flight| flight.is_large());
        let enough = self.taking_off + large.map(|flight| flight.pieces_left()).sum::<u64>() >= PIECES;
        let place = self.waiting.iter().position(|waiting| !enough || waiting.pieces() == 0)?;
        let waiting = self.waiting.remove(place)?;
        self.taking_off += waiting.pieces();
        Some(waiting)
    }

    fn take_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    fn fly(&mut self, flight: Arc<Flight>) {
        if self.wanted.remove(&flight.inode.ino) {
            flight.waited_for.store(true, Ordering::Relaxed);
        }
        let rank = |flight: &Flight| (!flight.waited_for.load(Ordering::Relaxed), flight.turn);
        let place = self.flights.partition_point(|other| rank(other) < rank(&flight));
        self.flights.insert(place, flight);
    }

    /// Somebody waits for it from now on; gives its flight, if it is in the air.
    fn want(&mut self, ino: Ino) -> Option<Arc<Flight>> {
        let flight = self.flight_of(ino);
        match &flight {
            Some(flight) => self.promote(flight),
            None if self.known.contains(&ino) => drop(self.wanted.insert(ino)),
            None => {}
        }
        flight
    }

    fn promote(&mut self, flight: &Arc<Flight>) {
        if flight.waited_for.load(Ordering::Relaxed) {
            return;
        }
        let flying = self.flights.len();
        self.flights.retain(|other| !Arc::ptr_eq(other, flight));
        if self.flights.len() < flying {
            flight.waited_for.store(true, Ordering::Relaxed);
            self.fly(flight.clone());
        }
    }

    fn flight_of(&self, ino: Ino) -> Option<Arc<Flight>> {
        self.flights.iter().find(|flight| flight.inode.ino == ino).cloned()
    }

    /// A piece to be read: of the oldest flight that has one, if a stream is free for it.
    fn next_piece(&mut self) -> Option<(Arc<Flight>, Range<u64>)> {
        let large = self.large;
        let (flight, piece) = self
            .flights
            .iter()
            .filter(|flight| !flight.is_large() || large < PIECES)
            .find_map(|flight| Some((flight.clone(), flight.take_piece()?)))?;
        self.large += u64::from(flight.is_large());
        Some((flight, piece))
    }
}

/// A file on its way.
#[derive(Debug)]
struct Flight {
    inode: Arc<Inode>,
    request: Request,
    /// Its pieces are read before those of files that are only expected to be wanted. Changes under the queue's lock.
    waited_for: AtomicBool,
    turn: u64,
    size: u64,
    /// What the file was when it began: changes counted, and what the backing held.
    touched: u64,
    baseline: Option<Baseline>,
    source: File,
    /// In a device's memory, from where it comes sooner.
    copy: Option<Arc<Copy>>,
    /// Gone before the flight ends: no descriptor of ours that writes may be left.
    target: Mutex<Option<Arc<File>>>,
    /// Held while a piece is written: the kernel lets one thread write a file at a time, and has the others spin.
    writing: Mutex<()>,
    piece_bytes: u64,
    /// The piece that is read first, where a reader is already, and whether those before it come next.
    first: u64,
    backward: bool,
    next: AtomicU64,
    left: AtomicU64,
    failed: AtomicBool,
    /// Of each piece.
    stages: Mutex<Box<[Stage]>>,
    staged: Condvar,
}

/// How far a piece is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Reading,
    There,
}

impl Flight {
    /// Larger than what is read by one call into a buffer.
    fn is_large(&self) -> bool {
        self.size > SMALL_BYTES
    }

    /// Whether the file is what it was when this began, as far as is known here.
    fn is_still(&self, state: &InodeState) -> bool {
        let held = |baseline: Option<Baseline>| baseline.map(|b| (b.id, b.size, b.mtime));
        state.file.touched == self.touched
            && state.attr.size == self.size
            && held(state.baseline()) == held(self.baseline)
    }

    fn pieces(&self) -> u64 {
        self.size.div_ceil(self.piece_bytes)
    }

    /// Pieces that nobody reads yet.
    fn pieces_left(&self) -> u64 {
        self.pieces().saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// A piece that nobody reads yet.
    fn take_piece(&self) -> Option<Range<u64>> {
        let pieces = self.pieces();
        let taken = self.next.fetch_add(1, Ordering::Relaxed);
        if taken >= pieces {
            return None;
        }
        let piece = (if self.backward { self.first + pieces - taken } else { self.first + taken }) % pieces;
        self.stages.lock()[piece as usize] = Stage::Reading;
        let start = piece * self.piece_bytes;
        Some(start..self.size.min(start + self.piece_bytes))
    }

    /// Waits for the pieces of `range` that are being read; false if one is not even that, or failed.
    fn wait_for(&self, range: &Range<u64>) -> bool {
        let pieces = range.start / self.piece_bytes..range.end.div_ceil(self.piece_bytes);
        let mut stages = self.stages.lock();
        loop {
            let asked = &stages[pieces.start as usize..pieces.end as usize];
            if asked.contains(&Stage::Waiting) || self.failed.load(Ordering::Relaxed) {
                return false;
            }
            if asked.iter().all(|stage| *stage == Stage::There) {
                return true;
            }
            self.staged.wait(&mut stages);
        }
    }

    fn arrived(&self, piece: &Range<u64>) {
        self.stages.lock()[(piece.start / self.piece_bytes) as usize] = Stage::There;
        self.staged.notify_all();
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
        } else if bytes >= SMALL_BYTES {
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

    /// Bytes of a piece of a file of `size`: small enough for all streams to have a share, and for the buffers of all to
    /// be a small part of `budget_bytes`.
    fn piece_bytes(&self, size: u64, budget_bytes: u64) -> u64 {
        let good = match (self.latency, self.rate) {
            (Some(latency), Some(rate)) => (latency * rate * LATENCIES) as u64,
            _ => PIECE_BYTES,
        };
        let share = size.div_ceil(PIECES);
        good.min(share.max(PIECE_BYTES_MIN))
            .min(budget_bytes / BUFFERS_SHARE / PIECES)
            .clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX)
            .next_multiple_of(PIECE_BYTES_MIN)
    }
}

impl Fetcher {
    /// What came in so far, by the word of its cause.
    pub fn counts(&self) -> Vec<(&'static str, Fetched)> {
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
        self.queue.lock().known.contains(&ino)
    }

    /// Queues files behind what is queued, those with readers before those without. What is known already stays where
    /// it is. A list, and nothing that is worked out under the queue's lock.
    pub(crate) fn add(&self, requests: Vec<Request>) {
        let mut queue = self.queue.lock();
        for request in requests {
            if !queue.known.insert(request.ino) {
                continue;
            }
            let waiting = Waiting { request, turn: queue.take_turn() };
            if waiting.has_reader() {
                let place = queue.waiting.partition_point(Waiting::has_reader);
                queue.waiting.insert(place, waiting);
            } else {
                queue.waiting.push_back(waiting);
            }
        }
        drop(queue);
        self.work.notify_all();
    }

    /// Drops the fetches of files that were predicted and are not wanted any more; those that were not begun, or of
    /// which much is to come. Gives those that were.
    pub(crate) fn call_off(&self, unwanted: &[Ino]) -> Vec<Ino> {
        if unwanted.is_empty() {
            return Vec::new();
        }
        let unwanted: FxHashSet<Ino> = unwanted.iter().copied().collect();
        let is_unwanted = |request: &Request| {
            matches!(request.cause, Cause::Predicted(_)) && unwanted.contains(&request.ino)
        };
        let mut queue = self.queue.lock();
        let is_waited_for = |flight: &Flight| flight.waited_for.load(Ordering::Relaxed);
        for flight in (queue.flights.iter())
            .filter(|flight| flight.is_large() && is_unwanted(&flight.request) && !is_waited_for(flight))
        {
            // Its other pieces are not read, and it is dropped with the last one.
            flight.failed.store(true, Ordering::Relaxed);
        }
        let (dropped, waiting): (Vec<_>, Vec<_>) =
            std::mem::take(&mut queue.waiting).into_iter().partition(|waiting| is_unwanted(&waiting.request));
        queue.waiting = waiting.into();
        for Waiting { request, .. } in &dropped {
            queue.known.remove(&request.ino);
            queue.wanted.remove(&request.ino);
        }
        drop(queue);
        self.ended.notify_all();
        for Waiting { request, .. } in &dropped {
            self.count(request.cause, None);
        }
        dropped.into_iter().map(|waiting| waiting.request.ino).collect()
    }

    /// Waits until none of `inos` is queued or in flight, or the engine stops; `progress` is told now and then how many
    /// may be left.
    pub(crate) fn wait_for(
        &self,
        inos: impl ExactSizeIterator<Item = Ino>,
        stopping: &AtomicBool,
        mut progress: impl FnMut(u64),
    ) {
        const TELL_EVERY: Duration = Duration::from_millis(100);
        let all = inos.len();
        let mut told = Instant::now();
        let mut queue = self.queue.lock();
        for (through, ino) in inos.enumerate() {
            while queue.known.contains(&ino) && !stopping.load(Ordering::Relaxed) {
                if told.elapsed() >= TELL_EVERY {
                    parking_lot::MutexGuard::unlocked(&mut queue, || progress((all - through) as u64));
                    told = Instant::now();
                } else {
                    self.ended.wait_for(&mut queue, TELL_EVERY);
                }
            }
        }
    }

    fn count(&self, cause: Cause, taken: Option<u64>) {
        let mut counts = self.counts.lock();
        let fetched = counts.entry(cause.word()).or_default();
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
        queue.wanted.remove(&ino);
        drop(queue);
        self.ended.notify_all();
    }

    /// Wakes the threads, for them to see that the engine stops.
    pub(crate) fn wake(&self) {
        // Not between a thread's look and its rest.
        let _queue = self.queue.lock();
        self.work.notify_all();
        self.ended.notify_all();
    }
}

impl Engine {
    /// One of the threads that fetch.
    pub(crate) fn run_fetcher(&self) {
        let mut queue = self.fetcher.queue.lock();
        while !self.stopping.load(Ordering::Relaxed) {
            if let Some(waiting) = queue.next_waited_for() {
                drop(queue);
                self.begin(waiting, true);
            } else if let Some((flight, piece)) = queue.next_piece() {
                drop(queue);
                self.fetch_piece(&flight, piece);
                if flight.is_large() {
                    self.fetcher.queue.lock().large -= 1;
                    self.fetcher.work.notify_one();
                }
                drop(flight);
            } else if let Some(waiting) = queue.next_waiting() {
                let pieces = waiting.pieces();
                drop(queue);
                self.begin(waiting, false);
                if pieces > 0 {
                    self.fetcher.queue.lock().taking_off -= pieces;
                    self.fetcher.work.notify_one();
                }
            } else {
                SMALL.take();
                self.fetcher.buffers.lock().clear();
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
            match queue.waiting.iter().position(|waiting| waiting.request.ino == inode.ino) {
                Some(at) => queue.waiting.remove(at),
                None => queue.known.insert(inode.ino).then(|| {
                    let request = Request { ino: inode.ino, link: None, bytes: 0, cause };
                    Waiting { request, turn: queue.take_turn() }
                }),
            }
        };
        if let Some(waiting) = mine {
            self.begin(waiting, true);
        }
        let under_way = self.fetcher.queue.lock().want(inode.ino);
        if let Some(flight) = under_way {
            while let Some(piece) = flight.take_piece() {
                self.fetch_piece(&flight, piece);
            }
        }
        self.fetcher.wait_for(std::iter::once(inode.ino), &self.stopping, |_| {});
    }

    /// Lets a request take off, ahead of those that nobody waits for if somebody waits for it.
    fn begin(&self, waiting: Waiting, waited_for: bool) {
        let (ino, cause) = (waiting.request.ino, waiting.request.cause);
        match self.take_off(waiting, waited_for) {
            Ok(Some(flight)) => {
                let flight = Arc::new(flight);
                let mut queue = self.fetcher.queue.lock();
                queue.in_flight_bytes += flight.size;
                queue.fly(flight.clone());
                drop(queue);
                if flight.size > flight.piece_bytes || !waited_for {
                    self.fetcher.work.notify_all();
                }
            }
            other => {
                if let Err(e) = other {
                    log::debug!("inode {} is not fetched: {e}", ino.0);
                }
                self.fetcher.count(cause, None);
                self.not_fetched(ino);
                self.fetcher.end(ino, None);
            }
        }
    }

    fn take_off(&self, waiting: Waiting, waited_for: bool) -> Result<Option<Flight>> {
        let Waiting { request, turn } = waiting;
        let inode = match &request.link {
            Some((directory, name)) => self.find(*directory, name)?,
            None => self.inode(request.ino)?,
        };
        if inode.ino != request.ino {
            // Another file took the name since it was listed: it is known under its own number.
            return Ok(None);
        }
        let (size, touched, baseline, copy) = {
            let state = inode.state.lock();
            if !may_come_in(&state) {
                return Ok(None);
            }
            (state.attr.size, state.file.touched, state.baseline(), self.copy_of(inode.ino, &state))
        };
        if size == 0 || !self.promise(size) {
            return Ok(None);
        }
        let opened = self.open_both_ends(&inode, size, baseline);
        let Ok(Some((source, target))) = opened else {
            self.promise_ended(size);
            return opened.map(|_| None);
        };
        let piece_bytes = match &copy {
            Some(_) => COPIED_PIECE_BYTES,
            None => self.fetcher.pace.lock().piece_bytes(size, self.arena.budget_bytes()),
        };
        let pieces = size.div_ceil(piece_bytes);
        let (first, backward) = match request.cause {
            Cause::Scan(course) => ((course.next / piece_bytes).min(pieces - 1), course.backward),
            _ => (0, false),
        };
        Ok(Some(Flight {
            inode,
            request,
            waited_for: AtomicBool::new(waited_for),
            turn,
            size,
            touched,
            baseline,
            source,
            copy,
            target: Mutex::new(Some(Arc::new(target))),
            writing: Mutex::new(()),
            piece_bytes,
            first,
            backward,
            next: AtomicU64::new(0),
            left: AtomicU64::new(pieces),
            failed: AtomicBool::new(false),
            stages: Mutex::new(vec![Stage::Waiting; pieces as usize].into()),
            staged: Condvar::new(),
        }))
    }

    fn open_both_ends(
        &self,
        inode: &Inode,
        size: u64,
        baseline: Option<Baseline>,
    ) -> Result<Option<(File, File)>> {
        let start = Instant::now();
        let source = {
            let _shape = self.shape.read_recursive();
            self.backing.open_read(&self.drained_path(inode.ino)?)?
        };
        self.fetcher.pace.lock().learn(0, start.elapsed());
        if !is_that(&source, baseline) {
            return Ok(None);
        }
        // We hold it open ourselves while its readers come to us.
        let ours = inode.state.lock().file.epoch.is_some();
        if !ours && crate::arena::in_use(&source) {
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
                self.read_piece(flight, target, piece.clone())
            }
            _ => Ok(()),
        };
        drop(target);
        if let Err(e) = read {
            log::debug!("inode {} is not fetched: {e}", flight.inode.ino.0);
            flight.failed.store(true, Ordering::Relaxed);
        }
        flight.arrived(&piece);
        if flight.piece_done() {
            self.land(flight);
        }
    }

    fn read_piece(&self, flight: &Flight, target: &File, piece: Range<u64>) -> io::Result<()> {
        if let (Some(copy), Some(tier)) = (&flight.copy, self.tier.get()) {
            match tier.copy_out(flight.inode.ino, copy, piece.clone(), target, &flight.writing) {
                Ok(()) => return Ok(()),
                Err(e) => log::warn!("inode {}: {e}; it is read from the backing", flight.inode.ino.0),
            }
        }
        let bytes = (piece.end - piece.start) as usize;
        let through = |buffer: &mut [u8]| {
            self.read_exact(&flight.source, buffer, piece.start)?;
            let _alone = flight.writing.lock();
            target.write_all_at(buffer, piece.start)
        };
        if bytes as u64 <= SMALL_BYTES {
            SMALL.with_borrow_mut(|buffer| {
                if buffer.len() < bytes {
                    buffer.resize(bytes, 0);
                }
                through(&mut buffer[..bytes])
            })?;
        } else {
            let kept = self.fetcher.buffers.lock().pop().filter(|buffer| buffer.len() >= bytes);
            let mut buffer = match kept {
                Some(buffer) => buffer,
                None => memmap2::MmapMut::map_anon(bytes)?,
            };
            let result = through(&mut buffer[..bytes]);
            self.fetcher.buffers.lock().push(buffer);
            result?;
        }
        self.backing.forget_pages(&flight.source, piece);
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

    /// Reads from a file that is on its way, waiting for pieces that are being read. `None`: it isn't on its way, or what is
    /// asked for has not begun to come.
    pub(crate) fn read_in_flight(&self, inode: &Arc<Inode>, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let flight = self.fetcher.queue.lock().flight_of(inode.ino)?;
        {
            // What was written since it took off is not in it.
            let state = inode.state.lock();
            if !Arc::ptr_eq(&flight.inode, inode) || !flight.is_still(&state) || !may_come_in(&state) {
                return None;
            }
        }
        let end = flight.size.min(offset + buffer.len() as u64);
        if offset >= end {
            return None;
        }
        if !flight.wait_for(&(offset..end)) {
            self.fetcher.queue.lock().promote(&flight);
            return None;
        }
        let target = flight.target.lock().clone()?;
        let length = (end - offset) as usize;
        target.read_exact_at(&mut buffer[..length], offset).ok()?;
        Some(length)
    }

    /// Notes where a file that the daemon serves from the backing is read, and has it fetched once there is an order in
    /// that.
    pub(crate) fn note_scan(&self, inode: &Inode, offset: u64, bytes: u64) {
        let (size, scanned) = {
            let mut state = inode.state.lock();
            let size = state.attr.size;
            let room = size > SMALL_BYTES && size <= self.arena.budget_bytes() / SCANNED_SHARE;
            let Some(epoch) = state.file.epoch.as_mut().filter(|_| room) else { return };
            (size, epoch.scan.read(offset, bytes))
        };
        if let Some(course) = scanned.filter(|_| self.foresees_scans() && !self.fetcher.knows(inode.ino)) {
            self.fetcher.add(vec![Request {
                ino: inode.ino,
                link: None,
                bytes: size,
                cause: Cause::Scan(course),
            }]);
        }
    }

    /// All pieces are read: the file is in memory now, if it is still the one that took off.
    fn land(&self, flight: &Arc<Flight>) {
        drop(flight.target.lock().take());
        let ino = flight.inode.ino;
        if matches!(flight.request.cause, Cause::Predicted(_)) {
            // Before anybody could open it there.
            self.awaited.lock().insert(ino);
        }
        let taken = !flight.failed.load(Ordering::Relaxed) && self.take_in(flight).unwrap_or(false);
        self.promise_ended(flight.size);
        if taken {
            self.fetcher.count(flight.request.cause, Some(flight.size));
            if let (Some(_), Some(tier)) = (&flight.copy, self.tier.get()) {
                tier.came_back(flight.size);
            }
            self.came_in(ino, flight.size);
        } else {
            self.arena.drop_fetched(ino);
            self.awaited.lock().remove(&ino);
            self.fetcher.count(flight.request.cause, None);
            self.not_fetched(flight.request.ino);
        }
        self.fetcher.end(flight.request.ino, Some(flight));
    }

    fn take_in(&self, flight: &Flight) -> Result<bool> {
        let ino = flight.inode.ino;
        if !is_that(&flight.source, flight.baseline) {
            // Somebody changed it while it was read.
            return Ok(false);
        }
        let _turn = self.drain.turn(ino);
        let names = self.names.lock();
        // The inode may have been forgotten, and the file found again as another one.
        if !names.inode(ino).is_some_and(|inode| Arc::ptr_eq(inode, &flight.inode)) {
            return Ok(false);
        }
        let mut state = flight.inode.state.lock();
        drop(names);
        let closed = state.file.epoch.is_none();
        if !flight.is_still(&state)
            || !may_come_in(&state)
            || (closed && (state.nameless() || crate::arena::in_use(&flight.source)))
        {
            return Ok(false);
        }
        failpoint::pass("before", "fetched-in");
        self.arena.take_fetched(ino)?;
        failpoint::pass("after", "fetched-in");
        if let Some(epoch) = &mut state.file.epoch {
            // Its readers go on in memory.
            epoch.mode = OpenMode::Daemon(Arc::new(self.arena.open_write(ino)?));
        }
        let stat = self.arena.open_read(ino)?.stat()?;
        self.arena.moved(stat.blocks * 512, 0);
        state.file.place = Place::Arena;
        self.journal.cached(ino, true);
        state.file.know(&stat);
        state.file.clean = Some(stat.stamp);
        state.file.chunks = None;
        Ok(true)
    }
}

/// Whether a file could be served from the arena: it is cold, and closed or read through the daemon alone.
fn may_come_in(state: &InodeState) -> bool {
    let file = &state.file;
    let open_elsewhere = file
        .epoch
        .as_ref()
        .is_some_and(|epoch| epoch.writers > 0 || !matches!(epoch.mode, OpenMode::Daemon(_)));
    let mapped = file.lingering || file.mapped.is_some();
    file.place == Place::Backing && !file.dirty && !open_elsewhere && !mapped
}

/// Whether an open file is the object that the backing had, and holds what that held.
fn is_that(source: &File, baseline: Option<Baseline>) -> bool {
    let now = crate::engine::stat_of_file(source).map(|now| (now.id, now.stamp.size, now.stamp.mtime)).ok();
    now.is_some() && now == baseline.map(|b| ((b.id.dev, b.id.ino), b.size, b.mtime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_so_large_that_latency_is_a_small_part() {
        let mut pace = Pace::default();
        assert_eq!(pace.piece_bytes(1 << 30, 8 << 30), PIECE_BYTES);
        for _ in 0..100 {
            pace.learn(4096, Duration::from_millis(5));
            pace.learn(8 << 20, Duration::from_secs_f64(0.005 + 8.0 / 300.0));
        }
        let piece = pace.piece_bytes(1 << 30, 8 << 30) as f64;
        let moving = piece / f64::from(300 << 20);
        assert!(0.005 / (0.005 + moving) < 0.05, "{piece}");
        // A small file is shared out, but not into crumbs; a small budget makes small buffers.
        assert_eq!(pace.piece_bytes(32 << 20, 8 << 30), 3 << 20);
        assert_eq!(pace.piece_bytes(3 << 20, 8 << 30), PIECE_BYTES_MIN);
        assert_eq!(pace.piece_bytes(1 << 30, 256 << 20), 2 << 20);
    }

    fn request(ino: u64, bytes: u64, cause: Cause) -> Request {
        Request { ino: Ino(ino), link: None, bytes, cause }
    }

    #[test]
    fn who_is_read_goes_first_and_few_large_files_take_off_at_once() {
        let fetcher = Fetcher::default();
        let predicted = Cause::Predicted(By::Restore);
        let course = Course { next: 0, backward: false };
        fetcher.add(vec![
            request(1, 30 * PIECE_BYTES, predicted),
            request(2, 30 * PIECE_BYTES, predicted),
            request(3, 1000, predicted),
        ]);
        fetcher.add(vec![request(4, 30 * PIECE_BYTES, Cause::Scan(course))]);
        fetcher.add(vec![request(5, 1000, Cause::Scan(course))]);
        let mut queue = fetcher.queue.lock();
        let number = |waiting: Option<Waiting>| waiting.map(|waiting| waiting.request.ino.0);
        assert_eq!([(); 3].map(|()| number(queue.next_waited_for())), [Some(4), Some(5), None]);
        assert_eq!([(); 3].map(|()| number(queue.next_waiting())), [Some(1), Some(3), None]);
        queue.taking_off = 0;
        assert_eq!(number(queue.next_waiting()), Some(2));
    }

    #[test]
    fn pieces_are_of_who_is_waited_for_and_then_in_the_order_of_requests() {
        let flight = |turn, waited_for| {
            let now = crate::attr::Timestamp::now();
            let attr = crate::attr::Attr {
                kind: crate::Kind::File,
                mode: 0o644,
                uid: 0,
                gid: 0,
                nlink: 1,
                rdev: 0,
                size: 4 * PIECE_BYTES,
                blocks: 0,
                atime: now,
                mtime: now,
                ctime: now,
            };
            let link = (Ino::ROOT, Name::from(&b"file"[..]));
            Arc::new(Flight {
                inode: Arc::new(Inode::new(Ino(turn), attr, link)),
                request: request(turn, attr.size, Cause::Demand),
                waited_for: AtomicBool::new(waited_for),
                turn,
                size: attr.size,
                touched: 0,
                baseline: None,
                source: tempfile::tempfile().expect("a file"),
                copy: None,
                target: Mutex::default(),
                writing: Mutex::default(),
                piece_bytes: PIECE_BYTES,
                first: 0,
                backward: false,
                next: AtomicU64::new(0),
                left: AtomicU64::new(4),
                failed: AtomicBool::new(false),
                stages: Mutex::new(vec![Stage::Waiting; 4].into()),
                staged: Condvar::new(),
            })
        };
        let mut queue = Queue::default();
        for (turn, waited_for) in [(2, false), (1, false), (3, false), (4, true)] {
            queue.fly(flight(turn, waited_for));
        }
        let turns = |queue: &Queue| queue.flights.iter().map(|flight| flight.turn).collect::<Vec<_>>();
        assert_eq!(turns(&queue), [4, 1, 2, 3]);
        let third = queue.flights[3].clone();
        queue.promote(&third);
        assert_eq!(turns(&queue), [3, 4, 1, 2]);
        let landed = flight(9, false);
        queue.promote(&landed);
        assert_eq!(turns(&queue), [3, 4, 1, 2], "what is not in the air stays so");
        queue.known.insert(Ino(5));
        assert!(queue.want(Ino(5)).is_none(), "it takes off");
        queue.fly(flight(5, false));
        assert_eq!(turns(&queue), [3, 4, 5, 1, 2]);
        let of: Vec<u64> = std::iter::from_fn(|| queue.next_piece()).map(|(flight, _)| flight.turn).collect();
        assert_eq!(of, [[3; 4], [4; 4], [5; 4]].concat(), "twelve at once, of twenty");
    }
}
