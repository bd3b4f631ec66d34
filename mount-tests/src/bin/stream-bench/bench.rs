//! What all rows share: how much and how often to measure, where, and beside whom.

use crate::cli;
use crate::ours::Ours;
use crate::peers::{nats, redis};
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A smoke run's sizes are divided by this, and its pairs are [`QUICK_PAIRS`].
const QUICK_DIVISOR: u64 = 16;
const QUICK_PAIRS: usize = 2;

/// See the module.
pub struct Bench {
    /// Alternating pairs a figure.
    pub pairs: usize,
    /// Seconds of a timed run, where it is timed and not counted.
    pub seconds: u64,
    /// Our side.
    pub ours: Ours,
    /// Redis, unless it was declined.
    pub redis: Option<redis::Server>,
    /// NATS, unless it was declined.
    pub nats: Option<nats::Server>,
    /// Options for `aimss stream create` in the sweep.
    pub stream_options: String,
    /// Cells of the sweep; all, if empty.
    pub cells: Vec<String>,
    /// GiB of the larger log that a restart meets.
    pub big: u64,
    /// Whether the disk's cache is emptied before cold reads.
    pub drop_caches: bool,
    quick: bool,
    shm: TempDir,
}

impl Bench {
    /// As `asked`: mounted, peers started.
    pub fn new(asked: &cli::Bench) -> Result<Self> {
        ensure!(asked.pairs > 0, "--pairs 0 measures nothing; give 1 or more");
        ensure!(asked.seconds > 1, "--seconds {}: the first is dropped; give 2 or more", asked.seconds);
        let point = asked.mount.as_deref().context("give --mount DIR")?;
        // In memory: neither the sockets nor the plain files are to wait for a disk.
        let shm = tempfile::Builder::new().prefix("stream-bench-").tempdir_in("/dev/shm")?;
        Ok(Self {
            pairs: if asked.quick { QUICK_PAIRS.min(asked.pairs) } else { asked.pairs },
            seconds: asked.seconds,
            ours: Ours::new(point, asked.backing.as_deref(), &asked.mount_options)?,
            redis: redis::Server::asked(&asked.redis, shm.path())?,
            nats: nats::Server::asked(&asked.nats, asked.nats_pid, shm.path())?,
            stream_options: asked.stream_options.clone(),
            cells: asked.cell.clone(),
            big: asked.big,
            drop_caches: asked.drop_caches,
            quick: asked.quick,
            shm,
        })
    }

    /// A size or a count, less in a smoke run.
    pub fn scaled(&self, amount: u64) -> u64 {
        if self.quick { amount / QUICK_DIVISOR } else { amount }
    }

    /// A path in /dev/shm.
    pub fn shm(&self, name: &str) -> PathBuf {
        self.shm.path().join(name)
    }

    /// Who is there, with versions.
    pub fn peers(&self) -> Result<Vec<String>> {
        let redis = self.redis.as_ref().map(redis::Server::version).transpose()?;
        Ok(redis.into_iter().chain(self.nats.as_ref().map(nats::Server::version)).collect())
    }
}

/// Removes a file that may not be there.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} can't be removed", path.display()))
        }
        _ => Ok(()),
    }
}
