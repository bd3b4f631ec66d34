//! Reading a journal: what was dirty, and which changes were under way, when its daemon died.

use super::record::Basis;
use super::{Answered, Held, Record};
use crate::attr::{Attr, Kind};
use crate::backing::BackingId;
use crate::ids::{Ino, Seq};
use crate::namespace::Link;
use crate::oplog::Change;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeMap;

/// An object as the journal left it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Attributes.
    pub attr: Attr,
    /// Where the backing has it.
    pub drained: Vec<Link>,
    /// Target, of a symbolic link made here.
    pub target: Option<Vec<u8>>,
    /// Extended attributes that the backing must be told.
    pub xattrs: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The backing's attributes differ.
    pub attr_dirty: bool,
    /// The content may differ from what the backing has to stay.
    pub dirty: bool,
    /// Where the content is.
    pub held: Held,
    /// What the backing held of it when it was last in step.
    pub basis: Option<Basis>,
    /// The arena has its content, and the backing the same.
    pub cached: bool,
    /// It stays in the arena by command.
    pub pinned: bool,
    /// It has no name on the backing, and is given none: nothing is left of it but what has it open.
    pub gone: bool,
}

/// All that a journal says.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Objects named in it, those that are gone included.
    pub nodes: FxHashMap<Ino, Node>,
    /// Changes that are not on the backing, in order.
    pub changes: BTreeMap<Seq, Change>,
    /// The numbers of objects of the backing, of those that are not known any more, too.
    pub numbers: FxHashMap<BackingId, Ino>,
    /// What the file system above remembered, by its keys.
    pub notes: FxHashMap<u64, Vec<u8>>,
    /// It keeps link counts with the changes. Those of older versions don't.
    pub exact: bool,
    /// No inode had a higher number.
    pub highest: Ino,
    /// What requests came to, by their numbers. Most of them were answered.
    pub answered: FxHashMap<u64, Answered>,
    /// Length of the records that are whole.
    pub bytes: u64,
}

impl Recovered {
    /// The names that each object has when all changes are on the backing.
    pub fn final_names(&self) -> FxHashMap<Ino, Vec<Link>> {
        let mut names: FxHashMap<Ino, Vec<Link>> =
            self.nodes.iter().map(|(ino, node)| (*ino, node.drained.clone())).collect();
        for change in self.changes.values() {
            apply(change, |ino, moved| {
                if let Some(names) = names.get_mut(&ino) {
                    moved.to(names);
                }
            });
        }
        names
    }

    /// The kernel that it was written for is gone, and what only that asks for.
    pub fn end_connection(&mut self) {
        self.notes.clear();
        self.answered.clear();
    }

    /// Whether the backing lacks anything.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
            && !self.nodes.values().any(|node| !node.gone && (node.dirty || node.attr_dirty))
    }
}

/// Reads a journal from its start to its end, or to the first record that isn't whole.
pub fn replay(bytes: &[u8]) -> Recovered {
    let mut left = bytes;
    let mut recovered = Recovered::default();
    let mut made: FxHashMap<Ino, Seq> = FxHashMap::default();
    while let Some((record, request, rest)) = Record::decode(left) {
        recovered.exact |=
            matches!(record, Record::Committed { .. } | Record::Withdrawn { .. } | Record::Dropped { .. });
        if let Some(ino) = record.numbered() {
            recovered.highest = recovered.highest.max(ino);
        }
        if let Some((request, answered)) = request.zip(record.answers()) {
            recovered.answered.insert(request, answered);
        }
        recovered.enter(record, &mut made);
        left = rest;
    }
    recovered.bytes = (bytes.len() - left.len()) as u64;
    let named: FxHashSet<Ino> = recovered.changes.values().flat_map(Change::objects).collect();
    for (ino, node) in &mut recovered.nodes {
        let nameless = node.attr.kind == Kind::Directory || node.attr.nlink == 0 || !recovered.exact;
        // Noted, but its daemon did not live to give it its name.
        let never_made = node.basis.is_none();
        node.gone = (nameless || never_made) && node.drained.is_empty() && !named.contains(ino);
    }
    recovered
}

impl Recovered {
    fn enter(&mut self, record: Record<'static>, made: &mut FxHashMap<Ino, Seq>) {
        match record {
            Record::Node { ino, attr, drained, .. } => {
                let node = self.nodes.entry(ino).or_insert_with(|| Node::new(attr));
                (node.attr, node.drained) = (attr, drained);
            }
            Record::Made { ino, attr, target, xattrs, .. } => {
                let node = Node {
                    target,
                    xattrs: xattrs.into_iter().collect(),
                    attr_dirty: true,
                    ..Node::new(attr)
                };
                self.nodes.insert(ino, node);
            }
            Record::Changed { seq, change } => self.change(seq, change.into_owned(), made),
            Record::Done { seq } => {
                if let Some(change) = self.changes.remove(&seq) {
                    self.apply(&change);
                    // The backing dated it anew.
                    for dir in change.directories() {
                        if let Some(node) = self.nodes.get_mut(&dir) {
                            node.attr_dirty = true;
                        }
                    }
                }
            }
            Record::Cancelled { ino } => self.cancel(ino, made),
            Record::Committed { seq, change, attrs, drained } => {
                for (ino, drained) in drained {
                    let attr = attrs.iter().find(|(of, _)| *of == ino).map(|(_, attr)| *attr);
                    if let Some(attr) = attr {
                        self.nodes.entry(ino).or_insert_with(|| Node::new(attr)).drained = drained;
                    }
                }
                self.change(seq, change.into_owned(), made);
                self.date(attrs);
            }
            Record::Withdrawn { ino, attrs } => {
                self.cancel(ino, made);
                self.date(attrs);
            }
            Record::Attributes { ino, attr, xattrs } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.attr = attr;
                    node.attr_dirty = true;
                    node.xattrs.extend(xattrs);
                }
            }
            Record::Dirty { ino, held } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    (node.dirty, node.held) = (true, held);
                    node.cached &= held == Held::Arena;
                }
            }
            Record::Clean { ino } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    // What was clean in the arena stays there.
                    node.cached = node.dirty && node.held == Held::Arena || node.cached;
                    (node.dirty, node.attr_dirty) = (false, false);
                    if !node.drained.is_empty() {
                        node.held = Held::Backing;
                    }
                    node.xattrs.clear();
                }
            }
            Record::Basis { ino, basis } => {
                self.numbers.insert(basis.id(), ino);
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.basis = Some(basis);
                }
            }
            Record::Cached { ino, cached } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.cached = cached;
                }
            }
            Record::Pinned { ino, pinned } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    node.pinned = pinned;
                }
            }
            Record::Dropped { ino, gone } => {
                let basis = self.nodes.remove(&ino).and_then(|node| node.basis);
                if let Some(basis) = basis.filter(|basis| gone && self.numbers.get(&basis.id()) == Some(&ino))
                {
                    self.numbers.remove(&basis.id());
                }
            }
            Record::Number { ino, there: (dev, number) } => {
                self.numbers.insert(BackingId { dev, ino: number }, ino);
            }
            Record::Note { key, value } if value.is_empty() => drop(self.notes.remove(&key)),
            Record::Note { key, value } => drop(self.notes.insert(key, value.into_owned())),
            Record::Connected => self.end_connection(),
            Record::Appends { .. } | Record::Unanswered { .. } => {}
        }
    }

    fn change(&mut self, seq: Seq, change: Change, made: &mut FxHashMap<Ino, Seq>) {
        if let Change::Make { ino, .. } = &change {
            made.insert(*ino, seq);
        }
        self.changes.insert(seq, change);
    }

    /// The making of an object is taken back: that the drain is done with it says nothing.
    fn cancel(&mut self, ino: Ino, made: &FxHashMap<Ino, Seq>) {
        if let Some(seq) = made.get(&ino) {
            self.changes.remove(seq);
        }
    }

    fn date(&mut self, attrs: Vec<(Ino, Attr)>) {
        for (ino, attr) in attrs {
            if let Some(node) = self.nodes.get_mut(&ino) {
                node.attr_dirty |= attr.kind == Kind::Directory;
                node.attr = attr;
            }
        }
    }

    /// Moves the drained names as the change did on the backing.
    fn apply(&mut self, change: &Change) {
        apply(change, |ino, moved| {
            if let Some(node) = self.nodes.get_mut(&ino) {
                moved.to(&mut node.drained);
            }
        });
    }
}

/// What a change does to the names of an object.
enum Moved<'c> {
    Given(&'c Link),
    Taken(&'c Link),
}

impl Moved<'_> {
    fn to(self, names: &mut Vec<Link>) {
        match self {
            Moved::Given(link) if names.contains(link) => {}
            Moved::Given(link) => names.push(link.clone()),
            Moved::Taken(link) => names.retain(|name| name != link),
        }
    }
}

fn apply(change: &Change, mut tell: impl FnMut(Ino, Moved<'_>)) {
    match change {
        Change::Make { ino, link } | Change::Link { ino, link } => tell(*ino, Moved::Given(link)),
        Change::Unlink { ino, link } => tell(*ino, Moved::Taken(link)),
        Change::Rename { ino, from, to, replaced } => {
            if let Some(replaced) = replaced {
                tell(*replaced, Moved::Taken(to));
            }
            tell(*ino, Moved::Taken(from));
            tell(*ino, Moved::Given(to));
        }
        Change::Exchange { ino, from, other, to } => {
            tell(*ino, Moved::Taken(from));
            tell(*other, Moved::Taken(to));
            tell(*ino, Moved::Given(to));
            tell(*other, Moved::Given(from));
        }
    }
}

impl Node {
    fn new(attr: Attr) -> Node {
        Node {
            attr,
            drained: Vec::new(),
            target: None,
            xattrs: BTreeMap::new(),
            attr_dirty: false,
            dirty: false,
            held: Held::Backing,
            basis: None,
            cached: false,
            pinned: false,
            gone: false,
        }
    }
}
