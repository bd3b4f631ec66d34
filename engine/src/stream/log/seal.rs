//! Sealing: records leave the active file's front for a segment.
//!
//! 1. A [`Piece`] is a copy of the index of the first records, as many as a segment has, and the file's
//!    descriptor.
//! 2. [`Piece::write`] reads them, compresses, writes the segment, syncs and names it. This takes as long as
//!    it takes, and borrows nothing of the log.
//! 3. [`Log::install`] takes the records out of the index and notes in the active file's name how far it is
//!    sealed.
//!
//! A record whose bytes have changed since it was indexed is written with the checksum that it had: it stays
//! lost.

use super::index::Index;
use super::names::Name;
use super::{Log, LogConfig, Sealed};
use crate::stream::segment::{Writer, Written, read_there};
use crate::stream::{Error, Micros, Result};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes read from the active file at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Piece {
    file: Arc<File>,
    /// Where in the file the first record begins.
    file_at: u64,
    index: Index,
    path: PathBuf,
    config: LogConfig,
}

impl Piece {
    /// Writes the segment; [`Log::install`] takes it over. If that never happens, the next opening of the log
    /// does.
    pub fn write(self) -> Result<Written> {
        let index = &self.index;
        let begin = (index.offset, index.position);
        let LogConfig { framing, compression, block_bytes, .. } = self.config;
        let mut writer = Writer::create(&self.path, framing, begin, compression, block_bytes)?;
        let mut chunk = Vec::new();
        let mut times = index.times_from(0);
        let mut next = 0;
        while next < index.len() {
            let from = index.position_of(next);
            let mut bytes = u64::from(index.length(next));
            let mut end = next + 1;
            while end < index.len() && bytes + u64::from(index.length(end)) <= CHUNK_BYTES {
                bytes += u64::from(index.length(end));
                end += 1;
            }
            // What the file does not have any more reads as zeros, which don't have the checksums.
            chunk.clear();
            chunk.resize(bytes as usize, 0);
            read_there(&self.file, &mut chunk, self.file_at + from - index.position)?;
            let mut rest = &chunk[..];
            for (i, time) in (next..end).zip(&mut times) {
                let (record, behind) = rest.split_at(index.length(i) as usize);
                writer.push(record, time, index.crc(i))?;
                rest = behind;
            }
            next = end;
        }
        Ok(writer.finish()?)
    }
}

impl Log {
    /// Whether the active records come to a whole segment; never of a log that was opened for reading only.
    pub fn is_full(&self) -> bool {
        self.active_bytes() >= self.config.segment_bytes && self.active.changeable().is_ok()
    }

    /// The next piece to be sealed, once the active records come to a whole segment.
    pub fn full_piece(&self) -> Option<Piece> {
        self.is_full().then(|| self.piece())
    }

    /// The active file's first records, up to the one that fills a segment.
    fn piece(&self) -> Piece {
        let active = &self.active;
        let records = active.index.first_bytes(self.config.segment_bytes);
        let (offset, position) = (active.index.offset, active.index.position);
        Piece {
            file: Arc::clone(&active.file),
            file_at: active.front_bytes(),
            index: active.index.part(0..records),
            path: self.directory.join(Name::Sealed { offset, position }.text()),
            config: self.config,
        }
    }

    /// Takes over a piece that was written. Pieces are taken over in their order.
    pub fn install(&mut self, written: &Written) -> Result<()> {
        self.active.changeable()?;
        let header = &written.header;
        let index = &self.active.index;
        if (header.offset, header.position) != (index.offset, index.position) {
            return Err(Error::Settings("the piece is not the next one of this log"));
        }
        let (offset, position) = (header.offset, header.position);
        self.sealed.push(Sealed { offset, position, name: Name::Sealed { offset, position }.text() });
        let front = self.active.sealed(header.records as usize)?;
        self.hot.keep(front);
        Ok(())
    }

    /// Seals whole segments while there are any, and returns how many that were. The active file is kept, for
    /// whoever appends to it.
    pub fn seal_full(&mut self) -> Result<usize> {
        self.active.changeable()?;
        let mut sealed = 0;
        while let Some(piece) = self.full_piece() {
            self.install(&piece.write()?)?;
            sealed += 1;
        }
        Ok(sealed)
    }

    /// Indexes what is new at the time `now`, seals all of it, sets aside what is behind it, and goes on in a
    /// new active file. Returns how many segments were sealed. Nobody else may be appending: what comes to
    /// the old file afterwards is lost.
    pub fn seal(&mut self, now: Micros) -> Result<usize> {
        self.active.index_new_bytes(now.0)?;
        let mut sealed = 0;
        while self.active.index.len() > 0 {
            self.install(&self.piece().write()?)?;
            sealed += 1;
        }
        self.active.set_tail_aside()?;
        self.hot.clear();
        self.active.begin_anew(&self.config)?;
        Ok(sealed)
    }
}
