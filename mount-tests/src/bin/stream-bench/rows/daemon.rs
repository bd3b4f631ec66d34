//! Rows about the daemon's processor time: beside a writer, and with nothing to do.

use super::Figures;
use crate::bench::{Bench, remove};
use crate::ours::open_append;
use crate::worker::Running;
use crate::{processor, records};
use aimss_measure::pairs::median;
use aimss_measure::report::{Bar, Outcome};
use anyhow::Result;
use std::io::Write;
use std::time::{Duration, Instant};

const RECORD_BYTES: usize = 100;
/// The clock is read once in so many records.
const CHECKED_EVERY: usize = 1024;
/// More than a writer makes in five seconds.
const TOUCHED_BYTES: u64 = 1 << 30;
const INDEXER_PERCENT_MAX: f64 = 25.0;
/// The thread that indexes.
const INDEXER: &str = "streams";
/// What is indexed, sealed and flushed behind the writer's last record.
const BEHIND: Duration = Duration::from_secs(2);

const IDLE: Duration = Duration::from_secs(10);
const STREAMS: u64 = 1000;
const READERS: u64 = 100;
const IDLE_PERCENT_MAX: f64 = 0.1;
/// After the last open: what opens cost is not idling.
const SETTLE: Duration = Duration::from_secs(3);

/// `indexer`.
pub fn indexer(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let conditions = format!(
        "one writer, records of {RECORD_BYTES} B, one write(2) each, {} s, no reader; processor \
         time as a share of the writer's: of the thread that indexes, and of the whole daemon, which seals, compresses \
         and copies to the backing; behind: with the {} s after the last record",
        bench.seconds,
        BEHIND.as_secs()
    );
    let bar = Bar::Below(INDEXER_PERCENT_MAX);
    let Some(daemon) = bench.ours.daemon()? else {
        return Ok(Figures { outcomes: vec![Outcome::skipped(bar, "there is no daemon")], conditions });
    };
    let stream = bench.ours.at("indexer.stream");
    let record = records::line(RECORD_BYTES);
    let (mut beside, mut with_rest, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.pairs {
        aimss_measure::memory::touch(TOUCHED_BYTES)?;
        let mut file = open_append(&stream)?;
        let times =
            || Ok::<_, anyhow::Error>((processor::of_threads(daemon, INDEXER)?, processor::of(daemon)?));
        let (before, own_before) = (times()?, processor::own());
        let start = Instant::now();
        let mut count = 0;
        while start.elapsed().as_secs() < bench.seconds {
            for _ in 0..CHECKED_EVERY {
                file.write_all(&record)?;
            }
            count += CHECKED_EVERY;
        }
        rates.push(count as f64 / start.elapsed().as_secs_f64());
        let own = processor::own() - own_before;
        let shares = || times().map(|now| [now.0 - before.0, now.1 - before.1].map(|of| of / own * 100.0));
        beside.push(shares()?);
        std::thread::sleep(BEHIND);
        with_rest.push(shares()?);
        drop(file);
        remove(&stream)?;
    }
    let outcome = |shares: &[[f64; 2]], whose: usize, bar| {
        Outcome::value("%", median(shares.iter().map(|share| share[whose]).collect()), bar)
    };
    let outcomes = vec![
        outcome(&beside, 0, bar).note(format!("the writer's rate: {:.0} /s", median(rates))),
        outcome(&with_rest, 0, Bar::Stated).case("behind"),
        outcome(&beside, 1, Bar::Stated).case("daemon"),
        outcome(&with_rest, 1, Bar::Stated).case("daemon behind"),
    ];
    Ok(Figures { outcomes, conditions })
}

/// `idle`.
pub fn idle(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let (streams, readers) = (bench.scaled(STREAMS), bench.scaled(READERS));
    let conditions = format!(
        "a process holds {streams} empty streams open for appending and waits in {readers} reads of groups; \
         the daemon's processor time over {} s, of one core",
        IDLE.as_secs()
    );
    let bar = Bar::Below(IDLE_PERCENT_MAX);
    let Some(daemon) = bench.ours.daemon()? else {
        return Ok(Figures { outcomes: vec![Outcome::skipped(bar, "there is no daemon")], conditions });
    };
    let dir = bench.ours.at("idle");
    std::fs::create_dir(&dir)?;
    let counts = [streams.to_string(), readers.to_string()];
    let holder = Running::start(&["hold".as_ref(), dir.as_os_str(), counts[0].as_ref(), counts[1].as_ref()])?;
    std::thread::sleep(SETTLE);
    let mut shares = Vec::new();
    for _ in 0..bench.pairs {
        let before = processor::of(daemon)?;
        std::thread::sleep(IDLE);
        shares.push((processor::of(daemon)? - before) / IDLE.as_secs_f64() * 100.0);
    }
    let waiting = std::fs::read_dir(format!("/proc/{}/task", holder.pid()))?.count() - 1;
    drop(holder);
    std::fs::remove_dir_all(&dir)?;
    let outcome = Outcome::value("%", median(shares), bar).note(format!("{waiting} readers waited"));
    Ok(Figures { outcomes: vec![outcome], conditions })
}
