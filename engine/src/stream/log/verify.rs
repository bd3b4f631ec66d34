//! Verification: everything is read, and what is wrong is listed with its place.

use super::Log;
use super::names::{self, Name};
use crate::stream::segment::{Segment, read_there};
use crate::stream::{Damage, Error, Problem, Result};
use crc32c::crc32c;
use std::io;

/// Bytes of the active file that are read at a time, a longer record apart.
const CHUNK_BYTES: u64 = 1 << 20;

impl Log {
    /// Reads all of the log and lists what is wrong with it: segments in their order, then the active file,
    /// then what lies beside. Problems of segments that a later version wrote can't be told: that is an
    /// error.
    pub fn verify(&self) -> Result<Vec<Problem>> {
        self.verify_seen(&mut |_| {})
    }

    /// The same; `seen` hears of each file's bytes when they are read.
    pub fn verify_seen(&self, seen: &mut dyn FnMut(u64)) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        for i in 0..self.sealed.len() {
            self.verify_segment(i, &mut problems)?;
            seen(super::length_of(&self.directory.join(&self.sealed[i].name))?);
        }
        self.verify_active(&mut problems)?;
        for (name, file) in names::list(&self.directory)? {
            let damage = match name {
                Name::Torn { .. } => Damage::SetAside,
                Name::Active { .. } if file != self.active.file_name() => Damage::Leftover,
                Name::Sealed { .. } if !self.sealed.iter().any(|sealed| sealed.name == file) => {
                    Damage::Leftover
                }
                _ => continue,
            };
            problems.push(Problem { file, at: 0, damage, lost: 0..0 });
        }
        Ok(problems)
    }

    fn verify_segment(&self, i: usize, problems: &mut Vec<Problem>) -> Result<()> {
        let sealed = &self.sealed[i];
        let next = self.begin_of(i + 1).0;
        let mut found = |at, damage, lost| {
            problems.push(Problem { file: sealed.name.clone(), at, damage, lost });
        };
        let whole = sealed.offset..next;
        let segment = match Segment::open(&self.directory.join(&sealed.name)) {
            Ok(segment) => segment,
            Err(Error::NotSegment { .. }) => {
                found(0, Damage::NotSegment, whole);
                return Ok(());
            }
            Err(Error::Io(e)) if e.kind() == io::ErrorKind::NotFound => {
                found(0, Damage::Missing, whole);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        let header = segment.header();
        if (header.offset, header.position) != (sealed.offset, sealed.position) || header.end_offset() > next
        {
            found(0, Damage::Misplaced, whole);
            return Ok(());
        }
        for fault in segment.check()? {
            found(fault.at, fault.damage, fault.lost);
        }
        if header.end_offset() < next {
            found(segment.file_bytes(), Damage::Missing, header.end_offset()..next);
        }
        Ok(())
    }

    fn verify_active(&self, problems: &mut Vec<Problem>) -> Result<()> {
        let index = &self.active.index;
        let mut chunk = Vec::new();
        let (mut next, mut bad) = (0, None);
        let mut found = |first: usize, end: usize| {
            let at = self.active.file_at(index.position_of(first));
            let lost = index.offset + first as u64..index.offset + end as u64;
            problems.push(Problem { file: self.active.file_name(), at, damage: Damage::Records, lost });
        };
        while next < index.len() {
            let from = next;
            let mut bytes = 0;
            while next < index.len() && (bytes == 0 || bytes + u64::from(index.length(next)) <= CHUNK_BYTES) {
                bytes += u64::from(index.length(next));
                next += 1;
            }
            chunk.clear();
            chunk.resize(bytes as usize, 0);
            read_there(&self.active.file, &mut chunk, self.active.file_at(index.position_of(from)))?;
            let mut rest = &chunk[..];
            for i in from..next {
                let (record, behind) = rest.split_at(index.length(i) as usize);
                rest = behind;
                if crc32c(record) != index.crc(i) {
                    bad.get_or_insert(i);
                } else if let Some(first) = bad.take() {
                    found(first, i);
                }
            }
        }
        if let Some(first) = bad {
            found(first, index.len());
        }
        if self.active.pending_bytes()? > 0 {
            let at = self.active.file_at(index.end_position());
            let file = self.active.file_name();
            problems.push(Problem { file, at, damage: Damage::TornTail, lost: 0..0 });
        }
        Ok(())
    }
}
