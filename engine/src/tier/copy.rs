//! The content of one file in the memory of a device.

use super::CopyOf;
use super::pages::{PAGE_BYTES, Page, Pages};
use crate::device::Extent;
use parking_lot::Mutex;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Pages of one file that are copied at the same time.
const THREADS_MAX: usize = 4;
/// With fewer pages a file is copied by the thread that asks.
const PAGES_TO_SHARE: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Copy {
    /// Which content that is.
    pub(crate) of: CopyOf,
    pages: Box<[Page]>,
    /// The CRC32C of what is in each: a device can take those by itself.
    checks: Box<[u32]>,
}

impl Copy {
    /// Copies the content of `file` into `pages`. What is there already when it fails is of no use.
    pub(super) fn fill(pages: &Arc<Pages>, room: Vec<Page>, file: &File, of: CopyOf) -> io::Result<Copy> {
        let checks: Vec<Mutex<u32>> = room.iter().map(|_| Mutex::default()).collect();
        let one = |number: usize| {
            let range = range_of(number, of.size);
            let bytes = (range.end - range.start) as usize;
            let mut buffer = pages.buffer()?;
            file.read_exact_at(&mut buffer.bytes()[..bytes], range.start)?;
            *checks[number].lock() = crc32c::crc32c(&buffer.bytes()[..bytes]);
            room[number].put(buffer, bytes)
        };
        each(room.len(), &one)?;
        let checks = checks.into_iter().map(Mutex::into_inner).collect();
        Ok(Copy { of, pages: room.into(), checks })
    }

    /// Copies a range that begins with a page, and ends with one or with the file, into the same place of `target`.
    /// `alone` is held while something is written there.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`]: what came back is not what went there. Others are the device's, or those of
    /// writing.
    pub(super) fn read(
        &self,
        pages: &Pages,
        range: Range<u64>,
        target: &File,
        alone: &Mutex<()>,
    ) -> io::Result<()> {
        let whole = |end: u64| end.is_multiple_of(PAGE_BYTES);
        if !whole(range.start) || !(whole(range.end) || range.end == self.of.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for number in range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES) {
            let number = number as usize;
            let range = range_of(number, self.of.size);
            let length = (range.end - range.start) as usize;
            let mut buffer = self.pages.get(number).ok_or(io::ErrorKind::InvalidInput)?.get(length)?;
            let bytes = &buffer.bytes()[..length];
            let result = if self.is_intact(number, crc32c::crc32c(bytes)) {
                let _alone = alone.lock();
                target.write_all_at(bytes, range.start)
            } else {
                let what = "what came back from the device is not what went there";
                Err(io::Error::new(io::ErrorKind::InvalidData, what))
            };
            pages.keep(buffer);
            result?;
        }
        Ok(())
    }

    /// Copies all of it to `target`, several pages at once.
    pub(super) fn read_all(&self, pages: &Pages, target: &File) -> io::Result<()> {
        let alone = Mutex::new(());
        each(self.pages.len(), &|number| self.read(pages, range_of(number, self.of.size), target, &alone))
    }

    /// How many pages it has.
    pub(super) fn pages(&self) -> usize {
        self.pages.len()
    }

    /// What of the device's memory is used of a page.
    pub(super) fn extent(&self, number: usize) -> Extent {
        let range = range_of(number, self.of.size);
        self.pages[number].extent(range.end - range.start)
    }

    /// Whether a page of which this is the CRC32C is what it was.
    pub(super) fn is_intact(&self, number: usize, crc: u32) -> bool {
        self.checks[number] == crc
    }

    /// Whether a part of it is in a slab that is to be given back.
    pub(super) fn is_leaving(&self) -> bool {
        self.pages.iter().any(Page::is_leaving)
    }

    /// Whether a part of it is in this slab.
    pub(super) fn lies_in(&self, block: u64) -> bool {
        self.pages.iter().any(|page| page.lies_in(block))
    }
}

/// What of a file of `size` is in a page.
fn range_of(number: usize, size: u64) -> Range<u64> {
    let start = number as u64 * PAGE_BYTES;
    start..size.min(start + PAGE_BYTES)
}

/// Calls `one` with each number below `count`, several at once where there are many; the first error ends it.
fn each(count: usize, one: &(dyn Fn(usize) -> io::Result<()> + Sync)) -> io::Result<()> {
    if count < PAGES_TO_SHARE {
        return (0..count).try_for_each(one);
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let run = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            one(number).inspect_err(|_| failed.store(true, Ordering::Relaxed))?;
        }
    };
    std::thread::scope(|scope| {
        // Where there are no threads to be had, with those that there are.
        let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, run).ok();
        let beside: Vec<_> = (1..processors.min(THREADS_MAX)).filter_map(spawn).collect();
        let mine = run();
        let others = beside.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread that copies to the device panicked")))
        });
        others.fold(mine, Result::and)
    })
}
