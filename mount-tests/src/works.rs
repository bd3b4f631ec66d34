//! What programs do on a mount while its daemons are killed or replaced: each looks at what it reads and lists, fails with
//! what it was doing, and checks at its end that nothing is lost and nothing was done twice.
//!
//! Here is how they are run; what they do stands in a file for each kind.

mod files;
mod listings;
mod locks;
mod streams;
mod waits;

use crate::bytes::pattern;
use crate::{Mount, program};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Files that stay where they are, for those who list and read.
const LASTING: u64 = 300;
/// A file or stream that grows is looked at and begun anew with so many records.
const RECORDS_MAX: u64 = 1_000_000;

/// Whoever works, until the load is to stop.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// In the third person.
    pub name: &'static str,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    /// In a directory of its own.
    Here(fn(&Path, &Load) -> Result<()>),
    /// A script of `programs/`, again and again, with what follows its directories for the number of each time.
    Script(&'static str, fn(u64) -> Vec<String>),
}

/// What one work has come to.
#[derive(Debug, Default)]
pub struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    /// In microseconds.
    longest: AtomicU64,
}

/// All that is under way.
#[derive(Debug)]
pub struct UnderWay<'w> {
    works: Vec<(&'w Work, Load)>,
    failed: AtomicBool,
}

impl UnderWay<'_> {
    /// Whether somebody has failed, which is said when all have stopped.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Steps that each has done, by its name.
    pub fn steps(&self) -> BTreeMap<&'static str, u64> {
        self.works.iter().map(|(work, load)| (work.name, load.done.load(Ordering::Relaxed))).collect()
    }

    /// The longest step of each, in milliseconds.
    pub fn longest(&self) -> BTreeMap<&'static str, u64> {
        self.works
            .iter()
            .map(|(work, load)| (work.name, load.longest.load(Ordering::Relaxed) / 1000))
            .collect()
    }
}

impl Load {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs `life` again and again, once at least.
    fn again_and_again(&self, mut life: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            life()?;
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Runs `step` with a number that grows, until it is to stop.
    fn each(&self, step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        self.each_below(u64::MAX, step)
    }

    /// The same, with numbers below `end`.
    fn each_below(&self, end: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut number = 0;
        while number < end && !self.is_over() {
            let begun = Instant::now();
            step(number).with_context(|| format!("step {number}"))?;
            self.longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            self.done.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
        Ok(())
    }
}

const fn here(name: &'static str, run: fn(&Path, &Load) -> Result<()>) -> Work {
    Work { name, run: Run::Here(run) }
}

const fn script(name: &'static str, script: &'static str, arguments: fn(u64) -> Vec<String>) -> Work {
    Work { name, run: Run::Script(script, arguments) }
}

/// Those of this module, which can stop at any time.
pub const WORKS: &[Work] = &[
    here("appends", files::appends),
    here("makes-and-removes", files::makes_and_removes),
    here("makes-directories", files::makes_directories),
    here("changes-attributes", files::changes_attributes),
    here("lists", listings::lists),
    here("lists-in-parts", listings::lists_in_parts),
    here("reads", files::reads),
    here("writes-in-place", files::writes_in_place),
    here("syncs", files::syncs),
    here("locks", locks::locks),
    here("appends-to-a-stream", streams::appends_to_streams),
    here("shares-a-stream", streams::shares_a_stream),
    here("waits-for-records", waits::waits_for_records),
];

/// Programs of others, each of which stops when it has come to its end.
pub const PROGRAMS: &[Work] = &[
    script("fsx", "fsx.sh", |number| vec!["3000".into(), (number + 1).to_string()]),
    script("fsx-in-memory", "fsx.sh", |number| {
        vec!["3000".into(), (number + 1001).to_string(), "sibling=true".into()]
    }),
    script("fio-verify", "fio_verify.sh", |number| vec![FIO_CASES[number as usize % FIO_CASES.len()].into()]),
    script("sqlite", "sqlite_wal.py", |_| vec!["1".into()]),
    script("dir-churn", "dir_churn.py", |_| vec!["1000".into()]),
    script("concurrent-append", "concurrent_append.py", |_| vec!["200".into()]),
];

/// Of `fio_verify.sh`, those that take a second or two.
const FIO_CASES: [&str; 12] = [
    "small",
    "odd",
    "overwrite",
    "mapped_fsync",
    "synced",
    "osync",
    "direct_random",
    "libaio",
    "jobs",
    "many_files",
    "preallocated",
    "append",
];

/// Has all stop when it is dropped, also by a panic.
struct Stops<'w>(&'w UnderWay<'w>);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        for (_, load) in &self.0.works {
            load.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `meanwhile` while all `works` are under way on the mount, each in a directory of its own; then stops them. Fails with
/// what the first one said that did.
pub fn while_at_work<T>(
    mount: &Mount,
    works: &[Work],
    meanwhile: impl FnOnce(&UnderWay<'_>) -> Result<T>,
) -> Result<T> {
    let (lasting, reference) = (mount.at("lasting"), mount.beside("reference"));
    fs::create_dir(&lasting)?;
    fs::create_dir_all(&reference)?;
    for number in 0..LASTING {
        fs::write(lasting.join(format!("file-{number}")), pattern(number, 3000))?;
    }
    let under_way = UnderWay {
        works: works.iter().map(|work| (work, Load::default())).collect(),
        failed: AtomicBool::new(false),
    };
    let (came, ended) = std::thread::scope(|scope| {
        let workers: Vec<_> = under_way
            .works
            .iter()
            .map(|(work, load)| {
                let (dir, reference, failed) = (mount.at(work.name), &reference, &under_way.failed);
                scope.spawn(move || -> Result<()> {
                    let worked = fs::create_dir(&dir).map_err(Into::into).and_then(|()| match work.run {
                        Run::Here(run) => run(&dir, load),
                        Run::Script(script, arguments) => {
                            load.each(|number| program::run_in(&dir, reference, script, &arguments(number)))
                        }
                    });
                    failed.fetch_or(worked.is_err(), Ordering::Relaxed);
                    worked.with_context(|| format!("whoever {}", work.name))
                })
            })
            .collect();
        let stops = Stops(&under_way);
        let came = meanwhile(&under_way);
        drop(stops);
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        (came, ended)
    });
    ended.into_iter().collect::<Result<()>>()?;
    let came = came?;
    let longest = under_way.longest();
    for (name, done) in under_way.steps() {
        println!("{name}: {done} steps, the longest {} ms", longest[name]);
        ensure!(done > 0, "{name} did nothing");
    }
    Ok(came)
}
