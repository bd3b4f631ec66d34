//! Making things durable when somebody waits for it.

use super::Engine;
use crate::attr::Kind;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::Inode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A drain of everything gives up when nothing moved for this long and the backing keeps failing.
const STALLED: Duration = Duration::from_secs(8);
/// The same when the backing said that it is full, over quota or read-only, which waiting rarely changes.
const STALLED_FULL: Duration = Duration::from_secs(1);
/// Between two looks at the backlog.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What waits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Changes of names.
    pub operations: u64,
    /// Files and directories with content or attributes.
    pub files: u64,
    /// Bytes of their content.
    pub bytes: u64,
    /// Those of them that are in the arena; the others are in the backing's page cache.
    pub arena_bytes: u64,
}

impl Engine {
    /// fsync(2): the file or directory and the names that lead to it are on the backing to stay. Unrelated work waits.
    pub fn sync(&self, ino: Ino) -> Result<()> {
        if !self.config.fsync_durable {
            return Ok(());
        }
        self.make_durable(ino)
    }

    /// As [`Engine::sync`], whatever the mount's policy is.
    pub fn make_durable(&self, ino: Ino) -> Result<()> {
        let inode = self.inode(ino)?;
        // No name to come back under: nothing that a crash could keep.
        let nameless = || inode.state.lock().nameless();
        if nameless() {
            return Ok(());
        }
        match self.make_named_durable(&inode) {
            // Its last name went meanwhile.
            Err(_) if nameless() => Ok(()),
            result => result,
        }
    }

    fn make_named_durable(&self, inode: &Arc<Inode>) -> Result<()> {
        let ino = inode.ino;
        self.apply_names_of(ino)?;
        if inode.kind == Kind::Directory {
            self.apply_all(self.oplog.closure_of_directory(ino))?;
        }
        self.settle(inode, true)?;
        if ino != Ino::ROOT && inode.state.lock().drained.is_empty() {
            return Err(Error::Io(std::io::Error::other("its name can't be brought to the backing")));
        }
        let mut ways: Vec<Ino> = inode.state.lock().drained.iter().map(|link| link.0).collect();
        if inode.kind == Kind::Directory {
            ways.push(ino);
        }
        for mut at in ways {
            loop {
                self.sync_directory(at)?;
                if at == Ino::ROOT {
                    break;
                }
                let parent = self.inode(at)?.state.lock().drained.first().map(|link| link.0);
                at = parent.unwrap_or(Ino::ROOT);
            }
        }
        Ok(())
    }

    /// Makes the entries of a directory durable that were changed since the last time.
    fn sync_directory(&self, dir: Ino) -> Result<()> {
        // In turn: who comes second must not return before the first has synced.
        let _turn = self.drain.turn(dir);
        if !self.drain.take_unsynced(dir) {
            return Ok(());
        }
        let _shape = self.shape.read_recursive();
        let synced = self.drained_path(dir).and_then(|path| Ok(self.backing.sync_dir(&path)?));
        if synced.is_err() {
            self.drain.unsynced(dir);
        }
        synced
    }

    /// What waits now.
    pub fn backlog(&self) -> Backlog {
        let dirty = self.drain.dirty_inodes();
        let (mut bytes, mut arena_bytes) = (0, 0);
        for inode in dirty.iter().filter_map(|(ino, _)| self.inode(*ino).ok()) {
            let mut state = inode.state.lock();
            self.fold(inode.ino, &mut state);
            if state.file.dirty {
                bytes += state.attr.size;
                arena_bytes += if state.file.place.is_on_backing() { 0 } else { state.attr.size };
            }
        }
        Backlog { operations: self.oplog.len() as u64, files: dirty.len() as u64, bytes, arena_bytes }
    }

    /// Makes everything durable. `progress` is told a few times a second what is left. Files that are still being
    /// written count as drained with what they hold when their turn comes.
    pub fn drain_all(&self, mut progress: impl FnMut(Backlog)) -> Result<()> {
        let _urgent = Urgent::new(self);
        let (mut last, mut moved) = ((Backlog::default(), 0), Instant::now());
        let mut told = Instant::now();
        loop {
            let backlog = self.backlog();
            if told.elapsed() > Duration::from_millis(100) {
                progress(backlog);
                told = Instant::now();
            }
            let written = self.drain.written.load(Ordering::Relaxed);
            if backlog.operations == 0 && self.only_open_files_left() {
                break;
            }
            if (backlog, written) != last {
                (last, moved) = ((backlog, written), Instant::now());
            }
            let failing =
                self.oplog.failing() > 0 || self.drain.dirty_inodes().iter().any(|(_, due)| due.failures > 0);
            let patience = if self.drain.is_full() { STALLED_FULL } else { STALLED };
            if failing && moved.elapsed() > patience {
                return Err(Error::Io(std::io::Error::other(
                    self.drain.last_error().unwrap_or_else(|| "the backing keeps failing".into()),
                )));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        // Files that stay open, then the directories that this dates anew.
        for directories in [false, true] {
            for (ino, _) in self.drain.dirty_inodes() {
                if let Ok(inode) = self.inode(ino)
                    && (inode.kind == Kind::Directory) == directories
                {
                    self.settle(&inode, false)?;
                }
            }
        }
        self.backing.sync_all()?;
        progress(self.backlog());
        Ok(())
    }

    /// Whether all that is dirty is open for writing or mapped, so that it will stay dirty.
    fn only_open_files_left(&self) -> bool {
        self.drain.dirty_inodes().iter().all(|(ino, due)| {
            let Ok(inode) = self.inode(*ino) else { return true };
            let state = inode.state.lock();
            let open = state.file.writers() > 0 || state.file.lingering;
            due.failures == 0 && ((open && !due.queued) || !state.unsettled() || state.nameless())
        })
    }

    /// Makes the paths in `inos` durable, directories with all below them.
    pub fn drain_some(&self, inos: &[Ino]) -> Result<()> {
        let mut stack = inos.to_vec();
        while let Some(ino) = stack.pop() {
            self.make_durable(ino)?;
            let names = self.names.lock();
            if let Some(dir) = names.dirs.get(&ino) {
                let known = dir.names().map(|(_, entry)| entry.ino).filter(|ino| names.inode(*ino).is_some());
                stack.extend(known);
            }
        }
        Ok(())
    }
}

/// While it lives, the drain delay doesn't count.
struct Urgent<'e>(&'e Engine);

impl<'e> Urgent<'e> {
    fn new(engine: &'e Engine) -> Urgent<'e> {
        engine.drain.urgent.fetch_add(1, Ordering::Relaxed);
        engine.drain.wake();
        Urgent(engine)
    }
}

impl Drop for Urgent<'_> {
    fn drop(&mut self) {
        self.0.drain.urgent.fetch_sub(1, Ordering::Relaxed);
    }
}
