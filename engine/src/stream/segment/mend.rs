//! Makes a segment's index whole again: header, heads of blocks, tables, footer.
//!
//! 1. Everything that says where records are is in the file more than once. What is damaged is made again from what is
//!    not: header and heads from the footer or from each other, a table from the records that it is for.
//! 2. A segment that is damaged at both ends is found by its blocks, if those form a chain from where its name says
//!    that it begins to where it has to end.
//! 3. The segment is written anew beside, the records' stored bytes as they are, looked at, and renamed over the old
//!    one. So nothing is lost if that is interrupted, and what is lost of records stays lost.
//!
//! Not here: records whose bytes are damaged. There is no second copy of them.

use super::layout::{HEAD_BYTES, HEADER_BYTES, Head, Header, TAIL_BYTES, Tail};
use super::reader::{Fault, Segment, open_to_read, places_of, read_there, scan};
use super::sync_directory;
use crate::stream::{Damage, Framing, Result, plain};
use crc32c::crc32c;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// No segment has so many records, and sums with it don't overflow.
const RECORDS_MAX: u64 = 1 << 61;
/// Bytes copied at a time.
const CHUNK_BYTES: u64 = 1 << 20;

impl Segment {
    /// Opens a segment that is damaged at both ends by its blocks. It begins with this offset and position, by its
    /// name, and has to end where the next one begins; if that is not known, where as many bytes are left as its
    /// footer has. None if the blocks don't lead there.
    pub fn open_by_blocks(
        path: &Path,
        framing: Framing,
        (offset, position): (u64, u64),
        end: Option<(u64, u64)>,
    ) -> Result<Option<Segment>> {
        let file = open_to_read(path)?;
        let file_bytes = file.metadata()?.len();
        let mut header = Header {
            framing,
            offset,
            position,
            records: end.map_or(RECORDS_MAX, |(end, _)| end.saturating_sub(offset)),
            bytes: 0,
            first_time: 0,
            last_time: 0,
            footer_at: file_bytes,
            blocks: u32::MAX,
        };
        let heads = scan(&file, file_bytes, &header)?;
        let (Some(first), Some(last)) = (heads.first(), heads.last()) else { return Ok(None) };
        let there = (last.end_offset(), last.end_position());
        header.footer_at = HEADER_BYTES as u64 + heads.iter().map(Head::file_bytes).sum::<u64>();
        let whole = match end {
            Some(end) => end == there && header.footer_at <= file_bytes,
            None => header.footer_at + footer_bytes(heads.len()) == file_bytes,
        };
        if !whole {
            return Ok(None);
        }
        (header.records, header.bytes) = (there.0 - offset, there.1 - position);
        (header.first_time, header.blocks) = (first.time, heads.len() as u32);
        let faults = [Damage::Header, Damage::Footer].map(|damage| Fault {
            at: if damage == Damage::Header { 0 } else { header.footer_at },
            damage,
            lost: 0..0,
        });
        let places = places_of(&heads);
        let mut segment = Segment { file, file_bytes, header, heads, places, faults: faults.into() };
        let block = segment.read_block(segment.blocks() - 1)?;
        // The time of a damaged entry is anybody's guess, and the next record must not be before it.
        let entries_good = block.good_parts().0;
        segment.header.last_time = block.time(block.records() - 1);
        Ok(entries_good.then_some(segment))
    }

    /// Whether something that [`Segment::check`] found can be made good by [`Segment::mend`].
    pub fn is_mendable(&self, fault: &Fault) -> io::Result<bool> {
        if !self.is_reached() {
            return Ok(false);
        }
        match fault.damage {
            Damage::Header | Damage::Footer | Damage::BlockHead => Ok(fault.lost.is_empty()),
            Damage::Entries => {
                let block = self.places.iter().position(|place| place + HEAD_BYTES as u64 == fault.at);
                Ok(block.map(|i| self.table(i)).transpose()?.flatten().is_some())
            }
            _ => Ok(false),
        }
    }

    /// All blocks are known, and the file has room for them.
    fn is_reached(&self) -> bool {
        let end = self.places.last().zip(self.heads.last()).map(|(place, head)| place + head.file_bytes());
        self.heads.last().is_some_and(|last| last.end_offset() == self.header.end_offset())
            && end == Some(self.header.footer_at)
            && self.header.footer_at <= self.file_bytes
    }

    /// A damaged table made again: it is the right one if it has the checksum that the block's head says.
    fn table(&self, i: usize) -> io::Result<Option<Vec<u8>>> {
        let block = self.read_block(i)?;
        if block.good_parts() != (false, true) {
            return Ok(None);
        }
        Ok(block.table_of_records().filter(|table| crc32c(table) == self.heads[i].entries_crc))
    }

    /// Writes the segment anew at `path`, with a whole index; fails, and changes nothing, if it would not be better
    /// than before.
    pub fn mend(&self, path: &Path) -> Result<()> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let written = self.write_beside(&beside).and_then(|()| self.compare(&beside));
        if let Err(e) = written {
            let _ = fs::remove_file(&beside);
            return Err(e);
        }
        fs::rename(&beside, path)?;
        Ok(sync_directory(path.parent().unwrap_or(Path::new(".")))?)
    }

    fn write_beside(&self, beside: &Path) -> Result<()> {
        let mut file = plain::create(beside)?;
        let (mut at, mut chunk) = (0, Vec::new());
        while at < self.header.footer_at {
            chunk.resize((self.header.footer_at - at).min(CHUNK_BYTES) as usize, 0);
            let there = read_there(&self.file, &mut chunk, at)?;
            file.write_all(&chunk[..there])?;
            if there < chunk.len() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            at += there as u64;
        }
        let header = self.header.encode();
        file.write_all_at(&header, 0)?;
        let mut footer = Vec::new();
        for (i, (head, place)) in self.heads.iter().zip(&self.places).enumerate() {
            file.write_all_at(&head.encode(), *place)?;
            if let Some(table) = self.table(i)? {
                file.write_all_at(&table, place + HEAD_BYTES as u64)?;
            }
            footer.extend_from_slice(&head.encode());
        }
        footer.extend_from_slice(&header);
        let (footer_at, blocks) = (self.header.footer_at, self.heads.len() as u32);
        let tail = Tail { footer_at, blocks, footer_crc: crc32c(&footer) };
        footer.extend_from_slice(&tail.encode());
        file.write_all(&footer)?;
        Ok(file.sync_all()?)
    }

    /// What was written has nothing wrong but what can't be made good.
    fn compare(&self, beside: &Path) -> Result<()> {
        let new = Segment::open(beside)?;
        let (before, after) = (self.check()?, new.check()?);
        let mut better = new.header == self.header && after.iter().all(|fault| before.contains(fault));
        for fault in &after {
            better &= !new.is_mendable(fault)?;
        }
        if better { Ok(()) } else { Err(io::Error::other("the segment could not be written anew").into()) }
    }
}

/// Length of the footer of so many blocks.
fn footer_bytes(blocks: usize) -> u64 {
    (blocks * HEAD_BYTES + HEADER_BYTES + TAIL_BYTES) as u64
}
