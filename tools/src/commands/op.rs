//! `aimss op`: operators of mounts, through their daemons.

mod create;

use super::stream::{counted, print, table};
use crate::cli::op::{Ls, OpCommand, Rm};
use crate::{control, escape};
use aimss_engine::operator::{Definition, Partitioning};
use aimss_fs::control::client::{self, Known};
use aimss_fs::control::operators::{OperatorInfo, OperatorRequest};
use anyhow::{Result, bail, ensure};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Does what was `asked`.
pub fn run(asked: &OpCommand) -> Result<()> {
    match asked {
        OpCommand::Create(asked) => create::run(asked),
        OpCommand::Ls(asked) => list(asked),
        OpCommand::Rm(asked) => remove(asked),
    }
}

/// The JSON: a stable schema, to which fields are added.
#[derive(Serialize)]
struct Report {
    operators: Vec<Shown>,
}

/// An operator, and the mount that it is on.
#[derive(Serialize)]
struct Shown {
    mountpoint: PathBuf,
    #[serde(flatten)]
    info: OperatorInfo,
}

/// The mount at `mountpoint`.
fn mount(mountpoint: &Path) -> Result<Known> {
    let resolved = control::resolve(mountpoint)?;
    let Some(known) = control::known_at(&resolved) else {
        bail!("{} is not mounted by aimss; `aimss status` lists what is", escape::path(mountpoint));
    };
    ensure!(known.alive, "{}", control::dead(&known));
    Ok(known)
}

/// Those of one mount, or of all; and sentences of what can't be listed.
fn all(mountpoint: Option<&Path>) -> Result<(Vec<Shown>, Vec<String>)> {
    let mounts = match mountpoint {
        Some(mountpoint) => vec![mount(mountpoint)?],
        None => client::mounts().into_iter().filter(|known| known.alive).collect(),
    };
    let (mut operators, mut failed) = (Vec::new(), Vec::new());
    for known in mounts {
        match control::operators(&known, OperatorRequest::List) {
            Ok(found) => operators
                .extend(found.into_iter().map(|info| Shown { mountpoint: known.mountpoint.clone(), info })),
            Err(error) => failed.push(format!("{}: {error:#}", escape::path(&known.mountpoint))),
        }
    }
    Ok((operators, failed))
}

fn list(asked: &Ls) -> Result<()> {
    let (operators, failed) = all(asked.mountpoint.as_deref())?;
    if asked.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&Report { operators })?))?;
    } else if operators.is_empty() && failed.is_empty() {
        print("no operators; `aimss op create` makes one\n")?;
    } else {
        print(&lines(&operators))?;
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

fn lines(operators: &[Shown]) -> String {
    let mut rows = vec![
        ["OPERATOR", "DOES", "STATE", "TAKEN", "A SECOND", "BEHIND", "FULLEST"].map(String::from).to_vec(),
    ];
    let mut notes = String::new();
    for Shown { mountpoint, info } in operators {
        let taken: u64 = info.outputs.iter().sum();
        let fullest = info.outputs.iter().max().copied().unwrap_or(0);
        let share = if taken == 0 { 0.0 } else { fullest as f64 / taken as f64 * 100.0 };
        let name = escape::path(&mountpoint.join(&info.definition.output));
        rows.push(vec![
            escape::text(&info.name),
            what(&info.definition),
            info.state.clone(),
            info.taken.to_string(),
            format!("{:.0}", info.records_per_second),
            info.lag.to_string(),
            if info.outputs.len() < 2 { "-".into() } else { format!("{share:.0}%") },
        ]);
        if let Some(why) = &info.why {
            notes.push_str(&format!("{}: {}\n", escape::text(&info.name), escape::text(why)));
        }
        if info.unkeyed > 0 {
            let records = counted(info.unkeyed, "record");
            notes.push_str(&format!("{name}: {records} without a key, in the partition of the empty one\n"));
        }
        if info.failed > 0 {
            let records = counted(info.failed, "record");
            notes.push_str(&format!(
                "{name}: {records} left out, since the expression failed or they are no objects\n"
            ));
        }
        if info.lost > 0 {
            let records = counted(info.lost, "record");
            notes
                .push_str(&format!("{name}: {records} were lost in the inputs before they could be taken\n"));
        }
        if is_skewed(&info.outputs) {
            let at = info.outputs.iter().position(|records| *records == fullest).unwrap_or(0);
            notes.push_str(&format!(
                "{name}: partition {at} has {share:.0}% of all records: few keys have most of them\n"
            ));
        }
    }
    table(&rows) + notes.as_str()
}

/// Whether one partition has more than twice its share, of enough records to say so.
fn is_skewed(outputs: &[u64]) -> bool {
    let (all, fullest) = (outputs.iter().sum::<u64>(), outputs.iter().max().copied().unwrap_or(0));
    all >= 1000 && fullest * outputs.len() as u64 > all * 2
}

fn what(definition: &Definition) -> String {
    let inputs: Vec<_> = definition.inputs.iter().map(|input| escape::text(input)).collect();
    let how = match (definition.partitioning, &definition.key, definition.partitions) {
        (_, _, None) => String::new(),
        (Partitioning::RoundRobin, _, Some(count)) => format!(" in turn, {count}"),
        (Partitioning::Range, Some(key), Some(count)) => format!(" by range of {key}, {count}"),
        (_, Some(key), Some(count)) => format!(" by {key}, {count}"),
        (_, None, Some(count)) => format!(", {count}"),
    };
    format!(
        "{} {}{} into {}",
        definition.function,
        inputs.join(", "),
        escape::text(&how),
        escape::text(&definition.output)
    )
}

fn remove(asked: &Rm) -> Result<()> {
    let shown = escape::text(&asked.name);
    let (operators, failed) = all(asked.on.as_deref())?;
    let mut with: Vec<PathBuf> = operators
        .into_iter()
        .filter(|operator| operator.info.name == asked.name)
        .map(|operator| operator.mountpoint)
        .collect();
    let Some(mountpoint) = with.pop() else {
        ensure!(failed.is_empty(), "{}", failed.join("; "));
        bail!("there is no operator {shown}; `aimss op ls` shows all");
    };
    if let Some(other) = with.pop() {
        let (one, other) = (escape::path(&mountpoint), escape::path(&other));
        bail!("both {one} and {other} have an operator {shown}; say which with --on");
    }
    control::remove_operator(&mount(&mountpoint)?, asked.name.clone())
}
