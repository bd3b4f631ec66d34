//! The index of the active file, in memory: length, checksum and time of each record that is not sealed yet.
//!
//! Eight bytes a record, and eight more for every 256th: its position. A record is found by one of those and
//! a walk of at most 255 lengths. Records indexed together have one time, so times are kept by runs.

use std::ops::Range;

/// Records between two noted positions: a walk costs some 20 ns, the positions 0.4% of the index.
const STRIDE: usize = 256;

/// See the module. Records are counted from the first one in the index.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    /// Offset of the first record.
    pub offset: u64,
    /// Position of its first byte.
    pub position: u64,
    /// Records at the front of the lists that are not in the index any more: taking some away costs no copy of the rest.
    gone: usize,
    lengths: Vec<u32>,
    crcs: Vec<u32>,
    /// Position of every `STRIDE`th record of the lists.
    places: Vec<u64>,
    /// The first record of each run in the lists, and the run's time. Times grow.
    times: Vec<(usize, u64)>,
    /// All lengths together.
    bytes: u64,
}

impl Index {
    pub fn new(offset: u64, position: u64) -> Index {
        Index { offset, position, ..Index::default() }
    }

    pub fn push(&mut self, length: u32, crc: u32, time: u64) {
        if self.lengths.len().is_multiple_of(STRIDE) {
            self.places.push(self.end_position());
        }
        if self.times.last().is_none_or(|(_, last)| *last != time) {
            self.times.push((self.lengths.len(), time));
        }
        self.lengths.push(length);
        self.crcs.push(crc);
        self.bytes += u64::from(length);
    }

    pub fn len(&self) -> usize {
        self.lengths.len() - self.gone
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn end_offset(&self) -> u64 {
        self.offset + self.len() as u64
    }

    pub fn end_position(&self) -> u64 {
        self.position + self.bytes
    }

    pub fn length(&self, i: usize) -> u32 {
        self.lengths[self.gone + i]
    }

    /// How many records from the first of `range` on come to at most `bytes_max`, and to how much.
    pub fn fitting(&self, range: Range<usize>, bytes_max: usize) -> (usize, usize) {
        let (mut records, mut bytes) = (0, 0);
        for i in range {
            let with_it = bytes + self.length(i) as usize;
            if with_it > bytes_max {
                break;
            }
            (records, bytes) = (records + 1, with_it);
        }
        (records, bytes)
    }

    pub fn crc(&self, i: usize) -> u32 {
        self.crcs[self.gone + i]
    }

    pub fn time(&self, i: usize) -> u64 {
        let run = self.times.partition_point(|(first, _)| *first <= self.gone + i);
        self.times[run - 1].1
    }

    /// The times of records from `i` on, one after the other.
    pub fn times_from(&self, i: usize) -> impl Iterator<Item = u64> + '_ {
        let i = self.gone + i;
        let mut run = self.times.partition_point(|(first, _)| *first <= i);
        (i..self.lengths.len()).map(move |i| {
            if self.times.get(run).is_some_and(|(first, _)| *first == i) {
                run += 1;
            }
            self.times[run - 1].1
        })
    }

    /// Position of a record's first byte; of the end, for one past the last.
    pub fn position_of(&self, i: usize) -> u64 {
        if i >= self.len() {
            return self.end_position();
        }
        let i = self.gone + i;
        let walk = i / STRIDE * STRIDE..i;
        self.places[i / STRIDE] + self.lengths[walk].iter().map(|length| u64::from(*length)).sum::<u64>()
    }

    /// The record that has the byte at this position, which is in the index.
    pub fn record_at(&self, position: u64) -> usize {
        let place = self.places.partition_point(|place| *place <= position) - 1;
        let (mut i, mut end) = (place * STRIDE, self.places[place]);
        loop {
            end += u64::from(self.lengths[i]);
            if position < end {
                return i - self.gone;
            }
            i += 1;
        }
    }

    /// The first record with a time of at least `time`.
    pub fn first_since(&self, time: u64) -> Option<usize> {
        let run = self.times.partition_point(|(_, of)| *of < time);
        // The run that it is in may have begun before.
        self.times.get(run).map(|(first, _)| first.saturating_sub(self.gone))
    }

    /// The first records, up to the one with which they come to `bytes`; all if they don't.
    pub fn first_bytes(&self, bytes: u64) -> usize {
        if self.bytes <= bytes {
            self.len()
        } else {
            self.record_at(self.position + bytes.saturating_sub(1)) + 1
        }
    }

    /// Takes the first records out, as an index of their own.
    pub fn split_front(&mut self, records: usize) -> Index {
        let front = self.part(0..records);
        self.offset += records as u64;
        self.position = front.end_position();
        self.bytes -= front.bytes;
        self.gone += records;
        if self.gone > self.len() {
            // Now a copy of the rest costs less than what it frees is worth.
            *self = self.part(0..self.len());
        }
        front
    }

    /// A copy of some of it.
    pub fn part(&self, range: Range<usize>) -> Index {
        let mut part = Index::new(self.offset + range.start as u64, self.position_of(range.start));
        part.lengths.reserve_exact(range.len());
        part.crcs.reserve_exact(range.len());
        let range = self.gone + range.start..self.gone + range.end;
        let mut run = self.times.partition_point(|(first, _)| *first <= range.start);
        for i in range {
            if self.times.get(run).is_some_and(|(first, _)| *first == i) {
                run += 1;
            }
            part.push(self.lengths[i], self.crcs[i], self.times[run - 1].1);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_found_by_position_and_time_and_in_parts() {
        let mut index = Index::new(10, 100);
        let mut ends = Vec::new();
        for i in 0..1000u32 {
            index.push(i % 7 + 1, i, u64::from(i / 10));
            ends.push(index.end_position());
        }
        for part in [index.part(0..1000), index.part(300..1000), index.part(5..6)] {
            for i in 0..part.len() {
                let whole = (part.offset - 10) as usize + i;
                assert_eq!(part.crc(i), whole as u32);
                assert_eq!(part.time(i), whole as u64 / 10);
                assert_eq!(part.position_of(i + 1), ends[whole]);
                assert_eq!(part.record_at(part.position_of(i)), i);
                assert_eq!(part.record_at(part.position_of(i + 1) - 1), i);
            }
        }
        let mut rest = index.clone();
        let front = rest.split_front(300);
        assert_eq!((front.len(), front.end_position()), (300, ends[299]));
        assert_eq!((rest.offset, rest.position, rest.len()), (310, ends[299], 700));
        assert_eq!(front.record_at(ends[299] - 1), 299);
        for i in [0, 1, 255, 256, 699] {
            assert_eq!(
                (rest.length(i), rest.crc(i), rest.time(i)),
                (index.length(300 + i), index.crc(300 + i), index.time(300 + i))
            );
            assert_eq!(rest.position_of(i + 1), ends[300 + i]);
            assert_eq!(rest.record_at(ends[300 + i] - 1), i);
            assert_eq!(rest.times_from(i).next(), Some(rest.time(i)));
        }
        assert_eq!(rest.first_since(5), Some(0));
        assert_eq!(rest.first_since(40), Some(100));
        assert_eq!(rest.part(10..20).position_of(3), rest.position_of(13));
        rest.push(9, 9, 1000);
        assert_eq!((rest.len(), rest.length(700), rest.time(700)), (701, 9, 1000));
        assert_eq!(index.first_since(5), Some(50));
        assert_eq!(index.first_since(100), None);
        assert_eq!(index.first_bytes(8), 4, "1 + 2 + 3 + 4 bytes are the first to come to 8");
        assert_eq!(index.first_bytes(10), 4);
        assert_eq!(index.first_bytes(u64::MAX), 1000);
    }
}
