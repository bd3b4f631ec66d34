//! The sweep of the paper: records of 100 B and 2 KiB, chunks of 4, 32 and 128 KiB, 4 partitions, 1, 2 and 4
//! producers with as many consumers; what is counted is records consumed, all consumers together, each
//! second.
//!
//! 1. A [`Side`] is one system. Each of its producers and consumers is a thread of this process, with files
//!    or a connection of its own, so that the processor time of the clients is this process's.
//! 2. A chunk is what a producer gathers before it asks: one write(2); one pipeline; one batch of publishes
//!    whose acknowledgements are awaited. Chunks go to the partitions in turn. A consumer asks for a chunk
//!    too.
//! 3. Consumers acknowledge what they had, all in the way that costs the least there.
//! 4. Producers stop while consumers are [`WINDOW_BYTES`] behind ([`Flow`]): otherwise a peer whose memory is
//!    bounded would throw away what was not consumed, and a side that isn't would be measured by its memory.
//! 5. Sides alternate. The first second of a run is dropped, and each other second is one sample; intervals
//!    come from [`crate::interval`]. Processor time is of the same seconds: the server's and this process's.

mod files;
mod flow;
mod nats;
mod redis;

use super::Figures;
use crate::bench::Bench;
use crate::interval::{Pair, interval, ratio};
use crate::processor;
use aimss_measure::pairs::{Medians, median};
use aimss_measure::report::{Bar, Outcome};
use anyhow::{Context as _, Result, ensure};
use flow::Flow;
use std::time::{Duration, Instant};

const RECORDS: [usize; 2] = [100, 2048];
const CHUNKS: [usize; 3] = [4 << 10, 32 << 10, 128 << 10];
const PRODUCERS: [usize; 3] = [1, 2, 4];
const PARTITIONS: usize = 4;
/// Of all partitions together.
const WINDOW_BYTES: usize = 64 << 20;
/// Kept by a peer of each partition: twice what the window could put into one of them.
const KEPT_BYTES: usize = 2 * WINDOW_BYTES;
const TOUCHED_BYTES: u64 = 512 << 20;

/// One combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    record: usize,
    chunk: usize,
    producers: usize,
}

impl Cell {
    fn all() -> impl Iterator<Item = Self> {
        RECORDS.into_iter().flat_map(|record| {
            CHUNKS.into_iter().flat_map(move |chunk| {
                PRODUCERS.into_iter().map(move |producers| Self { record, chunk, producers })
            })
        })
    }

    fn records_a_chunk(&self) -> usize {
        (self.chunk / self.record).max(1)
    }

    /// How many records a peer keeps of each partition.
    fn kept(&self) -> usize {
        KEPT_BYTES / self.record
    }

    /// The partitions of a consumer: each has as many, and of one partition there is one consumer.
    fn partitions(&self, consumer: usize) -> impl Iterator<Item = usize> {
        (consumer..PARTITIONS).step_by(self.producers)
    }

    fn name(&self) -> String {
        let record =
            if self.record < 1024 { format!("{}B", self.record) } else { format!("{}K", self.record >> 10) };
        format!("{record} {}K {}p", self.chunk >> 10, self.producers)
    }

    fn code(&self) -> String {
        format!("{}:{}:{}", self.record, self.chunk, self.producers)
    }
}

/// One system. `produce` and `consume` run on threads of their own until the flow ends.
trait Side: Sync {
    fn name(&self) -> &'static str;
    /// Empty partitions, and a group at the start of each.
    fn prepare(&self, cell: &Cell) -> Result<()>;
    fn produce(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()>;
    fn consume(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()>;
    fn clean(&self) -> Result<()>;
    /// The server's process, if it is known.
    fn server(&self) -> Result<Option<i32>>;
}

/// What one run gave.
struct Run {
    per_second: Vec<f64>,
    processor_seconds_a_gb: Option<f64>,
}

/// `sweep`.
pub fn run(bench: &mut Bench) -> Result<Figures> {
    let bench = &*bench;
    for cell in &bench.cells {
        ensure!(Cell::all().any(|known| known.code() == *cell), "there is no cell {cell}; try 100:4096:1");
    }
    let ours = files::Files { ours: &bench.ours, options: &bench.stream_options };
    let mut peers: Vec<Box<dyn Side + '_>> = Vec::new();
    peers.extend(bench.redis.as_ref().map(|server| Box::new(redis::Streams { server }) as Box<dyn Side>));
    peers.extend(bench.nats.as_ref().map(|server| Box::new(nats::JetStream { server }) as Box<dyn Side>));
    let mut outcomes = Vec::new();
    for cell in Cell::all().filter(|cell| bench.cells.is_empty() || bench.cells.contains(&cell.code())) {
        let mut own_runs = Vec::new();
        let mut their_runs: Vec<Vec<Run>> = peers.iter().map(|_| Vec::new()).collect();
        for _ in 0..bench.pairs {
            own_runs.push(measure(&ours, &cell, bench.seconds)?);
            for (peer, runs) in peers.iter().zip(&mut their_runs) {
                runs.push(measure(peer.as_ref(), &cell, bench.seconds)?);
            }
        }
        for (peer, runs) in peers.iter().zip(&their_runs) {
            outcomes.append(&mut compared(&cell, peer.name(), &own_runs, runs));
        }
    }
    let conditions = format!(
        "4 partitions, producers and as many consumers as threads, line framing, {} s a run, the first \
         dropped; a consumer asks for a chunk; at most {} MiB not yet consumed; streams: {}; Redis: XADD \
         MAXLEN ~ pipelined, XREADGROUP + XACK of the last batch in one pipeline, {}; NATS: memory storage, \
         max_bytes, 1 replica, publishes of a chunk with acks awaited, pull consumers, ack of the last of a \
         batch (AckAll); both keep {} MiB a partition; p50 of seconds; brackets: 95%, bootstrap over runs \
         and seconds; CPU of server and clients",
        bench.seconds,
        WINDOW_BYTES >> 20,
        if bench.stream_options.is_empty() { "as opened" } else { &bench.stream_options },
        bench.redis.as_ref().map_or("-", |server| server.way()),
        KEPT_BYTES >> 20
    );
    Ok(Figures { outcomes, conditions })
}

/// Rates, and processor time where both are known.
fn compared(cell: &Cell, who: &str, ours: &[Run], theirs: &[Run]) -> Vec<Outcome> {
    let both = ours.iter().zip(theirs);
    let rates: Vec<Pair> =
        both.clone().map(|(ours, theirs)| (ours.per_second.clone(), theirs.per_second.clone())).collect();
    let costs = |run: &Run| run.processor_seconds_a_gb.map(|seconds| vec![seconds]);
    let costs: Option<Vec<Pair>> = both.map(|(ours, theirs)| Some((costs(ours)?, costs(theirs)?))).collect();
    let mut outcomes = vec![outcome(who, "/s", &rates, Bar::AtLeast(1.0)).case(cell.name())];
    let case = format!("{} cpu", cell.name());
    outcomes.push(match costs {
        Some(costs) => outcome(who, "s/GB", &costs, Bar::AtMost(1.0)).case(case),
        None => Outcome::skipped(Bar::AtMost(1.0), format!("our daemon's or {who}'s process is not known"))
            .case(case),
    });
    outcomes
}

/// Met is judged by the interval's worse end.
fn outcome(who: &str, unit: &'static str, pairs: &[Pair], bar: Bar) -> Outcome {
    let all = |side: fn(&Pair) -> &Vec<f64>| median(pairs.iter().flat_map(side).copied().collect());
    let medians = Medians { ours: all(|pair| &pair.0), theirs: all(|pair| &pair.1), ratio: ratio(pairs) };
    let (low, high) = interval(pairs);
    let worse = if matches!(bar, Bar::AtLeast(_)) { low } else { high };
    let met = Outcome::against(who, unit, Medians { ratio: worse, ..medians }, bar).met;
    let note = format!("[{low:.2}, {high:.2}]");
    Outcome { met, ..Outcome::against(who, unit, medians, bar).note(note) }
}

fn measure(side: &dyn Side, cell: &Cell, seconds: u64) -> Result<Run> {
    side.prepare(cell).with_context(|| format!("{} can't be prepared", side.name()))?;
    aimss_measure::memory::touch(TOUCHED_BYTES)?;
    let flow = Flow::new(WINDOW_BYTES / cell.record);
    let run = std::thread::scope(|scope| {
        let flow = &flow;
        let threads: Vec<_> = (0..cell.producers)
            .flat_map(|number| {
                let consumer = scope.spawn(move || flow.ending(|| side.consume(cell, number, flow)));
                let producer = scope.spawn(move || flow.ending(|| side.produce(cell, number, flow)));
                [consumer, producer]
            })
            .collect();
        let run = flow.ending(|| sample(side, cell, flow, seconds));
        flow.end();
        for thread in threads {
            thread.join().expect("no thread panics")?;
        }
        run
    });
    side.clean()?;
    let run = run.with_context(|| format!("{} in cell {}", side.name(), cell.code()))?;
    let slow = run.per_second.iter().all(|rate| *rate > 0.0);
    ensure!(slow, "{} consumed nothing in a second of cell {}", side.name(), cell.code());
    Ok(run)
}

fn sample(side: &dyn Side, cell: &Cell, flow: &Flow, seconds: u64) -> Result<Run> {
    let server = side.server()?;
    let processor_seconds = || -> Result<Option<f64>> {
        Ok(server.map(processor::of).transpose()?.map(|time| time + processor::own()))
    };
    let start = Instant::now();
    let mut edges = Vec::new();
    let mut first = None;
    for second in 1..=seconds {
        std::thread::sleep((start + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        edges.push((start.elapsed().as_secs_f64(), flow.consumed()));
        if second == 1 {
            first = processor_seconds()?;
        }
        if flow.ended() {
            break;
        }
    }
    let last = processor_seconds()?;
    let per_second = edges.windows(2).map(|edge| (edge[1].1 - edge[0].1) as f64 / (edge[1].0 - edge[0].0));
    let records = edges.last().map_or(0, |edge| edge.1) - edges.first().map_or(0, |edge| edge.1);
    let gigabytes = (records * cell.record as u64) as f64 / 1e9;
    let processor_seconds_a_gb = last.zip(first).map(|(last, first)| (last - first) / gigabytes);
    Ok(Run { per_second: per_second.collect(), processor_seconds_a_gb })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_has_one_consumer() {
        for cell in Cell::all() {
            let mut all: Vec<usize> =
                (0..cell.producers).flat_map(|consumer| cell.partitions(consumer)).collect();
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2, 3]);
        }
        assert_eq!(Cell::all().count(), 18);
    }

    #[test]
    fn the_interval_judges() {
        let ahead = outcome("x", "/s", &[(vec![2.0, 0.5], vec![1.0, 1.0])], Bar::AtLeast(1.0));
        assert_eq!((ahead.met, ahead.note.as_str()), (Some(false), "[0.50, 2.00]"));
    }
}
