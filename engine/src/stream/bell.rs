//! Who waits for something that others do.

use parking_lot::{Condvar, Mutex};
use std::time::Instant;

/// Rung when those who wait should look again. A leaf lock.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock() += 1;
        self.changed.notify_all();
    }

    /// How often it rang so far.
    pub fn rung(&self) -> u64 {
        *self.rung.lock()
    }

    /// Waits until it rang more often than `before`; false if that was not until `deadline`.
    pub fn wait(&self, before: u64, deadline: Option<Instant>) -> bool {
        let mut rung = self.rung.lock();
        while *rung == before {
            match deadline {
                None => self.changed.wait(&mut rung),
                Some(deadline) => {
                    if self.changed.wait_until(&mut rung, deadline).timed_out() {
                        return *rung != before;
                    }
                }
            }
        }
        true
    }
}
