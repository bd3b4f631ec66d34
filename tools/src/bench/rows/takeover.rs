//! Rows about the death of the daemon: what those feel who work on the mount, and how soon it can be had back when its
//! keeper died, too.

use crate::bench::pairs::median;
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, work};
use crate::scratch::{self, Mounted};
use crate::{interrupt, size};
use aimss_fs::config::MountConfig;
use anyhow::Result;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const FILES: u64 = 100_000;
const OPEN: u64 = 10_000;
const KILLS: u64 = 100;
/// Where no daemon stands ready.
const COLD_KILLS: u64 = 20;
/// For one to be so.
const STANDBY_WAIT: Duration = Duration::from_secs(30);
/// Between deaths.
const REST: Duration = Duration::from_millis(300);
const HELD_BYTES: u64 = 8 << 30;
/// Of the machine's memory.
const HELD_SHARE: u64 = 40;
/// Bytes of a file that fills the arena.
const FILLER_BYTES: u64 = 64 << 20;
/// Read and written in passthrough, again and again.
const WORKED_ON_BYTES: u64 = 16 << 20;

/// `takeover`: how long operations that need the daemon take when it is killed, with 100,000 files known and 10,000 open,
/// and how long reads and writes in passthrough.
pub fn pause(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let mut outcomes = pause_with(context, true)?;
    outcomes.extend(pause_with(context, false)?);
    Ok(outcomes)
}

/// `standby`: a second daemon stands ready at each death, as it does in a mount that was not killed a second before.
fn pause_with(context: &Context, standby: bool) -> Result<Vec<Outcome>> {
    let name = if standby { "takeover" } else { "takeover-cold" };
    let (backing, point) = (context.disk(name)?, context.disk(&format!("{name}-mount"))?);
    let settings = MountConfig { standby, ..scratch::settings(&backing, &point, scratch::NO_DRAIN) };
    let mut mount = Mounted::start(&settings)?;
    let (files, open) = (context.scaled(FILES), context.scaled(OPEN));
    let made = work::create_tree(&point, files, &work::buffer(work::SMALL))?;
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    let held: Vec<File> = made.iter().take(open as usize).map(File::open).collect::<std::io::Result<_>>()?;
    let (ours, bare) = (point.join("worked-on"), context.shm()?.join("worked-on"));
    let over = AtomicBool::new(false);
    let gaps = [Longest::default(), Longest::default()];
    let around = std::thread::scope(|scope| -> Result<_> {
        let workers = [(&ours, &gaps[0]), (&bare, &gaps[1])]
            .map(|(path, gap)| scope.spawn(|| work_on(path, gap, &over)));
        let kills = context.scaled(if standby { KILLS } else { COLD_KILLS });
        let around = around_deaths(&mut mount, standby, &made[0], kills, &gaps, &over);
        over.store(true, Ordering::Relaxed);
        for worker in workers {
            worker.join().expect("no panic")?;
        }
        around
    });
    let around = around?;
    drop(held);
    let mut pauses: Vec<Duration> = around.iter().map(|death| death[0]).collect();
    pauses.sort_unstable();
    let [ours, bare] = gaps.map(|gap| gap.ever());
    let more = around.iter().map(|death| milliseconds(death[1]) - milliseconds(death[2])).collect();
    let at = |share: f64| pauses[((pauses.len() as f64 * share).ceil() as usize).clamp(1, pauses.len()) - 1];
    let kills = pauses.len();
    let restarts = mount.status()?.daemon.restarts;
    drop(mount);
    if !standby {
        let cold = Outcome::value("ms", milliseconds(at(0.5)), Bar::Stated).case("cold").note(format!(
            "the same without one that stands ready, {kills} SIGKILLs; the longest {:.0} ms",
            milliseconds(at(1.0))
        ));
        return Ok(vec![cold]);
    }
    Ok(vec![
        Outcome::value("ms", milliseconds(at(0.5)), Bar::Below(60.0)).case("p50"),
        Outcome::value("ms", milliseconds(at(0.99)), Bar::Below(250.0)).case("p99").note(format!(
            "{kills} SIGKILLs ({restarts} restarts), {files} files known, {open} open; the longest {:.0} ms",
            milliseconds(at(1.0))
        )),
        Outcome::value("ms", milliseconds(ours.saturating_sub(bare)), Bar::AtMost(10.0)).case("passthrough").note(
            format!(
                "the longest read and write of 4 KiB of an open file took {:.1} ms, on a bare tmpfs beside it {:.1} ms; \
                 around one death {:+.1} ms (median)",
                milliseconds(ours),
                milliseconds(bare),
                median(more)
            ),
        ),
    ])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The longest that something took, in nanoseconds.
#[derive(Debug, Default)]
struct Longest {
    ever: AtomicU64,
    since_asked: AtomicU64,
}

impl Longest {
    fn took(&self, time: Duration) {
        for longest in [&self.ever, &self.since_asked] {
            longest.fetch_max(time.as_nanos() as u64, Ordering::Relaxed);
        }
    }

    /// Since this was asked the last time.
    fn take(&self) -> Duration {
        Duration::from_nanos(self.since_asked.swap(0, Ordering::Relaxed))
    }

    fn ever(&self) -> Duration {
        Duration::from_nanos(self.ever.load(Ordering::Relaxed))
    }
}

/// Waits until a second daemon stands ready.
pub(super) fn wait_for_standby(mount: &Mounted) -> Result<()> {
    let begun = Instant::now();
    while mount.status()?.keeper.standby.is_none() {
        anyhow::ensure!(begun.elapsed() < STANDBY_WAIT, "no second daemon stands ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The longest operation that needs the daemon around each of `kills` deaths, and the longest of those with `gaps`.
fn around_deaths(
    mount: &mut Mounted,
    standby: bool,
    asked: &Path,
    kills: u64,
    gaps: &[Longest; 2],
    over: &AtomicBool,
) -> Result<Vec<[Duration; 3]>> {
    let longest = Longest::default();
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| -> Result<()> {
            let mut none = [0; 8];
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                // The kernel keeps no extended attributes: each is a request.
                let got = rustix::fs::getxattr(asked, "user.none", &mut none);
                anyhow::ensure!(got == Err(rustix::io::Errno::NODATA), "an error reached a program: {got:?}");
                longest.took(begun.elapsed());
            }
            Ok(())
        });
        let mut all = Vec::new();
        let killed = (0..kills).try_for_each(|_| -> Result<()> {
            interrupt::check()?;
            if standby {
                wait_for_standby(mount)?;
            }
            std::thread::sleep(REST);
            for longest in [&longest, &gaps[0], &gaps[1]] {
                longest.take();
            }
            mount.kill_daemon()?;
            // Once it is ready, whoever waited is answered in turn.
            std::thread::sleep(REST);
            all.push([longest.take(), gaps[0].take(), gaps[1].take()]);
            Ok(())
        });
        over.store(true, Ordering::Relaxed);
        worker.join().expect("no panic")?;
        killed?;
        Ok(all)
    })
}

/// Reads and writes 4 KiB of an open file again and again, until it is `over`.
fn work_on(path: &Path, longest: &Longest, over: &AtomicBool) -> Result<()> {
    let mut block = work::buffer(work::SMALL);
    work::write(path, WORKED_ON_BYTES, &block)?;
    let file = File::options().read(true).write(true).open(path)?;
    let mut at = 0;
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        file.read_exact_at(&mut block, at)?;
        file.write_all_at(&block, at)?;
        longest.took(begun.elapsed());
        at = (at + work::SMALL as u64) % WORKED_ON_BYTES;
        // The daemon needs a core, too.
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// `remount`: how long `aimss mount` and the first read take when daemon and keeper were both killed, for much and for
/// little in memory.
pub fn remount(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let much = context.scaled_to_memory(HELD_BYTES, HELD_SHARE);
    let files = context.scaled(FILES);
    [much, much / 8].into_iter().map(|bytes| remount_with(context, bytes, files)).collect()
}

fn remount_with(context: &Context, bytes: u64, files: u64) -> Result<Outcome> {
    let name = format!("remount-{}", bytes >> 20);
    let (backing, point) = (context.disk(&name)?, context.disk(&format!("{name}-mount"))?);
    let settings = scratch::settings(&backing, &point, scratch::NO_DRAIN);
    let mount = Mounted::start(&settings)?;
    let made = work::create_tree(&point, files, &work::buffer(work::SMALL))?;
    let block = work::buffer(1 << 20);
    for number in 0..bytes.div_ceil(FILLER_BYTES) {
        interrupt::check()?;
        work::write(&point.join(format!("filler-{number}")), FILLER_BYTES, &block)?;
    }
    mount.crash()?;
    let begun = Instant::now();
    let mount = Mounted::start(&settings)?;
    let ready = begun.elapsed();
    let content = fs::read(&made[0])?;
    let read = begun.elapsed();
    anyhow::ensure!(content.len() == work::SMALL, "a file came back with {} bytes", content.len());
    let status = mount.status()?;
    drop(mount);
    Ok(Outcome::value("s", read.as_secs_f64(), Bar::Below(1.0)).case(size::human(bytes)).note(format!(
        "ready after {:.2} s; {} dirty in memory, {} files not on the backing",
        ready.as_secs_f64(),
        size::human(status.memory.dirty),
        status.drain.files
    )))
}
