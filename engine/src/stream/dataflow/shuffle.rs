//! The shuffle: the records of some streams, by key, into others.
//!
//! 1. It waits until all inputs are finished: what a stage makes is there as a whole before the next begins.
//! 2. The inputs' records are taken in the order of the inputs, each from its beginning, and each goes to the
//!    output that the hash of its key says. Records with one key are in one output, in the order they had.
//! 3. The outputs are finished.
//!
//! Each record gets there exactly once, whatever dies: which records an output has, and in which order,
//! depends on the finished inputs, the key and the number of outputs alone. So what a shuffle that died put
//! into an output is the beginning of what belongs there, and the next one, which goes through the inputs
//! again, passes over as many records of that output as it has. A record that was damaged in between would be
//! an exception.

use super::Dataflow;
use super::ends::{BATCH_BYTES, Writer};
use super::error::{Error, Result};
use super::flow::Flow;
use crate::stream::live::AtHand;
use crate::stream::{Framing, Offset};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes gathered for an output: appending them costs a few microseconds more than the copy.
const GATHERED_BYTES: usize = 256 << 10;

/// What a shuffle did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shuffled {
    /// Records that it moved.
    pub records: u64,
    /// Records that an earlier one, which did not get to its end, had moved.
    pub before: u64,
    /// Records of the inputs that are damaged or missing.
    pub lost: u64,
}

/// The output, of so many, that has the records with this key: XXH3-64 of the key, modulo their number. This
/// does not change.
pub fn output_of(key: &[u8], outputs: usize) -> usize {
    (xxh3_64(key) % outputs.max(1) as u64) as usize
}

/// An output on its way.
struct Output<'d> {
    flow: Arc<Flow>,
    /// None if it is finished.
    writer: Option<Writer<'d>>,
    /// Records that belong to it and that it has.
    has: u64,
    gathered: Vec<u8>,
}

impl Output<'_> {
    fn new(flow: Arc<Flow>) -> Result<Self> {
        let writer = if flow.end().is_some() { None } else { Some(Writer::new(Arc::clone(&flow), true)?) };
        let has = flow.stream.inspect(|now| now.log.end().0.0);
        Ok(Output { flow, writer, has, gathered: Vec::new() })
    }

    /// Takes a record; false if it has that one.
    fn take(&mut self, record: &[u8], framing: Framing) -> Result<bool> {
        if self.has > 0 {
            self.has -= 1;
            return Ok(false);
        }
        self.gathered.extend_from_slice(record);
        // The framing `write` has no boundaries in the bytes.
        if self.gathered.len() >= GATHERED_BYTES || framing == Framing::Write {
            self.append()?;
        }
        Ok(true)
    }

    fn append(&mut self) -> Result<()> {
        if !self.gathered.is_empty() {
            let name = || self.flow.name.clone();
            self.writer
                .as_mut()
                .ok_or_else(|| Error::OtherRecords { name: name() })?
                .append(&self.gathered)?;
            self.gathered.clear();
        }
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.append()?;
        if self.has > 0 {
            return Err(Error::OtherRecords { name: self.flow.name.clone() });
        }
        self.writer = None;
        self.flow.finish()
    }
}

impl Dataflow {
    /// Waits until all `inputs` are finished, then puts each of their records into the output that its key
    /// belongs to, and finishes the outputs; see the module. `key` finds the key in a record, whose framing
    /// bytes are included. All streams have one framing; the outputs have no other writer.
    ///
    /// It runs on the caller's thread. Called again after a failure or a crash it goes on; called once more
    /// after that it does nothing. An input that retention took something from is refused.
    pub fn shuffle(
        &self,
        inputs: &[&str],
        key: impl for<'r> Fn(&'r [u8]) -> &'r [u8],
        outputs: &[&str],
    ) -> Result<Shuffled> {
        let inputs = inputs.iter().map(|name| self.flow(name)).collect::<Result<Vec<_>>>()?;
        let mut outputs =
            outputs.iter().map(|name| self.flow(name).and_then(Output::new)).collect::<Result<Vec<_>>>()?;
        let framing = outputs.first().ok_or(Error::NoOutputs)?.flow.stream.framing();
        for flow in inputs.iter().chain(outputs.iter().map(|output| &output.flow)) {
            if flow.stream.framing() != framing {
                return Err(Error::FramingDiffers {
                    name: flow.name.clone(),
                    framing: flow.stream.framing(),
                });
            }
        }
        for input in &inputs {
            input.wait_until_finished()?;
        }
        let mut shuffled = Shuffled::default();
        for input in &inputs {
            let end = input.wait_until_finished()?;
            let (mut at_hand, mut from) = (AtHand::default(), Offset(0));
            while from < end {
                input.check()?;
                let lent = input
                    .stream
                    .lend(from, BATCH_BYTES, &mut at_hand)
                    .map_err(|source| input.failed(source))?;
                shuffled.lost += lent.lost();
                for record in &lent {
                    let at = output_of(key(record.bytes), outputs.len());
                    if outputs[at].take(record.bytes, framing)? {
                        shuffled.records += 1;
                    } else {
                        shuffled.before += 1;
                    }
                }
                from = lent.offsets().end;
            }
        }
        outputs.into_iter().try_for_each(Output::finish)?;
        Ok(shuffled)
    }
}
