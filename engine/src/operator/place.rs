//! How far an operator is, and where that is noted.
//!
//! In memory it is a file of two slots, written in turn: each has a number, a checksum and a place, and the one with the
//! higher number that is whole counts. On the backing it is a small file that is replaced as a whole.

use crate::stream::segment::{open_to_read, sync_directory};
use crate::stream::{StreamId, plain};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::xxh3_64;

/// Length, checksum and number.
const HEAD_BYTES: usize = 24;
/// Bytes of an input or an output in a slot, at most.
const ENTRY_BYTES: usize = 32;

/// How far an operator is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Of each input, the next record.
    pub inputs: Vec<(u128, u64)>,
    /// Of each output, behind the last record that what came before made.
    pub outputs: Vec<(u128, u64)>,
    /// Records taken so far.
    pub taken: u64,
    /// The input of the batch that is being appended.
    pub batch: Option<u32>,
    /// Memory was lost since this was noted, and it isn't known yet what of that the outputs have behind it. Such a place is
    /// nobody's but its operator's.
    pub found: bool,
    /// Records that had no key, and that were lost before they could be taken.
    pub unkeyed: u64,
    /// Records of which something failed, and that are in no output for that.
    pub failed: u64,
    pub lost: u64,
}

impl Place {
    /// At the beginning of these.
    pub fn at(inputs: &[(StreamId, u64)], outputs: &[(StreamId, u64)]) -> Place {
        let plain = |all: &[(StreamId, u64)]| all.iter().map(|(id, at)| (id.0, *at)).collect();
        Place { inputs: plain(inputs), outputs: plain(outputs), ..Place::default() }
    }

    fn encode(&self, number: u64) -> Vec<u8> {
        let body = postcard::to_allocvec(self).expect("it has a form");
        let mut bytes = Vec::with_capacity(HEAD_BYTES + body.len());
        bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
        bytes.extend_from_slice(&0_u64.to_le_bytes());
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&body);
        let sum = xxh3_64(&bytes[16..]);
        bytes[8..16].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The place in bytes that begin with one, and its number.
    fn decode(bytes: &[u8]) -> Option<(Place, u64)> {
        let word = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let end = usize::try_from(word(0)?).ok()?.checked_add(HEAD_BYTES)?;
        let sound = xxh3_64(bytes.get(16..end)?) == word(8)?;
        let place = postcard::from_bytes(bytes.get(HEAD_BYTES..end)?).ok()?;
        sound.then_some((place, word(16)?))
    }

    /// Writes it to the backing, to stay.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let beside = path.with_extension("new");
        let mut file = plain::create(&beside)?;
        file.write_all(&self.encode(0))?;
        file.sync_all()?;
        std::fs::rename(&beside, path)?;
        path.parent().map_or(Ok(()), sync_directory)
    }

    /// Reads it from there.
    pub fn read(path: &Path) -> io::Result<Place> {
        let mut bytes = Vec::new();
        open_to_read(path)?.read_to_end(&mut bytes)?;
        let damaged = || io::Error::new(io::ErrorKind::InvalidData, "it is damaged");
        Place::decode(&bytes).map(|(place, _)| place).ok_or_else(damaged)
    }
}

/// The place of an operator in memory.
#[derive(Debug)]
pub(super) struct Noted {
    file: File,
    slot_bytes: u64,
    number: u64,
}

impl Noted {
    /// Opens the file at `path`, which the last daemon may have left; what is noted there.
    pub fn open(path: &Path, streams: usize) -> io::Result<(Noted, Option<Place>)> {
        let file = plain::options().read(true).write(true).create(true).truncate(false).open(path)?;
        let slot_bytes = (HEAD_BYTES + ENTRY_BYTES * (streams + 4)).next_multiple_of(4096) as u64;
        let mut newest = None;
        for slot in 0..2 {
            let mut bytes = vec![0; slot_bytes as usize];
            let there = crate::stream::segment::read_there(&file, &mut bytes, slot * slot_bytes)?;
            if let Some((place, number)) = Place::decode(&bytes[..there])
                && newest.as_ref().is_none_or(|(_, newest)| *newest < number)
            {
                newest = Some((place, number));
            }
        }
        let number = newest.as_ref().map_or(0, |(_, number)| *number);
        Ok((Noted { file, slot_bytes, number }, newest.map(|(place, _)| place)))
    }

    /// Notes another place. Whoever dies here leaves the one before.
    pub fn note(&mut self, place: &Place) -> io::Result<()> {
        let bytes = place.encode(self.number + 1);
        debug_assert!(bytes.len() as u64 <= self.slot_bytes, "a slot has room for its streams");
        self.file.write_all_at(&bytes, (self.number + 1) % 2 * self.slot_bytes)?;
        self.number += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(taken: u64) -> Place {
        let ids: Vec<_> = (0..20).map(|id| (StreamId(u128::MAX - id), u64::MAX - taken)).collect();
        Place { taken, batch: Some(3), ..Place::at(&ids, &ids) }
    }

    #[test]
    fn the_newest_that_is_whole_counts() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("place");
        let (mut noted, none) = Noted::open(&path, 40).expect("opened");
        assert_eq!(none, None);
        for taken in 1..=5 {
            noted.note(&place(taken)).expect("noted");
            assert_eq!(Noted::open(&path, 40).expect("opened").1, Some(place(taken)));
        }
        // The fifth is torn.
        let file = File::options().write(true).open(&path).expect("there");
        file.write_all_at(&[0xff; 8], noted.slot_bytes + 100).expect("written");
        assert_eq!(Noted::open(&path, 40).expect("opened").1, Some(place(4)));
        let (mut noted, _) = Noted::open(&path, 40).expect("opened");
        noted.note(&place(6)).expect("noted");
        assert_eq!(Noted::open(&path, 40).expect("opened").1, Some(place(6)));
    }

    #[test]
    fn what_is_on_the_backing_is_whole_or_said_not_to_be() {
        let directory = tempfile::tempdir().expect("a scratch directory");
        let path = directory.path().join("place");
        place(7).write(&path).expect("written");
        assert_eq!(Place::read(&path).expect("read"), place(7));
        let mut bytes = std::fs::read(&path).expect("there");
        for at in [0, 9, 20, 60] {
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).expect("written");
            assert_eq!(Place::read(&path).expect_err("damaged").kind(), io::ErrorKind::InvalidData);
            bytes[at] ^= 1;
        }
    }
}
