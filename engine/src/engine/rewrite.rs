//! Keeping the journal small while a daemon lives, and the backing's private directory free of what one that died left.

use super::unnamed::UNNAMED_PREFIX;
use super::{Engine, PRIVATE_DIRECTORY};
use crate::backing::BackingId;
use crate::drain::BESIDE_PREFIX;
use crate::error::Result;
use crate::ids::{Ino, Name};
use crate::journal::Record;
use crate::namespace::{Inode, InodeState, Link, Place, join_path};
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

impl Engine {
    /// Rewrites the journal from the live state when it has grown.
    pub(crate) fn compact_journal(&self) {
        if self.journal.wants_rewrite() {
            self.rewrite_journal();
        }
    }

    /// Does so now.
    pub fn rewrite_journal(&self) {
        let (mut records, mut numbers) = (Vec::new(), Vec::new());
        let changes = {
            // What is appended from here on is written behind what is gathered; a change that is done is in one of the two.
            let names = self.names.lock();
            self.journal.begin_rewrite();
            let number = |(id, ino): (BackingId, Ino)| Record::Number { ino, there: (id.dev, id.ino) };
            numbers.extend(names.numbers().map(number));
            // Says which numbers were given out, no more.
            records.push(Record::Dropped { ino: names.last_ino(), gone: false });
            self.oplog.snapshot()
        };
        let inodes: Vec<Arc<Inode>> = self.names.lock().inodes.values().cloned().collect();
        for inode in inodes {
            let state = inode.state.lock();
            records.extend(live(inode.ino, &state, self.pinned.lock().contains(&inode.ino)));
        }
        for op in changes.into_iter().filter(|op| !op.cancelled) {
            records.push(Record::Changed { seq: op.seq, change: Cow::Owned(op.change) });
        }
        // Behind what inodes say, of which some remember a number that is another's by now.
        records.append(&mut numbers);
        if let Err(e) = self.journal.rewrite(&records) {
            log::warn!("the journal can't be rewritten, and goes on growing: {e}");
        }
    }

    /// Removes what an interrupted drain left in our private directory, unless it holds what is still to be named. Beside
    /// everything else: what is being written there now is somebody's turn.
    pub fn clear_leftovers(&self) -> Result<()> {
        for listed in self.backing.list(PRIVATE_DIRECTORY)? {
            let name = std::str::from_utf8(&listed.name).unwrap_or_default();
            let path = join_path(PRIVATE_DIRECTORY, &listed.name);
            if let Some(number) = name.strip_prefix(BESIDE_PREFIX) {
                // Who writes one has the file's turn until it has its name.
                let _turn = number.parse::<u64>().ok().map(|ino| self.drain.turn(Ino(ino)));
                self.remove_leftover(&path)?;
            } else if let Some(number) = name.strip_prefix(UNNAMED_PREFIX) {
                let ino = u64::from_str_radix(number, 16).ok().map(Ino);
                // Who makes one has this turn, or changes the shape, until the inode says that it is there.
                let _turn = ino.map(|ino| self.unnamed.take(ino));
                let _shape = self.shape.read_recursive();
                let place = ino.and_then(|ino| Some(self.inode(ino).ok()?.state.lock().file.place));
                if place != Some(Place::Unnamed) {
                    self.remove_leftover(&path)?;
                }
            }
        }
        Ok(())
    }

    fn remove_leftover(&self, path: &[u8]) -> Result<()> {
        match self.backing.unlink(path) {
            // It was being given its name, or removed.
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e.into()),
            _ => Ok(()),
        }
    }
}

/// The records that say all of one inode.
fn live(ino: Ino, state: &InodeState, pinned: bool) -> Vec<Record<'static>> {
    let mut records = Vec::new();
    if state.drained.is_empty() && state.baseline().is_none() {
        let link: Link = state.place.clone().unwrap_or_else(|| (Ino::ROOT, Name::from(&b""[..])));
        records.push(Record::made(ino, &link, state));
    } else {
        records.push(Record::node(ino, state));
        if state.unsettled() || state.settling {
            // What the drain has taken to tell the backing is not told yet.
            let xattrs = if state.settling { state.xattrs.all() } else { state.xattrs.to_be_told() };
            records.push(Record::Attributes { ino, attr: state.attr, xattrs });
        }
    }
    records.extend(state.last_baseline().map(|baseline| Record::Basis { ino, basis: baseline.into() }));
    if state.file.dirty || state.file.place == Place::Unnamed {
        records.push(Record::dirty(ino, state));
    } else if state.file.place == Place::Arena {
        records.push(Record::Cached { ino, cached: true });
    }
    if pinned {
        records.push(Record::Pinned { ino, pinned });
    }
    records
}
