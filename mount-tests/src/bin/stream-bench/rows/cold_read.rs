//! The row about sealed segments: a group reads from the disk what was written before the last mount.

use super::{Figures, gb_per_second, timed};
use crate::bench::Bench;
use crate::ours::open_append;
use crate::records::log_text;
use aimss_measure::pairs::alternate;
use aimss_measure::report::{Bar, Outcome};
use anyhow::{Result, ensure};
use std::fs::{self, File};
use std::io::{Read, Write};

const BYTES: u64 = 1 << 30;
/// Made once and repeated: far beyond what LZ4 looks back.
const TEXT_BYTES: usize = 64 << 20;
const BLOCK_BYTES: usize = 256 << 10;
const READ_BYTES: usize = 1 << 20;
const SEED: u64 = 7;

/// `cold-read`.
pub fn run(bench: &mut Bench) -> Result<Figures> {
    let text = log_text(SEED, TEXT_BYTES);
    let rounds = (bench.scaled(BYTES) as usize).div_ceil(text.len()).max(1);
    let bytes = (rounds * text.len()) as u64;
    let blocks: Vec<Vec<u8>> = text.chunks(BLOCK_BYTES).map(lz4_flex::block::compress).collect();
    let compression = text.len() as f64 / blocks.iter().map(Vec::len).sum::<usize>() as f64;
    let conditions = format!(
        "{} MiB of log lines (seed {SEED}) that LZ4 makes {compression:.1} times smaller; drained, \
         unmounted, mounted; 1 MiB reads by a new group to its +eof; {}; theirs: the same bytes in blocks of \
         256 KiB, decompress_into (safe decode) one buffer, one thread",
        bytes >> 20,
        if bench.drop_caches { "caches dropped" } else { "the disk's page cache as it is" }
    );
    let bar = Bar::AtLeast(0.8);
    let Some(backing) = bench.ours.backing().map(ToOwned::to_owned) else {
        let outcomes = vec![Outcome::skipped(bar, "give --backing DIR")];
        return Ok(Figures { outcomes, conditions });
    };

    let stream = bench.ours.at("cold.stream");
    let mut file = open_append(&stream)?;
    for _ in 0..rounds {
        for block in lines_of(&text) {
            file.write_all(block)?;
        }
    }
    drop(file);
    bench.ours.drain()?;

    let (pairs, drop_caches, ours) = (bench.pairs, bench.drop_caches, &mut bench.ours);
    let mut number = 0;
    let mut buffer = vec![0; READ_BYTES];
    let read = || {
        number += 1;
        ours.umount()?;
        if drop_caches {
            fs::write("/proc/sys/vm/drop_caches", "3")?;
        }
        ours.mount(&backing)?;
        let group = ours.group(&stream, &format!("cold-{number}"), true);
        let mut total = 0;
        let time = timed(READ_BYTES as u64, || {
            let mut file = File::open(&group)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    got => total += got as u64,
                }
            }
        })?;
        ensure!(total == bytes, "{} gave {total} bytes instead of {bytes}", group.display());
        Ok(gb_per_second(bytes, time))
    };
    let mut block = vec![0; BLOCK_BYTES];
    let decompress = || {
        let time = timed(BLOCK_BYTES as u64, || {
            for compressed in (0..rounds).flat_map(|_| &blocks) {
                std::hint::black_box(lz4_flex::block::decompress_into(compressed, &mut block)?);
            }
            Ok(())
        })?;
        Ok(gb_per_second(bytes, time))
    };
    let medians = alternate(pairs, read, decompress)?;
    crate::bench::remove(&stream)?;
    let outcomes = vec![Outcome::against("lz4_flex", "GB/s", medians, bar)];
    Ok(Figures { outcomes, conditions })
}

/// `text` in pieces of at most 1 MiB that end with a line.
pub fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let most = &rest[..rest.len().min(READ_BYTES)];
        let end = most.iter().rposition(|byte| *byte == b'\n')? + 1;
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn pieces_end_with_a_line_and_are_all() {
        let text = crate::records::log_text(1, 3 << 20);
        let pieces: Vec<&[u8]> = super::lines_of(&text).collect();
        assert!(pieces.iter().all(|piece| piece.ends_with(b"\n") && piece.len() <= super::READ_BYTES));
        assert_eq!(pieces.concat(), text);
    }
}
