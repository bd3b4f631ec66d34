//! The status of a mount, as `aimss status --json` prints it. A stable schema: fields are added, never renamed.
//! All sizes are bytes, all rates bytes a second, all ages seconds.

use aimss_engine::tier::TierStatus;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MountStatus {
    /// Where the file system is mounted.
    #[serde(with = "super::path")]
    pub mountpoint: PathBuf,
    /// The directory behind it.
    #[serde(with = "super::path")]
    pub backing: PathBuf,
    /// Version of the daemon that serves it.
    pub version: String,
    /// `durable` or `memory`.
    pub fsync: String,
    /// The daemon.
    pub daemon: DaemonStatus,
    /// File data in memory.
    pub memory: MemoryStatus,
    /// The way to the backing.
    pub drain: DrainStatus,
    /// Files and names known.
    pub files: FileStatus,
    /// What stays in memory, and what leaves it.
    #[serde(default)]
    pub cache: CacheStatus,
    /// What is fetched from the backing, and who predicted it.
    #[serde(default)]
    pub fetch: FetchStatus,
    /// Copies in a GPU's memory; absent without `--gpu-memory`, and before the GPU is opened.
    #[serde(default)]
    pub gpu: Option<TierStatus>,
    /// Streams.
    #[serde(default)]
    pub streams: StreamsStatus,
    /// How opens were served since the mount: mode, then reason, then count.
    pub modes: BTreeMap<String, BTreeMap<String, u64>>,
    /// The process that starts the daemon again when it dies.
    pub keeper: KeeperStatus,
    /// The oldest call on the backing that has not come back.
    pub outstanding: Option<OutstandingStatus>,
    /// Requests of programs that are not answered and take too long.
    #[serde(default)]
    pub requests: RequestsStatus,
    /// What this mount could not have, and why (no passthrough, no huge pages, ...), in sentences.
    pub limits: Vec<String>,
}

/// The keeper.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeeperStatus {
    /// Process id; 0 if there is none.
    pub pid: u32,
    /// Who stands ready to take over.
    #[serde(default)]
    pub standby: Option<StandbyStatus>,
}

/// The daemon that stands ready to take over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandbyStatus {
    /// Process id.
    pub pid: u32,
    /// Resident anonymous memory.
    pub resident: u64,
}

/// A call on the backing that has not come back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutstandingStatus {
    /// What was called.
    pub call: String,
    /// On which path; empty for the backing itself, and for calls on open files.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// For how many seconds.
    pub age: f64,
}

/// Requests that were not answered for more than five seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestsStatus {
    /// How many.
    pub too_long: u64,
    /// The oldest ten, oldest first.
    pub oldest: Vec<RequestStatus>,
}

/// A request that was not answered yet.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestStatus {
    /// What is asked for, as FUSE calls it: `lookup`, `open`, `fsync`, ...
    pub operation: String,
    /// Of which path, relative to the mount's root.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// The thread that waits; 0 if none does.
    pub thread: u32,
    /// For how many seconds.
    pub age: f64,
}

/// A swap file or device of the arena's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverflowStatus {
    /// Where.
    #[serde(with = "super::path")]
    pub path: PathBuf,
    /// Its size.
    pub size: u64,
    /// Bytes in it.
    pub used: u64,
}

/// The process that serves the mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// Daemons of this mount that died before it.
    #[serde(default)]
    pub restarts: u32,
    /// How the last one of them died, a sentence.
    #[serde(default)]
    pub last_death: Option<String>,
    /// Daemons of this mount that gave way to another program, less those whose program serves again.
    #[serde(default)]
    pub upgrades: u32,
    /// Seconds since it took the mount.
    pub uptime: f64,
    /// Processor seconds used (user and system).
    pub cpu: f64,
    /// Resident memory of the process itself, without the arena.
    pub resident: u64,
    /// Heap in use, as the allocator tells.
    pub heap: u64,
    /// Size of the journal.
    pub journal: u64,
}

/// File data in memory.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// The ceiling (`--memory`).
    pub budget: u64,
    /// The most to be held now: less than the budget by what the daemon itself holds, and while the machine is short.
    #[serde(default)]
    pub ceiling: u64,
    /// Blocks the arena holds.
    pub used: u64,
    /// The most it has held.
    pub peak: u64,
    /// The most that the daemon itself has held beside it (heap, stacks, buffers).
    #[serde(default)]
    pub peak_process: u64,
    /// The most that both have held at one time, as seen ten times a second.
    #[serde(default)]
    pub peak_together: u64,
    /// Bytes of files that the backing does not have yet.
    pub dirty: u64,
    /// Bytes of files that both have.
    pub clean: u64,
    /// Files that moved to the backing while they were written, since the mount.
    #[serde(default)]
    pub spilled_files: u64,
    /// Where memory of open files goes that nothing else can take; absent without `--overflow`.
    #[serde(default)]
    pub overflow: Option<OverflowStatus>,
    /// Share of the arena's memory on huge pages, 0 to 1; absent where the kernel doesn't tell.
    pub huge_share: Option<f64>,
}

/// The way to the backing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Files whose content waits.
    pub files: u64,
    /// Changes of names that wait.
    pub operations: u64,
    /// Bytes that wait.
    pub bytes: u64,
    /// Bytes written a second, over the last seconds.
    pub rate: f64,
    /// Bytes written since the mount.
    pub written: u64,
    /// Of those, what went past the page cache: from the arena by io_uring and O_DIRECT.
    pub written_direct: u64,
    /// Age of the oldest change that waits.
    pub backlog_age: f64,
    /// Changes that cancelled out before they were written.
    pub cancelled: u64,
    /// Outside changes that met dirty files here; the outside version was kept under a conflict name.
    pub conflicts: u64,
    /// Failures that are being retried.
    pub failing: u64,
    /// The last error, whole sentence, if any since the mount.
    pub last_error: Option<String>,
}

/// Files and names known to the daemon.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct FileStatus {
    /// Inodes in memory.
    pub known: u64,
    /// Objects of the backing that keep their inode numbers, known or not.
    #[serde(default)]
    pub numbers: u64,
    /// Open file handles.
    pub open: u64,
    /// Files that still have a writer or a writable mapping after their last close.
    pub lingering: u64,
}

/// What stays in memory, and what leaves it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CacheStatus {
    /// The published policy by which files leave.
    pub policy: String,
    /// Clean files that could leave, and their bytes.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// Opens for reading of files that were in memory.
    pub hits: u64,
    /// Of files that were not.
    pub misses: u64,
    /// Files that left to make room.
    pub evicted_files: u64,
    /// Bytes that this gave back.
    pub evicted: u64,
    /// Files that stay, and their bytes.
    pub pinned_files: u64,
    /// See `pinned_files`.
    pub pinned: u64,
}

/// What is fetched from the backing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchStatus {
    /// Files that wait to be fetched or are being fetched.
    pub waiting: u64,
    /// Bytes of those that are being fetched.
    pub in_flight: u64,
    /// Seconds until the backing answers, as measured; absent before it was.
    pub latency: Option<f64>,
    /// Bytes a second of one stream, as measured; absent before it was.
    pub rate: Option<f64>,
    /// By cause (`demand`, `warm`, and the predictors' words).
    pub causes: BTreeMap<String, CauseStatus>,
    /// By predictor; empty where nobody predicts.
    pub predictors: BTreeMap<String, PredictorStatus>,
}

/// What came in for one cause.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CauseStatus {
    /// Whole files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that were not fetched after all: no room, changed meanwhile, opened meanwhile, or the backing failed.
    pub dropped: u64,
}

/// What one predictor came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PredictorStatus {
    /// Files that it had fetched.
    pub predicted: u64,
    /// Their bytes that came in.
    pub fetched: u64,
    /// Bytes of them that were opened afterwards.
    pub used: u64,
    /// Files that were opened before they were there.
    pub late: u64,
    /// Bytes that left memory without having been opened.
    pub wasted: u64,
    /// How often it was turned down because it wasted.
    pub turned_down: u64,
    /// Files it may predict ahead now; 0 while it is turned down.
    pub window: u64,
}

/// Streams. All but `logs` is of those that were used since the mount.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamsStatus {
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
    /// Records appended a second, since the last status, at least a second.
    pub record_rate: f64,
    /// Bytes appended a second, likewise.
    pub rate: f64,
    /// Bytes in memory.
    pub memory: u64,
    /// Bytes in segments, and of what is to be sealed.
    pub stored: u64,
    /// Bytes appended that are not durable on the backing.
    pub unflushed: u64,
    /// Their groups.
    pub groups: GroupsStatus,
}

/// Consumer groups of all streams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupsStatus {
    /// Groups.
    pub number: u64,
    /// Descriptors that are open.
    pub members: u64,
    /// Groups that have something to read, and no member.
    pub unattended: u64,
    /// Records not acknowledged, all groups together.
    pub lag: u64,
    /// Records given to members, again or not.
    pub delivered: u64,
    /// Records given again.
    pub redelivered: u64,
    /// Records that retention or damage took before they were delivered.
    pub lost: u64,
    /// The group that is most behind; absent if no group is.
    pub worst: Option<WorstGroup>,
}

/// The group that is most behind.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WorstGroup {
    /// Its stream, relative to the mount's root.
    #[serde(with = "super::path")]
    pub stream: PathBuf,
    /// Its name.
    pub group: String,
    /// Records that it has not acknowledged.
    pub lag: u64,
    /// Descriptors that are open.
    pub members: u64,
}
