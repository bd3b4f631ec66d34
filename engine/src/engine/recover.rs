//! Finishing what a daemon that died left, and keeping the journal small while one lives.
//!
//! An engine without a mount is given the journal's objects and changes; its drain does the rest. A change may have
//! reached the backing without its daemon living to say so, so in this mode a change that is found done counts as done.

use super::{Engine, PRIVATE_DIRECTORY};
use crate::arena::ArenaStat;
use crate::attr::Kind;
use crate::error::Result;
use crate::ids::{Ino, Name};
use crate::journal::{Held, Node, Record, Recovered};
use crate::namespace::{Dir, Inode, InodeState, Link, Place, Xattrs};
use crate::oplog::Change;
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Engine {
    /// Enters what a journal says. Call before [`Engine::start`]; [`Engine::drain_all`] then brings it to the backing. The
    /// engine's own journal is to be the same one, continued: a recovery that is interrupted goes on where it was.
    pub fn recover(&self, recovered: &Recovered) {
        self.recovering.store(true, Ordering::Relaxed);
        let final_names = recovered.final_names();
        let mut names = self.names.lock();
        for (&ino, node) in &recovered.nodes {
            names.reserve(ino);
            if ino == Ino::ROOT {
                continue;
            }
            let content = match node.held {
                Held::Arena => self.arena.open_read(ino).and_then(|c| c.stat()).ok(),
                Held::Unnamed if node.drained.is_empty() => {
                    let unnamed = self.backing.open_read(&Engine::unnamed_path(ino));
                    unnamed.and_then(|file| super::stat_of_file(&file)).ok()
                }
                Held::Unnamed | Held::Backing => None,
            };
            let inode = Arc::new(Inode::recovered(ino, node, content.as_ref()));
            {
                let mut state = inode.state.lock();
                state.place = final_names.get(&ino).and_then(|links| links.first().cloned());
                if state.place.is_none() {
                    // Removed, and waiting to be removed on the backing too.
                    state.attr.nlink = 0;
                }
            }
            if node.attr.kind == Kind::Directory {
                names.dirs.insert(ino, Dir::default());
            }
            names.inodes.insert(ino, inode);
        }
        for (&seq, change) in &recovered.changes {
            for ino in change.objects().into_iter().chain(change.directories()) {
                if let Some(inode) = names.inode(ino) {
                    inode.state.lock().pending += 1;
                }
            }
            self.oplog.resume_at(seq);
            self.oplog.push(change.clone(), &self.below(&names, change));
        }
        drop(names);
        for (&ino, node) in &recovered.nodes {
            if node.dirty || node.attr_dirty {
                self.drain.mark(ino);
            }
        }
    }

    fn below(&self, names: &crate::namespace::Names, change: &Change) -> Vec<Ino> {
        let _ = self;
        match change {
            Change::Rename { ino, .. } | Change::Exchange { ino, .. } => names.directories_below(*ino),
            _ => Vec::new(),
        }
    }

    /// Rewrites the journal from the live state when it has grown.
    pub(crate) fn compact_journal(&self) {
        if !self.journal.wants_rewrite() {
            return;
        }
        // What is appended while the live state is gathered is written behind it.
        self.journal.begin_rewrite();
        let names = self.names.lock();
        let mut records = Vec::new();
        for (&ino, inode) in &names.inodes {
            let state = inode.state.lock();
            if inode.kind == Kind::Directory || state.unsettled() || state.pending > 0 {
                records.extend(live(ino, &state));
            }
        }
        for op in self.oplog.snapshot().into_iter().filter(|op| !op.cancelled) {
            records.push(Record::Changed { seq: op.seq, change: Cow::Owned(op.change) });
        }
        if let Err(e) = self.journal.rewrite(&records) {
            log::warn!("the journal can't be rewritten, and goes on growing: {e}");
        }
    }

    /// Whether a missing source or an existing target means that a change was done before.
    pub(crate) fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Relaxed)
    }

    /// Removes what an interrupted drain left in our private directory.
    pub fn clear_leftovers(&self) -> Result<()> {
        for listed in self.backing.list(PRIVATE_DIRECTORY)? {
            let unnamed = listed.name.starts_with(super::unnamed::UNNAMED_PREFIX.as_bytes());
            if unnamed || listed.name.starts_with(b"beside-") {
                self.backing.unlink(&crate::namespace::join_path(PRIVATE_DIRECTORY, &listed.name))?;
            }
        }
        Ok(())
    }
}

/// The records that say all of one inode.
fn live(ino: Ino, state: &InodeState) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    if state.drained.is_empty() {
        let link: Link = state.place.clone().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        records.push(Record::made(ino, &link, state));
    } else {
        records.push(Record::node(ino, state));
        if state.unsettled() {
            let xattrs = match &state.xattrs {
                Xattrs::Known(k) => {
                    k.1.iter()
                        .map(|name| (name.to_vec(), k.0.get(name).map(|value| value.to_vec())))
                        .collect()
                }
                Xattrs::Unknown | Xattrs::None => Vec::new(),
            };
            records.push(Record::Attributes { ino, attr: state.attr, xattrs });
        }
    }
    if state.file.dirty {
        records.push(Record::dirty(ino, state));
    }
    records
}

impl Inode {
    /// An inode as a journal left it.
    fn recovered(ino: Ino, node: &Node, content: Option<&ArenaStat>) -> Inode {
        let place = node.drained.first().cloned().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        let inode = Inode::new(ino, node.attr, place);
        {
            let mut state = inode.state.lock();
            state.drained.extend(node.drained.iter().cloned());
            state.target = node.target.as_deref().map(Box::from);
            state.attr_dirty = node.attr_dirty;
            for (name, value) in &node.xattrs {
                state.xattrs.set(name, value.as_deref());
            }
            if node.attr.kind == Kind::File {
                state.file.place = match (content.is_some(), node.held, node.drained.is_empty()) {
                    (true, Held::Unnamed, _) => Place::Unnamed,
                    (true, ..) => Place::Arena,
                    (false, _, true) => Place::Empty,
                    (false, _, false) => Place::Backing,
                };
                if let Some(content) = content.filter(|content| content.stamp.mtime <= node.attr.ctime) {
                    // Not written since its attributes were last set: those are the later word.
                    state.file.know(content);
                    state.attr.size = content.stamp.size;
                }
                if node.dirty {
                    state.file.touch();
                }
            }
        }
        inode
    }
}
