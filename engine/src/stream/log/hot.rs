//! Sealed records that are still in the active file: reading them there costs a copy, reading their segment
//! costs unpacking it.
//!
//! One index a segment, in order, the last of which ends where the active index begins. The oldest goes first
//! ([`Hot::cool`]), when the memory is wanted; the caller then gives the file's front back.

use super::index::Index;
use std::collections::VecDeque;

/// Bytes of an index a record: its length and its checksum.
const ENTRY_BYTES: u64 = 8;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Hot {
    parts: VecDeque<Index>,
    bytes: u64,
}

fn cost(index: &Index) -> u64 {
    index.bytes() + index.len() as u64 * ENTRY_BYTES
}

impl Hot {
    /// Keeps what was just sealed.
    pub fn keep(&mut self, part: Index) {
        self.bytes += cost(&part);
        self.parts.push_back(part);
    }

    /// Forgets the oldest.
    pub fn cool(&mut self) -> bool {
        let part = self.parts.pop_front();
        self.bytes -= part.as_ref().map_or(0, cost);
        part.is_some()
    }

    pub fn clear(&mut self) {
        *self = Hot::default();
    }

    /// Memory held: bytes of the records and of their index.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The first byte's position in the stream.
    pub fn position(&self) -> Option<u64> {
        self.parts.front().map(|part| part.position)
    }

    pub fn of_offset(&self, offset: u64) -> Option<&Index> {
        let at = self.parts.partition_point(|part| part.offset <= offset).checked_sub(1)?;
        self.parts.get(at)
    }

    pub fn of_position(&self, position: u64) -> Option<&Index> {
        let at = self.parts.partition_point(|part| part.position <= position).checked_sub(1)?;
        self.parts.get(at)
    }
}
