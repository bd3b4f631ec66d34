//! Checksums of a GPU's memory while nobody else has use for the GPU, for the engine ([`Scrubber`]).
//!
//! 1. NVML tells how much of the last second kernels ran, anybody's: `scrub/turns.rs` makes of it when we may.
//! 2. [`Checksums`] takes them, on a stream of the lowest priority, in slices.

mod turns;

use crate::checksum::{Checksums, NoChecksums};
use crate::cuda::CudaDevice;
use crate::nvml::{NoNvml, Watched};
use aimss_engine::device::{Extent, Scrubber};
use parking_lot::Mutex;
use std::io;
use std::time::Instant;
use turns::Turns;

/// Why nothing is checked on a GPU.
#[derive(Debug, thiserror::Error)]
pub enum NoScrubber {
    /// Nobody can tell when it is idle.
    #[error("when the GPU is idle can't be told: {0}")]
    NoNvml(#[from] NoNvml),
    /// It takes none.
    #[error("the GPU takes no checksums: {0}")]
    NoChecksums(#[from] NoChecksums),
}

/// See the module.
#[derive(Debug)]
pub struct CudaScrubber {
    checksums: Checksums,
    watched: Watched,
    /// A leaf lock.
    turns: Mutex<Turns>,
}

impl CudaScrubber {
    /// Gets it ready, in about a second.
    pub fn open(device: &CudaDevice) -> Result<CudaScrubber, NoScrubber> {
        let watched = Watched::find(device.bus())?;
        // Asked once before: there may be no answer for this GPU.
        watched.utilisation()?;
        Ok(CudaScrubber { checksums: Checksums::open(device)?, watched, turns: Mutex::default() })
    }
}

impl Scrubber for CudaScrubber {
    fn is_idle(&self) -> io::Result<bool> {
        let now = Instant::now();
        let idle = self.turns.lock().may_run(now, || self.watched.utilisation());
        idle.map_err(io::Error::other)
    }

    fn slice_bytes(&self) -> u64 {
        self.turns.lock().slice_bytes()
    }

    fn checksums(&self, extents: &[Extent]) -> io::Result<Vec<u32>> {
        let (checksums, took) = self.checksums.timed(extents)?;
        let bytes = extents.iter().map(|extent| extent.bytes).sum();
        self.turns.lock().ran(Instant::now(), bytes, took);
        Ok(checksums)
    }
}
