//! The row about the push: how old a record is when a blocked reader has it.
//!
//! The sides alternate in blocks. A block has a reader process of its own that is blocked in read(2) or XREAD
//! before the first record; each record carries the time right before it is written. Percentiles are over all
//! blocks, and the ratio is that of the percentiles: a block alone has too few records for its p99.

use super::Figures;
use crate::bench::{Bench, remove};
use crate::ours::open_append;
use crate::peers::redis::{Server, send, xadd};
use crate::worker::{Running, stamped};
use aimss_measure::pairs::Medians;
use aimss_measure::report::{Bar, Outcome};
use anyhow::{Result, ensure};
use std::io::Write;
use std::time::{Duration, Instant};

const BLOCKS: usize = 10;
/// Of each block, not counted: the first records meet cold caches, and a server that just took a connection.
const WARM_UP: usize = 10;
const KEY: &str = "bench-latency";
/// After `ready` the reader still has to enter its read.
const SETTLE: Duration = Duration::from_millis(50);
/// Milliseconds between records, and how many records in all: 5 and 10 seconds a side.
const PACES: [(u64, u64); 2] = [(1, 5000), (20, 500)];

/// `latency`.
pub fn run(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let mut outcomes = Vec::new();
    for (pace_ms, count) in PACES {
        let pace = Duration::from_millis(pace_ms);
        let count = bench.scaled(count).div_ceil(BLOCKS as u64) as usize;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            ours.append(&mut through_file(bench, count, pace)?);
            if let Some(redis) = &bench.redis {
                theirs.append(&mut through_redis(redis, count, pace)?);
            }
        }
        for percent in [50, 99] {
            let case = format!("{pace_ms}ms p{percent}");
            let ours = percentile(&mut ours, percent);
            let bar = Bar::AtMost(1.0);
            outcomes.push(if theirs.is_empty() {
                Outcome::alone("us", ours, bar, "there is no Redis").case(case)
            } else {
                let theirs = percentile(&mut theirs, percent);
                let medians = Medians { ours, theirs, ratio: ours / theirs };
                Outcome::against("Redis", "us", medians, bar).case(case)
            });
        }
    }
    let conditions = format!(
        "records of 100 B, 1 ms or 20 ms apart, each with CLOCK_MONOTONIC in it; the reader is another \
         process, blocked; Redis: XADD and XREAD BLOCK 0 over {}; {BLOCKS} blocks in turn, percentiles over \
         all",
        bench.redis.as_ref().map_or("-", Server::way)
    );
    Ok(Figures { outcomes, conditions })
}

fn through_file(bench: &Bench, count: usize, pace: Duration) -> Result<Vec<u64>> {
    let stream = bench.ours.at("latency.stream");
    bench.ours.create(&stream, "")?;
    let group = bench.ours.group(&stream, "reader", false);
    let total = (count + WARM_UP).to_string();
    let reader = Running::start(&["ages".as_ref(), group.as_os_str(), total.as_ref()])?;
    let mut file = open_append(&stream)?;
    paced(count + WARM_UP, pace, |record| Ok(file.write_all(record)?))?;
    let ages = counted(reader, count)?;
    remove(&stream)?;
    Ok(ages)
}

fn through_redis(redis: &Server, count: usize, pace: Duration) -> Result<Vec<u64>> {
    let mut connection = redis.connect()?;
    let total = (count + WARM_UP).to_string();
    let reader = Running::start(&["redis-ages", redis.url(), KEY, &total])?;
    paced(count + WARM_UP, pace, |record| {
        send(&mut connection, &xadd(KEY, None, record).get_packed_command(), 1)
    })?;
    let ages = counted(reader, count)?;
    redis.forget(KEY)?;
    Ok(ages)
}

/// Writes `count` records, `pace` apart.
fn paced(count: usize, pace: Duration, mut write: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    std::thread::sleep(SETTLE);
    let mut due = Instant::now();
    for _ in 0..count {
        due += pace;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        write(&stamped())?;
    }
    Ok(())
}

fn counted(reader: Running, count: usize) -> Result<Vec<u64>> {
    let mut ages = reader.numbers()?;
    ensure!(ages.len() >= count, "{} records came instead of {count}", ages.len());
    Ok(ages.split_off(ages.len() - count))
}

/// In microseconds.
fn percentile(ages: &mut [u64], percent: usize) -> f64 {
    ages.sort_unstable();
    ages[(ages.len() - 1) * percent / 100] as f64 / 1e3
}
