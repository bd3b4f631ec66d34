//! One block in memory, and which of its records are as they were written.
//!
//! 1. If the checksums of table and stored bytes are right, and no record was damaged when the block was
//!    written, all records are good: none is looked at.
//! 2. If the table is right, the places of the records are. Each record is checked by itself; what LZ4 made
//!    before it failed, or what of the file is there, is checked like anything else.
//! 3. If only the stored bytes are right, some length or time or checksum in the table is not. Records are
//!    checked from the front until one fails and from the back until one fails: what lies between is where
//!    the table is wrong, and if that is one record, its length is known by its neighbours.
//! 4. If neither is right, records are good only if all lengths still add up, and if their own checksums are
//!    right.
//!
//! A record's checksum covers its bytes and its time.

use super::layout::{Codec, ENTRY_BYTES, Entry, Head, LZ4_RATIO_MAX, check_of};
use crc32c::crc32c;
use std::ops::Range;

/// See the module. Records are counted from the block's first.
#[derive(Debug)]
pub struct Block {
    head: Head,
    raw: Vec<u8>,
    entries: Vec<Entry>,
    /// Where records begin in `raw`, and, last, where they end.
    starts: Vec<u32>,
    /// Which records are lost; empty if none is.
    lost: Vec<bool>,
    entries_good: bool,
    stored_good: bool,
}

impl Block {
    /// From a body of which `present` bytes are there: the table, and what is there of the stored bytes. Memory
    /// goes by what is there, not by what the head promises.
    pub(super) fn decode(head: Head, body: &[u8], present: usize) -> Block {
        let (table, stored) = body.split_at(head.entries_bytes());
        let there = present.saturating_sub(table.len());
        let entries_good = present >= table.len() && crc32c(table) == head.entries_crc;
        let mut stored_good = there == head.stored_bytes as usize && crc32c(stored) == head.stored_crc;
        let mut raw = Vec::new();
        match head.codec {
            Codec::Raw => raw.extend_from_slice(stored),
            Codec::Lz4 => {
                let made_max = there as u64 * LZ4_RATIO_MAX;
                raw.resize(made_max.min(head.raw_bytes.into()) as usize, 0);
                // If it fails, what it made up to there stays.
                let made = lz4_flex::block::decompress_into(&stored[..there], &mut raw);
                stored_good &= made.is_ok_and(|bytes| bytes == head.raw_bytes as usize);
            }
        }
        let entries: Vec<Entry> = table.chunks_exact(ENTRY_BYTES).map(Entry::decode).collect();
        let mut block =
            Block { head, raw, entries, starts: Vec::new(), lost: Vec::new(), entries_good, stored_good };
        block.place();
        block
    }

    fn place(&mut self) {
        let mut end = 0u64;
        self.starts.reserve_exact(self.entries.len() + 1);
        self.starts.push(0);
        for entry in &self.entries {
            end += u64::from(entry.length);
            self.starts.push(u32::try_from(end).unwrap_or(u32::MAX));
        }
        let adds_up =
            end == u64::from(self.head.raw_bytes) && self.entries.iter().all(|entry| entry.length > 0);
        if adds_up && self.entries_good && self.stored_good && self.head.damaged == 0 {
            return;
        }
        if adds_up {
            self.lost = (0..self.entries.len()).map(|i| !self.checks(i, self.range(i))).collect();
        } else if self.stored_good {
            self.place_from_both_ends();
        } else {
            self.lose_all();
        }
        if !self.lost.contains(&true) {
            self.lost.clear();
        }
    }

    fn lose_all(&mut self) {
        self.starts = vec![0; self.entries.len()];
        self.starts.push(self.head.raw_bytes);
        self.lost = vec![true; self.entries.len()];
    }

    /// Step 3 of the module's text.
    fn place_from_both_ends(&mut self) {
        let count = self.entries.len();
        let length = |i: usize| self.entries[i].length as usize;
        let (mut front, mut from) = (0, 0);
        while front < count && length(front) <= self.raw.len() - from {
            if length(front) == 0 || !self.checks(front, from..from + length(front)) {
                break;
            }
            from += length(front);
            front += 1;
        }
        let mut starts = self.starts[..front].to_vec();
        let (mut back, mut to) = (count, self.raw.len());
        let mut behind = Vec::new();
        while back > front && length(back - 1) <= to - from {
            if length(back - 1) == 0 || !self.checks(back - 1, to - length(back - 1)..to) {
                break;
            }
            to -= length(back - 1);
            back -= 1;
            behind.push(to as u32);
        }
        if front == back && from != to {
            // Bytes that no record wants: nothing of it is to be trusted.
            self.lose_all();
            return;
        }
        let mut lost = vec![false; count];
        lost[front..back].fill(back - front > 1 || (front < back && !self.checks(front, from..to)));
        // The bytes between belong to the last of the lost; those before it get none.
        starts.resize(back, from as u32);
        starts.extend(behind.iter().rev());
        starts.push(self.raw.len() as u32);
        (self.starts, self.lost) = (starts, lost);
    }

    fn checks(&self, i: usize, range: Range<usize>) -> bool {
        let entry = self.entries[i];
        self.raw.get(range).is_some_and(|bytes| check_of(crc32c(bytes), entry.delay) == entry.check)
    }

    /// Offset of the first record.
    pub fn offset(&self) -> u64 {
        self.head.offset
    }

    /// Position of the first byte.
    pub fn position(&self) -> u64 {
        self.head.position
    }

    /// Number of records.
    pub fn records(&self) -> usize {
        self.entries.len()
    }

    /// Where in [`Block::bytes`] a record is. Of a lost one this may be beyond their end.
    pub fn range(&self, i: usize) -> Range<usize> {
        self.starts[i] as usize..self.starts[i + 1] as usize
    }

    /// The block's part of the stream. Only what good records cover is as it was written.
    pub fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// A record's time in microseconds since 1970; of a lost one, a guess.
    pub fn time(&self, i: usize) -> u64 {
        self.head.time.saturating_add(self.entries[i].delay.into())
    }

    /// The record that has the byte at this place of [`Block::bytes`].
    pub fn record_at(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start as usize <= at).saturating_sub(1).min(self.records() - 1)
    }

    /// Whether a record is lost.
    pub fn is_lost(&self, i: usize) -> bool {
        !self.lost.is_empty() && self.lost[i]
    }

    /// The end of the run of good, or of lost, records that `i` is in.
    pub fn run_end(&self, i: usize) -> usize {
        if self.lost.is_empty() {
            return self.records();
        }
        let same = self.lost[i..].iter().take_while(|lost| **lost == self.lost[i]).count();
        i + same
    }

    /// The table as the good records say it must have been, if none is lost.
    pub(super) fn table_of_records(&self) -> Option<Vec<u8>> {
        if !self.lost.is_empty() {
            return None;
        }
        let mut table = Vec::with_capacity(self.head.entries_bytes());
        for (i, entry) in self.entries.iter().enumerate() {
            let bytes = self.raw.get(self.range(i))?;
            let check = check_of(crc32c(bytes), entry.delay);
            Entry { length: bytes.len() as u32, delay: entry.delay, check }.encode(&mut table);
        }
        Some(table)
    }

    /// Whether table and stored bytes are as they were written.
    pub(super) fn good_parts(&self) -> (bool, bool) {
        (self.entries_good, self.stored_good)
    }
}
