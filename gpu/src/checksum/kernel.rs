//! The kernel on a GPU: compiled, loaded, and launched.

use super::plan::{Block, Digits};
use super::{NoChecksums, SOURCE};
use crate::cuda::{Context, CudaDevice, CudaSlab, complain};
use crate::driver::failed;
use crate::nvrtc;
use aimss_engine::device::{Buffer, Device, Slab};
use cudarc::driver::result::{self, module};
use cudarc::driver::sys;
use parking_lot::Mutex;
use std::ffi::{CString, c_void};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Of a launch: 2 GiB of whole blocks, a fraction of a millisecond's.
pub(super) const BLOCKS_MAX: usize = 16 << 10;
/// Of a launch, so many extents.
pub(super) const PAGES_MAX: usize = 16 << 10;
/// Threads of a block, as many as there can be: a block has a multiprocessor's shared memory.
const THREADS: u32 = 1024;
/// In the memory of a launch: first the remainders, then the blocks.
const REMAINDERS_BYTES: usize = PAGES_MAX * 4;
const LAUNCH_BYTES: usize = REMAINDERS_BYTES + BLOCKS_MAX * Block::BYTES;

/// See the module.
#[derive(Debug)]
pub(super) struct Kernel {
    context: Arc<Context>,
    module: sys::CUmodule,
    function: sys::CUfunction,
    digits: Digits,
    /// Blocks of threads that run at the same time.
    grid: u32,
    /// The kernel's constants, there.
    constants: CudaSlab,
    /// One launch at a time has it.
    launch: Mutex<Launch>,
}

// SAFETY: handles of the driver, which may be used on every thread, and by several at once.
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

/// What a launch is told and tells, here and there.
#[derive(Debug)]
struct Launch {
    here: Box<dyn Buffer>,
    there: CudaSlab,
}

impl Kernel {
    /// Compiles and loads it for the device's GPU.
    pub fn load(device: &CudaDevice) -> Result<Kernel, NoChecksums> {
        use sys::CUdevice_attribute as Attribute;
        let context = device.context();
        let about = |attribute| context.attribute(attribute);
        let major = about(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = about(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        let grid = about(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = about(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let digits = if shared >= Digits::Bytes.shared_bytes() { Digits::Bytes } else { Digits::Nibbles };
        let source = CString::new(SOURCE).map_err(io::Error::other)?;
        let code = nvrtc::compile(&source, (major, minor), &[("DIGIT_BITS", digits.bits())])?;
        let constants: Vec<u8> = digits.constants().iter().flat_map(|word| word.to_ne_bytes()).collect();
        let there = device.slab(constants.len() as u64)?;
        there.put(0, &constants)?;
        let launch = Launch { here: device.buffer(LAUNCH_BYTES)?, there: device.slab(LAUNCH_BYTES as u64)? };
        context.bind()?;
        // SAFETY: machine code that NVRTC made, which is read by this call alone.
        let module =
            unsafe { module::load_data(code.as_ptr().cast()) }.map_err(failed("cuModuleLoadData"))?;
        let mut kernel = Kernel {
            context: context.clone(),
            module,
            function: std::ptr::null_mut(),
            digits,
            grid: grid.max(1),
            constants: there,
            launch: Mutex::new(launch),
        };
        kernel.find()?;
        Ok(kernel)
    }

    fn find(&mut self) -> io::Result<()> {
        // SAFETY: the module is loaded, until this is dropped.
        let function = unsafe { module::get_function(self.module, c"crc32c".into()) };
        self.function = function.map_err(failed("cuModuleGetFunction"))?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was got just now.
        let set = unsafe {
            sys::cuFuncSetAttribute(self.function, attribute, self.digits.shared_bytes() as i32).result()
        };
        set.map_err(failed("cuFuncSetAttribute"))
    }

    /// What the kernel sums up of each of `pages` pages, whose blocks these are. There are no more of either than a
    /// launch can have. And how long it took.
    pub fn launch(&self, blocks: &[Block], pages: usize) -> io::Result<(Vec<u32>, Duration)> {
        assert!(blocks.len() <= BLOCKS_MAX && pages <= PAGES_MAX, "the caller sees to it");
        if blocks.is_empty() {
            return Ok((vec![0; pages], Duration::ZERO));
        }
        let mut launch = self.launch.lock();
        let Launch { here, there } = &mut *launch;
        let here = here.bytes();
        here[..REMAINDERS_BYTES].fill(0);
        for (block, room) in blocks.iter().zip(here[REMAINDERS_BYTES..].chunks_exact_mut(Block::BYTES)) {
            room.copy_from_slice(&block.to_bytes());
        }
        let told = REMAINDERS_BYTES + blocks.len() * Block::BYTES;
        let remainders = there.bound()?;
        let mut blocks_there = remainders + REMAINDERS_BYTES as u64;
        let mut count = blocks.len() as u32;
        let mut constants = self.constants.bound()?;
        let mut remainders_there = remainders;
        let mut arguments: [*mut c_void; 4] = [
            (&raw mut blocks_there).cast(),
            (&raw mut count).cast(),
            (&raw mut constants).cast(),
            (&raw mut remainders_there).cast(),
        ];
        let grid = (self.grid.min(count), 1, 1);
        let shared_bytes = self.digits.shared_bytes();
        let begun = Instant::now();
        self.context.run(|stream| {
            // SAFETY: `here` and `there` have that much, and are this launch's until the stream was waited for.
            unsafe { result::memcpy_htod_async(remainders, &here[..told], stream) }
                .map_err(failed("cuMemcpyHtoDAsync"))?;
            // SAFETY: arguments of the kernel's types. The caller's blocks are memory of slabs that it holds.
            unsafe {
                result::launch_kernel(
                    self.function,
                    grid,
                    (THREADS, 1, 1),
                    shared_bytes,
                    stream,
                    &mut arguments,
                )
            }
            .map_err(failed("cuLaunchKernel"))?;
            // SAFETY: as for the first.
            unsafe { result::memcpy_dtoh_async(&mut here[..pages * 4], remainders, stream) }
                .map_err(failed("cuMemcpyDtoHAsync"))
        })?;
        let took = begun.elapsed();
        let words = here[..pages * 4].as_chunks::<4>().0;
        Ok((words.iter().map(|word| u32::from_ne_bytes(*word)).collect(), took))
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        complain(self.context.bind());
        // SAFETY: loaded once, and no launch outlasts the borrow that it began with.
        complain(unsafe { module::unload(self.module) }.map_err(failed("cuModuleUnload")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NVRTC needs no GPU.
    #[test]
    fn nvrtc_compiles_the_kernel_where_it_is_here() {
        if let Err(reason) = nvrtc::library() {
            return eprintln!("skipped (allowed): {reason}");
        }
        let source = CString::new(SOURCE).expect("text");
        for (digits, capability) in [(Digits::Bytes, (9, 0)), (Digits::Nibbles, (7, 5))] {
            let code = nvrtc::compile(&source, capability, &[("DIGIT_BITS", digits.bits())]);
            assert!(code.expect("it compiles").starts_with(b"\x7fELF"), "{digits:?}");
        }
        let refused =
            nvrtc::compile(&source, (9, 0), &[("DIGIT_BITS", 5)]).expect_err("5 is no size of digits");
        assert!(refused.to_string().contains("digits divide a word"), "{refused}");
    }
}
