//! Questions of group members: answered at once, or when something is appended.
//!
//! A question that waits is first put on the list and then everything is looked at again, so that an append
//! between the two is not missed.

use super::Stream;
use crate::stream::group::{Claim, MemberId};
use crate::stream::{Batch, Error, Offset, Position};
use crc32c::crc32c_append;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Why a member gets no records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There are none now, and the member doesn't wait.
    WouldBlock,
    /// The next record is longer than what the member has room for; nothing was taken.
    TooSmall {
        /// Its length.
        needed_bytes: usize,
    },
    /// A signal came for the thread that waits.
    Interrupted,
    /// The group was removed.
    NoGroup,
    /// The log can't be read.
    Failed(i32),
}

/// Bytes of whole records (none at the end, for members that don't wait there), or why not.
pub type Answer<'a> = Result<&'a [u8], Refusal>;

/// A question of a member.
pub struct Waiting {
    /// Its group.
    pub group: Arc<str>,
    /// The member.
    pub member: MemberId,
    /// Room for records.
    pub bytes_max: usize,
    /// The whole room that the request has. More than `bytes_max` where the kernel would ask for more by itself if it
    /// were filled: then a record that is longer comes in pieces, all but the last as long as this.
    pub room: usize,
    /// The thread that asks, to see whether a signal came for it; 0 where that can't be known.
    pub thread: u32,
    /// Gets the answer, once.
    pub answer: Box<dyn FnOnce(Answer<'_>) + Send>,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting")
            .field("group", &self.group)
            .field("member", &self.member)
            .finish_non_exhaustive()
    }
}

/// How far a member is in a record that is longer than a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    offset: Offset,
    done: u64,
    /// Checksum of what was given so far.
    crc: u32,
}

/// What a member does where there are no records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtEnd {
    /// It waits for some.
    Wait,
    /// It is told that there are none now.
    Refuse,
    /// For it the stream ends there.
    End,
}

thread_local! {
    /// What this thread reads records into.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Stream {
    /// A member comes back for more: what it had is acknowledged, and the next records are its own.
    pub fn read_group(self: &Arc<Self>, question: Waiting, at_end: AtEnd) {
        let within = self.pieces.lock().remove(&question.member);
        if let Some(piece) = within {
            return self.answer_piece(question, piece);
        }
        if let Some(group) = self.groups.lock().get_mut(&*question.group) {
            group.acknowledge(question.member);
        }
        self.offsets_changed();
        // Nobody may have looked since the last append.
        self.index_news();
        let Err(question) = self.try_answer(question) else { return };
        match at_end {
            AtEnd::Refuse => (question.answer)(Err(Refusal::WouldBlock)),
            AtEnd::End => (question.answer)(Ok(&[])),
            AtEnd::Wait => {
                self.waiting.lock().push(question);
                self.count_questions(1);
                self.await_append();
            }
        }
    }

    /// Whether a read of the group would be answered at once. If not, `wake` is called when it would; a new
    /// one of the same member replaces it.
    pub fn poll_group(
        self: &Arc<Self>,
        group: &str,
        member: MemberId,
        wake: Option<Box<dyn FnOnce() + Send>>,
    ) -> bool {
        self.index_news();
        if self.has_work(group) {
            return true;
        }
        let Some(wake) = wake else { return false };
        {
            let mut polling = self.polling.lock();
            polling.retain(|(_, other, _)| *other != member);
            polling.push((group.into(), member, wake));
        }
        self.await_append();
        false
    }

    pub(super) fn has_work(&self, group: &str) -> bool {
        let groups = self.groups.lock();
        let end = self.log.read().end().0.0;
        groups.get(group).is_none_or(|group| group.has_work(end))
    }

    /// Somebody waits for the next append: it is to be noticed.
    fn await_append(self: &Arc<Self>) {
        self.watch_next();
        if self.index_news() > 0 || self.anything_returned() {
            self.answer_waiting();
        }
    }

    fn anything_returned(&self) -> bool {
        let groups = self.groups.lock();
        let end = self.log.read().end().0.0;
        groups.values().any(|group| group.has_work(end))
    }

    /// Answers all questions that can be answered now, also if the cause to look comes while another thread
    /// has the questions in its hands.
    pub(super) fn answer_waiting(self: &Arc<Self>) {
        self.causes.fetch_add(1, Ordering::SeqCst);
        loop {
            let causes = self.causes.load(Ordering::SeqCst);
            self.answer_once();
            if self.causes.load(Ordering::SeqCst) == causes {
                return;
            }
        }
    }

    fn answer_once(self: &Arc<Self>) {
        let questions = std::mem::take(&mut *self.waiting.lock());
        let asked = questions.len();
        let mut left = Vec::new();
        for question in questions {
            if let Err(question) = self.try_answer(question) {
                left.push(question);
            }
        }
        self.count_questions(left.len() as isize - asked as isize);
        if !left.is_empty() {
            let mut waiting = self.waiting.lock();
            left.append(&mut waiting);
            *waiting = left;
        }
        let polling = std::mem::take(&mut *self.polling.lock());
        for (group, member, wake) in polling {
            if self.has_work(&group) {
                wake();
            } else {
                self.polling.lock().push((group, member, wake));
            }
        }
    }

    /// Whether anybody waits.
    pub(super) fn is_awaited(&self) -> bool {
        !self.waiting.lock().is_empty() || !self.polling.lock().is_empty()
    }

    /// Gives a question its answer, or the question back where there are no records.
    pub(super) fn try_answer(self: &Arc<Self>, question: Waiting) -> Result<(), Waiting> {
        BUFFER.with_borrow_mut(|buffer| {
            match self.take(&question, buffer) {
                Ok(0) => return Err(question),
                Ok(bytes) => (question.answer)(Ok(&buffer[..bytes])),
                Err(refusal) => (question.answer)(Err(refusal)),
            }
            Ok(())
        })
    }

    /// Takes the member's next records into `buffer`; 0 bytes if there are none.
    fn take(self: &Arc<Self>, question: &Waiting, buffer: &mut Vec<u8>) -> Result<usize, Refusal> {
        let mut groups = self.groups.lock();
        let group = groups.get_mut(&*question.group).ok_or(Refusal::NoGroup)?;
        loop {
            let (first, end) = self.bounds();
            let claim = group.claim(first);
            if claim.from >= end {
                return Ok(0);
            }
            let prepared = match claim.until {
                None => self.ahead.take(&question.group, claim.from, question.bytes_max, buffer),
                Some(_) => None,
            };
            let batch = match prepared.map_or_else(|| self.read_batch(&claim, question.bytes_max, buffer), Ok)
            {
                Err(Refusal::TooSmall { .. }) if question.room > question.bytes_max => {
                    if !self.is_whole(Offset(claim.from))? {
                        // Lost, as in a batch.
                        group.give(question.member, &claim, claim.from + 1..claim.from + 1, Instant::now());
                        continue;
                    }
                    let piece = Piece { offset: Offset(claim.from), done: 0, crc: 0 };
                    group.give(question.member, &claim, claim.from..claim.from + 1, Instant::now());
                    return self.read_piece(question, piece, buffer);
                }
                batch => batch?,
            };
            group.give(question.member, &claim, batch.first.0..batch.next.0, Instant::now());
            if batch.bytes > 0 {
                if claim.until.is_none() && batch.bytes > question.bytes_max / 2 && batch.next.0 < end {
                    self.ahead.want(self, &question.group, batch.next.0, question.bytes_max);
                }
                return Ok(batch.bytes);
            }
            if batch.lost == 0 {
                return Ok(0);
            }
        }
    }

    /// Whether a record that is longer than a request is as it was appended. If it is not in memory, it is read from
    /// its segment from now on.
    fn is_whole(&self, offset: Offset) -> Result<bool, Refusal> {
        let failed = |_| Refusal::Failed(libc::EIO);
        let good = self.log.read().check_in_memory(offset).map_err(failed)?;
        Ok(good || self.log.write().cool_up_to(offset))
    }

    /// The member comes back for the next piece of a long record.
    pub(super) fn answer_piece(&self, question: Waiting, piece: Piece) {
        BUFFER.with_borrow_mut(|buffer| {
            let read = self.read_piece(&question, piece, buffer);
            (question.answer)(read.map(|bytes| &buffer[..bytes]));
        });
    }

    /// Reads a piece of a record that is longer than a request, and notes where to go on.
    fn read_piece(&self, question: &Waiting, piece: Piece, buffer: &mut Vec<u8>) -> Result<usize, Refusal> {
        if buffer.len() < question.room {
            buffer.resize(question.room, 0);
        }
        let log = self.log.read();
        let failed = |_| Refusal::Failed(libc::EIO);
        let (position, length) =
            log.extent(piece.offset).map_err(failed)?.ok_or(Refusal::Failed(libc::EIO))?;
        let left = length - piece.done;
        // All of the room, so that the kernel asks for the rest; of the last piece less, so that it does not.
        let wanted = if left > question.room as u64 { question.room } else { question.bytes_max };
        let wanted = wanted.min(left as usize);
        let read =
            log.read_bytes(Position(position.0 + piece.done), &mut buffer[..wanted]).map_err(failed)?;
        let done = piece.done + read as u64;
        let crc = crc32c_append(piece.crc, &buffer[..read]);
        if done == length && !log.has_checksum(piece.offset, crc) {
            // It was changed since its first piece was given: what was given of it has no end.
            return Err(Refusal::Failed(libc::EIO));
        }
        if read > 0 && done < length {
            self.pieces.lock().insert(question.member, Piece { done, crc, ..piece });
        }
        Ok(read)
    }

    /// Reads what a claim says.
    pub(super) fn read_batch(
        &self,
        claim: &Claim,
        bytes_max: usize,
        buffer: &mut Vec<u8>,
    ) -> Result<Batch, Refusal> {
        if buffer.len() < bytes_max {
            buffer.resize(bytes_max, 0);
        }
        let (from, until) = (Offset(claim.from), claim.until.map(Offset));
        match self.log.read().read_until(from, until, &mut buffer[..bytes_max]) {
            Ok(batch) => Ok(batch),
            Err(e) => Err(self.refusal(claim, e)),
        }
    }

    /// What a member is told where the records of its claim can't be read.
    pub(super) fn refusal(&self, claim: &Claim, error: Error) -> Refusal {
        match error {
            Error::BufferTooSmall { needed_bytes } => Refusal::TooSmall { needed_bytes },
            Error::Io(e) => Refusal::Failed(e.raw_os_error().unwrap_or(libc::EIO)),
            e => {
                log::warn!("stream {} can't be read from record {} on: {e}", self.id, claim.from);
                Refusal::Failed(libc::EIO)
            }
        }
    }

    /// The first record that is retained, and where the stream ends.
    pub(super) fn bounds(&self) -> (u64, u64) {
        let log = self.log.read();
        (log.first().0.0, log.end().0.0)
    }

    /// Questions of threads for which a signal came are answered so.
    pub(super) fn answer_interrupted(&self, signalled: impl Fn(u32) -> bool) {
        let interrupted: Vec<Waiting> =
            self.waiting.lock().extract_if(.., |question| signalled(question.thread)).collect();
        self.count_questions(-(interrupted.len() as isize));
        for question in interrupted {
            (question.answer)(Err(Refusal::Interrupted));
        }
    }

    pub(super) fn count_questions(&self, change: isize) {
        if change != 0
            && let Some(hub) = self.hub.upgrade()
        {
            let before = hub.questions.fetch_add(change as usize, Ordering::Relaxed);
            if before == 0 && change > 0 {
                // The service is to look for signals from now on.
                let _ = rustix::io::write(&hub.event, &1_u64.to_ne_bytes());
            }
        }
    }
}
