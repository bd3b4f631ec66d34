//! `aimss bench`: measures the rows that were chosen, and shows them as they come.

use crate::bench::report::{self, Measured};
use crate::bench::{self, Context, rows};
use crate::{cli, interrupt, scratch, size};
use anyhow::{Result, ensure};
use serde::Serialize;

/// The JSON.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    kernel: String,
    processors: usize,
    memory: u64,
    pairs: usize,
    quick: bool,
    rows: Vec<Measured>,
}

/// Measures as `asked`.
pub fn run(asked: &cli::Bench) -> Result<()> {
    let rows = rows::chosen(&asked.only)?;
    if asked.list {
        for row in rows {
            println!("{:<14} {}", row.name, row.what);
        }
        return Ok(());
    }
    interrupt::note()?;
    let context = Context::new(asked)?;
    let dir = scratch::default_dir(asked.dir.as_deref());
    if scratch::in_memory(&dir) {
        eprintln!(
            "aimss: {} is in memory, so nothing here is about a disk; give --dir on one",
            dir.display()
        );
    }
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        memory: size::machine_bytes(),
        pairs: context.pairs,
        quick: asked.quick,
        rows: Vec::new(),
    };
    if !asked.json {
        let Report { kernel, processors, memory, pairs, .. } = &report;
        println!(
            "aimss {}, Linux {kernel}, {processors} processors, {}; medians of {pairs} alternating pairs",
            report.version,
            size::human(*memory)
        );
        println!("{}", report::heading());
    }
    let mut failed = Vec::new();
    for row in rows {
        let measured = match bench::measure(&context, row) {
            Ok(measured) => measured,
            Err(error) => {
                interrupt::check()?;
                // The other rows may take an hour and be well: go on, and fail at the end.
                eprintln!("aimss: {error:#}");
                failed.push(row.name);
                continue;
            }
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
