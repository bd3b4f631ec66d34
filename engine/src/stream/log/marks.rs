//! What makes records of the active file's bytes where the framing is `write`: one mark a record, in a file
//! beside.
//!
//! A mark is written after its record's bytes, so that bytes without one are a torn tail. Marks say their
//! record's place themselves: one that is damaged leaves a gap between two others, and costs the records in
//! it. Marks of records that are sealed by now are passed over, and go when the file is written anew, at a
//! seal.
//!
//! ```text
//! offset  bytes  what
//! 0       8      offset of the record
//! 8       8      position of its first byte
//! 16      8      its time, microseconds since 1970
//! 24      4      its length
//! 28      4      CRC32C of its bytes
//! 32      4      CRC32C of bytes 0 to 31
//! ```

use super::index::Index;
use super::names::{MARKS, NUMBER_MAX};
use crate::stream::plain;
use crate::stream::segment::{open_to_read, sync_directory};
use crc32c::crc32c;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

const MARK_BYTES: usize = 36;

/// A record's mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub offset: u64,
    pub position: u64,
    pub time: u64,
    pub length: u32,
    pub crc: u32,
}

impl Mark {
    /// Of a record in the index.
    pub fn of(index: &Index, i: usize) -> Mark {
        Mark {
            offset: index.offset + i as u64,
            position: index.position_of(i),
            time: index.time(i),
            length: index.length(i),
            crc: index.crc(i),
        }
    }

    fn encode(self) -> [u8; MARK_BYTES] {
        let mut out = [0; MARK_BYTES];
        out[..8].copy_from_slice(&self.offset.to_le_bytes());
        out[8..16].copy_from_slice(&self.position.to_le_bytes());
        out[16..24].copy_from_slice(&self.time.to_le_bytes());
        out[24..28].copy_from_slice(&self.length.to_le_bytes());
        out[28..32].copy_from_slice(&self.crc.to_le_bytes());
        let sum = crc32c(&out[..32]);
        out[32..].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Option<Mark> {
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let mark = Mark {
            offset: u64_at(0),
            position: u64_at(8),
            time: u64_at(16),
            length: u32_at(24),
            crc: u32_at(28),
        };
        let sane = mark.length > 0 && mark.offset <= NUMBER_MAX && mark.position <= NUMBER_MAX;
        (u32_at(32) == crc32c(&bytes[..32]) && sane).then_some(mark)
    }
}

/// Opens the file for appending.
pub(super) fn open(directory: &Path) -> io::Result<File> {
    plain::options().append(true).create(true).open(directory.join(MARKS))
}

/// Adds a mark, whole or not at all.
pub(super) fn add(file: &mut File, mark: Mark) -> io::Result<()> {
    let before = file.metadata()?.len();
    file.write_all(&mark.encode()).inspect_err(|_| {
        // A torn mark is passed over by a reader only at the file's end.
        let _ = file.set_len(before);
    })
}

/// Adds several marks at once.
pub(super) fn add_all(file: &mut File, marks: &[Mark]) -> io::Result<()> {
    let encoded: Vec<u8> = marks.iter().flat_map(|mark| mark.encode()).collect();
    file.write_all(&encoded)
}

/// The marks that are good and in order.
pub(super) fn read(directory: &Path) -> io::Result<Vec<Mark>> {
    Ok(good(&read_bytes(directory)?))
}

/// The same. A torn one at the end is cut off, so that the next begins where one does.
pub(super) fn read_and_mend(directory: &Path) -> io::Result<Vec<Mark>> {
    let bytes = read_bytes(directory)?;
    let torn = bytes.len() % MARK_BYTES;
    if torn > 0 {
        open(directory)?.set_len((bytes.len() - torn) as u64)?;
    }
    Ok(good(&bytes))
}

fn read_bytes(directory: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match open_to_read(&directory.join(MARKS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        file => drop(file?.read_to_end(&mut bytes)?),
    }
    Ok(bytes)
}

fn good(bytes: &[u8]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for mark in bytes.chunks_exact(MARK_BYTES).filter_map(Mark::decode) {
        let behind = |last: &Mark| {
            mark.offset > last.offset && mark.position >= last.position.saturating_add(last.length.into())
        };
        if marks.last().is_none_or(behind) {
            marks.push(mark);
        }
    }
    marks
}

/// Replaces all marks by those of `index`, where they are others.
pub(super) fn put_right(directory: &Path, index: &Index) -> io::Result<()> {
    if agree(directory, index)? { Ok(()) } else { rewrite(directory, index) }
}

/// Whether the marks are those of `index`, and no others.
pub(super) fn agree(directory: &Path, index: &Index) -> io::Result<bool> {
    Ok(read_bytes(directory)? == encoded(index))
}

fn encoded(index: &Index) -> Vec<u8> {
    (0..index.len()).flat_map(|i| Mark::of(index, i).encode()).collect()
}

/// Replaces all marks by those of `index`.
pub(super) fn rewrite(directory: &Path, index: &Index) -> io::Result<()> {
    let beside = directory.join(format!("{MARKS}.new"));
    let encoded = encoded(index);
    let mut file = plain::create(&beside)?;
    file.write_all(&encoded)?;
    file.sync_all()?;
    fs::rename(&beside, directory.join(MARKS))?;
    sync_directory(directory)
}
