//! A GPU's primary context, and the streams on which copies and kernels wait.
//!
//! 1. A context is current to a thread, not to a process; calls come from any thread, so each binds it before. That is
//!    a store to a variable of the thread.
//! 2. Waits sleep (`CU_CTX_SCHED_BLOCKING_SYNC`), so that they don't take a core each from who computes.
//! 3. Work takes an idle stream, or makes one, and gives it back: there are as many as there was work at once.
//!    They don't wait for the default stream, and have the lowest priority, as whatever else runs on the GPU is what
//!    it is there for. (CUDA's manual says that copies between host and GPU don't heed it today.)
//! 4. Nothing of it is under way when [`Context::run`] returns, whatever it returns.

use crate::driver::{Driver, failed};
use aimss_engine::device::DeviceMemory;
use cudarc::driver::result::{self, ctx, device, primary_ctx, stream};
use cudarc::driver::sys;
use parking_lot::Mutex;
use std::ffi::c_int;
use std::io;

/// See the module.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    /// Of streams: the lowest.
    priority: c_int,
    /// Guards the streams on which nothing runs; a leaf lock.
    idle: Mutex<Vec<Stream>>,
}

// SAFETY: handles of the driver, which may be used on every thread, and by several at once.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

/// A stream that is not destroyed yet.
#[derive(Debug)]
struct Stream(sys::CUstream);

impl Context {
    /// Makes it, or takes part in the one that this process has.
    pub fn make(_: Driver, index: u32) -> io::Result<Context> {
        let device = device::get(index as c_int).map_err(failed("cuDeviceGet"))?;
        let flags = sys::CUctx_flags::CU_CTX_SCHED_BLOCKING_SYNC as u32;
        // SAFETY: the device was got just now.
        let set = unsafe { sys::cuDevicePrimaryCtxSetFlags_v2(device, flags) }.result();
        set.map_err(failed("cuDevicePrimaryCtxSetFlags"))?;
        // SAFETY: as above.
        let handle = unsafe { primary_ctx::retain(device) }.map_err(failed("cuDevicePrimaryCtxRetain"))?;
        let mut context = Context { device, handle, priority: 0, idle: Mutex::new(Vec::new()) };
        context.bind()?;
        let priorities = stream::get_priority_range().map_err(failed("cuCtxGetStreamPriorityRange"))?;
        context.priority = priorities.0;
        Ok(context)
    }

    /// Makes it current to this thread.
    pub fn bind(&self) -> io::Result<()> {
        // SAFETY: it is retained until it is dropped.
        unsafe { ctx::set_current(self.handle) }.map_err(failed("cuCtxSetCurrent"))
    }

    pub fn memory(&self) -> io::Result<DeviceMemory> {
        self.bind()?;
        let (free, total) = result::mem_get_info().map_err(failed("cuMemGetInfo"))?;
        Ok(DeviceMemory { total: total as u64, free: free as u64 })
    }

    /// What the driver says about the GPU.
    pub fn attribute(&self, which: sys::CUdevice_attribute) -> io::Result<u32> {
        // SAFETY: the device was got.
        let asked = unsafe { device::get_attribute(self.device, which) };
        asked.map(i32::unsigned_abs).map_err(failed("cuDeviceGetAttribute"))
    }

    /// Of the GPU's memory, in bytes a second: its clock and the width of its bus. Twice a clock, as memory of GPUs is.
    pub fn memory_bandwidth(&self) -> io::Result<u64> {
        use sys::CUdevice_attribute as Attribute;
        let kilohertz = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
        let bits = self.attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
        Ok(2 * u64::from(kilohertz) * 1000 * u64::from(bits) / 8)
    }

    /// Has `submit` start copies and kernels on a stream, and waits for them.
    pub fn run(&self, submit: impl FnOnce(sys::CUstream) -> io::Result<()>) -> io::Result<()> {
        self.bind()?;
        let idle = self.idle.lock().pop();
        let stream = idle.map_or_else(|| self.stream(), Ok)?;
        let submitted = submit(stream.0);
        // Also after an error: the memory is the caller's again when this returns. Where waiting fails the context is
        // lost, and nothing that was started in it goes on.
        // SAFETY: it is not destroyed.
        let waited = unsafe { stream::synchronize(stream.0) }.map_err(failed("cuStreamSynchronize"));
        let ran = submitted.and(waited);
        match ran {
            Ok(()) => self.idle.lock().push(stream),
            Err(_) => destroy(stream),
        }
        ran
    }

    fn stream(&self) -> io::Result<Stream> {
        let kind = stream::StreamKind::NonBlocking;
        let made = stream::create_with_priority(kind, self.priority);
        made.map(Stream).map_err(failed("cuStreamCreateWithPriority"))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        complain(self.bind());
        self.idle.get_mut().drain(..).for_each(destroy);
        // SAFETY: it was retained once, and nothing of it is used from here on: what is in it holds it.
        let released = unsafe { primary_ctx::release(self.device) };
        complain(released.map_err(failed("cuDevicePrimaryCtxRelease")));
        // cuFile for one would find a context on this thread that is no more.
        // SAFETY: none is what a thread begins with.
        let unbound = unsafe { ctx::set_current(std::ptr::null_mut()) };
        complain(unbound.map_err(failed("cuCtxSetCurrent")));
    }
}

fn destroy(stream: Stream) {
    // SAFETY: it is not destroyed yet, and is given away here.
    complain(unsafe { stream::destroy(stream.0) }.map_err(failed("cuStreamDestroy")));
}

/// For what can't be given back: the driver has it until the process ends.
pub(crate) fn complain(freed: io::Result<()>) {
    if let Err(error) = freed {
        log::warn!("GPU: {error}");
    }
}
