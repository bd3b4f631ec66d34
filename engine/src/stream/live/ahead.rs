//! Reading ahead for groups that lag: the next batches are read, checked and, if they are cold, unpacked on
//! another thread, while the kernel copies the last one and the member works on it.
//!
//! Reading ahead begins when a member got a batch that was nearly as large as its room, and goes on by itself up to
//! [`BATCHES_MAX`] batches a group, so that the thread is not woken for each. Whoever comes for one that is being
//! read waits for that; whoever comes for another one, after a seek, reads it himself, and what was read ahead is
//! forgotten.

use super::Stream;
use crate::stream::Batch;
use crate::stream::group::Claim;
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};

/// Batches read ahead of one group's members. Memory is this times what a member reads at once.
const BATCHES_MAX: usize = 4;

/// The batches read ahead for a stream's groups.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<HashMap<Arc<str>, Arc<Slot>>>);

/// A group's.
#[derive(Debug, Default)]
struct Slot {
    queue: Mutex<Queue>,
    read: Condvar,
}

/// Batches in a row: those that were read, then the one that is being read or the one that is to be read.
#[derive(Debug, Default)]
struct Queue {
    ready: VecDeque<Ready>,
    reading: Option<Next>,
    wanted: Option<Next>,
    /// Buffers that were used before.
    spare: Vec<Vec<u8>>,
}

/// Where a batch begins, and the room that it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Next {
    from: u64,
    bytes_max: usize,
}

#[derive(Debug)]
struct Ready {
    at: Next,
    batch: Batch,
    bytes: Vec<u8>,
}

/// Something to be read ahead for a group.
#[derive(Debug)]
pub(super) struct Wanted {
    stream: Weak<Stream>,
    slot: Arc<Slot>,
}

impl Queue {
    /// Whether `next` is what follows or will follow.
    fn has(&self, next: Next) -> bool {
        self.ready.front().is_some_and(|ready| ready.at == next)
            || self.ready.is_empty() && (self.reading == Some(next) || self.wanted == Some(next))
    }

    /// What follows the batches that were read, if that is worth reading and there is room.
    fn following(&self) -> Option<Next> {
        let last = self.ready.back().filter(|_| self.ready.len() < BATCHES_MAX)?;
        following(last.at, &last.batch)
    }

    fn forget(&mut self) {
        self.spare.extend(self.ready.drain(..).map(|ready| ready.bytes));
        (self.reading, self.wanted) = (None, None);
    }
}

/// What comes behind a batch that is nearly as large as its room: there is more, most likely.
fn following(at: Next, batch: &Batch) -> Option<Next> {
    (batch.bytes > at.bytes_max / 2).then_some(Next { from: batch.next.0, ..at })
}

impl Ahead {
    /// The batch from record `from` on, if it was read and for `bytes_max`; its bytes are then in `buffer`.
    pub fn take(&self, group: &Arc<str>, from: u64, bytes_max: usize, buffer: &mut Vec<u8>) -> Option<Batch> {
        let slot = self.0.lock().get(group)?.clone();
        let at = Next { from, bytes_max };
        let mut queue = slot.queue.lock();
        while queue.ready.is_empty() && queue.reading == Some(at) {
            slot.read.wait(&mut queue);
        }
        let is_next = queue.ready.front().is_some_and(|ready| ready.at == at);
        if let Some(Ready { batch, mut bytes, .. }) = queue.ready.pop_front().filter(|_| is_next) {
            std::mem::swap(&mut bytes, buffer);
            queue.spare.push(bytes);
            return Some(batch);
        }
        // He has come to the end, or went elsewhere: the memory is not needed.
        queue.forget();
        queue.spare.clear();
        None
    }

    /// Has the batches from record `from` on read.
    pub fn want(&self, stream: &Arc<Stream>, group: &Arc<str>, from: u64, bytes_max: usize) {
        let slot = self.0.lock().entry(group.clone()).or_default().clone();
        {
            let mut queue = slot.queue.lock();
            let next = Next { from, bytes_max };
            if !queue.has(next) {
                queue.forget();
                queue.wanted = Some(next);
            } else if queue.reading.is_some() || queue.wanted.is_some() {
                return;
            } else {
                let Some(following) = queue.following() else { return };
                queue.wanted = Some(following);
            }
        }
        let Some(hub) = stream.hub.upgrade() else { return };
        if let Some(wants) = &*hub.wanted.0.lock() {
            let _ = wants.send(Wanted { stream: Arc::downgrade(stream), slot });
        }
    }

    /// A group is gone.
    pub fn remove(&self, group: &str) {
        self.0.lock().remove(group);
    }
}

impl Wanted {
    /// Reads what is still wanted, and what follows.
    pub fn prepare(&self) {
        let Some(stream) = self.stream.upgrade() else { return };
        let mut queue = self.slot.queue.lock();
        while let Some(at) = queue.wanted.take() {
            queue.reading = Some(at);
            let mut bytes = queue.spare.pop().unwrap_or_default();
            drop(queue);
            let claim = Claim { from: at.from, until: None };
            let read = stream.read_batch(&claim, at.bytes_max, &mut bytes);
            queue = self.slot.queue.lock();
            if queue.reading != Some(at) {
                // Forgotten meanwhile, and perhaps another thread has begun somewhere else.
                queue.spare.push(bytes);
                continue;
            }
            queue.reading = None;
            match read {
                Ok(batch) if batch.bytes > 0 => {
                    queue.ready.push_back(Ready { at, batch, bytes });
                    queue.wanted = queue.following();
                }
                // Whoever comes for it finds the error by himself.
                _ => queue.spare.push(bytes),
            }
            self.slot.read.notify_all();
        }
    }
}
