//! What the opens of one directory say of the next ones.
//!
//! 1. The pass is noted: whether the file was opened in it already ([`epoch`]).
//! 2. A restore is begun or continued ([`restore`]): it is known at its first open, before any order.
//! 3. An order is followed ([`order`]).
//! 4. If there is none, an epoch is ([`epoch`]).
//!
//! Nothing here is told when files are made, removed or renamed: places in the list are looked up by name each time.

use super::{By, Offers, Seen, Sibling, natural_order};
use crate::ids::Ino;
use epoch::Epoch;
pub use family::Family;
use order::Order;
use restore::Restores;

mod epoch;
mod family;
mod order;
mod restore;

/// See the module.
#[derive(Debug, Default)]
pub struct Directory {
    /// When it was last used, counted in opens.
    pub opened_at: u64,
    /// Where it is, if that is known: its family's.
    pub parent: Option<Ino>,
    order: Order,
    epoch: Epoch,
    restores: Restores,
    opened_files: u64,
    opened_bytes: u64,
}

impl Directory {
    /// The key of its family; `own` is its number.
    pub fn family(&self, own: Ino) -> Ino {
        self.parent.unwrap_or(own)
    }

    /// Learns from an open here; `right` had predicted it. True if a predictor of directories holds.
    pub fn opened(
        &mut self,
        seen: &Seen,
        right: Option<By>,
        family: &mut Family,
        offers: &mut Offers<'_>,
    ) -> bool {
        let known = offers.tree.files(seen.directory);
        let files = known.as_deref().unwrap_or_default();
        self.opened_files += 1;
        self.opened_bytes = self.opened_bytes.saturating_add(seen.bytes);
        let open = Open {
            seen,
            files,
            place: place(files, &seen.name),
            bytes: self.opened_bytes / self.opened_files,
            right,
        };
        let pass_begins = self.epoch.note(&open, family, offers);
        let restoring = self.restores.opened(&open, self.order.before(seen.process), offers);
        let ordered = self.order.opened(&open, pass_begins, offers);
        let epoch = self.epoch.opened(&open, ordered, family, offers);
        restoring || ordered || epoch
    }

    /// Number of files that are remembered.
    pub fn len(&self) -> usize {
        self.epoch.len()
    }

    /// The files that are remembered.
    pub fn remembered(&self) -> impl Iterator<Item = Ino> + '_ {
        self.epoch.remembered()
    }

    /// Whether this file is.
    pub fn remembers(&self, ino: Ino) -> bool {
        self.epoch.remembers(ino)
    }

    /// Whether an epoch holds and has read this file.
    pub fn is_read(&self, ino: Ino, family: &Family) -> bool {
        self.epoch.is_read(ino, family)
    }
}

/// An open, and what all predictors of directories want to know of it.
struct Open<'a> {
    seen: &'a Seen,
    /// The files of the directory in natural order; empty if not known.
    files: &'a [Sibling],
    /// The opened one's place among them.
    place: Option<usize>,
    /// The mean size of files opened here.
    bytes: u64,
    /// Who had predicted it.
    right: Option<By>,
}

/// The place of a name among files in natural order.
fn place(files: &[Sibling], name: &[u8]) -> Option<usize> {
    files.binary_search_by(|file| natural_order(&file.name, name)).ok()
}
