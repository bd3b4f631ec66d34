//! Between a mount's settings and the GPU that they mean.

use aimss_engine::device::{Device, Simulated};
use aimss_fs::config::{GpuConfig, WhichGpu};
use aimss_gpu::{Unavailable, Which};
use std::sync::Arc;

/// Opens the GPU of a mount; the error is a sentence. It may take seconds.
pub fn open(config: &GpuConfig) -> Result<Arc<dyn Device>, String> {
    let which = match config.which {
        WhichGpu::Simulated { bytes, faults, seed } => {
            return Ok(Arc::new(Simulated::new(bytes, faults, seed)));
        }
        WhichGpu::MostFree => Which::MostFree,
        WhichGpu::Index(index) => Which::Index(index),
    };
    let open = || aimss_gpu::open(aimss_gpu::choose(which, config.limit_bytes)?);
    open().map_err(|why: Unavailable| why.to_string())
}
