//! A place beside host memory that can hold the content of files: the memory of a GPU.
//!
//! The traits that [`crate::tier`] programs against. Whoever implements them loads what is needed at run time; no
//! method panics, whatever libraries and drivers do. A device that fails costs speed, never data: what the tier asks
//! for and does not get it has from the backing.
//!
//! [`Simulated`] is one in host memory that misbehaves on command: for tests, and for trying the tier out.

pub mod simulated;

pub use simulated::{Faults, Simulated};

use std::any::Any;
use std::io;
use std::sync::Arc;

/// A device. Its methods are called by several threads at once.
pub trait Device: Send + Sync + std::fmt::Debug {
    /// For people, such as `NVIDIA H200 (GPU 0)`.
    fn name(&self) -> String;
    /// Whether it is none, and only acts as one.
    fn is_simulated(&self) -> bool {
        false
    }
    /// What it has, in bytes, as all who use it see it.
    fn memory(&self) -> io::Result<DeviceMemory>;
    /// Takes `bytes` of its memory; they are given back when the last clone is dropped.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::OutOfMemory`] where it has not that much; any other means that the device is gone.
    fn allocate(&self, bytes: u64) -> io::Result<Arc<dyn Slab>>;
    /// Host memory of `bytes` from which and to which copies are fastest (pinned).
    fn buffer(&self, bytes: usize) -> io::Result<Box<dyn Buffer>>;
    /// How fast its memory can be read at best, in bytes a second, where that is known.
    fn bandwidth(&self) -> Option<u64> {
        None
    }
    /// What takes checksums of its memory where it lies. It may take seconds to get that ready.
    ///
    /// # Errors
    ///
    /// A sentence that says why it can't; nobody asks again.
    fn scrubber(&self) -> io::Result<Arc<dyn Scrubber>> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the device takes no checksums"))
    }
}

/// Takes checksums in a device's memory, while nobody else has use for the device.
pub trait Scrubber: Send + Sync + std::fmt::Debug {
    /// Whether that is so. To be asked before each slice.
    ///
    /// # Errors
    ///
    /// It can't be told now.
    fn is_idle(&self) -> io::Result<bool>;
    /// How many bytes a slice may have, so that whoever comes back waits for less than 5 ms. The device learns it as it
    /// goes.
    fn slice_bytes(&self) -> u64;
    /// The CRC32C of each of these, in their order; returns when they are there. They begin at multiples of 16 bytes,
    /// and have [`Scrubber::slice_bytes`] together at most, or are one.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`]: one isn't inside its slab, or the slab isn't the device's. Others are the
    /// device's.
    fn checksums(&self, extents: &[Extent]) -> io::Result<Vec<u32>>;
}

/// A part of a slab.
#[derive(Debug, Clone)]
pub struct Extent {
    /// Of which.
    pub slab: Arc<dyn Slab>,
    /// So many bytes behind its start.
    pub at: u64,
    /// In bytes.
    pub bytes: u64,
}

/// Memory of a device, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// All of it.
    pub total: u64,
    /// What nobody has.
    pub free: u64,
}

/// A part of a device's memory that is ours. Ranges that are copied at the same time do not overlap, unless both are
/// read.
pub trait Slab: Any + Send + Sync + std::fmt::Debug {
    /// Copies `from` to the device, to `at` bytes behind the slab's start; returns when it is there.
    fn put(&self, at: u64, from: &[u8]) -> io::Result<()>;
    /// Copies from the device, from `at` bytes behind the slab's start, until `to` is full.
    fn get(&self, at: u64, to: &mut [u8]) -> io::Result<()>;
}

/// Host memory for copies.
pub trait Buffer: Send + std::fmt::Debug {
    /// All of it.
    fn bytes(&mut self) -> &mut [u8];
}

/// A buffer that is nothing special.
impl Buffer for Vec<u8> {
    fn bytes(&mut self) -> &mut [u8] {
        self
    }
}
