//! Whether a file is read in some order: from front to back, backward, by a stride, by several readers at once.
//!
//! A read is *expected* if it begins where one of the last reads ended, ends where one began, or is as far behind
//! (or before) one of them as that one was behind another. Two expected ones in a row make a scan. This is the
//! stride detection of processor caches, with places in a file for addresses (Chen and Baer, "Effective
//! Hardware-Based Data Prefetching for High-Performance Processors", 1995), over a short history instead of a table
//! by instruction: who reads is not known here.
//!
//! Strides that leave out more than a fetch of the whole file is worth are no scan: see [`STRIDE_BYTES`].

use smallvec::SmallVec;

/// Reads that are remembered: two for each of four readers.
const READS: usize = 8;
/// So many expected ones in a row make a scan.
const EXPECTED_MIN: u32 = 2;
/// Strides up to this are followed, and those up to [`STRIDE_READS`] times a read: a call to slow storage takes as long
/// as it does to read about this much.
const STRIDE_BYTES: u64 = 1 << 20;
const STRIDE_READS: u64 = 8;

/// The last reads of an open file.
#[derive(Debug, Clone, Default)]
pub struct Scan {
    /// From and to where, the latest last.
    reads: SmallVec<[(u64, u64); READS]>,
    expected: u32,
}

/// Where a scan goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Course {
    /// The byte to be read next.
    pub next: u64,
    /// Toward the front.
    pub backward: bool,
}

impl Scan {
    /// Notes a read; where it goes on if the file is being scanned.
    pub fn read(&mut self, offset: u64, bytes: u64) -> Option<Course> {
        let read = (offset, offset.saturating_add(bytes));
        if self.reads.contains(&read) {
            // Read again: says nothing.
            return None;
        }
        let backward = self.reads.iter().rev().enumerate().find_map(|(i, last)| {
            let earlier = &self.reads[..self.reads.len() - 1 - i];
            continues(*last, read, earlier).then_some(offset < last.0)
        });
        match backward {
            Some(_) => self.expected += 1,
            // Somebody begins.
            None if offset == 0 => {}
            None => self.expected = 0,
        }
        if self.reads.len() >= READS {
            self.reads.remove(0);
        }
        self.reads.push(read);
        let backward = backward.filter(|_| self.expected >= EXPECTED_MIN)?;
        Some(Course { next: if backward { offset.saturating_sub(1) } else { read.1 }, backward })
    }
}

/// Whether a read is expected behind `last`, before which there were `earlier` ones.
fn continues(last: (u64, u64), read: (u64, u64), earlier: &[(u64, u64)]) -> bool {
    if read.0 == last.1 || read.1 == last.0 {
        return true;
    }
    let stride = read.0.wrapping_sub(last.0) as i64;
    let followed = stride.unsigned_abs() <= STRIDE_BYTES.max(STRIDE_READS * (read.1 - read.0));
    followed && earlier.iter().any(|before| last.0.wrapping_sub(before.0) as i64 == stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn courses(reads: impl IntoIterator<Item = u64>, bytes: u64) -> Vec<Option<bool>> {
        let mut scan = Scan::default();
        let mut read = |offset| scan.read(offset, bytes).map(|course| course.backward);
        reads.into_iter().map(&mut read).collect()
    }

    const FORWARD: Option<bool> = Some(false);
    const BACKWARD: Option<bool> = Some(true);

    #[test]
    fn scans_go_forward_and_backward() {
        assert_eq!(courses([0, 10, 20, 30], 10), [None, None, FORWARD, FORWARD]);
        assert_eq!(courses([90, 80, 70, 60], 10), [None, None, BACKWARD, BACKWARD]);
        let mut scan = Scan::default();
        let last = [90, 80, 70].map(|offset| scan.read(offset, 10))[2];
        assert_eq!(last, Some(Course { next: 69, backward: true }));
    }

    #[test]
    fn strides_are_followed_and_long_ones_are_not() {
        assert_eq!(courses((0..5).map(|i| i * 64), 16), [None, None, None, FORWARD, FORWARD]);
        assert_eq!(courses((0..5).map(|i| 1000 - i * 64), 16), [None, None, None, BACKWARD, BACKWARD]);
        assert_eq!(courses((0..9).map(|i| i << 24), 4096), [None; 9]);
        assert_eq!(courses((0..4).map(|i| i << 22), 1 << 20).last(), Some(&FORWARD), "a quarter of the file");
    }

    #[test]
    fn interleaved_readers_are_followed_each_in_itself() {
        let far = 1 << 40;
        // The second reader begins in the middle, which breaks the row once.
        let reads = [0, far, 10, far + 10, 20, far + 20];
        assert_eq!(courses(reads, 10), [None, None, None, FORWARD, FORWARD, FORWARD]);
        let four = (0..6).flat_map(|i| [0, 1, 2, 3].map(|reader| reader * far + i * 64));
        let seen = courses(four, 16);
        assert!(seen[..9].iter().all(Option::is_none) && seen[9..].iter().all(|course| *course == FORWARD));
    }

    #[test]
    fn reads_at_random_are_no_scan() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % 100_000 * 4096
        };
        let scans =
            courses((0..10_000).map(|_| random()), 4096).iter().filter(|course| course.is_some()).count();
        assert_eq!(scans, 0);
        assert_eq!(courses([70, 70, 70, 70], 10), [None; 4], "the same again");
    }
}
