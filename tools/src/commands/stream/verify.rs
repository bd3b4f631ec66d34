//! `aimss stream verify`: everything is read, and what is wrong is a line each.

use super::{counted, opened, partitions, print};
use crate::{cli, escape};
use aimss_engine::stream::{Damage, Problem};
use anyhow::{Result, bail};
use std::fmt::Write as _;
use std::path::Path;

/// Verifies what was `asked`.
pub fn run(asked: &cli::stream::Verify) -> Result<()> {
    let Some(set) = partitions::find(&asked.path)? else { return verify(&asked.path) };
    set.each(|path| {
        print(&format!("{}: ", escape::path(path)))?;
        verify(path)
    })
}

fn verify(path: &Path) -> Result<()> {
    let shown = escape::path(path);
    let mut stream = opened::open(path)?;
    let verify = |stream: &opened::Opened| {
        stream.log.verify().map_err(|error| opened::unreadable(path, &stream.info.directory, &error))
    };
    let mut problems = verify(&stream)?;
    if stream.live {
        // What a daemon sealed or trimmed under us looks like damage, once.
        if !problems.is_empty() {
            stream.refresh()?;
            problems = verify(&stream)?;
        }
        // A record that is being written is no torn one.
        problems.retain(|problem| problem.damage != Damage::TornTail || stream.info.writers == 0);
    }
    let records = stream.log.end().0.0 - stream.log.first().0.0;
    if problems.is_empty() {
        let segments = counted(stream.log.sealed_segments() as u64, "segment");
        return print(&format!("{}, {segments}, nothing wrong\n", counted(records, "record")));
    }
    print(&lines(&problems))?;
    let lost: u64 = problems.iter().map(|problem| problem.lost.end - problem.lost.start).sum();
    bail!(
        "{} in the log of {shown}, which is in {}; {} of {records} are lost",
        counted(problems.len() as u64, "problem"),
        escape::path(&stream.info.directory),
        counted(lost, "record")
    )
}

fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    for problem in problems {
        writeln!(text, "{}", escape::text(&problem.to_string())).expect("a String takes all");
    }
    text
}
