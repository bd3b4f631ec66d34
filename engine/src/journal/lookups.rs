//! How many references the kernel holds of each inode, where the next daemon finds it: the kernel tells only what it gives
//! back, so whoever takes over a mount must know.
//!
//! A table in memory that outlives the process: a slot an inode, two words, written in place before the lookup is answered.
//! A daemon that dies in between counted a reference that the kernel doesn't have: counts may only err that way.

use crate::ids::Ino;
use memmap2::{MmapMut, MmapOptions};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::{FallocateFlags, Mode, OFlags};
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// Slots in all; of inodes beyond them the next daemon takes it that the kernel never gives them back.
const SLOTS: u32 = 1 << 24;
const SLOT_BYTES: u64 = 16;
/// Memory is allocated for so many at once.
const STEP: u32 = 4096;

/// Where an inode's count is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(u32);

/// What the kernel holds of each inode that it knows.
#[derive(Debug, Default)]
pub struct References(pub(crate) FxHashMap<Ino, (Slot, u64)>);

/// See the module.
#[derive(Debug)]
pub(super) struct Lookups {
    file: File,
    table: MmapMut,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    free: Vec<u32>,
    /// Below this, memory is allocated.
    allocated: u32,
}

impl Lookups {
    /// Begins an empty table at `path`.
    pub fn create(path: &Path) -> io::Result<Lookups> {
        Lookups::open(path, OFlags::CREATE | OFlags::TRUNC)
    }

    /// Goes on with the table at `path`; what it says.
    pub fn resume(path: &Path) -> io::Result<(Lookups, References)> {
        let lookups = Lookups::open(path, OFlags::CREATE)?;
        let mut known = FxHashMap::default();
        {
            let mut slots = lookups.slots.lock();
            let held = lookups.file.metadata().map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512)?;
            slots.allocated = u32::try_from(held / SLOT_BYTES).unwrap_or(SLOTS).min(SLOTS) / STEP * STEP;
            for slot in (0..slots.allocated).rev() {
                match lookups.read(slot) {
                    (_, 0) => slots.free.push(slot),
                    (ino, count) => drop(known.insert(ino, (Slot(slot), count))),
                }
            }
        }
        Ok((lookups, References(known)))
    }

    fn open(path: &Path, flags: OFlags) -> io::Result<Lookups> {
        let flags = flags | OFlags::RDWR | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?);
        let bytes = u64::from(SLOTS) * SLOT_BYTES;
        file.set_len(bytes)?;
        // SAFETY: the file is ours alone and keeps its length; what is stored to is allocated before.
        let table = unsafe { MmapOptions::new().len(bytes as usize).map_mut(&file)? };
        Ok(Lookups { file, table, slots: Mutex::default() })
    }

    /// Notes that the kernel holds `count` references of `ino`.
    pub fn set(&self, ino: Ino, slot: &mut Option<Slot>, count: u64) {
        match (*slot, count) {
            (None, 0) => {}
            (None, _) => {
                *slot = self.take();
                if let Some(slot) = *slot {
                    self.words(slot.0)[0].store(ino.0, Ordering::Relaxed);
                    self.words(slot.0)[1].store(count, Ordering::Relaxed);
                }
            }
            (Some(taken), _) => {
                self.words(taken.0)[1].store(count, Ordering::Relaxed);
                if count == 0 {
                    *slot = None;
                    self.slots.lock().free.push(taken.0);
                }
            }
        }
    }

    fn take(&self) -> Option<Slot> {
        let mut slots = self.slots.lock();
        if slots.free.is_empty() && slots.allocated < SLOTS {
            let (begin, bytes) = (u64::from(slots.allocated) * SLOT_BYTES, u64::from(STEP) * SLOT_BYTES);
            if let Err(e) = rustix::fs::fallocate(&self.file, FallocateFlags::empty(), begin, bytes) {
                log::warn!("no memory to note what the kernel knows of inodes: {e}");
                return None;
            }
            let begin = slots.allocated;
            slots.free.extend((begin..begin + STEP).rev());
            slots.allocated += STEP;
        }
        slots.free.pop().map(Slot)
    }

    #[allow(clippy::cast_ptr_alignment, reason = "the mapping begins at a page")]
    fn words(&self, slot: u32) -> [&AtomicU64; 2] {
        let at = self.table.as_ptr().cast::<AtomicU64>().wrapping_add(slot as usize * 2);
        // SAFETY: the slot is inside the mapping, whose start is aligned to a page; nobody takes slices of it.
        unsafe { [&*at, &*at.add(1)] }
    }

    fn read(&self, slot: u32) -> (Ino, u64) {
        let [ino, count] = self.words(slot);
        (Ino(ino.load(Ordering::Relaxed)), count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_daemon_finds_each_count_and_slots_are_used_again() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("lookups");
        let lookups = Lookups::create(&path).expect("it opens");
        let mut slots = vec![None; 10_000];
        for (number, slot) in slots.iter_mut().enumerate() {
            lookups.set(Ino(number as u64 + 2), slot, 1);
        }
        for (number, slot) in slots.iter_mut().enumerate() {
            lookups.set(Ino(number as u64 + 2), slot, (number % 3) as u64);
        }
        drop(lookups);
        let (lookups, References(known)) = Lookups::resume(&path).expect("it opens");
        assert_eq!(known.len(), (0..10_000).filter(|number| number % 3 != 0).count());
        assert!(known.iter().all(|(ino, (_, count))| *count == (ino.0 - 2) % 3));
        let mut slot = None;
        lookups.set(Ino(77_777), &mut slot, 5);
        assert!(slot.is_some_and(|slot| known.values().all(|(taken, _)| *taken != slot)));
    }
}
