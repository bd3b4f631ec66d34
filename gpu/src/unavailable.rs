//! Why no GPU can be had, in a sentence for `aimss mount`, `aimss doctor` and `aimss status`.

use crate::driver::Gpu;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The driver's library isn't here, or is broken: install the driver.
    #[error("no NVIDIA driver is here that can be loaded ({reason})")]
    NoDriver {
        /// What the loader said.
        reason: String,
    },
    /// The driver's library lacks what is needed: update the driver.
    #[error("the NVIDIA driver is too old: its library has no {function}")]
    TooOld {
        /// The first function that is missed.
        function: &'static str,
    },
    /// The driver's library is here but doesn't start, for want of its kernel module for example.
    #[error("the NVIDIA driver doesn't start: {reason}")]
    NotStarted {
        /// What CUDA said.
        reason: String,
    },
    /// There is none, or `CUDA_VISIBLE_DEVICES` hides it.
    #[error("this machine has an NVIDIA driver, but no GPU that CUDA can use")]
    NoGpu,
    /// There are others: ask for one of them.
    #[error("there is no GPU {index}: this machine has {}", these(*count))]
    NoSuchGpu {
        /// The one that was asked for.
        index: u32,
        /// So many are there, at least one.
        count: u32,
    },
    /// No GPU that was asked for is large enough: ask for less.
    #[error(
        "GPU {} ({}) has {} of memory, and {} were asked for",
        largest.index, largest.name, gib(largest.memory_bytes), gib(*asked)
    )]
    TooSmall {
        /// The largest of those that were asked for.
        largest: Gpu,
        /// In bytes.
        asked: u64,
    },
    /// It is there, and refused; it may be lost, or be another process' alone.
    #[error("GPU {index} can't be used: {reason}")]
    Failed {
        /// Its number.
        index: u32,
        /// What CUDA said.
        reason: String,
    },
}

fn these(count: u32) -> String {
    match count {
        1 => "one, which is GPU 0".into(),
        _ => format!("{count}, which are GPU 0 to GPU {}", count.saturating_sub(1)),
    }
}

/// In GiB, as the memory of GPUs is spoken of.
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1_u64 << 30) as f64)
}
