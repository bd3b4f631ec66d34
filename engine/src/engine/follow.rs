//! Following writers in small memory cgroups whose files are on the backing, in passthrough.
//!
//! The kernel charges the page cache that they fill to their cgroup, and when that is full lets them wait for whatever it
//! finds to write. Written out a window behind them, and let go ([`super::write_out`]), their pages never fill it.
//! Figures: docs/design/0006.
//!
//! Nothing of theirs comes to us, so one thread looks how much larger their files became, as often as a window could be
//! filled. What they write over again is left to the kernel.

use super::Engine;
use crate::ids::Ino;
use crate::namespace::{Inode, OpenMode};
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Between two looks while files grow: a window at 4 GB/s.
const NEAR: Duration = Duration::from_millis(2);
/// While none does.
const FAR: Duration = Duration::from_millis(20);
/// After the last one was closed looks go on so long: files are made one after the other, and waking us for each costs more.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// How large each was at the last look.
    files: Mutex<FxHashMap<Ino, u64>>,
    opened: Condvar,
}

impl Follow {
    /// A file of `size` bytes on the backing was opened for writing, in passthrough, from a small cgroup.
    pub(super) fn opened(&self, ino: Ino, size: u64) {
        self.files.lock().entry(ino).or_insert(size);
        // Costs nothing unless the thread has come to rest.
        self.opened.notify_one();
    }

    /// For the thread to see that the engine stops.
    pub(crate) fn wake(&self) {
        let _files = self.files.lock();
        self.opened.notify_all();
    }
}

impl Engine {
    /// The thread that looks.
    pub(crate) fn run_follow(&self) {
        let mut seen = Instant::now();
        while !self.stopping.load(Ordering::Relaxed) {
            let mut files = self.follow.files.lock();
            let stops = self.stopping.load(Ordering::Relaxed);
            if files.is_empty() && seen.elapsed() >= GONE_AFTER && !stops {
                self.follow.opened.wait(&mut files);
            }
            if !files.is_empty() {
                seen = Instant::now();
            }
            let known: Vec<(Ino, u64)> = files.iter().map(|(ino, size)| (*ino, *size)).collect();
            drop(files);
            let mut grew = false;
            for (ino, before) in known {
                match self.inode(ino).ok().and_then(|inode| self.follow_file(&inode, before)) {
                    Some(size) => {
                        grew |= size > before;
                        self.follow.files.lock().insert(ino, size);
                    }
                    None => drop(self.follow.files.lock().remove(&ino)),
                }
            }
            std::thread::sleep(if grew { NEAR } else { FAR });
        }
    }

    /// Has what a file grew by written out, once it is worth it; gives its size, or `None` where there is nobody to follow
    /// any more.
    fn follow_file(&self, inode: &Arc<Inode>, before: u64) -> Option<u64> {
        let (file, size, out) = {
            let mut state = inode.state.lock();
            if !state.file.place.is_on_backing() || state.file.write_back_failed {
                return None;
            }
            let epoch = state.file.epoch.as_mut().filter(|epoch| epoch.writers > 0)?;
            let OpenMode::Backing(file) = &epoch.mode else { return None };
            let size = file.metadata().ok()?.len();
            let out = if size > before { epoch.behind.note(before..size) } else { None };
            (file.clone(), size, out)
        };
        if let Some(out) = out {
            self.begin_write_out(inode, &file, out);
        }
        Some(size)
    }
}
