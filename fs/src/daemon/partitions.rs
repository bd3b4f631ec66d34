//! What `aimss stream` asks of a daemon about partitioned streams as a whole. What is done to each partition is
//! asked of it by its own name.

use super::Daemon;
use super::streams::{Answer, info, settings_of};
use crate::control::partitions::{PartitionsInfo, SharesInfo};
use crate::control::protocol::Reply;
use aimss_engine::stream::partition::PARTITIONS_MAX;
use aimss_engine::stream::{Partition, StreamId};
use aimss_engine::{Ino, Kind};
use std::path::Path;

/// Permissions of a directory made by command: as one made by a shell.
const MODE: u32 = 0o755;

impl Daemon {
    /// The partitions of the directory at `path`; `None` if it is nothing of that kind.
    pub(super) fn partitions(&self, path: &Path) -> Reply {
        let Ok(dir) = self.resolve(path) else { return Reply::Partitions(None) };
        let Some(found) = self.streams.partitions(dir) else { return Reply::Partitions(None) };
        let mut all = PartitionsInfo {
            path: path.to_owned(),
            count: found.set.count,
            missing: found.missing(),
            ..PartitionsInfo::default()
        };
        for (number, stream) in (0..).zip(&found.streams) {
            let Some(stream) = stream else { continue };
            match info(&path.join(Partition::name(number)), stream) {
                Ok(info) => all.partitions.push(info),
                Err(e) => return Reply::Error(format!("{}: partition {number}: {e}", path.display())),
            }
        }
        for group in self.streams.all().partitioned_groups(found.set.set) {
            let shares = group.shares().into_iter().map(|share| share as u64).collect();
            all.groups.push(SharesInfo { name: group.name().to_string(), shares });
        }
        Reply::Partitions(Some(Box::new(all)))
    }

    /// Makes a directory of partitions; answered by what there is then.
    pub(super) fn create_partitions(&self, path: &Path, count: u32, settings: &[(String, String)]) -> Reply {
        match self.make_partitions(path, count, settings) {
            Ok(()) => self.partitions(path),
            Err(e) => Reply::Error(format!("{}: {e}", path.display())),
        }
    }

    fn make_partitions(&self, path: &Path, count: u32, settings: &[(String, String)]) -> Answer<()> {
        if count == 0 || count > PARTITIONS_MAX {
            return Err(format!("a stream has 1 to {PARTITIONS_MAX} partitions, not {count}"));
        }
        let mut wanted = settings_of(settings)?;
        let (parent, name) = self.place(path)?;
        let set = StreamId::random().map_err(|e| e.to_string())?;
        let dir = self.make_empty(parent, name, Kind::Directory, MODE)?;
        // The first ones last: before they are there, nobody takes it for whole.
        for number in (0..count).rev() {
            wanted.partition = Some(Partition { set, number, count });
            let part = Partition::name(number);
            let made = self
                .make_empty(dir, part.as_bytes(), Kind::File, super::streams::MODE)
                .and_then(|ino| self.streams.make(ino, &wanted).map_err(|e| e.to_string()));
            if let Err(e) = made {
                self.unmake((parent, name), dir, number..count);
                return Err(format!("partition {number} can't be made: {e}"));
            }
        }
        Ok(())
    }

    /// Takes away what was made of a directory that can't be made whole.
    fn unmake(&self, (parent, name): (Ino, &[u8]), dir: Ino, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let name = Partition::name(number);
            let ino = self.engine.resolve(dir, name.as_bytes());
            if self.engine.unlink(dir, name.as_bytes()).is_ok()
                && let Ok(ino) = ino
            {
                self.streams.name_gone(ino);
            }
        }
        let _ = self.engine.rmdir(parent, name);
    }
}
