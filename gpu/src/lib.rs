//! GPU memory as a tier: the engine's [`Device`] trait on CUDA, checks of that memory while the GPU is idle, and cuFile
//! between it and files.
//!
//! All of it is loaded at run time: building, testing and running need no GPU, no CUDA and none of their libraries.
//!
//! 1. `aimss doctor` asks [`probe`] for all there is to say.
//! 2. `aimss mount` asks [`check`] whether what was asked for can be had. That loads and starts CUDA's driver, and
//!    takes no memory of a GPU.
//! 3. The daemon asks [`choose`] for the GPU and has [`open`] make a context on it, in the background: that takes from
//!    a tenth of a second to several, and some hundred MiB of the GPU's memory.
//!
//! Nothing here panics, whatever libraries and drivers do, nor does it fail where there is none: it gives a reason.
//! CUDA doesn't survive fork(2): who asked anything here starts other processes by exec.

pub mod checksum;
pub mod cuda;
pub mod cufile;
mod driver;
mod library;
pub mod nvml;
pub mod nvrtc;
mod probe;
pub mod scrub;
mod unavailable;

pub use driver::Gpu;
pub use probe::{Probe, probe};
pub use unavailable::Unavailable;

use aimss_engine::device::Device;
use cuda::{Context, CudaDevice};
use driver::Driver;
use std::sync::Arc;

/// A wish for a GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one of this number, as CUDA counts them (`CUDA_VISIBLE_DEVICES` and `CUDA_DEVICE_ORDER` have a say).
    Index(u32),
    /// The one with the most free memory.
    MostFree,
}

/// Whether `bytes` of memory can be had of `which`, as far as can be told without making a context: there may be less
/// free by the time it is taken.
pub fn check(which: Which, bytes: u64) -> Result<(), Unavailable> {
    fitting(Driver::start()?.gpus()?, which, bytes).map(drop)
}

/// Memory in all, in bytes, of the GPU that is meant by `which`; where there is a choice, of the smallest.
pub fn total_bytes(which: Which) -> Result<u64, Unavailable> {
    let gpus = fitting(Driver::start()?.gpus()?, which, 0)?;
    gpus.iter().map(|gpu| gpu.memory_bytes).min().ok_or(Unavailable::NoGpu)
}

/// The number of the GPU that is meant by `which`, one that has `bytes` of memory in all. Where there is a choice, this
/// makes a context on each GPU for a moment, as free memory can't be asked for without.
pub fn choose(which: Which, bytes: u64) -> Result<u32, Unavailable> {
    let driver = Driver::start()?;
    let candidates = fitting(driver.gpus()?, which, bytes)?;
    if let [only] = &candidates[..] {
        return Ok(only.index);
    }
    let mut best: Option<(u64, u32)> = None;
    let mut refused = Unavailable::NoGpu;
    for Gpu { index, .. } in candidates {
        match Context::make(driver, index).and_then(|context| context.memory()) {
            Ok(memory) if best.is_none_or(|(free, _)| memory.free > free) => {
                best = Some((memory.free, index));
            }
            Ok(_) => {}
            Err(error) => refused = Unavailable::Failed { index, reason: error.to_string() },
        }
    }
    best.map(|(_, index)| index).ok_or(refused)
}

/// Makes a context on the GPU of that number.
pub fn open(index: u32) -> Result<Arc<dyn Device>, Unavailable> {
    Ok(Arc::new(CudaDevice::open(index)?))
}

/// Those of `gpus` that are meant by `which` and have `bytes` of memory in all; at least one.
fn fitting(gpus: Vec<Gpu>, which: Which, bytes: u64) -> Result<Vec<Gpu>, Unavailable> {
    let count = gpus.len() as u32;
    let meant = |gpu: &Gpu| match which {
        Which::Index(index) => gpu.index == index,
        Which::MostFree => true,
    };
    let (fit, small): (Vec<_>, Vec<_>) =
        gpus.into_iter().filter(meant).partition(|gpu| gpu.memory_bytes >= bytes);
    if !fit.is_empty() {
        return Ok(fit);
    }
    Err(match (small.into_iter().max_by_key(|gpu| gpu.memory_bytes), which) {
        (Some(largest), _) => Unavailable::TooSmall { largest, asked: bytes },
        (None, Which::Index(index)) if count > 0 => Unavailable::NoSuchGpu { index, count },
        (None, _) => Unavailable::NoGpu,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpus(memory: &[u64]) -> Vec<Gpu> {
        let gpu = |(index, memory_bytes): (usize, &u64)| Gpu {
            index: index as u32,
            name: "NVIDIA H200".into(),
            bus: "0000:1B:00.0".into(),
            memory_bytes: *memory_bytes,
        };
        memory.iter().enumerate().map(gpu).collect()
    }

    fn refusal(memory: &[u64], which: Which, bytes: u64) -> String {
        fitting(gpus(memory), which, bytes).expect_err("it can't be had").to_string()
    }

    #[test]
    fn a_gpu_that_is_not_there_is_refused_with_how_many_are() {
        assert_eq!(
            refusal(&[1 << 30], Which::Index(9), 0),
            "there is no GPU 9: this machine has one, which is GPU 0"
        );
        assert_eq!(
            refusal(&[1 << 30; 4], Which::Index(9), 0),
            "there is no GPU 9: this machine has 4, which are GPU 0 to GPU 3"
        );
        assert_eq!(
            refusal(&[], Which::Index(0), 0),
            "this machine has an NVIDIA driver, but no GPU that CUDA can use"
        );
        assert_eq!(refusal(&[], Which::MostFree, 0), refusal(&[], Which::Index(0), 0));
    }

    #[test]
    fn more_memory_than_a_gpu_has_is_refused_with_what_it_has() {
        let sentence = "GPU 0 (NVIDIA H200) has 1.0 GiB of memory, and 1.5 GiB were asked for";
        assert_eq!(refusal(&[1 << 30, 2 << 30], Which::Index(0), 3 << 29), sentence);
        assert_eq!(refusal(&[1 << 30, 1 << 29], Which::MostFree, 3 << 29), sentence, "the largest is named");
    }

    #[test]
    fn only_gpus_that_are_large_enough_are_chosen_among() {
        let of = |which, bytes| {
            let fit = fitting(gpus(&[1 << 30, 2 << 30, 4 << 30]), which, bytes).expect("one fits");
            fit.iter().map(|gpu| gpu.index).collect::<Vec<_>>()
        };
        assert_eq!(of(Which::MostFree, 0), [0, 1, 2]);
        assert_eq!(of(Which::MostFree, 2 << 30), [1, 2]);
        assert_eq!(of(Which::Index(1), 2 << 30), [1]);
    }
}
