//! The groups over partitions that have members: made with the first one, forgotten with the last.

use super::PartitionedGroup;
use super::seat::{Seat, leave};
use crate::stream::StreamId;
use crate::stream::group::MemberId;
use crate::stream::live::{Stream, Streams};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

/// The groups over partitions that have members, by the set of partitions and their name. Its lock is taken
/// before a group's.
#[derive(Debug, Default)]
pub(in crate::stream::live) struct Groups(pub(super) Mutex<HashMap<Key, Arc<PartitionedGroup>>>);

/// A set of partitions, and a name.
pub(super) type Key = (StreamId, Arc<str>);

impl Groups {
    pub fn all(&self) -> Vec<Arc<PartitionedGroup>> {
        self.0.lock().values().cloned().collect()
    }

    /// Takes partitions from members that are late.
    pub fn take_back_late(&self) {
        for group in self.all() {
            group.take_back_late();
        }
    }
}

impl Streams {
    /// A member joins a group over `partitions`, which are all of one set, in their order. The group is made
    /// in those that have none of the name: that waits for storage.
    pub fn join_partitions(
        &self,
        partitions: &[Arc<Stream>],
        name: &str,
    ) -> io::Result<(Arc<PartitionedGroup>, MemberId)> {
        let set = set_of(partitions)?;
        let key: Key = (set, name.into());
        if let Some(group) = self.partitioned.0.lock().get(&key) {
            return Ok((group.clone(), group.join()));
        }
        let mut seats = Vec::new();
        for stream in partitions {
            let member = stream.join(name).inspect_err(|_| leave(&seats, name))?;
            seats.push(Seat { stream: stream.clone(), member });
        }
        let (group, member, unused) = match self.partitioned.0.lock().entry(key) {
            // Somebody was quicker.
            Entry::Occupied(there) => (there.get().clone(), there.get().join(), seats),
            Entry::Vacant(none) => {
                let new = Arc::new(PartitionedGroup::new(set, name, seats));
                none.insert(new.clone());
                let member = new.join();
                (new, member, Vec::new())
            }
        };
        leave(&unused, name);
        Ok((group, member))
    }

    /// Removes a group over `partitions`; its members get errors. False if none of them has it.
    pub fn remove_partitioned_group(&self, partitions: &[Arc<Stream>], name: &str) -> io::Result<bool> {
        let group = self.partitioned.0.lock().remove(&(set_of(partitions)?, name.into()));
        let mut any = false;
        for stream in partitions {
            any |= stream.remove_group(name)?;
        }
        if let Some(group) = group {
            group.state.lock().removed = true;
            group.look_at_all();
        }
        Ok(any)
    }

    /// The groups over the partitions of `set` that have members, by name.
    pub fn partitioned_groups(&self, set: StreamId) -> Vec<Arc<PartitionedGroup>> {
        let mut groups = self.partitioned.all();
        groups.retain(|group| group.set == set);
        groups.sort_by(|a, b| a.name.cmp(&b.name));
        groups
    }
}

fn set_of(partitions: &[Arc<Stream>]) -> io::Result<StreamId> {
    let first = partitions.first().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(first.settings().partition.map_or(first.id(), |partition| partition.set))
}
