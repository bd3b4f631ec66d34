//! Copies are checked where they lie while nobody else has use for the device.

use crate::support::copies::{Bench, FILE_BYTES, tier, until};
use aimss_engine::device::{Buffer, Device, DeviceMemory, Extent, Faults, Scrubber, Simulated, Slab};
use aimss_engine::tier::{PAGE_BYTES, TierConfig, TierStatus};
use std::io;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const WITHIN: Duration = Duration::from_secs(10);

/// Checked again and again.
fn always() -> TierConfig {
    TierConfig { scrub_every: Duration::from_millis(1), ..tier(1 << 30) }
}

/// A round that began after this was called has ended.
fn a_whole_round(bench: &Bench) -> TierStatus {
    let before = bench.status().scrub.rounds;
    until("two rounds end", WITHIN, || bench.status().scrub.rounds >= before + 2);
    bench.status()
}

#[test]
fn what_rots_is_found_before_it_is_read() {
    let bench = Bench::new(always(), Faults { rot: 0.5, busy: 1.0, ..Faults::default() });
    bench.pass_all_through_memory();
    let before = bench.status();
    bench.device.set_faults(Faults::default());
    let status = a_whole_round(&bench);
    assert!(status.scrub.damaged > 0 && status.scrub.last.is_some(), "{status:?}");
    // Readers found some before.
    assert_eq!(status.damaged - before.damaged, status.scrub.damaged);
    assert_eq!(status.failures - before.failures, status.scrub.damaged);
    bench.pass_all_through_memory();
    bench.expect_contents();
    let after = bench.status();
    assert!(after.out_files > 0, "{after:?}");
    assert_eq!(after.damaged, status.damaged, "no reader found any");
}

#[test]
fn all_of_a_copy_is_checked_and_what_is_intact_stays() {
    let bench = Bench::new(always(), Faults::default());
    bench.pass_all_through_memory();
    // Whoever copies may be at it once more.
    until("all is checked in one round", WITHIN, || {
        let before = a_whole_round(&bench);
        let after = a_whole_round(&bench);
        let rounds = after.scrub.rounds - before.scrub.rounds;
        let checked = after.scrub.bytes - before.scrub.bytes;
        assert!(before.bytes == before.files * FILE_BYTES as u64, "{before:?}");
        // Of the rounds that begin and end these, parts may be counted.
        before.files == after.files && checked >= (rounds - 1) * after.bytes && after.files > 0
    });
    let status = bench.status();
    assert_eq!((status.scrub.damaged, status.failures, &status.scrub.off), (0, 0, &None));
}

#[test]
fn nothing_is_checked_while_the_device_is_not_idle() {
    let bench = Bench::new(always(), Faults { busy: 1.0, ..Faults::default() });
    bench.pass_all_through_memory();
    assert_eq!((bench.status().scrub.bytes, bench.status().scrub.rounds), (0, 0));
    bench.device.set_faults(Faults::default());
    a_whole_round(&bench);
    bench.device.set_faults(Faults { busy: 1.0, ..Faults::default() });
    // The slice that is under way.
    std::thread::sleep(Duration::from_millis(100));
    let before = bench.status().scrub.bytes;
    std::thread::sleep(Duration::from_millis(600));
    assert_eq!(bench.status().scrub.bytes, before);
}

#[test]
fn a_device_that_takes_no_checksums_says_so_and_is_used() {
    let bench =
        Bench::with(always(), Faults::default(), |device| Arc::new(Around { device, scrubber: None }));
    bench.pass_all_through_memory();
    bench.expect_contents();
    let status = bench.status();
    assert_eq!(status.scrub.off.as_deref(), Some("the device takes no checksums"));
    assert!(status.out_files > 0 && status.scrub.rounds == 0, "{status:?}");
}

#[test]
fn a_slice_that_fails_is_told_and_costs_no_copy() {
    let bench = Bench::new(always(), Faults { busy: 1.0, ..Faults::default() });
    bench.pass_all_through_memory();
    let files = bench.status().files;
    bench.device.set_faults(Faults { get: 1.0, ..Faults::default() });
    until("it is told", WITHIN, || bench.status().scrub.off.is_some());
    let status = bench.status();
    assert_eq!((status.files, status.scrub.damaged, status.lost), (files, 0, None));
}

#[test]
fn nobody_waits_for_a_check() {
    let stuck = Arc::new(Stuck::default());
    let config = TierConfig { reserve_bytes: 64 * PAGE_BYTES, ..always() };
    let scrubber = stuck.clone();
    let bench = Bench::with(config, Faults::default(), |device| {
        Arc::new(Around { device, scrubber: Some(scrubber) })
    });
    bench.pass_all_through_memory();
    until("a check is under way", WITHIN, || stuck.is_at_it());
    bench.expect_contents();
    assert!(bench.status().out_files > 0);
    // Its owner wants all of it.
    bench.device.set_faults(Faults { taken: 1 << 40, ..Faults::default() });
    until("all copies go", WITHIN, || bench.status().files == 0);
    // But for the slab of the page that is checked.
    until("their memory goes back", WITHIN, || bench.device.allocated() <= 32 * PAGE_BYTES);
    stuck.let_go();
    until("the rest goes back", WITHIN, || bench.device.allocated() == 0);
    bench.expect_contents();
}

/// A device with another scrubber.
#[derive(Debug)]
struct Around {
    device: Arc<Simulated>,
    scrubber: Option<Arc<Stuck>>,
}

impl Device for Around {
    fn name(&self) -> String {
        self.device.name()
    }

    fn memory(&self) -> io::Result<DeviceMemory> {
        self.device.memory()
    }

    fn allocate(&self, bytes: u64) -> io::Result<Arc<dyn Slab>> {
        self.device.allocate(bytes)
    }

    fn buffer(&self, bytes: usize) -> io::Result<Box<dyn Buffer>> {
        self.device.buffer(bytes)
    }

    fn scrubber(&self) -> io::Result<Arc<dyn Scrubber>> {
        match &self.scrubber {
            Some(scrubber) => Ok(scrubber.clone()),
            None => Err(io::Error::new(io::ErrorKind::Unsupported, "the device takes no checksums")),
        }
    }
}

/// Is at its first slice until it is let go, and then fails.
#[derive(Debug, Default)]
struct Stuck {
    /// Whether it is at it, and whether it is let go.
    state: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl Stuck {
    fn is_at_it(&self) -> bool {
        self.state.lock().expect("nobody panics with it").0
    }

    fn let_go(&self) {
        self.state.lock().expect("nobody panics with it").1 = true;
        self.changed.notify_all();
    }
}

impl Scrubber for Stuck {
    fn is_idle(&self) -> io::Result<bool> {
        Ok(true)
    }

    fn slice_bytes(&self) -> u64 {
        1
    }

    fn checksums(&self, extents: &[Extent]) -> io::Result<Vec<u32>> {
        assert_eq!(extents.len(), 1, "a page, when nothing more fits");
        let mut state = self.state.lock().expect("nobody panics with it");
        state.0 = true;
        let _let_go = self.changed.wait_while(state, |state| !state.1).expect("nobody panics with it");
        Err(io::Error::other("let go"))
    }
}
