//! One inode: its attributes, where its content is, who has it open, and what the backing has of it.

use crate::arena::{Ahead, ArenaStat, Content, Stamp};
use crate::attr::{Attr, Kind, Timestamp};
use crate::backing::BackingId;
use crate::fetch::Scan;
use crate::ids::{Ino, Name};
use crate::journal::Slot;
use crate::namespace::{Behind, Moving};
use parking_lot::Mutex;
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

/// A name in a directory.
pub type Link = (Ino, Name);

/// An inode. Everything that changes is under one lock; at most one inode is locked at a time.
#[derive(Debug)]
pub struct Inode {
    /// Its number.
    pub ino: Ino,
    /// Its type; never changes.
    pub kind: Kind,
    /// The rest.
    pub state: Mutex<InodeState>,
}

/// What the lock of an inode guards.
#[derive(Debug)]
pub struct InodeState {
    /// Attributes as shown; size and times of a file that others write directly are brought up to date on demand.
    pub attr: Attr,
    /// One of its names here (the only one, of a directory); none when it was removed.
    pub place: Option<Link>,
    /// The names under which the backing has it. Empty: it doesn't.
    pub drained: SmallVec<[Link; 1]>,
    /// What the backing held when it was last in step with us.
    baseline: Option<Box<Baseline>>,
    /// See [`InodeState::doubt_baseline`].
    baseline_in_doubt: bool,
    /// Target of a symbolic link, once known.
    pub target: Option<Box<[u8]>>,
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// The backing's attributes differ from ours.
    pub attr_dirty: bool,
    /// An application set its times, and the backing doesn't have them yet.
    pub times_set: bool,
    /// The drain is at work on it: what the backing shows is neither the old nor the new.
    pub settling: bool,
    /// Changes in the operation log that name this inode, as object or as directory.
    pub pending: u32,
    /// References the kernel holds (lookups less forgets).
    pub lookups: u64,
    /// Where the journal keeps those.
    pub(crate) slot: Option<Slot>,
    /// Regular files.
    pub file: FileState,
}

/// The part of an inode that only regular files use.
#[derive(Debug)]
pub struct FileState {
    /// Where the content is.
    pub place: Place,
    /// The content may differ from the backing's.
    pub dirty: bool,
    /// All content was replaced since the last drain: the drain writes it beside and renames.
    pub replaced: bool,
    /// Open handles, those that may write, and how they are served. `None`: closed.
    pub epoch: Option<Box<Epoch>>,
    /// Closed, but when last asked somebody could still write: a mapping outlived its descriptor.
    pub lingering: bool,
    /// The file that lingering mappings belong to, where that is the backing's.
    pub mapped: Option<Arc<File>>,
    /// The kernel failed to write pages of the backing's file, and told us.
    pub write_back_failed: bool,
    /// State of the content when it was last folded into the attributes.
    pub seen: Stamp,
    /// Access time of the file that holds the content when it was last folded.
    pub seen_atime: Timestamp,
    /// Access and modification time that the drain gives the backing's file just now: in that file they are no news,
    /// whatever was set here meanwhile.
    pub dated: Option<Box<(Timestamp, Timestamp)>>,
    /// Grows whenever the content may have changed, so that a drain can tell whether it was overtaken.
    pub touched: u64,
    /// State of the content when the backing had exactly this.
    pub clean: Option<Stamp>,
    /// Checksums of chunks as last drained while still open; see `drain::content`.
    pub chunks: Option<Box<[u128]>>,
    /// Written on the backing in the time of a daemon that died: its times there may be news.
    pub taken_up: bool,
    /// Last close, for eviction.
    pub used: Option<Instant>,
}

/// Where a file's content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: empty, no arena file yet.
    Empty,
    /// In the arena, whole.
    Arena,
    /// On the backing alone.
    Backing,
    /// On the backing alone, in our private directory: a new file whose name is still to be made there. The drain
    /// gives it its name by a rename.
    Unnamed,
}

impl Place {
    /// Whether the backing's storage holds the content.
    pub fn is_on_backing(self) -> bool {
        matches!(self, Place::Backing | Place::Unnamed)
    }
}

/// How all handles of a file that is open are served. The kernel allows no other mix: while an inode has a
/// passthrough handle, every further one must be passthrough to the same file.
#[derive(Debug, Clone)]
pub enum OpenMode {
    /// Reads and writes go to the arena file without us.
    Arena(Arc<Content>),
    /// Reads and writes go to the backing's file without us.
    Backing(Arc<File>),
    /// Every read and write is a request to us; the file is the arena's or the backing's, open for both.
    Daemon(Arc<File>),
}

/// The time from a file's first open to its last close.
#[derive(Debug)]
pub struct Epoch {
    /// How it is served.
    pub mode: OpenMode,
    /// Open handles.
    pub handles: u32,
    /// Those opened for writing.
    pub writers: u32,
    /// Bytes of the arena promised to its writers.
    pub promised: u64,
    /// Pages being allocated ahead of a writer.
    pub ahead: Option<Arc<Ahead>>,
    /// How it is read, as far as the daemon sees.
    pub scan: Scan,
    /// The size that it was expected to grow to; 0 where nothing told.
    pub expected: u64,
    /// It is to move to the backing.
    pub announced: bool,
    /// It moves there.
    pub moving: Option<Box<Moving>>,
    /// What the daemon wrote to the backing's page cache.
    pub behind: Behind,
}

/// What the backing held when it was last in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    /// Which object.
    pub id: BackingId,
    /// Its size.
    pub size: u64,
    /// Its modification time.
    pub mtime: Timestamp,
    /// Its change time: as long as it stays, nobody changed anything there, and our own ctime is the one shown.
    pub ctime: Timestamp,
    /// When we looked.
    pub checked: Instant,
}

/// Names and values.
pub type XattrMap = BTreeMap<Box<[u8]>, Box<[u8]>>;

/// Extended attributes of an inode.
#[derive(Debug)]
pub enum Xattrs {
    /// Not read from the backing yet.
    Unknown,
    /// All of them, and the names that differ on the backing.
    Known(Box<(XattrMap, BTreeSet<Box<[u8]>>)>),
    /// There are none, and the backing has none.
    None,
}

impl Inode {
    /// An inode that exists here alone.
    pub fn new(ino: Ino, attr: Attr, place: Link) -> Inode {
        let mut state = InodeState::new(attr, Some(place));
        state.xattrs = Xattrs::None;
        Inode { ino, kind: attr.kind, state: Mutex::new(state) }
    }

    /// An inode that was found on the backing as `link`.
    pub fn found(ino: Ino, attr: Attr, link: Link, baseline: Baseline) -> Inode {
        let mut state = InodeState::new(attr, Some(link.clone()));
        state.drained.push(link);
        state.set_baseline(Some(baseline));
        state.file.place = Place::Backing;
        Inode { ino, kind: attr.kind, state: Mutex::new(state) }
    }
}

impl InodeState {
    fn new(attr: Attr, place: Option<Link>) -> InodeState {
        InodeState {
            attr,
            place,
            drained: SmallVec::new(),
            baseline: None,
            baseline_in_doubt: false,
            target: None,
            xattrs: Xattrs::Unknown,
            attr_dirty: false,
            times_set: false,
            settling: false,
            pending: 0,
            lookups: 0,
            slot: None,
            file: FileState {
                place: Place::Empty,
                dirty: false,
                replaced: false,
                epoch: None,
                lingering: false,
                mapped: None,
                write_back_failed: false,
                seen: Stamp::default(),
                seen_atime: Timestamp::default(),
                dated: None,
                touched: 0,
                clean: None,
                chunks: None,
                taken_up: false,
                used: None,
            },
        }
    }

    /// What the backing held when it was last in step with us.
    pub fn baseline(&self) -> Option<Baseline> {
        self.last_baseline().filter(|_| !self.baseline_in_doubt)
    }

    /// The same, even if we may have changed what is there since then: the name of the object there, no more.
    pub fn last_baseline(&self) -> Option<Baseline> {
        self.baseline.as_deref().copied()
    }

    /// Another daemon was changing what is there when it died: what differs is our own doing, not somebody else's.
    pub fn doubt_baseline(&mut self) {
        self.baseline_in_doubt = true;
    }

    /// Remembers what the backing holds; returns what was remembered before, in doubt or not.
    pub fn set_baseline(&mut self, baseline: Option<Baseline>) -> Option<Baseline> {
        self.baseline_in_doubt = false;
        std::mem::replace(&mut self.baseline, baseline.map(Box::new)).map(|before| *before)
    }

    /// Whether the backing has all of it and nobody is about to change that: only then does what the backing shows
    /// count for more than what is known here.
    pub fn in_step(&self) -> bool {
        let file = &self.file;
        !self.unsettled() && !self.settling && self.pending == 0 && file.epoch.is_none() && !file.lingering
    }

    /// Whether no name is left. A directory's link count is the backing's business; its name is ours.
    pub fn nameless(&self) -> bool {
        if self.attr.kind == Kind::Directory { self.place.is_none() } else { self.attr.nlink == 0 }
    }

    /// Whether anything of it still has to reach the backing.
    pub fn unsettled(&self) -> bool {
        self.attr_dirty || self.file.dirty || self.xattrs.is_dirty()
    }
}

impl FileState {
    /// Marks the content as possibly different from the backing's.
    pub fn touch(&mut self) {
        self.dirty = true;
        self.clean = None;
        self.touched += 1;
    }

    /// The state of the file that holds the content is known from here on; nothing in it is news.
    pub fn know(&mut self, stat: &ArenaStat) {
        (self.seen, self.seen_atime) = (stat.stamp, stat.atime);
    }

    /// The content changed in `range`, or somewhere: whoever copies it must copy that.
    pub fn changed(&mut self, range: Option<std::ops::Range<u64>>) {
        if let Some(moving) = self.epoch.as_mut().and_then(|epoch| epoch.moving.as_mut()) {
            match range {
                Some(range) => moving.written.note(range),
                None => moving.written.note_all(),
            }
        }
    }

    /// Handles that are open.
    pub fn handles(&self) -> u32 {
        self.epoch.as_ref().map_or(0, |e| e.handles)
    }

    /// Handles open for writing.
    pub fn writers(&self) -> u32 {
        self.epoch.as_ref().map_or(0, |e| e.writers)
    }
}

/// Names, and values where they are not removed.
pub type XattrList = Vec<(Vec<u8>, Option<Vec<u8>>)>;

impl Xattrs {
    /// Whether the backing has to be told.
    pub fn is_dirty(&self) -> bool {
        matches!(self, Xattrs::Known(known) if !known.1.is_empty())
    }

    /// What the backing has to be told.
    pub fn to_be_told(&self) -> XattrList {
        let Xattrs::Known(known) = self else { return Vec::new() };
        let value = |name: &[u8]| known.0.get(name).map(|value| value.to_vec());
        known.1.iter().map(|name| (name.to_vec(), value(name))).collect()
    }

    /// All that are known.
    pub fn all(&self) -> XattrList {
        let Xattrs::Known(known) = self else { return Vec::new() };
        known.0.iter().map(|(name, value)| (name.to_vec(), Some(value.to_vec()))).collect()
    }
}

/// `directory` and `name` as one relative path.
pub fn join_path(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
