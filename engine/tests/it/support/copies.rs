//! Files that leave memory by way of a device.

use super::ground::{Ground, Setup};
use super::watched::{Fault, Watched};
use super::{NEVER, first_seed, log_if_wanted};
use aimss_engine::device::{Device, Faults, Simulated};
use aimss_engine::engine::{Reason, Want};
use aimss_engine::namespace::OpenMode;
use aimss_engine::tier::{TierConfig, TierStatus};
use aimss_engine::{Engine, Ino};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Of memory: half of what the tests' files have.
const BUDGET_BYTES: u64 = 24 << 20;
pub const FILES: usize = 12;
pub const FILE_BYTES: usize = 4 * MIB + 17;
const READ: Want = Want { write: false, truncate: false, passthrough: Ok(()), process: 7 };

/// An engine that is started, over `FILES` files, with a device.
pub struct Bench {
    pub ground: Ground,
    pub watched: Arc<Watched>,
    pub engine: Arc<Engine>,
    pub device: Arc<Simulated>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.engine.stop();
    }
}

pub fn content(number: usize) -> Vec<u8> {
    (0..FILE_BYTES).map(|at| (at / 7 + at % 251 + number * 13) as u8).collect()
}

pub fn name(number: usize) -> String {
    format!("part-{number}.bin")
}

pub fn tier(limit_bytes: u64) -> TierConfig {
    let patience = Duration::from_secs(30);
    TierConfig { file_bytes_min: 1, patience, scrub_every: NEVER, ..TierConfig::new(limit_bytes, 0) }
}

impl Bench {
    pub fn new(config: TierConfig, faults: Faults) -> Bench {
        Bench::with(config, faults, |device| device)
    }

    /// With a device that `around` makes of a simulated one.
    pub fn with(
        config: TierConfig,
        faults: Faults,
        around: impl FnOnce(Arc<Simulated>) -> Arc<dyn Device>,
    ) -> Bench {
        log_if_wanted();
        let ground = Ground::new();
        for number in 0..FILES {
            std::fs::write(ground.backing().join(name(number)), content(number)).expect("write");
        }
        let watched = Watched::new(ground.local(), Fault::None);
        let setup = Setup {
            drain_delay: Duration::from_millis(20),
            budget_bytes: BUDGET_BYTES,
            revalidate: Duration::ZERO,
            ..Setup::default()
        };
        let engine = ground.engine(watched.clone(), setup);
        engine.start();
        let device =
            Arc::new(Simulated::new(config.limit_bytes + config.reserve_bytes, faults, first_seed()));
        engine.use_device(around(device.clone()), config);
        Bench { ground, watched, engine, device }
    }

    pub fn ino(&self, number: usize) -> Ino {
        self.engine.lookup(Ino::ROOT, name(number).as_bytes()).expect("it is there").ino
    }

    /// Opens, reads and closes.
    pub fn read(&self, number: usize) -> Vec<u8> {
        let ino = self.ino(number);
        let opened = self.engine.open(ino, READ).expect("it opens");
        let mut bytes = vec![0; self.engine.attr(ino).expect("attributes").size as usize];
        match &opened.mode {
            OpenMode::Arena(content) => {
                content
                    .file()
                    .expect("it opens")
                    .read_exact_at(&mut bytes, 0)
                    .expect("a read in passthrough");
            }
            OpenMode::Backing(file) => file.read_exact_at(&mut bytes, 0).expect("a read in passthrough"),
            OpenMode::Daemon(_) => {
                assert_eq!(self.engine.read(ino, 0, &mut bytes).expect("a read"), bytes.len());
            }
        }
        drop(opened);
        self.close(ino, false);
        bytes
    }

    pub fn write(&self, number: usize, offset: u64, data: &[u8]) {
        let ino = self.ino(number);
        let want = Want { write: true, passthrough: Err(Reason::Excluded), ..READ };
        drop(self.engine.open(ino, want).expect("it opens"));
        self.engine.write(ino, offset, data, false).expect("a write");
        self.close(ino, true);
    }

    fn close(&self, ino: Ino, write: bool) {
        if let Some(ended) = self.engine.release(ino, write).last {
            self.engine.closed(ino, ended);
        }
    }

    pub fn status(&self) -> TierStatus {
        self.engine.tier_status().expect("there is a device")
    }

    /// Fetches file after file, so that memory is short all the time; whoever copies keeps up.
    pub fn pass_all_through_memory(&self) {
        for number in 0..FILES {
            self.engine.warm(&[self.ino(number)], |_| {}).expect("it was tried");
            self.settle();
        }
    }

    /// Waits until nothing is copied any more.
    pub fn settle(&self) {
        let moved = || (self.status().in_files, self.status().failures);
        let (mut before, mut still) = (moved(), 0);
        while still < 20 {
            std::thread::sleep(Duration::from_millis(5));
            let now = moved();
            still = if now == before { still + 1 } else { 0 };
            before = now;
        }
    }

    pub fn expect_contents(&self) {
        for number in 0..FILES {
            assert!(self.read(number) == content(number), "the content of {}", name(number));
        }
    }
}

pub fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < within, "{what}: not within {within:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
