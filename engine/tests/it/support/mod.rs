//! What the engine's integration tests share: an engine on scratch directories, a backing that can be cut or made to
//! fail, and random histories of operations with the model that says what they must come to.
//!
//! - [`random`]: a small seeded generator, so that a failure is repeated by its seed.
//! - [`ground`]: scratch directories (backing on disk, arena in memory) that outlive engines.
//! - [`watched`]: the backing with a log, a count of what is not synced yet, and faults.
//! - [`disk`]: a backing that loses its power, and what it could hold afterwards.
//! - [`model`]: the reference: a tree of objects, and each state that a directory or a file ever had.
//! - [`world`]: an engine and a model that are given the same operations.
//! - [`copies`]: an engine with a device for copies of files that leave memory.
//! - [`compare`]: the namespace and the backing against the model.
//! - [`order`]: a backing as a cut left it against the partial order that the drain promises.

#![allow(missing_docs, clippy::unwrap_used)]

pub mod compare;
pub mod copies;
pub mod disk;
pub mod ground;
pub mod model;
pub mod order;
pub mod random;
pub mod watched;
pub mod world;

use aimss_engine::Kind;
use aimss_engine::engine::New;
use std::time::Duration;

/// A drain delay that no test outlives: nothing is drained unless somebody waits for it.
pub const NEVER: Duration = Duration::from_secs(3600);

/// A file of the user who runs the tests, without anything special.
pub fn plain_file() -> New<'static> {
    New {
        kind: Kind::File,
        mode: 0o644,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        target: None,
        xattrs: Vec::new(),
    }
}

/// A number from the environment, for longer runs than the default.
pub fn runs(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The first seed; `AIMSS_SEED` repeats one that failed.
pub fn first_seed() -> u64 {
    runs("AIMSS_SEED", 1)
}

/// Whether owners can be given away; what needs it says that it is skipped.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Prints the seed when the test that holds it panics.
pub struct Seed(pub u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with AIMSS_SEED={}", self.0);
        }
    }
}

/// Shows the engine's warnings where `AIMSS_LOG` is set.
pub fn log_if_wanted() {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            eprintln!("{}: {}", record.level(), record.args());
        }
        fn flush(&self) {}
    }
    if std::env::var_os("AIMSS_LOG").is_some() && log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}
