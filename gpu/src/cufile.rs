//! cuFile (GPUDirect Storage): between a file and the memory of a GPU, past the host's memory where that can be had.
//!
//! 1. [`driver`] opens cuFile, once a process, and only where CUDA has started. It stays open until the process ends.
//! 2. [`CuFile::register`] takes a file that is open with O_DIRECT. A file system that cuFile doesn't take is an error
//!    of that file, with nothing changed for others.
//! 3. [`DirectFile::write`] and [`DirectFile::read`] move whole blocks of [`ALIGN_BYTES`]; what a [`CudaSlab`] was
//!    given by `put` is there for them when `put` has returned.
//!
//! Which way data takes is decided by cuFile for each file; [`Route`] says what its driver can do at best. Without
//! nvidia-fs and without direct access to NVMe it goes through host memory all the same ("compat mode"), which works
//! everywhere, but is no faster than doing so oneself.
//!
//! It doesn't register slabs as buffers (`cuFileBufRegister`): data passes a buffer of cuFile's in the GPU's memory, a
//! copy at its speed. It writes a log named `cufile.log` where the process was started when it has something to
//! complain about, unless `CUFILE_LOGFILE_PATH` or `cufile.json` say where else.

mod calls;

use crate::cuda::CudaSlab;
use crate::driver::Driver;
use crate::unavailable::Unavailable;
use calls::{Calls, done, failed};
use cudarc::cufile::sys::{self, CUfileDriverStatusFlags as Flag};
use rustix::fs::OFlags;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::OnceLock;
use std::{fmt, io, ptr};

/// Blocks in which files are read and written: what O_DIRECT may ask for at most on file systems in use.
pub const ALIGN_BYTES: u64 = 4096;

/// File systems and buses that nvidia-fs may serve.
const SERVED: [(Flag, &str); 11] = [
    (Flag::CU_FILE_NVME_SUPPORTED, "NVMe"),
    (Flag::CU_FILE_NVMEOF_SUPPORTED, "NVMe-oF"),
    (Flag::CU_FILE_SCSI_SUPPORTED, "SCSI"),
    (Flag::CU_FILE_SCALEFLUX_CSD_SUPPORTED, "ScaleFlux"),
    (Flag::CU_FILE_NVMESH_SUPPORTED, "NVMesh"),
    (Flag::CU_FILE_LUSTRE_SUPPORTED, "Lustre"),
    (Flag::CU_FILE_WEKAFS_SUPPORTED, "WekaFS"),
    (Flag::CU_FILE_NFS_SUPPORTED, "NFS"),
    (Flag::CU_FILE_GPFS_SUPPORTED, "GPFS"),
    (Flag::CU_FILE_BEEGFS_SUPPORTED, "BeeGFS"),
    (Flag::CU_FILE_SCATEFS_SUPPORTED, "ScaTeFS"),
];

/// Why cuFile can't be used. Data then goes through host memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCuFile {
    /// Its library isn't here, or is broken: install it, or say in `LD_LIBRARY_PATH` where it is.
    #[error("no cuFile is here that can be loaded ({reason})")]
    NotLoaded {
        /// What the loader said.
        reason: String,
    },
    /// Its library lacks what is needed: update it.
    #[error("cuFile ({library}) is too old: it has no {function}")]
    TooOld {
        /// The name by which it was found.
        library: &'static str,
        /// The first function that is missed.
        function: &'static str,
    },
    /// There is nothing to use it with.
    #[error("cuFile needs a GPU: {0}")]
    NoGpu(#[from] Unavailable),
    /// It is here and refuses.
    #[error("cuFile ({library}) doesn't start: {reason}")]
    NotStarted {
        /// The name by which it was found.
        library: &'static str,
        /// What cuFile said.
        reason: String,
    },
}

/// The best way between files and GPU that cuFile has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Direct, by the kernel module nvidia-fs of that version, for storage of these kinds.
    NvidiaFs((u32, u32), Vec<&'static str>),
    /// Direct, by the kernel itself, for NVMe (peer-to-peer DMA).
    PeerToPeer,
    /// Through host memory, which cuFile calls compat mode.
    Compat,
}

/// What cuFile is here, for `aimss doctor` and `aimss status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The name by which its library was found.
    pub library: &'static str,
    /// Its best way.
    pub route: Route,
}

impl Route {
    /// Whether data can go past host memory.
    pub fn is_direct(&self) -> bool {
        *self != Route::Compat
    }

    fn of(properties: &sys::CUfileDrvProps) -> Route {
        let driver = &properties.nvfs;
        // They are numbers of bits.
        let has = |flag: Flag| driver.dstatusflags & (1 << flag as u32) != 0;
        let kinds: Vec<_> = SERVED.iter().filter(|(flag, _)| has(*flag)).map(|(_, name)| *name).collect();
        // Both are zero where nvidia-fs isn't loaded.
        let version = (driver.major_version, driver.minor_version);
        if version != (0, 0) && !kinds.is_empty() {
            Route::NvidiaFs(version, kinds)
        } else if has(Flag::CU_FILE_NVME_P2P_SUPPORTED) {
            Route::PeerToPeer
        } else {
            Route::Compat
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuFile ({}), ", self.library)?;
        match &self.route {
            Route::NvidiaFs((major, minor), kinds) => {
                write!(f, "direct by nvidia-fs {major}.{minor} for {}", kinds.join(", "))
            }
            Route::PeerToPeer => f.write_str("direct for NVMe by peer-to-peer DMA"),
            Route::Compat => f.write_str("in compat mode: data goes through host memory"),
        }
    }
}

/// cuFile's driver, open.
#[derive(Debug)]
pub struct CuFile {
    calls: &'static Calls,
    route: Route,
}

/// The name by which cuFile's library is found. Nothing of it is called.
pub fn library() -> Result<&'static str, NoCuFile> {
    Ok(Calls::load()?.library)
}

/// cuFile's driver, which is opened by the first call.
pub fn driver() -> Result<&'static CuFile, NoCuFile> {
    static OPENED: OnceLock<Result<CuFile, NoCuFile>> = OnceLock::new();
    OPENED.get_or_init(CuFile::open).as_ref().map_err(Clone::clone)
}

/// What cuFile is here; opens its driver.
pub fn report() -> Result<Report, NoCuFile> {
    let driver = driver()?;
    Ok(Report { library: driver.calls.library, route: driver.route.clone() })
}

impl CuFile {
    fn open() -> Result<CuFile, NoCuFile> {
        let calls = Calls::load()?;
        if Driver::start()?.gpus()?.is_empty() {
            return Err(Unavailable::NoGpu.into());
        }
        let refused =
            |error: io::Error| NoCuFile::NotStarted { library: calls.library, reason: error.to_string() };
        // SAFETY: called once in a process, which CUDA has started in.
        done("cuFileDriverOpen", unsafe { (calls.open)() }).map_err(refused)?;
        let mut properties = calls::no_properties();
        // SAFETY: a structure of the type that is written.
        let asked = unsafe { (calls.properties)(&raw mut properties) };
        done("cuFileDriverGetProperties", asked).map_err(refused)?;
        Ok(CuFile { calls, route: Route::of(&properties) })
    }

    /// The best way it has.
    pub fn route(&self) -> &Route {
        &self.route
    }

    /// Takes `file`, which is open with O_DIRECT, for reading, writing or both as it is to be used.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidInput`] without O_DIRECT: cuFile would go through the page cache, and not say so. Any
    /// other is cuFile's word on this file.
    pub fn register(&self, file: File) -> io::Result<DirectFile> {
        if !rustix::fs::fcntl_getfl(&file)?.contains(OFlags::DIRECT) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the file isn't open with O_DIRECT"));
        }
        let mut description = sys::CUfileDescr_t {
            type_: sys::CUfileFileHandleType::CU_FILE_HANDLE_TYPE_OPAQUE_FD,
            handle: sys::CUfileDescr_t__bindgen_ty_1 { fd: file.as_raw_fd() },
            fs_ops: ptr::null(),
        };
        let mut handle = ptr::null_mut();
        // SAFETY: both are of the types that are read and written. The descriptor stays open while it is registered.
        let registered = unsafe { (self.calls.register)(&raw mut handle, &raw mut description) };
        done("cuFileHandleRegister", registered)?;
        Ok(DirectFile { calls: self.calls, handle, _file: file })
    }
}

/// A file that cuFile reads and writes. Ranges that are moved at the same time don't overlap, unless both are read.
#[derive(Debug)]
pub struct DirectFile {
    calls: &'static Calls,
    handle: sys::CUfileHandle_t,
    /// Closed after it is deregistered.
    _file: File,
}

// SAFETY: cuFile's functions may be called on every thread, and by several at once.
unsafe impl Send for DirectFile {}
// SAFETY: as above.
unsafe impl Sync for DirectFile {}

impl DirectFile {
    /// Writes `bytes` of `from`, which are `at` bytes behind its start, to the file at `offset`. All three are
    /// multiples of [`ALIGN_BYTES`].
    pub fn write(&self, from: &CudaSlab, at: u64, bytes: u64, offset: u64) -> io::Result<()> {
        let moved = self.all(from, at, bytes, offset, |start, bytes, offset, at| {
            // SAFETY: the bytes are inside the slab, which is borrowed; the file is registered.
            let written = unsafe { (self.calls.write)(self.handle, start, bytes, offset, at) };
            moved("cuFileWrite", written)
        })?;
        if moved < bytes { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// Reads `bytes` of the file from `offset` on into `to`, to `at` bytes behind its start. All three are multiples of
    /// [`ALIGN_BYTES`]; what is read may be less, where the file ends.
    pub fn read(&self, to: &CudaSlab, at: u64, bytes: u64, offset: u64) -> io::Result<u64> {
        self.all(to, at, bytes, offset, |start, bytes, offset, at| {
            // SAFETY: the bytes are inside the slab, which nobody else uses there; the file is registered.
            let read = unsafe { (self.calls.read)(self.handle, start, bytes, offset, at) };
            moved("cuFileRead", read)
        })
    }

    /// Has `step` move bytes until all are, or it moves less than whole blocks, which is the end of the file.
    fn all(
        &self,
        slab: &CudaSlab,
        at: u64,
        bytes: u64,
        offset: u64,
        step: impl Fn(*mut libc::c_void, usize, libc::off_t, libc::off_t) -> io::Result<u64>,
    ) -> io::Result<u64> {
        if [at, bytes, offset].iter().any(|number| !number.is_multiple_of(ALIGN_BYTES)) {
            let reason = "cuFile moves whole blocks of 4 KiB, to and from places that are multiples of it";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        slab.place(at, bytes)?;
        // cuFile is given the start of the allocation, and the place as a distance from it.
        let start = slab.bound()? as *mut libc::c_void;
        let mut moved = 0;
        while moved < bytes {
            let left = (bytes - moved) as usize;
            let step = step(start, left, (offset + moved) as libc::off_t, (at + moved) as libc::off_t)?;
            moved += step;
            if step == 0 || !step.is_multiple_of(ALIGN_BYTES) {
                break;
            }
        }
        Ok(moved)
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        // SAFETY: registered once; nothing is under way, as that borrows this.
        unsafe { (self.calls.deregister)(self.handle) };
    }
}

/// What a call that moves bytes returned: their number, or -1 with errno, or a negative code of cuFile's.
fn moved(call: &'static str, returned: isize) -> io::Result<u64> {
    match u64::try_from(returned) {
        Ok(bytes) => Ok(bytes),
        Err(_) if returned == -1 => Err(io::Error::last_os_error()),
        Err(_) => Err(failed(call, returned.unsigned_abs() as u32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: (u32, u32), flags: &[Flag]) -> String {
        let mut properties = calls::no_properties();
        (properties.nvfs.major_version, properties.nvfs.minor_version) = version;
        properties.nvfs.dstatusflags = flags.iter().map(|flag| 1 << *flag as u32).sum();
        Report { library: "libcufile.so.0", route: Route::of(&properties) }.to_string()
    }

    #[test]
    fn the_route_is_what_the_driver_says_it_can_do() {
        let (nvme, nfs) = (Flag::CU_FILE_NVME_SUPPORTED, Flag::CU_FILE_NFS_SUPPORTED);
        let direct = "cuFile (libcufile.so.0), direct by nvidia-fs 2.17 for NVMe, NFS";
        assert_eq!(report((2, 17), &[nvme, nfs]), direct);
        let peer = "cuFile (libcufile.so.0), direct for NVMe by peer-to-peer DMA";
        assert_eq!(report((0, 0), &[Flag::CU_FILE_NVME_P2P_SUPPORTED]), peer);
        let compat = "cuFile (libcufile.so.0), in compat mode: data goes through host memory";
        assert_eq!(report((0, 0), &[]), compat);
        assert_eq!(report((2, 17), &[]), compat, "a module that serves nothing");
    }

    #[test]
    fn what_a_call_returns_is_a_count_an_errno_or_a_code_of_cufile() {
        assert_eq!(moved("cuFileRead", 4096).expect("a count"), 4096);
        let code = moved("cuFileRead", -5030).expect_err("a code");
        assert_eq!(code.to_string(), "cuFileRead: CU_FILE_INTERNAL_ERROR");
        let unknown = moved("cuFileRead", -5999).expect_err("a code of a later version");
        assert_eq!(unknown.to_string(), "cuFileRead: cuFile error 5999");
        let errno = moved("cuFileRead", -(libc::EIO as isize)).expect_err("an errno");
        assert_eq!(errno.raw_os_error(), Some(libc::EIO));
    }
}
