//! The row about a group that reads what was just written.

use super::{Figures, gb_per_second, timed};
use crate::bench::{Bench, remove};
use crate::ours::open_append;
use crate::records;
use aimss_measure::pairs::alternate;
use aimss_measure::report::{Bar, Outcome};
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const BYTES: u64 = 4 << 30;
const BLOCK_BYTES: usize = 1 << 20;
const RECORDS: [usize; 2] = [1024, 100];
/// Touched before writing. More would not leave the machine the room for what is written.
const TOUCHED_BYTES_MAX: u64 = 1 << 30;

/// `hot-read`.
pub fn run(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let mut outcomes = Vec::new();
    for length in RECORDS {
        let (stream, plain) = (bench.ours.at("hot.stream"), bench.ours.at("hot.bytes"));
        let block = records::lines(length, BLOCK_BYTES);
        let bytes = bench.scaled(BYTES) / block.len() as u64 * block.len() as u64;
        write(&plain, &block, bytes)?;
        write(&stream, &block, bytes)?;
        let mut buffer = vec![0; BLOCK_BYTES];
        // Once beforehand: hot.
        read(&plain, bytes, &mut buffer)?;
        let mut number = 0;
        let mut group_buffer = buffer.clone();
        let mut group = || {
            number += 1;
            read(&bench.ours.group(&stream, &format!("hot-{number}"), true), bytes, &mut group_buffer)
        };
        let medians = alternate(bench.pairs, &mut group, || read(&plain, bytes, &mut buffer))?;
        let case = format!("{length}B");
        outcomes.push(Outcome::against("a file", "GB/s", medians, Bar::AtLeast(0.5)).case(&case));
        let medians = alternate(bench.pairs, &mut group, || read(&stream, bytes, &mut buffer))?;
        outcomes.push(Outcome::against("view", "GB/s", medians, Bar::Stated).case(case));
        remove(&plain)?;
        remove(&stream)?;
    }
    let conditions = format!(
        "{} MiB written in 1 MiB writes, then read in 1 MiB reads by a new group to its +eof; theirs: the \
         same bytes in a plain file of the mount, read once before, and the stream read as a file",
        bench.scaled(BYTES) >> 20
    );
    Ok(Figures { outcomes, conditions })
}

fn write(path: &Path, block: &[u8], bytes: u64) -> Result<()> {
    aimss_measure::memory::touch(bytes.min(TOUCHED_BYTES_MAX))?;
    let mut file = open_append(path)?;
    for _ in 0..bytes / block.len() as u64 {
        file.write_all(block)?;
    }
    Ok(())
}

/// The rate of reading `path` to its end; fails unless it has `bytes`.
fn read(path: &Path, bytes: u64, buffer: &mut [u8]) -> Result<f64> {
    let time = timed(0, || {
        let mut file = File::open(path).with_context(|| format!("{} can't be read", path.display()))?;
        let mut total = 0;
        loop {
            match file.read(buffer)? {
                0 => break,
                got => total += got as u64,
            }
        }
        ensure!(total == bytes, "{} has {total} bytes instead of {bytes}", path.display());
        Ok(())
    })?;
    Ok(gb_per_second(bytes, time))
}
