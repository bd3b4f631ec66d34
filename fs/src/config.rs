//! What a mount is asked to be: the settings that `aimss mount` hands to the daemon.

use aimss_engine::backing::SlowModel;
use aimss_engine::device::Faults;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What `fsync(2)` on a file of the mount waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FsyncPolicy {
    /// Until the file and the names that lead to it are durable on the backing.
    Durable,
    /// Not at all: the data is in memory, survives the application, and is drained like any other.
    Memory,
}

/// The settings of one mount. Serialized as JSON from `aimss mount` to the daemon it starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountConfig {
    /// The directory whose files are shown; absolute, no symbolic links.
    pub backing: PathBuf,
    /// Where the file system is mounted; absolute, no symbolic links.
    pub mountpoint: PathBuf,
    /// Ceiling for file data held in memory, in bytes.
    pub memory_bytes: u64,
    /// Where memory of open files goes that nothing else can take.
    pub overflow: Option<OverflowConfig>,
    /// Memory of a GPU for copies of files that leave memory.
    #[serde(default)]
    pub gpu: Option<GpuConfig>,
    /// What fsync waits for.
    pub fsync: FsyncPolicy,
    /// Globs over paths relative to the mount point; matching files are served by the daemon. `**` serves all so.
    pub no_passthrough: Vec<String>,
    /// Globs over paths relative to the mount point: new files that match are streams.
    pub streams: Vec<String>,
    /// How long what was appended to a stream may be in memory alone.
    pub stream_flush: Duration,
    /// Whether other users than the mounting one may use the mount.
    pub allow_other: bool,
    /// Take the backing over from an owner that no longer exists on another node.
    pub take_over: bool,
    /// How long a change rests in memory before the drain writes it. Changes that cancel out meanwhile are never
    /// written; `fsync`, `aimss drain` and `aimss umount` don't wait for it.
    pub drain_delay: Duration,
    /// How long what the backing said of a file is taken for granted: changes made outside show after it.
    pub revalidate: Duration,
    /// Who may predict what is opened next.
    pub prefetch: Prefetch,
    /// Whether a second daemon stands ready to take over.
    pub standby: bool,
    /// Whether anything outlives the daemon. Only measurements go without, to see what it costs.
    pub journal: bool,
    /// Act as if the backing were as slow as this: for measurements.
    pub slow: Option<SlowModel>,
}

/// A swap file to be made, or a device that is set up as swap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverflowConfig {
    /// Absolute.
    pub path: PathBuf,
    /// Size of a file.
    pub bytes: u64,
}

/// Who may predict what is opened next, and have it fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefetch {
    /// All, where the backing's storage is on another machine; nobody else, since a local disk is near and cached.
    Auto,
    /// Exactly these, by their words; an empty list is nobody.
    By(Vec<String>),
}

/// What may be taken of a GPU's memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GpuConfig {
    /// Of which.
    pub which: WhichGpu,
    /// Bytes at most.
    pub limit_bytes: u64,
    /// Bytes that are to be free there for others.
    pub reserve_bytes: u64,
}

/// A GPU.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WhichGpu {
    /// The one with the most free memory.
    MostFree,
    /// The one of this number.
    Index(u32),
    /// None: host memory that acts as one, for tests and for trying it out.
    Simulated {
        /// Its size.
        bytes: u64,
        /// How it misbehaves.
        faults: Faults,
        /// Of the dice for that.
        seed: u64,
    },
}
