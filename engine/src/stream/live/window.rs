//! A part of the active file mapped for reading.
//!
//! It reaches beyond the file's end, so that a reader who follows the writer maps once for many batches. What
//! is shown of it are bytes under a [`Pin`], and of these only what was in the file when it was asked.

use super::pins::Pin;
use memmap2::{Mmap, MmapOptions};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Bytes mapped at a time, at least: address space, which costs nothing until it is touched; a segment of
/// them.
const WINDOW_BYTES: u64 = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Window {
    map: Mmap,
    file: Arc<File>,
    /// Where in the file it begins.
    begin: u64,
}

impl Window {
    /// One that covers `range` of `file`: the one at hand, if it does, or a new one.
    pub fn covering(
        at_hand: &mut Option<Arc<Window>>,
        file: &Arc<File>,
        range: &Range<u64>,
    ) -> io::Result<Arc<Window>> {
        if let Some(window) = at_hand
            && Arc::ptr_eq(&window.file, file)
            && window.begin <= range.start
            && range.end <= window.begin + window.map.len() as u64
        {
            return Ok(Arc::clone(window));
        }
        let bytes = WINDOW_BYTES.max(range.end - range.start);
        // SAFETY: what is borrowed of it, by `bytes` alone, does not change. The file is our own; it is
        // appended to by write(2), cut never before the end of a record that is indexed, and its front is not
        // given back while a pin holds it.
        let map = unsafe { MmapOptions::new().offset(range.start).len(bytes as usize).map(&**file)? };
        let window = Arc::new(Window { map, file: Arc::clone(file), begin: range.start });
        *at_hand = Some(Arc::clone(&window));
        Ok(window)
    }

    /// The bytes of indexed records, which are in the file at `range`, and held by the pin.
    pub fn bytes(&self, range: Range<u64>, pin: &Pin) -> &[u8] {
        assert!(range.start >= pin.at(), "bytes before the pin may be given back");
        &self.map[(range.start - self.begin) as usize..(range.end - self.begin) as usize]
    }
}
