//! The storage engine of aimss: a namespace in memory over a directory on disk, file data in an arena of huge
//! pages, and a drain that brings both to the directory as plain files. Usable without a mount.
//!
//! Where to look:
//! - [`engine`]: the face; every operation a file system needs, one file a family.
//! - [`namespace`]: inodes, directories, and which of them the backing already has.
//! - [`arena`]: file data in memory, and how we know that nobody writes to it any more.
//! - [`oplog`]: changes of names that the backing does not have yet, and what must come before what.
//! - [`drain`]: applies them, and copies content.
//! - [`journal`]: what survives the death of the daemon.
//! - [`backing`]: the directory behind it all, as a trait.
//! - [`fetch`]: brings files from there into the arena, in pieces and several at once.
//! - [`predict`]: which files will be opened next; [`cache`]: which leave memory first.
//! - [`device`]: memory of a GPU, as a trait; [`tier`]: copies there of files that leave the arena.
//! - [`failpoint`]: places at which tests have the process killed; nothing in a release.
//! - [`fsck`]: checks and repairs what lies in the backing's `.aimss`.
//! - [`stream`]: append-only logs of records; they stand for themselves.
//!
//! What must not be here: FUSE, CUDA, a command line.
//!
//! Locks, in the order they may be taken (a later one never waits for an earlier one):
//! 1. `Engine::shape` (readers use drained paths; the drain writes while a directory moves on the backing)
//! 2. `Engine::cache` (which files leave the arena first)
//! 3. `Engine::names` (the tree: dirents, inode table)
//! 4. one `Inode::state` at a time
//! 5. `OpLog`, `DirtySet`, journal, counters: leaves.

pub mod arena;
pub mod attr;
pub mod backing;
pub mod cache;
pub mod device;
pub mod dice;
pub mod drain;
pub mod engine;
pub mod error;
pub mod failpoint;
pub mod fetch;
pub mod fsck;
pub mod ids;
pub mod journal;
mod machine;
pub mod namespace;
pub mod oplog;
pub mod predict;
pub mod stream;
pub mod tier;

pub use attr::{Attr, Kind, Timestamp};
pub use engine::{Engine, EngineConfig, Transition};
pub use error::{Error, Result};
pub use ids::{Ino, Name, Seq};
