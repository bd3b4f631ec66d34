//! Where files are, and moving them by command: into memory (`warm`, `pin`) and out of it (`evict`).

use super::Engine;
use crate::attr::Kind;
use crate::error::{Error, Result};
use crate::fetch::{Cause, Request};
use crate::ids::{Ino, Name};
use crate::namespace::{OpenMode, Place};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// Where the content of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// In memory alone.
    Memory,
    /// On the backing alone.
    Backing,
    /// In both.
    Both,
}

/// What `user.aimss.state` says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Where its content is.
    pub held: Held,
    /// The backing may have another content, or not yet to stay.
    pub dirty: bool,
    /// It stays in memory.
    pub pinned: bool,
    /// Since it became dirty; of a clean one, since its last close here, if there was one.
    pub age: Option<Duration>,
}

impl fmt::Display for FileState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = match self.held {
            Held::Memory => "memory",
            Held::Backing => "backing",
            Held::Both => "both",
        };
        write!(f, "{held} {}", if self.dirty { "dirty" } else { "clean" })?;
        if let Some(age) = self.age {
            write!(f, " {:.1}s", age.as_secs_f64())?;
        }
        f.write_str(if self.pinned { " pinned" } else { "" })
    }
}

/// What a command about residence came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Residence {
    /// Regular files that were meant.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that are where they were wanted.
    pub there: u64,
    /// Bytes of those.
    pub there_bytes: u64,
}

/// A regular file below what was named.
struct Target {
    directory: Ino,
    name: Name,
    ino: Ino,
}

impl Engine {
    /// Where a regular file is.
    pub fn file_state(&self, ino: Ino) -> Result<FileState> {
        let inode = self.inode(ino)?;
        if inode.kind != Kind::File {
            return Err(Error::Invalid);
        }
        let since = self.drain.dirty_since(ino);
        let pinned = self.pinned.lock().contains(&ino);
        let state = inode.state.lock();
        let file = &state.file;
        let on_backing = file.place.is_on_backing()
            || matches!(file.epoch.as_ref().map(|e| &e.mode), Some(OpenMode::Backing(_)));
        let held = match (on_backing, file.dirty || state.drained.is_empty()) {
            (true, _) => Held::Backing,
            (false, true) => Held::Memory,
            (false, false) => Held::Both,
        };
        let age = if file.dirty { since } else { file.used }.map(|at| at.elapsed());
        Ok(FileState { held, dirty: state.unsettled(), pinned, age })
    }

    /// Fetches files, and all below directories, into memory; returns when they are there, or can't be. `progress` is
    /// told how many are left. Needs an engine that was started.
    pub fn warm(&self, inos: &[Ino], progress: impl FnMut(u64)) -> Result<Residence> {
        Ok(self.bring(&self.files_below(inos)?, progress))
    }

    /// As [`Engine::warm`]; what is in memory then stays there until [`Engine::unpin`].
    pub fn pin(&self, inos: &[Ino], progress: impl FnMut(u64)) -> Result<Residence> {
        let targets = self.files_below(inos)?;
        // Before they come in, so that the last ones don't push out the first.
        self.pinned.lock().extend(targets.iter().map(|target| target.ino));
        for target in &targets {
            self.journal.pinned(target.ino, true);
        }
        let done = self.bring(&targets, progress);
        for target in &targets {
            let there = self.inode(target.ino).is_ok_and(|i| !i.state.lock().file.place.is_on_backing());
            if !there {
                self.pinned.lock().remove(&target.ino);
                self.journal.pinned(target.ino, false);
            }
        }
        Ok(done)
    }

    fn bring(&self, targets: &[Target], progress: impl FnMut(u64)) -> Residence {
        let bytes = |ino| self.inode(ino).map_or(0, |inode| inode.state.lock().attr.size);
        let request = |target: &Target| Request {
            ino: target.ino,
            link: Some((target.directory, target.name.clone())),
            bytes: bytes(target.ino),
            cause: Cause::Warm,
        };
        self.fetcher.add(targets.iter().map(request).collect());
        self.fetcher.wait_for(targets.iter().map(|target| target.ino), &self.stopping, progress);
        self.count(targets, |place| !place.is_on_backing())
    }

    /// Lets files leave memory again.
    pub fn unpin(&self, inos: &[Ino]) -> Result<Residence> {
        let targets = self.files_below(inos)?;
        let mut pinned = self.pinned.lock();
        for target in &targets {
            pinned.remove(&target.ino);
            self.journal.pinned(target.ino, false);
        }
        drop(pinned);
        Ok(self.count(&targets, |_| true))
    }

    /// Makes files, and all below directories, durable and takes them out of memory. Those that are in use or pinned stay.
    pub fn evict_files(&self, inos: &[Ino]) -> Result<Residence> {
        self.drain_some(inos)?;
        let targets = self.files_below(inos)?;
        for target in &targets {
            if !self.pinned.lock().contains(&target.ino)
                && let Ok(inode) = self.inode(target.ino)
                && self.evict_file(&inode) > 0
            {
                self.cache.lock().forget(target.ino.0);
            }
        }
        Ok(self.count(&targets, |place| place != Place::Arena))
    }

    /// Files pinned, and their bytes.
    pub fn pinned(&self) -> (u64, u64) {
        let pinned: Vec<Ino> = self.pinned.lock().iter().copied().collect();
        let bytes = pinned.iter().filter_map(|ino| Some(self.inode(*ino).ok()?.state.lock().attr.size)).sum();
        (pinned.len() as u64, bytes)
    }

    fn count(&self, targets: &[Target], wanted: impl Fn(Place) -> bool) -> Residence {
        let mut done = Residence { files: targets.len() as u64, ..Residence::default() };
        for target in targets {
            // One that the kernel forgot, cold: its size isn't known here, and it is where it was.
            let (place, size) = self.inode(target.ino).map_or((Place::Backing, 0), |inode| {
                let state = inode.state.lock();
                (state.file.place, state.attr.size)
            });
            done.bytes += size;
            if size == 0 && place == Place::Backing || wanted(place) {
                (done.there, done.there_bytes) = (done.there + 1, done.there_bytes + size);
            }
        }
        done
    }

    /// The regular files that `inos` are or have below them.
    fn files_below(&self, inos: &[Ino]) -> Result<Vec<Target>> {
        let mut files = Vec::new();
        let mut directories = Vec::new();
        for &ino in inos {
            let inode = self.inode(ino)?;
            match inode.kind {
                Kind::Directory => directories.push(ino),
                Kind::File => {
                    let (directory, name) = inode.state.lock().place.clone().ok_or(Error::NotFound)?;
                    files.push(Target { directory, name, ino });
                }
                _ => {}
            }
        }
        while let Some(directory) = directories.pop() {
            self.load_directory(directory)?;
            let mut below = Vec::new();
            self.read_directory(directory, 0, |entry| {
                match entry.kind {
                    Kind::Directory => below.push(entry.name.clone()),
                    Kind::File => {
                        files.push(Target { directory, name: entry.name.clone(), ino: entry.ino });
                    }
                    _ => {}
                }
                true
            })?;
            for name in below {
                directories.push(self.find(directory, &name)?.ino);
            }
        }
        Ok(files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_reads_as_words() {
        let state = FileState {
            held: Held::Both,
            dirty: false,
            pinned: true,
            age: Some(Duration::from_millis(3210)),
        };
        assert_eq!(state.to_string(), "both clean 3.2s pinned");
        assert_eq!(
            FileState { held: Held::Backing, pinned: false, age: None, ..state }.to_string(),
            "backing clean"
        );
    }
}
