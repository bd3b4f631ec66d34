//! On stand-ins for NVIDIA's libraries (`examples/`): what runs on a GPU where there is one, and what no GPU does when
//! asked to: fail.

mod support;

use aimss_engine::device::{Device, Slab};
use aimss_gpu::cuda::CudaDevice;
use aimss_gpu::cufile::{self, Route};
use aimss_gpu::{Unavailable, Which, check, choose, probe};
use std::io;
use support::{BOTH, CUDA, left, stands_in};

const ONE: (&str, &str) = ("STAND_IN_MEMORY", "16777216");
const TWO: (&str, &str) = ("STAND_IN_MEMORY", "16777216,33554432");

#[test]
fn a_device_does_what_one_must_and_gives_back_all() {
    if stands_in("a_device_does_what_one_must_and_gives_back_all", &CUDA, &[ONE]) {
        let device = CudaDevice::open(0).expect("it is there");
        assert_eq!(device.name(), "Stand-in (GPU 0)");
        assert!(!device.is_simulated());
        support::content_comes_back(&device);
        support::nothing_beyond_a_slab_is_reached(&device);
        support::more_than_there_is_is_refused_and_leaves_the_device_usable(&device);
        support::threads_copy_at_the_same_time(&device);
        let slab = device.allocate(1 << 20).expect("there is room");
        let memory = device.memory().expect("it tells");
        assert_eq!((memory.total, memory.free), (16 << 20, 15 << 20));
        let mut buffer = device.buffer(4096).expect("there is room");
        drop(device);
        // After the device, on threads that never had the context.
        let thread = std::thread::spawn(move || {
            slab.put(0, buffer.bytes()).expect("a slab outlives its device");
            (slab, buffer)
        });
        let (slab, buffer) = thread.join().expect("no panic");
        std::thread::spawn(move || drop(buffer)).join().expect("no panic");
        std::thread::spawn(move || drop(slab)).join().expect("no panic");
        assert_eq!(left(), 0);
    }
}

#[test]
fn the_gpu_with_the_most_free_memory_is_chosen() {
    if stands_in("the_gpu_with_the_most_free_memory_is_chosen", &CUDA, &[TWO]) {
        assert_eq!(choose(Which::MostFree, 1 << 20), Ok(1));
        let device = CudaDevice::open(1).expect("it is there");
        let slab = device.allocate(24 << 20).expect("there is room");
        assert_eq!(choose(Which::MostFree, 1 << 20), Ok(0), "free, not all");
        assert_eq!(choose(Which::MostFree, 20 << 20), Ok(1), "the only one that is large enough");
        assert_eq!(choose(Which::Index(1), 1 << 20), Ok(1));
        let missing = Unavailable::NoSuchGpu { index: 2, count: 2 };
        assert_eq!(check(Which::Index(2), 1), Err(missing.clone()));
        assert_eq!(CudaDevice::open(2).err(), Some(missing));
        assert!(matches!(check(Which::MostFree, 64 << 20), Err(Unavailable::TooSmall { .. })));
        drop((slab, device));
        assert_eq!(left(), 0, "choosing leaves no context");
    }
}

#[test]
fn checking_makes_no_context() {
    let fails = ("STAND_IN_FAILS", "cuDevicePrimaryCtxRetain=2");
    if stands_in("checking_makes_no_context", &CUDA, &[TWO, fails]) {
        assert_eq!(check(Which::MostFree, 1 << 20), Ok(()));
        assert_eq!(check(Which::Index(1), 1 << 20), Ok(()));
        let full = "GPU 1 can't be used: cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY (out of memory)";
        assert_eq!(choose(Which::MostFree, 0).expect_err("none can be used").to_string(), full);
        assert_eq!(CudaDevice::open(1).expect_err("it can't be used").to_string(), full);
        assert!(probe().lines().iter().any(|line| line.ends_with("(out of memory)")));
    }
}

#[test]
fn a_driver_that_does_not_start_says_why() {
    if stands_in("a_driver_that_does_not_start_says_why", &CUDA, &[ONE, ("STAND_IN_FAILS", "cuInit=803")]) {
        let sentence = "the NVIDIA driver doesn't start: cuInit: CUDA error 803";
        assert_eq!(check(Which::MostFree, 0).expect_err("it doesn't").to_string(), sentence);
    }
}

#[test]
fn a_driver_without_a_gpu_is_told_from_none() {
    let fails = [("STAND_IN_FAILS", "cuInit=100")];
    if stands_in("a_driver_without_a_gpu_is_told_from_none", &CUDA, &fails) {
        assert_eq!(check(Which::Index(0), 0), Err(Unavailable::NoGpu));
        assert_eq!(probe().cuda, Err(Unavailable::NoGpu));
    }
}

#[test]
fn a_driver_that_shows_no_gpu_has_none() {
    if stands_in("a_driver_that_shows_no_gpu_has_none", &BOTH, &[]) {
        assert_eq!(check(Which::Index(0), 0), Err(Unavailable::NoGpu));
        assert_eq!(choose(Which::MostFree, 0), Err(Unavailable::NoGpu));
        let lines = probe().lines().join("\n");
        assert!(lines.contains("cuFile is here (libcufile.so.0); not used"), "{lines}");
    }
}

#[test]
fn a_library_that_lacks_a_function_is_too_old() {
    let swapped = [("libcuda.so.1", "cufile_stand_in"), ("libcufile.so.0", "cuda_stand_in")];
    if stands_in("a_library_that_lacks_a_function_is_too_old", &swapped, &[]) {
        let sentence = "the NVIDIA driver is too old: its library has no cuInit";
        assert_eq!(check(Which::MostFree, 0).expect_err("it lacks all").to_string(), sentence);
        let sentence = "cuFile (libcufile.so.0) is too old: it has no cuFileDriverOpen";
        assert_eq!(cufile::report().expect_err("it lacks all").to_string(), sentence);
    }
}

#[test]
fn a_library_that_is_no_library_is_no_driver() {
    let none = [];
    if stands_in("a_library_that_is_no_library_is_no_driver", &none, &[]) {
        let directory = std::env::var_os("LD_LIBRARY_PATH").expect("it was set");
        let path = std::path::Path::new(&directory).join("libcuda.so.1");
        std::fs::write(path, "not one").expect("it can be written");
        let reason = check(Which::MostFree, 0).expect_err("it can't be loaded").to_string();
        assert!(
            reason.starts_with("no NVIDIA driver is here that can be loaded (")
                && reason.contains("too short")
        );
    }
}

#[test]
fn a_copy_that_fails_is_an_error() {
    let fails = ("STAND_IN_FAILS", "cuMemcpyHtoDAsync_v2=719");
    if stands_in("a_copy_that_fails_is_an_error", &CUDA, &[ONE, fails]) {
        let slab = CudaDevice::open(0).expect("it is there").slab(4096).expect("there is room");
        let failed = slab.put(0, &[1; 4096]).expect_err("it fails");
        let sentence = "cuMemcpyHtoDAsync: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)";
        assert_eq!((failed.kind(), failed.to_string()), (io::ErrorKind::Other, sentence.into()));
        slab.get(0, &mut [0; 4096]).expect("the other way works");
        drop(slab);
        assert_eq!(left(), 0);
    }
}

#[test]
fn what_can_not_be_given_back_is_no_panic() {
    let fails = "cuMemFree_v2=719,cuMemFreeHost=719,cuStreamDestroy_v2=719,cuStreamSynchronize=719,\
                 cuDevicePrimaryCtxRelease_v2=719";
    if stands_in("what_can_not_be_given_back_is_no_panic", &CUDA, &[ONE, ("STAND_IN_FAILS", fails)]) {
        let device = CudaDevice::open(0).expect("it is there");
        let slab = device.allocate(4096).expect("there is room");
        drop(device.buffer(4096).expect("there is room"));
        assert!(slab.put(0, &[1; 4096]).is_err(), "waiting fails");
        drop((slab, device));
        assert!(left() > 0);
    }
}

#[test]
fn cufile_moves_between_files_and_the_device() {
    let settings = [ONE, ("STAND_IN_NVIDIA_FS", "2.17")];
    if stands_in("cufile_moves_between_files_and_the_device", &BOTH, &settings) {
        let device = CudaDevice::open(0).expect("it is there");
        support::a_file_is_written_from_and_read_to_the_device(&device);
        let report = cufile::report().expect("it is here").to_string();
        assert_eq!(report, "cuFile (libcufile.so.0), direct by nvidia-fs 2.17 for NVMe, NFS");
        assert!(probe().lines().contains(&report));
        assert!(cufile::driver().expect("it is here").route().is_direct());
    }
}

#[test]
fn a_file_that_cufile_does_not_take_is_its_own_error() {
    let settings = [ONE, ("STAND_IN_FAILS", "cuFileHandleRegister=5008")];
    if stands_in("a_file_that_cufile_does_not_take_is_its_own_error", &BOTH, &settings) {
        let Some((file, path)) = support::direct_file() else { return };
        let cufile = cufile::driver().expect("it is here");
        assert_eq!(*cufile.route(), Route::Compat);
        let refused = cufile.register(file).expect_err("it doesn't take it");
        assert_eq!(refused.to_string(), "cuFileHandleRegister: CU_FILE_IO_NOT_SUPPORTED");
        let _ = std::fs::remove_file(path);
    }
}

#[test]
fn a_cufile_that_does_not_start_says_why() {
    let settings = [ONE, ("STAND_IN_FAILS", "cuFileDriverOpen=5010")];
    if stands_in("a_cufile_that_does_not_start_says_why", &BOTH, &settings) {
        let sentence = "cuFile (libcufile.so.0) doesn't start: cuFileDriverOpen: CU_FILE_NVFS_DRIVER_ERROR";
        assert_eq!(cufile::driver().expect_err("it doesn't").to_string(), sentence);
        assert_eq!(probe().cuda, Ok((12, 8)), "the GPU is used all the same");
    }
}
