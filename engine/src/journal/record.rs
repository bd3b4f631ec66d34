//! One record of the journal.

use crate::attr::{Attr, Kind, Timestamp};
use crate::backing::BackingId;
use crate::ids::{Ino, Name, Seq};
use crate::namespace::{Baseline, InodeState, Link, Place};
use crate::oplog::Change;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

/// Length and checksum, both little-endian u32, before each record.
pub(super) const HEAD_BYTES: usize = 8;

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
    /// What the backing holds of an object that it has.
    Basis {
        /// Which.
        ino: Ino,
        /// What it holds.
        basis: Basis,
    },
    /// A change of names, as [`Record::Changed`], and what it made of all that it touched.
    Committed {
        /// Its number.
        seq: Seq,
        /// What it does.
        change: Cow<'a, Change>,
        /// Attributes afterwards.
        attrs: Vec<(Ino, Attr)>,
        /// Where the backing has those of its objects that it has, so that the change can be understood without it.
        drained: Vec<(Ino, Vec<(Ino, Name)>)>,
    },
    /// As [`Record::Cancelled`], with attributes of the directory and the object afterwards.
    Withdrawn {
        /// Which.
        ino: Ino,
        /// Attributes afterwards.
        attrs: Vec<(Ino, Attr)>,
    },
    /// The arena has the content of a clean file, too; or has it no more.
    Cached {
        /// Which.
        ino: Ino,
        /// Whether it has.
        cached: bool,
    },
    /// Nobody needs to know it any more.
    Dropped {
        /// Which.
        ino: Ino,
        /// The backing doesn't have it either: its number there is free for others.
        gone: bool,
    },
    /// The number of an object that the backing has and that is not known any more; it keeps it when it is found again.
    Number {
        /// Its number here.
        ino: Ino,
        /// Its device and number there.
        there: (u64, u64),
    },
    /// It stays in the arena by command, or may leave.
    Pinned {
        /// Which.
        ino: Ino,
        /// Whether it stays.
        pinned: bool,
    },
    /// Bytes are about to be appended by a request, see [`Answered`].
    Appends {
        /// To which file.
        ino: Ino,
        /// Where they begin.
        offset: u64,
    },
    /// What the file system above remembers; nothing: no more.
    Note {
        /// Its name for it.
        key: u64,
        /// What it is.
        value: Cow<'a, [u8]>,
    },
    /// A request whose change is in here may not have been answered when the journal was rewritten.
    Unanswered {
        /// What came of it.
        answered: Answered,
    },
    /// From here on it is another kernel's, or another mount's: notes and answers were for the one before.
    Connected,
    /// What comes before this was gathered by a rewriting; who followed the journal that it replaces goes on behind it.
    Rewritten {
        /// How often it was rewritten, this time included.
        generation: u64,
        /// The journal that it replaces says all of it, too.
        whole: bool,
    },
}

/// What a request that changed something came to, for the next daemon, which may be given it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answered {
    /// It is done; this is what was made, or changed.
    Done(Ino),
    /// It appended from this offset on.
    Appended(u64),
    /// It was noted under this key.
    Noted(u64),
}

/// What the backing held of an object when it was last in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl From<Baseline> for Basis {
    fn from(b: Baseline) -> Basis {
        Basis { dev: b.id.dev, ino: b.id.ino, size: b.size, mtime: b.mtime, ctime: b.ctime }
    }
}

impl Basis {
    /// Which object.
    pub fn id(self) -> BackingId {
        BackingId { dev: self.dev, ino: self.ino }
    }

    /// As if it had been compared just now.
    pub fn baseline(self) -> Baseline {
        let Basis { size, mtime, ctime, .. } = self;
        Baseline { id: self.id(), size, mtime, ctime, checked: Instant::now() }
    }
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
    /// What it is, for failpoints.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Record::Node { .. } => "node",
            Record::Made { .. } => "made",
            Record::Changed { .. } => "changed",
            Record::Done { .. } => "done",
            Record::Cancelled { .. } => "cancelled",
            Record::Attributes { .. } => "attributes",
            Record::Dirty { .. } => "dirty",
            Record::Clean { .. } => "clean",
            Record::Basis { .. } => "basis",
            Record::Committed { .. } => "committed",
            Record::Withdrawn { .. } => "withdrawn",
            Record::Cached { .. } => "cached",
            Record::Dropped { .. } => "dropped",
            Record::Number { .. } => "number",
            Record::Pinned { .. } => "pinned",
            Record::Appends { .. } => "appends",
            Record::Note { .. } => "note",
            Record::Unanswered { .. } => "unanswered",
            Record::Rewritten { .. } => "rewritten",
            Record::Connected => "connected",
        }
    }

    pub(crate) fn node(ino: Ino, state: &InodeState) -> Record<'static> {
        Record::Node { ino, kind: state.attr.kind, attr: state.attr, drained: state.drained.to_vec() }
    }

    pub(crate) fn made(ino: Ino, link: &Link, state: &InodeState) -> Record<'static> {
        let target = state.target.as_deref().map(<[u8]>::to_vec);
        Record::Made { ino, link: link.clone(), attr: state.attr, target, xattrs: state.xattrs.all() }
    }

    pub(crate) fn dirty(ino: Ino, state: &InodeState) -> Record<'static> {
        let held = match state.file.place {
            Place::Arena => Held::Arena,
            Place::Unnamed => Held::Unnamed,
            Place::Backing | Place::Empty => Held::Backing,
        };
        Record::Dirty { ino, held }
    }

    /// Where in `bytes`, a journal, what its rewriting gathered ends, and what is said of that there; `None` if it was not
    /// rewritten.
    pub(crate) fn find_rewritten(bytes: &[u8]) -> Option<(u64, bool, usize)> {
        let of_kind = Record::Rewritten { generation: 0, whole: true }.encode(None)[HEAD_BYTES];
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            if length == 0 {
                return None;
            }
            if bytes.get(at + HEAD_BYTES) == Some(&of_kind)
                && let Some((Record::Rewritten { generation, whole }, _, rest)) = Record::decode(&bytes[at..])
            {
                return Some((generation, whole, bytes.len() - rest.len()));
            }
            at += HEAD_BYTES + length;
        }
        None
    }

    /// The inode that it gives a number to, or that had one.
    pub(crate) fn numbered(&self) -> Option<Ino> {
        match self {
            Record::Node { ino, .. } | Record::Made { ino, .. } | Record::Dropped { ino, .. } => Some(*ino),
            _ => None,
        }
    }

    /// What it tells the request that asked for it, if it is the one that commits the change.
    pub(crate) fn answers(&self) -> Option<Answered> {
        match self {
            Record::Committed { change, .. } => change.objects().first().copied().map(Answered::Done),
            Record::Withdrawn { ino, .. } | Record::Attributes { ino, .. } => Some(Answered::Done(*ino)),
            Record::Appends { offset, .. } => Some(Answered::Appended(*offset)),
            Record::Note { key, .. } => Some(Answered::Noted(*key)),
            Record::Unanswered { answered } => Some(*answered),
            _ => None,
        }
    }

    /// Head and body, which ends with the number of the request that it answers.
    pub(crate) fn encode(&self, request: Option<u64>) -> Vec<u8> {
        let encoded = postcard::to_extend(self, vec![0; HEAD_BYTES]);
        let mut bytes = encoded.expect("records hold nothing that postcard can't encode");
        if let Some(request) = request {
            bytes.extend_from_slice(&request.to_le_bytes());
        }
        let body = bytes.len() - HEAD_BYTES;
        let sum = xxh3_64(&bytes[HEAD_BYTES..]) as u32;
        bytes[..4].copy_from_slice(&(body as u32).to_le_bytes());
        bytes[4..HEAD_BYTES].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The first record of `bytes`, the request that it answers, and what follows it; `None` at the end or at a torn or
    /// damaged record.
    #[allow(clippy::type_complexity, reason = "a tuple that is taken apart at once")]
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Record<'static>, Option<u64>, &[u8])> {
        let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (body, rest) = rest.split_at_checked(length)?;
        if xxh3_64(body) as u32 != sum {
            return None;
        }
        let (record, request) = postcard::take_from_bytes::<Record<'static>>(body).ok()?;
        Some((record, request.try_into().ok().map(u64::from_le_bytes), rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_flipped_record_ends_the_reading() {
        let mut bytes = Record::Done { seq: Seq(7) }.encode(Some(1 << 40));
        let whole = bytes.len();
        bytes.extend(Record::Clean { ino: Ino(9) }.encode(None));
        let (first, request, rest) = Record::decode(&bytes).expect("whole");
        assert!(matches!(first, Record::Done { seq: Seq(7) }) && request == Some(1 << 40));
        assert!(matches!(Record::decode(rest), Some((Record::Clean { ino: Ino(9) }, None, []))));
        for cut in 0..rest.len() {
            assert!(Record::decode(&rest[..cut]).is_none(), "cut at {cut}");
        }
        let mut flipped = bytes.clone();
        flipped[whole + 9] ^= 1;
        assert!(Record::decode(&flipped[whole..]).is_none());
    }
}
