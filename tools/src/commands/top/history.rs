//! What a mount did in the last minutes, a point an answer.

use aimss_fs::control::status::MountStatus;
use std::collections::VecDeque;
use std::time::Instant;

/// More than a wide terminal has columns.
const POINTS_MAX: usize = 400;

/// One moment; rates are bytes or records a second since the point before.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Point {
    /// Bytes in memory.
    pub used: u64,
    /// Bytes that the backing doesn't have.
    pub dirty: u64,
    /// Written to the backing.
    pub drained: u64,
    /// Read from it.
    pub fetched: u64,
    /// Appended to streams.
    pub records: u64,
}

/// Counters as they were.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    written: u64,
    fetched: u64,
    records: u64,
}

/// The last points, the newest at the end.
#[derive(Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
    last: Option<Counted>,
}

impl History {
    /// What was told `at` a moment.
    pub fn add(&mut self, status: &MountStatus, at: Instant) {
        let now = Counted {
            at,
            written: status.drain.written,
            fetched: status.fetch.causes.values().map(|cause| cause.bytes).sum(),
            records: status.streams.records,
        };
        let before = self.last.replace(now).unwrap_or(now);
        let seconds = now.at.duration_since(before.at).as_secs_f64();
        // Another daemon may count from zero, and then nothing is known of the time between.
        let rate = |now: u64, before: u64| {
            if seconds > 0.0 { (now.saturating_sub(before) as f64 / seconds) as u64 } else { 0 }
        };
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(Point {
            used: status.memory.used,
            dirty: status.drain.bytes,
            drained: rate(now.written, before.written),
            fetched: rate(now.fetched, before.fetched),
            records: rate(now.records, before.records),
        });
    }

    /// The newest.
    pub fn last(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }

    /// One figure of the last `count`, the newest at the end.
    pub fn of(&self, count: usize, figure: impl Fn(&Point) -> u64) -> Vec<u64> {
        let skipped = self.points.len().saturating_sub(count);
        self.points.iter().skip(skipped).map(figure).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn rates_are_differences_over_time() {
        let mut history = History::default();
        let begun = Instant::now();
        let mut status = MountStatus::default();
        for (at, written) in [(0, 1000), (2, 5000), (3, 5000), (4, 100)] {
            status.drain.written = written;
            history.add(&status, begun + Duration::from_secs(at));
        }
        // The last one is another daemon's count.
        assert_eq!(history.of(10, |point| point.drained), [0, 2000, 0, 0]);
        assert_eq!(history.of(2, |point| point.drained), [0, 0]);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut history = History::default();
        let status = MountStatus::default();
        for _ in 0..POINTS_MAX + 10 {
            history.add(&status, Instant::now());
        }
        assert_eq!(history.of(usize::MAX, |point| point.used).len(), POINTS_MAX);
    }
}
