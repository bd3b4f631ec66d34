//! The entries of one directory, in an order that survives changes while it is read.
//!
//! Every entry has a cookie, by its name. A reader that continues behind a cookie sees
//! each entry that was there all the time exactly once, whatever else comes and goes.

use crate::attr::{Kind, Timestamp};
use crate::ids::{Ino, Name, Seq};
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Cookies 0 to 2 stand for the start, `.` and `..`.
const COOKIE_MIN: u64 = 3;

/// Kinds of names whose sizes are remembered in a directory.
const SHAPES_MAX: usize = 16;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The inode.
    pub ino: Ino,
    /// Its type.
    pub kind: Kind,
    /// Position when the directory is read.
    pub cookie: u64,
    /// The backing has this name for it too: so it was found there, or the drain made it. False is no proof of the
    /// contrary.
    pub on_backing: bool,
}

/// A directory's entries.
#[derive(Debug, Default)]
pub struct Dir {
    entries: FxHashMap<Name, Entry>,
    order: BTreeMap<u64, Name>,
    /// Names that the backing still shows, but that are gone here, with the change that will remove them there.
    pub whiteouts: FxHashMap<Name, Seq>,
    /// All that the backing holds is in `entries`: no need to ask it for a name.
    pub complete: bool,
    /// When the backing was last compared, and its modification time then.
    pub validated: Option<(Instant, Timestamp)>,
    /// Grows with each change.
    pub version: u64,
    /// Listings of the backing under way, and the names that changed here or there since the first of them began: what
    /// a listing says of those is not to be believed.
    pub listings: u32,
    /// See `listings`.
    pub touched: FxHashSet<Name>,
    /// Names that are looked at on the backing: by how many, and changes of them meanwhile.
    looks: FxHashMap<Name, (u32, u64)>,
    /// The version that a reader was last shown.
    pub shown_version: Option<u64>,
    /// What files made here came to hold, by the shape of their names, the latest last.
    sizes: Sizes,
    /// The same of files made in the directories below: steps and epochs repeat.
    sizes_below: Sizes,
    /// Subdirectories here.
    pub subdirectories: u32,
}

impl Dir {
    /// A directory that exists here alone: nothing to be asked of the backing.
    pub fn new_complete() -> Dir {
        Dir { complete: true, ..Dir::default() }
    }

    /// Remembers that `name` changed, for listings under way.
    pub fn touch(&mut self, name: &Name) {
        self.changed(name);
        if self.listings > 0 {
            self.touched.insert(name.clone());
        }
    }

    /// A look at the backing for `name` begins; returns what [`Dir::end_look`] is to be given.
    pub fn begin_look(&mut self, name: &[u8]) -> u64 {
        let (looks, changes) = self.looks.entry(Name::from(name)).or_default();
        *looks += 1;
        *changes
    }

    /// It ended; true if a change of `name` overtook it.
    pub fn end_look(&mut self, name: &[u8], begun: u64) -> bool {
        let Some((looks, changes)) = self.looks.get_mut(name) else { return true };
        *looks -= 1;
        let overtaken = *changes != begun;
        if *looks == 0 {
            self.looks.remove(name);
        }
        overtaken
    }

    fn changed(&mut self, name: &[u8]) {
        self.version += 1;
        if !self.looks.is_empty()
            && let Some((_, changes)) = self.looks.get_mut(name)
        {
            *changes += 1;
        }
    }

    /// What `name` stands for.
    pub fn get(&self, name: &[u8]) -> Option<Entry> {
        self.entries.get(name).copied()
    }

    /// Adds `name`, which isn't there.
    pub fn insert(&mut self, name: Name, ino: Ino, kind: Kind) {
        self.changed(&name);
        let entry = Entry { ino, kind, cookie: self.cookie(&name), on_backing: false };
        self.order.insert(entry.cookie, name.clone());
        let before = self.entries.insert(name, entry);
        debug_assert!(before.is_none(), "a name is added once");
        self.subdirectories += u32::from(kind == Kind::Directory);
    }

    /// The position of a name: the same in each daemon of a mount, so that whoever reads the directory when one takes over
    /// goes on where he was. By a hash, and beside it where that is taken: two of a directory meet once in 2^61 pairs.
    fn cookie(&self, name: &[u8]) -> u64 {
        let mut cookie = (xxh3_64(name) >> 2).max(COOKIE_MIN);
        while self.order.contains_key(&cookie) {
            cookie += 1;
        }
        cookie
    }

    /// Remembers that the backing has `name` for `ino`, if that is what it stands for here.
    pub fn mark_on_backing(&mut self, name: &[u8], ino: Ino) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.on_backing |= entry.ino == ino;
        }
    }

    /// Removes `name`.
    pub fn remove(&mut self, name: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(name)?;
        self.changed(name);
        self.order.remove(&entry.cookie);
        self.subdirectories -= u32::from(entry.kind == Kind::Directory);
        Some(entry)
    }

    /// Lets `name` stand for another inode, at the same position.
    pub fn replace(&mut self, name: &[u8], ino: Ino, kind: Kind) {
        self.changed(name);
        if let Some(entry) = self.entries.get_mut(name) {
            self.subdirectories -= u32::from(entry.kind == Kind::Directory);
            self.subdirectories += u32::from(kind == Kind::Directory);
            (entry.ino, entry.kind, entry.on_backing) = (ino, kind, false);
        }
    }

    /// Entries behind `cookie`, in order.
    pub fn after(&self, cookie: u64) -> impl Iterator<Item = (&Name, Entry)> {
        let behind = (Bound::Excluded(cookie.max(COOKIE_MIN - 1)), Bound::Unbounded);
        self.order.range(behind).filter_map(|(_, name)| Some((name, *self.entries.get(name)?)))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = (&Name, &Entry)> {
        self.entries.iter()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Learns from a file that was closed here.
    pub fn learn_size(&mut self, name: &[u8], size: u64) {
        self.sizes.learn(shape(name), size);
    }

    /// Learns from a file that was closed in a directory of this one.
    pub fn learn_size_below(&mut self, name: &[u8], size: u64) {
        self.sizes_below.learn(shape(name), size);
    }

    /// What a file of this name will probably hold.
    pub fn expected_size(&self, name: &[u8]) -> Expected {
        match self.sizes.get(shape(name)) {
            Some(size) => Expected::Like(size),
            None => self.sizes.0.last().map_or(Expected::Unknown, |(_, size)| Expected::Perhaps(*size)),
        }
    }

    /// What files of such a name held in the directories of this one.
    pub fn expected_size_below(&self, name: &[u8]) -> Option<u64> {
        self.sizes_below.get(shape(name))
    }
}

/// Sizes by shape of names, the latest last.
#[derive(Debug, Default)]
struct Sizes(SmallVec<[(u32, u64); 2]>);

impl Sizes {
    /// Grows at once, shrinks slowly, so that one small file among large ones doesn't take the fast path from the next.
    fn learn(&mut self, shape: u32, size: u64) {
        let known = self.0.iter().position(|(s, _)| *s == shape).map(|at| self.0.remove(at).1);
        if self.0.len() >= SHAPES_MAX {
            self.0.remove(0);
        }
        let size = known.filter(|&before| before > size).map_or(size, |before| before - (before - size) / 8);
        self.0.push((shape, size));
    }

    fn get(&self, shape: u32) -> Option<u64> {
        self.0.iter().find(|(s, _)| *s == shape).map(|(_, size)| *size)
    }
}

/// What is known of the size of a file to come, from its siblings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Unknown,
    /// The last file made in the directory, of another kind, held this.
    Perhaps(u64),
    /// Files with names like its own hold this.
    Like(u64),
}

/// A name with each run of digits taken for one, hashed: shards and steps are counted, everything else names a kind.
fn shape(name: &[u8]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut in_digits = false;
    for &byte in name {
        let digit = byte.is_ascii_digit();
        if !(digit && in_digits) {
            let byte = if digit { b'0' } else { byte };
            // Fowler, Noll and Vo, variant 1a, 32 bits. A collision costs a wrong guess.
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        in_digits = digit;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_lasting_entry_once_while_others_come_and_go() {
        let mut dir = Dir::default();
        for i in 0..100_u64 {
            dir.insert(format!("lasting{i}").into_bytes().into(), Ino(i + 2), Kind::File);
            dir.insert(format!("passing{i}").into_bytes().into(), Ino(i + 1000), Kind::File);
        }
        let (mut seen, mut cookie, mut round) = (Vec::new(), 0, 0_u64);
        loop {
            let batch: Vec<_> = dir.after(cookie).take(7).map(|(n, e)| (n.clone(), e.cookie)).collect();
            let Some(last) = batch.last() else { break };
            cookie = last.1;
            seen.extend(batch.into_iter().map(|(n, _)| n).filter(|n| n.starts_with(b"lasting")));
            dir.remove(format!("passing{round}").as_bytes());
            dir.insert(format!("new{round}").into_bytes().into(), Ino(round + 5000), Kind::File);
            round += 1;
            assert!(round < 10_000, "new entries behind the reader are bounded in this test");
            if round > 60 {
                break;
            }
        }
        let unique: std::collections::HashSet<_> = seen.iter().collect();
        assert_eq!((seen.len(), unique.len()), (100, 100));
    }

    #[test]
    fn a_look_is_overtaken_by_changes_of_its_own_name_alone() {
        let mut dir = Dir::default();
        let name = |name: &[u8]| Name::from(name);
        dir.insert(name(b"b"), Ino(2), Kind::File);
        let changes: [fn(&mut Dir); 4] = [
            |dir| dir.insert(Name::from(&b"a"[..]), Ino(3), Kind::File),
            |dir| dir.replace(b"a", Ino(4), Kind::File),
            |dir| dir.touch(&Name::from(&b"a"[..])),
            |dir| assert!(dir.remove(b"a").is_some()),
        ];
        for change in changes {
            let (first, second) = (dir.begin_look(b"a"), dir.begin_look(b"a"));
            dir.touch(&name(b"b"));
            assert!(!dir.end_look(b"a", first));
            change(&mut dir);
            let third = dir.begin_look(b"a");
            assert!(dir.end_look(b"a", second));
            assert!(!dir.end_look(b"a", third));
            assert!(dir.looks.is_empty());
        }
    }

    #[test]
    fn shards_and_steps_are_of_one_kind_and_an_index_is_not() {
        let mut dir = Dir::default();
        assert_eq!(dir.expected_size(b"shard_00001.bin"), Expected::Unknown);
        dir.learn_size(b"shard_00001.bin", 1000);
        dir.learn_size(b"index.json", 10);
        assert_eq!(dir.expected_size(b"shard_17.bin"), Expected::Like(1000));
        assert_eq!(dir.expected_size(b"index.json"), Expected::Like(10));
        assert_eq!(dir.expected_size(b"notes.txt"), Expected::Perhaps(10));
    }
}
