//! What survives the death of the daemon: every change and every dirty file, written to memory that outlives the
//! process before it is answered.
//!
//! The journal is a file beside the arena's files, written through a mapping (`mapped`). A record is length, checksum,
//! then the record in postcard's encoding, and behind it the number of the request that it answers, if it answers one; a
//! torn tail ends the reading and is ignored, since what it would have said was not answered.
//!
//! 1. While the daemon lives the journal is only appended to, and rewritten from the live state when it has grown.
//! 2. The next daemon reads it ([`Follower`]), best before it is needed, and its engine goes on where the last one ended: the same inodes under the
//!    same numbers, the same changes waiting for the drain.
//! 3. A change and the request that asked for it are one record: a request that is given to the next daemon again is
//!    answered from it, and not done twice.
//!
//! Content is not in the journal: it is in the arena's files, which say themselves what they hold.

mod follow;
mod lookups;
mod mapped;
mod record;
mod replay;

pub use follow::{Follower, Lost};
pub use lookups::References;
pub(crate) use lookups::Slot;
pub use record::{Answered, Basis, Held, Record};
pub use replay::{Node, Recovered};

use crate::attr::Attr;
use crate::failpoint;
use crate::ids::{Ino, Seq};
use crate::namespace::{InodeState, Link};
use crate::oplog::Change;
use lookups::Lookups;
use mapped::Mapped;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::{Mode, OFlags};
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Rewritten when it has grown by at least this much, and to twice of what it held after the last rewrite.
const GROWTH_BYTES_MIN: u64 = 16 << 20;
/// FUSE sets this in the number of a request that comes again.
pub const AGAIN: u64 = 1 << 63;
/// Answers that are kept, and those of requests that are not answered yet. Who reads a journal keeps twice as many, since
/// those that were noted again stand in it twice.
const ANSWERS: usize = 4096;

/// What the last requests came to, by their numbers, in the order in which that was noted: of one that is noted more than
/// once the last word counts.
#[derive(Debug, Clone, Default)]
pub struct Answers(VecDeque<(u64, Answered)>);

impl Answers {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Answered)> {
        self.0.iter().copied()
    }
}

/// Whether a request, by its number without [`AGAIN`], is still to be answered; where nobody says, none is.
#[derive(Default)]
struct Awaited(OnceLock<Box<dyn Fn(u64) -> bool + Send + Sync>>);

impl fmt::Debug for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Awaited").field(&self.0.get().is_some()).finish()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    /// Guards the end of the file. Nothing is locked behind it but what [`Journal::keep_answers_while`] asks.
    file: Mutex<Option<End>>,
    /// Beside it: what the kernel holds.
    lookups: Option<Lookups>,
    path: PathBuf,
    bytes: AtomicU64,
    rewritten: AtomicU64,
    /// A record is missing.
    torn: AtomicBool,
    awaited: Awaited,
    /// How often it was rewritten, by daemons before this one, too.
    generation: AtomicU64,
}

/// The end of the journal, where records are added.
#[derive(Debug)]
struct End {
    records: Mapped,
    /// While the journal is being rewritten: what was added meanwhile.
    meanwhile: Option<Vec<u8>>,
    /// Some may not be answered yet.
    answered: Answers,
    /// See [`Journal::note`].
    notes: FxHashMap<u64, Vec<u8>>,
}

impl End {
    fn new(file: File, bytes: u64) -> io::Result<End> {
        let records = Mapped::new(file, bytes)?;
        Ok(End { records, meanwhile: None, answered: Answers::default(), notes: FxHashMap::default() })
    }

    /// Adds whole records, or nothing of them: a torn one would hide all that follow.
    fn add(&mut self, encoded: &[u8]) -> io::Result<()> {
        // Whether or not there is room for it here: there may be in what replaces this.
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.extend_from_slice(encoded);
        }
        self.records.append(encoded)
    }
}

thread_local! {
    /// The request that this thread works on.
    static REQUEST: Cell<Option<u64>> = const { Cell::new(None) };
}

fn new_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::RDWR | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?))
}

/// Where the table of references is.
fn beside(journal: &Path) -> PathBuf {
    journal.with_extension("lookups")
}

/// A request of the kernel is worked on by this thread: the record of what it changes says so. See
/// [`Journal::answering`].
#[derive(Debug)]
#[must_use]
pub struct Answering {
    before: Option<u64>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        REQUEST.set(self.before);
    }
}

impl Journal {
    /// One that keeps nothing.
    pub fn none() -> Journal {
        Journal::default()
    }

    /// Starts a new journal at `path`.
    pub fn create(path: &Path) -> io::Result<Journal> {
        let end = End::new(new_file(path)?, 0)?;
        let lookups = Some(Lookups::create(&beside(path))?);
        Ok(Journal { file: Mutex::new(Some(end)), lookups, path: path.into(), ..Journal::default() })
    }

    /// The one at `path` that another daemon still writes, until that one is gone.
    pub fn beside_another(path: &Path) -> io::Result<Journal> {
        let lookups = Some(Lookups::beside_another(&beside(path))?);
        Ok(Journal { lookups, path: path.into(), ..Journal::default() })
    }

    /// The other daemon is gone, and all that it wrote was read: this one goes on with it, with the kernel that knows it.
    pub(crate) fn take_over(&self, left: &Recovered) -> io::Result<()> {
        if let Some(lookups) = &self.lookups {
            lookups.take_over()?;
        }
        self.resume_with(left)
    }

    /// The same for a kernel that knows nothing of it.
    pub(crate) fn resume(&self, left: &mut Recovered) -> io::Result<()> {
        left.end_connection();
        if let Some(lookups) = &self.lookups {
            lookups.clear()?;
        }
        self.resume_with(left)?;
        self.append(&Record::Connected);
        Ok(())
    }

    fn resume_with(&self, left: &Recovered) -> io::Result<()> {
        let file = File::from(rustix::fs::open(&self.path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?);
        let mut end = End::new(file, left.bytes)?;
        end.notes.clone_from(&left.notes);
        // All that there are: which of them are answered is not known here.
        end.answered.clone_from(&left.answered);
        self.bytes.store(left.bytes, Ordering::Relaxed);
        self.generation.store(left.generation, Ordering::Relaxed);
        *self.file.lock() = Some(end);
        Ok(())
    }

    /// What a request came to is kept for as long as it `is_awaited`, by its number without [`AGAIN`], however many come
    /// after it. It is asked with the journal locked.
    pub fn keep_answers_while(&self, is_awaited: impl Fn(u64) -> bool + Send + Sync + 'static) {
        let _ = self.awaited.0.set(Box::new(is_awaited));
    }

    /// Whether memory for it ended, so that not all that was changed is in it, until it is written anew.
    pub fn is_torn(&self) -> bool {
        self.torn.load(Ordering::Relaxed)
    }

    /// Notes the references that the kernel holds.
    pub(crate) fn references(&self, ino: Ino, state: &mut InodeState) {
        if let Some(lookups) = &self.lookups {
            lookups.set(ino, &mut state.slot, state.lookups);
        }
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// From here on, until what is returned is dropped, what this thread changes is changed by the request of this number.
    /// If the daemon dies before it has answered, the next one is given the same request, and finds in
    /// [`Recovered::answered`] what came of it.
    pub fn answering(request: u64) -> Answering {
        Answering { before: REQUEST.replace(Some(request & !AGAIN)) }
    }

    /// Until what is returned is dropped, what this thread changes is on the way to the change that was asked for: if the
    /// daemon dies, the request is worked on again.
    pub fn preparing() -> Answering {
        Answering { before: REQUEST.replace(None) }
    }

    fn append(&self, record: &Record<'_>) {
        if let Some(end) = &mut *self.file.lock() {
            self.append_to(end, record);
        }
    }

    fn append_to(&self, end: &mut End, record: &Record<'_>) {
        let answered = REQUEST.get().and_then(|request| Some((request, record.answers()?)));
        if let Some((request, answered)) = answered {
            self.keep_answer(end, request, answered);
        }
        failpoint::pass("before", record.name());
        self.add(end, &record.encode(answered.map(|(request, _)| request)));
        failpoint::pass("after", record.name());
    }

    fn keep_answer(&self, end: &mut End, request: u64, answered: Answered) {
        end.answered.0.push_back((request, answered));
        // Two for one, so that there are soon no more than these where a daemon began with twice as many.
        for _ in 0..2 {
            let oldest = if end.answered.0.len() > ANSWERS { end.answered.0.pop_front() } else { None };
            let Some((request, answered)) = oldest else { return };
            if self.awaited.0.get().is_some_and(|is_awaited| is_awaited(request)) {
                // Noted again: whoever reads this keeps the last ones, too.
                end.answered.0.push_back((request, answered));
                self.add(end, &Record::Unanswered { answered }.encode(Some(request)));
            }
        }
    }

    fn add(&self, end: &mut End, encoded: &[u8]) {
        match end.add(encoded) {
            Ok(()) => self.bytes.store(end.records.end(), Ordering::Relaxed),
            // Memory for the journal ended: the change is in the daemon's memory and in the arena still, and the journal
            // is written anew from those.
            Err(e) => {
                if !self.torn.swap(true, Ordering::Relaxed) {
                    log::error!(
                        "the journal can't be written, so the daemon's death would lose changes: {e}"
                    );
                }
            }
        }
    }

    pub(crate) fn made(&self, ino: Ino, link: &Link, state: &InodeState) {
        self.append(&Record::made(ino, link, state));
    }

    /// An object that was found on the backing, or compared with it.
    pub(crate) fn found(&self, ino: Ino, state: &InodeState) {
        self.append(&Record::node(ino, state));
        self.basis(ino, state);
    }

    /// What the backing has of it.
    pub(crate) fn basis(&self, ino: Ino, state: &InodeState) {
        if let Some(baseline) = state.baseline() {
            self.append(&Record::Basis { ino, basis: baseline.into() });
        }
    }

    /// A change, with the attributes that it left, and where the backing has its objects.
    pub(crate) fn committed(
        &self,
        seq: Seq,
        change: &Change,
        attrs: Vec<(Ino, Attr)>,
        drained: Vec<(Ino, Vec<Link>)>,
    ) {
        self.append(&Record::Committed { seq, change: Cow::Borrowed(change), attrs, drained });
    }

    /// Where the backing has it, so that what follows can be understood.
    fn node_if_drained(&self, ino: Ino, state: &InodeState) {
        if !state.drained.is_empty() {
            self.append(&Record::node(ino, state));
        }
    }

    pub(crate) fn attributes(&self, ino: Ino, state: &InodeState) {
        self.node_if_drained(ino, state);
        let xattrs = state.xattrs.to_be_told();
        self.append(&Record::Attributes { ino, attr: state.attr, xattrs });
    }

    pub(crate) fn dirty(&self, ino: Ino, state: &InodeState) {
        self.node_if_drained(ino, state);
        self.append(&Record::dirty(ino, state));
    }

    /// The backing has all of it, but for what became unsettled meanwhile: then nothing of it counts as settled.
    pub(crate) fn settled(&self, ino: Ino, state: &InodeState) {
        self.node_if_drained(ino, state);
        if !state.unsettled() {
            self.append(&Record::Clean { ino });
        }
        self.basis(ino, state);
    }

    /// The making of an object was taken back, with the attributes that this left.
    pub(crate) fn withdrawn(&self, ino: Ino, attrs: Vec<(Ino, Attr)>) {
        self.append(&Record::Withdrawn { ino, attrs });
    }

    /// A clean file came into the arena, or is about to leave it.
    pub(crate) fn cached(&self, ino: Ino, cached: bool) {
        self.append(&Record::Cached { ino, cached });
    }

    /// An inode is no longer known.
    pub(crate) fn dropped(&self, ino: Ino, gone: bool) {
        self.append(&Record::Dropped { ino, gone });
    }

    pub(crate) fn pinned(&self, ino: Ino, pinned: bool) {
        self.append(&Record::Pinned { ino, pinned });
    }

    /// Keeps `value` under `key` for the next daemon, until it is taken back with `None`: what the file system above has to
    /// remember, such as open handles.
    pub fn note(&self, key: u64, value: Option<Vec<u8>>) {
        if let Some(end) = &mut *self.file.lock() {
            let noted = Cow::Borrowed(value.as_deref().unwrap_or_default());
            self.append_to(end, &Record::Note { key, value: noted });
            match value {
                Some(value) => drop(end.notes.insert(key, value)),
                None => drop(end.notes.remove(&key)),
            }
        }
    }

    /// Bytes are about to be appended by the request that this thread works on.
    pub fn appends(&self, ino: Ino, offset: u64) {
        if REQUEST.get().is_some() {
            self.append(&Record::Appends { ino, offset });
        }
    }

    pub(crate) fn done(&self, seq: Seq) {
        self.append(&Record::Done { seq });
    }

    /// Whether it has grown enough to be rewritten.
    pub(crate) fn wants_rewrite(&self) -> bool {
        let rewritten = self.rewritten.load(Ordering::Relaxed);
        self.bytes() > rewritten + rewritten.max(GROWTH_BYTES_MIN) || self.torn.load(Ordering::Relaxed)
    }

    /// From here on, what is added is also kept for the end of [`Journal::rewrite`].
    pub(crate) fn begin_rewrite(&self) {
        if let Some(end) = &mut *self.file.lock() {
            end.meanwhile = Some(Vec::new());
        }
    }

    /// Replaces the journal by `records`, gathered since [`Journal::begin_rewrite`], and what was added meanwhile.
    pub(crate) fn rewrite(&self, records: &[Record<'_>]) -> io::Result<()> {
        let next = self.path.with_extension("new");
        let mut replacement = End::new(new_file(&next)?, 0)?;
        for record in records {
            replacement.add(&record.encode(None))?;
        }
        // From here on others wait.
        let mut file = self.file.lock();
        let Some(end) = &mut *file else { return Ok(()) };
        for (&key, value) in &end.notes {
            replacement.add(&Record::Note { key, value: Cow::Borrowed(value) }.encode(None))?;
        }
        replacement.add(&end.meanwhile.take().unwrap_or_default())?;
        for (request, answered) in end.answered.iter() {
            replacement.add(&Record::Unanswered { answered }.encode(Some(request)))?;
        }
        let generation = self.generation.load(Ordering::Relaxed) + 1;
        let whole = !self.torn.load(Ordering::Relaxed);
        replacement.add(&Record::Rewritten { generation, whole }.encode(None))?;
        failpoint::pass("before", "journal-replaced");
        fs::rename(&next, &self.path)?;
        failpoint::pass("after", "journal-replaced");
        self.torn.store(false, Ordering::Relaxed);
        self.generation.store(generation, Ordering::Relaxed);
        replacement.answered = std::mem::take(&mut end.answered);
        replacement.notes = std::mem::take(&mut end.notes);
        self.bytes.store(replacement.records.end(), Ordering::Relaxed);
        self.rewritten.store(replacement.records.end(), Ordering::Relaxed);
        *end = replacement;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_a_request_came_to_is_kept_until_it_is_answered() {
        const WAITING: u64 = 300;
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("journal");
        let note = |journal: &Journal, requests: std::ops::Range<u64>| {
            for request in requests {
                let _answering = Journal::answering(2 * request);
                journal.withdrawn(Ino(request), Vec::new());
            }
        };
        let read = || Follower::begin(&path).expect("it can be read").left;
        let found = || {
            let left = read();
            let numbers: Vec<u64> = left.answered.iter().map(|(number, _)| number).collect();
            (1..=WAITING).filter(|request| numbers.contains(&(2 * request))).count() as u64
        };
        let first = Journal::create(&path).expect("it opens");
        note(&first, 10_000..10_000 + 2 * ANSWERS as u64);
        drop(first);
        // It begins with twice as many as it keeps.
        let journal = Journal::beside_another(&path).expect("it opens");
        journal.take_over(&read()).expect("it opens");
        let answered = Arc::new(AtomicBool::new(false));
        let is_answered = answered.clone();
        journal.keep_answers_while(move |request| {
            request <= 2 * WAITING && !is_answered.load(Ordering::Relaxed)
        });
        note(&journal, 1..WAITING + 1);
        for time in 0..40 {
            let from = 100_000 + time * 1000;
            note(&journal, from..from + 1000);
            assert_eq!(found(), WAITING, "after {} others", (time + 1) * 1000);
        }
        answered.store(true, Ordering::Relaxed);
        note(&journal, 200_000..200_000 + 3 * ANSWERS as u64);
        assert_eq!(found(), 0);
    }

    #[test]
    fn what_requests_came_to_outlives_two_daemons_and_a_rewriting() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("journal");
        let read = || Follower::begin(&path).expect("it can be read").left;
        let came = |left: &Recovered, request| {
            left.answered.iter().filter(|(number, _)| *number == request).last().map(|(_, came)| came)
        };
        let follow = || {
            let follower = Follower::begin(&path).expect("it can be read");
            (follower, Journal::beside_another(&path).expect("it opens"))
        };
        {
            let journal = Journal::create(&path).expect("it opens");
            let _answering = Journal::answering(40);
            journal.withdrawn(Ino(7), Vec::new());
            journal.note(9, Some(b"handle".to_vec()));
        }
        let (Follower { left, .. }, journal) = follow();
        journal.take_over(&left).expect("it opens");
        {
            // It comes again, and this daemon dies of it, too.
            let _answering = Journal::answering(AGAIN + 42);
            journal.withdrawn(Ino(8), Vec::new());
        }
        journal.begin_rewrite();
        journal.dropped(Ino(3), true);
        journal.rewrite(&[]).expect("there is room");
        let left = read();
        assert_eq!(came(&left, 40), Some(Answered::Noted(9)), "the last word counts");
        assert_eq!(came(&left, 42), Some(Answered::Done(Ino(8))));
        assert_eq!(left.notes.get(&9).map(Vec::as_slice), Some(&b"handle"[..]));
        // Another kernel asks for neither.
        drop(journal);
        let (Follower { mut left, .. }, journal) = follow();
        journal.resume(&mut left).expect("it opens");
        assert!(left.notes.is_empty() && read().notes.is_empty() && read().answered.iter().next().is_none());
    }
    #[test]
    fn who_follows_a_journal_reads_records_of_all_lengths() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).expect("it opens");
        let mut follower = Follower::begin(&path).expect("it can be read");
        for bytes in [1 << 18, 1 << 19, 1 << 20] {
            for length in bytes - 40..bytes + 2 {
                journal.note(7, Some(vec![1; length]));
                follower.follow().expect("it goes on");
                assert_eq!(follower.left.bytes, journal.bytes(), "a note of {length} bytes");
            }
        }
    }

    #[test]
    fn who_follows_a_journal_keeps_as_many_answers_as_who_writes_it() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).expect("it opens");
        for request in 1..5 * ANSWERS as u64 {
            let _answering = Journal::answering(request * 2);
            journal.appends(Ino(request), 0);
            journal.note(request, Some(vec![1]));
        }
        let left = Follower::begin(&path).expect("it can be read").left;
        let came: FxHashMap<u64, Answered> = left.answered.iter().collect();
        assert!((ANSWERS..=2 * ANSWERS).contains(&came.len()), "{}", came.len());
        let last = 5 * ANSWERS as u64 - 1;
        assert!((last - ANSWERS as u64 / 2..=last).all(|r| came[&(r * 2)] == Answered::Noted(r)));
    }

    #[test]
    fn who_follows_a_journal_goes_on_behind_a_rewriting_and_starts_anew_behind_two() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("journal");
        let journal = Journal::create(&path).expect("it opens");
        let rewrite = || {
            journal.begin_rewrite();
            journal.rewrite(&[]).expect("there is room");
        };
        let note = |key: u64| journal.note(key, Some(vec![7; 1000 * key as usize]));
        (1..400).for_each(note);
        let mut follower = Follower::begin(&path).expect("it can be read");
        note(1000);
        follower.follow().expect("it goes on");
        assert_eq!(follower.left.notes.len(), 400);
        note(1001);
        rewrite();
        note(1002);
        follower.follow().expect("it goes on behind the rewriting");
        assert_eq!(follower.left.notes.len(), 402);
        assert_eq!(follower.left.bytes, journal.bytes());
        rewrite();
        note(1003);
        rewrite();
        assert!(matches!(follower.follow(), Err(Lost::Rewritten)));
        let mut follower = Follower::begin(&path).expect("it can be read");
        assert_eq!(follower.left.notes.len(), 403);
        journal.torn.store(true, Ordering::Relaxed);
        rewrite();
        assert!(
            matches!(follower.follow(), Err(Lost::Rewritten)),
            "what is missing in one may be in the other"
        );
    }
}
