//! The active file and its index.
//!
//! The file is read by a descriptor that can't write. One that can is opened for our own appends only, and
//! kept until it is given back: the kernel takes a file with one for a file that may still change.
//!
//! Byte `skip` of the file is the stream's byte `begin`; what is before it was sealed. Both are as they were
//! when the file was opened; how far it is sealed by now says the index, and the file's name.

use super::LogConfig;
use super::index::Index;
use super::marks::{self, Mark};
use super::names::Name;
use super::recover::Begin;
use crate::failpoint;
use crate::stream::segment::{open_to_read, read_there, sync_directory};
use crate::stream::{Error, Framing, FramingError, Micros, Result, Splitter, plain};
use crc32c::{crc32c, crc32c_append};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes read at a time while indexing: what a second-level cache holds, so that checksums find them there.
const CHUNK_BYTES: u64 = 1 << 20;

/// An empty file, to stand for one that is missing and may not be made.
const NOTHING: &str = "/dev/null";

/// See the module.
#[derive(Debug)]
pub(super) struct Active {
    /// Where the file is.
    pub directory: PathBuf,
    /// Where bytes go that are no record.
    aside: PathBuf,
    framing: Framing,
    bytes_max: u64,
    name: Name,
    pub file: Arc<File>,
    writer: Option<File>,
    marks: Option<File>,
    begin: u64,
    skip: u64,
    pub index: Index,
    splitter: Splitter,
    /// CRC32C of the bytes of the incomplete record that the splitter has seen.
    pending_crc: u32,
    /// How far the file was looked at.
    seen: u64,
    refused: Option<FramingError>,
    /// The lowest position at which the file was cut since a copy of it asked.
    pub cut: Option<u64>,
    /// Time of the last record; the next is not before it.
    last_time: u64,
    chunk: Vec<u8>,
    /// Everything that would change a file is refused.
    read_only: bool,
}

impl Active {
    /// Opens, or makes, the file with the name that says that its byte `skip` is the first of record
    /// `offset`.
    pub fn open(
        (directory, aside): (&Path, &Path),
        config: &LogConfig,
        (offset, position, skip): Begin,
        last_time: u64,
    ) -> Result<Active> {
        let name = Name::Active { offset, position, skip };
        let path = directory.join(name.text());
        let new = matches!(fs::symlink_metadata(&path), Err(e) if e.kind() == io::ErrorKind::NotFound);
        if new {
            plain::create(&path)?.sync_all()?;
            sync_directory(directory)?;
        }
        let file = open_to_read(&path)?;
        let changed = Micros::from(file.metadata()?.modified()?).0;
        let mut active = Active::of(directory, aside, config, (offset, position, skip), file);
        active.last_time = last_time;
        match config.framing {
            Framing::Write => {
                active.index_marked(marks::read(directory)?)?;
                // Marks of others, behind which those of the next records would not be found, must go.
                marks::put_right(directory, &active.index)?;
            }
            _ => active.index_new_bytes(changed).map(drop)?,
        }
        if !new {
            // Whatever was trimmed since was not later than this: times don't go back behind it either.
            active.last_time = active.last_time.max(changed);
        }
        Ok(active)
    }

    /// The same without changing anything, then or later. The `file` has the name that says `named`, which
    /// may be less than is sealed by now; it is indexed from `begin` on. Nothing is there if there is none.
    pub fn open_read_only(
        directory: &Path,
        config: &LogConfig,
        file: Option<(Begin, File)>,
        begin: Begin,
        last_time: u64,
    ) -> Result<Active> {
        let (named, file) = match file {
            Some((named, file)) => (named, file),
            None => (begin, File::open(NOTHING)?),
        };
        let changed = Micros::from(file.metadata()?.modified()?).0;
        let mut active = Active::of(directory, directory, config, begin, file);
        active.last_time = last_time;
        active.name = Name::Active { offset: named.0, position: named.1, skip: named.2 };
        match config.framing {
            Framing::Write => active.index_marked(marks::read(directory)?)?,
            _ => active.index_new_bytes(changed).map(drop)?,
        }
        active.read_only = true;
        Ok(active)
    }

    /// Nothing is indexed yet.
    fn of(
        directory: &Path,
        aside: &Path,
        config: &LogConfig,
        (offset, position, skip): Begin,
        file: File,
    ) -> Active {
        Active {
            directory: directory.into(),
            aside: aside.into(),
            framing: config.framing,
            bytes_max: config.segment_bytes,
            name: Name::Active { offset, position, skip },
            file: Arc::new(file),
            writer: None,
            marks: None,
            begin: position,
            skip,
            index: Index::new(offset, position),
            splitter: Splitter::new(config.framing, config.segment_bytes, position),
            pending_crc: 0,
            seen: skip,
            refused: None,
            cut: None,
            last_time: 0,
            chunk: Vec::new(),
            read_only: false,
        }
    }

    /// Refuses changes of a log that was opened for reading only.
    pub fn changeable(&self) -> Result<()> {
        if self.read_only { Err(Error::ReadOnly) } else { Ok(()) }
    }

    pub fn path(&self) -> PathBuf {
        self.directory.join(self.name.text())
    }

    pub fn framing(&self) -> Framing {
        self.framing
    }

    pub fn file_name(&self) -> String {
        self.name.text()
    }

    pub fn seen(&self) -> u64 {
        self.seen
    }

    pub fn refused(&self) -> Option<FramingError> {
        self.refused
    }

    /// Where in the file a byte of the stream is.
    pub fn file_at(&self, position: u64) -> u64 {
        position - self.begin + self.skip
    }

    /// Where in the stream a byte of the file is.
    pub fn position_at(&self, file_at: u64) -> u64 {
        (self.begin + file_at).saturating_sub(self.skip)
    }

    pub fn front_bytes(&self) -> u64 {
        self.file_at(self.index.position)
    }

    /// Bytes behind the last whole record.
    pub fn pending_bytes(&self) -> Result<u64> {
        Ok(self.file.metadata()?.len().saturating_sub(self.file_at(self.index.end_position())))
    }

    /// Whether the marks beside are those of the records, where there are such.
    pub fn marks_agree(&self) -> Result<bool> {
        Ok(self.framing != Framing::Write || marks::agree(&self.directory, &self.index)?)
    }

    pub fn sync(&self) -> Result<()> {
        self.file.sync_data()?;
        if let Some(marks) = &self.marks {
            marks.sync_data()?;
        }
        Ok(())
    }

    pub fn close_writer(&mut self) {
        (self.writer, self.marks) = (None, None);
    }

    /// See [`super::Log::index_new_bytes`]; returns how many records were new.
    pub fn index_new_bytes(&mut self, now: u64) -> Result<u64> {
        self.index_some(now, u64::MAX)
    }

    /// The same, of at most so many bytes.
    pub fn index_some(&mut self, now: u64, bytes_max: u64) -> Result<u64> {
        self.changeable()?;
        let before = self.index.end_offset();
        if self.framing == Framing::Write || self.refused.is_some() {
            return Ok(0);
        }
        let end = self.file.metadata()?.len().min(self.seen.saturating_add(bytes_max));
        let mut chunk = std::mem::take(&mut self.chunk);
        while self.seen < end && self.refused.is_none() {
            chunk.resize((end - self.seen).min(CHUNK_BYTES) as usize, 0);
            let there = read_there(&self.file, &mut chunk, self.seen)?;
            if there == 0 {
                break;
            }
            self.index_bytes(&chunk[..there], now);
            self.seen += there as u64;
        }
        self.chunk = chunk;
        Ok(self.index.end_offset() - before)
    }

    fn index_bytes(&mut self, mut bytes: &[u8], now: u64) {
        while !bytes.is_empty() {
            let pending = self.splitter.pending_bytes();
            match self.splitter.next(bytes) {
                Ok(Some(end)) => {
                    let (record, rest) = bytes.split_at(end);
                    let crc = crc32c_append(self.pending_crc, record);
                    self.push((pending + end as u64) as u32, crc, now);
                    self.pending_crc = 0;
                    bytes = rest;
                }
                Ok(None) => {
                    self.pending_crc = crc32c_append(self.pending_crc, bytes);
                    return;
                }
                Err(refused) => {
                    self.refused = Some(refused);
                    return;
                }
            }
        }
    }

    fn push(&mut self, length: u32, crc: u32, time: u64) {
        self.last_time = self.last_time.max(time);
        self.index.push(length, crc, self.last_time);
    }

    /// Enters the records that have marks. Where marks are missing between two others, their records are
    /// entered with checksums that their bytes don't have: they are lost, but keep their offsets. Ends at marks
    /// of records that are not there.
    fn index_marked(&mut self, marks: Vec<Mark>) -> Result<()> {
        let end = self.file.metadata()?.len();
        for mark in marks {
            let (offset, position) = (self.index.end_offset(), self.index.end_position());
            if mark.offset < offset || mark.position < position {
                continue;
            }
            let (records, bytes) = (mark.offset - offset, mark.position - position);
            let there = self.file_at(mark.position) + u64::from(mark.length) <= end;
            if !there || records > bytes || (records == 0 && bytes > 0) {
                break;
            }
            self.enter_lost(records, bytes, mark.time)?;
            self.push(mark.length, mark.crc, mark.time);
        }
        Ok(())
    }

    fn enter_lost(&mut self, records: u64, bytes: u64, time: u64) -> Result<()> {
        for left in (1..=records).rev() {
            let length = if left > 1 { 1 } else { bytes - (records - 1) };
            let mut is = vec![0; length as usize];
            read_there(&self.file, &mut is, self.file_at(self.index.end_position()))?;
            self.push(length as u32, !crc32c(&is), time);
        }
        Ok(())
    }

    /// See [`super::Log::append`]; returns the record's offset.
    pub fn append(&mut self, record: &[u8], now: u64) -> Result<u64> {
        self.changeable()?;
        self.framing.check_record(record, self.bytes_max)?;
        self.index_new_bytes(now)?;
        if self.pending_bytes()? > 0 {
            self.set_tail_aside()?;
        }
        let end = self.file_at(self.index.end_position());
        if self.file.metadata()?.len() < end {
            return Err(cut());
        }
        if let Err(e) = self.write(record, now) {
            // Only what we know of stays: part of a record would be taken for the beginning of the next.
            if let Some(writer) = &self.writer {
                writer.set_len(end)?;
            }
            return Err(e);
        }
        if self.framing == Framing::Write {
            self.push(record.len() as u32, crc32c(record), now);
        } else if self.index_new_bytes(now)? == 0 {
            return Err(cut());
        }
        Ok(self.index.end_offset() - 1)
    }

    /// The record's bytes and, where it needs one, its mark.
    fn write(&mut self, record: &[u8], now: u64) -> Result<()> {
        let path = self.path();
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => none.insert(plain::options().append(true).open(path)?),
        };
        writer.write_all(record)?;
        if self.framing != Framing::Write {
            return Ok(());
        }
        let marks = match &mut self.marks {
            Some(marks) => marks,
            none => none.insert(marks::open(&self.directory)?),
        };
        let mark = Mark {
            offset: self.index.end_offset(),
            position: self.index.end_position(),
            time: self.last_time.max(now),
            length: record.len() as u32,
            crc: crc32c(record),
        };
        Ok(marks::add(marks, mark)?)
    }

    /// See [`super::Log::set_tail_aside`].
    pub fn set_tail_aside(&mut self) -> Result<u64> {
        self.changeable()?;
        let position = self.index.end_position();
        let (from, bytes) = (self.file_at(position), self.pending_bytes()?);
        if bytes > 0 {
            let aside = self.aside.join(Name::Torn { position }.text());
            let mut aside = plain::options().append(true).create(true).open(aside)?;
            let mut tail = vec![0; bytes as usize];
            let there = read_there(&self.file, &mut tail, from)?;
            aside.write_all(&tail[..there])?;
            aside.sync_all()?;
            sync_directory(&self.aside)?;
            plain::options().write(true).open(self.path())?.set_len(from)?;
            self.cut = Some(self.cut.unwrap_or(u64::MAX).min(position));
        }
        self.splitter = Splitter::new(self.framing, self.bytes_max, position);
        (self.seen, self.pending_crc, self.refused) = (from, 0, None);
        Ok(bytes)
    }

    /// Takes the first records, which are sealed now, out of the index, and notes that in the file's name.
    pub fn sealed(&mut self, records: usize) -> Result<Index> {
        let front = self.index.split_front(records);
        let (offset, position) = (self.index.offset, self.index.position);
        let name = Name::Active { offset, position, skip: self.file_at(position) };
        failpoint::pass("before", "active-renamed");
        fs::rename(self.path(), self.directory.join(name.text()))?;
        failpoint::pass("after", "active-renamed");
        self.name = name;
        sync_directory(&self.directory)?;
        if self.framing == Framing::Write {
            self.marks = None;
            marks::rewrite(&self.directory, &self.index)?;
        }
        Ok(front)
    }

    /// Goes on in a new file. All records are sealed, and there is no tail.
    pub fn begin_anew(&mut self, config: &LogConfig) -> Result<()> {
        if self.front_bytes() == 0 {
            return Ok(());
        }
        let old = self.path();
        let begin = (self.index.offset, self.index.position, 0);
        *self = Active::open((&self.directory, &self.aside), config, begin, self.last_time)?;
        fs::remove_file(old)?;
        Ok(())
    }
}

/// Somebody has cut the active file: what would be appended would not be where records are looked for.
fn cut() -> Error {
    io::Error::new(io::ErrorKind::InvalidData, "the active file is shorter than what was indexed of it")
        .into()
}

/// Length of a file; 0 if there is none.
pub(in crate::stream) fn length_of(path: &Path) -> io::Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.len()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(e) => Err(e),
    }
}
