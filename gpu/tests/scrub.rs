//! Checks of a GPU's memory, on stand-ins for NVIDIA's libraries.

mod support;

use aimss_engine::device::{Device, Extent, Scrubber, Slab};
use aimss_gpu::checksum::Checksums;
use aimss_gpu::cuda::CudaDevice;
use aimss_gpu::{nvrtc, probe};
use std::sync::Arc;
use support::{CHECKS, CUDA, left, stands_in};

const ONE: (&str, &str) = ("STAND_IN_MEMORY", "16777216");

fn device() -> CudaDevice {
    CudaDevice::open(0).expect("it is there")
}

fn scrubber(device: &CudaDevice) -> Arc<dyn Scrubber> {
    device.scrubber().expect("all of it is there")
}

/// Why there are no checks.
fn reason() -> String {
    device().scrubber().expect_err("something is missing").to_string()
}

fn is_here(library: &str) -> bool {
    // SAFETY: NVIDIA's, if it is.
    unsafe { libloading::Library::new(library) }.is_ok()
}

/// From now on the GPU is so busy, in percent.
fn busy(percent: u32) {
    // SAFETY: the stand-in, whose function has this type.
    unsafe {
        let library = libloading::Library::new("libnvidia-ml.so.1").expect("it is loaded");
        library.get::<extern "C" fn(u32)>("stand_in_busy").expect("a stand-in")(percent);
    }
}

#[test]
fn checksums_are_taken_and_all_is_given_back() {
    if stands_in("checksums_are_taken_and_all_is_given_back", &CHECKS, &[ONE]) {
        let device = device();
        let checksums = Checksums::open(&device).expect("the kernel is ready");
        support::checksums_are_those_of_a_processor(&device, &checksums);
        drop(device);
        std::thread::spawn(move || drop(checksums)).join().expect("no panic");
        assert_eq!(left(), 0);
    }
}

#[test]
fn a_gpu_with_little_shared_memory_has_smaller_tables() {
    let settings = [ONE, ("STAND_IN_SHARED", "65536")];
    if stands_in("a_gpu_with_little_shared_memory_has_smaller_tables", &CHECKS, &settings) {
        let device = device();
        let checksums = Checksums::open(&device).expect("the kernel is ready");
        support::checksums_are_those_of_a_processor(&device, &checksums);
    }
}

#[test]
fn checks_go_on_while_nobody_else_has_use_for_the_gpu() {
    if stands_in("checks_go_on_while_nobody_else_has_use_for_the_gpu", &CHECKS, &[ONE]) {
        let device = device();
        let scrubber = scrubber(&device);
        busy(40);
        assert!(!scrubber.is_idle().expect("it tells"));
        busy(0);
        assert!(scrubber.is_idle().expect("it tells"));
        let slab: Arc<dyn Slab> = Arc::new(device.slab(1 << 20).expect("there is room"));
        slab.put(0, b"123456789").expect("it takes it");
        let extent = Extent { slab, at: 0, bytes: 9 };
        assert_eq!(scrubber.checksums(&[extent]).expect("it is there"), [0xe306_9283]);
        // Its turn is over at some time; then its own kernels have to go by before it asks again.
        let mut looks = 0;
        while scrubber.is_idle().expect("it tells") {
            std::thread::sleep(std::time::Duration::from_millis(5));
            looks += 1;
            assert!(looks < 1000, "a turn ends");
        }
        drop((device, scrubber));
    }
}

#[test]
fn without_nvml_nothing_is_checked() {
    if stands_in("without_nvml_nothing_is_checked", &CUDA, &[ONE]) {
        if is_here("libnvidia-ml.so.1") {
            return support::skip("this machine has an NVML");
        }
        let reason = reason();
        let sentence = "when the GPU is idle can't be told: no NVML is here that can be loaded (";
        assert!(reason.starts_with(sentence), "{reason}");
        assert_eq!(left(), 0);
    }
}

#[test]
fn a_gpu_without_utilisation_is_not_checked() {
    let settings = [ONE, ("STAND_IN_FAILS", "nvmlDeviceGetUtilizationRates=3")];
    if stands_in("a_gpu_without_utilisation_is_not_checked", &CHECKS, &settings) {
        let sentence = "when the GPU is idle can't be told: NVML doesn't tell: \
                        nvmlDeviceGetUtilizationRates: Not Supported";
        assert_eq!(reason(), sentence);
    }
}

#[test]
fn without_nvrtc_nothing_is_checked() {
    let here = [CHECKS[0], CHECKS[2]];
    if stands_in("without_nvrtc_nothing_is_checked", &here, &[ONE]) {
        if let Ok(library) = nvrtc::library() {
            return support::skip(&format!("this machine has an NVRTC, {library}"));
        }
        let reason = reason();
        let sentence = "the GPU takes no checksums: no NVRTC is here that can be loaded (";
        assert!(reason.starts_with(sentence), "{reason}");
        assert_eq!(left(), 0);
    }
}

#[test]
fn a_library_that_lacks_a_function_is_too_old() {
    let swapped = [CUDA[0], (CHECKS[1].0, "nvml_stand_in"), (CHECKS[2].0, "nvrtc_stand_in")];
    if stands_in("a_library_that_lacks_a_function_is_too_old", &swapped, &[ONE]) {
        let sentence = "when the GPU is idle can't be told: NVML is too old: it has no nvmlErrorString";
        assert_eq!(reason(), sentence);
        let reason = Checksums::open(&device()).expect_err("it lacks all").to_string();
        assert_eq!(reason, "NVRTC (libnvrtc.so.13) is too old: it has no nvrtcGetErrorString");
        let lines = probe().lines();
        assert!(
            lines.contains(&reason) && lines.contains(&sentence.replace("the GPU", "GPU 0")),
            "{lines:?}"
        );
    }
}

#[test]
fn probing_tells_how_busy_a_gpu_is() {
    if stands_in("probing_tells_how_busy_a_gpu_is", &CHECKS, &[ONE]) {
        // Which loads it for good.
        assert!(probe().can_tell_idle());
        busy(7);
        let lines = ["NVRTC (libnvrtc.so.13)", "GPU 0 was busy for 7% of the last second"];
        assert_eq!(probe().check_lines(), lines);
    }
}

#[test]
fn what_nvrtc_does_not_compile_is_told_with_its_words() {
    let settings = [ONE, ("STAND_IN_FAILS", "nvrtcCompileProgram=6")];
    if stands_in("what_nvrtc_does_not_compile_is_told_with_its_words", &CHECKS, &settings) {
        let sentence = "the GPU takes no checksums: NVRTC (libnvrtc.so.13) doesn't compile for this GPU: \
                        one line; another";
        assert_eq!(reason(), sentence);
    }
}

#[test]
fn a_kernel_that_a_gpu_does_not_take_is_no_failure() {
    let settings = [ONE, ("STAND_IN_FAILS", "cuModuleGetFunction=719")];
    if stands_in("a_kernel_that_a_gpu_does_not_take_is_no_failure", &CHECKS, &settings) {
        let sentence = "the GPU takes no checksums: the kernel can't be used: \
                        cuModuleGetFunction: CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)";
        assert_eq!(reason(), sentence);
        assert_eq!(left(), 0);
    }
}

#[test]
fn a_kernel_that_is_wrong_is_not_used() {
    let settings = [ONE, ("STAND_IN_WRONG", "1")];
    if stands_in("a_kernel_that_is_wrong_is_not_used", &CHECKS, &settings) {
        assert_eq!(reason(), "the GPU takes no checksums: the kernel's checksums are wrong");
        assert_eq!(left(), 0);
    }
}
