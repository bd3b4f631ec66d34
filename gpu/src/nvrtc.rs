//! NVRTC, which compiles what runs on the GPU.
//!
//! As cuFile's library (`cufile/calls.rs`) it is loaded and declared here: cudarc looks for it under fewer names than
//! there are, panics where one of its functions is missing, and declares what is returned to be one of the codes that its
//! version of the bindings knows.

use crate::library::{Shared, words};
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString};
use std::sync::OnceLock;

/// By major versions, the newest first; the developer's link; and where the toolkit puts it, of which the loader isn't
/// always told.
const NAMES: [&str; 6] = [
    "libnvrtc.so.13",
    "libnvrtc.so.12",
    "libnvrtc.so.11.2",
    "libnvrtc.so",
    "/usr/local/cuda/lib64/libnvrtc.so.13",
    "/usr/local/cuda/lib64/libnvrtc.so.12",
];

/// Why nothing can be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotCompiled {
    /// Its library isn't here, or is broken: install it, or say in `LD_LIBRARY_PATH` where it is.
    #[error("no NVRTC is here that can be loaded ({reason})")]
    NotLoaded {
        /// What the loader said.
        reason: String,
    },
    /// Its library lacks what is needed: update it.
    #[error("NVRTC ({library}) is too old: it has no {function}")]
    TooOld {
        /// The name by which it was found.
        library: &'static str,
        /// The first function that is missed.
        function: &'static str,
    },
    /// It is here and refuses; it may be older than the GPU.
    #[error("NVRTC ({library}) doesn't compile for this GPU: {reason}")]
    Refused {
        /// The name by which it was found.
        library: &'static str,
        /// What NVRTC said.
        reason: String,
    },
}

/// The library's handle of what is compiled.
type Program = *mut c_void;

/// The functions of the library.
#[derive(Debug)]
struct Calls {
    library: &'static str,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    create: unsafe extern "C" fn(
        *mut Program,
        *const c_char,
        *const c_char,
        c_int,
        *const *const c_char,
        *const *const c_char,
    ) -> c_int,
    compile: unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int,
    destroy: unsafe extern "C" fn(*mut Program) -> c_int,
    log_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    log: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    binary_size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
    binary: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
}

/// The name by which the library is found. Nothing of it is called.
pub fn library() -> Result<&'static str, NotCompiled> {
    Ok(Calls::load()?.library)
}

/// The machine code of `source` for a GPU of this compute capability, with these macros defined. It takes about a second.
pub(crate) fn compile(
    source: &CStr,
    (major, minor): (u32, u32),
    macros: &[(&str, u32)],
) -> Result<Vec<u8>, NotCompiled> {
    let calls = Calls::load()?;
    // Machine code and not PTX: that of a newer NVRTC isn't taken by an older driver.
    let mut options = vec![format!("--gpu-architecture=sm_{major}{minor}")];
    options.extend(macros.iter().map(|(name, value)| format!("-D{name}={value}")));
    let options: Vec<CString> = options.into_iter().filter_map(|option| CString::new(option).ok()).collect();
    let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();
    let mut program = std::ptr::null_mut();
    // SAFETY: strings that outlive the call, and no headers.
    let made = unsafe {
        let none = std::ptr::null();
        (calls.create)(&raw mut program, source.as_ptr(), c"aimss.cu".as_ptr(), 0, none, none.cast())
    };
    calls.done("nvrtcCreateProgram", made)?;
    let compiling = Compiling { calls, program };
    // SAFETY: the program is there, and so are as many options as are said to be.
    let compiled = unsafe { (calls.compile)(program, options.len() as c_int, options.as_ptr()) };
    if let Err(why) = calls.done("nvrtcCompileProgram", compiled) {
        // What it says of the source is more than its code does.
        let log = compiling.bytes("nvrtcGetProgramLog", calls.log_size, calls.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let log = log.trim_end_matches('\0').trim();
        return Err(if log.is_empty() { why } else { calls.refused(log.replace('\n', "; ")) });
    }
    compiling.bytes("nvrtcGetCUBIN", calls.binary_size, calls.binary)
}

/// A program that is not destroyed yet.
struct Compiling {
    calls: &'static Calls,
    program: Program,
}

impl Compiling {
    /// What `read` gives, which has as many bytes as `size` says.
    fn bytes(
        &self,
        call: &str,
        size: unsafe extern "C" fn(Program, *mut usize) -> c_int,
        read: unsafe extern "C" fn(Program, *mut c_char) -> c_int,
    ) -> Result<Vec<u8>, NotCompiled> {
        let mut bytes = 0;
        // SAFETY: the program is there, and a number of the type that is written.
        self.calls.done(call, unsafe { size(self.program, &raw mut bytes) })?;
        let mut room = vec![0_u8; bytes];
        // SAFETY: as many bytes as are written.
        self.calls.done(call, unsafe { read(self.program, room.as_mut_ptr().cast()) })?;
        Ok(room)
    }
}

impl Drop for Compiling {
    fn drop(&mut self) {
        // SAFETY: created once, and not used from here on.
        unsafe { (self.calls.destroy)(&raw mut self.program) };
    }
}

impl Calls {
    /// Loads the library, once a process.
    fn load() -> Result<&'static Calls, NotCompiled> {
        static LOADED: OnceLock<Result<Calls, NotCompiled>> = OnceLock::new();
        LOADED.get_or_init(Calls::find).as_ref().map_err(Clone::clone)
    }

    fn find() -> Result<Calls, NotCompiled> {
        let shared = Shared::open(&NAMES).map_err(|reason| NotCompiled::NotLoaded { reason })?;
        let library = shared.name;
        macro_rules! function {
            ($name:literal) => {
                // SAFETY: the field's type is that of `nvrtc.h`.
                unsafe { shared.function($name) }.ok_or(NotCompiled::TooOld { library, function: $name })?
            };
        }
        Ok(Calls {
            library,
            error_string: function!("nvrtcGetErrorString"),
            create: function!("nvrtcCreateProgram"),
            compile: function!("nvrtcCompileProgram"),
            destroy: function!("nvrtcDestroyProgram"),
            log_size: function!("nvrtcGetProgramLogSize"),
            log: function!("nvrtcGetProgramLog"),
            binary_size: function!("nvrtcGetCUBINSize"),
            binary: function!("nvrtcGetCUBIN"),
        })
    }

    /// Whether `call` succeeded.
    fn done(&self, call: &str, code: c_int) -> Result<(), NotCompiled> {
        if code == 0 {
            return Ok(());
        }
        // SAFETY: NVRTC's is such a function.
        Err(self.refused(unsafe { words("NVRTC", call, code, self.error_string) }))
    }

    fn refused(&self, reason: String) -> NotCompiled {
        NotCompiled::Refused { library: self.library, reason }
    }
}
