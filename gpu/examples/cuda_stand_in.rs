//! A stand-in for CUDA's driver library, for the tests: with no more functions than the crate says it calls, device
//! memory in host memory, and the rules that a real driver has where breaking them goes unnoticed for long:
//!
//! - what needs a context fails on a thread that has none;
//! - copies are made when their stream is waited for, not before, and so are checksums, which is all that kernels do
//!   here: `nvrtc_stand_in` compiles them;
//! - what isn't given back is counted by `stand_in_left`.
//!
//! `STAND_IN_MEMORY` has the memory of each GPU in bytes (`1048576,2097152`), and `STAND_IN_FAILS` the functions that
//! fail, with CUDA's code (`cuInit=100,cuMemAlloc_v2=719`). `STAND_IN_SHARED` is the shared memory that a block of
//! threads can have at most, in bytes; with `STAND_IN_WRONG` checksums are wrong.

#![allow(non_snake_case)]

/// The arithmetic; what the kernel does with it is its own test's.
#[allow(dead_code)]
#[path = "../src/checksum/remainder.rs"]
mod remainder;

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard};

const SUCCESS: c_int = 0;
const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const INVALID_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;
const INVALID_HANDLE: c_int = 400;
const ILLEGAL_ADDRESS: c_int = 700;

const MULTIPROCESSORS: c_uint = 132;
/// A kernel's: `Block` of `crc32c.cu`.
const BLOCK_BYTES: usize = 24;
/// What a warp loads at once.
const ROW_BYTES: usize = 512;

/// As real ones are for large allocations at least, so that files with O_DIRECT can be read into it.
const ALIGN: usize = 4096;

#[derive(Default)]
struct State {
    /// Of each GPU: its memory, what of it is allocated, and how often its context is retained.
    gpus: Vec<(usize, usize, u32)>,
    /// By address: its length and the GPU.
    memory: HashMap<usize, (usize, usize)>,
    /// By address: its length.
    host: HashMap<usize, usize>,
    /// By handle: what is to be done.
    streams: HashMap<usize, Vec<Work>>,
    streams_made: usize,
    modules: usize,
    /// What was set for the kernel.
    shared_bytes: c_uint,
}

#[derive(Clone, Copy)]
enum Work {
    Copy { from: usize, to: usize, bytes: usize },
    Checksums { blocks: usize, count: usize, remainders: usize },
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(|| {
    let memory = std::env::var("STAND_IN_MEMORY").unwrap_or_default();
    let gpus = memory.split(',').filter_map(|bytes| bytes.parse().ok()).map(|bytes| (bytes, 0, 0));
    Mutex::new(State { gpus: gpus.collect(), ..State::default() })
});

thread_local! {
    /// The GPU whose context is current.
    static CURRENT: Cell<Option<usize>> = const { Cell::new(None) };
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().expect("nobody panics with it")
}

/// Runs `call` unless `function` is to fail; what it returns as an error is the code.
fn enter(function: &str, call: impl FnOnce(&mut State) -> Result<(), c_int>) -> c_int {
    let fails = std::env::var("STAND_IN_FAILS").unwrap_or_default();
    let fails = fails.split(',').filter_map(|fails| fails.split_once('='));
    if let Some((_, code)) = fails.into_iter().find(|(name, _)| *name == function) {
        return code.parse().expect("a code");
    }
    call(&mut state()).err().unwrap_or(SUCCESS)
}

/// As `enter`, with the GPU whose context is current, and retained.
fn with_context(function: &str, call: impl FnOnce(&mut State, usize) -> Result<(), c_int>) -> c_int {
    enter(function, |state| match CURRENT.get() {
        Some(gpu) if state.gpus[gpu].2 > 0 => call(state, gpu),
        _ => Err(INVALID_CONTEXT),
    })
}

fn write<T>(to: *mut T, value: T) {
    // SAFETY: the callers are functions of the driver, whose pointers are to be written to.
    unsafe { to.write(value) };
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, ALIGN).expect("no more than there is")
}

fn allocate(bytes: usize) -> usize {
    // SAFETY: never of no bytes; both kinds of allocation refuse that.
    unsafe { alloc(layout(bytes)) as usize }
}

fn free(address: usize, bytes: usize) {
    // SAFETY: allocated above with that length, and taken out of the maps.
    unsafe { dealloc(address as *mut u8, layout(bytes)) };
}

/// What was not given back: contexts, streams and memory of both kinds.
#[unsafe(no_mangle)]
extern "C" fn stand_in_left() -> u64 {
    let state = state();
    let contexts: u32 = state.gpus.iter().map(|gpu| gpu.2).sum();
    let others = state.streams.len() + state.memory.len() + state.host.len() + state.modules;
    u64::from(contexts) + others as u64
}

#[unsafe(no_mangle)]
extern "C" fn cuInit(_: c_uint) -> c_int {
    enter("cuInit", |_| Ok(()))
}

#[unsafe(no_mangle)]
extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    enter("cuDriverGetVersion", |_| {
        write(version, 12080);
        Ok(())
    })
}

fn say(code: c_int, name: *mut *const c_char, words: impl Fn(c_int) -> Option<&'static CStr>) -> c_int {
    match words(code) {
        Some(words) => write(name, words.as_ptr()),
        None => return INVALID_VALUE,
    }
    SUCCESS
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorName(code: c_int, name: *mut *const c_char) -> c_int {
    say(code, name, |code| match code {
        OUT_OF_MEMORY => Some(c"CUDA_ERROR_OUT_OF_MEMORY"),
        719 => Some(c"CUDA_ERROR_LAUNCH_FAILED"),
        _ => None,
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGetErrorString(code: c_int, text: *mut *const c_char) -> c_int {
    say(code, text, |code| match code {
        OUT_OF_MEMORY => Some(c"out of memory"),
        719 => Some(c"unspecified launch failure"),
        _ => None,
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    enter("cuDeviceGetCount", |state| {
        write(count, state.gpus.len() as c_int);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGet(device: *mut c_int, index: c_int) -> c_int {
    enter("cuDeviceGet", |state| {
        state.gpus.get(index as usize).ok_or(INVALID_DEVICE)?;
        write(device, index);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetAttribute(value: *mut c_int, which: c_int, _: c_int) -> c_int {
    enter("cuDeviceGetAttribute", |_| {
        let shared = || std::env::var("STAND_IN_SHARED").ok()?.parse().ok();
        write(
            value,
            match which {
                16 => MULTIPROCESSORS as c_int,
                // Compute capability 9.0.
                75 => 9,
                76 => 0,
                // Shared memory of a block of threads at most, when it is asked for.
                97 => shared().unwrap_or(227 << 10),
                _ => return Err(INVALID_VALUE),
            },
        );
        Ok(())
    })
}

fn text(to: *mut c_char, room: c_int, text: &str) -> Result<(), c_int> {
    for (at, byte) in text.bytes().chain([0]).enumerate() {
        if at >= room as usize {
            return Err(INVALID_VALUE);
        }
        write(to.wrapping_add(at), byte as c_char);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetName(name: *mut c_char, room: c_int, _: c_int) -> c_int {
    enter("cuDeviceGetName", |_| text(name, room, "Stand-in"))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceGetPCIBusId(bus: *mut c_char, room: c_int, device: c_int) -> c_int {
    enter("cuDeviceGetPCIBusId", |_| text(bus, room, &format!("0000:{device:02X}:00.0")))
}

#[unsafe(no_mangle)]
extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> c_int {
    enter("cuDeviceTotalMem_v2", |state| {
        write(bytes, state.gpus[device as usize].0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxSetFlags_v2(_: c_int, flags: c_uint) -> c_int {
    // CU_CTX_SCHED_BLOCKING_SYNC, the only one that the crate has a use for.
    enter("cuDevicePrimaryCtxSetFlags_v2", |_| if flags == 4 { Ok(()) } else { Err(INVALID_VALUE) })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, device: c_int) -> c_int {
    enter("cuDevicePrimaryCtxRetain", |state| {
        state.gpus[device as usize].2 += 1;
        write(context, (device as usize + 1) as *mut c_void);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    enter("cuDevicePrimaryCtxRelease_v2", |state| {
        let retained = &mut state.gpus[device as usize].2;
        *retained = retained.checked_sub(1).ok_or(INVALID_CONTEXT)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxSetCurrent(context: *mut c_void) -> c_int {
    enter("cuCtxSetCurrent", |_| {
        CURRENT.set((context as usize).checked_sub(1));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuCtxGetStreamPriorityRange(least: *mut c_int, greatest: *mut c_int) -> c_int {
    with_context("cuCtxGetStreamPriorityRange", |_, _| {
        // The other way round than on real GPUs of today, on which the lowest is the default.
        write(least, 3);
        write(greatest, -5);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamCreateWithPriority(stream: *mut *mut c_void, flags: c_uint, priority: c_int) -> c_int {
    with_context("cuStreamCreateWithPriority", |state, _| {
        // CU_STREAM_NON_BLOCKING, and the lowest priority.
        if flags != 1 || priority != 3 {
            return Err(INVALID_VALUE);
        }
        state.streams_made += 1;
        state.streams.insert(state.streams_made, Vec::new());
        write(stream, state.streams_made as *mut c_void);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamSynchronize(stream: *mut c_void) -> c_int {
    with_context("cuStreamSynchronize", |state, _| {
        let work = std::mem::take(state.streams.get_mut(&(stream as usize)).ok_or(INVALID_HANDLE)?);
        work.into_iter().try_for_each(|work| match work {
            Work::Copy { from, to, bytes } => {
                // SAFETY: memory of the crate's and of ours, which it says is there until this returns.
                unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to as *mut u8, bytes) };
                Ok(())
            }
            Work::Checksums { blocks, count, remainders } => checksums(state, blocks, count, remainders),
        })
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuStreamDestroy_v2(stream: *mut c_void) -> c_int {
    enter("cuStreamDestroy_v2", |state| {
        state.streams.remove(&(stream as usize)).map(drop).ok_or(INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    with_context("cuMemGetInfo_v2", |state, gpu| {
        let (bytes, taken, _) = state.gpus[gpu];
        write(free, bytes - taken);
        write(total, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemAlloc_v2(start: *mut u64, bytes: usize) -> c_int {
    with_context("cuMemAlloc_v2", |state, gpu| {
        let (all, taken, _) = state.gpus[gpu];
        match bytes {
            0 => return Err(INVALID_VALUE),
            _ if bytes > all - taken => return Err(OUT_OF_MEMORY),
            _ => state.gpus[gpu].1 += bytes,
        }
        let address = allocate(bytes);
        state.memory.insert(address, (bytes, gpu));
        write(start, address as u64);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFree_v2(start: u64) -> c_int {
    with_context("cuMemFree_v2", |state, _| {
        let (bytes, gpu) = state.memory.remove(&(start as usize)).ok_or(INVALID_VALUE)?;
        state.gpus[gpu].1 -= bytes;
        free(start as usize, bytes);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemHostAlloc(start: *mut *mut c_void, bytes: usize, flags: c_uint) -> c_int {
    with_context("cuMemHostAlloc", |state, _| {
        // CU_MEMHOSTALLOC_PORTABLE.
        if bytes == 0 || flags != 1 {
            return Err(INVALID_VALUE);
        }
        let address = allocate(bytes);
        state.host.insert(address, bytes);
        write(start, address as *mut c_void);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemFreeHost(start: *mut c_void) -> c_int {
    with_context("cuMemFreeHost", |state, _| {
        let bytes = state.host.remove(&(start as usize)).ok_or(INVALID_VALUE)?;
        free(start as usize, bytes);
        Ok(())
    })
}

fn copy(function: &str, from: usize, to: usize, bytes: usize, stream: *mut c_void) -> c_int {
    with_context(function, |state, _| {
        let work = Work::Copy { from, to, bytes };
        state.streams.get_mut(&(stream as usize)).ok_or(INVALID_HANDLE)?.push(work);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: *mut c_void) -> c_int {
    copy("cuMemcpyHtoDAsync_v2", from as usize, to as usize, bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: *mut c_void) -> c_int {
    copy("cuMemcpyDtoHAsync_v2", from as usize, to as usize, bytes, stream)
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleLoadData(module: *mut *mut c_void, code: *const c_void) -> c_int {
    with_context("cuModuleLoadData", |state, _| {
        // SAFETY: what `nvrtc_stand_in` gave.
        if unsafe { code.cast::<[u8; 8]>().read_unaligned() } != *b"stand-in" {
            return Err(INVALID_VALUE);
        }
        state.modules += 1;
        write(module, std::ptr::without_provenance_mut(1));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleUnload(_: *mut c_void) -> c_int {
    with_context("cuModuleUnload", |state, _| {
        state.modules = state.modules.checked_sub(1).ok_or(INVALID_HANDLE)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuModuleGetFunction(function: *mut *mut c_void, _: *mut c_void, name: *const c_char) -> c_int {
    with_context("cuModuleGetFunction", |_, _| {
        // SAFETY: the caller's string.
        if unsafe { CStr::from_ptr(name) } != c"crc32c" {
            return Err(INVALID_VALUE);
        }
        write(function, std::ptr::without_provenance_mut(1));
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuFuncSetAttribute(_: *mut c_void, which: c_int, value: c_int) -> c_int {
    with_context("cuFuncSetAttribute", |state, _| {
        // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES.
        if which != 8 {
            return Err(INVALID_VALUE);
        }
        state.shared_bytes = value.unsigned_abs();
        Ok(())
    })
}

// The driver's, not ours.
#[allow(clippy::too_many_arguments)]
#[unsafe(no_mangle)]
extern "C" fn cuLaunchKernel(
    _: *mut c_void,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    shared_bytes: c_uint,
    stream: *mut c_void,
    arguments: *mut *mut c_void,
    _: *mut *mut c_void,
) -> c_int {
    with_context("cuLaunchKernel", |state, _| {
        let one_at_a_time = grid_x > 0 && grid_x <= MULTIPROCESSORS && (grid_y, grid_z) == (1, 1);
        let threads = block_x <= 1024 && block_x.is_multiple_of(32) && (block_y, block_z) == (1, 1);
        if !one_at_a_time || !threads || shared_bytes != state.shared_bytes {
            return Err(INVALID_VALUE);
        }
        // SAFETY: the kernel has four arguments: blocks, their count, constants, remainders.
        let argument = |number| unsafe { *arguments.add(number) };
        // SAFETY: addresses, and a count, of these types.
        let (blocks, count, remainders) =
            unsafe { (*argument(0).cast::<u64>(), *argument(1).cast::<u32>(), *argument(3).cast::<u64>()) };
        let work = Work::Checksums {
            blocks: blocks as usize,
            count: count as usize,
            remainders: remainders as usize,
        };
        state.streams.get_mut(&(stream as usize)).ok_or(INVALID_HANDLE)?.push(work);
        Ok(())
    })
}

/// Whether that is memory that is allocated.
fn is_there(state: &State, start: usize, bytes: usize) -> bool {
    let mut memory = state.memory.iter();
    memory.any(|(address, (length, _))| start >= *address && start + bytes <= address + length)
}

/// What `crc32c.cu` does.
fn checksums(state: &State, blocks: usize, count: usize, remainders: usize) -> Result<(), c_int> {
    for number in 0..count {
        let block = blocks + number * BLOCK_BYTES;
        if !is_there(state, block, BLOCK_BYTES) {
            return Err(ILLEGAL_ADDRESS);
        }
        // SAFETY: as was just looked; blocks are aligned.
        let (start, [bytes, shift, page, _]) =
            unsafe { (*(block as *const u64) as usize, *((block + 8) as *const [u32; 4])) };
        let sum = remainders + page as usize * 4;
        if !is_there(state, start, bytes as usize) || !is_there(state, sum, 4) {
            return Err(ILLEGAL_ADDRESS);
        }
        // SAFETY: as was just looked.
        let mut row = unsafe { std::slice::from_raw_parts(start as *const u8, bytes as usize) }.to_vec();
        row.resize(row.len().next_multiple_of(ROW_BYTES), 0);
        let remainder = remainder::multiplied(!crc32c::crc32c_append(u32::MAX, &row), shift);
        let wrong = u32::from(std::env::var_os("STAND_IN_WRONG").is_some());
        // SAFETY: as above.
        unsafe { *(sum as *mut u32) ^= remainder ^ wrong };
    }
    Ok(())
}
