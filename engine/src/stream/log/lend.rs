//! Lending: where records are, for readers that look at them there.
//!
//! Of the active file that is a [`Span`]: a copy of its index's part (8 bytes a record), nothing of the
//! bytes. They are compared with their checksums where they are read, by [`Span::good`], with no borrow of
//! the log. Of a segment it is a block, unpacked, which other readers may have as well.

use super::Log;
use super::index::Index;
use super::read::run_of;
use crate::stream::segment::Block;
use crate::stream::{Micros, Result};
use crc32c::crc32c;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

/// What [`Log::find`] found.
#[derive(Debug)]
pub(in crate::stream) enum Found {
    /// In the active file.
    Active(Span),
    /// In a block: so many records, counted from its first.
    Block(Arc<Block>, Range<usize>),
    /// Nothing good before this offset.
    Lost { until: u64 },
}

/// Records of the active file in a row. Those in the log's index are there for as long as the log does not
/// seal them and give their bytes back.
#[derive(Debug)]
pub(in crate::stream) struct Span {
    file: Arc<File>,
    file_at: u64,
    index: Index,
}

impl Span {
    /// The active file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Where in the file they are.
    pub fn range(&self) -> Range<u64> {
        self.file_at..self.file_at + self.index.bytes()
    }

    /// Offset of the first.
    pub fn first(&self) -> u64 {
        self.index.offset
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The first run of records whose bytes in `bytes`, which begin with the first one's and may end too
    /// early, are as they were indexed; where there is none, it is empty and behind the last.
    pub fn good(&self, bytes: &[u8]) -> Range<usize> {
        let mut run = 0..0;
        let mut rest = bytes;
        for i in 0..self.len() {
            let length = self.index.length(i) as usize;
            let good = length <= rest.len() && crc32c(&rest[..length]) == self.index.crc(i);
            if good {
                run.end = i + 1;
            } else if run.is_empty() {
                run = i + 1..i + 1;
            } else {
                break;
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        run
    }

    /// Where in the bytes a record begins, by its number in the span; they end where the one behind the last
    /// does.
    pub fn at(&self, i: usize) -> usize {
        (self.index.position_of(i) - self.index.position) as usize
    }

    /// Position of the first record's first byte.
    pub fn position(&self) -> u64 {
        self.index.position
    }

    /// Length and time of a record, by its number in the span.
    pub fn record(&self, i: usize) -> (usize, Micros) {
        (self.index.length(i) as usize, Micros(self.index.time(i)))
    }
}

impl Log {
    /// Where the first of the records with these offsets are, which are retained: about `bytes_max` bytes,
    /// but at least one record.
    pub(in crate::stream) fn find(&self, wanted: Range<u64>, bytes_max: usize) -> Result<Found> {
        let Some(index) = self.index_of_offset(wanted.start) else {
            return self.find_sealed(wanted, bytes_max);
        };
        let first = (wanted.start - index.offset) as usize;
        let last = index.len().min((wanted.end - index.offset) as usize);
        let (records, _) = index.fitting(first..last, bytes_max);
        let index = index.part(first..first + records.max(1));
        let file_at = self.active.file_at(index.position);
        Ok(Found::Active(Span { file: self.active_file(), file_at, index }))
    }

    fn find_sealed(&self, wanted: Range<u64>, bytes_max: usize) -> Result<Found> {
        let from = wanted.start;
        let at = self.sealed.partition_point(|sealed| sealed.offset <= from) - 1;
        let until = self.begin_of(at + 1).0;
        let Some(segment) = self.segment(at)? else { return Ok(Found::Lost { until }) };
        let Some(i) = segment.block_of_offset(from) else { return Ok(Found::Lost { until }) };
        let block = self.block(&segment, i)?;
        let run = match run_of(&block, wanted, until) {
            Ok(run) => run,
            Err(until) => return Ok(Found::Lost { until }),
        };
        let begin = block.range(run.start).start;
        let fits = run.clone().take_while(|i| block.range(*i).end - begin <= bytes_max).count().max(1);
        Ok(Found::Block(block, run.start..run.start + fits))
    }
}
