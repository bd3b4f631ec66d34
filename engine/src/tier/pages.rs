//! Memory of a device, taken in slabs and given out in pages.
//!
//! A slab is what is taken from the device and given back to it; taking one costs milliseconds. A page is what belongs to
//! one file. A page is free again when the last reader of the copy that had it is gone.

use super::TierConfig;
use super::calls::Calls;
use crate::device::{Buffer, Device, Extent, Slab};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Of a page. Copies of this size have nine tenths of a bus's speed or more, and waste half a page a file.
pub const PAGE_BYTES: u64 = 2 << 20;
/// Of a slab at most: 32 pages.
const SLAB_BYTES_MAX: u64 = 64 << 20;
/// A small tier still has so many slabs, so that it can give a part of itself back.
const SLABS_MIN: u64 = 8;
/// Buffers kept for the next copy.
const BUFFERS_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Pages {
    device: Arc<dyn Device>,
    config: TierConfig,
    slab_bytes: u64,
    blocks: Mutex<Blocks>,
    buffers: Mutex<Vec<Box<dyn Buffer>>>,
    calls: Calls,
}

#[derive(Debug, Default)]
struct Blocks {
    /// By number; lower ones are filled first, so that the last ones become empty.
    slabs: BTreeMap<u64, Block>,
    next: u64,
    /// Why the device is used no more.
    lost: Option<String>,
}

#[derive(Debug)]
struct Block {
    slab: Arc<dyn Slab>,
    /// A bit for each page that is free.
    free: u32,
    /// It is given back as soon as its pages are.
    leaving: bool,
}

/// A part of a slab, given back when dropped.
#[derive(Debug)]
pub(super) struct Page {
    slab: Arc<dyn Slab>,
    pages: Arc<Pages>,
    block: u64,
    index: u32,
}

/// What asking for pages came to.
#[derive(Debug)]
pub(super) enum Take {
    Pages(Vec<Page>),
    /// Others have to go first.
    Full,
    /// The device has no memory for us.
    Never,
}

impl Pages {
    pub(super) fn new(device: Arc<dyn Device>, config: TierConfig) -> Pages {
        let pages = (config.limit_bytes / SLABS_MIN).min(SLAB_BYTES_MAX) / PAGE_BYTES;
        let slab_bytes = pages.max(1) * PAGE_BYTES;
        let (blocks, buffers) = (Mutex::default(), Mutex::default());
        Pages { device, config, slab_bytes, blocks, buffers, calls: Calls::default() }
    }

    pub(super) fn device(&self) -> &dyn Device {
        &*self.device
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.config.limit_bytes
    }

    pub(super) fn taken_bytes(&self) -> u64 {
        self.blocks.lock().slabs.len() as u64 * self.slab_bytes
    }

    /// The most that could be had if all that is taken were free.
    pub(super) fn possible_bytes(&self) -> u64 {
        let free = self.device.memory().map_or(0, |memory| memory.free);
        let more = free.saturating_sub(self.config.reserve_bytes) / self.slab_bytes * self.slab_bytes;
        (self.taken_bytes() + more).min(self.config.limit_bytes / self.slab_bytes * self.slab_bytes)
    }

    /// Why the device is used no more, if it isn't.
    pub(super) fn lost(&self) -> Option<String> {
        self.blocks.lock().lost.clone()
    }

    fn lose(&self, why: &io::Error) {
        let mut blocks = self.blocks.lock();
        if blocks.lost.is_none() {
            log::warn!("{} is used no more: {why}", self.device.name());
            blocks.lost = Some(why.to_string());
        }
    }

    /// Pages for `bytes`.
    pub(super) fn take(self: &Arc<Pages>, bytes: u64) -> Take {
        let wanted = bytes.div_ceil(PAGE_BYTES) as usize;
        let mut taken = Vec::with_capacity(wanted);
        loop {
            self.blocks.lock().give_out(self, wanted, &mut taken);
            if taken.len() == wanted {
                return Take::Pages(taken);
            }
            match self.grow() {
                Ok(true) => {}
                // What was taken goes back.
                Ok(false) if self.blocks.lock().slabs.is_empty() => return Take::Never,
                Ok(false) => return Take::Full,
                Err(why) => {
                    self.lose(&why);
                    return Take::Never;
                }
            }
        }
    }

    /// One more slab; false where the limit or the reserve stand against it.
    fn grow(&self) -> io::Result<bool> {
        if self.taken_bytes() + self.slab_bytes > self.config.limit_bytes {
            return Ok(false);
        }
        if self.device.memory()?.free < self.config.reserve_bytes + self.slab_bytes {
            return Ok(false);
        }
        let slab = match self.device.allocate(self.slab_bytes) {
            Err(e) if e.kind() == io::ErrorKind::OutOfMemory => return Ok(false),
            other => other?,
        };
        let all = u32::MAX >> (u32::BITS - (self.slab_bytes / PAGE_BYTES) as u32);
        let mut blocks = self.blocks.lock();
        let number = blocks.next;
        blocks.next += 1;
        blocks.slabs.insert(number, Block { slab, free: all, leaving: false });
        Ok(true)
    }

    /// Bytes that are missing to the reserve, if any are.
    pub(super) fn wanted_by_others(&self) -> Option<u64> {
        if self.taken_bytes() == 0 || self.lost().is_some() {
            return None;
        }
        // What leaves as soon as its last reader has gone.
        let leaving = self.blocks.lock().slabs.values().filter(|block| block.leaving).count() as u64;
        let coming = leaving * self.slab_bytes;
        match self.device.memory() {
            Ok(memory) => {
                self.config.reserve_bytes.checked_sub(memory.free + coming).filter(|missing| *missing > 0)
            }
            Err(why) => {
                self.lose(&why);
                None
            }
        }
    }

    /// Gives slabs back of which nothing is used, `bytes` at least if there are so many; returns how much that was.
    pub(super) fn release_empty(&self, bytes: u64) -> u64 {
        let mut given = Vec::new();
        let mut blocks = self.blocks.lock();
        let empty: Vec<u64> = (blocks.slabs.iter())
            .filter(|(_, block)| self.is_empty(block))
            .map(|(number, _)| *number)
            .collect();
        for number in empty.into_iter().rev() {
            if given.len() as u64 * self.slab_bytes >= bytes {
                break;
            }
            given.extend(blocks.slabs.remove(&number));
        }
        drop(blocks);
        given.len() as u64 * self.slab_bytes
    }

    fn is_empty(&self, block: &Block) -> bool {
        u64::from(block.free.count_ones()) * PAGE_BYTES == self.slab_bytes
    }

    /// The slab of which least is used.
    pub(super) fn emptiest(&self) -> Option<u64> {
        let blocks = self.blocks.lock();
        let staying = blocks.slabs.iter().filter(|(_, block)| !block.leaving);
        staying.max_by_key(|(number, block)| (block.free.count_ones(), **number)).map(|(number, _)| *number)
    }

    /// Gives a slab back, now or as soon as the last reader is through with it; returns its bytes.
    pub(super) fn release(&self, number: u64) -> u64 {
        let mut blocks = self.blocks.lock();
        let Some(block) = blocks.slabs.get_mut(&number) else { return 0 };
        block.leaving = true;
        let gone = if self.is_empty(block) { blocks.slabs.remove(&number) } else { None };
        drop(blocks);
        drop(gone);
        self.slab_bytes
    }

    /// Memory of a page from which copies are fast; whoever is through with it calls [`Pages::keep`].
    pub(super) fn buffer(&self) -> io::Result<Box<dyn Buffer>> {
        if let Some(kept) = self.buffers.lock().pop() {
            return Ok(kept);
        }
        let device = self.device.clone();
        self.call(move || device.buffer(PAGE_BYTES as usize))?
    }

    /// Keeps a buffer for the next copy.
    pub(super) fn keep(&self, buffer: Box<dyn Buffer>) {
        let mut buffers = self.buffers.lock();
        if buffers.len() < BUFFERS_MAX {
            buffers.push(buffer);
        }
    }

    /// What `call` gives; a device that doesn't answer is lost.
    pub(super) fn call<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let result = self.calls.wait(self.config.patience, || self.lost().is_some(), call);
        if let Err(why) = &result {
            self.lose(why);
        }
        result
    }
}

impl Blocks {
    /// Adds pages that are free to `taken` until it has as many as are `wanted`.
    fn give_out(&mut self, pages: &Arc<Pages>, wanted: usize, taken: &mut Vec<Page>) {
        for (number, block) in self.slabs.iter_mut().filter(|(_, block)| !block.leaving) {
            while block.free != 0 && taken.len() < wanted {
                let index = block.free.trailing_zeros();
                block.free &= !(1 << index);
                let (slab, pages) = (block.slab.clone(), pages.clone());
                taken.push(Page { slab, pages, block: *number, index });
            }
            if taken.len() == wanted {
                return;
            }
        }
    }
}

impl Page {
    /// Whether its slab is to be given back.
    pub(super) fn is_leaving(&self) -> bool {
        self.pages.blocks.lock().slabs.get(&self.block).is_none_or(|block| block.leaving)
    }

    /// Whether it is of this slab.
    pub(super) fn lies_in(&self, block: u64) -> bool {
        self.block == block
    }

    /// The first `bytes` of it.
    pub(super) fn extent(&self, bytes: u64) -> Extent {
        Extent { slab: self.slab.clone(), at: self.start(), bytes }
    }

    /// Copies the first `bytes` of `from` to the page's start.
    pub(super) fn put(&self, mut from: Box<dyn Buffer>, bytes: usize) -> io::Result<()> {
        let (slab, at) = (self.slab.clone(), self.start());
        let (buffer, result) = self.pages.call(move || {
            let result = slab.put(at, &from.bytes()[..bytes]);
            (from, result)
        })?;
        self.pages.keep(buffer);
        result
    }

    /// A buffer that begins with the first `bytes` of the page.
    pub(super) fn get(&self, bytes: usize) -> io::Result<Box<dyn Buffer>> {
        let (slab, at, mut to) = (self.slab.clone(), self.start(), self.pages.buffer()?);
        let (buffer, result) = self.pages.call(move || {
            let result = slab.get(at, &mut to.bytes()[..bytes]);
            (to, result)
        })?;
        match result {
            Ok(()) => Ok(buffer),
            Err(why) => {
                self.pages.keep(buffer);
                Err(why)
            }
        }
    }

    /// Where it begins in its slab.
    fn start(&self) -> u64 {
        u64::from(self.index) * PAGE_BYTES
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut blocks = self.pages.blocks.lock();
        let Some(block) = blocks.slabs.get_mut(&self.block) else { return };
        block.free |= 1 << self.index;
        if block.leaving && self.pages.is_empty(block) {
            let gone = blocks.slabs.remove(&self.block);
            drop(blocks);
            // Its last reader waits for no device.
            self.pages.calls.later(move || drop(gone));
        }
    }
}
