//! The engine's face: what a file system asks, over namespace, arena, drain and backing.
//!
//! One file a family: [`lookup`](self) finds and lists names, `names` changes them, `attrs` and `xattrs` read and
//! change attributes, `open` decides how a file is served, `io` serves what comes to the daemon, `sync` makes durable,
//! `room` keeps the arena inside its budget, `spill` moves what outgrows it, `write_out` and `follow` keep what they
//! leave in page caches small, `outgrown` holds back what can't be moved, `residence` moves files in and out by command, `copies`
//! has them leave by way of a device's memory,
//! `foresight` asks who predicts what is opened next, `successor` goes on where another daemon ended, `rewrite` keeps the
//! journal small, `status` tells.
//!
//! None of it checks permissions: the kernel does, from the attributes it is given.

mod attrs;
mod copies;
mod follow;
mod foresight;
mod io;
mod lookup;
mod names;
mod open;
mod outgrown;
mod residence;
mod rewrite;
mod room;
mod spill;
mod status;
mod successor;
mod sync;
mod together;
mod unforgotten;
mod unnamed;
mod write_out;
mod xattrs;

pub use attrs::SetAttr;
pub(crate) use attrs::stat_of_file;
pub use foresight::{Foresight, Transition};
pub use io::Whence;
pub(crate) use lookup::baseline;
pub use lookup::{DirEntry, Found};
pub use names::New;
pub use open::{Ended, Opened, Reason, Released, Want};
pub use residence::{FileState, Held, Residence};
pub use room::{CacheCounts, PROMOTE_BYTES_MAX};
pub(crate) use spill::THREADS as SPILL_THREADS;
pub use status::{BusyFile, Status};
pub use successor::{Served, StillOpen, Successor};
pub use sync::Backlog;
pub(crate) use write_out::THREADS as WRITE_OUT_THREADS;

use crate::arena::Arena;
use crate::backing::{Backing, Called, Calls};
use crate::cache::S3Fifo;
use crate::drain::{Drain, Turns};
use crate::error::{Error, Result};
use crate::fetch::Fetcher;
use crate::ids::Ino;
use crate::journal::Journal;
use crate::machine::Group;
use crate::namespace::{Inode, Names, join_path};
use crate::oplog::OpLog;
use crate::predict;
use crate::tier::Tier;
use parking_lot::{Mutex, RwLock};
use rustc_hash::FxHashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The folder in the backing that is ours; never shown.
pub const PRIVATE_DIRECTORY: &[u8] = b".aimss";
/// How long a lock that is held for microseconds may not be had before who must not wait gives up.
const PATIENCE: Duration = Duration::from_millis(20);

/// What an engine is asked to be.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Whether fsync waits for the backing.
    pub fsync_durable: bool,
    /// How long a change rests before it is drained.
    pub drain_delay: Duration,
    /// Names this node where two versions of a file are kept: `NAME.aimss-conflict-NODE`.
    pub node: String,
    /// How long what the backing said is taken for granted: changes made outside show after it.
    pub revalidate: Duration,
    /// Who may predict what is opened next; `None`: nobody.
    pub predict: Option<predict::Config>,
    /// Whether the arena gives way when the machine, or our memory cgroup, runs short.
    pub gives_way: bool,
}

/// See the module.
pub struct Engine {
    pub(crate) config: EngineConfig,
    pub(crate) backing: Arc<dyn Backing>,
    /// What of it has not been answered.
    pub(crate) calls: Arc<Calls>,
    pub(crate) arena: Arena,
    /// Held for reading while a drained path is built and used, for writing while the drain moves or removes
    /// something on the backing.
    pub(crate) shape: RwLock<()>,
    /// Guards the tree; held for microseconds, never across a call to the backing.
    pub(crate) names: Mutex<Names>,
    pub(crate) oplog: OpLog,
    pub(crate) journal: Journal,
    pub(crate) drain: Drain,
    pub(crate) fetcher: Fetcher,
    pub(crate) foresight: Foresight,
    pub(crate) spills: spill::Spills,
    pub(crate) outgrown: outgrown::Outgrown,
    pub(crate) write_outs: write_out::WriteOuts,
    pub(crate) follow: follow::Follow,
    /// Of opens that make a file in our private directory.
    pub(crate) unnamed: Turns,
    /// Our memory cgroup.
    pub(crate) group: Option<Group>,
    pub(crate) peaks: Peaks,
    /// Which files leave the arena first. Taken with none of the locks above held, before `names`.
    pub(crate) cache: Mutex<S3Fifo>,
    pub(crate) cache_counts: Mutex<CacheCounts>,
    /// Copies of files in a device's memory, where there is one. A leaf.
    pub(crate) tier: OnceLock<Arc<Tier>>,
    /// Files that were fetched ahead, and that nobody opened yet.
    pub(crate) awaited: Mutex<FxHashSet<Ino>>,
    /// What the kernel may not know any more. A leaf.
    pub(crate) unforgotten: unforgotten::Unforgotten,
    /// Files that don't leave it.
    pub(crate) pinned: Mutex<FxHashSet<Ino>>,
    /// Bytes promised to open passthrough writers beyond what their files hold.
    pub(crate) reserved: AtomicU64,
    pub(crate) open_handles: AtomicU64,
    pub(crate) stopping: AtomicBool,
    /// The kernel lets the backing's files be passed through, as far as we know.
    pub(crate) backing_stacks: AtomicBool,
    /// Leases on the backing's files tell who can write them.
    pub(crate) backing_leases: AtomicBool,
    /// The directory of the last file whose extended attributes had to be asked for.
    xattrs_asked_in: AtomicU64,
}

/// The most memory seen in use.
#[derive(Debug, Default)]
pub(crate) struct Peaks {
    /// Of the process, without files.
    pub process: AtomicU64,
    /// Of it and the arena at one time.
    pub together: AtomicU64,
    /// What another process holds on our behalf now.
    pub beside: AtomicU64,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over `backing`. Call [`Engine::start`] for the drain to run by itself.
    pub fn new(
        config: EngineConfig,
        backing: Arc<dyn Backing>,
        arena: Arena,
        journal: Journal,
    ) -> Result<Arc<Engine>> {
        let passed_through = backing.can_be_passed_through();
        let (backing, calls) = Called::new(backing);
        let engine = Engine {
            fetcher: Fetcher::default(),
            foresight: Foresight::new(config.predict),
            spills: spill::Spills::default(),
            outgrown: outgrown::Outgrown::default(),
            write_outs: write_out::WriteOuts::default(),
            follow: follow::Follow::default(),
            unnamed: Turns::default(),
            group: Group::of_this_process(),
            peaks: Peaks::default(),
            cache: Mutex::new(S3Fifo::new(arena.budget_bytes())),
            cache_counts: Mutex::default(),
            tier: OnceLock::new(),
            awaited: Mutex::default(),
            unforgotten: unforgotten::Unforgotten::default(),
            pinned: Mutex::default(),
            config,
            backing: Arc::new(backing),
            calls,
            arena,
            shape: RwLock::new(()),
            names: Mutex::new(Names::new()),
            oplog: OpLog::default(),
            journal,
            drain: Drain::default(),
            reserved: AtomicU64::new(0),
            open_handles: AtomicU64::new(0),
            stopping: AtomicBool::new(false),
            backing_stacks: AtomicBool::new(passed_through),
            backing_leases: AtomicBool::new(false),
            xattrs_asked_in: AtomicU64::new(0),
        };
        engine.load_root()?;
        Ok(Arc::new(engine))
    }

    /// The inode, if the kernel may know it.
    pub(crate) fn inode(&self, ino: Ino) -> Result<Arc<Inode>> {
        self.names.lock().inode(ino).cloned().ok_or(Error::NotFound)
    }

    /// Where the backing has `ino`; hold [`Engine::shape`] while it is used.
    pub(crate) fn drained_path(&self, ino: Ino) -> Result<Vec<u8>> {
        let mut parts: Vec<crate::ids::Name> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let inode = self.inode(at)?;
            let state = inode.state.lock();
            let (parent, name) = state.drained.first().ok_or(Error::NotFound)?.clone();
            parts.push(name);
            at = parent;
        }
        Ok(parts.iter().rev().fold(Vec::new(), |path, part| join_path(&path, part)))
    }

    /// Where `ino` is in the namespace, for people; `None` once it has no name.
    pub fn path_of(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts: Vec<crate::ids::Name> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let inode = self.inode(at).ok()?;
            let (parent, name) = inode.state.lock().place.clone()?;
            parts.push(name);
            at = parent;
        }
        Some(parts.iter().rev().fold(Vec::new(), |path, part| join_path(&path, part)))
    }

    /// The same, for who must not wait: `None` also while somebody works on it or on a directory above.
    pub fn path_if_free(&self, ino: Ino) -> Option<Vec<u8>> {
        let mut parts: Vec<crate::ids::Name> = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let inode = self.names.try_lock_for(PATIENCE)?.inode(at).cloned()?;
            let (parent, name) = inode.state.try_lock_for(PATIENCE)?.place.clone()?;
            parts.push(name);
            at = parent;
        }
        Some(parts.iter().rev().fold(Vec::new(), |path, part| join_path(&path, part)))
    }

    /// How long what the backing said is taken for granted.
    pub fn revalidates_after(&self) -> Duration {
        self.config.revalidate
    }

    /// Another process holds so many bytes on behalf of this engine: they count as ours.
    pub fn held_beside(&self, bytes: u64) {
        self.peaks.beside.store(bytes, Ordering::Relaxed);
    }

    /// The journal.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The arena.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }
}
