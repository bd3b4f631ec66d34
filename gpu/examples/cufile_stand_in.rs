//! A stand-in for cuFile's library, for the tests: device memory is the host memory that the stand-in for CUDA has.
//! It moves less at once than it is asked for, as the real one may.
//!
//! `STAND_IN_NVIDIA_FS` is the version of nvidia-fs (`2.17`), which is not there without, and `STAND_IN_FAILS` has the
//! functions that fail, with cuFile's code (`cuFileHandleRegister=5008`).

#![allow(non_snake_case)]

use std::ffi::{c_int, c_uint, c_void};
use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::fs::FileExt;

/// What is moved at once.
const STEP_BYTES_MAX: usize = 64 << 10;
const INVALID_VALUE: c_uint = 5022;
const NVME_AND_NFS: c_uint = 1 << 4 | 1 << 2;

/// `CUfileError_t`.
#[repr(C)]
struct Status {
    code: c_uint,
    cuda: c_uint,
}

/// `CUfileDrvProps_t`.
#[repr(C)]
struct Properties {
    major: c_uint,
    minor: c_uint,
    poll_threshold: usize,
    direct_max: usize,
    served: c_uint,
    control: c_uint,
    rest: [c_uint; 6],
}

/// `CUfileDescr_t`.
#[repr(C)]
struct Description {
    kind: c_uint,
    descriptor: usize,
    operations: usize,
}

fn code(function: &str) -> Option<c_uint> {
    let fails = std::env::var("STAND_IN_FAILS").unwrap_or_default();
    let mut fails = fails.split(',').filter_map(|fails| fails.split_once('='));
    fails.find(|(name, _)| *name == function).map(|(_, code)| code.parse().expect("a code"))
}

fn status(function: &str) -> Status {
    Status { code: code(function).unwrap_or(0), cuda: 0 }
}

#[unsafe(no_mangle)]
extern "C" fn cuFileDriverOpen() -> Status {
    status("cuFileDriverOpen")
}

#[unsafe(no_mangle)]
extern "C" fn cuFileDriverGetProperties(to: *mut Properties) -> Status {
    let version = std::env::var("STAND_IN_NVIDIA_FS").unwrap_or_default();
    let version = version.split_once('.').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    let (major, minor) = version.unwrap_or((0, 0));
    let served = version.map_or(0, |_| NVME_AND_NFS);
    let (poll_threshold, direct_max, control, rest) = (4, 16384, 2, [0; 6]);
    // SAFETY: the crate's, to be written to.
    unsafe { to.write(Properties { major, minor, poll_threshold, direct_max, served, control, rest }) };
    status("cuFileDriverGetProperties")
}

/// Handles are descriptors and one, as none is null.
#[unsafe(no_mangle)]
extern "C" fn cuFileHandleRegister(handle: *mut *mut c_void, description: *const Description) -> Status {
    // SAFETY: the crate's, to be read.
    let description = unsafe { &*description };
    // A descriptor is an int; the rest of its place means nothing.
    let descriptor = description.descriptor as c_int as usize;
    if description.kind != 1 || description.operations != 0 {
        return Status { code: INVALID_VALUE, cuda: 0 };
    }
    // SAFETY: the crate's, to be written to.
    unsafe { handle.write((descriptor + 1) as *mut c_void) };
    status("cuFileHandleRegister")
}

#[unsafe(no_mangle)]
extern "C" fn cuFileHandleDeregister(_: *mut c_void) {}

/// Runs `call` with the file, which stays open, and no more bytes than are moved at once.
fn step(
    function: &str,
    handle: *mut c_void,
    bytes: usize,
    call: impl FnOnce(&File, usize) -> std::io::Result<usize>,
) -> isize {
    if let Some(code) = code(function) {
        return -(code as isize);
    }
    // SAFETY: the handle is a descriptor's, and open as long as it is registered; it isn't closed here.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(handle as c_int - 1) });
    match call(&file, bytes.min(STEP_BYTES_MAX)) {
        Ok(moved) => moved as isize,
        Err(_) => -1,
    }
}

#[unsafe(no_mangle)]
extern "C" fn cuFileRead(handle: *mut c_void, to: *mut c_void, bytes: usize, offset: i64, at: i64) -> isize {
    step("cuFileRead", handle, bytes, |file, bytes| {
        // SAFETY: memory of the stand-in for CUDA, which is inside a slab.
        let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u8>().add(at as usize), bytes) };
        file.read_at(to, offset as u64)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFileWrite(
    handle: *mut c_void,
    from: *const c_void,
    bytes: usize,
    offset: i64,
    at: i64,
) -> isize {
    step("cuFileWrite", handle, bytes, |file, bytes| {
        // SAFETY: as above.
        let from = unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(at as usize), bytes) };
        file.write_at(from, offset as u64)
    })
}
