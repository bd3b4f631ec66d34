//! Daemons die, or give way to others, hundreds of times while programs work on the mount: nobody may see an error, nothing
//! may be lost, nothing done twice.
//!
//! A campaign is rounds, each with a mount of its own, a seed, and all of [`works`](aimss_mount_tests::works); at its end
//! everything is drained and the backing is compared with what the mount showed. Of the blows of a round
//!
//! - half are to be SIGKILLs at the failpoint that was tried least so far, when it is passed for the N-th time;
//! - the others, and those whose failpoint nobody passed in time, are SIGKILLs at a random moment, a third of them once a
//!   second daemon stands ready;
//! - with `--upgrade`, all are upgrades, to and fro between two copies of the program; with `--upgrade-every N`, one of N is.
//!
//! What comes of each round is a line of JSON in the results' file, at once: a campaign that was interrupted goes on behind
//! the last round that is whole. The first round that fails ends it.

mod blows;
mod results;
mod watch;

use aimss_mount_tests::works::{PROGRAMS, UnderWay, WORKS, Work, while_at_work};
use aimss_mount_tests::{Mode, Mount, Setup, binary};
use anyhow::{Context as _, Result, bail, ensure};
use blows::{Blows, Dealt};
use clap::Parser;
use results::Outcome;
use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use watch::Sample;

/// A round's mount is given up so long after all its blows should have been dealt.
const LONGEST: Duration = Duration::from_secs(300);
/// What is removed is gone from memory after this.
const REST: Duration = Duration::from_secs(8);
/// A daemon asks the kernel twice, ten seconds apart, what it still knows.
const REFERENCES: Duration = Duration::from_secs(25);

/// Kills or replaces the daemons of mounts under load, and looks whether anybody notices
#[derive(Debug, Parser)]
pub struct Cli {
    /// How often, in all rounds together
    #[arg(long, default_value_t = 1000)]
    blows: u64,
    /// How often in one round
    #[arg(long, default_value_t = 50)]
    round: u64,
    /// After so many in one round all programs end, everything is removed and drained, and what daemon and keeper hold then
    /// is noted: what grows from one rest to the next leaks
    #[arg(long)]
    rest: Option<u64>,
    /// Pause before each, in milliseconds; it is drawn between half of this and one and a half
    #[arg(long, default_value_t = 200)]
    every: u64,
    /// Replaces daemons instead of killing them
    #[arg(long)]
    upgrade: bool,
    /// Of so many blows that follow each other one replaces the daemon, and the others kill it
    #[arg(long, conflicts_with = "upgrade", value_parser = clap::value_parser!(u64).range(1..))]
    upgrade_every: Option<u64>,
    /// The first round's seed; the next ones count on from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `--memory` of the mounts; with little of it, files move and are evicted all the time
    #[arg(long, default_value = "1G")]
    memory: String,
    /// A line of JSON a round; rounds that are there are not run again
    #[arg(long, default_value = "campaign.jsonl")]
    results: PathBuf,
    /// No SIGKILLs at failpoints: all at random
    #[arg(long)]
    no_failpoints: bool,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(cli.round > 0, "--round: a round has at least one blow");
    ensure!(cli.rest != Some(0), "--rest: one blow at least is dealt between two rests");
    if std::env::var_os("AIMSS_BIN").is_none() {
        binary::choose(binary::with_failpoints()?);
    }
    let mut before = results::read(&cli.results)?;
    before.retain(|outcome| outcome.error.is_none());
    let mut total = Dealt::default();
    for outcome in &before {
        total.add(&outcome.dealt);
    }
    let mut seed = before.iter().map(|outcome| outcome.seed + 1).max().unwrap_or(cli.seed);
    if !before.is_empty() {
        println!("{}: {} rounds, {} blows; going on", cli.results.display(), before.len(), total.count());
    }
    while total.count() < cli.blows {
        let mode = if seed.is_multiple_of(2) { Mode::Daemon } else { Mode::Passthrough };
        println!("== seed {seed}, {mode:?}, {} of {} blows", total.count(), cli.blows);
        let outcome = round(&cli, seed, mode, &total);
        results::append(&cli.results, &outcome)?;
        if let Some(error) = outcome.error {
            bail!("seed {seed}: {error}");
        }
        total.add(&outcome.dealt);
        seed += 1;
    }
    tell(&results::read(&cli.results)?, &total);
    Ok(())
}

fn round(cli: &Cli, seed: u64, mode: Mode, total: &Dealt) -> Outcome {
    let mut outcome = Outcome { seed, mode: format!("{mode:?}"), ..Outcome::default() };
    let begun = Instant::now();
    // The harness panics where a mount does not do what it should.
    let came = catch_unwind(AssertUnwindSafe(|| play(cli, seed, mode, total, &mut outcome)));
    outcome.error = match came {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("{error:#}")),
        Err(panic) => Some(panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".into())),
    };
    outcome.seconds = begun.elapsed().as_secs_f64();
    outcome
}

fn play(cli: &Cli, seed: u64, mode: Mode, total: &Dealt, outcome: &mut Outcome) -> Result<()> {
    // Mounted for as long as the harness lets it, so the text outlives it.
    let memory: &'static str = String::leak(cli.memory.clone());
    let rests = cli.rest.map_or(0, |rest| cli.round / rest);
    let longest = LONGEST
        + Duration::from_millis(cli.every) * 2 * cli.round as u32
        + (REST + REFERENCES) * 2 * rests as u32;
    let setup = Setup { memory, drain_delay: "100ms", failpoints: true, longest, ..Setup::new(mode) };
    let mount = Mount::start(&setup).context("nothing can be mounted here")?;
    let mut blows = Blows::new(cli, seed, &mount, total.clone())?;
    let begun = Instant::now();
    let works: Vec<Work> = WORKS.iter().chain(PROGRAMS).copied().collect();
    let count = cli.round.min(cli.blows - total.count());
    let mut dealt = 0;
    loop {
        let until = cli.rest.map_or(count, |rest| count.min(dealt + rest));
        let before = (outcome.steps.clone(), outcome.longest_ms.clone());
        while_at_work(&mount, &works, |under_way| {
            while dealt < until && !under_way.has_failed() {
                blows.deal(&mount)?;
                dealt += 1;
                note(outcome, under_way, &before, &blows);
                outcome.samples.push(Sample::take(begun, &mount, outcome.steps.values().sum())?);
            }
            Ok(())
        })?;
        if dealt >= count {
            break;
        }
        clear(&mount)?;
        outcome.at_rest.push(Sample::take(begun, &mount, outcome.steps.values().sum())?);
    }
    let status = mount.status()?;
    let (deaths, upgrades) = (&status["daemon"]["restarts"], &status["daemon"]["upgrades"]);
    println!("{deaths} daemons died, {upgrades} gave way; {}", outcome.dealt);
    ensure!(status["files"]["open"].as_u64() == Some(0), "files are open still: {}", status["files"]);
    mount.finish();
    Ok(())
}

/// Removes all that the works made, and waits until the daemon that comes after one more death has nothing left to do.
fn clear(mount: &Mount) -> Result<()> {
    for entry in fs::read_dir(mount.point())? {
        fs::remove_dir_all(entry?.path())?;
    }
    mount.drain()?;
    // The logs of streams go a little later.
    std::thread::sleep(REST);
    mount.kill_daemon()?;
    mount.wait_for_standby();
    std::thread::sleep(REFERENCES);
    mount.drain()
}

/// `before`: steps, and the longest ones, from before the last rest.
fn note(
    outcome: &mut Outcome,
    under_way: &UnderWay<'_>,
    (steps, longest): &(BTreeMap<String, u64>, BTreeMap<String, u64>),
    blows: &Blows,
) {
    let so_far = |before: &BTreeMap<String, u64>, name: &str| before.get(name).copied().unwrap_or(0);
    outcome.dealt = blows.dealt().clone();
    for (name, done) in under_way.steps() {
        outcome.steps.insert(name.to_owned(), so_far(steps, name) + done);
    }
    for (name, took) in under_way.longest() {
        outcome.longest_ms.insert(name.to_owned(), took.max(so_far(longest, name)));
    }
}

fn tell(all: &[Outcome], total: &Dealt) {
    let failed = all.iter().filter(|outcome| outcome.error.is_some()).count();
    let steps: u64 = all.iter().flat_map(|outcome| outcome.steps.values()).sum();
    let seconds: f64 = all.iter().map(|outcome| outcome.seconds).sum();
    println!("{} rounds, {failed} failed; {steps} steps of programs in {seconds:.0} s", all.len());
    println!("{total}");
    for (point, times) in &total.at_points {
        println!("  {times:5} at {point}");
    }
    watch::tell(all.iter().flat_map(|outcome| &outcome.samples));
    for outcome in all {
        watch::tell_at_rest(&outcome.at_rest);
    }
}
