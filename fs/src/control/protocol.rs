//! What goes over the control socket: one JSON value a line, a request from the client, then replies from the
//! daemon until one that is not [`Reply::Progress`].

use super::partitions::PartitionsInfo;
use super::status::MountStatus;
use super::stream::{StreamInfo, StreamRequest};
use aimss_engine::engine::Residence;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// The mount's status.
    Status,
    /// Make everything durable on the backing, or only `paths` (relative to the mount's root; a directory stands
    /// for all below it). Progress comes first.
    Drain {
        /// Empty: everything.
        #[serde(with = "super::path::list")]
        paths: Vec<PathBuf>,
    },
    /// Which files are in use: open handles, and mappings that outlived their close.
    Busy,
    /// Paths whose content or name the backing does not have.
    Pending,
    /// Streams that the backing does not have all of, be it that they can't be opened.
    StreamsInMemory,
    /// The client has unmounted (or is about to, lazily): drain what is left, leave nothing behind, end.
    /// With `discard`, what could not be drained is given up: the client has exported it. A daemon that dies over it takes
    /// that along: the client asks the next one again.
    Finish {
        /// Give up what the backing cannot take.
        discard: bool,
    },
    /// Move files into memory or out of it. Progress comes first: `items_left` are files.
    Residence {
        /// What is to be done.
        action: Action,
        /// Relative to the mount's root; a directory stands for all below it.
        #[serde(with = "super::path::list")]
        paths: Vec<PathBuf>,
    },
    /// Something of streams.
    Stream(StreamRequest),
    /// Let another program take the mount over. Is answered only if that fails: otherwise the connection ends with the
    /// daemon.
    Upgrade {
        /// Absolute.
        #[serde(with = "super::path")]
        binary: PathBuf,
        /// How long it may take to be ready.
        within: Duration,
    },
}

impl Request {
    /// Whether it may be asked again where the daemon died before it answered: it changes nothing, or what it changes is
    /// the same the second time.
    pub fn may_be_repeated(&self) -> bool {
        match self {
            Request::Status | Request::Busy | Request::Pending | Request::StreamsInMemory => true,
            Request::Drain { .. } | Request::Residence { .. } => true,
            Request::Stream(request) => request.changes_nothing(),
            // The next one is told the same, and has all the more to do.
            Request::Finish { .. } => true,
            Request::Upgrade { .. } => false,
        }
    }
}

/// What is done to files by command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Into memory.
    Warm,
    /// Into memory, to stay.
    Pin,
    /// It may leave memory again.
    Unpin,
    /// Out of memory, once it is durable on the backing.
    Evict,
}

/// What the daemon answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To `Status`.
    Status(Box<MountStatus>),
    /// While draining; a few times a second.
    Progress(Progress),
    /// To `Busy`.
    Busy(Vec<BusyFile>),
    /// To `Pending`.
    Pending(#[serde(with = "super::path::list")] Vec<PathBuf>),
    /// To `StreamsInMemory`: the directories of what memory has of them.
    StreamsInMemory(#[serde(with = "super::path::list")] Vec<PathBuf>),
    /// To `Residence`.
    Moved(Residence),
    /// To requests of one stream.
    Stream(Box<StreamInfo>),
    /// To `StreamRequest::List`.
    Streams(Vec<StreamInfo>),
    /// To `StreamRequest::Partitions`; null if the path is no directory of partitions.
    Partitions(Option<Box<PartitionsInfo>>),
    /// Done.
    Done,
    /// It failed; a whole sentence.
    Error(String),
}

/// How far a drain is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes that still wait.
    pub bytes_left: u64,
    /// Files and changes of names that still wait.
    pub items_left: u64,
    /// Bytes written since this request.
    pub bytes_done: u64,
}

/// A file in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyFile {
    /// Relative to the mount's root.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// Open handles.
    pub handles: u64,
    /// Whether it is mapped or open for writing behind a close; `handles` may then be 0.
    pub mapped: bool,
    /// Device and inode of the memory file behind it, as `/proc/PID/maps` shows mappings of it.
    pub arena: Option<(u64, u64)>,
}
