//! The rows about more data than memory: programs in memory cgroups of their own, and a mount whose budget
//! is a part of what they write. All that the daemon uses is watched: the arena's blocks, and what its own
//! cgroup is charged with beside them.

use super::ahead::REVALIDATE;
use super::drain::{self, Way};
use super::rate;
use crate::bench::cgroup::{Done, Worker};
use crate::bench::pairs;
use crate::bench::report::{self, Bar, Outcome};
use crate::bench::{Context, memory, work, zipf};
use crate::cli::Doing;
use crate::interrupt;
use crate::scratch::{self, Mounted};
use aimss_engine::backing::SlowModel;
use aimss_fs::config::MountConfig;
use aimss_measure::cgroup::Group;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Files are so many times the budget.
const TIMES: u64 = 4;
const BUDGET_BYTES: u64 = 1 << 30;
/// Of the machine, for the budget of all of it.
const MEMORY_SHARE: u64 = 10;
/// What a program may use itself.
const PROGRAM_BYTES: u64 = 256 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(10);
const DRAIN_DELAY: Duration = Duration::from_secs(1);
const FOREGROUND_BYTES: u64 = 1 << 30;

/// `larger`.
pub fn larger(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let budget = context.scaled_to_memory(BUDGET_BYTES, MEMORY_SHARE);
    let bytes = budget * TIMES;
    let scratch = context.disk("fio")?;
    let Some(engine) = drain::engine(&scratch) else {
        return Ok(vec![Outcome::skipped(Bar::AtLeast(0.85), "fio (`apt install fio`)")]);
    };
    let mut outcomes = Vec::new();
    for (doing, case) in [(Doing::Write, "write"), (Doing::Append, "append"), (Doing::Update, "update")] {
        let (mut written, mut read, mut longest, mut most) = (Vec::new(), Vec::new(), Duration::ZERO, 0);
        let mut modes = String::new();
        for _ in 0..context.pairs {
            interrupt::check()?;
            memory::touch(budget * 2)?;
            let ground = Ground::new(context, budget)?;
            let path = ground.mount.point().join("large");
            let done = ground.run(doing, &path, bytes)?;
            longest = longest.max(done.longest);
            let theirs = drain::fio(engine, &scratch, bytes, Way::Write)?;
            written.push((rate(bytes, done.took), theirs));
            forget_pages(&ground.mount.backing().join("large"))?;
            let done = ground.run(Doing::Read, &path, bytes)?;
            let theirs = drain::fio(engine, &scratch, bytes, Way::Read)?;
            read.push((rate(bytes, done.took), theirs));
            drain::remove(&scratch);
            modes = report::opens(&ground.mount.status()?.modes).join("; ");
            fs::remove_file(&path)?;
            most = most.max(ground.end()?);
        }
        let note = format!(
            "{TIMES} times a budget of {} MiB; longest write(2) {:.0} ms; used at most {:.0}% of the budget; {modes}",
            budget >> 20,
            longest.as_secs_f64() * 1e3,
            most as f64 / budget as f64 * 100.0
        );
        let figure = |of: &[(f64, f64)], case: String| -> Result<Outcome> {
            Ok(Outcome::against("fio", "GB/s", pairs::of(of)?, Bar::AtLeast(0.85)).case(case))
        };
        outcomes.push(figure(&written, case.into())?.note(note));
        outcomes.push(figure(&read, format!("{case}, read"))?);
    }
    Ok(outcomes)
}

/// `foreground`.
pub fn foreground(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    let fits = context.scaled_to_memory(FOREGROUND_BYTES, MEMORY_SHARE);
    let budget = fits * 2;
    let ground = Ground::new(context, budget)?;
    let (path, stream) = (ground.mount.point().join("fits"), ground.mount.point().join("streamed"));
    let streamer = Group::new("stream", Some(PROGRAM_BYTES))?;
    let mut rates = Vec::new();
    // Its size is known from then on.
    ground.run(Doing::Hold, &path, fits)?;
    for _ in 0..context.pairs {
        interrupt::check()?;
        memory::touch(budget)?;
        ground.mount.drain()?;
        let alone = ground.run(Doing::Hold, &path, fits)?;
        ground.mount.drain()?;
        let mut other = Worker::start(&streamer, Doing::Append, &stream, budget * TIMES)?;
        while fs::metadata(&stream).map_or(0, |file| file.len()) < budget && other.is_running() {
            std::thread::sleep(Duration::from_millis(50));
        }
        let beside = ground.run(Doing::Hold, &path, fits)?;
        let still = other.is_running();
        drop(other);
        anyhow::ensure!(still, "the stream ended before the foreground's write did");
        fs::remove_file(&stream)?;
        rates.push((rate(fits, beside.took), rate(fits, alone.took)));
    }
    fs::remove_file(&path)?;
    let most = ground.end()?;
    let against = Outcome::against("alone", "GB/s", pairs::of(&rates)?, Bar::AtLeast(0.5));
    Ok(vec![against.note(format!(
        "{} MiB written while another program streams {} MiB; used at most {:.0}% of a budget of {} MiB",
        fits >> 20,
        (budget * TIMES) >> 20,
        most as f64 / budget as f64 * 100.0,
        budget >> 20
    ))])
}

/// `zipf`.
pub fn zipf(context: &Context, _: &Mounted) -> Result<Vec<Outcome>> {
    const READERS: u64 = 4;
    let budget = BUDGET_BYTES;
    let files = (budget / 2 * 3).div_ceil(zipf::FILE_BYTES);
    let opens = context.scaled(100_000);
    let trace = opens * READERS;
    let (backing, point) = (context.disk("zipf")?, context.disk("zipf-mount")?);
    let block = work::buffer(zipf::FILE_BYTES as usize);
    for number in 0..files {
        let path = zipf::path(&backing, number);
        if number % 100 == 0 {
            fs::create_dir_all(path.parent().context("a path in a directory")?)?;
        }
        work::write(&path, zipf::FILE_BYTES, &block)?;
    }
    let plain = scratch::settings(&backing, &point, DRAIN_DELAY);
    let model = SlowModel { latency: Duration::from_millis(1), ..context.model };
    let config = MountConfig { memory_bytes: budget, slow: Some(model), revalidate: REVALIDATE, ..plain };
    let ground = Ground::start(&config)?;
    let readers: Vec<Worker> = (0..READERS)
        .map(|reader| {
            Worker::start_as(&ground.program, Doing::Zipf, ground.mount.point(), files, &[reader, opens])
        })
        .collect::<Result<_>>()?;
    // The first quarter fills the memory.
    let seen = || -> Result<(u64, u64, u64)> {
        let status = ground.mount.status()?;
        let came_in = status.fetch.causes.values().map(|cause| cause.files).sum();
        Ok((status.cache.hits, status.cache.misses, came_in))
    };
    let filled = loop {
        interrupt::check()?;
        let now = seen()?;
        if now.0 + now.1 >= opens * READERS / 4 {
            break now;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    for reader in readers {
        reader.finish()?;
    }
    let (hits, misses, came_in) = seen()?;
    let (hits, misses, came_in) = (hits - filled.0, misses - filled.1, came_in - filled.2);
    let opens = hits + misses;
    let ceiling = ground.mount.status()?.memory.ceiling;
    let most = ground.end()?;
    // As a simulation counts: what several wait for at once comes in once, and what is fetched for nothing counts.
    let spared = 100.0 - came_in as f64 / opens as f64 * 100.0;
    Ok(vec![Outcome::value("%", hits as f64 / opens as f64 * 100.0, Bar::Stated).note(format!(
        "of {opens} opens found their file in memory, {spared:.2}% brought none in, which is what a simulation \
         calls a hit; policies on the same trace: `cache_policies {ceiling} {trace}`; used at most {:.0}% of the \
         budget",
        most as f64 / budget as f64 * 100.0
    ))])
}

/// A mount with a small budget whose use of memory is watched, and a group for the program.
struct Ground {
    mount: Mounted,
    program: Group,
    watch: Watch,
}

impl Ground {
    fn new(context: &Context, budget: u64) -> Result<Self> {
        let (backing, point) = (context.disk("pressure")?, context.disk("pressure-mount")?);
        let plain = scratch::settings(&backing, &point, DRAIN_DELAY);
        Self::start(&MountConfig { memory_bytes: budget, ..plain })
    }

    fn start(config: &MountConfig) -> Result<Self> {
        let mount = Mounted::start(config).context("the scratch mount with a small budget failed")?;
        let group = Group::new("aimss-bench-daemon", None)?;
        for process in mount.keeper_pid().into_iter().chain([mount.daemon_pid()]) {
            group.take(process)?;
        }
        let watch = Watch::start(group, mount.arena());
        Ok(Self { mount, program: Group::new("aimss-bench-program", Some(PROGRAM_BYTES))?, watch })
    }

    fn run(&self, doing: Doing, path: &Path, bytes: u64) -> Result<Done> {
        Worker::start(&self.program, doing, path, bytes)?.finish()
    }

    /// Unmounts; the most that was used.
    fn end(self) -> Result<u64> {
        let (most, _group) = self.watch.end();
        self.mount.unmount()?;
        Ok(most)
    }
}

/// Looks at what a daemon uses.
struct Watch {
    /// Removed when the daemon has left it.
    group: Arc<Group>,
    most: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Watch {
    fn start(group: Group, arena: PathBuf) -> Self {
        let group = Arc::new(group);
        let watched = group.clone();
        let (most, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, ended) = (most.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let arena = rustix::fs::statvfs(&arena).map_or(0, |s| (s.f_blocks - s.f_bfree) * s.f_frsize);
                seen.fetch_max(arena + watched.bytes_without_shared().unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(LOOK_EVERY);
            }
        });
        Self { group, most, over, thread }
    }

    /// The most that was used, and the group, which goes when it is dropped: after the daemon has ended.
    fn end(self) -> (u64, Arc<Group>) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        (self.most.load(Ordering::Relaxed), self.group)
    }
}

/// What is read next comes from the disk.
fn forget_pages(path: &Path) -> Result<()> {
    let file = fs::File::open(path)?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}
