//! What `aimss stream` asks of a daemon.

use super::Daemon;
use crate::control::protocol::Reply;
use crate::control::status::{GroupsStatus, StreamsStatus, WorstGroup};
use crate::control::stream::{GroupInfo, SeekTo, StreamInfo, StreamRequest};
use crate::streams::error;
use aimss_engine::engine::New;
use aimss_engine::stream::group;
use aimss_engine::stream::live::{Start, Stream};
use aimss_engine::stream::{Micros, Offset, Result as StreamResult, Settings};
use aimss_engine::{Error, Ino, Kind};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two tries to open streams that can't be opened; it doubles up to the longest, since each reads what is in
/// memory of them.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
const OPEN_AGAIN_MAX: Duration = Duration::from_secs(60);
/// Permissions of a stream made by command: as a file made by a shell.
pub(super) const MODE: u32 = 0o644;

pub(super) type Answer<T> = Result<T, String>;

impl Daemon {
    /// What is asked of streams.
    pub fn stream(&self, request: StreamRequest) -> Reply {
        let answer = match request {
            StreamRequest::List => return Reply::Streams(self.list_streams()),
            StreamRequest::CreatePartitions { path, partitions, settings } => {
                return self.create_partitions(&path, partitions, &settings);
            }
            StreamRequest::Partitions { path } => return self.partitions(&path),
            StreamRequest::Create { path, settings } => self.create_stream(&path, &settings),
            StreamRequest::Settings { path, settings } => self.with(&path, |stream| {
                let mut all = Ok(());
                let changed = stream.change_settings(|now| {
                    all = settings.iter().try_for_each(|(key, value)| now.set(key, value));
                });
                all.and(changed).map_err(|e| e.to_string())
            }),
            StreamRequest::Flush { path } => {
                self.with(&path, |stream| stream.sync().map_err(|e| format!("it can't be made durable: {e}")))
            }
            StreamRequest::Seek { path, group, to } => self.with(&path, |stream| {
                if !group::is_name(&group) {
                    return Err(format!("'{group}' can't be a group's name"));
                }
                let to = match to {
                    SeekTo::Earliest => Start::Earliest,
                    SeekTo::Latest => Start::Latest,
                    SeekTo::Offset(offset) => Start::Offset(Offset(offset)),
                    SeekTo::Time(time) => Start::Time(Micros(time)),
                };
                stream.seek(&group, to).map(drop).map_err(|e| e.to_string())
            }),
            StreamRequest::Trim { path, before } => self.with(&path, |stream| {
                stream.trim_before(Offset(before)).map(drop).map_err(|e| e.to_string())
            }),
            StreamRequest::RemoveGroup { path, group } => self.with(&path, |stream| {
                if stream.inspect(|now| now.groups.get(&group).is_some_and(|group| group.members() > 0)) {
                    return Err(format!("group {group} has members; end them first"));
                }
                match stream.remove_group(&group) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(format!("there is no group {group}")),
                    Err(e) => Err(e.to_string()),
                }
            }),
        };
        match answer {
            Ok(info) => Reply::Stream(Box::new(info)),
            Err(sentence) => Reply::Error(sentence),
        }
    }

    /// Opens the streams that the last daemon had open and nobody asked for yet; the first that can't be opened is the
    /// error, and status says it until that is over.
    pub(super) fn open_left_streams(&self) -> StreamResult<()> {
        // A mount that is not the last one's: what lost its name there is looked for first, see `doomed_streams`.
        let kept = self.life.deaths + self.life.upgrades == 0;
        let opened = self.streams.all().open_left(kept);
        *self.unopened.lock() = opened.as_ref().err().map(ToString::to_string);
        opened
    }

    /// The same, and what can't be opened is tried again, in a thread of its own, until it can or the mount is gone.
    pub(super) fn keep_opening_left_streams(self: &Arc<Daemon>) {
        if self.open_left_streams().is_ok() {
            return;
        }
        let mut pause = OPEN_AGAIN;
        let look = move |daemon: &Daemon| {
            // Who unmounts tries by himself.
            if daemon.unmounted.load(Ordering::Relaxed) || daemon.open_left_streams().is_ok() {
                return None;
            }
            pause = (pause * 2).min(OPEN_AGAIN_MAX);
            Some(pause)
        };
        if let Err(e) = self.keep_looking("open-streams", OPEN_AGAIN, look) {
            log::warn!(
                "no thread to open streams again: they are when somebody uses them, drains or unmounts: {e}"
            );
        }
    }

    /// All streams in numbers, for `aimss status`.
    pub(super) fn streams_status(&self) -> StreamsStatus {
        let s = self.streams.all().summary();
        StreamsStatus {
            logs: s.logs,
            open: s.open,
            writers: s.writers,
            records: s.records,
            bytes: s.bytes,
            record_rate: s.record_rate,
            rate: s.byte_rate,
            memory: s.memory_bytes,
            stored: s.stored_bytes,
            unflushed: s.unflushed_bytes,
            groups: GroupsStatus {
                number: s.groups,
                members: s.members,
                unattended: s.unattended,
                lag: s.lag,
                delivered: s.delivered,
                redelivered: s.redelivered,
                lost: s.lost,
                worst: s.worst.map(|worst| WorstGroup {
                    stream: worst.path.into(),
                    group: worst.group,
                    lag: worst.lag,
                    members: worst.members,
                }),
            },
        }
    }

    /// Does something to the stream at `path`, and tells what it is then.
    fn with(&self, path: &Path, run: impl FnOnce(&Arc<Stream>) -> Answer<()>) -> Answer<StreamInfo> {
        let named = |e: String| format!("{}: {e}", path.display());
        let ino = self.resolve(path).map_err(|e| named(e.to_string()))?;
        let stream = self.streams.of_inode(ino).ok_or_else(|| named("it is not a stream".into()))?;
        run(&stream).map_err(named)?;
        // It may lead to another node now, or from now on.
        self.forget_name(path);
        info(path, &stream).map_err(named)
    }

    /// The kernel looks a name up again that it remembers, as there or as missing.
    fn forget_name(&self, path: &Path) {
        if let Ok((parent, name)) = self.place(path) {
            self.forget_entry(parent, OsStr::from_bytes(name));
        }
    }

    fn forget_entry(&self, parent: Ino, name: &OsStr) {
        if let Some(notifier) = self.shared.notifier.get() {
            let _ = notifier.inval_entry(fuser::INodeNo(parent.0), name);
        }
    }

    fn create_stream(&self, path: &Path, settings: &[(String, String)]) -> Answer<StreamInfo> {
        let make = || {
            let wanted = settings_of(settings)?;
            let (parent, name) = self.place(path)?;
            let ino = self.make_empty(parent, name, Kind::File, MODE)?;
            self.streams.make(ino, &wanted).map_err(|e| {
                let _ = self.engine.unlink(parent, name);
                e.to_string()
            })
        };
        make().and_then(|stream| info(path, &stream)).map_err(|e| format!("{}: {e}", path.display()))
    }

    /// The directory of something that is to be made at `path`, and its name there.
    pub(super) fn place<'p>(&self, path: &'p Path) -> Answer<(Ino, &'p [u8])> {
        let name = path.file_name().ok_or("it has no name")?;
        let parent = self
            .resolve(path.parent().unwrap_or(Path::new("")))
            .map_err(|e| format!("its directory: {e}"))?;
        Ok((parent, name.as_bytes()))
    }

    /// Makes an empty file or directory, without a reference of the kernel's.
    pub(super) fn make_empty(&self, parent: Ino, name: &[u8], kind: Kind, mode: u32) -> Answer<Ino> {
        let new = New { kind, mode, uid: 0, gid: 0, rdev: 0, target: None, xattrs: Vec::new() };
        let found = self.engine.make(parent, name, &new).map_err(|e| match e {
            Error::Exists => "there is such a name already; settings are given to new streams".to_string(),
            e => e.to_string(),
        })?;
        self.engine.forget(found.ino, 1);
        // The kernel may remember that there is no such name.
        self.forget_entry(parent, OsStr::from_bytes(name));
        Ok(found.ino)
    }

    /// All streams, by walking the tree as far as it has markers; those in it alone are opened.
    fn list_streams(&self) -> Vec<StreamInfo> {
        let mut found = Vec::new();
        let mut directories = vec![(Ino::ROOT, PathBuf::new())];
        while let Some((dir, path)) = directories.pop() {
            if self.engine.load_directory(dir).is_err() {
                continue;
            }
            let mut entries = Vec::new();
            let listed = self.engine.read_directory(dir, 0, |entry| {
                entries.push((entry.name.clone(), entry.kind));
                true
            });
            if listed.is_err() {
                continue;
            }
            for (name, kind) in entries {
                let path = path.join(OsStr::from_bytes(&name));
                let Ok(ino) = self.engine.resolve(dir, &name) else { continue };
                if kind == Kind::Directory {
                    directories.push((ino, path));
                } else if kind == Kind::File
                    && let Some(stream) = self.streams.of_inode(ino)
                    && let Ok(info) = info(&path, &stream)
                {
                    found.push(info);
                }
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }
}

/// Of a stream that is to be made.
pub(super) fn settings_of(pairs: &[(String, String)]) -> Answer<Settings> {
    let mut settings = Settings::default();
    for (key, value) in pairs {
        settings.set(key, value).map_err(|e| e.to_string())?;
    }
    settings.log.check().map_err(|e| e.to_string())?;
    Ok(settings)
}

pub(super) fn info(path: &Path, stream: &Stream) -> Answer<StreamInfo> {
    stream.inspect(|now| {
        let mut info = StreamInfo::of(path, &now.settings, now.log).map_err(|e| error(e).to_string())?;
        info.records_per_second = now.rate;
        info.writers = u64::from(now.writers);
        info.groups = now
            .groups
            .values()
            .map(|group| GroupInfo::of(group, info.first_offset, info.end_offset))
            .collect();
        Ok(info)
    })
}
