//! Writes one segment.
//!
//! 1. Records are gathered until they come to a block, which is compressed and written with its head and
//!    table.
//! 2. At the end come the footer and, over the place kept for it, the header.
//! 3. The file is synced, renamed and its directory synced. Until then it has another name, which nothing
//!    reads.
//!
//! Memory: one block and its compressed form; 60 bytes a block for the footer.

use super::Compression;
use super::layout::{Codec, Entry, HEADER_BYTES, Head, Header, Tail, check_of};
use crate::failpoint;
use crate::stream::{Framing, plain};
use crc32c::{crc32c, crc32c_append};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// See the module. Dropped before [`Writer::finish`] it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    /// What is written to, and its name, until it has the other one.
    file: File,
    beside: PathBuf,
    finished: bool,
    compression: Compression,
    block_bytes: usize,
    header: Header,
    heads: Vec<Head>,
    /// The block that is being gathered; its head is complete but for what the end tells.
    raw: Vec<u8>,
    entries: Vec<u8>,
    records: u32,
    damaged: u32,
    time: u64,
}

/// A finished segment.
#[derive(Debug, Clone)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// What it says of itself.
    pub header: Header,
    /// Length of the file.
    pub file_bytes: u64,
}

impl Writer {
    /// A segment that will be at `path` and whose first record has this offset and position. A block is
    /// closed when it has `block_bytes`.
    pub fn create(
        path: &Path,
        framing: Framing,
        (offset, position): (u64, u64),
        compression: Compression,
        block_bytes: u32,
    ) -> io::Result<Writer> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        let mut file = plain::create(&beside)?;
        file.write_all(&[0; HEADER_BYTES])?;
        let header = Header {
            framing,
            offset,
            position,
            records: 0,
            bytes: 0,
            first_time: 0,
            last_time: 0,
            footer_at: HEADER_BYTES as u64,
            blocks: 0,
        };
        Ok(Writer {
            path: path.into(),
            file,
            beside,
            finished: false,
            compression,
            block_bytes: block_bytes as usize,
            header,
            heads: Vec::new(),
            raw: Vec::new(),
            entries: Vec::new(),
            records: 0,
            damaged: 0,
            time: 0,
        })
    }

    /// Adds a record: its bytes in the stream (at least one), its time, which is not before the last
    /// record's, and its CRC32C when it was indexed. If the bytes don't have it any more, the record is kept
    /// as a damaged one.
    pub fn push(&mut self, bytes: &[u8], time: u64, crc: u32) -> io::Result<()> {
        let time = time.max(self.header.last_time);
        let full = !self.raw.is_empty() && self.raw.len() + bytes.len() > self.block_bytes;
        // The delay in an entry has 32 bits of microseconds: the next hour begins a new block.
        if full || (self.records > 0 && time - self.time > u64::from(u32::MAX)) {
            self.end_block()?;
        }
        if self.records == 0 {
            self.time = time;
        }
        if self.header.records == 0 {
            self.header.first_time = time;
        }
        let delay = (time - self.time) as u32;
        self.damaged += u32::from(crc32c(bytes) != crc);
        Entry { length: bytes.len() as u32, delay, check: check_of(crc, delay) }.encode(&mut self.entries);
        self.raw.extend_from_slice(bytes);
        self.records += 1;
        self.header.records += 1;
        self.header.bytes += bytes.len() as u64;
        self.header.last_time = time;
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        if self.records == 0 {
            return Ok(());
        }
        let packed = match self.compression {
            Compression::Lz4 => lz4_flex::block::compress(&self.raw),
            Compression::None => Vec::new(),
        };
        let smaller = !packed.is_empty() && packed.len() < self.raw.len();
        let (codec, stored) = if smaller { (Codec::Lz4, &packed) } else { (Codec::Raw, &self.raw) };
        let raw_bytes = self.raw.len() as u32;
        let head = Head {
            codec,
            offset: self.header.end_offset() - u64::from(self.records),
            position: self.header.end_position() - u64::from(raw_bytes),
            time: self.time,
            records: self.records,
            raw_bytes,
            stored_bytes: stored.len() as u32,
            damaged: self.damaged,
            stored_crc: crc32c(stored),
            entries_crc: crc32c(&self.entries),
        };
        self.file.write_all(&head.encode())?;
        self.file.write_all(&self.entries)?;
        self.file.write_all(stored)?;
        self.header.footer_at += head.file_bytes();
        self.header.blocks += 1;
        self.heads.push(head);
        self.raw.clear();
        self.entries.clear();
        (self.records, self.damaged) = (0, 0);
        Ok(())
    }

    /// Writes what is left, makes the segment durable and gives it its name, in place of what had it.
    pub fn finish(mut self) -> io::Result<Written> {
        self.end_block()?;
        let header = self.header.encode();
        let mut footer: Vec<u8> = self.heads.iter().flat_map(Head::encode).collect();
        let footer_crc = crc32c_append(crc32c(&footer), &header);
        footer.extend_from_slice(&header);
        let tail = Tail { footer_at: self.header.footer_at, blocks: self.header.blocks, footer_crc };
        footer.extend_from_slice(&tail.encode());
        self.file.write_all(&footer)?;
        self.file.write_all_at(&header, 0)?;
        self.file.sync_all()?;
        failpoint::pass("before", "segment-named");
        fs::rename(&self.beside, &self.path)?;
        failpoint::pass("after", "segment-named");
        self.finished = true;
        sync_directory(self.path.parent().unwrap_or(Path::new(".")))?;
        let file_bytes = self.header.footer_at + footer.len() as u64;
        Ok(Written { path: self.path.clone(), header: self.header, file_bytes })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is removed when the log is opened the next time.
            let _ = fs::remove_file(&self.beside);
        }
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
