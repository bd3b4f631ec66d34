//! What `aimss stream` asks of a daemon about partitioned streams as a whole. What is done to each partition is
//! asked of it by its own name.

use super::Daemon;
use super::streams::{Answer, info};
use crate::control::partitions::{PartitionsInfo, SharesInfo};
use crate::control::protocol::Reply;
use aimss_engine::engine::New;
use aimss_engine::stream::partition::PARTITIONS_MAX;
use aimss_engine::stream::{Partition, Settings, StreamId};
use aimss_engine::{Error, Ino, Kind};
use std::os::unix::ffi::OsStrExt;
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
        let mut wanted = Settings::default();
        for (key, value) in settings {
            wanted.set(key, value).map_err(|e| e.to_string())?;
        }
        wanted.log.check().map_err(|e| e.to_string())?;
        let name = path.file_name().ok_or("it has no name")?;
        let parent = self
            .resolve(path.parent().unwrap_or(Path::new("")))
            .map_err(|e| format!("its directory: {e}"))?;
        let set = StreamId::random().map_err(|e| e.to_string())?;
        let dir = self.make_empty(parent, name.as_bytes(), Kind::Directory, MODE)?;
        // The first ones last: before they are there, nobody takes it for whole.
        for number in (0..count).rev() {
            wanted.partition = Some(Partition { set, number, count });
            let name = Partition::name(number);
            let made = self
                .make_empty(dir, name.as_bytes(), Kind::File, super::streams::MODE)
                .and_then(|ino| self.streams.make(ino, &wanted).map_err(|e| e.to_string()));
            if let Err(e) = made {
                self.unmake(parent, dir, path, number..count);
                return Err(format!("partition {number} can't be made: {e}"));
            }
        }
        Ok(())
    }

    /// Makes an empty file or directory, without a reference of the kernel's.
    fn make_empty(&self, parent: Ino, name: &[u8], kind: Kind, mode: u32) -> Answer<Ino> {
        let new = New { kind, mode, uid: 0, gid: 0, rdev: 0, target: None, xattrs: Vec::new() };
        let found = self.engine.make(parent, name, &new).map_err(|e| match e {
            Error::Exists => "there is such a name already; settings are given to new streams".to_string(),
            e => e.to_string(),
        })?;
        self.engine.forget(found.ino, 1);
        if let Some(notifier) = self.shared.notifier.get() {
            // The kernel may remember that there is no such name.
            let _ = notifier.inval_entry(fuser::INodeNo(parent.0), std::ffi::OsStr::from_bytes(name));
        }
        Ok(found.ino)
    }

    /// Takes away what was made of a directory that can't be made whole.
    fn unmake(&self, parent: Ino, dir: Ino, path: &Path, numbers: std::ops::Range<u32>) {
        for number in numbers {
            let name = Partition::name(number);
            let ino = self.engine.resolve(dir, name.as_bytes());
            if self.engine.unlink(dir, name.as_bytes()).is_ok()
                && let Ok(ino) = ino
            {
                self.streams.name_gone(ino);
            }
        }
        if let Some(name) = path.file_name() {
            let _ = self.engine.rmdir(parent, name.as_bytes());
        }
    }
}
