//! Reading a journal: what was dirty, and which changes were under way, when its daemon died.

use super::record::Basis;
use super::{ANSWERS, Answers, Held, Record};
use crate::attr::{Attr, Kind};
use crate::backing::BackingId;
use crate::ids::{Ino, Name, Seq};
use crate::namespace::Link;
use crate::oplog::Change;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
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
}

/// All that a journal says.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Objects named in it, those that are gone included.
    pub nodes: FxHashMap<Ino, Node>,
    /// Changes that are not on the backing, in order.
    pub changes: BTreeMap<Seq, Change>,
    /// Makings that were taken back, of which others wait for the turn.
    pub cancelled: BTreeMap<Seq, Change>,
    /// The numbers of objects of the backing, of those that are not known any more, too.
    pub numbers: FxHashMap<BackingId, Ino>,
    /// What the file system above remembered, by its keys.
    pub notes: FxHashMap<u64, Vec<u8>>,
    /// It keeps link counts with the changes. Those of older versions don't.
    pub exact: bool,
    /// No inode had a higher number.
    pub highest: Ino,
    /// What requests came to, by their numbers. Most of them were answered.
    pub answered: Answers,
    /// Length of the records that are whole.
    pub bytes: u64,
    /// How often it was rewritten.
    pub generation: u64,
    /// Objects that changes name which wait.
    waits: FxHashMap<Ino, Waits>,
    /// The change that makes an object, while it waits.
    made: FxHashMap<Ino, Seq>,
    /// What changed since this was last emptied.
    pub(crate) touched: Touched,
}

/// What waits for one object.
#[derive(Debug, Default)]
struct Waits {
    /// Changes of its own names, in order.
    changes: SmallVec<[Seq; 2]>,
    /// Those of its entries, of a directory, with those that were taken back.
    entries: u32,
}

/// What was said since an engine was last told.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    pub nodes: FxHashSet<Ino>,
    pub numbers: Vec<BackingId>,
    /// Changes that were made.
    pub changes: Vec<Seq>,
    pub cancelled: Vec<Seq>,
    pub done: Vec<(Seq, Change)>,
    /// Of these the kernel holds more or less.
    pub references: Vec<Ino>,
}

impl Recovered {
    /// The names that an object has when all changes are on the backing.
    pub fn final_names(&self, ino: Ino) -> Vec<Link> {
        let mut names = self.nodes.get(&ino).map_or_else(Vec::new, |node| node.drained.clone());
        let changes = self.waits.get(&ino).map_or(&[][..], |waits| &waits.changes);
        for change in changes.iter().filter_map(|seq| self.changes.get(seq)) {
            apply(change, |of, moved| {
                if of == ino {
                    moved.to(&mut names);
                }
            });
        }
        names
    }

    /// Changes that wait and name this object, as object or as directory.
    pub fn pending(&self, ino: Ino) -> u32 {
        self.waits.get(&ino).map_or(0, |waits| waits.changes.len() as u32 + waits.entries)
    }

    /// The name under which it is to be made, if that waits.
    pub fn making(&self, ino: Ino) -> Option<&Link> {
        match self.changes.get(self.made.get(&ino)?)? {
            Change::Make { link, .. } => Some(link),
            _ => None,
        }
    }

    /// Whether its name is still to be made.
    pub fn is_new(&self, ino: Ino) -> bool {
        self.made.contains_key(&ino)
    }

    /// Whether an object has no name on the backing, and is given none: nothing is left of it but what has it open.
    pub fn is_gone(&self, ino: Ino, node: &Node) -> bool {
        let nameless = node.attr.kind == Kind::Directory || node.attr.nlink == 0 || !self.exact;
        // Noted, but its daemon did not live to give it its name.
        let never_made = node.basis.is_none();
        let named = || self.waits.get(&ino).is_some_and(|waits| !waits.changes.is_empty());
        (nameless || never_made) && node.drained.is_empty() && !named()
    }

    /// The kernel that it was written for is gone, and what only that asks for.
    pub fn end_connection(&mut self) {
        self.notes.clear();
        self.answered = Answers::default();
    }

    /// Files, and other objects, that are not on the backing as they are here.
    pub fn dirty(&self) -> usize {
        let dirty =
            |(ino, node): &(&Ino, &Node)| (node.dirty || node.attr_dirty) && !self.is_gone(**ino, node);
        self.nodes.iter().filter(dirty).count()
    }
}

impl Recovered {
    /// Reads on, to the end of `bytes` or to the first record that isn't whole.
    pub(super) fn read(&mut self, bytes: &[u8]) {
        let mut left = bytes;
        while let Some((record, request, rest)) = Record::decode(left) {
            self.exact |= matches!(
                record,
                Record::Committed { .. } | Record::Withdrawn { .. } | Record::Dropped { .. }
            );
            if let Some(ino) = record.numbered() {
                self.highest = self.highest.max(ino);
            }
            if let Some((request, answered)) = request.zip(record.answers()) {
                if self.answered.0.len() >= 2 * ANSWERS {
                    self.answered.0.pop_front();
                }
                self.answered.0.push_back((request, answered));
            }
            self.enter(record);
            left = rest;
        }
        self.bytes += (bytes.len() - left.len()) as u64;
    }

    /// The object, which is about to be changed.
    fn node(&mut self, ino: Ino) -> Option<&mut Node> {
        let node = self.nodes.get_mut(&ino)?;
        self.touched.nodes.insert(ino);
        Some(node)
    }

    fn enter(&mut self, record: Record<'static>) {
        match record {
            Record::Node { ino, attr, drained, .. } => {
                let node = self.nodes.entry(ino).or_insert_with(|| Node::new(attr));
                (node.attr, node.drained) = (attr, drained);
                self.touched.nodes.insert(ino);
            }
            Record::Made { ino, attr, target, xattrs, .. } => {
                let node = Node {
                    target,
                    xattrs: xattrs.into_iter().collect(),
                    attr_dirty: true,
                    ..Node::new(attr)
                };
                self.nodes.insert(ino, node);
                self.touched.nodes.insert(ino);
            }
            Record::Changed { seq, change } => self.change(seq, change.into_owned()),
            Record::Done { seq } => self.done(seq),
            Record::Cancelled { ino } => self.cancel(ino),
            Record::Committed { seq, change, attrs, drained } => {
                for (ino, drained) in drained {
                    let attr = attrs.iter().find(|(of, _)| *of == ino).map(|(_, attr)| *attr);
                    if let Some(attr) = attr {
                        self.nodes.entry(ino).or_insert_with(|| Node::new(attr)).drained = drained;
                    }
                }
                self.change(seq, change.into_owned());
                self.date(attrs);
            }
            Record::Withdrawn { ino, attrs } => {
                self.cancel(ino);
                self.date(attrs);
            }
            Record::Attributes { ino, attr, xattrs } => {
                if let Some(node) = self.node(ino) {
                    node.attr = attr;
                    node.attr_dirty = true;
                    node.xattrs.extend(xattrs);
                }
            }
            Record::Dirty { ino, held } => {
                if let Some(node) = self.node(ino) {
                    (node.dirty, node.held) = (true, held);
                    node.cached &= held == Held::Arena;
                }
            }
            Record::Clean { ino } => {
                if let Some(node) = self.node(ino) {
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
                // The drain may have replaced it whole: its old number there may be another's soon.
                let before = self.node(ino).and_then(|node| node.basis.replace(basis));
                self.forget_number(ino, before);
                self.number(basis.id(), ino);
            }
            Record::Cached { ino, cached } => {
                if let Some(node) = self.node(ino) {
                    node.cached = cached;
                }
            }
            Record::Pinned { ino, pinned } => {
                if let Some(node) = self.node(ino) {
                    node.pinned = pinned;
                }
            }
            Record::Dropped { ino, gone } => {
                self.touched.nodes.insert(ino);
                let basis = self.nodes.remove(&ino).and_then(|node| node.basis);
                self.forget_number(ino, basis.filter(|_| gone));
            }
            Record::Number { ino, there: (dev, number) } => {
                self.number(BackingId { dev, ino: number }, ino);
            }
            Record::Note { key, value } if value.is_empty() => drop(self.notes.remove(&key)),
            Record::Note { key, value } => drop(self.notes.insert(key, value.into_owned())),
            Record::Connected => self.end_connection(),
            Record::Rewritten { generation, .. } => self.generation = generation,
            Record::Appends { .. } | Record::Unanswered { .. } => {}
        }
    }

    fn number(&mut self, id: BackingId, ino: Ino) {
        self.numbers.insert(id, ino);
        self.touched.numbers.push(id);
    }

    fn change(&mut self, seq: Seq, change: Change) {
        if let Change::Make { ino, .. } = &change {
            self.made.insert(*ino, seq);
        }
        for ino in change.objects() {
            self.waits.entry(ino).or_default().changes.push(seq);
            self.touched.nodes.insert(ino);
        }
        for ino in change.directories() {
            self.waits.entry(ino).or_default().entries += 1;
            self.touched.nodes.insert(ino);
        }
        self.touched.changes.push(seq);
        self.changes.insert(seq, change);
    }

    fn done(&mut self, seq: Seq) {
        let change = match self.changes.remove(&seq) {
            Some(change) => {
                self.apply(&change);
                self.no_longer_waits(seq, &change);
                for ino in change.objects() {
                    self.forget_number_if_gone(ino);
                }
                // The backing dated it anew.
                for dir in change.directories() {
                    if let Some(node) = self.node(dir) {
                        node.attr_dirty = true;
                    }
                }
                change
            }
            None => match self.cancelled.remove(&seq) {
                Some(change) => change,
                None => return,
            },
        };
        for dir in change.directories() {
            if let Some(waits) = self.waits.get_mut(&dir) {
                waits.entries -= 1;
            }
            self.forget_if_nothing_waits(dir);
        }
        self.touched.done.push((seq, change));
    }

    /// With the last name an object's number on the backing is free for others.
    fn forget_number_if_gone(&mut self, ino: Ino) {
        let gone = self.nodes.get(&ino).is_some_and(|node| self.is_gone(ino, node));
        let basis = self.nodes.get_mut(&ino).filter(|_| gone).and_then(|node| node.basis.take());
        self.forget_number(ino, basis);
    }

    /// An object is no longer what its number on the backing says, unless that is another's already.
    fn forget_number(&mut self, ino: Ino, basis: Option<Basis>) {
        if let Some(id) = basis.map(Basis::id).filter(|id| self.numbers.get(id) == Some(&ino)) {
            self.numbers.remove(&id);
            self.touched.numbers.push(id);
        }
    }

    /// The making of an object is taken back: that the drain is done with it says nothing.
    fn cancel(&mut self, ino: Ino) {
        if let Some(seq) = self.made.get(&ino).copied()
            && let Some(change) = self.changes.remove(&seq)
        {
            self.no_longer_waits(seq, &change);
            self.cancelled.insert(seq, change);
            self.touched.cancelled.push(seq);
        }
    }

    /// A change is done, or taken back: its objects wait for it no more. Its place in the directory is another matter.
    fn no_longer_waits(&mut self, seq: Seq, change: &Change) {
        for ino in change.objects() {
            if let Some(waits) = self.waits.get_mut(&ino) {
                waits.changes.retain(|waiting| *waiting != seq);
            }
            if self.made.get(&ino) == Some(&seq) {
                self.made.remove(&ino);
            }
            self.forget_if_nothing_waits(ino);
        }
    }

    fn forget_if_nothing_waits(&mut self, ino: Ino) {
        self.touched.nodes.insert(ino);
        if self.waits.get(&ino).is_some_and(|waits| waits.changes.is_empty() && waits.entries == 0) {
            self.waits.remove(&ino);
        }
    }

    fn date(&mut self, attrs: Vec<(Ino, Attr)>) {
        for (ino, attr) in attrs {
            if ino == Ino::ROOT {
                // Nobody had to find it.
                let link = (Ino::ROOT, Name::from(&b""[..]));
                self.nodes.entry(ino).or_insert_with(|| Node { drained: vec![link], ..Node::new(attr) });
            }
            if let Some(node) = self.node(ino) {
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
        }
    }
}
