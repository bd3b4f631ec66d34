//! Which of the active file's bytes are looked at through a mapping: from the lowest pin on, nothing may be
//! given back, or who looks would see zeros.
//!
//! A pin is set with the log borrowed, in which the records then are; the front that may be given back is
//! asked of the log first and of the pins then. So no pin comes too late.

use super::Stream;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The pins of a stream.
#[derive(Debug, Default)]
pub(super) struct Pins {
    /// How many there are at each place in the file. A leaf lock.
    places: Mutex<BTreeMap<u64, usize>>,
    /// Something could not be given back. Set with `places` locked, so that whoever takes the last pin away
    /// after that sees it.
    withheld: AtomicBool,
}

impl Pins {
    /// How much of the first `bytes` of the file may be given back.
    pub fn free(&self, bytes: u64) -> u64 {
        let places = self.places.lock();
        let lowest = places.keys().next().copied().unwrap_or(u64::MAX);
        if lowest < bytes {
            self.withheld.store(true, Ordering::SeqCst);
        }
        bytes.min(lowest)
    }

    /// Whether something could not be given back since this was asked.
    pub fn take_withheld(&self) -> bool {
        self.withheld.swap(false, Ordering::SeqCst)
    }
}

/// Holds the active file's bytes from a place on.
#[derive(Debug)]
pub(super) struct Pin {
    stream: Arc<Stream>,
    at: u64,
}

impl Pin {
    /// With the log borrowed.
    pub fn new(stream: &Arc<Stream>, at: u64) -> Pin {
        *stream.pins.places.lock().entry(at).or_default() += 1;
        Pin { stream: Arc::clone(stream), at }
    }

    /// The first byte that it holds.
    pub fn at(&self) -> u64 {
        self.at
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let pins = &self.stream.pins;
        {
            let mut places = pins.places.lock();
            if let Some(count) = places.get_mut(&self.at) {
                *count -= 1;
                if *count == 0 {
                    places.remove(&self.at);
                }
            }
        }
        if pins.withheld.load(Ordering::SeqCst) {
            self.stream.full.store(true, Ordering::Relaxed);
            if let Some(hub) = self.stream.hub.upgrade() {
                hub.full.set();
            }
        }
    }
}
