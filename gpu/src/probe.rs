//! What this machine offers, in words for `aimss doctor`.

use crate::cuda::Context;
use crate::cufile::{self, NoCuFile, Report};
use crate::driver::{Driver, Gpu};
use crate::nvml::{self, NoNvml};
use crate::nvrtc::{self, NotCompiled};
use crate::unavailable::{Unavailable, gib};
use std::path::Path;

/// Either is there while nvidia-fs is loaded, whose counters may be switched off.
const NVIDIA_FS: [&str; 2] = ["/sys/module/nvidia_fs", "/proc/driver/nvidia-fs/stats"];

/// See the module.
#[derive(Debug)]
pub struct Probe {
    /// The newest CUDA that the driver can do, or why there is no GPU.
    pub cuda: Result<(u32, u32), Unavailable>,
    /// The GPUs, each with its free memory in bytes, or why that can't be told.
    pub gpus: Vec<(Gpu, Result<u64, String>)>,
    /// The name by which NVRTC was found, which compiles what checks copies.
    pub nvrtc: Result<&'static str, NotCompiled>,
    /// Of each GPU, by its number, how busy it is in percent.
    pub busy: Vec<(u32, Result<u32, NoNvml>)>,
    /// How cuFile goes about it, or why it doesn't; where there is no GPU it isn't tried.
    pub cufile: Result<Report, NoCuFile>,
    /// The name by which cuFile's library was found.
    pub cufile_library: Option<&'static str>,
    /// Whether nvidia-fs is loaded, the kernel module by which storage and GPU exchange data without the host.
    pub nvidia_fs: bool,
}

/// Looks at everything. It makes a context on each GPU for a moment, and opens cuFile.
pub fn probe() -> Probe {
    let found = Driver::start().and_then(|driver| Ok((driver, driver.version()?, driver.gpus()?)));
    let (cuda, gpus) = match found {
        Ok((_, _, gpus)) if gpus.is_empty() => (Err(Unavailable::NoGpu), Vec::new()),
        Ok((driver, version, gpus)) => {
            let free = |index| Context::make(driver, index).and_then(|context| Ok(context.memory()?.free));
            let with = |gpu: Gpu| (gpu.index, gpu);
            let gpus = gpus.into_iter().map(with);
            (Ok(version), gpus.map(|(index, gpu)| (gpu, free(index).map_err(|e| e.to_string()))).collect())
        }
        Err(reason) => (Err(reason), Vec::new()),
    };
    let busy = gpus.iter().map(|(gpu, _): &(Gpu, _)| (gpu.index, nvml::utilisation(&gpu.bus))).collect();
    Probe {
        cuda,
        gpus,
        nvrtc: nvrtc::library(),
        busy,
        cufile: cufile::report(),
        cufile_library: cufile::library().ok(),
        nvidia_fs: NVIDIA_FS.iter().any(|path| Path::new(path).exists()),
    }
}

impl Probe {
    /// Each thing in a line.
    pub fn lines(&self) -> Vec<String> {
        [self.gpu_lines(), self.check_lines(), self.storage_lines()].concat()
    }

    /// Driver and GPUs.
    pub fn gpu_lines(&self) -> Vec<String> {
        let mut lines = vec![match &self.cuda {
            Ok((major, minor)) => format!("NVIDIA driver, for CUDA up to {major}.{minor}"),
            Err(reason) => reason.to_string(),
        }];
        lines.extend(self.gpus.iter().map(|(gpu, free)| match free {
            Ok(free) => format!("{gpu}, {} free", gib(*free)),
            Err(reason) => format!("{gpu}, which can't be used: {reason}"),
        }));
        lines
    }

    /// Whether it can be told of any GPU when it is idle.
    pub fn can_tell_idle(&self) -> bool {
        self.busy.iter().any(|(_, busy)| busy.is_ok())
    }

    /// What checks copies, and when it may.
    pub fn check_lines(&self) -> Vec<String> {
        let mut lines = vec![match &self.nvrtc {
            Ok(library) => format!("NVRTC ({library})"),
            Err(reason) => reason.to_string(),
        }];
        lines.extend(self.busy.iter().map(|(index, busy)| match busy {
            Ok(percent) => format!("GPU {index} was busy for {percent}% of the last second"),
            Err(reason) => format!("when GPU {index} is idle can't be told: {reason}"),
        }));
        lines
    }

    /// cuFile, and nvidia-fs.
    pub fn storage_lines(&self) -> Vec<String> {
        let cufile = match (&self.cufile, self.cufile_library) {
            (Ok(report), _) => report.to_string(),
            (Err(reason), Some(library)) => format!("cuFile is here ({library}); not used: {reason}"),
            (Err(reason), None) => reason.to_string(),
        };
        vec![cufile, format!("nvidia-fs is {}", if self.nvidia_fs { "loaded" } else { "not loaded" })]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_says_what_is_here_or_why_it_is_not() {
        let probe = probe();
        assert_eq!(probe.cuda.is_err(), probe.gpus.is_empty(), "{probe:?}");
        assert!(probe.lines().len() >= 4 && probe.lines().iter().all(|line| !line.is_empty()), "{probe:?}");
    }
}
