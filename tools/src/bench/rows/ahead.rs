//! The rows about fetching ahead, over a backing that is as slow as `--backing` says: each run has a mount of its own,
//! so that nothing is in memory when it begins.
//!
//! The files are written to the backing's directory beforehand and read once there, so that the disk of this machine
//! is no part of the figure: the model is. The mounts are told that nobody else changes the backing (`--revalidate
//! 1h`), on both sides: a trip for each open would hide what is measured.

use super::{GB, rate};
use crate::bench::pairs::{self, alternate};
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, timed, work};
use crate::scratch::{self, Mounted};
use aimss_fs::config::{MountConfig, Prefetch};
use aimss_fs::control::status::{FetchStatus, PredictorStatus};
use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SHARDS: u64 = 16;
const CHECKPOINT_BYTES: u64 = 4 << 30;
const MEMORY_SHARE: u64 = 25;
const IMAGES: u64 = 20_000;
const IMAGE_BYTES: u64 = 100 << 10;
/// A directory each, of so many.
const CLASS_IMAGES: u64 = 200;
/// As many as a PyTorch DataLoader of four workers has.
const READERS: usize = 4;
/// Nothing outside changes while a row runs.
pub(super) const REVALIDATE: Duration = Duration::from_secs(3600);

/// `restore`.
pub fn restore(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let bytes = context.scaled_to_memory(CHECKPOINT_BYTES, MEMORY_SHARE) / SHARDS / (1 << 20) * (1 << 20);
    let ground = Ground::new(context, "restore")?;
    let shards: Vec<PathBuf> = (0..SHARDS)
        .map(|shard| PathBuf::from(format!("step-1000/shard-{shard:05}-of-{SHARDS:05}")))
        .collect();
    ground.fill(&shards, bytes)?;
    let run = |prefetch: Prefetch| -> Result<f64> {
        let mount = ground.mount(prefetch, bytes * SHARDS * 2)?;
        let mut buffer = work::buffer(1 << 20);
        let time = timed(bytes * SHARDS, || {
            shards.iter().try_for_each(|shard| work::read(&mount.point().join(shard), bytes, &mut buffer))
        })?;
        mount.unmount()?;
        Ok(rate(bytes * SHARDS, time))
    };
    let medians = alternate(context.pairs, || run(Prefetch::Auto), || run(none()))?;
    let aggregate = context.model.bandwidth as f64 * f64::from(context.model.streams) / GB;
    let share = if aggregate > 0.0 { medians.ours / aggregate } else { 0.0 };
    let against = Outcome::against("prefetch off", "GB/s", medians, Bar::AtLeast(4.0));
    Ok(vec![against.note(format!(
        "{SHARDS} shards read in order by one process; {:.0}% of the backing's {aggregate:.2} GB/s (bar: 85%)",
        share * 100.0
    ))])
}

/// `epochs`.
pub fn epochs(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let images = context.scaled(IMAGES);
    let ground = Ground::new(context, "epochs")?;
    let paths: Vec<PathBuf> = (0..images)
        .map(|image| PathBuf::from(format!("train/class-{:03}/image-{image:06}.jpg", image / CLASS_IMAGES)))
        .collect();
    ground.fill(&paths, IMAGE_BYTES)?;
    let shm = context.shm()?;
    copy(&ground.backing, &shm, &paths)?;
    let set = images * IMAGE_BYTES;
    let mut seed = 0;
    // Rates of the first epoch and of the others, and what was fetched.
    let mut run = |prefetch: Prefetch, memory: u64, epochs: u64| -> Result<(f64, f64, FetchStatus)> {
        let mount = ground.mount(prefetch, memory)?;
        let mut times = Vec::new();
        for _ in 0..epochs {
            seed += 1;
            times.push(timed(0, || epoch(mount.point(), &paths, seed))?);
        }
        let fetched = mount.status()?.fetch;
        mount.unmount()?;
        let others: Duration = times[1..].iter().sum();
        Ok((rate(set, times[0]), rate(set * (epochs - 1), others), fetched))
    };
    let (mut first, mut second, mut half, mut unused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for pair in 0..context.pairs {
        let (on, off) = (run(Prefetch::Auto, set * 2, 2)?, run(none(), set * 2, 2)?);
        first.push((on.0, off.0));
        second.push((on.1, rate(set, timed(set, || epoch(&shm, &paths, pair as u64))?)));
        let (on, off) = (run(Prefetch::Auto, set / 2, 3)?, run(none(), set / 2, 3)?);
        half.push((on.1, off.1));
        unused.push(share_unused(&on.2));
    }
    let figure = |pairs: &[(f64, f64)], against: &str, bar: f64, case: &str| -> Result<Outcome> {
        Ok(Outcome::against(against, "GB/s", pairs::of(pairs)?, Bar::AtLeast(bar)).case(case))
    };
    Ok(vec![
        figure(&first, "prefetch off", 3.0, "1st")?,
        figure(&second, "/dev/shm", 0.95, "2nd")?,
        figure(&half, "prefetch off", 1.8, "half")?
            .note(format!("{:.1}% of the bytes fetched ahead left unused (bar: 5%)", pairs::median(unused))),
    ])
}

/// Of the bytes that were fetched ahead, those that left again without having been opened, in percent.
fn share_unused(fetch: &FetchStatus) -> f64 {
    let sum = |of: fn(&PredictorStatus) -> u64| fetch.predictors.values().map(of).sum::<u64>();
    sum(|by| by.wasted) as f64 / sum(|by| by.fetched).max(1) as f64 * 100.0
}

/// Reads all files once, in an order of `seed`'s, by several threads.
fn epoch(root: &Path, paths: &[PathBuf], seed: u64) -> Result<()> {
    let mut order: Vec<usize> = (0..paths.len()).collect();
    let mut random = seed;
    for at in (1..order.len()).rev() {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (random >> 33) as usize % (at + 1));
    }
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let order = &order;
                scope.spawn(move || -> Result<()> {
                    let mut buffer = vec![0; IMAGE_BYTES as usize + 1];
                    for &at in order.iter().skip(reader).step_by(READERS) {
                        work::read(&root.join(&paths[at]), IMAGE_BYTES, &mut buffer)?;
                    }
                    Ok(())
                })
            })
            .collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader does not panic"))
    })
}

/// `random-reads`.
pub fn random(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    const FILES: u64 = 2000;
    const BYTES: u64 = 64 << 10;
    let ground = Ground::new(context, "random")?;
    let paths: Vec<PathBuf> = (0..FILES).map(|file| PathBuf::from(format!("set/object-{file:05}"))).collect();
    ground.fill(&paths, BYTES)?;
    let opens = context.scaled(8000);
    let run = |prefetch: Prefetch| -> Result<(f64, FetchStatus)> {
        // A quarter of the set fits, and which file comes next is drawn anew each time.
        let mount = ground.mount(prefetch, (FILES * BYTES / 4).max(32 << 20))?;
        let mut buffer = vec![0; BYTES as usize + 1];
        let mut random = 9_u64;
        let time = timed(0, || {
            for _ in 0..opens {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (random >> 33) as usize % paths.len();
                work::read(&mount.point().join(&paths[at]), BYTES, &mut buffer)?;
            }
            Ok(())
        })?;
        let fetched = mount.status()?.fetch;
        mount.unmount()?;
        Ok((opens as f64 / time.as_secs_f64(), fetched))
    };
    let (mut rates, mut unused) = (Vec::new(), Vec::new());
    for _ in 0..context.pairs {
        let (on, off) = (run(Prefetch::Auto)?, run(none())?);
        rates.push((on.0, off.0));
        // Also what is still there, waiting to be opened.
        let ahead: u64 = on.1.predictors.values().map(|by| by.fetched.saturating_sub(by.used)).sum();
        let all: u64 = on.1.causes.values().map(|came| came.bytes).sum();
        unused.push(ahead as f64 / all.max(1) as f64 * 100.0);
    }
    let against = Outcome::against("prefetch off", "/s", pairs::of(&rates)?, Bar::AtLeast(0.98));
    Ok(vec![against.note(format!(
        "uniform over {FILES} files, a quarter of them fits; {:.2}% of the bytes read were fetched ahead and not used \
         (bar: 1%)",
        pairs::median(unused)
    ))])
}

fn none() -> Prefetch {
    Prefetch::By(Vec::new())
}

/// A backing of its own beside the row's mount.
struct Ground<'c> {
    context: &'c Context,
    backing: PathBuf,
    point: PathBuf,
}

impl<'c> Ground<'c> {
    fn new(context: &'c Context, row: &str) -> Result<Ground<'c>> {
        let (backing, point) =
            (context.disk(&format!("slow-{row}"))?, context.disk(&format!("slow-mount-{row}"))?);
        Ok(Ground { context, backing, point })
    }

    /// Files of `bytes` each on the backing, in the page cache of this machine.
    fn fill(&self, paths: &[PathBuf], bytes: u64) -> Result<()> {
        let block = work::buffer(bytes.min(1 << 20) as usize);
        for path in paths {
            let path = self.backing.join(path);
            fs::create_dir_all(path.parent().context("a path in a directory")?)?;
            work::write(&path, bytes, &block)?;
        }
        rustix::fs::syncfs(fs::File::open(&self.backing)?)?;
        Ok(())
    }

    fn mount(&self, prefetch: Prefetch, memory_bytes: u64) -> Result<Mounted> {
        let plain = scratch::settings(&self.backing, &self.point, scratch::NO_DRAIN);
        let slow = Some(self.context.model);
        Mounted::start(&MountConfig { memory_bytes, prefetch, slow, revalidate: REVALIDATE, ..plain })
            .context("the scratch mount over a slow backing failed")
    }
}

fn copy(from: &Path, to: &Path, paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        let there = to.join(path);
        fs::create_dir_all(there.parent().context("a path in a directory")?)?;
        ensure!(fs::copy(from.join(path), there)? > 0, "{} is empty", path.display());
    }
    Ok(())
}
