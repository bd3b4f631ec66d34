//! cuFile's library, its functions, and its errors.
//!
//! cudarc knows the types, but loads the library by names under which only developers have it, never as
//! `libcufile.so.0`, and declares what is returned to be one of the codes that its version of the bindings knows. So
//! the library is loaded and its functions are declared here, with numbers for codes.

use super::NoCuFile;
use crate::library::Shared;
use cudarc::cufile::sys::{self, CUfileOpError as Code};
use libc::{c_uint, c_void, off_t};
use std::io;
use std::sync::OnceLock;

/// The version in use, one that may come, the developer's link, and where the toolkit puts it, of which the loader
/// isn't always told.
const NAMES: [&str; 4] =
    ["libcufile.so.0", "libcufile.so.1", "libcufile.so", "/usr/local/cuda/lib64/libcufile.so.0"];

/// Codes from here on are cuFile's; smaller ones are errno's.
const CODES_START: u32 = 5000;

/// Codes that something can be told from.
const KNOWN: [Code; 28] = [
    Code::CU_FILE_DRIVER_NOT_INITIALIZED,
    Code::CU_FILE_DRIVER_INVALID_PROPS,
    Code::CU_FILE_DRIVER_VERSION_MISMATCH,
    Code::CU_FILE_DRIVER_VERSION_READ_ERROR,
    Code::CU_FILE_PLATFORM_NOT_SUPPORTED,
    Code::CU_FILE_IO_NOT_SUPPORTED,
    Code::CU_FILE_DEVICE_NOT_SUPPORTED,
    Code::CU_FILE_NVFS_DRIVER_ERROR,
    Code::CU_FILE_CUDA_DRIVER_ERROR,
    Code::CU_FILE_CUDA_POINTER_INVALID,
    Code::CU_FILE_CUDA_MEMORY_TYPE_INVALID,
    Code::CU_FILE_CUDA_POINTER_RANGE_ERROR,
    Code::CU_FILE_CUDA_CONTEXT_MISMATCH,
    Code::CU_FILE_INVALID_FILE_TYPE,
    Code::CU_FILE_INVALID_FILE_OPEN_FLAG,
    Code::CU_FILE_DIO_NOT_SET,
    Code::CU_FILE_INVALID_VALUE,
    Code::CU_FILE_PERMISSION_DENIED,
    Code::CU_FILE_HANDLE_NOT_REGISTERED,
    Code::CU_FILE_HANDLE_ALREADY_REGISTERED,
    Code::CU_FILE_DEVICE_NOT_FOUND,
    Code::CU_FILE_INTERNAL_ERROR,
    Code::CU_FILE_NVFS_SETUP_ERROR,
    Code::CU_FILE_IO_DISABLED,
    Code::CU_FILE_GPU_MEMORY_PINNING_FAILED,
    Code::CU_FILE_NOMEM_ERROR,
    Code::CU_FILE_IO_ERROR,
    Code::CU_FILE_NVFS_INTERNAL_DRIVER_ERROR,
];

/// `CUfileError_t`, with numbers for codes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Status {
    /// cuFile's.
    code: c_uint,
    /// CUDA's, where the former says that it is about CUDA.
    cuda: c_uint,
}

const _: () = assert!(size_of::<Status>() == size_of::<sys::CUfileError>());

/// The functions of the library.
#[derive(Debug)]
pub struct Calls {
    /// The name by which it was found.
    pub library: &'static str,
    pub open: unsafe extern "C" fn() -> Status,
    pub properties: unsafe extern "C" fn(*mut sys::CUfileDrvProps) -> Status,
    pub register: unsafe extern "C" fn(*mut sys::CUfileHandle_t, *mut sys::CUfileDescr_t) -> Status,
    pub deregister: unsafe extern "C" fn(sys::CUfileHandle_t),
    pub read: unsafe extern "C" fn(sys::CUfileHandle_t, *mut c_void, usize, off_t, off_t) -> isize,
    pub write: unsafe extern "C" fn(sys::CUfileHandle_t, *const c_void, usize, off_t, off_t) -> isize,
}

impl Calls {
    /// Loads the library, once a process.
    pub fn load() -> Result<&'static Calls, NoCuFile> {
        static LOADED: OnceLock<Result<Calls, NoCuFile>> = OnceLock::new();
        LOADED.get_or_init(Calls::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> Result<Calls, NoCuFile> {
        let shared = Shared::open(&NAMES).map_err(|reason| NoCuFile::NotLoaded { reason })?;
        let library = shared.name;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is that of `cufile.h`.
                unsafe { shared.function($name) }.ok_or(NoCuFile::TooOld { library, function: $name })?
            };
        }
        Ok(Calls {
            library,
            open: function!("cuFileDriverOpen"),
            properties: function!("cuFileDriverGetProperties"),
            register: function!("cuFileHandleRegister"),
            deregister: function!("cuFileHandleDeregister"),
            read: function!("cuFileRead"),
            write: function!("cuFileWrite"),
        })
    }
}

/// Whether `call` succeeded.
pub fn done(call: &'static str, status: Status) -> io::Result<()> {
    match status.code {
        0 => Ok(()),
        code if code == Code::CU_FILE_CUDA_DRIVER_ERROR as u32 => {
            Err(io::Error::other(format!("{call}: CUDA error {}", status.cuda)))
        }
        code => Err(failed(call, code)),
    }
}

/// The error of `call` of that number.
pub fn failed(call: &'static str, code: u32) -> io::Error {
    if code < CODES_START {
        return io::Error::from_raw_os_error(code as i32);
    }
    match KNOWN.iter().find(|known| **known as u32 == code) {
        Some(known) => io::Error::other(format!("{call}: {known:?}")),
        None => io::Error::other(format!("{call}: cuFile error {code}")),
    }
}

/// Properties before they are asked for.
pub fn no_properties() -> sys::CUfileDrvProps {
    sys::CUfileDrvProps {
        nvfs: sys::CUfileDrvProps__bindgen_ty_1 {
            major_version: 0,
            minor_version: 0,
            poll_thresh_size: 0,
            max_direct_io_size: 0,
            dstatusflags: 0,
            dcontrolflags: 0,
        },
        fflags: 0,
        max_device_cache_size: 0,
        per_buffer_cache_size: 0,
        max_device_pinned_mem_size: 0,
        max_batch_io_size: 0,
        max_batch_io_timeout_msecs: 0,
    }
}
