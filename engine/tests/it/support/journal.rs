//! A journal as a function of bytes, with what must hold of its reading whatever they are: no panic, nothing that is not
//! in them, and the same whether it is read at once or followed while it is written. `journal_parsers` feeds it random
//! bytes; the target `journal` in `fuzz/` what libFuzzer thinks of.
//!
//! Checksums would refuse nearly all of what a fuzzer invents. So the first byte says what the rest is: a journal as it
//! is, changes of a good one, the same with all checksums made right again, or records put together from small numbers,
//! so that they speak of the same objects.

use aimss_engine::journal::{Answered, Basis, Follower, Held, Record, Recovered};
use aimss_engine::oplog::Change;
use aimss_engine::{Attr, Ino, Kind, Name, Seq, Timestamp};
use std::borrow::Cow;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Length and checksum, before each record.
const HEAD_BYTES: usize = 8;
/// Of the table of references, as it is allocated.
const TABLE_BYTES: usize = 64 << 10;
/// More than one byte can stand for in memory: an empty name in a list, or a change of one.
const BYTES_EACH_MAX: usize = 4096;

/// Bytes to be read as choices; at their end all are 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of a few, so that records speak of the same ones; now and then the largest.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            byte => u64::from(byte % 6),
        }
    }

    fn ino(&mut self) -> Ino {
        Ino(self.number())
    }

    fn link(&mut self) -> (Ino, Name) {
        let (ino, byte) = (self.ino(), self.byte());
        (ino, Name::from(&[b'a' + byte % 3][..usize::from(byte % 4 != 3)]))
    }

    fn links(&mut self) -> Vec<(Ino, Name)> {
        (0..self.byte() % 3).map(|_| self.link()).collect()
    }
}

/// A journal: read, followed, and asked for all that it says.
pub fn journal(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let table = input.byte();
    let bytes = match choice % 4 {
        0 => input.0.to_vec(),
        3 => {
            let mut bytes = Vec::new();
            while !input.0.is_empty() {
                let record = record(&mut input);
                let request = (input.byte() & 1 != 0).then(|| input.number());
                bytes.extend(encoded(&record, request));
            }
            bytes
        }
        mended => {
            let mut bytes = good();
            bytes.truncate(bytes.len() - usize::from(input.byte()) % bytes.len());
            while let [low, high, new, rest @ ..] = input.0 {
                let at = (usize::from(*low) | usize::from(*high) << 8) % bytes.len();
                bytes[at] = *new;
                input.0 = rest;
            }
            if mended == 2 {
                mend_checksums(&mut bytes);
            }
            bytes
        }
    };
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let path = directory.path().join("journal");
    // The table of references beside it may hold anything, too.
    fs::write(path.with_extension("lookups"), vec![table; TABLE_BYTES * usize::from(table & 1)])
        .expect("room");
    fs::write(&path, &bytes).expect("room");
    let left = Follower::begin(&path).expect("it can be read").left;
    check(&left, &bytes);
    let followed = followed(&path, &bytes, usize::from(choice / 4) * bytes.len() / 64);
    assert_eq!(said(&followed), said(&left), "at once, and in two parts");
}

/// The same journal read in two parts, as a successor reads it that stands by.
fn followed(path: &Path, bytes: &[u8], cut: usize) -> Recovered {
    fs::write(path, &bytes[..cut]).expect("room");
    let mut follower = Follower::begin(path).expect("it can be read");
    let mut file = OpenOptions::new().append(true).open(path).expect("it is there");
    file.write_all(&bytes[cut..]).expect("room");
    follower.follow().expect("nobody rewrote it");
    follower.left
}

/// What was read is in proportion to the bytes, and can be asked.
fn check(left: &Recovered, bytes: &[u8]) {
    assert!(left.bytes <= bytes.len() as u64);
    let read = left.bytes as usize;
    let mut held = left.notes.values().map(Vec::len).sum::<usize>() + left.numbers.len();
    held += left.changes.len() + left.cancelled.len() + left.answered.iter().count();
    for (ino, node) in &left.nodes {
        let names = left.final_names(*ino);
        let xattrs = node.xattrs.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len));
        held += 1 + names.len() + node.drained.len() + xattrs.sum::<usize>();
        held += node.target.as_ref().map_or(0, Vec::len);
        // Numbers of changes that come twice make it new by a change that is another one by now.
        assert!(left.making(*ino).is_none() || left.is_new(*ino));
        assert!(left.pending(*ino) as usize <= read);
        let _ = left.is_gone(*ino, node);
    }
    assert!(held <= read * BYTES_EACH_MAX, "{held} of {read} bytes");
    assert!(left.dirty() <= left.nodes.len());
    assert!(left.nodes.len() <= read && left.changes.len() <= read);
    // Every change that waits is one that its objects know of.
    for change in left.changes.values() {
        for ino in change.objects().into_iter().chain(change.directories()) {
            assert!(left.pending(ino) > 0, "{change:?} does not wait for {ino:?}");
        }
    }
}

/// All of it, in an order of its own.
fn said(left: &Recovered) -> String {
    let mut nodes: Vec<_> = left.nodes.iter().map(|(ino, node)| (ino, format!("{node:?}"))).collect();
    nodes.sort();
    let mut numbers: Vec<_> = left.numbers.iter().map(|(id, ino)| (id.dev, id.ino, ino)).collect();
    numbers.sort_unstable();
    let mut notes: Vec<_> = left.notes.iter().collect();
    notes.sort();
    let answered: Vec<_> = left.answered.iter().collect();
    let changes = (&left.changes, &left.cancelled);
    let last = (left.exact, left.highest, left.bytes, left.generation);
    format!("{nodes:?} {numbers:?} {notes:?} {answered:?} {changes:?} {last:?}")
}

fn encoded(record: &Record<'_>, request: Option<u64>) -> Vec<u8> {
    let mut body = postcard::to_stdvec(record).expect("it can be encoded");
    if let Some(request) = request {
        body.extend_from_slice(&request.to_le_bytes());
    }
    let head = [(body.len() as u32).to_le_bytes(), (xxh3_64(&body) as u32).to_le_bytes()].concat();
    [head, body].concat()
}

/// Makes the checksums right, as far as the lengths lead.
fn mend_checksums(bytes: &mut [u8]) {
    let mut at = 0;
    while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
        let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let begin = at + HEAD_BYTES;
        let Some(body) = bytes.get(begin..begin.saturating_add(length)) else { return };
        let sum = xxh3_64(body) as u32;
        bytes[at + 4..begin].copy_from_slice(&sum.to_le_bytes());
        at = begin + length;
    }
}

/// Two hundred records of all kinds, the same each time.
fn good() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..200_u32 {
        // Digits of a number that looks random.
        let digits = number.wrapping_mul(0x9e37_79b9).to_le_bytes();
        let choices: Vec<u8> = (0..40).map(|at| digits[at % 4].rotate_left(at as u32) ^ at as u8).collect();
        let mut input = Input(&choices);
        bytes.extend(encoded(&record(&mut input), (number % 3 == 0).then_some(u64::from(number) * 2)));
    }
    bytes
}

/// A record, by the next bytes.
fn record(input: &mut Input<'_>) -> Record<'static> {
    let kind = input.byte() % 20;
    let ino = input.ino();
    match kind {
        0 => Record::Node { ino, kind: Kind::File, attr: attr(input), drained: input.links() },
        1 => {
            let (target, xattrs) = (Some(b"target".to_vec()), xattrs(input));
            Record::Made { ino, link: input.link(), attr: attr(input), target, xattrs }
        }
        2 => Record::Changed { seq: Seq(input.number()), change: Cow::Owned(change(input)) },
        3 => Record::Done { seq: Seq(input.number()) },
        4 => Record::Cancelled { ino },
        5 => Record::Attributes { ino, attr: attr(input), xattrs: xattrs(input) },
        6 => Record::Dirty {
            ino,
            held: [Held::Backing, Held::Arena, Held::Unnamed][input.byte() as usize % 3],
        },
        7 => Record::Clean { ino },
        8 => Record::Basis { ino, basis: basis(input) },
        9 => {
            let (seq, change) = (Seq(input.number()), Cow::Owned(change(input)));
            let drained = (0..input.byte() % 3).map(|_| (input.ino(), input.links())).collect();
            Record::Committed { seq, change, attrs: attrs(input), drained }
        }
        10 => Record::Withdrawn { ino, attrs: attrs(input) },
        11 => Record::Cached { ino, cached: input.byte() & 1 != 0 },
        12 => Record::Dropped { ino, gone: input.byte() & 1 != 0 },
        13 => Record::Number { ino, there: (input.number(), input.number()) },
        14 => Record::Pinned { ino, pinned: input.byte() & 1 != 0 },
        15 => Record::Appends { ino, offset: input.number() },
        16 => {
            let length = usize::from(input.byte() % 8);
            Record::Note { key: input.number(), value: Cow::Owned(input.bytes(length).to_vec()) }
        }
        17 => Record::Unanswered { answered: Answered::Noted(input.number()) },
        18 => Record::Connected,
        _ => Record::Rewritten { generation: input.number(), whole: input.byte() & 1 != 0 },
    }
}

fn change(input: &mut Input<'_>) -> Change {
    let (kind, ino, link) = (input.byte() % 5, input.ino(), input.link());
    match kind {
        0 => Change::Make { ino, link },
        1 => Change::Link { ino, link },
        2 => Change::Unlink { ino, link },
        3 => {
            let replaced = (input.byte() & 1 != 0).then(|| input.ino());
            Change::Rename { ino, from: link, to: input.link(), replaced }
        }
        _ => Change::Exchange { ino, from: link, other: input.ino(), to: input.link() },
    }
}

fn attrs(input: &mut Input<'_>) -> Vec<(Ino, Attr)> {
    (0..input.byte() % 4).map(|_| (input.ino(), attr(input))).collect()
}

fn attr(input: &mut Input<'_>) -> Attr {
    let kind = if input.byte() & 1 == 0 { Kind::File } else { Kind::Directory };
    let (number, time) = (input.number(), Timestamp::default());
    Attr {
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: number as u32,
        rdev: 0,
        size: number,
        blocks: number,
        atime: time,
        mtime: time,
        ctime: time,
    }
}

fn xattrs(input: &mut Input<'_>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let value = |byte: u8| (byte & 2 != 0).then(|| vec![byte; 3]);
    (0..input.byte() % 3).map(|_| input.byte()).map(|byte| (vec![byte & 1], value(byte))).collect()
}

/// Its fields are its own: by what they are encoded as.
fn basis(input: &mut Input<'_>) -> Basis {
    let time = Timestamp::default();
    let fields = (input.number(), input.number(), input.number(), time, time);
    let bytes = postcard::to_stdvec(&fields).expect("it can be encoded");
    postcard::from_bytes(&bytes).expect("these are its fields")
}
