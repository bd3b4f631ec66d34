//! The work of one operator.

use super::definition::{Definition, DefinitionError};
use super::key::KeyOf;
use super::place::{Noted, Place};
use super::route::Route;
use super::transform::{Becomes, Transform};
use crate::failpoint;
use crate::stream::group::{Group, MemberId};
use crate::stream::live::{AtHand, Lending, Lent, Refusal, Start, Stream};
use crate::stream::{Error as StreamError, Framing, Offset};
use rustc_hash::FxHashMap;
use std::borrow::Cow;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes taken at a time, about.
const BATCH_BYTES: usize = 1 << 20;

/// Why an operator does not go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    /// A stream failed; it is tried again.
    #[error("{name}: {source}")]
    Stream {
        /// Which.
        name: String,
        /// Why.
        source: StreamError,
    },
    /// Its place can't be noted.
    #[error("where it is can't be noted: {0}")]
    Place(io::Error),
    /// An output has less than the operator put there.
    #[error(
        "{name} has {missing} records fewer than were put there: it was damaged; remove the operator and make it again"
    )]
    Missing {
        /// The output.
        name: String,
        /// So many.
        missing: u64,
    },
    /// An output has other records.
    #[error(
        "{name} has records that are not the operator's; remove the operator and make it again with another output"
    )]
    OtherRecords {
        /// The output.
        name: String,
    },
    /// The definition on the backing is none any more.
    #[error(transparent)]
    Definition(#[from] DefinitionError),
}

type Result<T> = std::result::Result<T, Stopped>;

/// See the module.
#[derive(Debug)]
pub(super) struct Work {
    key: Option<KeyOf>,
    transform: Transform,
    route: Route,
    framing: Framing,
    group: Arc<str>,
    inputs: Vec<Input>,
    outputs: Vec<Output>,
    noted: Noted,
    /// Where the backing says that it is.
    base: Place,
    place: Place,
    /// Memory was lost since the place was noted.
    found: Option<Found>,
    /// The input that is looked at first.
    turn: usize,
    #[cfg(test)]
    death: Option<tests::Death>,
}

/// What outputs have that may be the effect of records to come.
#[derive(Debug)]
struct Found {
    /// Of each output, how many records there are with a hash.
    records: Vec<FxHashMap<u64, u32>>,
    /// The ends of the inputs.
    until: Vec<u64>,
    /// It may be in another output than would be said now.
    anywhere: bool,
}

impl Found {
    /// Whether the record is there; it is once less then.
    fn take(&mut self, output: usize, record: &[u8]) -> bool {
        let hash = xxh3_64(record);
        let among = if self.anywhere { &mut self.records[..] } else { &mut self.records[output..=output] };
        let count = among.iter_mut().filter_map(|records| records.get_mut(&hash)).find(|count| **count > 0);
        count.map(|count| *count -= 1).is_some()
    }
}

#[derive(Debug)]
struct Input {
    stream: Arc<Stream>,
    member: MemberId,
    at_hand: AtHand,
}

#[derive(Debug)]
struct Output {
    stream: Arc<Stream>,
    /// Records that it has of those to come, and bytes of the one behind them.
    has: u64,
    torn: u64,
    gathered: Vec<u8>,
    /// Records of this batch, those that it has included.
    records: u64,
}

fn of(stream: &Stream) -> impl Fn(StreamError) -> Stopped + '_ {
    |source| Stopped::Stream { name: name_of(stream), source }
}

fn name_of(stream: &Stream) -> String {
    let path = stream.settings().path;
    if path.is_empty() { stream.id().to_string() } else { path }
}

impl Output {
    /// Takes a record.
    fn take(&mut self, record: &[u8], framing: Framing) -> Result<()> {
        self.records += 1;
        if self.has > 0 {
            self.has -= 1;
            return Ok(());
        }
        let torn = std::mem::take(&mut self.torn) as usize;
        let rest = record.get(torn..).ok_or_else(|| Stopped::OtherRecords { name: name_of(&self.stream) })?;
        self.gathered.extend_from_slice(rest);
        if framing == Framing::Write {
            // It has no boundaries in the bytes.
            self.append()?;
        }
        Ok(())
    }

    fn append(&mut self) -> Result<()> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.gathered);
        let result = self.append_all(&bytes);
        self.gathered = bytes;
        self.gathered.clear();
        result
    }

    fn append_all(&self, bytes: &[u8]) -> Result<()> {
        let appended = self.stream.append(bytes).map_err(of(&self.stream))?;
        if appended < bytes.len() {
            let full = io::Error::from_raw_os_error(libc::ENOSPC);
            return Err(of(&self.stream)(full.into()));
        }
        Ok(())
    }
}

impl Work {
    /// Goes on from `place`, or from the newer one that memory has at `noted`.
    pub fn new(
        name: &str,
        definition: &Definition,
        place: Place,
        noted: &Path,
        open: impl Fn(u128) -> std::result::Result<Arc<Stream>, StreamError>,
    ) -> Result<Work> {
        let streams = place.inputs.len() + place.outputs.len();
        let (noted, newer) = Noted::open(noted, streams).map_err(Stopped::Place)?;
        let ids = |place: &Place| -> Vec<u128> {
            place.inputs.iter().chain(&place.outputs).map(|(id, _)| *id).collect()
        };
        let base = place.clone();
        let place = match newer {
            Some(newer) if ids(&newer) == ids(&place) && newer.taken >= place.taken => newer,
            _ => Place { found: true, ..place },
        };
        let group: Arc<str> = group_of(name).into();
        let opened = |id: u128| {
            open(id).map_err(|source| Stopped::Stream { name: format!("stream {id:032x}"), source })
        };
        let input = |(id, _): &(u128, u64)| {
            let stream = opened(*id)?;
            let member = stream.join(&group).map_err(|e| of(&stream)(e.into()))?;
            Ok(Input { stream, member, at_hand: AtHand::default() })
        };
        let output = |(id, _): &(u128, u64)| {
            Ok(Output { stream: opened(*id)?, has: 0, torn: 0, gathered: Vec::new(), records: 0 })
        };
        let inputs = place.inputs.iter().map(input).collect::<Result<Vec<_>>>()?;
        let outputs = place.outputs.iter().map(output).collect::<Result<Vec<_>>>()?;
        let framing = outputs.first().map_or(Framing::Line, |output| output.stream.framing());
        let mut work = Work {
            key: definition.key.as_ref().map(KeyOf::new).transpose()?,
            transform: Transform::new(definition)?,
            route: Route::new(definition),
            framing,
            group,
            inputs,
            outputs,
            noted,
            base,
            place,
            found: None,
            turn: 0,
            #[cfg(test)]
            death: None,
        };
        work.find_place()?;
        Ok(work)
    }

    /// How far it is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Looks what the outputs have of what comes behind the place, and has the inputs go on there. Again after a failure.
    pub fn find_place(&mut self) -> Result<()> {
        for (input, (_, next)) in self.inputs.iter_mut().zip(&self.place.inputs) {
            input.at_hand = AtHand::default();
            // Not further than what is durable: retention goes by the group.
            let at = input.stream.inspect(|now| {
                let committed = now.groups.get(&*self.group).map_or(0, Group::committed);
                Offset(committed.min(*next)).max(now.log.first().0)
            });
            input.stream.seek(&self.group, Start::Offset(at)).map_err(of(&input.stream))?;
        }
        if self.place.found {
            return self.find_what_is_there();
        }
        for (output, (_, end)) in self.outputs.iter_mut().zip(&self.place.outputs) {
            output.gathered.clear();
            output.records = 0;
            let (there, torn) = output
                .stream
                .inspect(|now| (now.log.end().0.0, now.log.statistics().map(|s| s.pending_bytes)));
            output.torn = torn.map_err(of(&output.stream))?;
            if self.framing == Framing::Write && output.torn > 0 {
                output.stream.set_pending_aside().map_err(of(&output.stream))?;
                output.torn = 0;
            }
            output.has = there
                .checked_sub(*end)
                .ok_or_else(|| Stopped::Missing { name: name_of(&output.stream), missing: end - there })?;
        }
        Ok(())
    }

    /// Takes a batch from an input, and appends what it comes to; false where no input has anything.
    pub fn step(&mut self) -> Result<bool> {
        let found = self.outputs.iter().any(|output| output.has > 0);
        let first = self.place.batch.map_or(self.turn, |input| input as usize);
        for ahead in 0..self.inputs.len() {
            let number = (first + ahead) % self.inputs.len();
            if let Some(lent) = self.lend(number, BATCH_BYTES)? {
                self.turn = number + 1;
                self.take(number, &lent, usize::MAX)?;
                return Ok(true);
            }
            if found {
                // What the batch that was cut short was made of.
                let output = self.outputs.iter().find(|output| output.has > 0);
                let name = output.map(|output| name_of(&output.stream)).unwrap_or_default();
                return Err(Stopped::OtherRecords { name });
            }
        }
        Ok(false)
    }

    /// The next records of an input, if it has any, or lost some.
    fn lend(&mut self, number: usize, bytes_max: usize) -> Result<Option<Lent>> {
        let next = self.place.inputs[number].1;
        let input = &mut self.inputs[number];
        loop {
            let lending = input
                .stream
                .lend_more(&self.group, input.member, bytes_max, &mut input.at_hand)
                .map_err(|refusal| of(&input.stream)(failure(&refusal).into()))?;
            let Lending::Records(lent) = lending else { return Ok(None) };
            let offsets = lent.offsets();
            if offsets.start.0 - lent.lost() > next {
                let why = "the operator's group was sent further on, or its time to acknowledge ran out";
                return Err(of(&input.stream)(io::Error::other(why).into()));
            }
            // What comes before was taken, and is not durable in the outputs yet.
            if offsets.end.0 > next {
                return Ok(Some(lent));
            }
        }
    }

    /// Puts records of an input, `most` at most, where they belong.
    fn take(&mut self, number: usize, lent: &Lent, most: usize) -> Result<()> {
        if self.found.is_none() {
            self.place.batch = Some(number as u32);
            self.noted.note(&self.place).map_err(Stopped::Place)?;
        }
        failpoint::pass("operator", "noted");
        self.die_if_told(None)?;
        let mut taken = self.place.taken;
        let (first, mut unkeyed, mut failed) = (self.place.inputs[number].1, 0, 0);
        let mut next = lent.offsets().start.max(Offset(first));
        for record in lent.iter().skip_while(|record| record.offset.0 < first).take(most) {
            let (output, becomes, keyed) = self.becomes(record.bytes, taken);
            unkeyed += u64::from(!keyed);
            match becomes {
                Becomes::Record(record) => {
                    let there = self.found.as_mut().is_some_and(|found| found.take(output, &record));
                    if !there {
                        self.outputs[output].take(&record, self.framing)?;
                    }
                }
                Becomes::Nothing => {}
                Becomes::Failed => failed += 1,
            }
            taken += 1;
            next = Offset(record.offset.0 + 1);
        }
        for number in 0..self.outputs.len() {
            self.die_if_told(Some(number))?;
            self.outputs[number].append()?;
            failpoint::pass("operator", "appended");
        }
        // Nothing of this is noted before the next batch is: whoever comes before does this one again.
        let place = &mut self.place;
        for (output, (_, end)) in self.outputs.iter_mut().zip(&mut place.outputs) {
            *end += std::mem::take(&mut output.records);
        }
        let before = std::mem::replace(&mut place.inputs[number].1, next.0);
        place.lost += (next.0 - before) - (taken - place.taken);
        place.unkeyed += unkeyed;
        place.failed += failed;
        (place.taken, place.batch) = (taken, None);
        self.end_of_found();
        Ok(())
    }

    /// After a loss of power each stream has a beginning of what it had: what the outputs have behind the place is the effect
    /// of records that come, or that the inputs lost. Until the inputs are where they end now, a record whose effect is there
    /// already has none. All begins again at the place whenever something fails: it is noted when this is over.
    fn find_what_is_there(&mut self) -> Result<()> {
        let base = self.base.clone();
        let mut records = vec![FxHashMap::default(); self.outputs.len()];
        let mut place = Place { found: true, ..base };
        for ((output, (_, end)), records) in self.outputs.iter_mut().zip(&mut place.outputs).zip(&mut records)
        {
            (output.has, output.torn, output.records) = (0, 0, 0);
            output.gathered.clear();
            output.stream.set_pending_aside().map_err(of(&output.stream))?;
            let there = output.stream.inspect(|now| now.log.end().0.0);
            let missing =
                Stopped::Missing { name: name_of(&output.stream), missing: end.saturating_sub(there) };
            let mut at_hand = AtHand::default();
            while *end < there {
                let lent = output.stream.lend(Offset(*end), BATCH_BYTES, &mut at_hand);
                let lent = lent.map_err(of(&output.stream))?;
                for record in &lent {
                    *records.entry(xxh3_64(record.bytes)).or_insert(0_u32) += 1;
                }
                *end = lent.offsets().end.0;
            }
            if *end > there {
                return Err(missing);
            }
        }
        let until = self.inputs.iter().map(|input| input.stream.inspect(|now| now.log.end().0.0)).collect();
        let anywhere = !self.route.is_by_key();
        self.place = place;
        self.found = Some(Found { records, until, anywhere });
        self.end_of_found();
        Ok(())
    }

    /// Where the inputs are as far as they were, what is left of it came from records that they lost. It stays.
    fn end_of_found(&mut self) {
        let Some(found) = &self.found else { return };
        let there = self.place.inputs.iter().zip(&found.until).all(|((_, next), until)| next >= until);
        if !there {
            return;
        }
        let left: u64 = found.records.iter().flat_map(FxHashMap::values).map(|count| u64::from(*count)).sum();
        if left > 0 {
            log::warn!("outputs of {} have {left} records that its inputs lost with the power", self.group);
        }
        self.found = None;
        self.place.found = false;
    }

    /// What becomes of the record that is the `turn`-th of all, the output for that, and whether it has a key if it needs one.
    fn becomes<'r>(&self, record: &'r [u8], turn: u64) -> (usize, Becomes<'r>, bool) {
        let key = match &self.key {
            Some(key) if self.route.needs_key() => key.find(record, self.framing),
            _ => Some(Cow::Borrowed(&b""[..])),
        };
        let keyed = key.is_some();
        let output = self.route.output(&key.unwrap_or_default(), turn);
        (output, self.transform.apply(record, self.framing), keyed)
    }

    /// A place where a test has it die, when an output is about to be appended to or before.
    #[cfg(test)]
    fn die_if_told(&mut self, output: Option<usize>) -> Result<()> {
        let Some(death) = &mut self.death else { return Ok(()) };
        match death.after.checked_sub(1) {
            Some(after) => {
                death.after = after;
                Ok(())
            }
            None => Err(death.come(output.map(|number| &self.outputs[number]))),
        }
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "as in tests")]
    fn die_if_told(&mut self, _output: Option<usize>) -> Result<()> {
        Ok(())
    }

    /// Whether some input has records. If not, `wake` is called when one does.
    pub fn poll(&self, wake: &(impl Fn() + Clone + Send + 'static)) -> bool {
        self.inputs.iter().any(|input| {
            let wake = wake.clone();
            input.stream.poll_group(&self.group, input.member, Some(Box::new(wake)))
        })
    }

    /// How long to wait so that memory is not filled faster than what is there is sealed.
    pub fn pause(&self) -> Option<Duration> {
        self.outputs
            .iter()
            .filter_map(|output| output.stream.pause_after(BATCH_BYTES / self.outputs.len()))
            .max()
    }

    /// Records that the inputs have and that were not taken yet.
    pub fn lag(&self) -> u64 {
        let lag = |(input, (_, next)): (&Input, &(u128, u64))| {
            input.stream.inspect(|now| now.log.end().0.0).saturating_sub(*next)
        };
        self.inputs.iter().zip(&self.place.inputs).map(lag).sum()
    }

    /// The streams of the outputs, and those of the inputs with the operator's membership.
    pub fn ends(&self) -> (Vec<Arc<Stream>>, Vec<(Arc<Stream>, MemberId)>) {
        let outputs = self.outputs.iter().map(|output| output.stream.clone()).collect();
        (outputs, self.inputs.iter().map(|input| (input.stream.clone(), input.member)).collect())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        for input in &self.inputs {
            input.stream.leave(&self.group, input.member);
        }
    }
}

/// The group that an operator is in its inputs.
pub(super) fn group_of(name: &str) -> String {
    format!("operator.{name}")
}

fn failure(refusal: &Refusal) -> io::Error {
    match refusal {
        Refusal::Failed(errno) => io::Error::from_raw_os_error(*errno),
        _ => io::Error::new(io::ErrorKind::NotFound, "the operator's group was removed"),
    }
}

#[cfg(test)]
mod tests;
