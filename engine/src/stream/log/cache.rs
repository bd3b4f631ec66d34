//! The segments and blocks of a log that were read last, so that a reader that comes back for more, or
//! several that are close to each other, open and unpack them once.

use crate::stream::segment::{Block, Segment};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

/// Open segments: one descriptor and some 15 KiB each.
const SEGMENTS_MAX: usize = 16;

/// Bytes of unpacked blocks: at the usual size, one for each of 32 readers. The last one is kept, however
/// large.
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Cache {
    /// Guards both lists; a leaf lock, not held while anything is read.
    kept: Mutex<Kept>,
}

/// Last used last.
#[derive(Debug, Default)]
struct Kept {
    /// By the offset that they begin with.
    segments: VecDeque<(u64, Arc<Segment>)>,
    blocks: VecDeque<(u64, Arc<Block>)>,
}

impl Cache {
    pub fn segment(&self, offset: u64) -> Option<Arc<Segment>> {
        touch(&mut self.kept.lock().segments, offset)
    }

    pub fn keep_segment(&self, offset: u64, segment: &Arc<Segment>) {
        let mut kept = self.kept.lock();
        kept.segments.push_back((offset, Arc::clone(segment)));
        if kept.segments.len() > SEGMENTS_MAX {
            kept.segments.pop_front();
        }
    }

    pub fn block(&self, offset: u64) -> Option<Arc<Block>> {
        touch(&mut self.kept.lock().blocks, offset)
    }

    pub fn keep_block(&self, block: &Arc<Block>) {
        let mut kept = self.kept.lock();
        kept.blocks.push_back((block.offset(), Arc::clone(block)));
        let mut bytes: usize = kept.blocks.iter().map(|(_, block)| block.bytes().len()).sum();
        while bytes > BLOCK_BYTES_MAX && kept.blocks.len() > 1 {
            bytes -= kept.blocks.pop_front().map_or(0, |(_, block)| block.bytes().len());
        }
    }

    /// Forgets what begins before `offset`, whose files are gone.
    pub fn forget_before(&self, offset: u64) {
        let mut kept = self.kept.lock();
        kept.segments.retain(|(begin, _)| *begin >= offset);
        kept.blocks.retain(|(begin, _)| *begin >= offset);
    }
}

/// Finds an entry and makes it the last used.
fn touch<T>(list: &mut VecDeque<(u64, Arc<T>)>, offset: u64) -> Option<Arc<T>> {
    let at = list.iter().position(|(of, _)| *of == offset)?;
    let entry = list.remove(at)?;
    let found = Arc::clone(&entry.1);
    list.push_back(entry);
    Some(found)
}
