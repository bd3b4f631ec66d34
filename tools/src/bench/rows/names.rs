//! Rows about many small files: created, opened, looked at, listed.

use super::per_second;
use crate::bench::pairs::{alternate, repeat};
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, timed, work};
use crate::scratch::Mounted;
use anyhow::Result;
use std::fs;
use std::path::Path;

const FILES: u64 = 10_000;
const ENTRIES: u64 = 100_000;
/// A stat is a microsecond: so many rounds make a run long enough to measure.
const STAT_ROUNDS: u64 = 20;
/// What 10,000 small files need, with their inodes.
const SMALL_FILES_BYTES: u64 = 64 << 20;

/// Measures `once` on our mount and on mergerfs; alone where there is none.
pub fn against_mergerfs(
    context: &Context,
    mount: &Mounted,
    bar: f64,
    once: impl Fn(&Path) -> Result<f64>,
) -> Result<Vec<Outcome>> {
    let bar = Bar::AtLeast(bar);
    let Some(theirs) = context.peer("mergerfs")? else {
        let ours = repeat(context.pairs, || once(mount.point()))?;
        return Ok(vec![Outcome::alone("/s", ours, bar, "give --peer mergerfs=DIR")]);
    };
    let medians = alternate(context.pairs, || once(mount.point()), || once(&theirs))?;
    Ok(vec![Outcome::against("mergerfs", "/s", medians, bar)])
}

/// `create-4k`.
pub fn create(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let content = work::buffer(work::SMALL);
    against_mergerfs(context, mount, 2.5, |base| {
        let dir = base.join("created");
        fs::create_dir(&dir)?;
        let paths = work::names(&dir, context.scaled(FILES));
        let time = timed(SMALL_FILES_BYTES, || work::create(&paths, &content))?;
        fs::remove_dir_all(&dir)?;
        Ok(per_second(paths.len() as u64, time))
    })
}

/// `open-read-4k`.
pub fn open_and_read(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    against_mergerfs(context, mount, 2.5, |base| {
        let dir = base.join("opened");
        let paths = work::names(&dir, context.scaled(FILES));
        if !dir.exists() {
            fs::create_dir(&dir)?;
            work::create(&paths, &work::buffer(work::SMALL))?;
            work::open_and_read(&paths)?;
        }
        let time = timed(0, || work::open_and_read(&paths))?;
        Ok(per_second(paths.len() as u64, time))
    })
}

/// `stat`.
pub fn stat(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let once = |base: &Path| -> Result<f64> {
        let dir = base.join("looked-at");
        let paths = work::names(&dir, context.scaled(FILES));
        if !dir.exists() {
            fs::create_dir(&dir)?;
            work::create(&paths, &work::buffer(work::SMALL))?;
        }
        // Kept by the kernel from here on; also the memory of the caches is touched by it.
        work::stat(&paths, 1)?;
        let time = timed(0, || work::stat(&paths, STAT_ROUNDS))?;
        Ok(per_second(paths.len() as u64 * STAT_ROUNDS, time))
    };
    let shm = context.shm()?;
    let medians = alternate(context.pairs, || once(mount.point()), || once(&shm))?;
    Ok(vec![Outcome::against("/dev/shm", "/s", medians, Bar::AtLeast(0.9))])
}

/// `readdir-100k`.
pub fn readdir(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let count = context.scaled(ENTRIES);
    against_mergerfs(context, mount, 2.0, |base| {
        let dir = base.join("listed");
        if !dir.exists() {
            fs::create_dir(&dir)?;
            work::create(&work::names(&dir, count), b"")?;
        }
        let time = timed(0, || work::list(&dir, count))?;
        Ok(per_second(count, time))
    })
}
