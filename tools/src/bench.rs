//! The measurements behind `aimss bench`.
//!
//! 1. A [`rows::Row`] is one line of the table of what aimss promises: a name, what it is held against, the
//!    bar, and a function that measures it.
//! 2. Each row has a fresh scratch mount of its own whose drain is off (`--drain-delay 1h`), made as `aimss
//!    mount` makes one, and scratch directories in `/dev/shm`, on the disk and on the peers.
//! 3. Both sides of a figure run the same code ([`work`]) in this process on different directories,
//!    alternating: ours, theirs, ours, theirs. The ratio is the median of the pairs' ratios ([`pairs`]).
//! 4. Right before each timed run as much memory as it needs is touched once ([`memory::touch`]): a virtual
//!    machine gives freed memory back to its host within seconds, and a first touch then runs at 0.4 GB/s and
//!    hides all else.
//! 5. The mount's mode counts before and after a row say how its opens were served: a figure without them
//!    proves nothing.
//!
//! What it doesn't do: judge. A bar that isn't met is shown, and the exit code stays 0.

pub mod cgroup;
mod context;
pub mod rows;
mod work;
mod zipf;

pub use aimss_measure::{memory, pairs, report};
pub use context::Context;

use crate::{escape, interrupt};
use anyhow::{Context as _, Result};
use report::Measured;
use rows::Row;
use std::time::{Duration, Instant};

/// Touches `memory_bytes` of memory, then times `work`.
fn timed(memory_bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    interrupt::check()?;
    memory::touch(memory_bytes)?;
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Measures `row` on a mount of its own.
pub fn measure(context: &Context, row: &Row) -> Result<Measured> {
    context.clear()?;
    let mount = context.mount(row.name)?;
    let before = mount.status()?.modes;
    let outcomes = (row.run)(context, &mount).with_context(|| format!("the row {} failed", row.name))?;
    let status = mount.status()?;
    let modes = report::difference(&before, &status.modes);
    empty(mount.point())?;
    mount.unmount()?;
    Ok(Measured {
        row: row.name,
        what: row.what,
        outcomes,
        conditions: String::new(),
        modes,
        limits: status.limits,
    })
}

/// Removes what a row left, so that nothing of it is drained at the unmount.
fn empty(dir: &std::path::Path) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let removed =
            if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("{} can't be removed", escape::path(&path)))?;
    }
    Ok(())
}
