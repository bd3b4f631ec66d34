//! What producers and consumers of a run share: counts, and its end.

use anyhow::Result;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long who can't go on rests before it looks again: a fraction of what a window takes.
pub const REST: Duration = Duration::from_micros(100);

/// See the module. The counts are only counts: nothing is published through them.
#[derive(Debug)]
pub struct Flow {
    produced: AtomicU64,
    consumed: AtomicU64,
    ended: AtomicBool,
    window: u64,
}

impl Flow {
    /// At most `window` records are not yet consumed, but for a chunk of each producer.
    pub fn new(window: usize) -> Self {
        Self {
            produced: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            window: window as u64,
        }
    }

    /// Whether producers must rest.
    pub fn full(&self) -> bool {
        let produced = self.produced.load(Ordering::Relaxed);
        produced.saturating_sub(self.consumed.load(Ordering::Relaxed)) > self.window
    }

    /// Counts.
    pub fn produce(&self, records: usize) {
        self.produced.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Counts.
    pub fn consume(&self, records: usize) {
        self.consumed.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records consumed so far.
    pub fn consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }

    /// Whether to stop.
    pub fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Stops all.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Does `work`; if it fails, all others stop too.
    pub fn ending<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work().inspect_err(|_| self.end())
    }
}
