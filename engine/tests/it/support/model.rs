//! The reference: a tree of objects in plain collections, with every state that a directory or a file's content ever
//! had, so that a backing can be held against all of them.
//!
//! Objects are numbered, and where the tests run as root each is owned by a user of its own ([`uid_of`]): whatever
//! lies on the backing says itself which object it is.

use aimss_engine::{Ino, Kind, Timestamp};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Number of an object.
pub type Id = usize;

pub const ROOT: Id = 0;
const FIRST_UID: u32 = 10_000;

/// The owner of an object.
pub fn uid_of(id: Id) -> u32 {
    if super::is_root() { FIRST_UID + id as u32 } else { rustix::process::geteuid().as_raw() }
}

/// The object that an owner stands for.
pub fn id_of(uid: u32) -> Option<Id> {
    uid.checked_sub(FIRST_UID).map(|id| id as Id)
}

/// A name, and the state of its directory that brought it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub dir: Id,
    pub name: String,
    pub since: usize,
}

/// A name that a rename, exchange or link gave, and the oldest content that may show under it.
#[derive(Debug, Clone)]
pub struct Named {
    pub dir: Id,
    pub name: String,
    pub state: usize,
    pub version: usize,
}

/// Attributes that an fsync made durable and that were not changed since.
#[derive(Debug, Clone, Default)]
pub struct Durable {
    pub mode: Option<u32>,
    pub gid: Option<u32>,
    pub mtime: Option<Timestamp>,
    /// Those that the file has, and those that it has not.
    pub xattrs: BTreeMap<String, Option<Vec<u8>>>,
}

pub type Entries = BTreeMap<String, Id>;

#[derive(Debug, Clone)]
pub struct Object {
    pub kind: Kind,
    pub mode: u32,
    pub gid: u32,
    pub target: Option<String>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Set by utimens, and nothing changed it since.
    pub mtime: Option<Timestamp>,
    pub durable: Durable,
    pub links: Vec<Link>,
    pub ino: Option<Ino>,
    /// Its making and its removing are all that ever happened to its names.
    pub cancellable: bool,
    pub removed: bool,
    /// Files: all contents it had; the last is the one it has.
    pub versions: Vec<Rc<Vec<u8>>>,
    /// The content at the last close.
    pub closed: usize,
    pub writers: usize,
    /// The oldest content that the backing may show, by fsync.
    pub floor: usize,
    /// The backing has it, and since then it was only replaced as a whole.
    pub only_replaced: bool,
    pub named: Vec<Named>,
    /// The names that it had at an fsync, and the content as of then.
    pub synced: Vec<Named>,
    /// As `named`, for names of directories that it was below then.
    pub carried: Vec<(Id, Named)>,
    /// Directories: all entries it had.
    pub states: Vec<Entries>,
    /// The oldest entries that the backing may show, by fsync.
    pub states_floor: usize,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub objects: Vec<Object>,
    /// Changes of two directories at once: each with the state that it led to.
    pub crossings: Vec<((Id, usize), (Id, usize))>,
}

pub type Outcome<T> = Result<T, &'static str>;

impl Object {
    fn new(kind: Kind, mode: u32, gid: u32) -> Object {
        Object {
            kind,
            mode,
            gid,
            target: None,
            xattrs: BTreeMap::new(),
            mtime: None,
            durable: Durable::default(),
            links: Vec::new(),
            ino: None,
            cancellable: false,
            removed: false,
            versions: vec![Rc::default()],
            closed: 0,
            writers: 0,
            floor: 0,
            only_replaced: false,
            named: Vec::new(),
            synced: Vec::new(),
            carried: Vec::new(),
            states: vec![Entries::new()],
            states_floor: 0,
        }
    }

    pub fn content(&self) -> &Rc<Vec<u8>> {
        self.versions.last().expect("a file has a content")
    }

    /// The content as of its last close or fsync.
    fn rested(&self) -> usize {
        let version = if self.writers > 0 { self.closed } else { self.versions.len() - 1 };
        version.max(self.floor)
    }

    fn content_synced(&mut self) {
        self.floor = self.versions.len() - 1;
        for Link { dir, name, since } in &self.links {
            let name = name.clone();
            self.synced.push(Named { dir: *dir, name, state: *since, version: self.floor });
        }
    }

    pub fn entries(&self) -> &Entries {
        self.states.last().expect("a directory has a state")
    }

    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Directory
    }
}

impl Model {
    pub fn new() -> Model {
        let mut root = Object::new(Kind::Directory, 0o777, 0);
        root.ino = Some(Ino::ROOT);
        Model { objects: vec![root], crossings: Vec::new() }
    }

    pub fn get(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    pub fn get_mut(&mut self, id: Id) -> &mut Object {
        &mut self.objects[id]
    }

    pub fn entry(&self, dir: Id, name: &str) -> Option<Id> {
        self.get(dir).entries().get(name).copied()
    }

    /// Objects that have a name, the root first.
    pub fn live(&self) -> Vec<Id> {
        (0..self.objects.len()).filter(|&id| id == ROOT || !self.get(id).links.is_empty()).collect()
    }

    pub fn live_of(&self, kind: Kind) -> Vec<Id> {
        self.live().into_iter().filter(|&id| self.get(id).kind == kind).collect()
    }

    /// The names that lead to an object, by its first link.
    pub fn path(&self, id: Id) -> Option<Vec<String>> {
        let mut parts = Vec::new();
        let mut at = id;
        while at != ROOT {
            let link = self.get(at).links.first()?;
            parts.push(link.name.clone());
            at = link.dir;
        }
        parts.reverse();
        Some(parts)
    }

    fn is_below(&self, dir: Id, ancestor: Id) -> bool {
        let mut at = dir;
        while at != ancestor && at != ROOT {
            at = self.get(at).links.first().map_or(ROOT, |link| link.dir);
        }
        at == ancestor
    }

    /// Gives a directory a new state; returns its number.
    fn change(&mut self, dir: Id, change: impl FnOnce(&mut Entries)) -> usize {
        let object = self.get_mut(dir);
        let mut entries = object.entries().clone();
        change(&mut entries);
        object.states.push(entries);
        object.mtime = None;
        object.states.len() - 1
    }

    fn add_link(&mut self, id: Id, dir: Id, name: &str, since: usize, named: bool) {
        let object = self.get_mut(id);
        object.links.push(Link { dir, name: name.into(), since });
        if named {
            object.cancellable = false;
            let version = object.rested();
            object.named.push(Named { dir, name: name.into(), state: since, version });
            for below in self.files_below(id) {
                let file = self.get_mut(below);
                let version = file.rested();
                file.carried.push((id, Named { dir, name: name.into(), state: since, version }));
            }
        }
    }

    /// Files below a directory; none below a file.
    fn files_below(&self, id: Id) -> Vec<Id> {
        let children = self.get(id).entries().values();
        let below = children.flat_map(|&child| match self.get(child).kind {
            Kind::Directory => self.files_below(child),
            Kind::File => vec![child],
            _ => Vec::new(),
        });
        below.collect()
    }

    fn drop_link(&mut self, id: Id, dir: Id, name: &str) {
        let object = self.get_mut(id);
        object.links.retain(|link| (link.dir, &*link.name) != (dir, name));
        object.removed |= object.links.is_empty();
    }

    pub fn make(&mut self, dir: Id, name: &str, kind: Kind, mode: u32, gid: u32) -> Outcome<Id> {
        if self.entry(dir, name).is_some() {
            return Err("Exists");
        }
        let id = self.objects.len();
        let mut object = Object::new(kind, mode, gid);
        object.cancellable = true;
        self.objects.push(object);
        let since = self.change(dir, |entries| _ = entries.insert(name.into(), id));
        self.add_link(id, dir, name, since, false);
        Ok(id)
    }

    pub fn link(&mut self, id: Id, dir: Id, name: &str) -> Outcome<()> {
        if self.entry(dir, name).is_some() {
            return Err("Exists");
        }
        let since = self.change(dir, |entries| _ = entries.insert(name.into(), id));
        self.add_link(id, dir, name, since, true);
        self.get_mut(id).only_replaced = false;
        Ok(())
    }

    pub fn remove(&mut self, dir: Id, name: &str, directory: bool) -> Outcome<Id> {
        let id = self.entry(dir, name).ok_or("NotFound")?;
        match (directory, self.get(id).is_dir()) {
            (true, false) => return Err("NotDirectory"),
            (false, true) => return Err("IsDirectory"),
            (true, true) if !self.get(id).entries().is_empty() => return Err("NotEmpty"),
            _ => {}
        }
        self.change(dir, |entries| _ = entries.remove(name));
        self.drop_link(id, dir, name);
        Ok(id)
    }

    pub fn rename(&mut self, from: (Id, &str), to: (Id, &str), no_replace: bool) -> Outcome<()> {
        let id = self.entry(from.0, from.1).ok_or("NotFound")?;
        let target = self.entry(to.0, to.1);
        if let Some(target) = target {
            if no_replace {
                return Err("Exists");
            }
            if target == id {
                return Ok(());
            }
            match (self.get(id).is_dir(), self.get(target).is_dir()) {
                (true, false) => return Err("NotDirectory"),
                (false, true) => return Err("IsDirectory"),
                (true, true) if !self.get(target).entries().is_empty() => return Err("NotEmpty"),
                _ => {}
            }
        }
        if self.get(id).is_dir() && self.is_below(to.0, id) {
            return Err("Invalid");
        }
        if let Some(target) = target {
            self.drop_link(target, to.0, to.1);
            self.get_mut(target).cancellable = false;
        }
        self.drop_link(id, from.0, from.1);
        self.get_mut(id).removed = false;
        let since = self.change_both(from, to, |from_entries, to_entries| {
            if let Some(entries) = from_entries {
                entries.remove(from.1);
                entries.insert(to.1.into(), id);
            }
            if let Some((away, into)) = to_entries {
                away.remove(from.1);
                into.insert(to.1.into(), id);
            }
        });
        self.add_link(id, to.0, to.1, since.1, true);
        Ok(())
    }

    pub fn exchange(&mut self, from: (Id, &str), to: (Id, &str)) -> Outcome<()> {
        let one = self.entry(from.0, from.1).ok_or("NotFound")?;
        let other = self.entry(to.0, to.1).ok_or("NotFound")?;
        if one == other {
            return Ok(());
        }
        if self.is_below(to.0, one) || self.is_below(from.0, other) {
            return Err("Invalid");
        }
        self.drop_link(one, from.0, from.1);
        self.drop_link(other, to.0, to.1);
        (self.get_mut(one).removed, self.get_mut(other).removed) = (false, false);
        let since = self.change_both(from, to, |same, both| {
            if let Some(entries) = same {
                entries.insert(from.1.into(), other);
                entries.insert(to.1.into(), one);
            }
            if let Some((a, b)) = both {
                a.insert(from.1.into(), other);
                b.insert(to.1.into(), one);
            }
        });
        self.add_link(one, to.0, to.1, since.1, true);
        self.add_link(other, from.0, from.1, since.0, true);
        Ok(())
    }

    /// Changes one directory, or two at once; returns the numbers of their states.
    fn change_both(
        &mut self,
        from: (Id, &str),
        to: (Id, &str),
        change: impl FnOnce(Option<&mut Entries>, Option<(&mut Entries, &mut Entries)>),
    ) -> (usize, usize) {
        if from.0 == to.0 {
            let since = self.change(from.0, |entries| change(Some(entries), None));
            return (since, since);
        }
        let mut a = self.get(from.0).entries().clone();
        let mut b = self.get(to.0).entries().clone();
        change(None, Some((&mut a, &mut b)));
        let since = (self.change(from.0, |entries| *entries = a), self.change(to.0, |entries| *entries = b));
        self.crossings.push(((from.0, since.0), (to.0, since.1)));
        since
    }

    /// Gives a file a new content.
    pub fn set_content(&mut self, id: Id, change: impl FnOnce(&mut Vec<u8>)) {
        let object = self.get_mut(id);
        let mut content = (**object.content()).clone();
        change(&mut content);
        object.versions.push(Rc::new(content));
        object.mtime = None;
        object.durable.mtime = None;
    }

    pub fn write(&mut self, id: Id, offset: usize, data: &[u8]) {
        self.set_content(id, |content| {
            let end = offset + data.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[offset..end].copy_from_slice(data);
        });
    }

    /// fsync succeeded: the content, and the names that lead to it, are on the backing to stay.
    pub fn synced(&mut self, id: Id) {
        if id != ROOT && self.get(id).links.is_empty() {
            return;
        }
        let object = self.get_mut(id);
        object.content_synced();
        let value = |name: &&str| (String::from(*name), object.xattrs.get(*name).cloned());
        object.durable = Durable {
            mode: Some(object.mode),
            gid: Some(object.gid),
            mtime: object.mtime,
            xattrs: super::world::XATTRS.iter().map(value).collect(),
        };
        if object.is_dir() {
            object.states_floor = object.states.len() - 1;
        }
        let mut links = object.links.clone();
        while let Some(link) = links.pop() {
            let dir = self.get_mut(link.dir);
            dir.states_floor = dir.states_floor.max(link.since);
            links.extend(dir.links.first().cloned());
        }
    }

    /// Everything is drained: what comes later is held against this.
    pub fn drained(&mut self) {
        for object in &mut self.objects {
            object.content_synced();
            object.states_floor = object.states.len() - 1;
            object.only_replaced =
                object.kind == Kind::File && object.links.len() == 1 && object.writers == 0;
        }
    }
}
