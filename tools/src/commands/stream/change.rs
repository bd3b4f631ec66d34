//! `aimss stream create`, `set`, `seek` and `trim`: through the daemon, or with the backing's lease on the
//! files.

use super::opened::{self, unreadable};
use super::options::{self, Pairs};
use super::place::{self, Place};
use super::{counted, partitions, print};
use crate::commands::Usage;
use crate::{cli, control, escape};
use aimss_engine::stream::group::{Counts, Group};
use aimss_engine::stream::{Log, Offset, Settings};
use aimss_fs::control::stream::{SeekTo, StreamRequest};
use anyhow::{Context as _, Result, bail};
use std::io;
use std::path::Path;

/// Makes a stream.
pub fn create(asked: &cli::stream::Create) -> Result<()> {
    let mut settings = options::log(&asked.framing, &asked.segment, &asked.compress)?;
    if !asked.retention.is_empty() {
        settings.extend(options::retention(&asked.retention)?);
    }
    if let Some(timeout) = &asked.ack_timeout {
        settings.extend(options::ack_timeout(timeout)?);
    }
    settings.retain(|(_, value)| !value.is_empty());
    let shown = escape::path(&asked.path);
    let resolved = place::resolve_name(&asked.path)?;
    let Some((known, path)) = place::of_mount(&resolved)? else {
        bail!(
            "{shown} is on no aimss mount, and streams are made in one; mount the directory with `aimss mount` and \
             create the stream there"
        );
    };
    match asked.partitions {
        None => control::stream(&known, StreamRequest::Create { path, settings }).map(drop),
        Some(partitions) => {
            let request = StreamRequest::CreatePartitions { path, partitions, settings };
            control::partitioned(&known, request).map(drop)
        }
    }
}

/// Changes settings.
pub fn set(asked: &cli::stream::Set) -> Result<()> {
    let mut settings = Vec::new();
    if !asked.retention.is_empty() {
        settings.extend(options::retention(&asked.retention)?);
    }
    if let Some(timeout) = &asked.ack_timeout {
        settings.extend(options::ack_timeout(timeout)?);
    }
    if settings.is_empty() {
        bail!(Usage(
            "nothing to set: give --retention or --ack-timeout; `aimss stream info` shows what is set".into()
        ));
    }
    match partitions::find(&asked.path)? {
        Some(set) => set.each(|path| set_one(path, &settings)),
        None => set_one(&asked.path, &settings),
    }
}

fn set_one(path: &Path, settings: &Pairs) -> Result<()> {
    match place::find(path)? {
        Place::Mount { known, path } => {
            control::stream(&known, StreamRequest::Settings { path, settings: settings.clone() })?;
            Ok(())
        }
        Place::Backing { top, directory, .. } => {
            let _lease = place::lease(&top)?;
            write_settings(&directory, settings).map_err(|error| unreadable(path, &directory, &error))
        }
    }
}

fn write_settings(directory: &Path, pairs: &Pairs) -> aimss_engine::stream::Result<()> {
    let mut settings = Settings::read(directory)?;
    for (key, value) in pairs {
        settings.set(key, value)?;
    }
    settings.write(directory)
}

/// Lets a group go on elsewhere.
pub fn seek(asked: &cli::stream::Seek) -> Result<()> {
    options::check_group(&asked.group)?;
    let to = options::seek_to("--to", &asked.to)?;
    let Some(set) = partitions::find(&asked.path)? else { return seek_one(&asked.path, &asked.group, to) };
    if let SeekTo::Offset(_) = to {
        let first = escape::path(&set.path.join("0"));
        bail!(Usage(format!(
            "--to {}: offsets count the records of one partition; give earliest, latest or time:T, or a partition such \
             as {first}",
            asked.to
        )));
    }
    set.each(|path| seek_one(path, &asked.group, to))
}

fn seek_one(path: &Path, group: &String, to: SeekTo) -> Result<()> {
    let shown = escape::path(path);
    let offset = match place::find(path)? {
        Place::Mount { known, path } => {
            let request = StreamRequest::Seek { path, group: group.clone(), to };
            let info = control::stream(&known, request)?;
            info.groups.iter().find(|other| other.name == *group).map(|group| group.committed)
        }
        Place::Backing { top, .. } => {
            let _lease = place::lease(&top)?;
            Some(seek_there(path, group, to)?)
        }
    };
    match offset {
        Some(offset) => print(&format!("group {group} of {shown} goes on at record {offset}\n")),
        None => Ok(()),
    }
}

fn seek_there(path: &Path, group: &str, to: SeekTo) -> Result<u64> {
    let stream = opened::open(path)?;
    let directory = &stream.info.directory;
    let Offset(offset) = opened::offset(&stream.log, to)?;
    let counts = match Group::read(directory, group) {
        Ok(group) => group.counts(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Counts::default(),
        Err(error) => return Err(error).with_context(|| format!("group {group} of {}", escape::path(path))),
    };
    Group::write(directory, group, offset, counts)
        .with_context(|| format!("group {group} of {} can't be written", escape::path(path)))?;
    Ok(offset)
}

/// Removes old segments.
pub fn trim(asked: &cli::stream::Trim) -> Result<()> {
    match partitions::find(&asked.path)? {
        Some(set) => set.each(|path| trim_one(path, asked.before)),
        None => trim_one(&asked.path, asked.before),
    }
}

fn trim_one(path: &Path, before: u64) -> Result<()> {
    let shown = escape::path(path);
    match place::find(path)? {
        Place::Mount { known, path } => {
            let info = control::stream(&known, StreamRequest::Trim { path, before })?;
            print(&format!("{shown} begins with record {}\n", info.first_offset))
        }
        Place::Backing { top, directory, .. } => {
            let _lease = place::lease(&top)?;
            let change = || {
                let mut log = Log::open(&directory, Settings::read(&directory)?.log)?;
                Ok((log.trim_before(Offset(before))?, log.first().0))
            };
            let (trimmed, first) = change().map_err(|error| unreadable(path, &directory, &error))?;
            print(&format!(
                "{} in {} removed; {shown} begins with record {}\n",
                counted(trimmed.records, "record"),
                counted(trimmed.segments, "segment"),
                first.0
            ))
        }
    }
}
