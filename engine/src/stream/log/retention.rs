//! Retention: which segments at the front have been kept long enough.
//!
//! Whole segments are removed, the first first, so that what is left is one run of records and a crash in
//! between leaves one too. So a limit is exact within a segment: bytes are trimmed only while at least as
//! many as the limit are left; a segment has an age when its last record has it; and it is acknowledged when
//! its last record is. Each limit is a reason by itself. Active records are not trimmed.

use super::Log;
use crate::stream::segment::sync_directory;
use crate::stream::{Micros, Offset, Result};
use std::fs;
use std::io;
use std::time::Duration;

/// What is kept; without any limit, everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// The last records, up to this many bytes of the stream.
    pub bytes: Option<u64>,
    /// Records up to this age.
    pub age: Option<Duration>,
    /// Records that not every group has acknowledged.
    pub acknowledged: bool,
}

/// What was trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trimmed {
    /// Segments.
    pub segments: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes in the stream.
    pub bytes: u64,
}

impl Log {
    /// Removes segments that `retention` does not keep. `acknowledged` is the first offset that some group
    /// still needs; `None` if there are no groups, which then have acknowledged nothing.
    pub fn trim(
        &mut self,
        retention: &Retention,
        now: Micros,
        acknowledged: Option<Offset>,
    ) -> Result<Trimmed> {
        self.active.changeable()?;
        let end = self.active.index.end_position();
        let oldest = retention.age.map(|age| now.before(age).0);
        let mut count = 0;
        while count < self.sealed.len() {
            let (next_offset, next_position) = self.begin_of(count + 1);
            let by_bytes = retention.bytes.is_some_and(|bytes| end - next_position >= bytes);
            let by_groups =
                retention.acknowledged && acknowledged.is_some_and(|offset| offset.0 >= next_offset);
            // Asked last: this one may have to open the segment.
            let kept = !by_bytes
                && !by_groups
                && match oldest {
                    Some(oldest) => self.last_time_of(count)? >= oldest,
                    None => true,
                };
            if kept {
                break;
            }
            count += 1;
        }
        self.remove_first(count)
    }

    /// Removes the segments all of whose records are before `offset`.
    pub fn trim_before(&mut self, offset: Offset) -> Result<Trimmed> {
        let count = (0..self.sealed.len()).take_while(|i| self.begin_of(i + 1).0 <= offset.0).count();
        self.remove_first(count)
    }

    /// Time of a segment's last record. One that can't be read was sealed when its file was last changed.
    fn last_time_of(&self, i: usize) -> Result<u64> {
        if let Some(segment) = self.segment(i)? {
            return Ok(segment.header().last_time);
        }
        match fs::symlink_metadata(self.directory.join(&self.sealed[i].name)) {
            Ok(metadata) => Ok(Micros::from(metadata.modified()?).0),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e.into()),
        }
    }

    fn remove_first(&mut self, count: usize) -> Result<Trimmed> {
        self.active.changeable()?;
        let mut trimmed = Trimmed::default();
        for _ in 0..count {
            let (begin, next) = (self.begin_of(0), self.begin_of(1));
            match fs::remove_file(self.directory.join(&self.sealed[0].name)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
            self.sealed.remove(0);
            self.cache.forget_before(next.0);
            trimmed.segments += 1;
            trimmed.records += next.0 - begin.0;
            trimmed.bytes += next.1 - begin.1;
        }
        if count > 0 {
            sync_directory(&self.directory)?;
        }
        Ok(trimmed)
    }
}
