//! Directories of partitions: what is asked of one is done to each of its partitions, and shown as sums.

use super::opened;
use super::place::{self, Place};
use super::show::{retention, table};
use super::{counted, print};
use crate::size::human;
use crate::{control, escape};
use aimss_engine::stream::{Partition, Settings};
use aimss_fs::control::partitions::PartitionsInfo;
use aimss_fs::control::stream::{GroupInfo, StreamInfo};
use anyhow::{Result, bail};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// A partitioned stream.
pub struct Set {
    /// As the user named it.
    pub path: PathBuf,
    /// What is in it.
    pub info: PartitionsInfo,
    /// A daemon has it mounted.
    pub mounted: bool,
}

/// The partitioned stream at `path`, if it is one.
pub fn find(path: &Path) -> Result<Option<Set>> {
    if !fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        return Ok(None);
    }
    let (info, mounted) = match place::of_mount(&control::resolve(path)?)? {
        Some((known, path)) => (control::partitions(&known, path)?, true),
        None => (of_backing(path)?, false),
    };
    Ok(info.map(|info| Set { path: path.to_owned(), info, mounted }))
}

fn of_backing(dir: &Path) -> Result<Option<PartitionsInfo>> {
    // One of the first two tells, as on a mount.
    let of_set = |number| partition(dir, number).filter(|partition| partition.number == number);
    let Some(set) = (0..2).find_map(of_set) else { return Ok(None) };
    let mut all = PartitionsInfo { count: set.count, ..PartitionsInfo::default() };
    for number in 0..set.count {
        if partition(dir, number).is_some_and(|partition| set.is_beside(number, &partition)) {
            all.partitions.push(opened::look(&dir.join(Partition::name(number)))?);
        } else {
            all.missing.push(number);
        }
    }
    if let Some(parent) = all.partitions.first().and_then(|info| info.path.parent()) {
        all.path = parent.to_owned();
    }
    Ok(Some(all))
}

fn partition(dir: &Path, number: u32) -> Option<Partition> {
    let path = dir.join(Partition::name(number));
    place::marker(&path).ok()?;
    match place::find(&path).ok()? {
        Place::Backing { directory, .. } => Settings::read(&directory).ok()?.partition,
        Place::Mount { .. } => None,
    }
}

impl Set {
    /// The paths of the partitions that are there.
    pub fn paths(&self) -> Vec<PathBuf> {
        let numbers = self.info.partitions.iter().filter_map(|info| info.partition.as_ref());
        numbers.map(|partition| self.path.join(Partition::name(partition.number))).collect()
    }

    /// Does something to each partition that is there; in the end tells what failed, and what is missing.
    pub fn each(&self, run: impl FnMut(&Path) -> Result<()>) -> Result<()> {
        let paths = self.paths();
        let failed = paths.iter().map(PathBuf::as_path).map(run).filter_map(Result::err);
        let failed: Vec<String> = failed.map(|error| format!("{error:#}")).collect();
        if failed.is_empty() { self.check() } else { bail!("{}", failed.join("; ")) }
    }

    /// Fails if partitions are missing.
    pub fn check(&self) -> Result<()> {
        match self.missing() {
            Some(missing) => bail!(
                "{missing}; its groups can't be opened until they are moved back, and `aimss stream rm` removes \
                 the rest"
            ),
            None => Ok(()),
        }
    }

    fn missing(&self) -> Option<String> {
        let numbers: Vec<String> = self.info.missing.iter().map(u32::to_string).collect();
        let shown = escape::path(&self.path);
        let (what, are) = if numbers.len() == 1 { ("partition", "is") } else { ("partitions", "are") };
        (!numbers.is_empty())
            .then(|| format!("{what} {} of {} {are} not in {shown}", numbers.join(", "), self.info.count))
    }

    /// Shows the sums, and each partition.
    pub fn print_info(&self, json: bool) -> Result<()> {
        let sum = |of: fn(&StreamInfo) -> u64| self.info.partitions.iter().map(of).sum();
        let sums = Sums {
            info: &self.info,
            records: sum(|info| info.end_offset - info.first_offset),
            bytes: sum(|info| info.bytes),
            stored_bytes: sum(|info| info.stored_bytes),
        };
        if json {
            return print(&format!("{}\n", serde_json::to_string_pretty(&sums)?));
        }
        print(&self.block(&sums))?;
        self.check()
    }

    fn block(&self, sums: &Sums<'_>) -> String {
        let mut out = format!("{}\n", escape::path(&self.path));
        let mut line =
            |label: &str, text: String| writeln!(out, "  {label:<11}{text}").expect("a String takes all");
        line("partitions", self.info.count.to_string());
        line("records", sums.records.to_string());
        line("bytes", format!("{}, {} stored", human(sums.bytes), human(sums.stored_bytes)));
        if let Some(first) = self.info.partitions.first() {
            let segments = human(first.segment_bytes);
            let of = format!("segments of {segments}, compression {}", first.compression);
            line("logs", format!("framing {}, {of}", first.framing));
            line("keep", retention(&first.retention));
        }
        let groups = self.groups();
        let lag = groups.iter().map(|group| group.lag).max();
        let behind =
            lag.map_or(String::new(), |lag| format!(", the last one {} behind", counted(lag, "record")));
        line("groups", format!("{}{behind}", groups.len()));
        let mut rows =
            vec![["PARTITION", "RECORDS", "BYTES", "STORED", "WRITERS"].map(String::from).to_vec()];
        for info in &self.info.partitions {
            let records = info.end_offset - info.first_offset;
            rows.push(vec![
                info.partition.as_ref().map_or(String::new(), |partition| partition.number.to_string()),
                records.to_string(),
                human(info.bytes),
                human(info.stored_bytes),
                info.writers.to_string(),
            ]);
        }
        out + &table(&rows)
    }

    /// Shows the groups, over all and in each partition.
    pub fn print_groups(&self, json: bool) -> Result<()> {
        let groups = self.groups();
        if json {
            let groups = serde_json::json!({ "groups": groups });
            return print(&format!("{}\n", serde_json::to_string_pretty(&groups)?));
        }
        if groups.is_empty() {
            print(&format!("{} has no groups\n", escape::path(&self.path)))?;
        } else {
            print(&group_lines(&groups))?;
        }
        self.check()
    }

    /// The groups of all partitions, by name.
    pub fn groups(&self) -> Vec<SharedGroup> {
        let mut groups: BTreeMap<&str, SharedGroup> = BTreeMap::new();
        for info in &self.info.partitions {
            let Some(partition) = &info.partition else { continue };
            for group in &info.groups {
                let all = groups
                    .entry(&group.name)
                    .or_insert_with(|| SharedGroup { name: group.name.clone(), ..SharedGroup::default() });
                all.lag += group.lag;
                all.delivered += group.delivered;
                all.redelivered += group.redelivered;
                all.lost += group.lost;
                all.partitions.push(InPartition { partition: partition.number, group: group.clone() });
            }
        }
        for shared in &self.info.groups {
            if let Some(group) = groups.get_mut(shared.name.as_str()) {
                group.members = shared.shares.len() as u64;
                group.shares.clone_from(&shared.shares);
            }
        }
        groups.into_values().collect()
    }
}

/// A partitioned stream in JSON.
#[derive(Serialize)]
struct Sums<'a> {
    #[serde(flatten)]
    info: &'a PartitionsInfo,
    records: u64,
    bytes: u64,
    stored_bytes: u64,
}

/// A group over partitions.
#[derive(Debug, Default, Serialize)]
pub struct SharedGroup {
    /// Its name.
    pub name: String,
    /// Records not acknowledged, in all partitions.
    pub lag: u64,
    /// Who share the partitions.
    pub members: u64,
    /// How many partitions each of them has.
    shares: Vec<u64>,
    delivered: u64,
    redelivered: u64,
    lost: u64,
    /// In each partition.
    pub partitions: Vec<InPartition>,
}

/// A group in one partition.
#[derive(Debug, Serialize)]
pub struct InPartition {
    partition: u32,
    /// There, the whole group is one member.
    #[serde(flatten)]
    pub group: GroupInfo,
}

impl InPartition {
    /// The partition's name in its directory.
    pub fn name(&self) -> String {
        Partition::name(self.partition)
    }
}

fn group_lines(groups: &[SharedGroup]) -> String {
    let head = ["GROUP", "PARTITION", "COMMITTED", "LAG", "MEMBERS", "DELIVERED", "REDELIVERED", "LOST"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for all in groups {
        let name = escape::text(&all.name);
        let mut row = vec![name.clone(), "all".into(), "-".into()];
        let numbers = [all.lag, all.members, all.delivered, all.redelivered, all.lost];
        row.extend(numbers.map(|number| number.to_string()));
        rows.push(row);
        for InPartition { partition, group } in &all.partitions {
            let mut row = vec![name.clone(), partition.to_string(), group.committed.to_string()];
            let numbers = [group.lag, group.members, group.delivered, group.redelivered, group.lost];
            row.extend(numbers.map(|number| number.to_string()));
            rows.push(row);
        }
    }
    table(&rows)
}
