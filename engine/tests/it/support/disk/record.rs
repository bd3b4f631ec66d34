//! What is on the disk and what of it could be lost: objects, the changes of each directory in their order, versions
//! of attributes and contents.

use aimss_engine::Kind;
use aimss_engine::backing::{Backing, LocalBacking};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Place of an object in [`Record::objects`].
pub type Object = usize;

pub const ROOT: Object = 0;

/// See the module. `step` counts changes of names over the whole disk.
pub struct Record {
    pub objects: Vec<Known>,
    /// Changes of names so far; each has the place of its number here.
    pub steps: Vec<Tie>,
    /// All steps before this one are durable where the disk keeps the order of its log.
    pub steps_floor: usize,
    numbers: HashMap<(u64, u64), Object>,
}

/// Directories that a step changes together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tie {
    One,
    /// Away from `from`, into `to`, on whose way from the root directories had the names that these steps gave them.
    Moved {
        from: Object,
        to: Object,
        way: Vec<(Object, usize)>,
    },
    /// Of both at once.
    Swapped(Object, Object),
}

pub struct Known {
    pub kind: Kind,
    pub rdev: u32,
    pub target: Vec<u8>,
    /// A descriptor without rights, of a regular file.
    held: Option<File>,
    /// Attributes, each with the number of steps before it. Those before the first are lost for good.
    pub attributes: Vec<(usize, Attributes)>,
    /// Contents: the first is durable.
    pub contents: Vec<Arc<Vec<u8>>>,
    /// Directories: what each change set names to, in order.
    pub changes: Vec<Entries>,
    pub changes_floor: usize,
    entries: BTreeMap<Vec<u8>, Object>,
    /// Of a directory: where it has its name, and the step that gave it.
    named: Option<(Object, usize)>,
}

#[derive(Debug, Clone)]
pub struct Entries {
    pub step: usize,
    pub set: Vec<(Vec<u8>, Option<Object>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub mode: u32,
    pub owner: (u32, u32),
    pub mtime: (i64, i64),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Record {
    pub fn new(disk: &LocalBacking) -> Record {
        let mut record = Record {
            objects: vec![Known::new(Kind::Directory)],
            steps: Vec::new(),
            steps_floor: 0,
            numbers: HashMap::new(),
        };
        record.attributes(disk, b"");
        for listed in disk.list(b"").expect("a listing") {
            assert_eq!(&*listed.name, b".aimss", "a new disk has our private directory alone");
            record.made(disk, &listed.name);
        }
        record.synced_all();
        record
    }

    fn find(&self, path: &[u8]) -> Object {
        let mut at = ROOT;
        for name in path.split(|&b| b == b'/').filter(|name| !name.is_empty()) {
            at = self.objects[at].entries[name];
        }
        at
    }

    /// The changes that name the directories on the way from the root.
    fn way(&self, dir: Object) -> Vec<(Object, usize)> {
        std::iter::successors(self.objects[dir].named, |&(parent, _)| self.objects[parent].named).collect()
    }

    fn parent<'p>(&self, path: &'p [u8]) -> (Object, &'p [u8]) {
        let slash = path.iter().rposition(|&b| b == b'/');
        let (parent, name) = slash.map_or((&path[..0], path), |at| (&path[..at], &path[at + 1..]));
        (self.find(parent), name)
    }

    /// A change of names in one directory, or in several that are tied.
    fn step(&mut self, tie: Tie, changes: Vec<(Object, Vec<u8>, Option<Object>)>) {
        let step = self.steps.len();
        self.steps.push(tie);
        for (dir, name, to) in changes {
            if let Some(object) = to {
                self.objects[object].named = Some((dir, step));
            }
            let dir = &mut self.objects[dir];
            match to {
                Some(object) => dir.entries.insert(name.clone(), object),
                None => dir.entries.remove(&name),
            };
            match dir.changes.last_mut() {
                Some(last) if last.step == step => last.set.push((name, to)),
                _ => dir.changes.push(Entries { step, set: vec![(name, to)] }),
            }
        }
    }

    pub fn made(&mut self, disk: &LocalBacking, path: &[u8]) {
        let stat = disk.stat(path).expect("what was just made");
        let mut known = Known::new(stat.attr.kind);
        known.rdev = stat.attr.rdev;
        match known.kind {
            Kind::Symlink => known.target = disk.read_link(path).expect("a target"),
            Kind::File => {
                let file = disk.open_read(path).expect("what was just made");
                let held = File::options().read(true).custom_flags(libc::O_PATH).open(at_proc(&file));
                known.held = Some(held.expect("a file can be held"));
                self.numbers.insert((stat.id.dev, stat.id.ino), self.objects.len());
            }
            _ => {}
        }
        let (parent, name) = self.parent(path);
        let object = self.objects.len();
        self.objects.push(known);
        self.step(Tie::One, vec![(parent, name.into(), Some(object))]);
        self.attributes(disk, path);
    }

    pub fn removed(&mut self, path: &[u8]) {
        let (parent, name) = self.parent(path);
        self.step(Tie::One, vec![(parent, name.into(), None)]);
    }

    pub fn linked(&mut self, from: &[u8], to: &[u8]) {
        let object = self.find(from);
        let (parent, name) = self.parent(to);
        self.step(Tie::One, vec![(parent, name.into(), Some(object))]);
    }

    pub fn renamed(&mut self, from: &[u8], to: &[u8]) {
        let object = self.find(from);
        let ((a, old), (b, new)) = (self.parent(from), self.parent(to));
        if self.objects[b].entries.get(new) == Some(&object) {
            // Two names of one file: nothing happens.
            return;
        }
        let tie = if a == b { Tie::One } else { Tie::Moved { from: a, to: b, way: self.way(b) } };
        self.step(tie, vec![(a, old.into(), None), (b, new.into(), Some(object))]);
    }

    pub fn exchanged(&mut self, from: &[u8], to: &[u8]) {
        let (one, other) = (self.find(from), self.find(to));
        let ((a, old), (b, new)) = (self.parent(from), self.parent(to));
        let tie = if a == b { Tie::One } else { Tie::Swapped(a, b) };
        self.step(tie, vec![(a, old.into(), Some(other)), (b, new.into(), Some(one))]);
    }

    pub fn attributes(&mut self, disk: &LocalBacking, path: &[u8]) {
        let object = self.find(path);
        let attr = disk.stat(path).expect("an object").attr;
        let mut xattrs = disk.xattrs(path).unwrap_or_default();
        xattrs.retain(|(name, _)| name.starts_with(b"user."));
        let attributes = Attributes {
            mode: attr.mode,
            owner: (attr.uid, attr.gid),
            mtime: (attr.mtime.seconds, i64::from(attr.mtime.nanoseconds)),
            xattrs,
        };
        self.has(object, attributes);
    }

    /// The same but for extended attributes, which stay.
    pub fn attributes_of_file(&mut self, file: &File) {
        let m = file.metadata().expect("an open file");
        let Some(&object) = self.numbers.get(&(m.dev(), m.ino())) else { return };
        let xattrs = self.objects[object].attributes.last().map(|last| last.1.xattrs.clone());
        let attributes = Attributes {
            mode: m.mode() & 0o7777,
            owner: (m.uid(), m.gid()),
            mtime: (m.mtime(), m.mtime_nsec()),
            xattrs: xattrs.unwrap_or_default(),
        };
        self.has(object, attributes);
    }

    fn has(&mut self, object: Object, attributes: Attributes) {
        let steps = self.steps.len();
        let versions = &mut self.objects[object].attributes;
        if versions.last().is_none_or(|last| last.1 != attributes) {
            versions.push((steps, attributes));
        }
    }

    /// The content of an open file may have changed.
    pub fn look_at(&mut self, file: &File) {
        let m = file.metadata().expect("an open file");
        if let Some(&object) = self.numbers.get(&(m.dev(), m.ino())) {
            self.objects[object].look();
        }
    }

    pub fn look_at_all(&mut self) {
        self.objects.iter_mut().for_each(Known::look);
    }

    /// fsync of a file: its content and attributes, not its names.
    pub fn synced(&mut self, file: &File) {
        self.attributes_of_file(file);
        let m = file.metadata().expect("an open file");
        if let Some(&object) = self.numbers.get(&(m.dev(), m.ino())) {
            self.objects[object].look();
            self.objects[object].is_durable();
        }
    }

    /// fsync of a directory: its entries and attributes, not what they name.
    pub fn synced_dir(&mut self, path: &[u8]) {
        let object = self.find(path);
        let known = &mut self.objects[object];
        known.is_durable();
        known.changes_floor = known.changes.len();
        let steps = known.changes.last().map_or(0, |last| last.step + 1);
        self.steps_floor = self.steps_floor.max(steps);
    }

    pub fn synced_all(&mut self) {
        for known in &mut self.objects {
            known.look();
            known.is_durable();
            known.changes_floor = known.changes.len();
        }
        self.steps_floor = self.steps.len();
    }
}

impl Known {
    fn new(kind: Kind) -> Known {
        Known {
            kind,
            rdev: 0,
            target: Vec::new(),
            held: None,
            attributes: Vec::new(),
            contents: vec![Arc::default()],
            changes: Vec::new(),
            changes_floor: 0,
            entries: BTreeMap::new(),
            named: None,
        }
    }

    fn look(&mut self) {
        let Some(held) = &self.held else { return };
        let mut content = Vec::new();
        let mut file = File::open(at_proc(held)).expect("a file that is held can be read");
        file.read_to_end(&mut content).expect("a file that is held can be read");
        if self.contents.last().is_none_or(|last| **last != content) {
            self.contents.push(Arc::new(content));
        }
    }

    /// What it is now it stays, at least.
    fn is_durable(&mut self) {
        self.contents.drain(..self.contents.len() - 1);
        let attributes = self.attributes.len();
        self.attributes.drain(..attributes.saturating_sub(1));
    }
}

fn at_proc(file: &File) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(std::ffi::OsStr::from_bytes(file.as_raw_fd().to_string().as_bytes()))
}
