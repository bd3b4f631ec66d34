//! What it costs that nobody notices the daemon's death: a mount as users have it beside one that keeps no journal, and has no
//! second daemon.

use super::takeover::wait_for_standby;
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, pairs, timed, work};
use crate::scratch::{self, Mounted};
use aimss_fs::config::MountConfig;
use anyhow::Result;
use rustix::fs::XattrFlags;
use std::fs;
use std::path::Path;

/// Files at a time.
const FILES: u64 = 5_000;
/// Writes and appends for each.
const WRITES: u64 = 10;
/// What they need, with their inodes.
const FILES_BYTES: u64 = 32 << 20;

/// What is timed, in a directory that both mounts have, with so many files; it returns how many operations that were.
type Timed = fn(&Path, u64) -> Result<u64>;

/// In this order, each on what the one before left.
const TIMED: [(&str, Timed); 6] = [
    ("create", |dir, count| {
        work::create(&work::names(dir, count), &work::buffer(work::SMALL))?;
        Ok(count)
    }),
    ("rename", |dir, count| {
        for path in work::names(dir, count) {
            fs::rename(&path, path.with_extension("moved"))?;
            fs::rename(path.with_extension("moved"), &path)?;
        }
        Ok(count * 2)
    }),
    ("setxattr", |dir, count| {
        for path in work::names(dir, count) {
            rustix::fs::setxattr(&path, "user.note", b"value", XattrFlags::empty())?;
        }
        Ok(count)
    }),
    ("write 4k", |dir, count| {
        let path = dir.join("written.daemon");
        work::write(&path, count * WRITES * work::SMALL as u64, &work::buffer(work::SMALL))?;
        Ok(count * WRITES)
    }),
    ("append", |dir, count| {
        work::append(&dir.join("appended.daemon"), count * WRITES, &work::buffer(200))?;
        Ok(count * WRITES)
    }),
    ("unlink", |dir, count| {
        for path in work::names(dir, count) {
            fs::remove_file(path)?;
        }
        Ok(count)
    }),
];

/// `journal-cost`.
pub fn cost(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let mount = |journal: bool| {
        let name = if journal { "with-journal" } else { "without-journal" };
        let (backing, point) = (context.disk(name)?, context.disk(&format!("{name}-mount"))?);
        let settings = scratch::settings(&backing, &point, scratch::NO_DRAIN);
        let no_passthrough = vec!["**/*.daemon".into()];
        Mounted::start(&MountConfig { no_passthrough, standby: journal, journal, ..settings })
    };
    let mounts = [mount(true)?, mount(false)?];
    wait_for_standby(&mounts[0])?;
    let count = context.scaled(FILES);
    let mut rates = vec![Vec::new(); TIMED.len()];
    for _ in 0..context.pairs {
        let dirs = [0, 1].map(|which: usize| mounts[which].point().join("worked-in"));
        for dir in &dirs {
            fs::create_dir(dir)?;
        }
        for ((_, run), rates) in TIMED.iter().zip(&mut rates) {
            let rate = |dir: &Path| -> Result<f64> {
                let mut operations = 0;
                let time = timed(FILES_BYTES, || {
                    operations = run(dir, count)?;
                    Ok(())
                })?;
                Ok(super::per_second(operations, time))
            };
            rates.push((rate(&dirs[0])?, rate(&dirs[1])?));
        }
        for dir in &dirs {
            fs::remove_dir_all(dir)?;
        }
    }
    // What was made and renamed before it was removed is still to be done on the backing.
    for mount in mounts {
        mount.unmount()?;
    }
    let outcome = |((name, _), rates): (&(&str, Timed), &Vec<(f64, f64)>)| {
        Ok(Outcome::against("without", "/s", pairs::of(rates)?, Bar::AtLeast(0.9)).case(*name))
    };
    TIMED.iter().zip(&rates).map(outcome).collect()
}
