//! Between what `--gpu` says and the GPU that it means.

use crate::{duration, model};
use aimss_engine::device::{Device, Faults, Simulated};
use aimss_fs::config::{GpuConfig, WhichGpu};
use aimss_gpu::{Unavailable, Which};
use std::sync::Arc;

const SIMULATED: &str = "simulated";
const FORM: &str =
    "give a number, free, or simulated, as in simulated:corrupt=1%,put=1%,get=1%,delay=1ms,seed=1";

/// What `--gpu` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Asked {
    /// One of the machine's.
    Real(Which),
    /// None: what acts as one, with these faults, which come as the seed says.
    Simulated(Faults, u64),
}

impl Asked {
    /// Reads it; the error is a sentence.
    pub fn parse(text: &str) -> Result<Asked, String> {
        if let Some(faults) = text.strip_prefix(SIMULATED) {
            let (faults, seed) = faults_of(faults)?;
            return Ok(Asked::Simulated(faults, seed));
        }
        Ok(Asked::Real(match text {
            "free" => Which::MostFree,
            number => Which::Index(
                number
                    .parse()
                    .map_err(|_| format!("there is no GPU '{}'; {FORM}", crate::escape::text(number)))?,
            ),
        }))
    }

    /// So much of its memory, of which that much is left to others.
    pub fn with(self, limit_bytes: u64, reserve_bytes: u64) -> GpuConfig {
        let which = match self {
            Asked::Real(Which::MostFree) => WhichGpu::MostFree,
            Asked::Real(Which::Index(index)) => WhichGpu::Index(index),
            Asked::Simulated(faults, seed) => {
                WhichGpu::Simulated { bytes: limit_bytes.saturating_add(reserve_bytes), faults, seed }
            }
        };
        GpuConfig { which, limit_bytes, reserve_bytes }
    }
}

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
