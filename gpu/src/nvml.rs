//! NVML, the library behind `nvidia-smi`: how busy a GPU is.
//!
//! Four functions are all that is needed, so they are declared here. (The crate nvml-wrapper, well kept as it is, would
//! bring a second version each of libloading and thiserror, and a derive macro's dependencies.)

use crate::library::{Shared, words};
use libc::{c_char, c_int, c_uint, c_void};
use std::ffi::CString;
use std::sync::OnceLock;

/// The first is where drivers have it, the second is a developer's link.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// Why nobody can tell how busy a GPU is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoNvml {
    /// Its library isn't here, or is broken: it comes with the driver, but containers may go without.
    #[error("no NVML is here that can be loaded ({reason})")]
    NotLoaded {
        /// What the loader said.
        reason: String,
    },
    /// Its library lacks what is needed: update the driver.
    #[error("NVML is too old: it has no {function}")]
    TooOld {
        /// The first function that is missed.
        function: &'static str,
    },
    /// It is here and refuses; a GPU that is cut into instances (MIG) has no utilisation, for one.
    #[error("NVML doesn't tell: {reason}")]
    Refused {
        /// What NVML said.
        reason: String,
    },
}

/// `nvmlUtilization_t`, in percent of the time of the last sample, which is a second's or less.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
struct Rates {
    /// In which a kernel ran, anybody's. Copies between host and GPU are none.
    gpu: c_uint,
    memory: c_uint,
}

/// The functions of the library.
#[derive(Debug)]
struct Calls {
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    init: unsafe extern "C" fn() -> c_int,
    device: unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int,
    rates: unsafe extern "C" fn(*mut c_void, *mut Rates) -> c_int,
}

/// A GPU as NVML knows it.
#[derive(Debug)]
pub(crate) struct Watched {
    calls: &'static Calls,
    device: *mut c_void,
}

// SAFETY: a handle, valid until the process ends; NVML's functions may be called on every thread, by several at once.
unsafe impl Send for Watched {}
// SAFETY: as above.
unsafe impl Sync for Watched {}

impl Watched {
    /// The GPU at this place on the bus, such as `0000:1B:00.0`.
    pub fn find(bus: &str) -> Result<Watched, NoNvml> {
        let calls = Calls::started()?;
        let bus = CString::new(bus).map_err(|error| NoNvml::Refused { reason: error.to_string() })?;
        let mut device = std::ptr::null_mut();
        // SAFETY: a string, and a handle of the type that is written.
        let found = unsafe { (calls.device)(bus.as_ptr(), &raw mut device) };
        calls.done("nvmlDeviceGetHandleByPciBusId", found)?;
        Ok(Watched { calls, device })
    }

    /// Percent of the time of the last sample, at most a second, in which anybody's kernels ran on it. A sample may be a
    /// second old.
    pub fn utilisation(&self) -> Result<u32, NoNvml> {
        let mut rates = Rates::default();
        // SAFETY: the handle is the library's, and a structure of the type that is written.
        let asked = unsafe { (self.calls.rates)(self.device, &raw mut rates) };
        self.calls.done("nvmlDeviceGetUtilizationRates", asked)?;
        Ok(rates.gpu)
    }
}

/// How busy the GPU at this place on the bus is, in percent.
pub fn utilisation(bus: &str) -> Result<u32, NoNvml> {
    Watched::find(bus)?.utilisation()
}

impl Calls {
    /// Loads and starts the library, once a process; it isn't stopped.
    fn started() -> Result<&'static Calls, NoNvml> {
        static STARTED: OnceLock<Result<Calls, NoNvml>> = OnceLock::new();
        STARTED.get_or_init(Calls::start).as_ref().map_err(Clone::clone)
    }

    fn start() -> Result<Calls, NoNvml> {
        let shared = Shared::open(&NAMES).map_err(|reason| NoNvml::NotLoaded { reason })?;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is that of `nvml.h`.
                unsafe { shared.function($name) }.ok_or(NoNvml::TooOld { function: $name })?
            };
        }
        let calls = Calls {
            error_string: function!("nvmlErrorString"),
            init: function!("nvmlInit_v2"),
            device: function!("nvmlDeviceGetHandleByPciBusId_v2"),
            rates: function!("nvmlDeviceGetUtilizationRates"),
        };
        // SAFETY: it takes nothing.
        calls.done("nvmlInit", unsafe { (calls.init)() })?;
        Ok(calls)
    }

    /// Whether `call` succeeded.
    fn done(&self, call: &str, code: c_int) -> Result<(), NoNvml> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NVML's is such a function.
        Err(NoNvml::Refused { reason: unsafe { words("NVML", call, code, self.error_string) } })
    }
}
