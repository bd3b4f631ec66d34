//! The rows, one file each (two about the daemon's processor time share one).

mod append;
mod cold_read;
mod daemon;
mod hot_read;
mod latency;
mod restart;
mod sweep;

use crate::bench::Bench;
use aimss_measure::report::Outcome;
use anyhow::{Context as _, Result};
use std::time::{Duration, Instant};

/// One line of the table of what streams promise.
pub struct Row {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// Measures it.
    pub run: fn(&mut Bench) -> Result<Figures>,
}

/// What a row gave.
pub struct Figures {
    /// The figures.
    pub outcomes: Vec<Outcome>,
    /// What was run, exactly, in one line.
    pub conditions: String,
}

/// All rows, in order.
pub const ROWS: &[Row] = &[
    Row {
        name: "append-100",
        what: "one writer, records of 100 B, one write(2) each, line",
        run: append::line,
    },
    Row { name: "append-write", what: "the same with write framing, through the daemon", run: append::write },
    Row { name: "sweep", what: "records x chunks x producers over 4 partitions, consumed", run: sweep::run },
    Row { name: "hot-read", what: "a group reading 4 GiB just written, in 1 MiB reads", run: hot_read::run },
    Row { name: "latency", what: "append to delivered, one record at a time", run: latency::run },
    Row {
        name: "cold-read",
        what: "a group reading sealed LZ4 segments after a remount",
        run: cold_read::run,
    },
    Row {
        name: "restart",
        what: "first record to a group after a restart, small and big log",
        run: restart::run,
    },
    Row {
        name: "indexer",
        what: "the processor time of indexing beside an appender's",
        run: daemon::indexer,
    },
    Row { name: "idle", what: "the daemon with 1,000 idle streams and 100 readers", run: daemon::idle },
];

/// The rows of these names, in the table's order; all if none is named.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    for name in names {
        let known = ROWS.iter().find(|row| row.name == name);
        known.with_context(|| format!("there is no row '{name}'; --list shows them"))?;
    }
    Ok(ROWS.iter().filter(|row| names.is_empty() || names.iter().any(|name| name == row.name)).collect())
}

/// Touches `memory_bytes` of memory, then times `work`.
fn timed(memory_bytes: u64, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    aimss_measure::memory::touch(memory_bytes)?;
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// A rate a second.
fn per_second(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// GB, 10^9 bytes, a second.
fn gb_per_second(bytes: u64, time: Duration) -> f64 {
    per_second(bytes, time) / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name_in_their_order() {
        assert_eq!(chosen(&[]).expect("all").len(), ROWS.len());
        let two = chosen(&["idle".into(), "sweep".into()]).expect("both are there");
        assert_eq!(two.iter().map(|row| row.name).collect::<Vec<_>>(), ["sweep", "idle"]);
        assert!(chosen(&["speed".into()]).is_err());
    }
}
