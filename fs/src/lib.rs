//! aimss as a file system: POSIX semantics over the engine, the FUSE adapter, and the daemon around both.
//!
//! Where to look:
//! - [`posix`]: what Linux expects of modes, owners, ACLs and suid bits; no FUSE.
//! - [`errno`]: the one place where engine errors become errno values.
//! - [`adapter`]: decodes a request, calls, replies. `fuser` types live there and in [`daemon`] alone.
//! - [`policy`]: who may have passthrough.
//! - [`latency`]: processors that stay awake while requests come in bursts.
//! - [`daemon`]: mounts, serves, drains, leaves nothing behind.
//! - [`state`]: the directory that outlives a daemon, and the lease on the backing.
//! - [`streams`]: streams and their groups as files.
//! - [`control`]: how `aimss status` and its siblings talk to a daemon.

pub mod adapter;
pub mod config;
pub mod control;
pub mod daemon;
pub mod errno;
pub mod keeper;
pub mod latency;
pub mod policy;
pub mod posix;
pub mod session;
pub mod state;
pub mod streams;
