//! CRC32C of memory of a GPU, taken by the GPU where it lies.
//!
//! 1. [`Checksums::open`] has NVRTC compile the kernel (`checksum/crc32c.cu`) for the GPU's compute capability, once a
//!    device, and loads it. Where that can't be, it says why.
//! 2. It has the kernel take checksums of memory whose checksums it knows: nothing is called damaged by a kernel that
//!    is wrong.
//! 3. [`Checksums::of`] cuts extents into blocks (`checksum/plan.rs`), and has the kernel take them, on a stream of the
//!    lowest priority.
//!
//! It doesn't ask whether anybody else has use for the GPU; [`crate::scrub`] does.

mod kernel;
mod plan;
mod remainder;

pub use plan::{Block, Cutter, Digits};

use crate::cuda::{CudaDevice, CudaSlab};
use crate::nvrtc::NotCompiled;
use aimss_engine::device::{Extent, Slab};
use kernel::Kernel;
use parking_lot::Mutex;
use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Of the kernel, for the test that plays a GPU.
pub const SOURCE: &str = include_str!("checksum/crc32c.cu");

/// Of memory that is checked before anything else: some blocks, and a part of a row.
const KNOWN_BYTES: usize = 3 * plan::BLOCK_BYTES as usize - 100;

/// Why a GPU takes no checksums.
#[derive(Debug, thiserror::Error)]
pub enum NoChecksums {
    /// There is no kernel for it.
    #[error("{0}")]
    NotCompiled(#[from] NotCompiled),
    /// The GPU doesn't take the kernel.
    #[error("the kernel can't be used: {0}")]
    Refused(#[from] io::Error),
    /// Its results are not those of a processor: a fault of ours, or the GPU's.
    #[error("the kernel's checksums are wrong")]
    Wrong,
}

/// A kernel that is ready.
#[derive(Debug)]
pub struct Checksums {
    kernel: Kernel,
    cutter: Mutex<Cutter>,
}

/// The CRC32C of an extent of `bytes` bytes of whose blocks this is the sum.
pub fn finish(sum: u32, bytes: u64) -> u32 {
    remainder::finished(sum, bytes)
}

impl Checksums {
    /// Makes the kernel ready. It takes about a second, and a few MiB of the GPU's memory.
    pub fn open(device: &CudaDevice) -> Result<Checksums, NoChecksums> {
        let checksums = Checksums { kernel: Kernel::load(device)?, cutter: Mutex::default() };
        checksums.prove(device)?;
        Ok(checksums)
    }

    /// The CRC32C of each of these, which lie in slabs of the device and begin at multiples of 16 bytes.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`]: one does not, or has more than 2 GiB. Others are CUDA's.
    pub fn of(&self, extents: &[Extent]) -> io::Result<Vec<u32>> {
        Ok(self.timed(extents)?.0)
    }

    /// As [`Checksums::of`], with the time that the GPU took for it.
    pub fn timed(&self, extents: &[Extent]) -> io::Result<(Vec<u32>, Duration)> {
        let mut took = Duration::ZERO;
        let mut launch = |blocks: &[Block], pages| {
            let (sums, time) = self.kernel.launch(blocks, pages)?;
            took += time;
            Ok::<_, io::Error>(sums)
        };
        let mut sums = Vec::with_capacity(extents.len());
        let mut blocks = Vec::new();
        let mut launched = 0;
        for (number, extent) in extents.iter().enumerate() {
            let start = address(extent)?;
            let before = blocks.len();
            let page = (number - launched) as u32;
            self.cutter.lock().cut(start, extent.bytes, page, &mut blocks);
            if blocks.len() > kernel::BLOCKS_MAX || number - launched >= kernel::PAGES_MAX {
                // This one is for the next launch.
                let mut next = blocks.split_off(before);
                sums.extend(launch(&blocks, number - launched)?);
                for block in &mut next {
                    block.page = 0;
                }
                (blocks, launched) = (next, number);
            }
        }
        sums.extend(launch(&blocks, extents.len() - launched)?);
        Ok((sums.iter().zip(extents).map(|(sum, extent)| finish(*sum, extent.bytes)).collect(), took))
    }

    fn prove(&self, device: &CudaDevice) -> Result<(), NoChecksums> {
        let known: Vec<u8> = (0..KNOWN_BYTES).map(|at| (at * 31 + at / 251) as u8).collect();
        let slab: Arc<dyn Slab> = Arc::new(device.slab(KNOWN_BYTES as u64)?);
        slab.put(0, &known)?;
        let extents: Vec<_> = [0, 16, 4096]
            .map(|at| Extent { slab: slab.clone(), at: at as u64, bytes: (KNOWN_BYTES - at) as u64 })
            .into();
        let expected: Vec<_> =
            extents.iter().map(|extent| crc32c::crc32c(&known[extent.at as usize..])).collect();
        if self.of(&extents)? == expected { Ok(()) } else { Err(NoChecksums::Wrong) }
    }
}

/// Where it begins.
fn address(extent: &Extent) -> io::Result<u64> {
    let slab: &dyn Any = &*extent.slab;
    let slab = slab.downcast_ref::<CudaSlab>().ok_or(io::ErrorKind::InvalidInput)?;
    let too_long = extent.bytes > kernel::BLOCKS_MAX as u64 * plan::BLOCK_BYTES;
    if too_long || !extent.at.is_multiple_of(plan::ALIGN_BYTES) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    slab.place(extent.at, extent.bytes)
}
