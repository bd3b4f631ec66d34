//! A stand-in for NVML, for the tests: a GPU that is as busy as `stand_in_busy` says, at the place on the bus where
//! `cuda_stand_in` has its first one.
//!
//! `STAND_IN_FAILS` has the functions that fail, with NVML's code (`nvmlDeviceGetUtilizationRates=3`).

#![allow(non_snake_case)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU32, Ordering};

const SUCCESS: c_int = 0;
const UNINITIALIZED: c_int = 1;
const NOT_FOUND: c_int = 6;

static BUSY: AtomicU32 = AtomicU32::new(0);
static STARTED: AtomicU32 = AtomicU32::new(0);

fn enter(function: &str, call: impl FnOnce() -> c_int) -> c_int {
    let fails = std::env::var("STAND_IN_FAILS").unwrap_or_default();
    let mut fails = fails.split(',').filter_map(|fails| fails.split_once('='));
    match fails.find(|(name, _)| *name == function) {
        Some((_, code)) => code.parse().expect("a code"),
        None if function != "nvmlInit_v2" && STARTED.load(Ordering::Relaxed) == 0 => UNINITIALIZED,
        None => call(),
    }
}

/// From now on kernels run so much of the time, in percent.
#[unsafe(no_mangle)]
extern "C" fn stand_in_busy(percent: c_uint) {
    BUSY.store(percent, Ordering::Relaxed);
}

#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(code: c_int) -> *const c_char {
    match code {
        3 => c"Not Supported".as_ptr(),
        NOT_FOUND => c"Not Found".as_ptr(),
        _ => std::ptr::null(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> c_int {
    enter("nvmlInit_v2", || {
        STARTED.fetch_add(1, Ordering::Relaxed);
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetHandleByPciBusId_v2(bus: *const c_char, device: *mut *mut c_void) -> c_int {
    enter("nvmlDeviceGetHandleByPciBusId_v2", || {
        // SAFETY: the caller's string.
        if unsafe { CStr::from_ptr(bus) } != c"0000:00:00.0" {
            return NOT_FOUND;
        }
        // SAFETY: the caller's pointer, which is to be written to.
        unsafe { device.write(std::ptr::without_provenance_mut(1)) };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvmlDeviceGetUtilizationRates(_: *mut c_void, rates: *mut [c_uint; 2]) -> c_int {
    enter("nvmlDeviceGetUtilizationRates", || {
        // SAFETY: as above: of kernels, and of memory.
        unsafe { rates.write([BUSY.load(Ordering::Relaxed), 100]) };
        SUCCESS
    })
}
