//! A shared library that may not be here.

use libc::{c_char, c_int};
use libloading::Library;
use std::error::Error as _;
use std::ffi::CStr;
use std::mem::ManuallyDrop;

/// A library that is open for good: what was looked up in it stays valid, and no destructor of it runs while threads
/// are in it.
pub(crate) struct Shared {
    /// The name by which it was found.
    pub name: &'static str,
    library: ManuallyDrop<Library>,
}

/// What a call came to that gave `code`, in the words of its library, `what`, whose function for that is `error_string`.
///
/// # Safety
///
/// It takes any number, and gives null or a string that is there for good.
pub(crate) unsafe fn words(
    what: &str,
    call: &str,
    code: c_int,
    error_string: unsafe extern "C" fn(c_int) -> *const c_char,
) -> String {
    // SAFETY: the caller's promise.
    let text = unsafe { error_string(code) };
    if text.is_null() {
        return format!("{call}: {what} error {code}");
    }
    // SAFETY: as above.
    format!("{call}: {}", unsafe { CStr::from_ptr(text) }.to_string_lossy())
}

impl Shared {
    /// The first of `names` that loads, or what the loader said: of one that is here and broken, if there is one.
    pub fn open(names: &[&'static str]) -> Result<Shared, String> {
        let mut reasons = Vec::new();
        for name in names {
            // SAFETY: NVIDIA's libraries, whose initialisers ask nothing of who loads them.
            match unsafe { Library::new(*name) } {
                Ok(library) => return Ok(Shared { name, library: ManuallyDrop::new(library) }),
                Err(error) => {
                    reasons.push(error.source().map_or_else(|| error.to_string(), ToString::to_string));
                }
            }
        }
        let broken = reasons.iter().position(|reason| !reason.ends_with("No such file or directory"));
        Err(reasons.into_iter().nth(broken.unwrap_or(0)).unwrap_or_default())
    }

    /// The function of that name.
    ///
    /// # Safety
    ///
    /// `F` is the function's type, a pointer to a function.
    pub unsafe fn function<F: Copy>(&self, name: &str) -> Option<F> {
        // SAFETY: the caller's promise. The library is never closed.
        unsafe { self.library.get::<F>(name).ok().map(|function| *function) }
    }
}
