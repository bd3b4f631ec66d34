//! GPUs, and whether storage can exchange data with them directly.

use super::Check;
use aimss_gpu::{Probe, Unavailable};

const NO_COPIES: &str = "no --gpu-memory: files that leave memory come back from the backing alone";
const NO_CHECKS: &str = "damage of copies in a GPU's memory is found when they are read, not before";
pub(super) const NO_DIRECT: &str = "nothing yet: data between files and a GPU goes through host memory";

/// Whether a GPU's memory can keep copies.
pub fn memory(probe: &Probe) -> Check {
    const NAME: &str = "GPU memory";
    let found = probe.gpu_lines().join("; ");
    match &probe.cuda {
        Ok(_) if probe.gpus.iter().any(|(_, free)| free.is_ok()) => Check::ok(NAME, found),
        Err(Unavailable::NoDriver { .. }) => Check::missing(
            NAME,
            found,
            NO_COPIES,
            "install NVIDIA's driver if the machine has a GPU; `aimss mount --gpu-memory 1G --gpu simulated` to try it out",
        ),
        _ => Check::missing(NAME, found, NO_COPIES, "`nvidia-smi` tells what is wrong with driver and GPUs"),
    }
}

/// Whether copies there can be checked while the GPU is idle.
pub fn checks(probe: &Probe) -> Check {
    const NAME: &str = "GPU checks";
    let found = probe.check_lines().join("; ");
    match (&probe.nvrtc, probe.can_tell_idle()) {
        (Ok(_), true) => Check::ok(NAME, found),
        (Err(_), _) => Check::missing(
            NAME,
            found,
            NO_CHECKS,
            "install NVRTC (package cuda-nvrtc or nvidia-cuda-nvrtc-cu12, its directory in LD_LIBRARY_PATH)",
        ),
        (Ok(_), false) => Check::missing(
            NAME,
            found,
            NO_CHECKS,
            "NVML (libnvidia-ml.so.1) comes with NVIDIA's driver; a GPU that is cut up by MIG has no utilisation",
        ),
    }
}

/// GPUDirect Storage.
pub fn direct_storage(probe: &Probe) -> Check {
    const NAME: &str = "GPUDirect Storage";
    let found = probe.storage_lines().join("; ");
    match &probe.cufile {
        Ok(_) if probe.nvidia_fs => Check::ok(NAME, found),
        Ok(_) => Check::missing(
            NAME,
            found,
            NO_DIRECT,
            "`modprobe nvidia_fs` (package nvidia-gds); the backing on NVMe with ext4 or XFS, Lustre, BeeGFS or NFS over RDMA",
        ),
        Err(_) => Check::missing(
            NAME,
            found,
            NO_DIRECT,
            "install cuFile (package libcufile or nvidia-gds) beside NVIDIA's driver",
        ),
    }
}
