//! CUDA's driver library: loaded, looked through and started.
//!
//! cudarc looks a function up when it is called first, and panics where it or its library isn't there. So, before:
//!
//! 1. The library is opened here, which gives the loader's reason where that fails. It stays open, so cudarc, which
//!    tries the same names among others, has one to find.
//! 2. Every function that this crate calls ([`FUNCTIONS`]) is looked for in the library that cudarc took. A test runs
//!    on a stand-in that has these functions and no others, so a call that is missing in the list panics there.
//! 3. The driver is started.
//!
//! A [`Driver`] is the proof that this went well; who has none calls nothing.

use crate::library::Shared;
use crate::unavailable::{Unavailable, gib};
use cudarc::driver::result::{self, DriverError, device};
use cudarc::driver::sys::{self, CUresult};
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;
use std::{fmt, io};

/// The first is where drivers have it, the second is a developer's link.
const NAMES: [&str; 2] = ["libcuda.so.1", "libcuda.so"];

/// All that is called, cudarc's own calls included. All are in drivers since CUDA 11.
const FUNCTIONS: [&str; 30] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetPCIBusId",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
    "cuDevicePrimaryCtxSetFlags_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxSetCurrent",
    "cuCtxGetStreamPriorityRange",
    "cuStreamCreateWithPriority",
    "cuStreamSynchronize",
    "cuStreamDestroy_v2",
    "cuMemGetInfo_v2",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
];

/// Room for what the driver writes: a name, or a place on the bus.
const TEXT_BYTES: usize = 256;

/// A GPU, as far as it is known without a context on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// CUDA's number.
    pub index: u32,
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Its place on the bus, such as `0000:1B:00.0`: other tools may count in another order.
    pub bus: String,
    /// All of its memory, in bytes.
    pub memory_bytes: u64,
}

impl fmt::Display for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Gpu { index, name, bus, memory_bytes } = self;
        write!(f, "GPU {index}: {name} at {bus}, {}", gib(*memory_bytes))
    }
}

/// The driver, started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Driver(());

impl Driver {
    pub fn start() -> Result<Driver, Unavailable> {
        load()?;
        result::init().map_err(|error| match error.0 {
            CUresult::CUDA_ERROR_NO_DEVICE => Unavailable::NoGpu,
            _ => not_started("cuInit")(error),
        })?;
        Ok(Driver(()))
    }

    /// The newest version of CUDA that it can do.
    pub fn version(self) -> Result<(u32, u32), Unavailable> {
        let mut version: c_int = 0;
        // SAFETY: the pointer is to a number of the type that is written.
        let asked = unsafe { sys::cuDriverGetVersion(&raw mut version) }.result();
        asked.map_err(not_started("cuDriverGetVersion"))?;
        // 1000 times the major one and 10 times the minor one.
        let version = version.unsigned_abs();
        Ok((version / 1000, version % 1000 / 10))
    }

    /// The GPUs that CUDA can use.
    pub fn gpus(self) -> Result<Vec<Gpu>, Unavailable> {
        let count = device::get_count().map_err(not_started("cuDeviceGetCount"))?;
        let described =
            |index: u32| describe(index).map_err(|error| Unavailable::Failed { index, reason: words(error) });
        (0..count.max(0).unsigned_abs()).map(described).collect()
    }
}

fn describe(index: u32) -> Result<Gpu, DriverError> {
    let device = device::get(index as c_int)?;
    // SAFETY: the device was got just now.
    let memory_bytes = unsafe { device::total_mem(device) }? as u64;
    // SAFETY: there is room for as many bytes as are said to be.
    let name = text(|room, bytes| unsafe { sys::cuDeviceGetName(room, bytes, device) })?;
    // SAFETY: as above.
    let bus = text(|room, bytes| unsafe { sys::cuDeviceGetPCIBusId(room, bytes, device) })?;
    Ok(Gpu { index, name, bus, memory_bytes })
}

fn text(write: impl FnOnce(*mut c_char, c_int) -> CUresult) -> Result<String, DriverError> {
    let mut room = [0_u8; TEXT_BYTES];
    write(room.as_mut_ptr().cast(), TEXT_BYTES as c_int).result()?;
    let written = room.split(|byte| *byte == 0).next().unwrap_or(&[]);
    Ok(String::from_utf8_lossy(written).into_owned())
}

fn load() -> Result<(), Unavailable> {
    static LOADED: OnceLock<()> = OnceLock::new();
    if LOADED.get().is_some() {
        return Ok(());
    }
    let library = Shared::open(&NAMES).map_err(|reason| Unavailable::NoDriver { reason })?;
    // A second line: the library that was opened just now can be found again. In the daemon a panic is its end all the
    // same.
    // SAFETY: as in `Shared::open`; the library is one of those.
    let taken = std::panic::catch_unwind(|| unsafe { sys::culib() });
    let reason = format!("cudarc found no library, though {} is here", library.name);
    let taken = taken.map_err(|_| Unavailable::NoDriver { reason })?;
    for function in FUNCTIONS {
        // SAFETY: it is only looked for. Every function has this type as well as any other, as long as it isn't called.
        if unsafe { taken.get::<unsafe extern "C" fn()>(function) }.is_err() {
            return Err(Unavailable::TooOld { function });
        }
    }
    let _ = LOADED.set(());
    Ok(())
}

fn not_started(call: &'static str) -> impl Fn(DriverError) -> Unavailable {
    move |error| Unavailable::NotStarted { reason: format!("{call}: {}", words(error)) }
}

/// CUDA's name of an error, and what it says about it. (The error's own `Debug` is not to be used: it knows the codes
/// of the bindings' version alone.)
fn words(error: DriverError) -> String {
    let Ok(name) = error.error_name() else {
        return format!("CUDA error {}", error.0 as u32);
    };
    let name = name.to_string_lossy();
    match error.error_string() {
        Ok(text) => format!("{name} ({})", text.to_string_lossy()),
        Err(_) => name.into_owned(),
    }
}

/// The error of `call` as the engine's traits want it.
pub(crate) fn failed(call: &'static str) -> impl Fn(DriverError) -> io::Error {
    move |error| {
        let text = format!("{call}: {}", words(error));
        match error.0 {
            CUresult::CUDA_ERROR_OUT_OF_MEMORY => io::Error::new(io::ErrorKind::OutOfMemory, text),
            _ => io::Error::other(text),
        }
    }
}
