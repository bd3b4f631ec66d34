//! Bytes to write and to find again, and the one unsafe call the tests need.

use anyhow::Result;
use memmap2::MmapMut;
use std::fs::File;

/// `length` bytes that look random and are the same for the same `seed`.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    // xorshift64*; a seed of 0 would stay 0.
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A shared writable mapping of the whole file.
#[allow(unsafe_code)]
pub fn map_shared(file: &File) -> Result<MmapMut> {
    // SAFETY: the file belongs to this test alone, which neither shrinks it nor holds references into the mapping
    // while other descriptors write to it.
    Ok(unsafe { MmapMut::map_mut(file)? })
}
