//! A group's file: where it goes on, durable with one write of one sector.
//!
//! Two slots of [`SLOT_BYTES`], each a text with a number and a checksum; the valid one with the larger number
//! counts, and the other one is written next. So a write that is cut leaves what was there before, and a write
//! changes no length and no name: a file system has nothing to do for it but to write a block, where a new file and
//! a rename cost a commit of its journal, and are durable only with the next. docs/format.md draws it.

use super::{Counts, Group};
use crate::failpoint;
use crate::stream::plain;
use crate::stream::segment::open_to_read;
use crc32c::crc32c;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Ending of a group's file in the log's directory.
const ENDING: &str = "group";
/// First line of a slot, and the version.
const HEAD: &str = "aimss-group 2";
/// A disk writes a sector as a whole or not at all.
const SLOT_BYTES: usize = 512;
const SLOTS: usize = 2;

/// What a slot says.
#[derive(Debug, Clone, Copy)]
struct Written {
    number: u64,
    offset: u64,
    counts: Counts,
}

impl Written {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let Counts { delivered, redelivered, lost } = self.counts;
        let text = format!(
            "{HEAD}\nnumber = {}\noffset = {}\ndelivered = {delivered}\nredelivered = {redelivered}\n\
             lost = {lost}\n",
            self.number, self.offset
        );
        let text = format!("{text}crc32c = {:08x}\n", crc32c(text.as_bytes()));
        let mut slot = [b'\n'; SLOT_BYTES];
        slot[..text.len()].copy_from_slice(text.as_bytes());
        slot
    }

    fn decode(slot: &[u8]) -> Option<Written> {
        let text = std::str::from_utf8(slot).ok()?;
        let (said, check) = text.split_at(text.find("crc32c = ")?);
        let check = check.strip_prefix("crc32c = ")?.trim_end();
        if u32::from_str_radix(check, 16).ok()? != crc32c(said.as_bytes()) {
            return None;
        }
        let mut lines = said.lines();
        if lines.next() != Some(HEAD) {
            return None;
        }
        let values: HashMap<&str, u64> = lines
            .filter_map(|line| line.split_once(" = "))
            .filter_map(|(key, value)| Some((key, value.parse().ok()?)))
            .collect();
        let value = |key| values.get(key).copied();
        let counts = Counts {
            delivered: value("delivered")?,
            redelivered: value("redelivered")?,
            lost: value("lost")?,
        };
        Some(Written { number: value("number")?, offset: value("offset")?, counts })
    }
}

/// The slot that counts, and which it is.
fn latest(file: &File) -> io::Result<Option<(usize, Written)>> {
    let mut bytes = [0; SLOT_BYTES * SLOTS];
    let there = crate::stream::segment::read_there(file, &mut bytes, 0)?;
    let slots = bytes[..there].chunks(SLOT_BYTES).map(Written::decode).enumerate();
    Ok(slots.filter_map(|(i, slot)| Some((i, slot?))).max_by_key(|(_, slot)| slot.number))
}

impl Group {
    /// The group's file in a log's directory.
    pub fn path(directory: &Path, name: &str) -> PathBuf {
        directory.join(format!("{name}.{ENDING}"))
    }

    /// Writes down that the group has everything before `committed`, durably.
    pub fn write(directory: &Path, name: &str, committed: u64, counts: Counts) -> io::Result<()> {
        let path = Group::path(directory, name);
        match plain::options().read(true).write(true).open(&path) {
            Ok(file) => {
                if let Some((slot, before)) = latest(&file)? {
                    let now = Written { number: before.number + 1, offset: committed, counts };
                    failpoint::pass("before", "group-written");
                    file.write_all_at(&now.encode(), ((slot + 1) % SLOTS * SLOT_BYTES) as u64)?;
                    return file.sync_data();
                }
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Group::write_new(directory, name, committed, counts)
    }

    /// The same in a new file, in place of what has its name.
    pub(crate) fn write_new(directory: &Path, name: &str, committed: u64, counts: Counts) -> io::Result<()> {
        let path = Group::path(directory, name);
        let beside = directory.join(format!("{name}.{ENDING}.new"));
        let mut file = plain::create(&beside)?;
        file.write_all(&Written { number: 1, offset: committed, counts }.encode())?;
        file.write_all(&[b'\n'; SLOT_BYTES])?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        crate::stream::segment::sync_directory(directory)
    }

    /// Reads a group's file.
    pub fn read(directory: &Path, name: &str) -> io::Result<Group> {
        let (_, written) = latest(&open_to_read(&Group::path(directory, name))?)?.ok_or_else(|| {
            io::Error::new(ErrorKind::InvalidData, format!("the file of group {name} can't be read"))
        })?;
        let mut group = Group::new(name, written.offset);
        group.counts = written.counts;
        group.saved = Some(group.cursor);
        Ok(group)
    }

    /// The group whose file this is, if it is one.
    pub fn name_of(file: &str) -> Option<&str> {
        let name = file.strip_suffix(ENDING)?.strip_suffix('.')?;
        super::is_name(name).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::log::Listing;

    fn place() -> (tempfile::TempDir, Counts) {
        let counts = Counts { delivered: 9, redelivered: 1, lost: 2 };
        (tempfile::tempdir().expect("a scratch directory"), counts)
    }

    #[test]
    fn what_is_written_down_is_where_it_goes_on() {
        let (dir, counts) = place();
        for committed in [7, 8, 3, u64::MAX] {
            Group::write(dir.path(), "g.1", committed, counts).expect("written");
            let read = Group::read(dir.path(), "g.1").expect("read");
            assert_eq!((read.committed(), read.unsaved(), read.counts()), (committed, None, counts));
        }
        assert_eq!(Listing::of(dir.path()).expect("listed").groups(), ["g.1"]);
        let length = fs::metadata(Group::path(dir.path(), "g.1")).expect("there").len();
        assert_eq!(length, (SLOT_BYTES * SLOTS) as u64);
    }

    #[test]
    fn a_write_that_was_cut_or_changed_leaves_the_one_before() {
        let (dir, counts) = place();
        Group::write(dir.path(), "g", 1, counts).expect("written");
        Group::write(dir.path(), "g", 2, counts).expect("written");
        let path = Group::path(dir.path(), "g");
        let whole = fs::read(&path).expect("read");
        let text_bytes = whole[SLOT_BYTES..].iter().rposition(|b| *b != b'\n').expect("a text") + 1;
        for at in SLOT_BYTES..SLOT_BYTES + text_bytes {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("changed");
            assert_eq!(Group::read(dir.path(), "g").expect("read").committed(), 1, "byte {at}");
            fs::write(&path, &whole[..at]).expect("cut");
            assert_eq!(Group::read(dir.path(), "g").expect("read").committed(), 1, "cut at {at}");
        }
        fs::write(&path, [0; 100]).expect("damaged");
        assert!(Group::read(dir.path(), "g").is_err());
        Group::write(dir.path(), "g", 5, counts).expect("written anew");
        assert_eq!(Group::read(dir.path(), "g").expect("read").committed(), 5);
    }
}
