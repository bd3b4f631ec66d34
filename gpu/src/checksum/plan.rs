//! What the kernel is told: which memory is whose block, and its constants (`crc32c.cu` says what for).
//!
//! 1. An extent is cut into blocks of [`BLOCK_BYTES`], one a warp.
//! 2. A block's remainder is shifted by what follows it in its extent. The last one is computed as if zeros filled its
//!    last row up, and is shifted back by those.
//! 3. What the kernel has summed up of an extent becomes its CRC ([`super::finish`]).

use super::remainder::{ONE, multiplied, power};

/// One warp's work: 256 rows, so that what is done once a block costs a twentieth of what is done each row. A page of
/// the tier has 16, a gibibyte as many as an H200 has warps twice over.
pub(super) const BLOCK_BYTES: u64 = 128 << 10;
/// What a warp loads at once.
const ROW_BYTES: u64 = 512;
const LANES: i64 = 32;
/// Bits of a row.
const ROW_BITS: i64 = 8 * ROW_BYTES as i64;
/// Bits of a lane's part of a row.
const LANE_BITS: i64 = ROW_BITS / LANES;
/// Where the kernel's entries begin in a word that is looked up.
const ENTRY_SHIFT: u32 = 7;
/// Where an extent has to begin: loads are of 16 bytes.
pub(super) const ALIGN_BYTES: u64 = 16;

/// In how many bits a time the kernel looks a word up; the fewer, the less shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digits {
    /// 128 KiB of shared memory, 4 lookups a word.
    Bytes,
    /// 16 KiB, 8 lookups.
    Nibbles,
}

impl Digits {
    /// Bits of a digit.
    pub fn bits(self) -> u32 {
        match self {
            Digits::Bytes => 8,
            Digits::Nibbles => 4,
        }
    }

    /// Bytes of shared memory that a block of threads needs: for each lane its own tables.
    pub fn shared_bytes(self) -> u32 {
        (u32::BITS / self.bits()) * (1 << self.bits()) * LANES as u32 * 4
    }

    /// The kernel's constants: of each digit and each of its values the product by `x^4096`; then each lane's place.
    pub fn constants(self) -> Vec<u32> {
        let bits = self.bits();
        let row = power(ROW_BITS);
        let digits = (0..u32::BITS).step_by(bits as usize);
        let products = digits.flat_map(|digit| {
            (0..1_u32 << bits).map(move |value| multiplied((value << ENTRY_SHIFT).rotate_left(digit), row))
        });
        let places = (0..LANES).map(|lane| power(LANE_BITS * (LANES - 1 - lane) + 32));
        products.chain(places).collect()
    }
}

/// `Block` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Address.
    pub start: u64,
    /// At most 128 KiB.
    pub bytes: u32,
    /// What its remainder is multiplied by.
    pub shift: u32,
    /// The number of its extent.
    pub page: u32,
}

impl Block {
    /// What it takes in the kernel's memory.
    pub const BYTES: usize = 24;

    /// As it is in the kernel's memory.
    pub fn to_bytes(self) -> [u8; Block::BYTES] {
        let mut bytes = [0; Block::BYTES];
        bytes[..8].copy_from_slice(&self.start.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.bytes.to_ne_bytes());
        bytes[12..16].copy_from_slice(&self.shift.to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.page.to_ne_bytes());
        bytes
    }
}

/// Cuts extents into blocks.
#[derive(Debug)]
pub struct Cutter {
    /// By how many whole blocks follow: the shift by those.
    shifts: Vec<u32>,
}

impl Default for Cutter {
    fn default() -> Cutter {
        Cutter { shifts: vec![ONE] }
    }
}

impl Cutter {
    /// Adds the blocks of `bytes` bytes at `start`, the extent of number `page`, to `blocks`.
    pub fn cut(&mut self, start: u64, bytes: u64, page: u32, blocks: &mut Vec<Block>) {
        let (whole, left) = (bytes / BLOCK_BYTES, bytes % BLOCK_BYTES);
        while (self.shifts.len() as u64) < whole {
            let next = multiplied(self.shifts[self.shifts.len() - 1], power(8 * BLOCK_BYTES as i64));
            self.shifts.push(next);
        }
        let by_rest = if left == 0 { ONE } else { power(8 * left as i64) };
        for number in 0..whole {
            let shift = self.shifts[(whole - 1 - number) as usize];
            let shift = if left == 0 { shift } else { multiplied(shift, by_rest) };
            blocks.push(Block {
                start: start + number * BLOCK_BYTES,
                bytes: BLOCK_BYTES as u32,
                shift,
                page,
            });
        }
        if left > 0 {
            let missing = left.next_multiple_of(ROW_BYTES) - left;
            let shift = power(-8 * missing as i64);
            blocks.push(Block { start: start + whole * BLOCK_BYTES, bytes: left as u32, shift, page });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::finish;

    /// As the kernel does it: with zeros behind, up to a whole row.
    fn remainder(block: &Block, bytes: &[u8]) -> u32 {
        let mut row = bytes[block.start as usize..][..block.bytes as usize].to_vec();
        row.resize(row.len().next_multiple_of(ROW_BYTES as usize), 0);
        multiplied(!crc32c::crc32c_append(u32::MAX, &row), block.shift)
    }

    #[test]
    fn blocks_add_up_to_the_checksum_of_all() {
        let bytes: Vec<u8> = (0..3 * BLOCK_BYTES + 5000).map(|at| (at * at / 11 + at / 300) as u8).collect();
        let mut cutter = Cutter::default();
        for length in [0, 1, 511, 512, 513, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, bytes.len() as u64]
        {
            let mut blocks = Vec::new();
            cutter.cut(0, length, 7, &mut blocks);
            assert_eq!(blocks.len() as u64, length.div_ceil(BLOCK_BYTES));
            assert!(blocks.iter().all(|block| block.page == 7));
            let sum = blocks.iter().fold(0, |sum, block| sum ^ remainder(block, &bytes));
            assert_eq!(finish(sum, length), crc32c::crc32c(&bytes[..length as usize]), "{length} bytes");
        }
    }

    #[test]
    fn tables_hold_what_the_kernel_looks_up() {
        for digits in [Digits::Bytes, Digits::Nibbles] {
            let constants = digits.constants();
            let (bits, values) = (digits.bits(), 1_usize << digits.bits());
            let tables = (u32::BITS / bits) as usize;
            assert_eq!(constants.len(), tables * values + 32);
            assert_eq!(digits.shared_bytes() as usize, tables * values * 32 * 4);
            for word in [0x8000_0000, 1, 0x1234_5678, u32::MAX] {
                let looked_up = (0..tables).fold(0, |sum, digit| {
                    let value = word_digit(word, digit as u32 * bits, values);
                    sum ^ constants[digit * values + value]
                });
                assert_eq!(looked_up, multiplied(word, power(4096)), "{word:#x} by {bits} bits");
            }
        }
    }

    fn word_digit(word: u32, rotated: u32, values: usize) -> usize {
        (word.rotate_right(rotated) >> 7) as usize & (values - 1)
    }
}
