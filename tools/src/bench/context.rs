//! What all rows share: how much and how often to measure, and where.

use crate::commands::Usage;
use crate::scratch::{self, Mounted, Scratch};
use crate::{cli, model, size};
use aimss_engine::backing::SlowModel;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};

/// A smoke run's sizes are divided by this, and its pairs are [`QUICK_PAIRS`].
const QUICK_DIVISOR: u64 = 16;
const QUICK_PAIRS: usize = 2;

/// Shared by all rows.
pub struct Context {
    /// Alternating pairs a figure.
    pub pairs: usize,
    /// A source tree to unpack, if one was given.
    pub tree: Option<PathBuf>,
    /// The slow backing of the rows about fetching ahead.
    pub model: SlowModel,
    /// Which GPU rows about one use.
    pub gpu: String,
    quick: bool,
    no_passthrough: bool,
    disk: Scratch,
    shm: Scratch,
    peers: Vec<(String, Scratch)>,
}

impl Context {
    /// As `asked`, with scratch directories made.
    pub fn new(asked: &cli::Bench) -> Result<Self> {
        if asked.pairs == 0 {
            bail!(Usage("--pairs 0 measures nothing; give 1 or more".into()));
        }
        let mut peers = Vec::new();
        for peer in &asked.peer {
            let Some((name, dir)) = peer.split_once('=') else {
                bail!(Usage(format!(
                    "--peer {peer} has no directory; write it as NAME=DIR, as in mergerfs=/mnt/mfs"
                )));
            };
            peers.push((name.to_owned(), Scratch::new(Path::new(dir), "bench")?));
        }
        let dir = scratch::default_dir(asked.dir.as_deref());
        Ok(Self {
            pairs: if asked.quick { QUICK_PAIRS.min(asked.pairs) } else { asked.pairs },
            tree: asked.tree.clone(),
            model: model::parse(&asked.backing).map_err(|why| Usage(format!("--backing: {why}")))?,
            gpu: asked.gpu.clone(),
            quick: asked.quick,
            no_passthrough: asked.no_passthrough,
            disk: Scratch::new(&dir, "bench")?,
            shm: Scratch::new(Path::new("/dev/shm"), "bench")?,
            peers,
        })
    }

    /// A size or a count, less in a smoke run.
    pub fn scaled(&self, amount: u64) -> u64 {
        if self.quick { amount / QUICK_DIVISOR } else { amount }
    }

    /// A size that `share` percent of the machine's memory must hold, less where they don't.
    pub fn scaled_to_memory(&self, bytes: u64, share: u64) -> u64 {
        const HUGE_PAGE: u64 = 2 << 20;
        self.scaled(bytes).min(size::machine_bytes() / 100 * share) / HUGE_PAGE * HUGE_PAGE
    }

    /// A scratch directory in `/dev/shm`.
    pub fn shm(&self) -> Result<PathBuf> {
        self.shm.dir("files")
    }

    /// The scratch directory `name` on the disk.
    pub fn disk(&self, name: &str) -> Result<PathBuf> {
        self.disk.dir(name)
    }

    /// A scratch directory on the peer `name`, if it was given.
    pub fn peer(&self, name: &str) -> Result<Option<PathBuf>> {
        self.peers.iter().find(|(peer, _)| peer == name).map(|(_, scratch)| scratch.dir("files")).transpose()
    }

    /// The names of all peers.
    pub fn peers(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().map(|(name, _)| name.as_str())
    }

    /// A fresh mount over an empty directory on the disk, drain off.
    pub fn mount(&self, row: &str) -> Result<Mounted> {
        let backing = self.disk.dir(&format!("backing-{row}"))?;
        let point = self.disk.dir(&format!("mount-{row}"))?;
        let mut config = scratch::settings(&backing, &point, scratch::NO_DRAIN);
        if self.no_passthrough {
            config.no_passthrough.push("**".into());
        }
        Mounted::start(&config).with_context(|| format!("the scratch mount for {row} failed"))
    }

    /// Removes what the last row left in `/dev/shm` and on the peers.
    pub fn clear(&self) -> Result<()> {
        super::empty(&self.shm()?)?;
        self.peers.iter().try_for_each(|(_, peer)| super::empty(&peer.dir("files")?))
    }
}
