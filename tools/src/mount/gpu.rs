//! Whether the GPU that is asked for is there, as far as can be told without making a context on it.

use crate::cli;
use crate::commands::Usage;
use crate::{duration, model, size};
use aimss_engine::device::Faults;
use aimss_fs::config::{GpuConfig, WhichGpu};
use aimss_gpu::Which;
use anyhow::{Result, bail};

const SIMULATED: &str = "simulated";
const FORM: &str =
    "give a number, free, or simulated, as in simulated:corrupt=1%,put=1%,get=1%,delay=1ms,seed=1";
/// Less would hold no file that is worth it.
const LIMIT_BYTES_MIN: u64 = 64 << 20;

/// The settings, if a GPU is to be used.
pub fn config(asked: &cli::Mount) -> Result<Option<GpuConfig>> {
    let Some(limit) = &asked.gpu_memory else { return Ok(None) };
    let limit = limit.parse::<size::Size>().map_err(|why| Usage(format!("--gpu-memory: {why}")))?;
    let reserve = asked.gpu_reserve.parse::<size::Size>();
    let reserve = reserve.map_err(|why| Usage(format!("--gpu-reserve: {why}")))?;
    if let Some(faults) = asked.gpu.strip_prefix(SIMULATED) {
        let (size::Size::Bytes(limit_bytes), size::Size::Bytes(reserve_bytes)) = (limit, reserve) else {
            bail!(Usage(
                "--gpu simulated has no size of its own; give --gpu-memory and --gpu-reserve in bytes".into()
            ));
        };
        enough(limit_bytes)?;
        let (faults, seed) = faults_of(faults).map_err(|why| Usage(format!("--gpu: {why}")))?;
        let which = WhichGpu::Simulated { bytes: limit_bytes.saturating_add(reserve_bytes), faults, seed };
        return Ok(Some(GpuConfig { which, limit_bytes, reserve_bytes }));
    }
    let which = match asked.gpu.as_str() {
        "free" => WhichGpu::MostFree,
        number => WhichGpu::Index(number.parse().map_err(|_| {
            Usage(format!("--gpu: there is no GPU '{}'; {FORM}", crate::escape::text(number)))
        })?),
    };
    let wanted = match which {
        WhichGpu::Index(index) => Which::Index(index),
        _ => Which::MostFree,
    };
    let without = "mount without --gpu-memory, or with --gpu simulated to try it out";
    let total = aimss_gpu::total_bytes(wanted).map_err(|why| anyhow::anyhow!("--gpu: {why}; {without}"))?;
    let (limit_bytes, reserve_bytes) = (limit.of(total), reserve.of(total));
    enough(limit_bytes)?;
    aimss_gpu::check(wanted, limit_bytes).map_err(|why| anyhow::anyhow!("--gpu-memory: {why}; give less"))?;
    Ok(Some(GpuConfig { which, limit_bytes, reserve_bytes }))
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

/// `:corrupt=1%,delay=1ms,seed=7`, or nothing; the error is a sentence.
fn faults_of(text: &str) -> Result<(Faults, u64), String> {
    let (mut faults, mut seed) = (Faults::default(), 1);
    if text.is_empty() {
        return Ok((faults, seed));
    }
    let Some(parts) = text.strip_prefix(':') else {
        return Err(format!("'{SIMULATED}{text}' is no GPU; {FORM}"));
    };
    for part in parts.split(',') {
        let Some((key, value)) = part.split_once('=') else {
            return Err(format!("'{part}' is no fault of a simulated GPU; {FORM}"));
        };
        let share = || {
            model::share(value)
                .ok_or_else(|| format!("{part} is no share from 0% to 100%; write it as {key}=10%"))
        };
        match key.trim() {
            "put" => faults.put = share()?,
            "get" => faults.get = share()?,
            "corrupt" => faults.corrupt = share()?,
            "rot" => faults.rot = share()?,
            "busy" => faults.busy = share()?,
            "hang" => faults.hang = share()?,
            "allocate" => faults.allocate = share()?,
            "delay" => faults.delay = duration::parse(value)?,
            "seed" => seed = value.trim().parse().map_err(|_| format!("{part} is no whole number"))?,
            other => return Err(format!("'{other}' is no fault of a simulated GPU; {FORM}")),
        }
    }
    Ok((faults, seed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn faults_are_read() {
        assert_eq!(faults_of(""), Ok((Faults::default(), 1)));
        let (faults, seed) =
            faults_of(":put=5%,get=10%,corrupt=0.5%,rot=2%,busy=50%,allocate=1%,delay=2ms,seed=9")
                .expect("faults");
        let expected = Faults { put: 0.05, get: 0.1, corrupt: 0.005, allocate: 0.01, ..Faults::default() };
        let expected = Faults { rot: 0.02, busy: 0.5, delay: Duration::from_millis(2), ..expected };
        assert_eq!((faults, seed), (expected, 9));
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for text in ["x", ":", ":put", ":put=1", ":put=101%", ":delay=soon", ":seed=-1", ":speed=9"] {
            assert!(faults_of(text).is_err(), "{text}");
        }
    }
}
