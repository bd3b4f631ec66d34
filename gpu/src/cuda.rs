//! A GPU as the engine's [`Device`].
//!
//! Copies run on a stream that the caller waits for (`cuda/context.rs`). From and to a buffer of [`Device::buffer`] the
//! GPU copies by itself, at the bus' speed; other memory goes through a buffer of the driver's, which the calling
//! thread fills.

mod context;

pub(crate) use context::{Context, complain};

use crate::driver::{Driver, failed};
use crate::scrub::CudaScrubber;
use crate::unavailable::Unavailable;
use aimss_engine::device::{Buffer, Device, DeviceMemory, Scrubber, Slab};
use cudarc::driver::{result, sys};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct CudaDevice {
    name: String,
    bus: String,
    context: Arc<Context>,
}

impl CudaDevice {
    /// The GPU of that number.
    pub fn open(index: u32) -> Result<CudaDevice, Unavailable> {
        let driver = Driver::start()?;
        let gpus = driver.gpus()?;
        let count = gpus.len() as u32;
        let gpu = gpus.into_iter().nth(index as usize).ok_or(match count {
            0 => Unavailable::NoGpu,
            _ => Unavailable::NoSuchGpu { index, count },
        })?;
        let failed = |error: io::Error| Unavailable::Failed { index, reason: error.to_string() };
        let context = Arc::new(Context::make(driver, index).map_err(failed)?);
        Ok(CudaDevice { name: format!("{} (GPU {index})", gpu.name), bus: gpu.bus, context })
    }

    /// Its place on the bus, as NVML knows it.
    pub(crate) fn bus(&self) -> &str {
        &self.bus
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// What [`Device::allocate`] gives, under its own name: cuFile needs the address.
    pub fn slab(&self, bytes: u64) -> io::Result<CudaSlab> {
        self.context.bind()?;
        // SAFETY: what is there is bytes to us, whatever they are. CUDA has no allocation of nothing.
        let start = unsafe { result::malloc_sync(bytes.max(1) as usize) }.map_err(failed("cuMemAlloc"))?;
        Ok(CudaSlab { context: self.context.clone(), start, bytes })
    }
}

impl Device for CudaDevice {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn memory(&self) -> io::Result<DeviceMemory> {
        self.context.memory()
    }

    fn allocate(&self, bytes: u64) -> io::Result<Arc<dyn Slab>> {
        Ok(Arc::new(self.slab(bytes)?))
    }

    fn bandwidth(&self) -> Option<u64> {
        self.context.memory_bandwidth().ok()
    }

    fn buffer(&self, bytes: usize) -> io::Result<Box<dyn Buffer>> {
        Ok(Box::new(Pinned::allocate(&self.context, bytes)?))
    }

    fn scrubber(&self) -> io::Result<Arc<dyn Scrubber>> {
        Ok(Arc::new(CudaScrubber::open(self).map_err(io::Error::other)?))
    }
}

/// Memory of a GPU. It begins where CUDA has it begin: at a multiple of 512 bytes, large ones at one of 2 MiB.
#[derive(Debug)]
pub struct CudaSlab {
    context: Arc<Context>,
    start: sys::CUdeviceptr,
    bytes: u64,
}

impl CudaSlab {
    /// Where it begins, in the GPU's addresses; the context is current to this thread from here on.
    pub(crate) fn bound(&self) -> io::Result<sys::CUdeviceptr> {
        self.context.bind()?;
        Ok(self.start)
    }

    /// Where `bytes` from `at` begin, if they are inside.
    pub(crate) fn place(&self, at: u64, bytes: u64) -> io::Result<sys::CUdeviceptr> {
        match at.checked_add(bytes) {
            Some(end) if end <= self.bytes => Ok(self.start + at),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Slab for CudaSlab {
    fn put(&self, at: u64, from: &[u8]) -> io::Result<()> {
        let place = self.place(at, from.len() as u64)?;
        if from.is_empty() {
            return Ok(());
        }
        // SAFETY: inside the slab, and `from` is borrowed until the copy is there.
        let copy = |stream| unsafe { result::memcpy_htod_async(place, from, stream) };
        self.context.run(|stream| copy(stream).map_err(failed("cuMemcpyHtoDAsync")))
    }

    fn get(&self, at: u64, to: &mut [u8]) -> io::Result<()> {
        let place = self.place(at, to.len() as u64)?;
        if to.is_empty() {
            return Ok(());
        }
        // SAFETY: inside the slab, and `to` is borrowed until the copy is there.
        let mut copy = |stream| unsafe { result::memcpy_dtoh_async(to, place, stream) };
        self.context.run(|stream| copy(stream).map_err(failed("cuMemcpyDtoHAsync")))
    }
}

impl Drop for CudaSlab {
    fn drop(&mut self) {
        complain(self.context.bind());
        // SAFETY: allocated once, and no copy outlasts the borrow of the slab that it began with.
        complain(unsafe { result::free_sync(self.start) }.map_err(failed("cuMemFree")));
    }
}

/// Host memory that the GPU reaches by itself: locked, and known to it.
#[derive(Debug)]
struct Pinned {
    context: Arc<Context>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is this buffer's alone, and the driver takes it back on every thread.
unsafe impl Send for Pinned {}

impl Pinned {
    fn allocate(context: &Arc<Context>, bytes: usize) -> io::Result<Pinned> {
        context.bind()?;
        // SAFETY: it is filled below before anybody sees it. CUDA has no allocation of nothing.
        let start = unsafe { result::malloc_host(bytes.max(1), sys::CU_MEMHOSTALLOC_PORTABLE) };
        let start = start.map_err(failed("cuMemHostAlloc"))?.cast::<u8>();
        let start = NonNull::new(start).ok_or_else(|| io::Error::other("cuMemHostAlloc gave no memory"))?;
        // SAFETY: so many bytes were allocated just now.
        unsafe { start.write_bytes(0, bytes) };
        Ok(Pinned { context: context.clone(), start, bytes })
    }
}

impl Buffer for Pinned {
    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are this buffer's, all of them written, until it is dropped.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        complain(self.context.bind());
        // SAFETY: allocated once, by the call that this one undoes.
        let freed = unsafe { result::free_host(self.start.as_ptr().cast()) };
        complain(freed.map_err(failed("cuMemFreeHost")));
    }
}
