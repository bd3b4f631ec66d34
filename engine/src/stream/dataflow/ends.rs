//! The two ends of a stream: who appends to it, and who reads it in a group.

use super::Dataflow;
use super::error::{Error, Result};
use super::flow::Flow;
use crate::stream::group::MemberId;
use crate::stream::live::{AtHand, Lending, Lent, Refusal};
use crate::stream::{Framing, Offset, Splitter};
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes lent at a time, about: enough that what a batch costs besides does not count, and few enough that
/// its checksums leave it in a second-level cache.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Appends to a stream; see [`Dataflow::write_to`].
#[derive(Debug)]
pub struct Writer<'d> {
    flow: Arc<Flow>,
    _dataflow: PhantomData<&'d Dataflow>,
}

impl Writer<'_> {
    pub(super) fn new(flow: Arc<Flow>, alone: bool) -> Result<Self> {
        flow.writer_opened(alone)?;
        Ok(Writer { flow, _dataflow: PhantomData })
    }

    /// Appends one or more whole records, framing bytes included; with the framing `write`, the bytes are one
    /// record. Several in one call cost little more than one. What fails may leave the first of them, but no
    /// part of a record.
    pub fn append(&mut self, records: &[u8]) -> Result<()> {
        let flow = &self.flow;
        flow.check()?;
        let log = flow.stream.settings().log;
        if !are_whole(records, log.framing, log.segment_bytes) {
            return Err(Error::NotRecords { name: flow.name.clone(), framing: log.framing });
        }
        let _appending = flow.appending.lock();
        let appended = match flow.stream.append(records) {
            Ok(bytes) if bytes < records.len() => Err(std::io::Error::from_raw_os_error(libc::ENOSPC).into()),
            other => other.map(drop),
        };
        appended.map_err(|source: crate::stream::Error| {
            // The beginning of a record would become one with what comes next.
            if let Err(e) = flow.stream.set_pending_aside() {
                log::warn!("part of a record stays at the end of stream {}: {e}", flow.name);
            }
            flow.failed(source)
        })
    }

    /// Makes durable in the directory what was appended by anybody; without it that is so a second later.
    pub fn sync(&self) -> Result<()> {
        self.flow.stream.sync().map_err(|source| self.flow.failed(source))
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        self.flow.writer_closed();
    }
}

/// Whether the bytes are one or more records and nothing else.
fn are_whole(mut bytes: &[u8], framing: Framing, bytes_max: u64) -> bool {
    if framing == Framing::Write {
        return framing.check_record(bytes, bytes_max).is_ok();
    }
    let mut splitter = Splitter::new(framing, bytes_max, 0);
    let any = !bytes.is_empty();
    while !bytes.is_empty() {
        let Ok(Some(end)) = splitter.next(bytes) else { return false };
        bytes = &bytes[end..];
    }
    any
}

/// A member of a group; see [`Dataflow::read_from`].
#[derive(Debug)]
pub struct Reader<'d> {
    flow: Arc<Flow>,
    group: Arc<str>,
    member: MemberId,
    at_hand: AtHand,
    lent: Option<Lent>,
    _dataflow: PhantomData<&'d Dataflow>,
}

/// What a [`Reader`] got.
#[derive(Debug)]
pub enum Got<'r> {
    /// Records, its own until it comes back or is dropped.
    Records(&'r Lent),
    /// There were none in that time.
    Nothing,
    /// The stream is finished, and every record acknowledged.
    End,
}

/// The same, before the records are borrowed.
enum Turn {
    Records,
    Nothing,
    End,
}

impl Reader<'_> {
    pub(super) fn new(flow: Arc<Flow>, group: &str) -> Result<Self> {
        flow.check()?;
        let member = flow.stream.join(group).map_err(|e| flow.failed(e.into()))?;
        let (group, at_hand) = (group.into(), AtHand::default());
        Ok(Reader { flow, group, member, at_hand, lent: None, _dataflow: PhantomData })
    }

    /// Acknowledges the batch before and waits for the next: about a MiB of records, at least one. `None`
    /// when the stream is finished and the group has acknowledged all of it; as long as another member has
    /// records that may be given again, this one waits.
    pub fn read(&mut self) -> Result<Option<&Lent>> {
        self.turn(None)?;
        Ok(self.lent.as_ref())
    }

    /// The same, but waits at most so long.
    pub fn read_within(&mut self, longest: Duration) -> Result<Got<'_>> {
        let turn = self.turn(Instant::now().checked_add(longest))?;
        Ok(match (turn, &self.lent) {
            (Turn::Records, Some(lent)) => Got::Records(lent),
            (Turn::End, _) => Got::End,
            _ => Got::Nothing,
        })
    }

    fn turn(&mut self, deadline: Option<Instant>) -> Result<Turn> {
        let flow = &self.flow;
        let had = self.lent.take().is_some();
        loop {
            let rung = flow.bell.rung();
            flow.check()?;
            // Asked first: what comes behind this is seen by the lending.
            let end = flow.end();
            let lending = flow.stream.lend_group(&self.group, self.member, BATCH_BYTES, &mut self.at_hand);
            if had && end.is_some() {
                // Others may wait for this acknowledgement.
                flow.bell.ring();
            }
            match lending.map_err(|refusal| self.refused(&refusal))? {
                Lending::Records(lent) => {
                    self.lent = Some(lent);
                    return Ok(Turn::Records);
                }
                Lending::Nothing { committed } if end.is_some_and(|end| committed >= end) => {
                    return Ok(Turn::End);
                }
                Lending::Nothing { .. } => {}
            }
            let bell = Arc::clone(&flow.bell);
            let work = flow.stream.poll_group(&self.group, self.member, Some(Box::new(move || bell.ring())));
            if !work && !flow.bell.wait(rung, deadline) {
                return Ok(Turn::Nothing);
            }
        }
    }

    fn refused(&self, refusal: &Refusal) -> Error {
        match refusal {
            Refusal::Failed(errno) => self.flow.failed(io::Error::from_raw_os_error(*errno).into()),
            _ => Error::Destroyed { name: self.flow.name.clone() },
        }
    }

    /// The first record that the group has not acknowledged.
    pub fn committed(&self) -> Offset {
        self.flow
            .stream
            .inspect(|now| now.groups.get(&*self.group).map_or(Offset(0), |g| Offset(g.committed())))
    }
}

impl Drop for Reader<'_> {
    /// What it has and did not acknowledge is given to another member.
    fn drop(&mut self) {
        self.flow.stream.leave(&self.group, self.member);
        self.flow.bell.ring();
    }
}
