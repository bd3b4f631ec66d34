//! The programs that are timed: plain calls of the standard library on a path, the same for both sides.
//! Buffers are made and touched by the caller, so that no allocation is timed.

use anyhow::{Result, ensure};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Size of the small files.
pub const SMALL: usize = 4096;

/// A buffer of `length` bytes that isn't all zeros.
pub fn buffer(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

/// Opens `path` as a shell's `>` does and writes `bytes` in blocks of `block`.
pub fn write(path: &Path, bytes: u64, block: &[u8]) -> Result<()> {
    let mut file = File::create(path)?;
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(block)?;
    }
    Ok(())
}

/// Writes `bytes` over what the existing file `path` holds, in blocks of `block`: the memory behind it is hot.
pub fn overwrite(path: &Path, bytes: u64, block: &[u8]) -> Result<()> {
    let mut file = File::options().write(true).open(path)?;
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(block)?;
    }
    Ok(())
}

/// Reads `path` to its end in blocks of `buffer`; fails unless it has `bytes`.
pub fn read(path: &Path, bytes: u64, buffer: &mut [u8]) -> Result<()> {
    let mut file = File::open(path)?;
    let mut total = 0;
    loop {
        let got = file.read(buffer)? as u64;
        if got == 0 {
            ensure!(total == bytes, "{} has {total} bytes instead of {bytes}", crate::escape::path(path));
            return Ok(());
        }
        total += got;
    }
}

/// Appends `count` records to `path`, one write(2) each.
pub fn append(path: &Path, count: u64, record: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for _ in 0..count {
        file.write_all(record)?;
    }
    Ok(())
}

/// The names of `count` files in `dir`.
pub fn names(dir: &Path, count: u64) -> Vec<PathBuf> {
    (0..count).map(|number| dir.join(format!("file-{number:06}"))).collect()
}

/// Creates each file and writes `content` to it.
pub fn create(paths: &[PathBuf], content: &[u8]) -> Result<()> {
    for path in paths {
        File::create_new(path)?.write_all(content)?;
    }
    Ok(())
}

/// Makes `count` files with `content` in directories of 1,000 below `dir`; their paths.
pub fn create_tree(dir: &Path, count: u64, content: &[u8]) -> Result<Vec<PathBuf>> {
    const A_DIRECTORY: u64 = 1000;
    let mut all = Vec::new();
    for number in 0..count.div_ceil(A_DIRECTORY) {
        crate::interrupt::check()?;
        let below = dir.join(format!("dir-{number}"));
        fs::create_dir(&below)?;
        let paths = names(&below, A_DIRECTORY.min(count - number * A_DIRECTORY));
        create(&paths, content)?;
        all.extend(paths);
    }
    Ok(all)
}

/// Opens each file and reads its first 4 KiB.
pub fn open_and_read(paths: &[PathBuf]) -> Result<()> {
    let mut block = [0; SMALL];
    for path in paths {
        File::open(path)?.read_exact(&mut block)?;
    }
    Ok(())
}

/// Looks at each file, `rounds` times.
pub fn stat(paths: &[PathBuf], rounds: u64) -> Result<()> {
    for _ in 0..rounds {
        for path in paths {
            fs::symlink_metadata(path)?;
        }
    }
    Ok(())
}

/// Lists `dir`; fails unless it has `count` entries.
pub fn list(dir: &Path, count: u64) -> Result<()> {
    let mut seen = 0;
    for entry in fs::read_dir(dir)? {
        entry?;
        seen += 1;
    }
    ensure!(seen == count, "{} shows {seen} entries instead of {count}", crate::escape::path(dir));
    Ok(())
}

/// Runs an ordinary program, its output thrown away; fails if it does.
pub fn program(name: &str, arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let status =
        std::process::Command::new(name).args(arguments).stdout(std::process::Stdio::null()).status();
    let status = status.map_err(|error| anyhow::anyhow!("{name} can't be run ({error}); install it"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}
