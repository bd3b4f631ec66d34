//! `aimss stream ls`: the streams of a mount, or of a backing directory.
//!
//! Without a mount the logs say where their streams were last (a log's settings have the path). Where that is
//! not so any more, because somebody moved names, the tree is walked for names of streams. A log that no name
//! leads to is listed without one.

use super::opened;
use super::place::{self, STREAMS};
use super::show::table;
use super::{counted, print};
use crate::size::human;
use crate::{cli, control, escape};
use aimss_engine::stream::{Log, Partition, Settings, StreamId};
use aimss_fs::control::client::{self, Known};
use aimss_fs::control::partitions::PartitionInfo;
use aimss_fs::control::stream::StreamInfo;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The JSON: a stable schema, to which fields are added.
#[derive(Serialize)]
struct Report {
    streams: Vec<Shown>,
}

/// A stream, and the mount point or backing directory that its path begins at.
#[derive(Serialize)]
struct Shown {
    root: PathBuf,
    #[serde(flatten)]
    info: StreamInfo,
}

/// Lists what was `asked` for.
pub fn run(asked: &cli::stream::Ls) -> Result<()> {
    let (mut streams, failed) = match &asked.path {
        None => everywhere(),
        Some(path) => below(path)?,
    };
    streams.sort_by(|a, b| (&a.root, &a.info.path).cmp(&(&b.root, &b.info.path)));
    if asked.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&Report { streams })?))?;
    } else if streams.is_empty() && failed.is_empty() {
        let whose =
            asked.path.as_deref().map_or("on any mount".into(), |path| format!("in {}", escape::path(path)));
        print(&format!("no streams {whose}; `aimss stream create` makes one in a mount\n"))?;
    } else {
        print(&lines(&streams))?;
    }
    ensure!(failed.is_empty(), "{}", failed.join("; "));
    Ok(())
}

/// Streams, and sentences of what can't be listed.
type Listed = (Vec<Shown>, Vec<String>);

fn everywhere() -> Listed {
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for known in client::mounts().into_iter().filter(|known| known.alive) {
        match of_mount(&known, Path::new("")) {
            Ok(streams) => all.extend(streams),
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    (all, failed)
}

fn below(path: &Path) -> Result<Listed> {
    let resolved = control::resolve(path)?;
    if let Some((known, path)) = place::of_mount(&resolved)? {
        return Ok((of_mount(&known, &path)?, Vec::new()));
    }
    for top in resolved.ancestors() {
        let logs = top.join(STREAMS);
        match fs::metadata(&logs) {
            Ok(_) => return of_backing(top, resolved.strip_prefix(top)?),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                bail!("{} may not be read by you; ask as its owner", escape::path(&logs))
            }
            Err(_) => {}
        }
    }
    Ok((Vec::new(), Vec::new()))
}

fn of_mount(known: &Known, below: &Path) -> Result<Vec<Shown>> {
    let streams = control::streams(known)
        .with_context(|| format!("the streams of {} can't be listed", escape::path(&known.mountpoint)))?;
    let root = &known.mountpoint;
    let shown = streams.into_iter().filter(|info| info.path.starts_with(below));
    Ok(shown.map(|info| Shown { root: root.clone(), info }).collect())
}

fn of_backing(top: &Path, below: &Path) -> Result<Listed> {
    place::note_owner(top);
    let logs = top.join(STREAMS);
    let mut found = BTreeMap::new();
    let (mut listed, mut failed) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&logs).with_context(|| escape::path(&logs))? {
        let entry = entry?;
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<StreamId>().ok()) else {
            continue;
        };
        found.insert(id, entry.path());
    }
    let names = names(top, &found);
    for (id, directory) in found {
        let path = names.get(&id).cloned().unwrap_or_default();
        let named = if path.as_os_str().is_empty() { directory.clone() } else { top.join(&path) };
        if !path.starts_with(below) {
            continue;
        }
        match info(&path, &directory) {
            Ok(info) => listed.push(Shown { root: top.to_owned(), info }),
            Err(error) => failed.push(opened::unreadable(&named, &directory, &error).to_string()),
        }
    }
    Ok((listed, failed))
}

fn info(path: &Path, directory: &Path) -> aimss_engine::stream::Result<StreamInfo> {
    let settings = Settings::read(directory)?;
    let log = Log::open_read_only(directory, settings.log)?;
    opened::info(path, &settings, &log)
}

/// The names of `logs`, relative to `top`.
fn names(top: &Path, logs: &BTreeMap<StreamId, PathBuf>) -> BTreeMap<StreamId, PathBuf> {
    let mut names = BTreeMap::new();
    for (id, directory) in logs {
        let Ok(settings) = Settings::read(directory) else { continue };
        let path = PathBuf::from(settings.path);
        if path.is_relative() && place::marker(&top.join(&path)).is_ok_and(|found| found == *id) {
            names.insert(*id, path);
        }
    }
    if names.len() < logs.len() {
        walk(top, Path::new(""), &mut |path, id| {
            if logs.contains_key(&id) {
                names.entry(id).or_insert(path);
            }
        });
    }
    names
}

/// Gives all streams' names below `top`/`at` to `each`. What can't be read is passed over.
fn walk(top: &Path, at: &Path, each: &mut impl FnMut(PathBuf, StreamId)) {
    for entry in fs::read_dir(top.join(at)).into_iter().flatten().flatten() {
        let path = at.join(entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && path != Path::new(".aimss") {
            walk(top, &path, each);
        } else if kind.is_file()
            && let Ok(id) = place::marker(&top.join(&path))
        {
            each(path, id);
        }
    }
}

fn lines(streams: &[Shown]) -> String {
    let mut rows = vec![["STREAM", "RECORDS", "BYTES", "STORED", "GROUPS", "LAG"].map(String::from).to_vec()];
    let (sets, alone) = fold(streams);
    for set in &sets {
        rows.push(set.row());
    }
    for Shown { root, info } in alone {
        let name = if info.path.as_os_str().is_empty() {
            format!("(no name: {})", escape::path(&info.directory))
        } else {
            escape::path(&root.join(&info.path))
        };
        let lag = info.groups.iter().map(|group| group.lag).max();
        rows.push(vec![
            name,
            (info.end_offset - info.first_offset).to_string(),
            human(info.bytes),
            human(info.stored_bytes),
            info.groups.len().to_string(),
            lag.map_or("-".into(), |lag| lag.to_string()),
        ]);
    }
    let (head, shown) = rows.split_at_mut(1);
    shown.sort_by(|a, b| a[0].cmp(&b[0]));
    table(&[head, shown].concat())
}

/// The partitions of a directory, as sums.
#[derive(Default)]
struct Sums {
    name: String,
    count: u32,
    partitions: u32,
    records: u64,
    bytes: u64,
    stored_bytes: u64,
    /// Of each group, in all partitions.
    lags: BTreeMap<String, u64>,
}

impl Sums {
    fn row(&self) -> Vec<String> {
        let whole = self.partitions == self.count;
        let of = if whole { String::new() } else { format!("{} of ", self.partitions) };
        vec![
            format!("{}/ ({of}{})", self.name, counted(u64::from(self.count), "partition")),
            self.records.to_string(),
            human(self.bytes),
            human(self.stored_bytes),
            self.lags.len().to_string(),
            self.lags.values().max().map_or("-".into(), u64::to_string),
        ]
    }
}

/// Divides `streams` into directories of partitions and those that stand alone.
fn fold(streams: &[Shown]) -> (Vec<Sums>, Vec<&Shown>) {
    let mut sets: BTreeMap<(PathBuf, &str), Sums> = BTreeMap::new();
    let mut alone = Vec::new();
    for shown in streams {
        let Shown { root, info } = shown;
        let named = |partition: &&PartitionInfo| {
            info.path.file_name().is_some_and(|name| *name == *Partition::name(partition.number))
        };
        let (Some(partition), Some(parent)) = (info.partition.as_ref().filter(named), info.path.parent())
        else {
            alone.push(shown);
            continue;
        };
        let directory = root.join(parent);
        let name = escape::path(&directory);
        let new = Sums { name, count: partition.count, ..Sums::default() };
        let sums = sets.entry((directory, &partition.set)).or_insert(new);
        sums.partitions += 1;
        sums.records += info.end_offset - info.first_offset;
        sums.bytes += info.bytes;
        sums.stored_bytes += info.stored_bytes;
        for group in &info.groups {
            *sums.lags.entry(group.name.clone()).or_default() += group.lag;
        }
    }
    (sets.into_values().collect(), alone)
}
