//! Keeping processors awake while requests come in bursts.
//!
//! A FUSE request is two hand-overs between processes, and on most machines the waiting processor has gone to sleep in
//! between. In a virtual machine that sleep is left through the hypervisor: measured here, 60 to 100 us a request
//! against 10 to 20 us with processors that poll (creates 2.3 to 12 thousand a second, opens 7 to 35 thousand).
//! Linux lets a process ask for short wake-up times: as long as `/dev/cpu_dma_latency` is held open with the value 0,
//! idle processors poll (PM QoS, Documentation/power/pm_qos_interface.rst).
//!
//! So: while at least `BURST_REQUESTS` requests come within `WINDOW`, the request is held; when a window passes with
//! fewer, it is given back. Passthrough reads and writes are not requests and hold nothing. Where the file can't be
//! opened (not root, no such device) nothing happens.

use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A burst: so many requests in one window. Below, the wake-ups cost less than polling would.
const BURST_REQUESTS: u64 = 16;
/// How long a window is, and so the longest time that processors poll after the last burst.
const WINDOW: Duration = Duration::from_millis(10);
/// Requests between two looks at whether a burst began.
const LOOK_EVERY: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub struct Latency {
    requests: AtomicU64,
    /// Whether a burst may be going on: set by requests, cleared by the thread.
    awake: Mutex<bool>,
    wake: Condvar,
}

impl Latency {
    /// Starts the thread that holds and gives back; it ends when nobody else has the value any more.
    pub fn start() -> Arc<Latency> {
        let latency = Arc::new(Latency::default());
        let weak = Arc::downgrade(&latency);
        let run = move || {
            let mut held: Option<File> = None;
            let mut before = 0;
            while let Some(latency) = weak.upgrade() {
                before = latency.window(&mut held, before);
            }
        };
        if let Err(e) = std::thread::Builder::new().name("latency".into()).spawn(run) {
            log::warn!("no thread to watch for bursts of requests: {e}");
        }
        latency
    }

    /// A request came.
    pub fn request(&self) {
        let count = self.requests.fetch_add(1, Ordering::Relaxed);
        if count.is_multiple_of(LOOK_EVERY)
            && let Some(mut awake) = self.awake.try_lock()
            && !*awake
        {
            *awake = true;
            self.wake.notify_one();
        }
    }

    /// One round of the thread; returns the requests counted so far.
    fn window(&self, held: &mut Option<File>, before: u64) -> u64 {
        {
            let mut awake = self.awake.lock();
            if !*awake {
                // Now and then, to see whether anybody still needs us.
                self.wake.wait_for(&mut awake, Duration::from_secs(1));
                return self.requests.load(Ordering::Relaxed);
            }
        }
        std::thread::sleep(WINDOW);
        let now = self.requests.load(Ordering::Relaxed);
        if now - before < BURST_REQUESTS {
            *held = None;
            *self.awake.lock() = false;
        } else if held.is_none() {
            *held = hold();
        }
        now
    }
}

/// Asks for a wake-up latency of 0 us for as long as the file is open.
fn hold() -> Option<File> {
    let mut file = File::options().write(true).open("/dev/cpu_dma_latency").ok()?;
    file.write_all(&0_i32.to_ne_bytes()).ok()?;
    Some(file)
}
