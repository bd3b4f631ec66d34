//! Scratch directories for a backing (on disk), an arena and a journal (in memory). They outlive engines, so that one
//! can die and the next find what it left.

use super::NEVER;
use aimss_engine::arena::Arena;
use aimss_engine::backing::{Backing, LocalBacking};
use aimss_engine::engine::{StillOpen, Successor};
use aimss_engine::journal::{Follower, Journal};
use aimss_engine::{Engine, EngineConfig, predict};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Room that no test fills.
pub const AMPLE_BYTES: u64 = 1 << 30;

/// See the module.
pub struct Ground {
    disk: TempDir,
    memory: TempDir,
}

/// What differs between the engines of the tests.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    pub drain_delay: Duration,
    pub budget_bytes: u64,
    pub journal: bool,
    pub revalidate: Duration,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            drain_delay: NEVER,
            budget_bytes: AMPLE_BYTES,
            journal: false,
            revalidate: Duration::from_secs(1),
        }
    }
}

impl Ground {
    pub fn new() -> Ground {
        // Objects get the modes they are made with, and their owners may make them: identities by owner need that.
        rustix::process::umask(rustix::fs::Mode::empty());
        let disk = tempfile::tempdir().expect("a scratch directory");
        let memory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory in memory");
        std::fs::set_permissions(disk.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
        let ground = Ground { disk, memory };
        std::fs::create_dir(ground.backing()).expect("mkdir");
        std::fs::set_permissions(ground.backing(), PermissionsExt::from_mode(0o777)).expect("chmod");
        std::fs::create_dir(ground.backing().join(".aimss")).expect("mkdir");
        std::fs::set_permissions(ground.backing().join(".aimss"), PermissionsExt::from_mode(0o700))
            .expect("chmod");
        std::fs::create_dir(ground.arena()).expect("mkdir");
        ground
    }

    pub fn backing(&self) -> PathBuf {
        self.disk.path().join("backing")
    }

    pub fn arena(&self) -> PathBuf {
        self.memory.path().join("arena")
    }

    pub fn journal(&self) -> PathBuf {
        self.memory.path().join("journal")
    }

    pub fn local(&self) -> Arc<LocalBacking> {
        Arc::new(LocalBacking::open(&self.backing()).expect("the backing opens"))
    }

    /// An engine over `backing`, not started.
    pub fn engine(&self, backing: Arc<dyn Backing>, setup: Setup) -> Arc<Engine> {
        let journal = if setup.journal {
            Journal::create(&self.journal()).expect("the journal opens")
        } else {
            Journal::none()
        };
        self.engine_with(backing, setup, journal)
    }

    /// An engine that was given what the journal says, and goes on with it; started.
    pub fn next_engine(&self, backing: Arc<dyn Backing>) -> Arc<Engine> {
        let (engine, successor) = self.successor(backing, Setup::default());
        successor.resume().expect("the journal opens");
        engine.start();
        engine
    }

    /// What goes on where the engine of the journal ends, and its engine, not started.
    pub fn successor(&self, backing: Arc<dyn Backing>, setup: Setup) -> (Arc<Engine>, Successor) {
        let follower = Follower::begin(&self.journal()).expect("the journal");
        let journal = Journal::beside_another(&self.journal()).expect("the journal opens");
        let engine = self.engine_with(backing, setup, journal);
        (engine.clone(), Successor::new(engine, follower))
    }

    /// What was entered bit by bit is what is entered at once, from a journal that was not rewritten meanwhile: that knows
    /// some things better.
    pub fn compare_with_another(&self, successor: &Successor) {
        let (_, mut other) = self.successor(self.local(), Setup::default());
        other.follow().expect("the journal can be read");
        let (ours, others) = (successor.tables(), other.tables());
        let missing = others.iter().filter(|line| !ours.contains(line)).map(|line| format!("-{line}"));
        let more = ours.iter().filter(|line| !others.contains(line)).map(|line| format!("+{line}"));
        let differ: Vec<String> = missing.chain(more).collect();
        assert!(differ.is_empty(), "{}", differ.join("\n"));
    }

    /// The last engine of the journal is gone.
    pub fn take_over(mut successor: Successor, open: &[StillOpen]) {
        let engine = successor.engine().clone();
        successor.follow().expect("the journal is followed to its end");
        successor.take_over(open).expect("the journal opens");
        engine.clear_leftovers().expect("leftovers are cleared");
        engine.sweep_arena();
    }

    /// One that predicts; not started.
    pub fn predicting_engine(
        &self,
        backing: Arc<dyn Backing>,
        budget_bytes: u64,
        predict: predict::Config,
    ) -> Arc<Engine> {
        let setup = Setup { budget_bytes, ..Setup::default() };
        self.engine_of(backing, setup, Journal::none(), Some(predict))
    }

    fn engine_with(&self, backing: Arc<dyn Backing>, setup: Setup, journal: Journal) -> Arc<Engine> {
        self.engine_of(backing, setup, journal, None)
    }

    fn engine_of(
        &self,
        backing: Arc<dyn Backing>,
        setup: Setup,
        journal: Journal,
        predict: Option<predict::Config>,
    ) -> Arc<Engine> {
        let config = EngineConfig {
            fsync_durable: true,
            drain_delay: setup.drain_delay,
            node: "here".into(),
            revalidate: setup.revalidate,
            predict,
            gives_way: false,
        };
        let arena = Arena::open(&self.arena(), setup.budget_bytes, false).expect("the arena opens");
        Engine::new(config, backing, arena, journal).expect("an engine")
    }
}
