//! One record of the journal.

use crate::attr::{Attr, Kind};
use crate::ids::{Ino, Name, Seq};
use crate::namespace::{InodeState, Link, Place, Xattrs};
use crate::oplog::Change;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use xxhash_rust::xxh3::xxh3_64;

/// Length and checksum, both little-endian u32, before each record.
const HEAD_BYTES: usize = 8;

/// What a record says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Record<'a> {
    /// An object that the backing has under these names.
    Node {
        /// Which.
        ino: Ino,
        /// Its type.
        kind: Kind,
        /// Its attributes.
        attr: Attr,
        /// Where the backing has it.
        drained: Vec<(Ino, Name)>,
    },
    /// An object that was made here; its change follows.
    Made {
        /// Which.
        ino: Ino,
        /// Under which name.
        link: (Ino, Name),
        /// Its attributes.
        attr: Attr,
        /// Target, of a symbolic link.
        target: Option<Vec<u8>>,
        /// Extended attributes.
        xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// A change of names.
    Changed {
        /// Its number.
        seq: Seq,
        /// What it does.
        change: Cow<'a, Change>,
    },
    /// A change is on the backing.
    Done {
        /// Its number.
        seq: Seq,
    },
    /// The making of an object was taken back.
    Cancelled {
        /// Which.
        ino: Ino,
    },
    /// Attributes as they are now.
    Attributes {
        /// Whose.
        ino: Ino,
        /// Attributes.
        attr: Attr,
        /// Extended attributes that the backing must be told.
        xattrs: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    },
    /// The content may differ from what the backing has to stay.
    Dirty {
        /// Whose.
        ino: Ino,
        /// Where it is.
        held: Held,
    },
    /// The backing has the arena's content.
    Clean {
        /// Whose.
        ino: Ino,
    },
}

/// Where a journal says that content is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// It was written to the backing's own file.
    Backing,
    /// In the arena.
    Arena,
    /// On the backing, in the private directory, until the object's name is made.
    Unnamed,
}

impl Record<'_> {
    pub(crate) fn node(ino: Ino, state: &InodeState) -> Record<'static> {
        Record::Node { ino, kind: state.attr.kind, attr: state.attr, drained: state.drained.to_vec() }
    }

    pub(crate) fn made(ino: Ino, link: &Link, state: &InodeState) -> Record<'static> {
        let xattrs = match &state.xattrs {
            Xattrs::Known(known) => known.0.iter().map(|(n, v)| (n.to_vec(), Some(v.to_vec()))).collect(),
            Xattrs::Unknown | Xattrs::None => Vec::new(),
        };
        let target = state.target.as_deref().map(<[u8]>::to_vec);
        Record::Made { ino, link: link.clone(), attr: state.attr, target, xattrs }
    }

    pub(crate) fn dirty(ino: Ino, state: &InodeState) -> Record<'static> {
        let held = match state.file.place {
            Place::Arena => Held::Arena,
            Place::Unnamed => Held::Unnamed,
            Place::Backing | Place::Empty => Held::Backing,
        };
        Record::Dirty { ino, held }
    }

    /// Head and body.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoded = postcard::to_extend(self, vec![0; HEAD_BYTES]);
        let mut bytes = encoded.expect("records hold nothing that postcard can't encode");
        let body = bytes.len() - HEAD_BYTES;
        let sum = xxh3_64(&bytes[HEAD_BYTES..]) as u32;
        bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
        bytes[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The first record of `bytes` and what follows it; `None` at the end or at a torn or damaged record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Record<'static>, &[u8])> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (body, rest) = rest.split_at_checked(length)?;
        if xxh3_64(body) as u32 != sum {
            return None;
        }
        Some((postcard::from_bytes::<Record<'static>>(body).ok()?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_flipped_record_ends_the_reading() {
        let mut bytes = Record::Done { seq: Seq(7) }.encode();
        let whole = bytes.len();
        bytes.extend(Record::Clean { ino: Ino(9) }.encode());
        let (first, rest) = Record::decode(&bytes).expect("whole");
        assert!(matches!(first, Record::Done { seq: Seq(7) }));
        for cut in 0..rest.len() {
            assert!(Record::decode(&rest[..cut]).is_none(), "cut at {cut}");
        }
        let mut flipped = bytes.clone();
        flipped[whole + 9] ^= 1;
        assert!(Record::decode(&flipped[whole..]).is_none());
    }
}
