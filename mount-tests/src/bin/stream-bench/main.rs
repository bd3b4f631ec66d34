//! `stream-bench`: streams on a mount beside Redis streams and NATS JetStream.
//!
//!     cargo run --release -p aimss-mount-tests --bin stream-bench -- --mount DIR
//!
//! 1. A [`rows::Row`] is one promise of the streams: a name, and a function that measures both sides in
//!    alternating pairs. Medians, ratios, touched memory and the table are those of `aimss bench`
//!    ([`aimss_measure`]).
//! 2. Our side is what a user has: files on a mount ([`ours`]), and the `aimss` binary of the same target
//!    directory.
//! 3. Peers ([`peers`]) are started here and ended at the end unless their address is given, and are spoken
//!    to by their own clients, in the way that is fastest there: commands packed beforehand, pipelines,
//!    batches.
//! 4. What must be another process is a copy of this one ([`worker`]).
//! 5. Each row says in one line what exactly it ran.
//!
//! It is a binary beside the tests on real mounts, so that `aimss` doesn't carry the clients. Deliberately
//! not here: anything of `engine` or `fs`. A bar that isn't met is shown, and the exit code stays 0.

mod bench;
mod cli;
mod interval;
mod ours;
mod peers;
mod processor;
mod records;
mod rows;
mod worker;

use aimss_measure::report::{self, Measured};
use anyhow::{Context as _, Result, ensure};
use bench::Bench;
use clap::Parser;
use serde::Serialize;
use std::process::ExitCode;

/// The JSON.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    processors: usize,
    pairs: usize,
    quick: bool,
    stand_in: bool,
    peers: Vec<String>,
    rows: Vec<Measured>,
}

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let ended = match &cli.worker {
        Some(task) => worker::run(task),
        None => run(&cli.bench),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stream-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &cli::Bench) -> Result<()> {
    let rows = rows::chosen(&asked.only)?;
    if asked.list {
        for row in rows {
            println!("{:<14} {}", row.name, row.what);
        }
        return Ok(());
    }
    let mut bench = Bench::new(asked)?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        pairs: bench.pairs,
        quick: asked.quick,
        stand_in: !bench.ours.is_mount(),
        peers: bench.peers()?,
        rows: Vec::new(),
    };
    if report.stand_in {
        eprintln!("stream-bench: no aimss mount there: a stand-in that only tries the harness");
    }
    if !asked.json {
        println!(
            "aimss {}, {}, Linux {}, {} processors; medians of {} alternating pairs",
            report.version,
            report.peers.join(", "),
            report.kernel,
            report.processors,
            report.pairs
        );
        println!("{}", report::heading());
    }
    let mut failed = Vec::new();
    for row in rows {
        let figures = match (row.run)(&mut bench).with_context(|| format!("the row {} failed", row.name)) {
            Ok(figures) => figures,
            Err(error) => {
                // The other rows may take an hour and be well: go on, and fail at the end.
                eprintln!("stream-bench: {error:#}");
                failed.push(row.name);
                continue;
            }
        };
        let measured = Measured {
            row: row.name,
            what: row.what,
            outcomes: figures.outcomes,
            conditions: figures.conditions,
            modes: report::Modes::new(),
            limits: Vec::new(),
        };
        if !asked.json {
            print!("{}", report::lines(&measured));
        }
        report.rows.push(measured);
    }
    if asked.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    ensure!(failed.is_empty(), "rows that failed, for the reasons above: {}", failed.join(", "));
    Ok(())
}
