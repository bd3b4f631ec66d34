//! All streams of a mount in a few numbers, for somebody who looks once a minute and has an alert on them.
//!
//! A stream with three groups costs 3 microseconds: what is in memory is added up. Sizes of segments are
//! asked of the file system once, and again only of streams that sealed or trimmed since.

use super::rate::Rate;
use super::{Moment, Stream, Streams};
use crate::stream::group::Group;
use crate::stream::log::length_of;
use crate::stream::{Log, Offset, StreamId};
use parking_lot::Mutex;
use std::fs;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// See the module. All but `logs` is of streams that were used since the mount; sizes are bytes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Summary {
    /// Logs on the backing.
    pub logs: u64,
    /// Streams that were used since the mount.
    pub open: u64,
    /// Handles that append.
    pub writers: u64,
    /// Records ever appended.
    pub records: u64,
    /// Bytes ever appended, in whole records.
    pub bytes: u64,
    /// Records appended a second, since somebody asked last, at least a second.
    pub record_rate: f64,
    /// Bytes appended a second, likewise.
    pub byte_rate: f64,
    /// In memory: what is not sealed, and what is sealed and kept.
    pub memory_bytes: u64,
    /// In segments on the backing, and what is to be sealed.
    pub stored_bytes: u64,
    /// Appended, and not durable on the backing.
    pub unflushed_bytes: u64,
    /// Groups.
    pub groups: u64,
    /// Open members.
    pub members: u64,
    /// Groups that have something to read, and no member.
    pub unattended: u64,
    /// Records that groups have not acknowledged, all together.
    pub lag: u64,
    /// Records given to members, again or not.
    pub delivered: u64,
    /// Records given again.
    pub redelivered: u64,
    /// Records that retention or damage took before they were delivered.
    pub lost: u64,
    /// The group that is most behind; none if no group is.
    pub worst: Option<Behind>,
}

/// A group that is behind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behind {
    /// Where the stream is, relative to the backing, as far as is known.
    pub path: String,
    /// The group.
    pub group: String,
    /// Records that it has not acknowledged.
    pub lag: u64,
    /// Its open members.
    pub members: u64,
}

/// Of records and bytes, in all streams. Of streams that were removed since, nothing counts.
#[derive(Debug, Default)]
pub(super) struct Rates {
    records: Rate,
    bytes: Rate,
}

/// Bytes of a log's segments, and as of which first record and number of segments.
#[derive(Debug, Default)]
pub(super) struct Stored(Mutex<Option<(Offset, usize, u64)>>);

impl Stored {
    /// What was noted, if the log has the same segments.
    fn of(&self, log: &Log) -> Option<u64> {
        let noted = *self.0.lock();
        noted
            .filter(|noted| (noted.0, noted.1) == (log.first().0, log.sealed_segments()))
            .map(|noted| noted.2)
    }
}

impl Streams {
    /// See the module.
    pub fn summary(&self) -> Summary {
        let logs = fs::read_dir(&self.home).into_iter().flatten().flatten();
        let is_log = |name: &str| name.parse::<StreamId>().is_ok();
        let logs = logs.filter(|entry| entry.file_name().to_str().is_some_and(is_log)).count();
        let mut summary = Summary { logs: logs as u64, ..Summary::default() };
        for stream in self.all().iter().filter(|stream| !stream.is_doomed()) {
            stream.add_to(&mut summary);
        }
        let (mut rates, now) = (self.rates.lock(), Instant::now());
        summary.record_rate = rates.records.note(now, summary.records);
        summary.byte_rate = rates.bytes.note(now, summary.bytes);
        drop(rates);
        summary
    }
}

impl Stream {
    fn add_to(&self, summary: &mut Summary) {
        let missing = self.inspect(|now| {
            summary.open += 1;
            summary.writers += u64::from(now.writers);
            let (records, bytes) = now.log.end();
            summary.records += records.0;
            summary.bytes += bytes.0;
            summary.memory_bytes += now.memory_bytes;
            summary.stored_bytes += now.log.active_bytes();
            let end = now.log.end_of_bytes().unwrap_or(bytes);
            summary.unflushed_bytes += end.0.saturating_sub(self.flushed.load(Ordering::Relaxed));
            for group in now.groups.values() {
                summary.add_group(group, now);
            }
            match self.stored.of(now.log) {
                Some(bytes) => {
                    summary.stored_bytes += bytes;
                    None
                }
                None => Some((now.log.first().0, now.log.sealed_paths())),
            }
        });
        if let Some((first, paths)) = missing {
            // Trimmed meanwhile, a segment has no bytes.
            let bytes = paths.iter().map(|path| length_of(path).unwrap_or(0)).sum();
            *self.stored.0.lock() = Some((first, paths.len(), bytes));
            summary.stored_bytes += bytes;
        }
    }
}

impl Summary {
    fn add_group(&mut self, group: &Group, now: &Moment<'_>) {
        let counts = group.counts();
        let lag = now.log.end().0.0.saturating_sub(group.committed().max(now.log.first().0.0));
        let members = group.members() as u64;
        self.groups += 1;
        self.members += members;
        self.unattended += u64::from(lag > 0 && members == 0);
        self.lag += lag;
        self.delivered += counts.delivered;
        self.redelivered += counts.redelivered;
        self.lost += counts.lost;
        if lag > self.worst.as_ref().map_or(0, |worst| worst.lag) {
            let (path, group) = (now.settings.path.clone(), group.name().to_owned());
            self.worst = Some(Behind { path, group, lag, members });
        }
    }
}
