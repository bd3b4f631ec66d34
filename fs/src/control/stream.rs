//! Streams over the control socket: what is asked of them, and what they are in numbers. `aimss stream ls
//! --json` prints [`StreamInfo`], so it is a stable schema like that of `status`: fields are added, never
//! renamed. All sizes are bytes, all spans seconds, all times microseconds since 1970.

use super::partitions::PartitionInfo;
use aimss_engine::stream::group::Group;
use aimss_engine::stream::{Log, Micros, Settings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a client asks of streams. Paths are relative to the mount's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamRequest {
    /// Make a stream at a name that is free. Answered by [`Reply::Stream`](super::protocol::Reply::Stream).
    Create {
        /// Its name.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// Keys and values as [`Settings::pairs`] has them and [`Settings::set`] takes them; what is left out
        /// is as in `Settings::default()`.
        settings: Vec<(String, String)>,
    },
    /// Make a directory of partitions at a name that is free. Answered by
    /// [`Reply::Partitions`](super::protocol::Reply::Partitions).
    CreatePartitions {
        /// Its name.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// How many.
        partitions: u32,
        /// Of each, as for `Create`.
        settings: Vec<(String, String)>,
    },
    /// What partitions a directory has. Answered by `Reply::Partitions`.
    Partitions {
        /// The directory.
        #[serde(with = "super::path")]
        path: PathBuf,
    },
    /// Change retention and ack timeout. Answered by `Reply::Stream`.
    Settings {
        /// The stream.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// As above, only what changes; an empty value takes a limit away.
        settings: Vec<(String, String)>,
    },
    /// Make the log's directory on the backing complete, as of now, and durable. The answer, `Reply::Stream`,
    /// names it.
    Flush {
        /// The stream.
        #[serde(with = "super::path")]
        path: PathBuf,
    },
    /// All streams of the mount, by path. Answered by `Reply::Streams`.
    List,
    /// A group goes on elsewhere; it is made if it is new. Answered by `Reply::Stream`.
    Seek {
        /// The stream.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// The group.
        group: String,
        /// Where it goes on.
        to: SeekTo,
    },
    /// Remove whole segments all of whose records are before an offset. Answered by `Reply::Stream`.
    Trim {
        /// The stream.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// The first record that is kept in any case.
        before: u64,
    },
    /// Forget a group that has no members. Answered by `Reply::Stream`.
    RemoveGroup {
        /// The stream.
        #[serde(with = "super::path")]
        path: PathBuf,
        /// The group.
        group: String,
    },
}

impl StreamRequest {
    /// Whether it only looks.
    pub fn changes_nothing(&self) -> bool {
        matches!(self, StreamRequest::Partitions { .. } | StreamRequest::List)
    }
}

/// A place in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeekTo {
    /// The first record that is retained.
    Earliest,
    /// Behind the last record.
    Latest,
    /// This record.
    Offset(u64),
    /// The first record at or after this time, microseconds since 1970.
    Time(u64),
}

/// A stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamInfo {
    /// Its name, relative to the mount's or the backing's root; empty if no name leads to the log.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// Where the log is on the backing.
    #[serde(with = "super::path")]
    pub directory: PathBuf,
    /// `line`, `len32`, `fixed:N` or `write`.
    pub framing: String,
    /// At how many bytes a segment is sealed.
    pub segment_bytes: u64,
    /// `lz4` or `none`.
    pub compression: String,
    /// What is kept.
    pub retention: RetentionInfo,
    /// How long a member may hold a batch; absent: as long as it is open.
    pub ack_timeout: Option<f64>,
    /// The first record that is retained.
    pub first_offset: u64,
    /// Behind the last record.
    pub end_offset: u64,
    /// Bytes of the records that are retained.
    pub bytes: u64,
    /// What they take on storage.
    pub stored_bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Bytes behind the last whole record.
    pub pending_bytes: u64,
    /// Bytes that were no record and were set aside.
    pub torn_bytes: u64,
    /// Time of the first record.
    pub first_time: Option<u64>,
    /// Time of the last record.
    pub last_time: Option<u64>,
    /// Records a second, over the last seconds; 0 without a mount.
    pub records_per_second: f64,
    /// Descriptors that are open for writing.
    pub writers: u64,
    /// Its groups, by name.
    pub groups: Vec<GroupInfo>,
    /// Which part of a partitioned stream it is; absent: of none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionInfo>,
}

/// What is kept; without any limit, everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetentionInfo {
    /// The last records, up to so many bytes.
    pub bytes: Option<u64>,
    /// Records up to this age.
    pub age: Option<f64>,
    /// Records that not every group has acknowledged.
    pub acked: bool,
}

/// A consumer group.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupInfo {
    /// Its name.
    pub name: String,
    /// Every record before this one is done with.
    pub committed: u64,
    /// Records from there to the end of the stream.
    pub lag: u64,
    /// Records delivered a second, over the last seconds; 0 without a mount.
    pub records_per_second: f64,
    /// Descriptors that are open.
    pub members: u64,
    /// Records given to members, again or not.
    pub delivered: u64,
    /// Records given again.
    pub redelivered: u64,
    /// Records that retention or damage took before they were delivered.
    pub lost: u64,
}

impl StreamInfo {
    /// A stream as its log is; groups, writers and rates are for the caller to add.
    pub fn of(path: &Path, settings: &Settings, log: &Log) -> aimss_engine::stream::Result<StreamInfo> {
        let numbers = log.statistics()?;
        let retention = &settings.retention;
        let word = |wanted: &str| {
            settings
                .pairs()
                .into_iter()
                .find(|(key, _)| *key == wanted)
                .map_or(String::new(), |(_, word)| word)
        };
        Ok(StreamInfo {
            path: path.to_owned(),
            directory: log.directory().to_owned(),
            framing: word("framing"),
            segment_bytes: settings.log.segment_bytes,
            compression: word("compress"),
            retention: RetentionInfo {
                bytes: retention.bytes,
                age: retention.age.map(|age| age.as_secs_f64()),
                acked: retention.acknowledged,
            },
            ack_timeout: settings.ack_timeout.map(|timeout| timeout.as_secs_f64()),
            first_offset: numbers.first.0,
            end_offset: numbers.end.0,
            bytes: numbers.bytes,
            stored_bytes: numbers.stored_bytes,
            segments: numbers.segments,
            pending_bytes: numbers.pending_bytes,
            torn_bytes: numbers.torn_bytes,
            first_time: numbers.first_time.map(|Micros(time)| time),
            last_time: numbers.last_time.map(|Micros(time)| time),
            records_per_second: 0.0,
            writers: 0,
            groups: Vec::new(),
            partition: settings.partition.map(PartitionInfo::from),
        })
    }
}

impl GroupInfo {
    /// A group of a stream whose retained records are from `first` to before `end`; the rate is for the
    /// caller to add.
    pub fn of(group: &Group, first: u64, end: u64) -> GroupInfo {
        let counts = group.counts();
        let committed = group.committed();
        GroupInfo {
            name: group.name().to_owned(),
            committed,
            lag: end.saturating_sub(committed.max(first)),
            records_per_second: 0.0,
            members: group.members() as u64,
            delivered: counts.delivered,
            redelivered: counts.redelivered,
            lost: counts.lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_survive_the_socket() {
        let requests = [
            StreamRequest::List,
            StreamRequest::Create { path: "a/b".into(), settings: vec![("framing".into(), "line".into())] },
            StreamRequest::Seek { path: "a".into(), group: "g".into(), to: SeekTo::Time(7) },
        ];
        for request in requests {
            let line = serde_json::to_string(&request).expect("JSON");
            assert_eq!(serde_json::from_str::<StreamRequest>(&line).expect("the same"), request);
        }
        let info =
            StreamInfo { path: "a".into(), groups: vec![GroupInfo::default()], ..StreamInfo::default() };
        let line = serde_json::to_string(&info).expect("JSON");
        assert_eq!(serde_json::from_str::<StreamInfo>(&line).expect("the same"), info);
        // A daemon of another version may say less.
        assert_eq!(
            serde_json::from_str::<StreamInfo>("{\"path\":\"a\",\"groups\":[{}]}").expect("read"),
            info
        );
    }
}
