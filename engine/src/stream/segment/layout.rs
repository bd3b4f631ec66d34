//! The bytes of headers, heads, entries and tails. All numbers are little-endian; docs/format.md draws them.
//!
//! Encoding and decoding stand beside each other and both go by the order of the fields. What can't be right
//! although its checksum is (a later version apart) is refused like what is damaged.

use crate::stream::Framing;
use crc32c::{crc32c, crc32c_append};

/// The version that is written, and the last that is read.
pub const VERSION: u32 = 1;
/// Length of a header.
pub const HEADER_BYTES: usize = 88;
/// Length of a block's head.
pub(super) const HEAD_BYTES: usize = 60;
/// Length of a record's entry.
pub(super) const ENTRY_BYTES: usize = 12;
/// Length of a footer's end.
pub(super) const TAIL_BYTES: usize = 24;

const MAGIC: &[u8; 8] = b"aimsslog";
/// Magic and version, which every version has, and their checksum.
const PREFIX_BYTES: usize = 16;
/// Bytes that one byte of LZ4 can stand for, at most: one more in the length of a match.
pub(super) const LZ4_RATIO_MAX: u64 = 255;
const HEAD_MAGIC: &[u8; 4] = b"ablk";
const TAIL_MAGIC: &[u8; 4] = b"aend";

/// What a segment says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How its records were framed.
    pub framing: Framing,
    /// Offset of the first record.
    pub offset: u64,
    /// Position of the first byte.
    pub position: u64,
    /// Number of records.
    pub records: u64,
    /// Their bytes in the stream.
    pub bytes: u64,
    /// Time of the first record, in microseconds since 1970.
    pub first_time: u64,
    /// Time of the last record.
    pub last_time: u64,
    /// Where in the file the footer begins.
    pub(super) footer_at: u64,
    /// Number of blocks.
    pub(super) blocks: u32,
}

/// What a header turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderRead {
    Good(Header),
    /// Of a later version, which is this one.
    Newer(u32),
    Damaged,
}

impl Header {
    /// Offset behind the last record.
    pub fn end_offset(&self) -> u64 {
        self.offset + self.records
    }

    /// Position behind the last byte.
    pub fn end_position(&self) -> u64 {
        self.position + self.bytes
    }

    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let (kind, fixed) = match self.framing {
            Framing::Line => (0, 0),
            Framing::Len32 => (1, 0),
            Framing::Fixed(n) => (2, n),
            Framing::Write => (3, 0),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(MAGIC);
        put32(&mut out, &[VERSION]);
        seal(&mut out);
        put32(&mut out, &[kind, fixed]);
        let times = [self.first_time, self.last_time];
        put64(&mut out, &[self.offset, self.position, self.records, self.bytes, times[0], times[1]]);
        put64(&mut out, &[self.footer_at]);
        put32(&mut out, &[self.blocks]);
        seal(&mut out);
        out.try_into().expect("the fields come to this length")
    }

    pub(super) fn decode(bytes: &[u8]) -> HeaderRead {
        if bytes.len() < PREFIX_BYTES || !sealed(&bytes[..PREFIX_BYTES]) || &bytes[..8] != MAGIC {
            return HeaderRead::Damaged;
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            version if version > VERSION => return HeaderRead::Newer(version),
            _ => return HeaderRead::Damaged,
        }
        if bytes.len() < HEADER_BYTES || !sealed(&bytes[..HEADER_BYTES]) {
            return HeaderRead::Damaged;
        }
        let framing = match (u32_at(bytes, 16), u32_at(bytes, 20)) {
            (0, _) => Framing::Line,
            (1, _) => Framing::Len32,
            (2, n) if n > 0 => Framing::Fixed(n),
            (3, _) => Framing::Write,
            _ => return HeaderRead::Damaged,
        };
        let header = Header {
            framing,
            offset: u64_at(bytes, 24),
            position: u64_at(bytes, 32),
            records: u64_at(bytes, 40),
            bytes: u64_at(bytes, 48),
            first_time: u64_at(bytes, 56),
            last_time: u64_at(bytes, 64),
            footer_at: u64_at(bytes, 72),
            blocks: u32_at(bytes, 80),
        };
        let fits = header.offset.checked_add(header.records).is_some()
            && header.position.checked_add(header.bytes).is_some();
        if fits { HeaderRead::Good(header) } else { HeaderRead::Damaged }
    }
}

/// How a block's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    Raw,
    Lz4,
}

/// What a block says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub codec: Codec,
    /// Offset of its first record.
    pub offset: u64,
    /// Position of its first byte.
    pub position: u64,
    /// Time of its first record.
    pub time: u64,
    /// Number of records, not 0.
    pub records: u32,
    /// Their bytes in the stream.
    pub raw_bytes: u32,
    /// Their bytes in the file.
    pub stored_bytes: u32,
    /// How many records already differed from their checksums when they were written.
    pub damaged: u32,
    pub stored_crc: u32,
    pub entries_crc: u32,
}

impl Head {
    pub fn entries_bytes(&self) -> usize {
        self.records as usize * ENTRY_BYTES
    }

    /// Bytes behind the head: entries and stored bytes.
    pub fn body_bytes(&self) -> usize {
        self.entries_bytes() + self.stored_bytes as usize
    }

    /// The whole block's bytes in the file.
    pub fn file_bytes(&self) -> u64 {
        (HEAD_BYTES + self.body_bytes()) as u64
    }

    pub fn end_offset(&self) -> u64 {
        self.offset + u64::from(self.records)
    }

    pub fn end_position(&self) -> u64 {
        self.position + u64::from(self.raw_bytes)
    }

    pub fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        out.extend_from_slice(HEAD_MAGIC);
        put32(&mut out, &[u32::from(self.codec == Codec::Lz4)]);
        put64(&mut out, &[self.offset, self.position, self.time]);
        put32(&mut out, &[self.records, self.raw_bytes, self.stored_bytes, self.damaged]);
        put32(&mut out, &[self.stored_crc, self.entries_crc]);
        seal(&mut out);
        out.try_into().expect("the fields come to this length")
    }

    pub fn decode(bytes: &[u8]) -> Option<Head> {
        let bytes = bytes.get(..HEAD_BYTES)?;
        if !sealed(bytes) || &bytes[..4] != HEAD_MAGIC {
            return None;
        }
        let codec = match u32_at(bytes, 4) {
            0 => Codec::Raw,
            1 => Codec::Lz4,
            _ => return None,
        };
        let head = Head {
            codec,
            offset: u64_at(bytes, 8),
            position: u64_at(bytes, 16),
            time: u64_at(bytes, 24),
            records: u32_at(bytes, 32),
            raw_bytes: u32_at(bytes, 36),
            stored_bytes: u32_at(bytes, 40),
            damaged: u32_at(bytes, 44),
            stored_crc: u32_at(bytes, 48),
            entries_crc: u32_at(bytes, 52),
        };
        let plain = codec == Codec::Raw;
        let sane = head.records > 0
            && head.raw_bytes >= head.records
            && (!plain || head.stored_bytes == head.raw_bytes)
            && head.stored_bytes <= head.raw_bytes
            && u64::from(head.raw_bytes) <= u64::from(head.stored_bytes) * LZ4_RATIO_MAX
            && head.offset.checked_add(head.records.into()).is_some()
            && head.position.checked_add(head.raw_bytes.into()).is_some();
        sane.then_some(head)
    }
}

/// What a table says of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its bytes in the stream.
    pub length: u32,
    /// Microseconds from the block's time to its own.
    pub delay: u32,
    /// See [`check_of`].
    pub check: u32,
}

impl Entry {
    pub fn encode(self, out: &mut Vec<u8>) {
        put32(out, &[self.length, self.delay, self.check]);
    }

    pub fn decode(bytes: &[u8]) -> Entry {
        Entry { length: u32_at(bytes, 0), delay: u32_at(bytes, 4), check: u32_at(bytes, 8) }
    }
}

/// A record's checksum in its entry: of its bytes, whose CRC32C is `crc`, and of its time.
pub(super) fn check_of(crc: u32, delay: u32) -> u32 {
    crc32c_append(crc, &delay.to_le_bytes())
}

/// The end of a footer, by which it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tail {
    /// Where in the file the footer begins.
    pub footer_at: u64,
    pub blocks: u32,
    /// Of the footer without its tail.
    pub footer_crc: u32,
}

impl Tail {
    pub fn encode(&self) -> [u8; TAIL_BYTES] {
        let mut out = Vec::with_capacity(TAIL_BYTES);
        put64(&mut out, &[self.footer_at]);
        put32(&mut out, &[self.blocks, self.footer_crc]);
        out.extend_from_slice(TAIL_MAGIC);
        seal(&mut out);
        out.try_into().expect("the fields come to this length")
    }

    pub fn decode(bytes: &[u8]) -> Option<Tail> {
        let bytes = bytes.get(..TAIL_BYTES)?;
        let good = sealed(bytes) && &bytes[16..20] == TAIL_MAGIC;
        good.then(|| Tail {
            footer_at: u64_at(bytes, 0),
            blocks: u32_at(bytes, 8),
            footer_crc: u32_at(bytes, 12),
        })
    }
}

fn put32(out: &mut Vec<u8>, values: &[u32]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn put64(out: &mut Vec<u8>, values: &[u64]) {
    for value in values {
        out.extend_from_slice(&value.to_le_bytes());
    }
}

/// Adds the checksum of all that is there.
fn seal(out: &mut Vec<u8>) {
    let sum = crc32c(out);
    put32(out, &[sum]);
}

/// Whether the last four bytes are the checksum of those before.
fn sealed(bytes: &[u8]) -> bool {
    let (what, sum) = bytes.split_at(bytes.len() - 4);
    crc32c(what) == u32_at(sum, 0)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            framing: Framing::Fixed(9),
            offset: 1,
            position: 2,
            records: 3,
            bytes: 27,
            first_time: 5,
            last_time: 6,
            footer_at: 7,
            blocks: 8,
        }
    }

    #[test]
    fn headers_heads_and_tails_come_back_and_no_flipped_bit_goes_unseen() {
        let header = header();
        let head = Head {
            codec: Codec::Lz4,
            offset: 1,
            position: 2,
            time: 3,
            records: 4,
            raw_bytes: 50,
            stored_bytes: 40,
            damaged: 1,
            stored_crc: 7,
            entries_crc: 8,
        };
        let tail = Tail { footer_at: 1, blocks: 2, footer_crc: 3 };
        let (a, b, c) = (header.encode(), head.encode(), tail.encode());
        assert_eq!(Header::decode(&a), HeaderRead::Good(header));
        assert_eq!(Head::decode(&b), Some(head));
        assert_eq!(Tail::decode(&c), Some(tail));
        for bit in 0..HEADER_BYTES * 8 {
            let mut flipped = a;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&flipped), HeaderRead::Damaged, "bit {bit}");
        }
        for bit in 0..HEAD_BYTES * 8 {
            let mut flipped = b;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Head::decode(&flipped), None, "bit {bit}");
        }
        for bit in 0..TAIL_BYTES * 8 {
            let mut flipped = c;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Tail::decode(&flipped), None, "bit {bit}");
        }
    }

    #[test]
    fn a_later_version_is_known_by_its_first_bytes_alone() {
        let mut bytes = header().encode();
        bytes[8] = 2;
        let sum = crc32c(&bytes[..12]).to_le_bytes();
        bytes[12..16].copy_from_slice(&sum);
        assert_eq!(Header::decode(&bytes), HeaderRead::Newer(2));
        assert_eq!(Header::decode(&bytes[..16]), HeaderRead::Newer(2), "whatever follows");
    }
}
