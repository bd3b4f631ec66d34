//! Partitioned streams as directories.
//!
//! Such a directory is one as any other, and so are the streams in it. What it is is said by the settings of
//! the partitions: the streams named `0` or `1` are looked at, so that one that is gone is missed, and not
//! taken for the end of it all. `NAME@GROUP` beside the directory is then a group over them.
//!
//! Opening a group opens all the logs: do that beside the threads that read requests.

use super::{GroupNode, Handle, StreamFiles};
use aimss_engine::stream::Partition;
use aimss_engine::stream::live::Stream;
use aimss_engine::{Error, Ino, Kind, Result};
use std::sync::Arc;

/// The streams of a directory that has partitions.
#[derive(Debug)]
pub struct Partitions {
    /// The set, as one of them says.
    pub set: Partition,
    /// Each by its number; `None` where another stream, or none, has its name.
    pub streams: Vec<Option<Arc<Stream>>>,
}

impl Partitions {
    /// The numbers of those that are not there.
    pub fn missing(&self) -> Vec<u32> {
        (0..).zip(&self.streams).filter(|(_, stream)| stream.is_none()).map(|(number, _)| number).collect()
    }
}

impl StreamFiles {
    fn partition(&self, dir: Ino, number: u32) -> Option<(Partition, Arc<Stream>)> {
        let ino = self.engine.resolve(dir, Partition::name(number).as_bytes()).ok()?;
        let stream = self.of_inode(ino)?;
        let partition = stream.settings().partition?;
        Some((partition, stream))
    }

    /// Whether [`StreamFiles::set_of`] waits for storage: it may have to open logs.
    pub fn set_waits(&self, dir: Ino) -> bool {
        let waits = |number| {
            let partition = self.engine.resolve(dir, Partition::name(number).as_bytes());
            partition.is_ok_and(|partition| self.waits_for(partition))
        };
        self.engine.attr(dir).is_ok_and(|attr| attr.kind == Kind::Directory) && (0..2).any(waits)
    }

    /// What set of partitions a directory has.
    pub fn set_of(&self, dir: Ino) -> Option<Partition> {
        if self.engine.attr(dir).ok()?.kind != Kind::Directory {
            return None;
        }
        (0..2).find_map(|number| {
            let (partition, _) = self.partition(dir, number)?;
            (partition.number == number).then_some(partition)
        })
    }

    /// The partitions of a directory that has any.
    pub fn partitions(&self, dir: Ino) -> Option<Partitions> {
        let set = self.set_of(dir)?;
        let belonging = |number| {
            let (partition, stream) = self.partition(dir, number)?;
            set.is_beside(number, &partition).then_some(stream)
        };
        Some(Partitions { set, streams: (0..set.count).map(belonging).collect() })
    }

    /// Opens a group over the partitions of a directory for a member. That waits for storage.
    pub(super) fn join_partitioned(&self, node: &GroupNode) -> Result<Handle> {
        let partitions = self.partitions(node.stream).ok_or(Error::NotFound)?;
        let missing = partitions.missing();
        if !missing.is_empty() {
            let path = self.engine.path_of(node.stream).unwrap_or_default();
            log::warn!(
                "group {} of {} can't be opened: of {} partitions these are not in the directory: {missing:?}; \
                 move them back",
                node.group,
                String::from_utf8_lossy(&path),
                partitions.set.count
            );
            return Err(Error::Io(std::io::Error::from_raw_os_error(libc::EIO)));
        }
        let streams: Vec<Arc<Stream>> = partitions.streams.into_iter().flatten().collect();
        let (group, member) = self.streams.join_partitions(&streams, &node.group)?;
        Ok(Handle::Partitioned { group, member, eof: node.eof })
    }

    /// Removes a group over the partitions of a directory, from those that are there; false if there is none.
    pub(super) fn remove_partitioned_group(&self, node: &GroupNode) -> Result<bool> {
        let partitions = self.partitions(node.stream).ok_or(Error::NotFound)?;
        let streams: Vec<Arc<Stream>> = partitions.streams.into_iter().flatten().collect();
        Ok(self.streams.remove_partitioned_group(&streams, &node.group)?)
    }
}
