//! Bytes to write and to find again, and the unsafe calls that tests need for it.

use anyhow::Result;
use memmap2::{Mmap, MmapMut};
use std::fs::File;

/// Bytes that look random and are the same for the same seed (xorshift64*).
#[derive(Debug, Clone)]
pub struct Pattern(u64);

impl Pattern {
    /// At its first byte.
    pub fn new(seed: u64) -> Self {
        // A state of 0 would stay 0.
        Pattern(seed.wrapping_mul(2).wrapping_add(1))
    }

    /// The next 8 bytes, as a number.
    pub fn next_number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// The next bytes. Of a last word that is not whole the rest is left out.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next_number().to_le_bytes()[..word.len()]);
        }
    }
}

/// The first `length` bytes of a seed's pattern.
pub fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

/// A shared writable mapping of the whole file.
#[allow(unsafe_code)]
pub fn map_shared(file: &File) -> Result<MmapMut> {
    // SAFETY: the file belongs to this test alone, which neither shrinks it nor holds references into the mapping
    // while other descriptors write to it.
    Ok(unsafe { MmapMut::map_mut(file)? })
}

/// A mapping of the whole file, for reading.
#[allow(unsafe_code)]
pub fn map(file: &File) -> Result<Mmap> {
    // SAFETY: the file belongs to this test alone, which does not cut it, nor overwrite what it has seen of it.
    Ok(unsafe { Mmap::map(file)? })
}
