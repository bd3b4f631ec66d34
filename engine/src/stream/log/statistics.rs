//! What there is to say of a log in numbers.

use super::Log;
use super::active::length_of;
use super::names::{self, Name};
use crate::stream::{Micros, Offset, Result};
use std::path::PathBuf;

/// A log in numbers, as of what is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// The first record that is retained.
    pub first: Offset,
    /// Behind the last record.
    pub end: Offset,
    /// Bytes of the records that are retained.
    pub bytes: u64,
    /// Bytes of the files that hold them.
    pub stored_bytes: u64,
    /// Sealed segments.
    pub segments: u64,
    /// Bytes behind the last whole record.
    pub pending_bytes: u64,
    /// Bytes that were no record and were set aside.
    pub torn_bytes: u64,
    /// Time of the first record, as far as it can be read.
    pub first_time: Option<Micros>,
    /// Time of the last record, as far as it can be read.
    pub last_time: Option<Micros>,
}

impl Log {
    /// Paths of the sealed segments.
    pub fn sealed_paths(&self) -> Vec<PathBuf> {
        self.sealed.iter().map(|sealed| self.directory.join(&sealed.name)).collect()
    }

    /// The log in numbers. Reads the directory, and the headers of the first and the last segment.
    pub fn statistics(&self) -> Result<Statistics> {
        let ((first, begin), (end, end_position)) = (self.first(), self.end());
        let mut statistics = Statistics {
            first,
            end,
            bytes: end_position.0 - begin.0,
            stored_bytes: self.active_bytes(),
            segments: self.sealed.len() as u64,
            pending_bytes: self.active.pending_bytes()?,
            torn_bytes: 0,
            first_time: self.first_time()?,
            last_time: self.last_time()?,
        };
        for (name, file) in names::list(&self.directory)? {
            let length = length_of(&self.directory.join(file))?;
            match name {
                Name::Sealed { .. } => statistics.stored_bytes += length,
                Name::Torn { .. } => statistics.torn_bytes += length,
                Name::Active { .. } | Name::Unfinished => {}
            }
        }
        Ok(statistics)
    }

    fn first_time(&self) -> Result<Option<Micros>> {
        for i in 0..self.sealed.len() {
            if let Some(segment) = self.segment(i)? {
                return Ok(Some(Micros(segment.header().first_time)));
            }
        }
        let index = &self.active.index;
        Ok((index.len() > 0).then(|| Micros(index.time(0))))
    }

    fn last_time(&self) -> Result<Option<Micros>> {
        let index = &self.active.index;
        if let Some(last) = index.len().checked_sub(1) {
            return Ok(Some(Micros(index.time(last))));
        }
        for i in (0..self.sealed.len()).rev() {
            if let Some(segment) = self.segment(i)? {
                return Ok(Some(Micros(segment.header().last_time)));
            }
        }
        Ok(None)
    }
}
