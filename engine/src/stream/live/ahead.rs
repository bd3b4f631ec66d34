//! Reading ahead for groups that lag: the next batch is read, checked and, if it is cold, unpacked on another
//! thread, while the kernel copies the last one and the member works on it.
//!
//! One batch a group, wanted when a member got a batch that was nearly as large as its room. Whoever comes
//! for it before the other thread has begun reads it himself; whoever comes while it is being read waits for
//! that.

use super::Stream;
use crate::stream::Batch;
use crate::stream::group::Claim;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

/// The batches read ahead for a stream's groups.
#[derive(Debug, Default)]
pub(super) struct Ahead(Mutex<HashMap<Arc<str>, Arc<Mutex<Slot>>>>);

/// A group's; locked while it is read.
#[derive(Debug, Default)]
struct Slot {
    /// What is to be read, if nobody did yet.
    wanted: Option<u64>,
    /// What was read, from where on, and for how much room.
    ready: Option<(u64, usize, Batch)>,
    bytes: Vec<u8>,
}

/// A batch to be read.
#[derive(Debug)]
pub(super) struct Wanted {
    stream: Weak<Stream>,
    slot: Arc<Mutex<Slot>>,
    from: u64,
    bytes_max: usize,
}

impl Ahead {
    fn slot(&self, group: &Arc<str>) -> Arc<Mutex<Slot>> {
        self.0.lock().entry(group.clone()).or_default().clone()
    }

    /// The batch from record `from` on, if it was read and fits into `bytes_max`; its bytes are then in
    /// `buffer`.
    pub fn take(&self, group: &Arc<str>, from: u64, bytes_max: usize, buffer: &mut Vec<u8>) -> Option<Batch> {
        let slot = self.0.lock().get(group)?.clone();
        let mut slot = slot.lock();
        slot.wanted = None;
        let (.., batch) = slot.ready.take_if(|(at, room, _)| *at == from && *room == bytes_max)?;
        std::mem::swap(&mut slot.bytes, buffer);
        Some(batch)
    }

    /// The group is gone.
    pub fn forget(&self, group: &str) {
        self.0.lock().remove(group);
    }

    /// Has the batch from record `from` on read.
    pub fn want(&self, stream: &Arc<Stream>, group: &Arc<str>, from: u64, bytes_max: usize) {
        let Some(hub) = stream.hub.upgrade() else { return };
        let slot = self.slot(group);
        slot.lock().wanted = Some(from);
        if let Some(wants) = &*hub.wanted.0.lock() {
            let _ = wants.send(Wanted { stream: Arc::downgrade(stream), slot, from, bytes_max });
        }
    }
}

impl Wanted {
    /// Reads it, if it is still wanted.
    pub fn prepare(&self) {
        let Some(stream) = self.stream.upgrade() else { return };
        let mut slot = self.slot.lock();
        if slot.wanted.take_if(|from| *from == self.from).is_none() {
            return;
        }
        let mut bytes = std::mem::take(&mut slot.bytes);
        let claim = Claim { from: self.from, until: None };
        // Whoever comes for it finds the error by himself.
        slot.ready = match stream.read_batch(&claim, self.bytes_max, &mut bytes) {
            Ok(batch) if batch.bytes > 0 => Some((self.from, self.bytes_max, batch)),
            _ => None,
        };
        slot.bytes = bytes;
    }
}
