//! On the GPU of this machine, where it has one.

mod support;

use aimss_gpu::checksum::Checksums;
use aimss_gpu::cuda::CudaDevice;
use aimss_gpu::{Which, check, choose, cufile};

/// The GPU, or why this test is skipped.
fn gpu() -> Option<CudaDevice> {
    let device = choose(Which::MostFree, 64 << 20).and_then(CudaDevice::open);
    device.inspect_err(|reason| support::skip(&reason.to_string())).ok()
}

#[test]
fn checking_choosing_and_opening_agree() {
    let asked = [Which::MostFree, Which::Index(0)].map(|which| (check(which, 0), choose(which, 0)));
    for (checked, chosen) in asked {
        assert_eq!(checked.clone().err(), chosen.clone().err());
        let opened = chosen.and_then(aimss_gpu::open);
        assert_eq!(opened.as_ref().err(), checked.as_ref().err());
        match checked {
            Ok(()) => assert!(opened.expect("as checked").name().contains("(GPU ")),
            Err(reason) => assert!(!reason.to_string().is_empty()),
        }
    }
}

#[test]
fn content_comes_back() {
    let Some(device) = gpu() else { return };
    support::content_comes_back(&device);
}

#[test]
fn nothing_beyond_a_slab_is_reached() {
    let Some(device) = gpu() else { return };
    support::nothing_beyond_a_slab_is_reached(&device);
}

#[test]
fn more_than_there_is_is_refused_and_leaves_the_device_usable() {
    let Some(device) = gpu() else { return };
    support::more_than_there_is_is_refused_and_leaves_the_device_usable(&device);
}

#[test]
fn threads_copy_at_the_same_time() {
    let Some(device) = gpu() else { return };
    support::threads_copy_at_the_same_time(&device);
}

#[test]
fn checksums_are_those_of_a_processor() {
    let Some(device) = gpu() else { return };
    match Checksums::open(&device) {
        Ok(checksums) => support::checksums_are_those_of_a_processor(&device, &checksums),
        Err(reason) => support::skip(&reason.to_string()),
    }
}

#[test]
fn a_file_is_written_from_and_read_to_the_device() {
    let Some(device) = gpu() else { return };
    match cufile::report() {
        Ok(_) => support::a_file_is_written_from_and_read_to_the_device(&device),
        Err(reason) => support::skip(&reason.to_string()),
    }
}
