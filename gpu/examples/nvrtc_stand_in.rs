//! A stand-in for NVRTC, for the tests: it compiles nothing, and gives what `cuda_stand_in` takes for machine code.
//!
//! `STAND_IN_FAILS` has the functions that fail, with NVRTC's code (`nvrtcCompileProgram=6`). Where compiling fails the
//! log says so.

#![allow(non_snake_case)]

use std::ffi::{CStr, c_char, c_int, c_void};

const SUCCESS: c_int = 0;
const INVALID_INPUT: c_int = 3;
const CODE: &[u8] = b"stand-in";
const LOG: &[u8] = b"one line\nanother\n\0";

fn enter(function: &str, call: impl FnOnce() -> c_int) -> c_int {
    let fails = std::env::var("STAND_IN_FAILS").unwrap_or_default();
    let mut fails = fails.split(',').filter_map(|fails| fails.split_once('='));
    match fails.find(|(name, _)| *name == function) {
        Some((_, code)) => code.parse().expect("a code"),
        None => call(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetErrorString(code: c_int) -> *const c_char {
    match code {
        6 => c"NVRTC_ERROR_COMPILATION".as_ptr(),
        _ => c"NVRTC_ERROR unknown".as_ptr(),
    }
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCreateProgram(
    program: *mut *mut c_void,
    source: *const c_char,
    _: *const c_char,
    headers: c_int,
    _: *const *const c_char,
    _: *const *const c_char,
) -> c_int {
    enter("nvrtcCreateProgram", || {
        // SAFETY: the caller's string.
        let source = unsafe { CStr::from_ptr(source) }.to_string_lossy();
        if headers != 0 || !source.contains("__global__") {
            return INVALID_INPUT;
        }
        // SAFETY: the caller's pointer, which is to be written to.
        unsafe { program.write(Box::into_raw(Box::new(0_u8)).cast()) };
        SUCCESS
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcCompileProgram(_: *mut c_void, count: c_int, options: *const *const c_char) -> c_int {
    enter("nvrtcCompileProgram", || {
        // SAFETY: the caller's strings, as many as it says.
        let option = |number| unsafe { CStr::from_ptr(*options.add(number)) }.to_string_lossy();
        let options: Vec<_> = (0..count as usize).map(option).collect();
        let digits = options.iter().any(|option| ["-DDIGIT_BITS=8", "-DDIGIT_BITS=4"].contains(&&**option));
        if digits && options.iter().any(|option| option == "--gpu-architecture=sm_90") {
            SUCCESS
        } else {
            INVALID_INPUT
        }
    })
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcDestroyProgram(program: *mut *mut c_void) -> c_int {
    // SAFETY: made by `nvrtcCreateProgram`.
    drop(unsafe { Box::from_raw((*program).cast::<u8>()) });
    SUCCESS
}

fn size(to: *mut usize, bytes: &[u8]) -> c_int {
    // SAFETY: the caller's pointer, which is to be written to.
    unsafe { to.write(bytes.len()) };
    SUCCESS
}

fn give(to: *mut c_char, bytes: &[u8]) -> c_int {
    // SAFETY: the caller has room for as many as it was told.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.cast(), bytes.len()) };
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLogSize(_: *mut c_void, bytes: *mut usize) -> c_int {
    size(bytes, LOG)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetProgramLog(_: *mut c_void, to: *mut c_char) -> c_int {
    give(to, LOG)
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetCUBINSize(_: *mut c_void, bytes: *mut usize) -> c_int {
    enter("nvrtcGetCUBINSize", || size(bytes, CODE))
}

#[unsafe(no_mangle)]
extern "C" fn nvrtcGetCUBIN(_: *mut c_void, to: *mut c_char) -> c_int {
    give(to, CODE)
}
