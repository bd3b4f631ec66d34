//! Partitioned streams over the control socket. What `aimss stream info --json` prints of one is in `tools`;
//! here is what a daemon knows of its directory.

use super::stream::StreamInfo;
use aimss_engine::stream::Partition;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Which part of a partitioned stream a stream is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionInfo {
    /// From 0 on.
    pub number: u32,
    /// How many there are.
    pub count: u32,
    /// The same of all partitions of a stream, and of no other: 32 hexadecimal digits.
    pub set: String,
}

/// The partitions of a directory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PartitionsInfo {
    /// The directory, relative to the mount's or the backing's root.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// Partitions that there should be.
    pub count: u32,
    /// Numbers of those that are not in the directory.
    pub missing: Vec<u32>,
    /// Those that are, by their numbers.
    pub partitions: Vec<StreamInfo>,
    /// Groups over them that have members.
    pub groups: Vec<SharesInfo>,
}

/// Who shares the partitions in a group over them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SharesInfo {
    /// The group.
    pub name: String,
    /// How many partitions each member has.
    pub shares: Vec<u64>,
}

impl From<Partition> for PartitionInfo {
    fn from(partition: Partition) -> PartitionInfo {
        let Partition { set, number, count } = partition;
        PartitionInfo { number, count, set: set.to_string() }
    }
}
