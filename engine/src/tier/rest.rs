//! Where a thread rests that others wake.

use parking_lot::{Condvar, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    resting: Mutex<()>,
    woken: Condvar,
}

impl Rest {
    /// Rests until it is woken, or for `time`.
    pub(super) fn until_woken(&self, time: Duration) {
        self.woken.wait_for(&mut self.resting.lock(), time);
    }

    /// Rests for `time`, or until the engine is `stopping`; whoever has it stop wakes all.
    pub(super) fn until_stopping(&self, time: Duration, stopping: &AtomicBool) {
        let end = Instant::now() + time;
        let mut resting = self.resting.lock();
        while !stopping.load(Ordering::Relaxed) && Instant::now() < end {
            self.woken.wait_until(&mut resting, end);
        }
    }

    /// Wakes all who rest.
    pub(super) fn wake(&self) {
        // Who looked before there was a reason rests by now.
        drop(self.resting.lock());
        self.woken.notify_all();
    }
}
