//! Records lent to readers in this process: slices of the memory that they are in, not copies.
//!
//! 1. The log says where the records are, and the place is pinned, both with the log borrowed.
//! 2. Of the active file, that place is looked at through a mapping, and each record compared with its
//!    checksum, with no log borrowed. Of a segment it is an unpacked block, which several readers share.
//! 3. What is [`Lent`] holds the pin, the mapping or the block until it is dropped: sealing, trimming, and
//!    even the stream's end leave it as it is.
//!
//! The active file must be our own: who cuts it, or writes into it, changes what is borrowed. The streams of
//! a [`Dataflow`](crate::stream::Dataflow) are.

use super::pins::Pin;
use super::window::Window;
use super::{Refusal, Stream};
use crate::stream::group::{Claim, MemberId};
use crate::stream::log::{Found, Span};
use crate::stream::segment::Block;
use crate::stream::{Error, Micros, Offset, Position, Record, Result};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// The mapping that a reader keeps from one batch to the next.
#[derive(Debug, Default)]
pub struct AtHand(Option<Arc<Window>>);

/// A batch of whole records in a row, borrowed; see the module.
#[derive(Debug)]
pub struct Lent {
    lost: u64,
    held: Held,
}

/// What keeps the records in memory, and which they are.
#[derive(Debug)]
enum Held {
    Mapped { window: Arc<Window>, pin: Pin, span: Span, records: Range<usize> },
    Unpacked { block: Arc<Block>, records: Range<usize> },
    Nothing { at: u64 },
}

/// What a member gets.
#[derive(Debug)]
pub enum Lending {
    /// Records.
    Records(Lent),
    /// There are none now.
    Nothing {
        /// Every record before this one is done with, by all members.
        committed: Offset,
    },
}

impl Stream {
    /// A member comes back for more: what it had is acknowledged, and the next records, about `bytes_max`
    /// bytes of them and at least one, are its own. Nothing waits here; see [`Stream::poll_group`].
    pub fn lend_group(
        self: &Arc<Self>,
        name: &str,
        member: MemberId,
        bytes_max: usize,
        at_hand: &mut AtHand,
    ) -> std::result::Result<Lending, Refusal> {
        self.index_news();
        let mut groups = self.groups.lock();
        let group = groups.get_mut(name).ok_or(Refusal::NoGroup)?;
        group.acknowledge(member);
        self.offsets_changed();
        loop {
            let (first, end) = self.bounds();
            let claim = group.claim(first);
            if claim.from >= end {
                return Ok(Lending::Nothing { committed: Offset(group.committed()) });
            }
            let lent = self.lend_claim(&claim, bytes_max, at_hand).map_err(|e| self.refusal(&claim, e))?;
            let given = lent.offsets();
            group.give(member, &claim, given.start.0..given.end.0, Instant::now());
            if !lent.is_empty() {
                return Ok(Lending::Records(lent));
            }
        }
    }

    /// Records from `from` on, for a reader of no group; an empty batch at the stream's end.
    pub fn lend(self: &Arc<Self>, from: Offset, bytes_max: usize, at_hand: &mut AtHand) -> Result<Lent> {
        self.index_news();
        let (first, position) = self.log.read().first();
        if from < first {
            return Err(Error::Trimmed { first, position });
        }
        self.lend_claim(&Claim { from: from.0, until: None }, bytes_max, at_hand)
    }

    fn lend_claim(self: &Arc<Self>, claim: &Claim, bytes_max: usize, at_hand: &mut AtHand) -> Result<Lent> {
        let mut at = claim.from;
        loop {
            let (found, pin) = {
                let log = self.log.read();
                let end = claim.until.unwrap_or(u64::MAX).min(log.end().0.0);
                // Retention may have taken it meanwhile.
                at = at.max(log.first().0.0);
                if at >= end {
                    let at = at.min(end.max(claim.from));
                    return Ok(Lent { lost: at - claim.from, held: Held::Nothing { at } });
                }
                let found = log.find(at..end, bytes_max)?;
                let pin = match &found {
                    Found::Active(span) => Some(Pin::new(self, span.range().start)),
                    _ => None,
                };
                (found, pin)
            };
            match (found, pin) {
                (Found::Active(span), Some(pin)) => {
                    let range = span.range();
                    let window = Window::covering(&mut at_hand.0, span.file(), &range)?;
                    // Beyond the end of the file, where it was cut, is nothing that may be touched.
                    let there = span.file().metadata()?.len().clamp(range.start, range.end);
                    let records = span.good(window.bytes(range.start..there, &pin));
                    at = span.first() + records.start as u64;
                    if !records.is_empty() {
                        let held = Held::Mapped { window, pin, span, records };
                        return Ok(Lent { lost: at - claim.from, held });
                    }
                }
                (Found::Block(block, records), _) => {
                    let lost = block.offset() + records.start as u64 - claim.from;
                    return Ok(Lent { lost, held: Held::Unpacked { block, records } });
                }
                (Found::Lost { until }, _) => at = until,
                (Found::Active(_), None) => unreachable!("it was pinned above"),
            }
        }
    }

    /// Takes bytes that are no whole record out of the stream: of an append that failed halfway. Nobody else
    /// may be appending.
    pub(in crate::stream) fn set_pending_aside(&self) -> Result<u64> {
        self.index_news();
        self.log.write().set_tail_aside()
    }
}

impl Lent {
    /// Offsets of its records.
    pub fn offsets(&self) -> Range<Offset> {
        let range = |first: u64, records: &Range<usize>| {
            Offset(first + records.start as u64)..Offset(first + records.end as u64)
        };
        match &self.held {
            Held::Mapped { span, records, .. } => range(span.first(), records),
            Held::Unpacked { block, records } => range(block.offset(), records),
            Held::Nothing { at } => Offset(*at)..Offset(*at),
        }
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        let offsets = self.offsets();
        (offsets.end.0 - offsets.start.0) as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records before these that are damaged, missing or trimmed.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The bytes of all its records, one behind the other as in the stream.
    pub fn bytes(&self) -> &[u8] {
        match &self.held {
            Held::Mapped { window, pin, span, records } => {
                let begin = span.range().start;
                let (from, to) = (span.at(records.start) as u64, span.at(records.end) as u64);
                window.bytes(begin + from..begin + to, pin)
            }
            Held::Unpacked { block, records } => {
                &block.bytes()[block.range(records.start).start..block.range(records.end - 1).end]
            }
            Held::Nothing { .. } => &[],
        }
    }

    /// Its records.
    pub fn iter(&self) -> Records<'_> {
        let (next, position) = match &self.held {
            Held::Mapped { span, records, .. } => {
                (records.start, span.position() + span.at(records.start) as u64)
            }
            Held::Unpacked { block, records } => {
                (records.start, block.position() + block.range(records.start).start as u64)
            }
            Held::Nothing { .. } => (0, 0),
        };
        Records { held: &self.held, rest: self.bytes(), next, position }
    }
}

impl<'l> IntoIterator for &'l Lent {
    type Item = Record<'l>;
    type IntoIter = Records<'l>;

    fn into_iter(self) -> Records<'l> {
        self.iter()
    }
}

/// The records of a batch.
#[derive(Debug)]
pub struct Records<'l> {
    held: &'l Held,
    rest: &'l [u8],
    /// The next one, as the span or the block counts them.
    next: usize,
    position: u64,
}

impl<'l> Iterator for Records<'l> {
    type Item = Record<'l>;

    fn next(&mut self) -> Option<Record<'l>> {
        if self.rest.is_empty() {
            return None;
        }
        let i = self.next;
        let (first, length, time) = match self.held {
            Held::Mapped { span, .. } => {
                let (length, time) = span.record(i);
                (span.first(), length, time)
            }
            Held::Unpacked { block, .. } => (block.offset(), block.range(i).len(), Micros(block.time(i))),
            Held::Nothing { .. } => return None,
        };
        let (bytes, rest) = self.rest.split_at(length);
        let (offset, position) = (Offset(first + i as u64), Position(self.position));
        (self.rest, self.next, self.position) = (rest, i + 1, self.position + length as u64);
        Some(Record { offset, position, time, bytes })
    }
}
