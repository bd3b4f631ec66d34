//! Whether the GPU that is asked for is there, as far as can be told without making a context on it.

use crate::cli;
use crate::commands::Usage;
use crate::gpu::Asked;
use crate::size;
use aimss_fs::config::GpuConfig;
use anyhow::{Result, bail};

/// Less would hold no file that is worth it.
const LIMIT_BYTES_MIN: u64 = 64 << 20;

/// The settings, if a GPU is to be used.
pub fn config(asked: &cli::Mount) -> Result<Option<GpuConfig>> {
    let Some(limit) = &asked.gpu_memory else { return Ok(None) };
    let limit = limit.parse::<size::Size>().map_err(|why| Usage(format!("--gpu-memory: {why}")))?;
    let reserve = asked.gpu_reserve.parse::<size::Size>();
    let reserve = reserve.map_err(|why| Usage(format!("--gpu-reserve: {why}")))?;
    let gpu = Asked::parse(&asked.gpu).map_err(|why| Usage(format!("--gpu: {why}")))?;
    let wanted = match gpu {
        Asked::Real(which) => which,
        Asked::Simulated(..) => {
            let (size::Size::Bytes(limit_bytes), size::Size::Bytes(reserve_bytes)) = (limit, reserve) else {
                bail!(Usage(
                    "--gpu simulated has no size of its own; give --gpu-memory and --gpu-reserve in bytes"
                        .into()
                ));
            };
            enough(limit_bytes)?;
            return Ok(Some(gpu.with(limit_bytes, reserve_bytes)));
        }
    };
    let without = "mount without --gpu-memory, or with --gpu simulated to try it out";
    let total = aimss_gpu::total_bytes(wanted).map_err(|why| anyhow::anyhow!("--gpu: {why}; {without}"))?;
    let (limit_bytes, reserve_bytes) = (limit.of(total), reserve.of(total));
    enough(limit_bytes)?;
    aimss_gpu::check(wanted, limit_bytes).map_err(|why| anyhow::anyhow!("--gpu-memory: {why}; give less"))?;
    Ok(Some(gpu.with(limit_bytes, reserve_bytes)))
}

fn enough(limit_bytes: u64) -> Result<()> {
    if limit_bytes < LIMIT_BYTES_MIN {
        bail!(Usage(format!(
            "--gpu-memory: {} are too few for copies of files; give {} or more",
            size::human(limit_bytes),
            size::human(LIMIT_BYTES_MIN)
        )));
    }
    Ok(())
}
