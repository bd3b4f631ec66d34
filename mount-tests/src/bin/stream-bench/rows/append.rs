//! Rows about one writer: a logger's life.

use super::{Figures, per_second, timed};
use crate::bench::{Bench, remove};
use crate::ours::open_append;
use crate::peers::redis::{Server, send, xadd};
use crate::records;
use crate::worker::Running;
use aimss_measure::pairs::alternate;
use aimss_measure::report::{Bar, Outcome};
use anyhow::Result;
use std::fs;
use std::io::Write;
use std::path::Path;

const RECORD_BYTES: usize = 100;
const RECORDS: u64 = 1_000_000;
/// Through the daemon, and unpipelined to Redis: at 20,000 to 70,000 a second this is two seconds' work and
/// less.
const RECORDS_ONE_BY_ONE: u64 = 40_000;
const PIPELINE: usize = 64;
const KEY: &str = "bench-append";

/// `append-100`.
pub fn line(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let (stream, plain) = (bench.ours.at("append.stream"), bench.shm("append.log"));
    let count = bench.scaled(RECORDS);
    let ours = || append(&stream, count);
    let theirs = || append(&plain, count);
    let mut outcomes = against_redis(bench, ours, &[(1, Bar::AtLeast(10.0)), (PIPELINE, Bar::AtLeast(1.0))])?;
    let medians = alternate(bench.pairs, ours, theirs)?;
    outcomes.push(Outcome::against("/dev/shm", "/s", medians, Bar::AtLeast(0.6)));

    let mut shares = Vec::new();
    let followed = || {
        bench.ours.create(&stream, "")?;
        let kept = bench.shm("drunk");
        let group = bench.ours.group(&stream, "reader", false);
        let reader = Running::start(&["drink".as_ref(), group.as_os_str(), kept.as_os_str()])?;
        let rate = append_to(&stream, count)?;
        let drunk = fs::read(&kept)?.try_into().map_or(0, u64::from_le_bytes);
        shares.push((drunk as f64 / (count * RECORD_BYTES as u64) as f64 * 100.0).round());
        drop(reader);
        remove(&stream)?;
        Ok(rate)
    };
    let medians = alternate(bench.pairs, followed, theirs)?;
    outcomes.push(Outcome::against("/dev/shm", "/s", medians, Bar::AtLeast(0.35)).case("reader").note(
        format!(
            "a process reads a group all the time, 1 MiB reads; of the bytes it had when the writer ended: \
         {shares:?} %"
        ),
    ));
    let conditions = format!(
        "{count} records of {RECORD_BYTES} B, one write(2) each, line framing, a new stream each time; \
         XADD {} records of one field, packed beforehand, {}",
        bench.scaled(RECORDS_ONE_BY_ONE),
        bench.redis.as_ref().map_or("no Redis", Server::way)
    );
    Ok(Figures { outcomes, conditions })
}

/// `append-write`.
pub fn write(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    let stream = bench.ours.at("append-write.stream");
    let count = bench.scaled(RECORDS_ONE_BY_ONE) * 2;
    let ours = || {
        bench.ours.create(&stream, "--framing write")?;
        let rate = append_to(&stream, count)?;
        remove(&stream)?;
        Ok(rate)
    };
    let outcomes = against_redis(bench, ours, &[(1, Bar::AtLeast(2.0))])?;
    let conditions = format!(
        "{count} records of {RECORD_BYTES} B, one write(2) each, write framing, a new stream each time"
    );
    Ok(Figures { outcomes, conditions })
}

/// Our rate against XADD in pipelines of these depths.
fn against_redis(
    bench: &Bench,
    ours: impl Fn() -> Result<f64>,
    depths: &[(usize, Bar)],
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for &(depth, bar) in depths {
        let case = if depth == 1 { "XADD".to_owned() } else { format!("XADD x{depth}") };
        let Some(redis) = &bench.redis else {
            outcomes.push(Outcome::skipped(bar, "there is no Redis").case(case));
            continue;
        };
        let count = bench.scaled(if depth == 1 { RECORDS_ONE_BY_ONE } else { RECORDS }) / depth as u64;
        let medians = alternate(bench.pairs, &ours, || add(redis, count, depth))?;
        outcomes.push(Outcome::against("Redis", "/s", medians, bar).case(case));
    }
    Ok(outcomes)
}

/// The rate of appending `count` records to a new file, which is removed again.
fn append(path: &Path, count: u64) -> Result<f64> {
    let rate = append_to(path, count)?;
    remove(path)?;
    Ok(rate)
}

fn append_to(path: &Path, count: u64) -> Result<f64> {
    let record = records::line(RECORD_BYTES);
    let time = timed(count * RECORD_BYTES as u64, || {
        let mut file = open_append(path)?;
        for _ in 0..count {
            file.write_all(&record)?;
        }
        Ok(())
    })?;
    Ok(per_second(count, time))
}

/// The rate of `count` times `depth` XADDs, each time in one write, all answers awaited.
fn add(redis: &Server, count: u64, depth: usize) -> Result<f64> {
    let mut connection = redis.connect()?;
    let packed = xadd(KEY, None, &records::line(RECORD_BYTES)).get_packed_command().repeat(depth);
    let total = count * depth as u64;
    // An entry takes little more than its record: Redis packs entries into blocks of 4 KiB.
    let time = timed(total * RECORD_BYTES as u64 * 2, || {
        for _ in 0..count {
            send(&mut connection, &packed, depth)?;
        }
        Ok(())
    })?;
    redis.forget(KEY)?;
    Ok(per_second(total, time))
}
