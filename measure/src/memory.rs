//! Memory touched beforehand, and files summed through a mapping.

use anyhow::{Result, ensure};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fs::File;
use std::path::Path;

const PAGE: usize = 4096;

/// So many times what is asked for is touched. The kernel hands out the blocks that it likes best, not those
/// that were given back last: after a touch of 1.25 times the bytes a file of large pages was written at 3.4
/// to 4.5 GB/s, or at 0.5; after 2.5 and 4 times at 6.5 to 7.8.
const TOUCHED_TIMES: u64 = 3;

/// Takes memory for `bytes` from the system on huge pages, three times over, writes to every page, and gives
/// it back: whoever takes memory next gets pages that the host has.
pub fn touch(bytes: u64) -> Result<()> {
    let length = (bytes * TOUCHED_TIMES) as usize;
    if length == 0 {
        return Ok(());
    }
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new private mapping at an address the kernel chooses aliases nothing.
    let start =
        unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::PRIVATE)? };
    // SAFETY: the range is the mapping just made; advice doesn't change its content. Without huge pages
    // (refused here and there) the touch is only slower.
    let _ = unsafe { rustix::mm::madvise(start, length, Advice::LinuxHugepage) };
    for offset in (0..length).step_by(PAGE) {
        // SAFETY: `offset` is inside the mapping, which is writable and ours alone.
        unsafe { start.cast::<u8>().add(offset).write_volatile(1) };
    }
    // SAFETY: the mapping is ours, whole, and not used after this.
    unsafe { rustix::mm::munmap(start, length)? };
    Ok(())
}

/// Maps the file at `path` (whose length is a multiple of 8 and above 0) and sums its words.
pub fn sum(path: &Path) -> Result<u64> {
    let file = File::open(path)?;
    let length = file.metadata()?.len() as usize;
    ensure!(length > 0 && length.is_multiple_of(8), "{length} bytes are no number of words");
    let flags = MapFlags::SHARED;
    // SAFETY: a new read-only mapping at an address the kernel chooses. The file is a scratch file of ours
    // that nobody shortens while it is mapped.
    let start = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, ProtFlags::READ, flags, &file, 0)? };
    // SAFETY: the mapping has `length` readable bytes, is aligned to a page, lives until the munmap below,
    // and nobody writes to the file meanwhile.
    let words = unsafe { std::slice::from_raw_parts(start.cast::<u64>(), length / 8) };
    let sum = words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word));
    // SAFETY: the mapping is ours, whole, and `words` isn't used after this.
    unsafe { rustix::mm::munmap(start, length)? };
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_summed_by_words() {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        let words: Vec<u8> = [1_u64, 2, u64::MAX].iter().flat_map(|word| word.to_ne_bytes()).collect();
        std::fs::write(file.path(), words).expect("it is ours");
        assert_eq!(sum(file.path()).expect("it can be mapped"), 2);
    }

    #[test]
    fn touching_leaves_nothing_mapped() {
        touch(8 << 20).expect("there is memory for it");
        touch(0).expect("nothing to do");
    }
}
