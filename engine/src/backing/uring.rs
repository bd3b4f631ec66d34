//! Large writes to a file with O_DIRECT through io_uring: several blocks in flight, no copy, no page cache.
//!
//! Measured on this project's machines: one block at a time leaves half of a disk's bandwidth unused; four blocks of
//! 1 MiB in flight reach what fio reaches. The source is a mapping of the arena, page aligned by nature.

use io_uring::{IoUring, opcode, types};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// Bytes a write. Larger ones gain nothing on NVMe and pin more memory.
const BLOCK_BYTES: u64 = 1 << 20;
/// Writes in flight. Four keep the devices we saw busy; eight leave room for slower ones.
const DEPTH: u32 = 8;
/// Alignment that O_DIRECT needs of offsets and lengths on any device in use.
pub(super) const ALIGN_BYTES: u64 = 4096;

/// Writes `ranges` of `from` to the same offsets of `to`, which was opened with O_DIRECT. Range starts are multiples
/// of [`ALIGN_BYTES`]; ends too, which may reach past the end of the file's content into its last page.
pub(super) fn write_direct(
    to: &File,
    from: &[u8],
    ranges: &[Range<u64>],
    written: &dyn Fn(u64),
) -> io::Result<()> {
    let mut ring = IoUring::new(DEPTH)?;
    let mut blocks = ranges.iter().flat_map(|r| {
        (r.start..r.end).step_by(BLOCK_BYTES as usize).map(|at| at..r.end.min(at + BLOCK_BYTES))
    });
    let mut in_flight = 0_u32;
    let mut failure = None;
    loop {
        while in_flight < DEPTH && failure.is_none() {
            let Some(block) = blocks.next() else { break };
            submit(&mut ring, to, from, block)?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return failure.map_or(Ok(()), Err);
        }
        ring.submit_and_wait(1)?;
        let completed: Vec<_> = ring.completion().map(|entry| (entry.user_data(), entry.result())).collect();
        for (block, result) in completed {
            in_flight -= 1;
            let block = unpack(block);
            let wanted = block.end - block.start;
            match result {
                error if error < 0 => failure = Some(io::Error::from_raw_os_error(-error)),
                0 if wanted > 0 => failure = Some(io::ErrorKind::WriteZero.into()),
                done if (done as u64) < wanted && failure.is_none() => {
                    // A short write, on a full device say: the rest again, from an aligned offset.
                    let rest = (block.start + done as u64) / ALIGN_BYTES * ALIGN_BYTES;
                    submit(&mut ring, to, from, rest..block.end)?;
                    in_flight += 1;
                }
                done => written(done as u64),
            }
        }
    }
}

fn submit(ring: &mut IoUring, to: &File, from: &[u8], block: Range<u64>) -> io::Result<()> {
    let source = &from[block.start as usize..block.end as usize];
    let entry = opcode::Write::new(types::Fd(to.as_raw_fd()), source.as_ptr(), source.len() as u32)
        .offset(block.start)
        .build()
        .user_data(pack(&block));
    // SAFETY: `source` lies in `from`, which outlives the ring's use here: `write_direct` leaves its loop only when
    // nothing is in flight. On an error of the ring itself writes may be under way; the kernel has pinned their pages.
    unsafe { ring.submission().push(&entry) }.map_err(|_| io::Error::other("io_uring's queue is full"))
}

/// A block in 64 bits: its first page and its length in pages.
fn pack(block: &Range<u64>) -> u64 {
    ((block.start / ALIGN_BYTES) << 16) | ((block.end - block.start) / ALIGN_BYTES)
}

fn unpack(packed: u64) -> Range<u64> {
    let start = (packed >> 16) * ALIGN_BYTES;
    start..start + (packed & 0xffff) * ALIGN_BYTES
}

const _: () = assert!(BLOCK_BYTES / ALIGN_BYTES <= 0xffff);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_survives_packing() {
        let block = (3 << 40)..(3 << 40) + BLOCK_BYTES;
        assert_eq!(unpack(pack(&block)), block);
    }
}
