//! Where a file was written: since somebody began to copy it, and since the storage was last asked to write it out.

use std::ops::Range;

/// What was written to a file while it is copied.
#[derive(Debug, Default)]
pub struct Written {
    ranges: Vec<Range<u64>>,
    /// All of it: it was cut, or written in more places than are worth telling apart.
    whole: bool,
}

impl Written {
    /// Beyond so many places, neighbours are looked for; beyond half of them, all of the file counts.
    const PLACES_MAX: usize = 4096;

    /// Notes a write.
    pub fn note(&mut self, range: Range<u64>) {
        match self.ranges.last_mut() {
            _ if self.whole => {}
            Some(last) if last.start <= range.start && range.start <= last.end => {
                last.end = last.end.max(range.end);
            }
            _ => {
                self.ranges.push(range);
                if self.ranges.len() > Written::PLACES_MAX {
                    self.merge();
                    self.whole = self.ranges.len() > Written::PLACES_MAX / 2;
                }
            }
        }
    }

    /// Notes a change that is anywhere.
    pub fn note_all(&mut self) {
        self.whole = true;
    }

    /// What was noted since it was last asked, of a file of `size`: sorted, apart from each other.
    pub fn take(&mut self, size: u64) -> Vec<Range<u64>> {
        self.merge();
        let ranges = std::mem::take(&mut self.ranges);
        if std::mem::take(&mut self.whole) {
            return std::iter::once(0..size).filter(|range| !range.is_empty()).collect();
        }
        let cut = |range: Range<u64>| range.start..range.end.min(size);
        ranges.into_iter().map(cut).filter(|range| !range.is_empty()).collect()
    }

    /// Bytes that [`Written::take`] would tell of, at most.
    pub fn bytes(&self, size: u64) -> u64 {
        if self.whole { size } else { self.ranges.iter().map(|range| range.end - range.start).sum() }
    }

    fn merge(&mut self) {
        self.ranges.sort_unstable_by_key(|range| range.start);
        self.ranges.dedup_by(|next, last| {
            let touching = next.start <= last.end;
            if touching {
                last.end = last.end.max(next.end);
            }
            touching
        });
    }
}

/// An open file on its way from the arena to the backing. Set and taken back only by who has the file's turn in the
/// drain, so that there is one at a time.
#[derive(Debug)]
pub struct Moving {
    /// Whose it is: a file that was closed and opened again is another's.
    pub mover: u64,
    /// What was written since it was last copied.
    pub written: Written,
    /// Rounds of copying so far.
    pub round: u32,
    /// Writers wait until it is through.
    pub closing: bool,
}

/// What writers put into the page cache of the backing and nobody asked the storage to write yet.
#[derive(Debug, Default)]
pub struct Behind {
    hull: Range<u64>,
    bytes: u64,
    begun: Option<Range<u64>>,
    /// Somebody writes out: the kernel tells of a failure once, so that one at a time is told.
    busy: bool,
}

/// What is to be written out now.
#[derive(Debug, PartialEq, Eq)]
pub struct WriteOut {
    /// To be begun.
    pub begin: Range<u64>,
    /// To be waited for, and then let go.
    pub end: Option<Range<u64>>,
}

impl Behind {
    /// Bytes begun at once; as many again are on their way. Enough to keep a disk busy.
    const WINDOW_BYTES: u64 = 8 << 20;
    /// Writers that are further ahead wait.
    const AHEAD_BYTES_MAX: u64 = 16 << 20;

    /// Notes a write; what is to be written out, once that is worth it.
    pub fn note(&mut self, range: Range<u64>) -> Option<WriteOut> {
        self.bytes += range.end - range.start;
        self.hull = hull(&self.hull, &range);
        if self.busy || self.bytes < Behind::WINDOW_BYTES {
            return None;
        }
        self.busy = true;
        let begin = std::mem::take(&mut self.hull);
        let scattered = begin.end - begin.start > 2 * std::mem::take(&mut self.bytes);
        let before = self.begun.take();
        let end = if scattered {
            // Windows overlap: nothing would ever be done with.
            Some(before.map_or(begin.clone(), |before| hull(&before, &begin)))
        } else {
            self.begun = Some(begin.clone());
            before
        };
        Some(WriteOut { begin, end })
    }

    /// Whether writers are far ahead of what is written out.
    pub fn is_far(&self) -> bool {
        self.busy && self.bytes >= Behind::AHEAD_BYTES_MAX
    }

    /// What [`Behind::note`] gave out is done with.
    pub fn done(&mut self) {
        self.busy = false;
    }
}

fn hull(one: &Range<u64>, other: &Range<u64>) -> Range<u64> {
    match (one.is_empty(), other.is_empty()) {
        (true, _) => other.clone(),
        (_, true) => one.clone(),
        _ => one.start.min(other.start)..one.end.max(other.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_told_once_and_merged() {
        let mut written = Written::default();
        for range in [10..20, 20..30, 5..10, 100..110, 25..28] {
            written.note(range);
        }
        assert_eq!(written.take(105), [5..30, 100..105]);
        assert_eq!(written.take(105), []);
        written.note(0..10);
        written.note_all();
        assert_eq!(written.take(50), [0..50]);
        assert_eq!((written.take(50), written.bytes(50)), (vec![], 0));
    }

    #[test]
    fn many_places_are_the_whole_file() {
        let mut written = Written::default();
        for place in 0..5000_u64 {
            written.note(place * 10..place * 10 + 5);
        }
        assert_eq!(written.take(77), [0..77]);
    }

    #[test]
    fn a_window_is_waited_for_when_the_next_one_begins() {
        const MIB: u64 = 1 << 20;
        let mut behind = Behind::default();
        let mut asked = Vec::new();
        for block in 0..16 {
            let out = behind.note(block * MIB..(block + 1) * MIB);
            assert!(behind.note(0..0).is_none(), "one at a time");
            behind.done();
            asked.extend(out);
        }
        assert_eq!(asked[0], WriteOut { begin: 0..8 * MIB, end: None });
        assert_eq!(asked[1], WriteOut { begin: 8 * MIB..16 * MIB, end: Some(0..8 * MIB) });
        // Far apart: all of it is waited for.
        for block in 0..8 {
            asked.extend(behind.note(block * 100 * MIB..(block * 100 + 1) * MIB));
            behind.done();
        }
        behind.note(0..8 * MIB);
        behind.note(8 * MIB..23 * MIB);
        assert!(!behind.is_far());
        behind.note(23 * MIB..24 * MIB);
        assert!(behind.is_far());
        behind.done();
        assert!(!behind.is_far());
        assert_eq!(asked[2], WriteOut { begin: 0..701 * MIB, end: Some(0..701 * MIB) });
    }
}
