//! Scratch directories and scratch mounts for `demo` and `bench`: removed whatever happens, also on an error
//! or after Ctrl-C, by being dropped.

use crate::progress::Display;
use crate::{background, control, escape, processes, size, unmount};
use aimss_fs::config::{FsyncPolicy, MountConfig, Prefetch};
use aimss_fs::control::client::Known;
use aimss_fs::control::status::MountStatus;
use anyhow::{Context as _, Result, anyhow};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// How long a scratch mount that is given up may take to end before its daemon is killed.
const END_WAIT: Duration = Duration::from_secs(20);
/// From the death of a daemon to the next one.
const NEXT_WAIT: Duration = Duration::from_secs(20);
/// Long enough that the drain never starts by itself while something is measured.
pub const NO_DRAIN: Duration = Duration::from_secs(3600);

/// A directory of our own that is removed when dropped.
pub struct Scratch {
    root: PathBuf,
}

impl Scratch {
    /// Makes `PARENT/aimss-WHAT-PID`.
    pub fn new(parent: &Path, what: &str) -> Result<Self> {
        let shown = escape::path(parent);
        let parent = fs::canonicalize(parent).map_err(|error| {
            anyhow!("{shown} can't be used for scratch files ({error}); give another directory")
        })?;
        let root = parent.join(format!("aimss-{what}-{}", std::process::id()));
        fs::create_dir(&root).map_err(|error| {
            anyhow!("no scratch directory can be made in {shown} ({error}); give another")
        })?;
        Ok(Self { root })
    }

    /// The directory `name` in it, made if it isn't there.
    pub fn dir(&self, name: &str) -> Result<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("{} can't be made", escape::path(&dir)))?;
        Ok(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.root) {
            eprintln!("aimss: {} could not be removed: {error}", escape::path(&self.root));
        }
    }
}

/// Where scratch files go unless told otherwise.
pub fn default_dir(asked: Option<&Path>) -> PathBuf {
    let tmp = || std::env::var_os("TMPDIR").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    asked.map(Path::to_owned).or_else(tmp).unwrap_or_else(|| PathBuf::from("/var/tmp"))
}

/// Whether `dir` is in memory, so that it can't stand for a disk.
pub fn in_memory(dir: &Path) -> bool {
    let kind =
        fs::canonicalize(dir).ok().and_then(|dir| crate::mountinfo::containing(&dir)).map(|mount| mount.kind);
    matches!(kind.as_deref(), Some("tmpfs" | "ramfs"))
}

/// A mount of our own; given up when dropped, with all that is in it.
pub struct Mounted {
    known: Known,
    child: Child,
    ended: bool,
}

impl Mounted {
    /// Mounts as `config` says, in the way `aimss mount` does.
    pub fn start(config: &MountConfig) -> Result<Self> {
        let child = background::start(config, None)?;
        let known = Known {
            mountpoint: config.mountpoint.clone(),
            backing: config.backing.clone(),
            pid: child.id(),
            started: 0,
            alive: true,
            keeper: None,
            kept_by: None,
            state_dir: PathBuf::new(),
        };
        let mut mounted = Self { known, child, ended: false };
        mounted.known =
            control::known_at(&config.mountpoint).context("the scratch mount isn't on the list of mounts")?;
        Ok(mounted)
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.known.mountpoint
    }

    /// Its backing.
    pub fn backing(&self) -> &Path {
        &self.known.backing
    }

    /// The daemon.
    pub fn daemon_pid(&self) -> u32 {
        self.known.pid
    }

    /// Its keeper.
    pub fn keeper_pid(&self) -> Option<u32> {
        self.known.keeper
    }

    /// The directory of its arena.
    pub fn arena(&self) -> PathBuf {
        self.known.state_dir.join("arena")
    }

    /// Its status.
    pub fn status(&self) -> Result<MountStatus> {
        control::status(&self.known)
    }

    /// Waits until everything is durable on the backing.
    pub fn drain(&self) -> Result<()> {
        control::drain(&mut control::connect(&self.known)?, Vec::new(), &mut Display::silent())
    }

    /// Kills the daemon; returns when its keeper has started the next one.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let killed = self.known.pid;
        processes::kill(killed);
        let until = Instant::now() + NEXT_WAIT;
        loop {
            match control::known_at(&self.known.mountpoint) {
                Some(known) if known.alive && known.pid != killed => {
                    self.known = known;
                    return Ok(());
                }
                _ if Instant::now() > until => {
                    return Err(anyhow!("the daemon was killed, and no other came"));
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Kills daemon and keeper, and takes the dead mount away. What they held stays.
    pub fn crash(mut self) -> Result<()> {
        // The keeper first: it would start another daemon.
        self.child.kill()?;
        self.child.wait()?;
        processes::kill(self.known.pid);
        if !processes::wait_gone(self.known.pid, END_WAIT) {
            return Err(anyhow!("the daemon was killed, and is still there"));
        }
        self.ended = true;
        unmount::detach_dead(&self.known.mountpoint)
    }

    /// Unmounts as `aimss umount` does.
    pub fn unmount(mut self) -> Result<()> {
        unmount::run(&self.known.mountpoint, &unmount::Options::default(), Display::silent())?;
        self.ended = true;
        self.child.wait()?;
        Ok(())
    }

    fn give_up(&mut self) {
        // Files deleted here need not be drained first.
        for entry in fs::read_dir(self.point()).into_iter().flatten().flatten() {
            let path = entry.path();
            let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
        }
        if let Err(error) = unmount::abandon(&self.known) {
            eprintln!("aimss: the scratch mount {} is still there: {error:#}", escape::path(self.point()));
        }
        if !processes::wait_gone(self.child.id(), END_WAIT) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = aimss_fs::state::clear_stale(&self.known.mountpoint);
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.ended {
            self.give_up();
        }
    }
}

/// The settings of a scratch mount: half the machine's memory, so that nothing is short unless a row wants it
/// so.
pub fn settings(backing: &Path, mountpoint: &Path, drain_delay: Duration) -> MountConfig {
    MountConfig {
        backing: backing.to_owned(),
        mountpoint: mountpoint.to_owned(),
        memory_bytes: size::machine_bytes() / 2,
        overflow: None,
        gpu: None,
        fsync: FsyncPolicy::Durable,
        no_passthrough: Vec::new(),
        streams: vec!["*.stream".into()],
        stream_flush: std::time::Duration::from_secs(1),
        allow_other: false,
        take_over: false,
        standby: true,
        journal: true,
        drain_delay,
        revalidate: std::time::Duration::from_secs(1),
        prefetch: Prefetch::Auto,
        slow: None,
    }
}
