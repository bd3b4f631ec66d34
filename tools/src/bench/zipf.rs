//! Readers that open some files far more often than others: the trace (a) of the engine's example
//! `cache_policies`, so that what policies make of it can be set beside what a mount does.

use crate::bench::work;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Bytes of a file: an image of a training set, about.
pub const FILE_BYTES: u64 = 100 << 10;
const EXPONENT: f64 = 0.9;
const SEED: u64 = 1;

/// The path of a file below `directory`.
pub fn path(directory: &Path, number: u64) -> PathBuf {
    directory.join(format!("{:03}/object-{number:06}", number / 100))
}

/// Reads `opens` of `files` whole; the longest of them.
pub fn read(directory: &Path, files: u64, reader: u64, opens: u64) -> Result<Duration> {
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=files)
        .map(|rank| {
            total += (rank as f64).powf(-EXPONENT);
            total
        })
        .collect();
    let mut random = Random(mix(SEED + reader));
    let (mut buffer, mut longest) = (vec![0; FILE_BYTES as usize + 1], Duration::ZERO);
    for _ in 0..opens {
        let at = random.fraction() * total;
        let rank = cumulative.partition_point(|up_to| *up_to <= at).min(cumulative.len() - 1);
        let start = Instant::now();
        work::read(&path(directory, rank as u64), FILE_BYTES, &mut buffer)?;
        longest = longest.max(start.elapsed());
    }
    Ok(longest)
}

/// SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).
struct Random(u64);

impl Random {
    /// From 0 up to, not including, 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mix(self.0) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The generator's finalizer.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
