//! What a GPU must do, whichever stands behind the device; and the stand-ins for NVIDIA's libraries.

// Each test takes a part.
#![allow(dead_code)]

use aimss_engine::device::{Device, Extent, Slab};
use aimss_gpu::checksum::Checksums;
use aimss_gpu::cuda::CudaDevice;
use aimss_gpu::cufile::{self, ALIGN_BYTES};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

const SKIPPED: &str = "skipped (allowed): ";

/// Says why a test doesn't run, past the test harness. Also where nothing may be skipped: no machine can be asked to
/// have a GPU, and the stand-ins do the same where there is none.
pub fn skip(reason: &str) {
    say(&format!("{SKIPPED}{reason}"));
}

pub fn say(line: &str) {
    // In one piece: tests run side by side.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Libraries of which the stand-ins act, by the name under which the loader looks for them.
pub const CUDA: [(&str, &str); 1] = [("libcuda.so.1", "cuda_stand_in")];
pub const CHECKS: [(&str, &str); 3] =
    [CUDA[0], ("libnvrtc.so.13", "nvrtc_stand_in"), ("libnvidia-ml.so.1", "nvml_stand_in")];
pub const BOTH: [(&str, &str); 2] = [CUDA[0], ("libcufile.so.0", "cufile_stand_in")];

/// Whether this is the process that has the stand-ins. In the one that has not, the test runs again in a process that
/// has: the loader learns where to look from a process' first environment, and a process loads CUDA once.
pub fn stands_in(test: &str, libraries: &[(&str, &str)], settings: &[(&str, &str)]) -> bool {
    const MARK: &str = "STAND_IN";
    if std::env::var_os(MARK).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("the test's own");
    let built = program.parent().and_then(Path::parent).expect("in deps").join("examples");
    let directory = tempfile::tempdir().expect("a directory");
    for (name, stand_in) in libraries {
        let library = built.join(format!("lib{stand_in}.so"));
        assert!(library.exists(), "{} is built by `cargo test` without `--test`", library.display());
        symlink(library, directory.path().join(name)).expect("a link");
    }
    let ran = Command::new(program)
        .args(["--exact", test, "--nocapture"])
        .env("LD_LIBRARY_PATH", directory.path())
        .env(MARK, "1")
        .envs(settings.iter().copied())
        .output()
        .expect("it starts");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    assert!(out.contains("1 passed"), "the test is named {test}: {out}{err}");
    err.lines().filter(|line| line.starts_with(SKIPPED)).for_each(say);
    false
}

/// What the stand-in for CUDA was not given back.
pub fn left() -> u64 {
    // SAFETY: the stand-in, whose function has this type.
    unsafe {
        let library = libloading::Library::new("libcuda.so.1").expect("it is loaded");
        library.get::<extern "C" fn() -> u64>("stand_in_left").expect("a stand-in")()
    }
}

fn content(bytes: usize, seed: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251 + seed * 7) as u8).collect()
}

pub fn content_comes_back(device: &CudaDevice) {
    const BYTES: usize = 1 << 20;
    let slab = device.allocate(BYTES as u64).expect("there is room");
    let mut buffer = device.buffer(BYTES / 2).expect("there is room on the host");
    assert_eq!(buffer.bytes(), vec![0; BYTES / 2], "a buffer begins empty");
    buffer.bytes().copy_from_slice(&content(BYTES / 2, 1));
    slab.put(5, buffer.bytes()).expect("it takes it from a buffer");
    let mut back = vec![0; BYTES / 2];
    slab.get(5, &mut back).expect("it gives it");
    assert_eq!(back, content(BYTES / 2, 1));
    slab.put((BYTES / 2) as u64, &content(BYTES / 2, 2)).expect("it takes it from anywhere");
    slab.get((BYTES / 2) as u64, buffer.bytes()).expect("it gives it to a buffer");
    assert_eq!(buffer.bytes(), content(BYTES / 2, 2));
}

pub fn checksums_are_those_of_a_processor(device: &CudaDevice, checksums: &Checksums) {
    const BYTES: usize = 3 << 20;
    let content = content(BYTES, 5);
    let slab: Arc<dyn Slab> = Arc::new(device.slab(BYTES as u64).expect("there is room"));
    slab.put(0, &content).expect("it takes it");
    let lengths = [0, 1, 15, 16, 511, 512, 513, 131_071, 131_072, 131_073, 1 << 20, 1_234_567, (2 << 20) + 5];
    let ranges = lengths.iter().flat_map(|length| [0, 16, 4096, 65_536].map(|at| (at, *length)));
    let extents: Vec<_> =
        ranges.map(|(at, bytes)| Extent { slab: slab.clone(), at, bytes: bytes as u64 }).collect();
    let of = |extent: &Extent| crc32c::crc32c(&content[extent.at as usize..][..extent.bytes as usize]);
    let expected: Vec<_> = extents.iter().map(of).collect();
    assert_eq!(checksums.of(&extents).expect("they are there"), expected);
    // More than one launch has.
    let many = vec![extents[1].clone(); 40_000];
    assert_eq!(checksums.of(&many).expect("they are there"), vec![expected[1]; 40_000]);
    assert_eq!(checksums.of(&[]).expect("nothing"), []);
    for (at, bytes) in [(1, 15), (16, BYTES as u64 - 15), (u64::MAX - 15, 32), (0, 1 << 40)] {
        let refused = checksums.of(&[Extent { slab: slab.clone(), at, bytes }]).expect_err("not there");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{bytes} bytes at {at}");
    }
}

pub fn nothing_beyond_a_slab_is_reached(device: &CudaDevice) {
    let slab = device.allocate(4096).expect("there is room");
    let mut byte = [0];
    for at in [4096, u64::MAX] {
        let refused = slab.get(at, &mut byte).expect_err("beyond the end");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
        assert!(slab.put(at, &byte).is_err());
    }
    slab.put(4096, &[]).expect("nothing, at the end");
    slab.get(4096, &mut []).expect("nothing, at the end");
}

pub fn more_than_there_is_is_refused_and_leaves_the_device_usable(device: &CudaDevice) {
    let memory = device.memory().expect("it tells");
    let refused = device.allocate(memory.total + 1).expect_err("more than there is");
    assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory, "{refused}");
    content_comes_back(device);
    device.allocate(0).expect("nothing is always there");
    assert_eq!(device.buffer(0).expect("nothing is always there").bytes(), []);
}

pub fn threads_copy_at_the_same_time(device: &CudaDevice) {
    const BYTES: usize = 32 << 10;
    let slab = device.allocate(8 * BYTES as u64).expect("there is room");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let slab = &slab;
            scope.spawn(move || {
                let (at, mut back) = ((thread * BYTES) as u64, vec![0; BYTES]);
                for round in 0..20 {
                    slab.put(at, &content(BYTES, thread + round)).expect("it takes it");
                    slab.get(at, &mut back).expect("it gives it");
                    assert_eq!(back, content(BYTES, thread + round));
                }
            });
        }
    });
}

/// A new file in the tests' own directory, or none where it can't be open with O_DIRECT.
pub fn direct_file() -> Option<(File, PathBuf)> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let path = directory.join(format!("direct-{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    match options.custom_flags(libc::O_DIRECT).open(&path) {
        Ok(file) => Some((file, path)),
        Err(error) => {
            skip(&format!("no file of {} can be open with O_DIRECT: {error}", directory.display()));
            None
        }
    }
}

pub fn a_file_is_written_from_and_read_to_the_device(device: &CudaDevice) {
    const BYTES: usize = 200 << 10;
    let Some((file, path)) = direct_file() else { return };
    let cufile = cufile::driver().expect("it is here");
    let direct = cufile.register(file).expect("it takes the file");
    let slab = device.slab(1 << 20).expect("there is room");
    slab.put(8192, &content(BYTES, 3)).expect("it takes it");
    direct.write(&slab, 8192, BYTES as u64, 4096).expect("it writes");
    let written = std::fs::read(&path).expect("a file");
    assert!(written[..4096].iter().all(|byte| *byte == 0) && written[4096..] == content(BYTES, 3));

    // The file ends inside a block.
    let longer = content(3 * 4096 + 5, 4);
    std::fs::write(&path, &longer).expect("it can be written");
    let read = direct.read(&slab, 4096, BYTES as u64, 4096).expect("it reads");
    assert_eq!(read, 2 * 4096 + 5);
    let mut back = vec![0; read as usize];
    slab.get(4096, &mut back).expect("it gives it");
    assert_eq!(back, longer[4096..]);
    assert_eq!(direct.read(&slab, 0, ALIGN_BYTES, 1 << 20).expect("nothing is there"), 0);

    for (at, bytes, offset) in [(1, 4096, 0), (0, 4095, 0), (0, 4096, 512), (1 << 20, 4096, 0)] {
        let refused =
            direct.write(&slab, at, bytes, offset).expect_err("not whole blocks, or beyond the slab");
        assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    }
    let buffered = File::open(&path).expect("it is there");
    let refused = cufile.register(buffered).expect_err("without O_DIRECT");
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput, "{refused}");
    let _ = std::fs::remove_file(path);
}
