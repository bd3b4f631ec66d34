//! A device in host memory that fails, delays, corrupts and shrinks on command.

use super::{Buffer, Device, DeviceMemory, Extent, Scrubber, Slab};
use crate::dice::Dice;
use parking_lot::RwLock;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Of a slice of checksums.
const SLICE_BYTES: u64 = 16 << 20;

/// How it misbehaves. Shares are of calls, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    /// Of copies to it that fail.
    pub put: f64,
    /// Of copies from it that fail, and of slices of checksums.
    pub get: f64,
    /// Of copies from it of which one byte is another.
    pub corrupt: f64,
    /// Of copies to it of which one byte becomes another while they lie there.
    pub rot: f64,
    /// Of looks whether it is idle that find it isn't.
    pub busy: f64,
    /// Of allocations that fail.
    pub allocate: f64,
    /// What each copy takes at least.
    pub delay: Duration,
    /// What its owner uses of it himself, in bytes.
    pub taken: u64,
    /// Of copies, and of slices of checksums, that never come back.
    pub hang: f64,
    /// All calls fail: it fell off the bus.
    pub gone: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Simulated {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bytes: u64,
    allocated: AtomicU64,
    faults: RwLock<Faults>,
    dice: Dice,
}

impl Simulated {
    /// One with `bytes` of memory, whose faults come as `seed` says.
    pub fn new(bytes: u64, faults: Faults, seed: u64) -> Simulated {
        let (allocated, dice) = (AtomicU64::new(0), Dice::new(seed));
        Simulated { shared: Arc::new(Shared { bytes, allocated, faults: RwLock::new(faults), dice }) }
    }

    /// Has it misbehave like this from now on.
    pub fn set_faults(&self, faults: Faults) {
        *self.shared.faults.write() = faults;
    }

    /// Bytes that are allocated.
    pub fn allocated(&self) -> u64 {
        self.shared.allocated.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn happens(&self, share: f64) -> bool {
        share > 0.0 && self.dice.share() < share
    }

    /// A bit of `bytes` becomes another, if there is one.
    fn damage(&self, bytes: &mut [u8]) {
        if !bytes.is_empty() {
            let place = self.dice.roll() as usize % bytes.len();
            bytes[place] ^= 1 << (self.dice.roll() % 8);
        }
    }

    /// A copy takes its time, or for ever.
    fn take_time(&self, faults: &Faults) {
        std::thread::sleep(faults.delay);
        if self.happens(faults.hang) {
            loop {
                std::thread::park();
            }
        }
    }

    fn call(&self, what: &str, fails: impl Fn(&Faults) -> f64) -> io::Result<Faults> {
        let faults = *self.faults.read();
        if faults.gone {
            return Err(io::Error::other("the simulated device is gone"));
        }
        if self.happens(fails(&faults)) {
            return Err(io::Error::other(format!("the simulated device failed to {what}, as asked")));
        }
        Ok(faults)
    }
}

impl Device for Simulated {
    fn name(&self) -> String {
        "simulated GPU, in host memory".into()
    }

    fn is_simulated(&self) -> bool {
        true
    }

    fn memory(&self) -> io::Result<DeviceMemory> {
        let faults = self.shared.call("tell its memory", |_| 0.0)?;
        let taken = self.allocated() + faults.taken;
        Ok(DeviceMemory { total: self.shared.bytes, free: self.shared.bytes.saturating_sub(taken) })
    }

    fn allocate(&self, bytes: u64) -> io::Result<Arc<dyn Slab>> {
        let faults = self.shared.call("allocate", |faults| faults.allocate)?;
        let limit = self.shared.bytes.saturating_sub(faults.taken);
        let more = |taken: u64| taken.checked_add(bytes).filter(|all| *all <= limit);
        if self.shared.allocated.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        let memory = RwLock::new(vec![0; bytes as usize]);
        Ok(Arc::new(Memory { shared: self.shared.clone(), memory }))
    }

    fn buffer(&self, bytes: usize) -> io::Result<Box<dyn Buffer>> {
        Ok(Box::new(vec![0; bytes]))
    }

    fn scrubber(&self) -> io::Result<Arc<dyn Scrubber>> {
        Ok(Arc::new(Checks { shared: self.shared.clone() }))
    }
}

#[derive(Debug)]
struct Checks {
    shared: Arc<Shared>,
}

impl Scrubber for Checks {
    fn is_idle(&self) -> io::Result<bool> {
        let faults = self.shared.call("tell whether it is idle", |_| 0.0)?;
        Ok(!self.shared.happens(faults.busy))
    }

    fn slice_bytes(&self) -> u64 {
        SLICE_BYTES
    }

    fn checksums(&self, extents: &[Extent]) -> io::Result<Vec<u32>> {
        let faults = self.shared.call("take checksums", |faults| faults.get)?;
        self.shared.take_time(&faults);
        let checksum = |extent: &Extent| -> io::Result<u32> {
            let slab: &dyn Any = &*extent.slab;
            let slab = slab.downcast_ref::<Memory>().ok_or(io::ErrorKind::InvalidInput)?;
            let memory = slab.memory.read();
            let (start, bytes) = (extent.at as usize, extent.bytes as usize);
            let end = start.checked_add(bytes).ok_or(io::ErrorKind::InvalidInput)?;
            Ok(crc32c::crc32c(memory.get(start..end).ok_or(io::ErrorKind::InvalidInput)?))
        };
        extents.iter().map(checksum).collect()
    }
}

#[derive(Debug)]
struct Memory {
    shared: Arc<Shared>,
    memory: RwLock<Vec<u8>>,
}

impl Slab for Memory {
    fn put(&self, at: u64, from: &[u8]) -> io::Result<()> {
        let faults = self.shared.call("copy to it", |faults| faults.put)?;
        self.shared.take_time(&faults);
        let mut memory = self.memory.write();
        let there =
            memory.get_mut(at as usize..at as usize + from.len()).ok_or(io::ErrorKind::InvalidInput)?;
        there.copy_from_slice(from);
        if self.shared.happens(faults.rot) {
            self.shared.damage(there);
        }
        Ok(())
    }

    fn get(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let faults = self.shared.call("copy from it", |faults| faults.get)?;
        self.shared.take_time(&faults);
        let memory = self.memory.read();
        let there = memory.get(at as usize..at as usize + to.len()).ok_or(io::ErrorKind::InvalidInput)?;
        to.copy_from_slice(there);
        if self.shared.happens(faults.corrupt) {
            self.shared.damage(to);
        }
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.shared.allocated.fetch_sub(self.memory.get_mut().len() as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(faults: Faults) -> Simulated {
        Simulated::new(1 << 20, faults, 7)
    }

    #[test]
    fn it_keeps_what_it_is_given_and_gives_memory_back() {
        let device = device(Faults::default());
        let slab = device.allocate(1 << 19).expect("there is room");
        slab.put(100, b"content").expect("it takes it");
        let mut back = [0; 7];
        slab.get(100, &mut back).expect("it has it");
        assert_eq!(&back, b"content");
        assert!(slab.get((1 << 19) - 3, &mut back).is_err(), "not beyond the end");
        assert_eq!(device.memory().expect("it tells"), DeviceMemory { total: 1 << 20, free: 1 << 19 });
        let refused = device.allocate((1 << 19) + 1).expect_err("more than is free");
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory);
        drop(slab);
        assert_eq!(device.allocated(), 0);
    }

    #[test]
    fn it_takes_checksums_of_what_lies_there() {
        let device = device(Faults::default());
        let (slab, other) = (device.allocate(4096).expect("room"), device.allocate(4096).expect("room"));
        slab.put(16, b"123456789").expect("it takes it");
        let scrubber = device.scrubber().expect("it has one");
        let extents = [
            Extent { slab: slab.clone(), at: 16, bytes: 9 },
            Extent { slab: other, at: 0, bytes: 0 },
            Extent { slab: slab.clone(), at: 4095, bytes: 1 },
        ];
        let expected = [0xe306_9283, 0, crc32c::crc32c(&[0])];
        assert_eq!(scrubber.checksums(&extents).expect("they are there"), expected);
        for (at, bytes) in [(4096, 1), (0, 4097), (u64::MAX, 2)] {
            let refused = scrubber.checksums(&[Extent { slab: slab.clone(), at, bytes }]);
            assert_eq!(refused.expect_err("beyond the end").kind(), io::ErrorKind::InvalidInput);
        }
        assert!(scrubber.is_idle().expect("it tells"));
        device.set_faults(Faults { rot: 1.0, busy: 1.0, ..Faults::default() });
        assert!(!scrubber.is_idle().expect("it tells"));
        slab.put(16, b"123456789").expect("it takes it");
        assert_ne!(scrubber.checksums(&extents[..1]).expect("it is there"), expected[..1], "it rots");
        let mut back = [0; 9];
        slab.get(16, &mut back).expect("it gives it");
        assert_ne!(&back, b"123456789", "whoever reads it");
    }

    #[test]
    fn it_misbehaves_as_asked() {
        let device = device(Faults { taken: 1 << 19, ..Faults::default() });
        assert_eq!(device.memory().expect("it tells").free, 1 << 19);
        let slab = device.allocate(4096).expect("there is room");
        slab.put(0, &[1; 4096]).expect("it takes it");
        let mut back = [0; 4096];
        device.set_faults(Faults { corrupt: 1.0, ..Faults::default() });
        slab.get(0, &mut back).expect("it gives something");
        assert_eq!(back.iter().filter(|byte| **byte != 1).count(), 1);
        device.set_faults(Faults { put: 1.0, ..Faults::default() });
        assert!(slab.put(0, &[2; 4096]).is_err() && slab.get(0, &mut back).is_ok());
        device.set_faults(Faults { get: 0.5, ..Faults::default() });
        let failed = (0..1000).filter(|_| slab.get(0, &mut back).is_err()).count();
        assert!((400..600).contains(&failed), "{failed} of 1000");
        device.set_faults(Faults { gone: true, ..Faults::default() });
        assert!(device.memory().is_err() && device.allocate(1).is_err() && slab.put(0, &[0]).is_err());
    }
}
