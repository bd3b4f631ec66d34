//! How fast a GPU takes checksums of its memory: `cargo run --release -p aimss-gpu --example checksum_rate [GIB]`.
//!
//! The bar is half of the memory's bandwidth: 1675 GB/s of an H100 (SXM), 2400 GB/s of an H200.

use aimss_engine::device::{Device, Extent, Slab};
use aimss_gpu::checksum::Checksums;
use aimss_gpu::cuda::CudaDevice;
use aimss_gpu::{Which, choose};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

/// Of the tier.
const PAGE_BYTES: u64 = 2 << 20;
const ROUNDS: usize = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let gib: u64 = std::env::args().nth(1).map_or(Ok(8), |gib| gib.parse())?;
    let bytes = gib << 30;
    let device = CudaDevice::open(choose(Which::MostFree, bytes)?)?;
    let checksums = Checksums::open(&device)?;
    let slab: Arc<dyn Slab> = Arc::new(device.slab(bytes)?);
    let page = |number| Extent { slab: slab.clone(), at: number * PAGE_BYTES, bytes: PAGE_BYTES };
    let pages: Vec<_> = (0..bytes / PAGE_BYTES).map(page).collect();
    println!("{}, {gib} GiB in pages of 2 MiB", device.name());
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (_, took) = checksums.timed(&pages)?;
        let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
        let (launches, all) = (rate(took.as_secs_f64()), rate(begun.elapsed().as_secs_f64()));
        println!("{launches:.0} GB/s while it runs, {all:.0} GB/s with what the host does");
    }
    Ok(())
}
