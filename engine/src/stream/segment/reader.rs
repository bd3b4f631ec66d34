//! Opens a segment and reads its blocks.
//!
//! Opening reads the header and the footer, whatever the segment's size. Either is believed by its checksums.
//! Without a footer the blocks' heads are visited one by one, each saying where the next one is; the first
//! that is damaged too ends that, and what lies behind is lost. Without a header the footer's copy is taken.
//! Without both there is nothing to go by.

use super::block::Block;
use super::layout::{Codec, HEAD_BYTES, HEADER_BYTES, Head, Header, HeaderRead, TAIL_BYTES, Tail, VERSION};
use crate::stream::{Damage, Error, Result};
use crc32c::crc32c;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// See the module.
#[derive(Debug)]
pub struct Segment {
    pub(super) file: File,
    pub(super) file_bytes: u64,
    pub(super) header: Header,
    pub(super) heads: Vec<Head>,
    /// Where in the file each head is.
    pub(super) places: Vec<u64>,
    /// What opening found.
    pub(super) faults: Vec<Fault>,
}

/// Something wrong with a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Place in the file.
    pub at: u64,
    /// What is wrong there.
    pub damage: Damage,
    /// Offsets of the records that are lost by it.
    pub lost: Range<u64>,
}

impl Segment {
    /// Opens the segment at `path`.
    pub fn open(path: &Path) -> Result<Segment> {
        let name = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let newer = |version| Error::Newer { file: name(), version, known: VERSION };
        let file = open_to_read(path)?;
        let file_bytes = file.metadata()?.len();
        let mut faults = Vec::new();
        let mut front = [0; HEADER_BYTES];
        let there = read_there(&file, &mut front, 0)?;
        let front = match Header::decode(&front[..there]) {
            HeaderRead::Newer(version) => return Err(newer(version)),
            HeaderRead::Good(header) => Some(header),
            HeaderRead::Damaged => None,
        };
        let footer = read_footer(&file, file_bytes)?;
        let (header, heads) = match (front, footer) {
            (front, Some((header, heads))) => {
                if front.is_none() {
                    faults.push(Fault { at: 0, damage: Damage::Header, lost: 0..0 });
                }
                (header, heads)
            }
            (Some(header), None) => {
                faults.push(Fault {
                    at: header.footer_at.min(file_bytes),
                    damage: Damage::Footer,
                    lost: 0..0,
                });
                let heads = scan(&file, file_bytes, &header)?;
                (header, heads)
            }
            (None, None) => return Err(Error::NotSegment { file: name() }),
        };
        let places = places_of(&heads);
        let at = HEADER_BYTES as u64 + heads.iter().map(Head::file_bytes).sum::<u64>();
        let reached = heads.last().map_or(header.offset, Head::end_offset);
        if reached < header.end_offset() {
            let damage = if is_cut(&file, file_bytes, at)? { Damage::Cut } else { Damage::BlockHead };
            faults.push(Fault { at: at.min(file_bytes), damage, lost: reached..header.end_offset() });
        }
        Ok(Segment { file, file_bytes, header, heads, places, faults })
    }

    /// What the segment says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Number of blocks that can be reached.
    pub fn blocks(&self) -> usize {
        self.heads.len()
    }

    /// Offset of a block's first record.
    pub fn block_offset(&self, i: usize) -> u64 {
        self.heads[i].offset
    }

    /// The block that has, or is the last one before, the record with this offset.
    pub fn block_of_offset(&self, offset: u64) -> Option<usize> {
        self.heads.partition_point(|head| head.offset <= offset).checked_sub(1)
    }

    /// The block that has, or is the last one before, the byte at this position.
    pub fn block_of_position(&self, position: u64) -> Option<usize> {
        self.heads.partition_point(|head| head.position <= position).checked_sub(1)
    }

    /// The last block that begins before `time`: the first record at or after it is in this block or begins
    /// the next.
    pub fn block_before_time(&self, time: u64) -> Option<usize> {
        self.heads.partition_point(|head| head.time < time).checked_sub(1)
    }

    /// Records and bytes of a block.
    pub fn block_extent(&self, i: usize) -> (usize, usize) {
        (self.heads[i].records as usize, self.heads[i].raw_bytes as usize)
    }

    /// Position of a block's first byte.
    pub fn block_position(&self, i: usize) -> u64 {
        self.heads[i].position
    }

    /// Reads and unpacks a block's bytes into `into`, which has their length, if all of them are as they were written;
    /// false if not, or if that is not known without the table. `stored` is room to work in.
    pub fn unpack(&self, i: usize, into: &mut [u8], stored: &mut Vec<u8>) -> io::Result<bool> {
        let head = self.heads[i];
        if head.damaged != 0 || into.len() != head.raw_bytes as usize {
            return Ok(false);
        }
        let at = self.places[i] + HEAD_BYTES as u64 + head.entries_bytes() as u64;
        if at + u64::from(head.stored_bytes) > self.file_bytes {
            return Ok(false);
        }
        stored.resize(head.stored_bytes as usize, 0);
        let there = read_there(&self.file, stored, at)?;
        if there < stored.len() || crc32c(stored) != head.stored_crc {
            return Ok(false);
        }
        Ok(match head.codec {
            Codec::Raw if stored.len() == into.len() => {
                into.copy_from_slice(stored);
                true
            }
            Codec::Raw => false,
            Codec::Lz4 => lz4_flex::block::decompress_into(stored, into).is_ok_and(|n| n == into.len()),
        })
    }

    /// Reads and unpacks a block. Damage is no error here: the block knows which records are lost.
    pub fn read_block(&self, i: usize) -> io::Result<Block> {
        let head = self.heads[i];
        let at = self.places[i] + HEAD_BYTES as u64;
        // A file that was cut has no room for all that its head promises.
        let room = self.file_bytes.saturating_sub(at).min(head.body_bytes() as u64);
        let mut body = vec![0; room as usize];
        let present = read_there(&self.file, &mut body, at)?;
        Ok(Block::decode(head, &body, present))
    }

    /// Reads all of it, and says what is wrong.
    pub fn check(&self) -> io::Result<Vec<Fault>> {
        let mut faults = self.faults.clone();
        for (i, head) in self.heads.iter().enumerate() {
            let at = self.places[i];
            let mut bytes = [0; HEAD_BYTES];
            let there = read_there(&self.file, &mut bytes, at)?;
            if Head::decode(&bytes[..there]) != Some(*head) {
                faults.push(Fault { at, damage: Damage::BlockHead, lost: 0..0 });
            }
            let block = self.read_block(i)?;
            let table_at = at + HEAD_BYTES as u64;
            let stored_at = table_at + head.entries_bytes() as u64;
            let (entries_good, stored_good) = block.good_parts();
            if !entries_good {
                faults.push(Fault { at: table_at, damage: Damage::Entries, lost: 0..0 });
            }
            if !stored_good {
                faults.push(Fault { at: stored_at, damage: Damage::Stored, lost: 0..0 });
            }
            let mut record = 0;
            while record < block.records() {
                let end = block.run_end(record);
                if block.is_lost(record) {
                    let lost = head.offset + record as u64..head.offset + end as u64;
                    faults.push(Fault { at: stored_at, damage: Damage::Records, lost });
                }
                record = end;
            }
        }
        Ok(faults)
    }
}

/// The footer's copy of the header, and the heads; `None` if anything of it is not as it was written.
fn read_footer(file: &File, file_bytes: u64) -> io::Result<Option<(Header, Vec<Head>)>> {
    let Some(tail_at) = file_bytes.checked_sub(TAIL_BYTES as u64) else { return Ok(None) };
    let mut tail = [0; TAIL_BYTES];
    let there = read_there(file, &mut tail, tail_at)?;
    let Some(tail) = Tail::decode(&tail[..there]) else { return Ok(None) };
    let heads_bytes = u64::from(tail.blocks) * HEAD_BYTES as u64;
    if tail.footer_at.checked_add(heads_bytes + HEADER_BYTES as u64) != Some(tail_at) {
        return Ok(None);
    }
    let mut bytes = vec![0; (tail_at - tail.footer_at) as usize];
    let there = read_there(file, &mut bytes, tail.footer_at)?;
    if there < bytes.len() || crc32c(&bytes) != tail.footer_crc {
        return Ok(None);
    }
    let (heads, copy) = bytes.split_at(heads_bytes as usize);
    let HeaderRead::Good(header) = Header::decode(copy) else { return Ok(None) };
    let Some(heads) = heads.chunks_exact(HEAD_BYTES).map(Head::decode).collect::<Option<Vec<Head>>>() else {
        return Ok(None);
    };
    let in_row = (0..heads.len()).all(|i| follows(&header, heads[..i].last(), &heads[i]));
    let blocks_bytes: u64 = heads.iter().map(Head::file_bytes).sum();
    let whole = in_row
        && HEADER_BYTES as u64 + blocks_bytes == tail.footer_at
        && heads.last().map_or(header.offset, Head::end_offset) == header.end_offset();
    Ok(whole.then_some((header, heads)))
}

/// Where in the file each head is.
pub(super) fn places_of(heads: &[Head]) -> Vec<u64> {
    let mut at = HEADER_BYTES as u64;
    heads
        .iter()
        .map(|head| {
            at += head.file_bytes();
            at - head.file_bytes()
        })
        .collect()
}

/// The heads as they are found from the front, up to the first that is damaged.
pub(super) fn scan(file: &File, file_bytes: u64, header: &Header) -> io::Result<Vec<Head>> {
    let mut heads: Vec<Head> = Vec::new();
    let mut at = HEADER_BYTES as u64;
    while heads.len() < header.blocks as usize && at < file_bytes.min(header.footer_at) {
        let mut bytes = [0; HEAD_BYTES];
        let there = read_there(file, &mut bytes, at)?;
        let Some(head) = Head::decode(&bytes[..there]) else { break };
        if !follows(header, heads.last(), &head) {
            break;
        }
        if at + (HEAD_BYTES + head.entries_bytes()) as u64 > file_bytes {
            // Cut before the end of its table: no record of it can be found.
            break;
        }
        heads.push(head);
        at += head.file_bytes();
    }
    Ok(heads)
}

/// Whether the file ends before the table of the block at `at` does.
fn is_cut(file: &File, file_bytes: u64, at: u64) -> io::Result<bool> {
    let mut bytes = [0; HEAD_BYTES];
    let there = read_there(file, &mut bytes, at.min(file_bytes))?;
    let head = Head::decode(&bytes[..there]);
    Ok(there < HEAD_BYTES
        || head.is_some_and(|head| at + (HEAD_BYTES + head.entries_bytes()) as u64 > file_bytes))
}

/// Whether a block begins where the one before it ends, or the segment does.
fn follows(header: &Header, last: Option<&Head>, head: &Head) -> bool {
    let begin =
        last.map_or((header.offset, header.position), |last| (last.end_offset(), last.end_position()));
    begin == (head.offset, head.position) && head.end_offset() <= header.end_offset()
}

/// Opens a file of a log to look at it: without a trace in its time of access where that is allowed, without following a
/// link, and without waiting where it is a pipe.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        // Only the owner may leave no trace.
        Err(Errno::PERM) => Ok(rustix::fs::open(path, flags, Mode::empty())?.into()),
        opened => Ok(opened?.into()),
    }
}

/// Reads what of `into` the file has at this place: less than all of it at the file's end only.
pub(crate) fn read_there(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], at + done as u64) {
            Ok(0) => break,
            Ok(bytes) => done += bytes,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
