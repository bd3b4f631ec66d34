//! An engine and a model that are given the same random operations, as the kernel would give them: names are looked
//! up before they are used, handles are opened and released, and a file in passthrough is written to directly.

use super::ground::{Ground, Setup};
use super::model::{Id, Model, Outcome, ROOT, uid_of};
use super::random::Random;
use super::watched::Watched;
use aimss_engine::backing::Backing;
use aimss_engine::engine::{New, Reason, Served, SetAttr, StillOpen, Successor, Want};
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Error, Ino, Kind, Timestamp};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

/// Extended attributes that files and directories may have.
pub const XATTRS: [&str; 2] = ["user.one", "user.two"];
const NAMES: [&str; 7] = ["a", "b", "c", "d", "e.tmp", "f.0001", "g.0002"];
/// Enough for collisions and for some depth.
const DIRECTORIES_MAX: usize = 8;
const HANDLES_MAX: usize = 6;

/// A backing that may know what is not durable yet.
pub trait Durability {
    /// Whether a loss of power could take something of this file or directory.
    fn is_unsynced(&self, dev: u64, ino: u64) -> bool;
}

/// An open file.
pub struct Handle {
    pub id: Id,
    pub ino: Ino,
    pub write: bool,
    pub mode: OpenMode,
    /// The kernel's descriptor, of a writer in passthrough.
    direct: Option<File>,
}

/// What a history may hold.
#[derive(Debug, Clone, Copy)]
pub struct Mix {
    pub passthrough: bool,
    pub hard_links: bool,
    pub syncs: bool,
    pub large_files: bool,
}

impl Default for Mix {
    fn default() -> Mix {
        Mix { passthrough: true, hard_links: true, syncs: true, large_files: true }
    }
}

/// See the module.
pub struct World {
    pub engine: Arc<Engine>,
    pub model: Model,
    pub random: Random,
    pub mix: Mix,
    pub handles: Vec<Handle>,
    /// References the kernel would hold.
    references: BTreeMap<Ino, u64>,
    /// A drain runs beside the operations: what was durable a moment ago may have more to be synced now.
    drains_beside: bool,
    /// What was done, for the message of a failure.
    pub trace: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.engine.stop();
        if std::thread::panicking() {
            let tail = self.trace.len().saturating_sub(super::runs("AIMSS_TRACE", 60) as usize);
            eprintln!("the last operations:\n{}", self.trace[tail..].join("\n"));
        }
    }
}

impl World {
    pub fn new<B: Backing + 'static>(ground: &Ground, backing: &Arc<B>, setup: Setup, seed: u64) -> World {
        super::log_if_wanted();
        World {
            engine: ground.engine(backing.clone(), setup),
            model: Model::new(),
            random: Random::new(seed),
            mix: Mix::default(),
            handles: Vec::new(),
            references: BTreeMap::new(),
            drains_beside: setup.drain_delay < super::NEVER,
            trace: Vec::new(),
        }
    }

    fn note(&mut self, what: String) {
        self.trace.push(format!("{}: {what}", self.trace.len()));
    }

    pub fn show(&self, id: Id) -> String {
        format!("{}#{id}", self.model.path(id).map_or("(nameless)".into(), |path| path.join("/")))
    }

    /// Looks up what leads to an object, as the kernel does for a path it has forgotten.
    pub fn ino(&mut self, id: Id) -> Ino {
        let Some(path) = self.model.path(id) else {
            return self.model.get(id).ino.expect("a nameless object that is used is known");
        };
        let (mut at, mut known) = (Ino::ROOT, ROOT);
        for name in path {
            let found = self.engine.lookup(at, name.as_bytes());
            let found = found.unwrap_or_else(|e| panic!("lookup of {name} in {}: {e}", self.show(known)));
            *self.references.entry(found.ino).or_default() += 1;
            known = self.model.entry(known, &name).expect("a path of the model");
            at = found.ino;
            self.check_ino(known, at);
        }
        at
    }

    /// Inode numbers stay while the mount lives.
    pub fn check_ino(&mut self, id: Id, ino: Ino) {
        let before = *self.model.get_mut(id).ino.get_or_insert(ino);
        assert_eq!(before, ino, "the inode number of {} changed", self.show(id));
    }

    /// The kernel drops what it does not use.
    pub fn forget_all(&mut self) {
        let open: Vec<Ino> = self.handles.iter().map(|handle| handle.ino).collect();
        let references = std::mem::take(&mut self.references);
        for (ino, count) in references {
            if open.contains(&ino) {
                self.references.insert(ino, count);
            } else {
                self.engine.forget(ino, count);
            }
        }
    }

    fn agree<T: std::fmt::Debug>(
        &self,
        what: &str,
        engine: &Result<T, Error>,
        model: Result<(), &'static str>,
    ) -> bool {
        match (engine, model) {
            (Ok(_), Ok(())) => true,
            (Err(e), Err(expected)) if format!("{e:?}").starts_with(expected) => false,
            (engine, model) => panic!("{what}: the engine says {engine:?}, the model {model:?}"),
        }
    }

    pub fn make(&mut self, dir: Id, name: &str, kind: Kind, mode: u32) -> Outcome<Id> {
        let parent = self.ino(dir);
        let id = self.model.objects.len();
        let gid =
            if super::is_root() { self.random.below(5) as u32 } else { rustix::process::getegid().as_raw() };
        let target = (kind == Kind::Symlink).then(|| format!("target-of-{id}"));
        self.note(format!("make {kind:?} {name} in {} as #{id}", self.show(dir)));
        let new = New {
            kind,
            mode: if kind == Kind::Symlink { 0o777 } else { mode },
            uid: uid_of(id),
            gid,
            rdev: 0,
            target: target.as_deref().map(str::as_bytes),
            xattrs: Vec::new(),
        };
        let made = self.engine.make(parent, name.as_bytes(), &new);
        let expected = self.model.make(dir, name, kind, new.mode, gid);
        self.agree("make", &made, expected.map(|_| ()));
        let id = expected?;
        let found = made.expect("agreed");
        *self.references.entry(found.ino).or_default() += 1;
        self.check_ino(id, found.ino);
        self.model.get_mut(id).target = target;
        Ok(id)
    }

    /// Opens a file; returns the handle's place.
    pub fn open(&mut self, id: Id, write: bool, truncate: bool, passthrough: bool) -> usize {
        let ino = self.ino(id);
        let passthrough = if passthrough { Ok(()) } else { Err(Reason::Excluded) };
        let opened = self.engine.open(ino, Want { write, truncate, passthrough, process: 0 });
        let opened = opened.unwrap_or_else(|e| panic!("open of {}: {e}", self.show(id)));
        self.note(format!("open {} write={write} truncate={truncate}: {:?}", self.show(id), opened.reason));
        let direct = match &opened.mode {
            OpenMode::Arena(content) if write => Some(for_writing(content.file().expect("it opens"))),
            OpenMode::Backing(file) if write => Some(for_writing(file)),
            _ => None,
        };
        let alone = !self.handles.iter().any(|handle| handle.id == id);
        let on_backing = matches!(opened.mode, OpenMode::Backing(_));
        let object = self.model.get_mut(id);
        object.writers += usize::from(write);
        object.only_replaced &= !write || (truncate && alone && !on_backing);
        if truncate {
            self.model.set_content(id, Vec::clear);
        }
        self.handles.push(Handle { id, ino, write, mode: opened.mode, direct });
        self.handles.len() - 1
    }

    pub fn write(&mut self, handle: usize, offset: usize, data: &[u8]) {
        let (id, ino) = (self.handles[handle].id, self.handles[handle].ino);
        self.note(format!("write {} {offset}+{}", self.show(id), data.len()));
        match &self.handles[handle].direct {
            Some(file) => file.write_all_at(data, offset as u64).expect("a write in passthrough"),
            None => self.engine.write(ino, offset as u64, data, false).expect("a write"),
        }
        self.model.write(id, offset, data);
    }

    pub fn close(&mut self, handle: usize) {
        let Handle { id, ino, write, direct, mode } = self.handles.swap_remove(handle);
        self.note(format!("close {} write={write}", self.show(id)));
        let released = self.engine.release(ino, write);
        // The kernel drops its descriptor of the file behind.
        drop((direct, mode));
        let object = self.model.get_mut(id);
        object.writers -= usize::from(write);
        if write {
            object.closed = object.versions.len() - 1;
        }
        if let Some(ended) = released.last {
            self.engine.closed(ino, ended);
        }
    }

    pub fn close_all(&mut self) {
        while !self.handles.is_empty() {
            self.close(0);
        }
    }

    /// Makes a file with a content, closed.
    pub fn file(&mut self, dir: Id, name: &str, data: &[u8]) -> Id {
        let id = self.make(dir, name, Kind::File, 0o644).expect("a free name");
        let handle = self.open(id, true, false, self.mix.passthrough);
        self.write(handle, 0, data);
        self.close(handle);
        id
    }

    /// Replaces a file's content as a whole.
    pub fn rewrite(&mut self, id: Id, data: &[u8], passthrough: bool) {
        let handle = self.open(id, true, true, passthrough);
        self.write(handle, 0, data);
        self.close(handle);
    }

    pub fn truncate(&mut self, id: Id, size: usize) {
        let ino = self.ino(id);
        self.note(format!("truncate {} to {size}", self.show(id)));
        let change = SetAttr { size: Some(size as u64), ..SetAttr::default() };
        self.engine.set_attr(ino, &change).expect("a truncation");
        self.model.set_content(id, |content| content.resize(size, 0));
        self.model.get_mut(id).only_replaced = false;
    }

    pub fn link(&mut self, id: Id, dir: Id, name: &str) {
        let (ino, parent) = (self.ino(id), self.ino(dir));
        self.note(format!("link {} as {name} in {}", self.show(id), self.show(dir)));
        let linked = self.engine.link(ino, parent, name.as_bytes());
        let expected = self.model.link(id, dir, name);
        if self.agree("link", &linked, expected) {
            *self.references.entry(ino).or_default() += 1;
        }
    }

    pub fn remove(&mut self, dir: Id, name: &str, directory: bool) {
        let parent = self.ino(dir);
        self.note(format!("{} {name} in {}", if directory { "rmdir" } else { "unlink" }, self.show(dir)));
        let removed = if directory {
            self.engine.rmdir(parent, name.as_bytes())
        } else {
            self.engine.unlink(parent, name.as_bytes())
        };
        let expected = self.model.remove(dir, name, directory).map(|_| ());
        self.agree("remove", &removed, expected);
    }

    pub fn rename(&mut self, from: (Id, &str), to: (Id, &str), no_replace: bool) {
        let (a, b) = (self.ino(from.0), self.ino(to.0));
        self.note(format!("rename {} in {} to {} in {}", from.1, self.show(from.0), to.1, self.show(to.0)));
        let renamed = self.engine.rename((a, from.1.as_bytes()), (b, to.1.as_bytes()), no_replace);
        let expected = self.model.rename(from, to, no_replace);
        self.agree("rename", &renamed, expected);
    }

    pub fn exchange(&mut self, from: (Id, &str), to: (Id, &str)) {
        let (a, b) = (self.ino(from.0), self.ino(to.0));
        self.note(format!(
            "exchange {} in {} with {} in {}",
            from.1,
            self.show(from.0),
            to.1,
            self.show(to.0)
        ));
        let exchanged = self.engine.exchange((a, from.1.as_bytes()), (b, to.1.as_bytes()));
        let expected = self.model.exchange(from, to);
        self.agree("exchange", &exchanged, expected);
    }

    /// fsync; false where the backing failed.
    pub fn sync(&mut self, id: Id, ground: &Ground, backing: &dyn Durability) -> bool {
        let ino = self.ino(id);
        self.note(format!("fsync {}", self.show(id)));
        let open: Vec<Id> =
            self.handles.iter().filter(|handle| handle.write).map(|handle| handle.id).collect();
        for open in open {
            self.model.get_mut(open).only_replaced = false;
        }
        if self.engine.sync(ino).is_err() {
            return false;
        }
        self.model.synced(id);
        if !self.drains_beside {
            self.check_durable(id, ground, backing);
        }
        true
    }

    /// After an fsync nothing that leads to the object may be lost.
    fn check_durable(&self, id: Id, ground: &Ground, backing: &dyn Durability) {
        let Some(mut path) = self.model.path(id) else { return };
        loop {
            let at = ground.backing().join(path.join("/"));
            let m = std::fs::symlink_metadata(&at)
                .unwrap_or_else(|e| panic!("after fsync of {}: {e}", self.show(id)));
            assert!(
                !backing.is_unsynced(m.dev(), m.ino()),
                "after fsync of {} {} is not durable",
                self.show(id),
                at.display()
            );
            if path.pop().is_none() {
                return;
            }
        }
    }

    pub fn set_xattr(&mut self, id: Id, name: &str, value: Option<&[u8]>) {
        let ino = self.ino(id);
        self.note(format!("xattr {} of {} {value:?}", name, self.show(id)));
        match value {
            Some(value) => {
                self.engine.set_xattr(ino, name.as_bytes(), value, false, false).expect("setxattr");
                self.model.get_mut(id).xattrs.insert(name.into(), value.into());
                self.model.get_mut(id).durable.xattrs.remove(name);
            }
            None => {
                let removed = self.engine.remove_xattr(ino, name.as_bytes());
                let expected = self.model.get_mut(id).xattrs.remove(name).ok_or("NoAttribute").map(|_| ());
                self.agree("removexattr", &removed, expected);
                self.model.get_mut(id).durable.xattrs.remove(name);
            }
        }
    }

    pub fn set_attr(&mut self, id: Id, mode: Option<u32>, gid: Option<u32>, mtime: Option<Timestamp>) {
        let ino = self.ino(id);
        self.note(format!("setattr {} {mode:?} {gid:?} {mtime:?}", self.show(id)));
        let change = SetAttr { mode, gid, mtime, atime: mtime, ..SetAttr::default() };
        self.engine.set_attr(ino, &change).expect("setattr");
        let object = self.model.get_mut(id);
        object.mode = mode.unwrap_or(object.mode);
        object.gid = gid.unwrap_or(object.gid);
        object.mtime = mtime.or(object.mtime);
        let durable = &mut object.durable;
        durable.mode = durable.mode.filter(|_| mode.is_none());
        durable.gid = durable.gid.filter(|_| gid.is_none());
        durable.mtime = durable.mtime.filter(|_| mtime.is_none());
    }

    pub fn drain(&mut self) {
        self.note("drain".into());
        self.engine.drain_all(|_| {}).expect("a drain");
        assert_eq!(
            self.engine.status().conflicts,
            0,
            "nobody changed the backing: {:?}",
            self.engine.status().last_error
        );
    }

    /// A drain that is tried again while the backing fails.
    pub fn drain_again(&mut self) {
        const TRIES: u32 = 20;
        let drained = (0..TRIES).any(|_| self.engine.drain_all(|_| {}).is_ok());
        let status = self.engine.status();
        assert!(drained, "the backing recovered, the drain did not: {:?}", status.last_error);
        assert_eq!(status.conflicts, 0, "nobody changed the backing: {:?}", status.last_error);
    }

    /// The daemon is gone from one moment to the next, and another one takes over: names, numbers, handles and the kernel's
    /// references stay.
    pub fn taken_over(&mut self, ground: &Ground, watched: &Arc<Watched>, setup: Setup) {
        let (_, successor) = ground.successor(watched.clone(), setup);
        self.taken_over_by(successor);
    }

    /// The same, by one that was begun while the last one lived.
    pub fn taken_over_by(&mut self, successor: Successor) {
        self.note("the daemon dies".into());
        self.engine.stop();
        let mut open: BTreeMap<Ino, StillOpen> = BTreeMap::new();
        for handle in &self.handles {
            let served = match handle.mode {
                OpenMode::Arena(_) => Served::Arena,
                OpenMode::Backing(_) => Served::Backing,
                OpenMode::Daemon(_) => Served::Daemon,
            };
            let none = StillOpen { ino: handle.ino, served, handles: 0, writers: 0, promised: 0 };
            let file = open.entry(handle.ino).or_insert(none);
            file.handles += 1;
            file.writers += u32::from(handle.write);
        }
        let open: Vec<StillOpen> = open.into_values().collect();
        self.engine = successor.engine().clone();
        Ground::take_over(successor, &open);
        self.engine.start();
    }

    /// One random operation. False when an fsync failed.
    pub fn step(&mut self, ground: &Ground, backing: &dyn Durability) -> bool {
        let dirs = self.model.live_of(Kind::Directory);
        let dir = *self.random.pick(&dirs).expect("the root lives");
        let other = *self.random.pick(&dirs).expect("the root lives");
        let name = *self.random.pick(&NAMES).expect("names");
        let second = *self.random.pick(&NAMES).expect("names");
        let files = self.model.live_of(Kind::File);
        let file = self.random.pick(&files).copied();
        let all = self.model.live();
        let object = *self.random.pick(&all[1..]).unwrap_or(&ROOT);
        let passthrough = self.mix.passthrough && self.random.one_in(2);
        match (self.random.below(100), file) {
            (0..20, _) => {
                if let Ok(id) = self.make(dir, name, Kind::File, 0o640 + self.random.clone().below(8) as u32)
                {
                    let handle = self.open(id, true, false, passthrough);
                    self.random_write(handle);
                    self.perhaps_close(handle);
                }
            }
            (20..28, _) if dirs.len() < DIRECTORIES_MAX => drop(self.make(dir, name, Kind::Directory, 0o777)),
            (28..31, _) => drop(self.make(dir, name, Kind::Symlink, 0o777)),
            (31..32, _) => drop(self.make(dir, name, Kind::Fifo, 0o600)),
            (32..40, Some(file)) if self.handles.len() < HANDLES_MAX => {
                let write = !self.random.one_in(3);
                let handle = self.open(file, write, false, passthrough);
                if write {
                    self.random_write(handle);
                }
                self.perhaps_close(handle);
            }
            (40..50, Some(file)) => {
                let handle = self.open(file, true, true, passthrough);
                self.random_write(handle);
                self.perhaps_close(handle);
            }
            (50..54, Some(file)) => {
                let size = self.random.below(9000) as usize * self.random.below(3) as usize;
                self.truncate(file, size);
            }
            (54..66, _) => {
                let no_replace = self.random.one_in(5);
                self.rename((dir, name), (other, second), no_replace);
            }
            (66..69, _) => self.exchange((dir, name), (other, second)),
            (69..73, Some(file)) if self.mix.hard_links => self.link(file, dir, name),
            (73..82, _) => self.remove(dir, name, false),
            (82..86, _) => self.remove(dir, name, true),
            (86..89, _) if object != ROOT => self.random_attributes(object),
            (89..92, _)
                if matches!(self.model.get(object).kind, Kind::File | Kind::Directory) && object != ROOT =>
            {
                let name = XATTRS[self.random.below(2) as usize];
                let value = self.random.bytes(5);
                let value = (!self.random.one_in(3)).then_some(value);
                self.set_xattr(object, name, value.as_deref());
            }
            (92..94, _)
                if self.mix.syncs && matches!(self.model.get(object).kind, Kind::File | Kind::Directory) =>
            {
                return self.sync(object, ground, backing);
            }
            (94..95, _) => self.forget_all(),
            (_, _) if !self.handles.is_empty() => {
                let handle = self.random.below(self.handles.len() as u64) as usize;
                if self.handles[handle].write && self.random.one_in(2) {
                    self.random_write(handle);
                } else {
                    self.close(handle);
                }
            }
            _ => {}
        }
        true
    }

    fn random_write(&mut self, handle: usize) {
        let held = self.model.get(self.handles[handle].id).content().len() as u64;
        let (offset, length) = match self.random.below(40) {
            0 if self.mix.large_files => (0, 300_000 + self.random.below(700_000)),
            0..20 => (held, 1 + self.random.below(6000)),
            20..25 => (held + self.random.below(20_000), 1 + self.random.below(100)),
            _ => (self.random.below(held + 1), 1 + self.random.below(6000)),
        };
        let data = self.random.bytes(length as usize);
        self.write(handle, offset as usize, &data);
    }

    fn perhaps_close(&mut self, handle: usize) {
        if self.handles.len() >= HANDLES_MAX || !self.random.one_in(4) {
            self.close(handle);
        }
    }

    fn random_attributes(&mut self, id: Id) {
        let kind = self.model.get(id).kind;
        match self.random.below(3) {
            // Directories stay open to all, so that owners can make what is theirs on the backing.
            0 if kind != Kind::Symlink && kind != Kind::Directory => {
                let mode = 0o400 + self.random.below(0o400) as u32;
                self.set_attr(id, Some(mode), None, None);
            }
            1 if super::is_root() => {
                let gid = self.random.below(5) as u32;
                self.set_attr(id, None, Some(gid), None);
            }
            _ => {
                let seconds = self.random.below(2_000_000_000) as i64;
                let mtime = Timestamp { seconds, nanoseconds: self.random.below(1_000_000_000) as u32 };
                self.set_attr(id, None, None, Some(mtime));
            }
        }
    }
}

fn for_writing(file: &File) -> File {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::options().read(true).write(true).open(path).expect("the kernel opens it for writing")
}
