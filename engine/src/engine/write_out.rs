//! Writing out behind writers whose files are on the backing, and whose writes come to the daemon.
//!
//! What they put into the page cache would be charged to us. So it is written out a window behind them ([`Behind`]) and
//! let go, by threads of its own: beside the writers this came to 2.2 GB/s where writers that did it themselves had 1.85
//! (ext4, 1 MiB blocks, windows of 8 MiB). Writers wait where they are far ahead.
//!
//! Not taken: RWF_DONTCACHE, which does the same in the kernel, at 2.7 GB/s. It lets go of what the storage failed to
//! write, too, and that would be lost; here it stays until it is written.
//!
//! [`Behind`]: crate::namespace::Behind

use super::Engine;
use crate::ids::Ino;
use crate::namespace::{Inode, WriteOut};
use parking_lot::{Condvar, Mutex};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Files that are written out at once; each is a stream to the backing.
pub(crate) const THREADS: usize = 2;
/// Between two looks of a writer that waits, should nobody wake it.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What the writers and the threads share.
#[derive(Debug, Default)]
pub(crate) struct WriteOuts {
    /// To the threads; without them writers write out themselves.
    queue: Mutex<Option<crossbeam_channel::Sender<Job>>>,
    /// Numbers of what is queued or under way, by file.
    under_way: Mutex<FxHashMap<Ino, SmallVec<[u64; 2]>>>,
    begun: AtomicU64,
    /// One is done.
    ended: Condvar,
}

/// Of one file.
#[derive(Debug)]
pub(crate) struct Job {
    number: u64,
    inode: Arc<Inode>,
    file: Arc<File>,
    out: WriteOut,
}

impl WriteOuts {
    /// The threads take what comes here.
    pub(crate) fn start(&self) -> crossbeam_channel::Receiver<Job> {
        let (queue, work) = crossbeam_channel::unbounded();
        *self.queue.lock() = Some(queue);
        work
    }

    /// Nothing comes any more.
    pub(crate) fn stop(&self) {
        *self.queue.lock() = None;
    }
}

impl Engine {
    /// One of the threads.
    pub(crate) fn run_write_outs(&self, work: &crossbeam_channel::Receiver<Job>) {
        while let Ok(job) = work.recv() {
            self.write_out(&job);
        }
    }

    /// Has the storage write what lies behind a writer of a file, beside it. Call with no lock held.
    pub(super) fn begin_write_out(&self, inode: &Arc<Inode>, file: &Arc<File>, out: WriteOut) {
        let number = self.write_outs.begun.fetch_add(1, Ordering::Relaxed);
        self.write_outs.under_way.lock().entry(inode.ino).or_default().push(number);
        let job = Job { number, inode: inode.clone(), file: file.clone(), out };
        let queue = self.write_outs.queue.lock().clone();
        let unsent = match queue {
            Some(queue) => queue.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        if let Some(job) = unsent {
            self.write_out(&job);
        }
    }

    /// Waits while the writers of a file are far ahead of the storage.
    pub(super) fn wait_for_write_out(&self, inode: &Inode) {
        let is_far = || inode.state.lock().file.epoch.as_ref().is_some_and(|epoch| epoch.behind.is_far());
        let mut under_way = self.write_outs.under_way.lock();
        while is_far() && !self.stopping.load(Ordering::Relaxed) {
            self.write_outs.ended.wait_for(&mut under_way, LOOK_EVERY);
        }
    }

    /// Waits for what is under way now: the kernel tells a failure once, and a descriptor opened after that hears nothing.
    pub(crate) fn wait_for_write_outs(&self, ino: Ino) {
        let mut under_way = self.write_outs.under_way.lock();
        let Some(&last) = under_way.get(&ino).and_then(|numbers| numbers.last()) else { return };
        while under_way.get(&ino).is_some_and(|numbers| numbers.iter().any(|number| *number <= last)) {
            self.write_outs.ended.wait_for(&mut under_way, LOOK_EVERY);
        }
    }

    fn write_out(&self, Job { number, inode, file, out }: &Job) {
        let begun = self.backing.begin_write_out(file, out.begin.clone());
        let end = |range| self.backing.end_write_out(file, range);
        let ended = begun.and_then(|()| out.end.clone().map_or(Ok(()), end));
        let mut state = inode.state.lock();
        if let Err(e) = ended {
            log::debug!("inode {}: the backing failed to write: {e}", inode.ino.0);
            // The kernel tells it once, and takes the pages for clean: the drain writes them again.
            if matches!(e.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT)) {
                state.file.write_back_failed = true;
                self.journal.dirty(inode.ino, &state);
                state.file.touch();
                self.drain.mark(inode.ino);
            }
        }
        if let Some(epoch) = &mut state.file.epoch {
            epoch.behind.done();
        }
        drop(state);
        let mut under_way = self.write_outs.under_way.lock();
        if let Some(numbers) = under_way.get_mut(&inode.ino) {
            numbers.retain(|other| other != number);
            if numbers.is_empty() {
                under_way.remove(&inode.ino);
            }
        }
        self.write_outs.ended.notify_all();
    }
}
