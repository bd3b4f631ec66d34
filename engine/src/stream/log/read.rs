//! Reading: records by offset, bytes by position, offsets by time.
//!
//! All three find the segment by the names, the block by the segment's index, and the record by the block's
//! table; or the record in the active file by the index in memory. A batch ends before a record that is lost;
//! the next one begins behind those that are, and says how many they were.

use super::Log;
use super::index::Index;
use crate::stream::segment::{Block, Segment, read_there};
use crate::stream::{Error, Micros, Offset, Position, Result};
use crc32c::{crc32c, crc32c_append};
use std::cell::RefCell;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// The longest active record of which a part is checked against the whole one's checksum: reading a long
/// record in small parts would read it as often as it has parts.
const CHECKED_PART_BYTES_MAX: u64 = 1 << 20;

/// What [`Log::read`] put into the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Records between the offset that was asked for and `first`, which are damaged or missing.
    pub lost: u64,
    /// The first record in the buffer.
    pub first: Offset,
    /// Where to go on.
    pub next: Offset,
    /// Bytes in the buffer.
    pub bytes: usize,
}

impl Batch {
    /// Records in the buffer.
    pub fn records(&self) -> u64 {
        self.next.0 - self.first.0
    }
}

/// A record, framing bytes included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its number in the stream.
    pub offset: Offset,
    /// Its first byte's place in the stream.
    pub position: Position,
    /// When it was indexed.
    pub time: Micros,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// Is told of each record that is read.
type Each<'a, 'f> = &'a mut (dyn FnMut(Record<'_>) + 'f);

thread_local! {
    /// What this thread unpacks blocks from.
    static STORED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A whole block straight to where it is wanted, if it is as it was written.
fn unpack(segment: &Segment, block: usize, into: &mut [u8]) -> io::Result<bool> {
    STORED.with_borrow_mut(|stored| segment.unpack(block, into, stored))
}

/// The good records in a row that begin `wanted`, counted from the block's first; else the offset before which there
/// is none. `until` is where the segment ends.
pub(super) fn run_of(
    block: &Block,
    wanted: Range<u64>,
    until: u64,
) -> std::result::Result<Range<usize>, u64> {
    let first = (wanted.start - block.offset()) as usize;
    if first >= block.records() {
        return Err(until);
    }
    let end = block.run_end(first).min(first + (wanted.end - wanted.start) as usize);
    if block.is_lost(first) { Err(block.offset() + end as u64) } else { Ok(first..end) }
}

/// What one segment's block, or the active file, had.
enum Step {
    /// So many records, or bytes.
    Taken { records: u64, bytes: usize },
    /// Nothing good before this offset, or position.
    Lost { until: u64 },
    /// Not one record fits.
    Full { needed_bytes: usize },
}

impl Log {
    /// Fills `into` with whole records from the one with offset `from` on, as many as there are and fit. At
    /// the end of the stream that is none. Where they fill more than half of it, no block of a segment is unpacked for a
    /// part of it: the next batch begins with that. Fails if not one fits, or if `from` is not retained or behind the
    /// end.
    pub fn read(&self, from: Offset, into: &mut [u8]) -> Result<Batch> {
        self.read_until(from, None, into)
    }

    /// The same; `each` is told of every record.
    pub fn read_with(
        &self,
        from: Offset,
        into: &mut [u8],
        mut each: impl FnMut(Record<'_>),
    ) -> Result<Batch> {
        self.read_each(from, None, into, Some(&mut each))
    }

    /// The same, of records before `until`, without being told.
    pub fn read_until(&self, from: Offset, until: Option<Offset>, into: &mut [u8]) -> Result<Batch> {
        self.read_each(from, until, into, None)
    }

    fn read_each(
        &self,
        from: Offset,
        until: Option<Offset>,
        into: &mut [u8],
        mut each: Option<Each<'_, '_>>,
    ) -> Result<Batch> {
        self.check_offset(from)?;
        let end = until.map_or(u64::MAX, |until| until.0).min(self.active.index.end_offset());
        let mut batch = Batch { lost: 0, first: from, next: from, bytes: 0 };
        while batch.next.0 < end {
            let enough = batch.bytes > into.len() / 2;
            let room = &mut into[batch.bytes..];
            let step = match self.index_of_offset(batch.next.0) {
                Some(index) => match self.take_active(index, batch.next.0..end, room, each.as_deref_mut())? {
                    // What memory has lost, its segment may have.
                    Step::Lost { until } if until <= self.active.index.offset => {
                        self.take_sealed(batch.next.0..until, room, enough, each.as_deref_mut())?
                    }
                    step => step,
                },
                None => self.take_sealed(batch.next.0..end, room, enough, each.as_deref_mut())?,
            };
            match step {
                Step::Taken { records, bytes } => {
                    batch.next.0 += records;
                    batch.bytes += bytes;
                }
                Step::Lost { until } if batch.records() == 0 => {
                    batch.lost += until - batch.next.0;
                    (batch.first, batch.next) = (Offset(until), Offset(until));
                }
                Step::Full { needed_bytes } if batch.records() == 0 && batch.lost == 0 => {
                    return Err(Error::BufferTooSmall { needed_bytes });
                }
                Step::Lost { .. } | Step::Full { .. } => break,
            }
        }
        Ok(batch)
    }

    fn check_offset(&self, from: Offset) -> Result<()> {
        let (first, position) = self.first();
        if from < first {
            return Err(Error::Trimmed { first, position });
        }
        if from > self.end().0 { Err(Error::PastEnd) } else { Ok(()) }
    }

    /// The index that has the record, if its bytes are in the active file.
    pub(super) fn index_of_offset(&self, offset: u64) -> Option<&Index> {
        let active = &self.active.index;
        if offset >= active.offset { Some(active) } else { self.hot.of_offset(offset) }
    }

    fn index_of_position(&self, position: u64) -> Option<&Index> {
        let active = &self.active.index;
        if position >= active.position { Some(active) } else { self.hot.of_position(position) }
    }

    fn take_sealed(
        &self,
        wanted: Range<u64>,
        into: &mut [u8],
        enough: bool,
        mut each: Option<Each<'_, '_>>,
    ) -> Result<Step> {
        let from = wanted.start;
        let at = self.sealed.partition_point(|sealed| sealed.offset <= from) - 1;
        let until = self.begin_of(at + 1).0;
        let Some(segment) = self.segment(at)? else { return Ok(Step::Lost { until }) };
        let Some(i) = segment.block_of_offset(from) else { return Ok(Step::Lost { until }) };
        if each.is_none() && segment.block_offset(i) == from {
            let (records, bytes) = segment.block_extent(i);
            let wanted = records as u64 <= wanted.end - from;
            if enough && bytes > into.len() {
                return Ok(Step::Full { needed_bytes: bytes });
            }
            if wanted && bytes <= into.len() && unpack(&segment, i, &mut into[..bytes])? {
                return Ok(Step::Taken { records: records as u64, bytes });
            }
        }
        let block = self.block(&segment, i)?;
        let run = match run_of(&block, wanted, until) {
            Ok(run) => run,
            Err(until) => return Ok(Step::Lost { until }),
        };
        let first = run.start;
        let begin = block.range(first).start;
        let fits = run.take_while(|i| block.range(*i).end - begin <= into.len()).count();
        if fits == 0 {
            return Ok(Step::Full { needed_bytes: block.range(first).len() });
        }
        let bytes = block.range(first + fits - 1).end - begin;
        into[..bytes].copy_from_slice(&block.bytes()[begin..begin + bytes]);
        for i in first..first + fits {
            let Some(each) = &mut each else { break };
            let range = block.range(i);
            each(Record {
                offset: Offset(block.offset() + i as u64),
                position: Position(block.position() + range.start as u64),
                time: Micros(block.time(i)),
                bytes: &into[range.start - begin..range.end - begin],
            });
        }
        Ok(Step::Taken { records: fits as u64, bytes })
    }

    fn take_active(
        &self,
        index: &Index,
        wanted: Range<u64>,
        into: &mut [u8],
        mut each: Option<Each<'_, '_>>,
    ) -> Result<Step> {
        let from = wanted.start;
        let first = (from - index.offset) as usize;
        let last = index.len().min((wanted.end - index.offset) as usize);
        let (records, bytes) = index.fitting(first..last, into.len());
        let end = first + records;
        if records == 0 {
            return Ok(Step::Full { needed_bytes: index.length(first) as usize });
        }
        let position = index.position_of(first);
        let into = &mut into[..bytes];
        let there = read_there(&self.active.file, into, self.active.file_at(position))?;
        let (mut at, mut lost) = (0, 0);
        for (i, time) in (first..end).zip(index.times_from(first)) {
            let record = at..at + index.length(i) as usize;
            let good = record.end <= there && crc32c(&into[record.clone()]) == index.crc(i);
            if !good && at > 0 && lost == 0 {
                return Ok(Step::Taken { records: (i - first) as u64, bytes: at });
            }
            if good && lost > 0 {
                break;
            }
            at = record.end;
            if good {
                let Some(each) = &mut each else { continue };
                each(Record {
                    offset: Offset(index.offset + i as u64),
                    position: Position(position + record.start as u64),
                    time: Micros(time),
                    bytes: &into[record],
                });
            } else {
                lost += 1;
            }
        }
        if lost > 0 {
            return Ok(Step::Lost { until: from + lost });
        }
        Ok(Step::Taken { records: (end - first) as u64, bytes })
    }

    /// Where a record's bytes begin, and how many they are; `None` if it is lost.
    pub fn extent(&self, offset: Offset) -> Result<Option<(Position, u64)>> {
        self.check_offset(offset)?;
        if let Some(index) = self.index_of_offset(offset.0) {
            let i = (offset.0 - index.offset) as usize;
            let length = if i < index.len() { index.length(i).into() } else { 0 };
            return Ok(Some((Position(index.position_of(i)), length)));
        }
        let at = self.sealed.partition_point(|sealed| sealed.offset <= offset.0) - 1;
        let Some(segment) = self.segment(at)? else { return Ok(None) };
        let Some(block) = segment.block_of_offset(offset.0) else { return Ok(None) };
        let block = self.block(&segment, block)?;
        let record = (offset.0 - block.offset()) as usize;
        if record >= block.records() || block.is_lost(record) {
            return Ok(None);
        }
        let range = block.range(record);
        Ok(Some((Position(block.position() + range.start as u64), range.len() as u64)))
    }

    /// Whether a record is as it was indexed, if it is in the active file; true of others, whose blocks are checked when
    /// they are read.
    pub fn check_in_memory(&self, offset: Offset) -> Result<bool> {
        self.check_offset(offset)?;
        let Some(index) = self.index_of_offset(offset.0) else { return Ok(true) };
        let i = (offset.0 - index.offset) as usize;
        if i >= index.len() {
            return Ok(true);
        }
        let (mut at, end) = (index.position_of(i), index.position_of(i) + u64::from(index.length(i)));
        let mut chunk = vec![0; CHECKED_PART_BYTES_MAX as usize];
        let mut crc = 0;
        while at < end {
            let wanted = chunk.len().min((end - at) as usize);
            let there = read_there(&self.active.file, &mut chunk[..wanted], self.active.file_at(at))?;
            if there < wanted {
                return Ok(false);
            }
            crc = crc32c_append(crc, &chunk[..there]);
            at += there as u64;
        }
        Ok(crc == index.crc(i))
    }

    /// Whether a record was indexed with this checksum, if it is in the active file; true of others.
    pub fn has_checksum(&self, offset: Offset, crc: u32) -> bool {
        self.index_of_offset(offset.0)
            .is_none_or(|index| index.crc((offset.0 - index.offset) as usize) == crc)
    }

    /// Fills `into` with the stream's bytes from `from` on, as many as there are in whole records, and
    /// returns how many; 0 at the end of the stream. Less than all before bytes that are damaged or missing,
    /// which then are an error.
    pub fn read_bytes(&self, from: Position, into: &mut [u8]) -> Result<usize> {
        let (first, position) = self.first();
        if from < position {
            return Err(Error::Trimmed { first, position });
        }
        let end = self.active.index.end_position();
        if from.0 > end {
            return Err(Error::PastEnd);
        }
        let mut done = 0;
        while done < into.len() && from.0 + (done as u64) < end {
            let at = from.0 + done as u64;
            let step = match self.index_of_position(at) {
                Some(index) => match self.copy_active(index, at, &mut into[done..])? {
                    Step::Lost { until } if until <= self.active.index.position => {
                        self.copy_sealed(at, &mut into[done..])?
                    }
                    step => step,
                },
                None => self.copy_sealed(at, &mut into[done..])?,
            };
            match step {
                Step::Taken { bytes, .. } => done += bytes,
                Step::Lost { until } if done == 0 => return Err(Error::Lost { until: Position(until) }),
                Step::Lost { .. } | Step::Full { .. } => break,
            }
        }
        Ok(done)
    }

    fn copy_sealed(&self, from: u64, into: &mut [u8]) -> Result<Step> {
        let at = self.sealed.partition_point(|sealed| sealed.position <= from) - 1;
        let until = self.begin_of(at + 1).1;
        let Some(segment) = self.segment(at)? else { return Ok(Step::Lost { until }) };
        let Some(i) = segment.block_of_position(from) else { return Ok(Step::Lost { until }) };
        let (_, bytes) = segment.block_extent(i);
        if segment.block_position(i) == from
            && bytes <= into.len()
            && unpack(&segment, i, &mut into[..bytes])?
        {
            return Ok(Step::Taken { records: 0, bytes });
        }
        let block = self.block(&segment, i)?;
        let at = (from - block.position()) as usize;
        if at >= block.bytes().len() {
            return Ok(Step::Lost { until });
        }
        let record = block.record_at(at);
        let end = block.range(block.run_end(record) - 1).end;
        if block.is_lost(record) {
            return Ok(Step::Lost { until: block.position() + end as u64 });
        }
        let bytes = into.len().min(end - at);
        into[..bytes].copy_from_slice(&block.bytes()[at..at + bytes]);
        Ok(Step::Taken { records: 0, bytes })
    }

    fn copy_active(&self, index: &Index, from: u64, into: &mut [u8]) -> Result<Step> {
        let wanted = (index.end_position() - from).min(into.len() as u64) as usize;
        let into = &mut into[..wanted];
        let there = read_there(&self.active.file, into, self.active.file_at(from))?;
        let mut done = 0;
        let mut i = index.record_at(from);
        let mut begin = index.position_of(i);
        while done < wanted {
            let length = u64::from(index.length(i));
            let end = begin + length;
            let upto = (end - from).min(wanted as u64) as usize;
            let good = upto <= there
                && if begin >= from && end - from <= wanted as u64 {
                    crc32c(&into[(begin - from) as usize..upto]) == index.crc(i)
                } else {
                    length > CHECKED_PART_BYTES_MAX || self.active_record_is_good(index, i, begin)?
                };
            if !good && done == 0 {
                return Ok(Step::Lost { until: end });
            }
            if !good {
                break;
            }
            done = upto;
            begin = end;
            i += 1;
        }
        Ok(Step::Taken { records: 0, bytes: done })
    }

    fn active_record_is_good(&self, index: &Index, i: usize, position: u64) -> Result<bool> {
        let mut record = vec![0; index.length(i) as usize];
        let there = read_there(&self.active.file, &mut record, self.active.file_at(position))?;
        Ok(there == record.len() && crc32c(&record) == index.crc(i))
    }

    /// The first record that is not before `time`, lost ones apart; the end of the stream if there is none.
    pub fn offset_at_time(&self, time: Micros) -> Result<Offset> {
        // The first segment that begins at `time` or later. Those that can't be read are like the next that
        // can.
        let (mut low, mut high) = (0, self.sealed.len());
        while low < high {
            let middle = low.midpoint(high);
            let mut readable = middle;
            let first_time = loop {
                if readable == high {
                    break None;
                }
                if let Some(segment) = self.segment(readable)? {
                    break Some(segment.header().first_time);
                }
                readable += 1;
            };
            match first_time {
                Some(first) if first < time.0 => low = readable + 1,
                _ => high = middle,
            }
        }
        if let Some(before) = low.checked_sub(1)
            && let Some(segment) = self.segment(before)?
            && let Some(offset) = self.offset_in(&segment, time.0)?
        {
            return Ok(Offset(offset));
        }
        if low < self.sealed.len() {
            return Ok(Offset(self.sealed[low].offset));
        }
        let index = &self.active.index;
        Ok(Offset(index.first_since(time.0).map_or(index.end_offset(), |i| index.offset + i as u64)))
    }

    fn offset_in(&self, segment: &Segment, time: u64) -> Result<Option<u64>> {
        let Some(i) = segment.block_before_time(time) else { return Ok(Some(segment.header().offset)) };
        let block = self.block(segment, i)?;
        let found = (0..block.records()).find(|r| !block.is_lost(*r) && block.time(*r) >= time);
        let next = block.offset() + block.records() as u64;
        let last = i + 1 == segment.blocks();
        Ok(found.map(|r| block.offset() + r as u64).or((!last).then_some(next)))
    }

    /// A sealed segment; `None` if it can't be read as what its name says, so that its records are lost.
    pub(super) fn segment(&self, i: usize) -> Result<Option<Arc<Segment>>> {
        let sealed = &self.sealed[i];
        if let Some(segment) = self.cache.segment(sealed.offset) {
            return Ok(Some(segment));
        }
        let segment = match Segment::open(&self.directory.join(&sealed.name)) {
            Ok(segment) => Arc::new(segment),
            Err(Error::NotSegment { .. }) => return Ok(None),
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let header = segment.header();
        let placed = (header.offset, header.position) == (sealed.offset, sealed.position)
            && header.end_offset() <= self.begin_of(i + 1).0;
        if !placed {
            return Ok(None);
        }
        self.cache.keep_segment(sealed.offset, &segment);
        Ok(Some(segment))
    }

    pub(super) fn block(&self, segment: &Segment, i: usize) -> Result<Arc<Block>> {
        let offset = segment.block_offset(i);
        if let Some(block) = self.cache.block(offset) {
            return Ok(block);
        }
        let block = Arc::new(segment.read_block(i)?);
        self.cache.keep_block(&block);
        Ok(block)
    }
}
