//! The rows about a GPU's memory: what the tier does with it, against the same done by itself. A figure is one of a real
//! GPU, whose name stands with it; where there is none the row says why.

use super::rate;
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, memory, pairs, work};
use crate::gpu::{self, Asked};
use crate::interrupt;
use crate::scratch::Mounted;
use aimss_engine::device::{Buffer, Device, Extent, Slab};
use aimss_engine::tier::{PAGE_BYTES, Tier, TierConfig};
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

const COPIED_BYTES: u64 = 4 << 30;
/// Of the machine's memory.
const MEMORY_SHARE: u64 = 20;
const SUMMED_BYTES: u64 = 8 << 30;
/// Of one plain copy, from pinned memory: larger ones are no faster.
const PLAIN_BYTES: u64 = 64 << 20;
/// The GPU has so many times the bytes that are copied.
const ROOM_TIMES: u64 = 2;
const COPY_BAR: Bar = Bar::AtLeast(0.85);
const CHECKSUM_BAR: Bar = Bar::AtLeast(0.5);
/// For the GPU to be idle again.
const IDLE_WAIT: Duration = Duration::from_secs(30);

/// `gpu-copy`.
pub fn copy(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let bytes = context.scaled_to_memory(COPIED_BYTES, MEMORY_SHARE);
    let device = match open(context, bytes * ROOM_TIMES) {
        Ok(device) => device,
        Err(why) => return Ok(vec![Outcome::skipped(COPY_BAR, why)]),
    };
    let path = context.shm()?.join("copied");
    memory::touch(bytes)?;
    work::write(&path, bytes, &work::buffer(PAGE_BYTES as usize))?;
    let before = memory::sum(&path)?;
    let file = File::options().read(true).write(true).open(&path)?;
    let tier = Tier::new(device.clone(), TierConfig::new(bytes, 0));
    let mut plain = Plain::new(&*device, bytes)?;
    // Its memory is taken once, and stays.
    drop(tier.lodge(&file, bytes)?);
    let (mut put, mut get) = (Vec::new(), Vec::new());
    for _ in 0..context.pairs {
        interrupt::check()?;
        let begun = Instant::now();
        let lodged = tier.lodge(&file, bytes)?;
        put.push((rate(bytes, begun.elapsed()), plain.put(bytes)?));
        let begun = Instant::now();
        tier.bring_back(&lodged, &file)?;
        get.push((rate(bytes, begun.elapsed()), plain.get(bytes)?));
    }
    ensure!(memory::sum(&path)? == before, "what came back from the GPU is not what went there");
    let outcome = |case: &str, rates: &[(f64, f64)]| -> Result<Outcome> {
        let bar = bar(&*device, COPY_BAR);
        Ok(Outcome::against("pinned", "GB/s", pairs::of(rates)?, bar).case(case).note(device.name()))
    };
    Ok(vec![outcome("to", &put)?, outcome("from", &get)?])
}

/// `gpu-checksum`.
pub fn checksum(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let bytes = context.scaled_to_memory(SUMMED_BYTES, MEMORY_SHARE * 2);
    let skipped = |why: String| Ok(vec![Outcome::skipped(CHECKSUM_BAR, why)]);
    let device = match open(context, bytes) {
        Ok(device) => device,
        Err(why) => return skipped(why),
    };
    let scrubber = match device.scrubber() {
        Ok(scrubber) => scrubber,
        Err(why) => return skipped(format!("{}: {why}", device.name())),
    };
    let content = work::buffer(PAGE_BYTES as usize);
    let mut extents = Vec::new();
    for _ in 0..bytes.div_ceil(PLAIN_BYTES) {
        let slab = device.allocate(PLAIN_BYTES)?;
        for at in (0..PLAIN_BYTES).step_by(PAGE_BYTES as usize) {
            slab.put(at, &content)?;
            extents.push(Extent { slab: slab.clone(), at, bytes: PAGE_BYTES });
        }
    }
    let all = extents.len() as u64 * PAGE_BYTES;
    let expected = crc32c::crc32c(&content);
    let one = || -> Result<f64> {
        interrupt::check()?;
        let begun = Instant::now();
        let mut left = &extents[..];
        while !left.is_empty() {
            let pages = (scrubber.slice_bytes() / PAGE_BYTES).clamp(1, left.len() as u64);
            let (slice, rest) = left.split_at(pages as usize);
            let sums = scrubber.checksums(slice)?;
            ensure!(sums.iter().all(|sum| *sum == expected), "a checksum of the GPU is not the processor's");
            left = rest;
        }
        Ok(rate(all, begun.elapsed()))
    };
    let begun = Instant::now();
    while !scrubber.is_idle()? {
        ensure!(begun.elapsed() < IDLE_WAIT, "the GPU is busy; end what uses it");
        std::thread::sleep(Duration::from_millis(250));
    }
    // It learns how large a slice may be.
    one()?;
    let median = pairs::repeat(context.pairs, one)?;
    let note =
        format!("{}, {} GiB in slices of {} MiB", device.name(), all >> 30, scrubber.slice_bytes() >> 20);
    Ok(vec![match device.bandwidth() {
        Some(bandwidth) => {
            let ratio = pairs::of(&[(median, bandwidth as f64 / super::GB)])?;
            Outcome::against("its memory", "GB/s", ratio, bar(&*device, CHECKSUM_BAR)).note(note)
        }
        None => Outcome::alone(
            "GB/s",
            median,
            CHECKSUM_BAR,
            format!("{note}; its memory's bandwidth isn't known"),
        ),
    }])
}

/// The GPU of `--gpu`, if it has so much memory; else why not, in a sentence.
fn open(context: &Context, bytes: u64) -> Result<Arc<dyn Device>, String> {
    gpu::open(&Asked::parse(&context.gpu)?.with(bytes, 0))
}

/// What is simulated is no figure.
fn bar(device: &dyn Device, bar: Bar) -> Bar {
    if device.is_simulated() { Bar::Stated } else { bar }
}

/// Copies as they are without a tier: one after another, from and to pinned memory.
struct Plain {
    slab: Arc<dyn Slab>,
    buffer: Box<dyn Buffer>,
}

impl Plain {
    fn new(device: &dyn Device, bytes: u64) -> Result<Plain> {
        let bytes = bytes.min(PLAIN_BYTES);
        let slab = device.allocate(bytes).context("the GPU has no memory for a plain copy")?;
        let mut buffer = device.buffer(bytes as usize)?;
        buffer.bytes().fill(1);
        Ok(Plain { slab, buffer })
    }

    fn put(&mut self, bytes: u64) -> Result<f64> {
        self.copies(bytes, |slab, buffer| slab.put(0, buffer))
    }

    fn get(&mut self, bytes: u64) -> Result<f64> {
        self.copies(bytes, |slab, buffer| slab.get(0, buffer))
    }

    /// The rate of `one` after another, each of the whole buffer, `bytes` or a little more in all.
    fn copies(&mut self, bytes: u64, one: impl Fn(&dyn Slab, &mut [u8]) -> io::Result<()>) -> Result<f64> {
        let begun = Instant::now();
        let buffer = self.buffer.bytes();
        let times = bytes.div_ceil(buffer.len() as u64);
        for _ in 0..times {
            one(&*self.slab, buffer)?;
        }
        Ok(rate(times * buffer.len() as u64, begun.elapsed()))
    }
}
