//! Where in a stream's bytes records end.
//!
//! A [`Splitter`] is given bytes as they were appended, in pieces of any size, and says of each piece how
//! much of it completes the record that it is in. It keeps nothing of the bytes but four of a length prefix,
//! so that an incomplete last record (a *torn tail*) costs no memory and may be completed by a later piece.
//!
//! Framing bytes belong to their record: a line has its newline, a `len32` record its prefix. A record has at
//! least one byte. Where the bytes can't be split any further, because a prefix or a line runs past the
//! longest record, the splitter stays at that record and says so again whenever it is asked.
//!
//! `write` has no boundaries in the bytes: each write(2) is a record, and who receives it has to note its
//! length.

use std::fmt;
use std::io::BufRead;
use std::str::FromStr;

/// Bytes of a length prefix.
const PREFIX_BYTES: u64 = 4;

/// How a stream's bytes are divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Framing {
    /// A record ends with a newline.
    #[default]
    Line,
    /// A record begins with the number of bytes that follow, as a little-endian u32.
    Len32,
    /// A record is this many bytes long; not 0.
    Fixed(u32),
    /// A record is what one write(2) brought.
    Write,
}

/// What is wrong with a framing, or with bytes that should keep to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// The word is unknown.
    #[error("a framing is one of `line`, `len32`, `fixed:N` and `write`")]
    Unknown,
    /// The number behind `fixed:`.
    #[error("`fixed:N` needs a number of bytes from 1 to 4294967295")]
    Number,
    /// Records of no bytes.
    #[error("`fixed:0` would make records of no bytes: a record has at least one")]
    FixedZero,
    /// A record has to fit into a segment.
    #[error("records of {record_bytes} bytes are longer than a segment, which has {segment_bytes}")]
    LongerThanSegment {
        /// Length of a record.
        record_bytes: u64,
        /// Length of a segment.
        segment_bytes: u64,
    },
    /// A length prefix that can't be right. The bytes from there on can't be divided.
    #[error("the record at byte {position} would be {record_bytes} bytes long, but {bytes_max} are the most")]
    PrefixTooLong {
        /// Where the record begins, in bytes from the stream's beginning.
        position: u64,
        /// What its prefix comes to, the prefix included.
        record_bytes: u64,
        /// The longest record.
        bytes_max: u64,
    },
    /// A line that does not end.
    #[error("the line at byte {position} is longer than {bytes_max} bytes, which are the most")]
    LineTooLong {
        /// Where the line begins, in bytes from the stream's beginning.
        position: u64,
        /// The longest record.
        bytes_max: u64,
    },
    /// An append that isn't exactly one record.
    #[error("the bytes are not exactly one record framed as `{0}`")]
    NotOneRecord(Framing),
}

impl Framing {
    /// Refuses records that could never fit into a segment of `segment_bytes`.
    pub fn check(self, segment_bytes: u64) -> Result<(), FramingError> {
        match self {
            Framing::Fixed(0) => Err(FramingError::FixedZero),
            Framing::Fixed(n) if u64::from(n) > segment_bytes => {
                Err(FramingError::LongerThanSegment { record_bytes: n.into(), segment_bytes })
            }
            _ => Ok(()),
        }
    }

    /// Refuses bytes that are not exactly one record of at most `bytes_max` bytes.
    pub fn check_record(self, record: &[u8], bytes_max: u64) -> Result<(), FramingError> {
        let record_bytes = record.len() as u64;
        if record_bytes > bytes_max {
            return Err(FramingError::LongerThanSegment { record_bytes, segment_bytes: bytes_max });
        }
        let whole = match self {
            Framing::Write => !record.is_empty(),
            _ => {
                let mut splitter = Splitter::new(self, bytes_max, 0);
                splitter.next(record)? == Some(record.len())
            }
        };
        if whole { Ok(()) } else { Err(FramingError::NotOneRecord(self)) }
    }
}

impl FromStr for Framing {
    type Err = FramingError;

    fn from_str(word: &str) -> Result<Framing, FramingError> {
        match word {
            "line" => Ok(Framing::Line),
            "len32" => Ok(Framing::Len32),
            "write" => Ok(Framing::Write),
            _ => match word.strip_prefix("fixed:").ok_or(FramingError::Unknown)?.parse::<u32>() {
                Ok(0) => Err(FramingError::FixedZero),
                Ok(n) => Ok(Framing::Fixed(n)),
                Err(_) => Err(FramingError::Number),
            },
        }
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Framing::Line => f.write_str("line"),
            Framing::Len32 => f.write_str("len32"),
            Framing::Fixed(n) => write!(f, "fixed:{n}"),
            Framing::Write => f.write_str("write"),
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Splitter {
    framing: Framing,
    bytes_max: u64,
    /// Where the record begins that is not complete yet.
    position: u64,
    /// How many of its bytes were seen.
    seen: u64,
    /// The first of them, as far as they are a length prefix.
    prefix: [u8; PREFIX_BYTES as usize],
}

impl Splitter {
    /// One that stands between two records, at byte `position` of the stream. Records have at most
    /// `bytes_max` bytes.
    pub fn new(framing: Framing, bytes_max: u64, position: u64) -> Splitter {
        Splitter { framing, bytes_max, position, seen: 0, prefix: [0; PREFIX_BYTES as usize] }
    }

    /// Bytes seen of the record that is not complete.
    pub fn pending_bytes(&self) -> u64 {
        self.seen
    }

    /// How many of `bytes`, which follow what was given before, complete the record that they are in. `None`
    /// where they don't: all were taken, and the record stays pending. What follows a completed record is to
    /// be given again.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, FramingError> {
        let Some(wanted) = self.wanted(bytes)? else {
            self.take(bytes);
            return Ok(None);
        };
        if wanted > bytes.len() as u64 {
            self.take(bytes);
            return Ok(None);
        }
        self.position += self.seen + wanted;
        self.seen = 0;
        Ok(Some(wanted as usize))
    }

    /// How many bytes are missing to the end of the record; `None` while `bytes` don't tell.
    fn wanted(&self, bytes: &[u8]) -> Result<Option<u64>, FramingError> {
        let (position, bytes_max) = (self.position, self.bytes_max);
        match self.framing {
            Framing::Line => {
                // The standard library's search behind `skip_until` is the vectorized one; `position` is not.
                let (mut rest, limit) = (bytes, bytes_max - self.seen);
                let line = rest.skip_until(b'\n').expect("memory can be read");
                let ends = line > 0 && bytes[line - 1] == b'\n';
                if line as u64 > limit || (!ends && line as u64 == limit && line > 0) {
                    return Err(FramingError::LineTooLong { position, bytes_max });
                }
                Ok(ends.then_some(line as u64))
            }
            Framing::Len32 => {
                let mut prefix = self.prefix;
                let known = (self.seen as usize).min(prefix.len());
                let new = bytes.len().min(prefix.len() - known);
                prefix[known..known + new].copy_from_slice(&bytes[..new]);
                if known + new < prefix.len() {
                    return Ok(None);
                }
                let record_bytes = PREFIX_BYTES + u64::from(u32::from_le_bytes(prefix));
                if record_bytes > bytes_max {
                    return Err(FramingError::PrefixTooLong { position, record_bytes, bytes_max });
                }
                Ok(Some(record_bytes - self.seen))
            }
            Framing::Fixed(n) => Ok(Some(u64::from(n) - self.seen)),
            Framing::Write => Ok(None),
        }
    }

    /// Notes bytes of a record that is not complete.
    fn take(&mut self, bytes: &[u8]) {
        let known = (self.seen as usize).min(self.prefix.len());
        let new = bytes.len().min(self.prefix.len() - known);
        self.prefix[known..known + new].copy_from_slice(&bytes[..new]);
        self.seen += bytes.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of the whole records of `bytes` when they come in pieces of `piece` bytes, and what stays
    /// pending.
    fn split(framing: Framing, bytes: &[u8], piece: usize) -> (Vec<usize>, u64) {
        let mut splitter = Splitter::new(framing, 1000, 0);
        let (mut records, mut length) = (Vec::new(), 0);
        for mut rest in bytes.chunks(piece) {
            while let Some(end) = splitter.next(rest).expect("well framed") {
                records.push(length + end);
                length = 0;
                rest = &rest[end..];
            }
            length += rest.len();
        }
        (records, splitter.pending_bytes())
    }

    #[test]
    fn words_and_framings_are_each_others_inverse() {
        for word in ["line", "len32", "fixed:1", "fixed:4294967295", "write"] {
            assert_eq!(word.parse::<Framing>().expect("a framing").to_string(), word);
        }
        assert_eq!("fixed:0".parse::<Framing>(), Err(FramingError::FixedZero));
        assert_eq!("fixed:".parse::<Framing>(), Err(FramingError::Number));
        assert_eq!("fixed:4294967296".parse::<Framing>(), Err(FramingError::Number));
        assert_eq!("lines".parse::<Framing>(), Err(FramingError::Unknown));
        assert!(Framing::Fixed(65).check(64).is_err(), "longer than a segment");
        assert!(Framing::Fixed(64).check(64).is_ok());
    }

    #[test]
    fn records_are_the_same_in_pieces_of_any_size() {
        let lines = b"one\n\nthree four\ntorn";
        let prefixed = b"\x03\0\0\0abc\0\0\0\0\x01\0\0\0x\x09\0\0\0torn";
        for piece in 1..30 {
            assert_eq!(split(Framing::Line, lines, piece), (vec![4, 1, 11], 4), "pieces of {piece}");
            assert_eq!(split(Framing::Len32, prefixed, piece), (vec![7, 4, 5], 8), "pieces of {piece}");
            assert_eq!(split(Framing::Fixed(3), b"abcdefgh", piece), (vec![3, 3], 2), "pieces of {piece}");
        }
    }

    #[test]
    fn a_torn_prefix_stays_pending() {
        assert_eq!(split(Framing::Len32, b"\x01\0\0\0x\x05\0", 1), (vec![5], 2));
    }

    #[test]
    fn a_prefix_past_the_longest_record_names_its_place() {
        let mut splitter = Splitter::new(Framing::Len32, 1000, 70);
        let bytes = b"\x01\0\0\0x\xe5\x03\0\0";
        assert_eq!(splitter.next(bytes), Ok(Some(5)));
        let refused = Err(FramingError::PrefixTooLong { position: 75, record_bytes: 1001, bytes_max: 1000 });
        assert_eq!(splitter.next(&bytes[5..]), refused);
        assert_eq!(splitter.next(&bytes[5..]), refused, "it stays there");
        assert_eq!(
            Splitter::new(Framing::Len32, 1001, 0).next(&bytes[5..]),
            Ok(None),
            "one byte more is let be"
        );
    }

    #[test]
    fn a_line_past_the_longest_record_names_its_place() {
        let mut splitter = Splitter::new(Framing::Line, 4, 7);
        assert_eq!(splitter.next(b"abc\nabcd"), Ok(Some(4)), "as long as may be");
        assert_eq!(splitter.next(b"ab"), Ok(None));
        assert_eq!(splitter.next(b"cd"), Err(FramingError::LineTooLong { position: 11, bytes_max: 4 }));
    }

    #[test]
    fn an_append_is_exactly_one_record() {
        for (framing, record, good) in [
            (Framing::Line, &b"a line\n"[..], true),
            (Framing::Line, b"two\nlines\n", false),
            (Framing::Line, b"no end", false),
            (Framing::Len32, b"\x02\0\0\0ab", true),
            (Framing::Len32, b"\x02\0\0\0abc", false),
            (Framing::Fixed(2), b"ab", true),
            (Framing::Fixed(2), b"a", false),
            (Framing::Write, b"anything", true),
            (Framing::Write, b"", false),
            (Framing::Write, b"longer than ten bytes", false),
        ] {
            assert_eq!(framing.check_record(record, 10).is_ok(), good, "{framing}: {record:?}");
        }
    }
}
