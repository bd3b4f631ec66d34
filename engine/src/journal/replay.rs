//! Reading a journal: what was dirty, and which changes were under way, when its daemon died.

use super::{Held, Record};
use crate::attr::Attr;
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
}

/// All that a journal says.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Objects named in it.
    pub nodes: FxHashMap<Ino, Node>,
    /// Changes that are not on the backing, in order.
    pub changes: BTreeMap<Seq, Change>,
}

impl Recovered {
    /// The names that each object has when all changes are on the backing.
    pub fn final_names(&self) -> FxHashMap<Ino, Vec<Link>> {
        let mut after = Recovered { nodes: self.nodes.clone(), changes: BTreeMap::new() };
        for change in self.changes.values() {
            after.apply(change);
        }
        after.nodes.into_iter().map(|(ino, node)| (ino, node.drained)).collect()
    }

    /// Whether the backing lacks anything.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && !self.nodes.values().any(|node| node.dirty || node.attr_dirty)
    }
}

/// Reads a journal from its start to its end, or to the first record that isn't whole.
pub fn replay(mut bytes: &[u8]) -> Recovered {
    let mut recovered = Recovered::default();
    let mut cancelled: FxHashSet<Ino> = FxHashSet::default();
    while let Some((record, rest)) = Record::decode(bytes) {
        recovered.enter(record, &mut cancelled);
        bytes = rest;
    }
    recovered
        .changes
        .retain(|_, change| !matches!(change, Change::Make { ino, .. } if cancelled.contains(ino)));
    recovered.nodes.retain(|ino, _| !cancelled.contains(ino));
    // What has no name on the backing and is given none by what is left to do is gone.
    let named: FxHashSet<Ino> = recovered.changes.values().flat_map(Change::objects).collect();
    recovered.nodes.retain(|ino, node| !node.drained.is_empty() || named.contains(ino));
    recovered
}

/// The length of the whole records at the head of a journal.
pub fn whole_bytes(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((_, next)) = Record::decode(rest) {
        rest = next;
    }
    bytes.len() - rest.len()
}

impl Recovered {
    fn enter(&mut self, record: Record<'static>, cancelled: &mut FxHashSet<Ino>) {
        match record {
            Record::Node { ino, attr, drained, .. } => {
                let node = self.nodes.entry(ino).or_insert_with(|| Node::new(attr));
                node.drained = drained;
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
            Record::Changed { seq, change } => {
                self.changes.insert(seq, change.into_owned());
            }
            Record::Done { seq } => {
                if let Some(change) = self.changes.remove(&seq) {
                    self.apply(&change);
                }
            }
            Record::Cancelled { ino } => {
                cancelled.insert(ino);
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
                    node.dirty = true;
                    node.held = held;
                }
            }
            Record::Clean { ino } => {
                if let Some(node) = self.nodes.get_mut(&ino) {
                    (node.dirty, node.attr_dirty) = (false, false);
                    node.xattrs.clear();
                }
            }
        }
    }

    /// Moves the drained names as the change did on the backing.
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Make { ino, link } | Change::Link { ino, link } => self.add(*ino, link),
            Change::Unlink { ino, link } => self.take(*ino, link),
            Change::Rename { ino, from, to, replaced } => {
                if let Some(replaced) = replaced {
                    self.take(*replaced, to);
                }
                self.take(*ino, from);
                self.add(*ino, to);
            }
            Change::Exchange { ino, from, other, to } => {
                self.take(*ino, from);
                self.take(*other, to);
                self.add(*ino, to);
                self.add(*other, from);
            }
        }
    }

    fn add(&mut self, ino: Ino, link: &Link) {
        if let Some(node) = self.nodes.get_mut(&ino)
            && !node.drained.contains(link)
        {
            node.drained.push(link.clone());
        }
    }

    fn take(&mut self, ino: Ino, link: &Link) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.drained.retain(|drained| drained != link);
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
        }
    }
}
