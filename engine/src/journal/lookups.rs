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

/// What the kernel holds of each inode that it knows, as it was when last looked at.
#[derive(Debug, Default)]
pub struct References {
    held: FxHashMap<Ino, (Slot, u64)>,
    /// The table.
    seen: Vec<(Ino, u64)>,
}

impl References {
    /// References of `ino`, and where they are noted.
    pub(crate) fn of(&self, ino: Ino) -> Option<(Slot, u64)> {
        self.held.get(&ino).copied()
    }

    /// Looks at the table again; the inodes of which something changed.
    pub(super) fn look(&mut self, lookups: &Lookups) -> Vec<Ino> {
        let allocated = lookups.slots.lock().allocated;
        let mut changed = Vec::new();
        self.seen.resize(self.seen.len().max(allocated as usize), (Ino(0), 0));
        for (number, before) in self.seen.iter_mut().enumerate() {
            let slot = Slot(number as u32);
            let now = lookups.read(slot.0);
            // Of one that the kernel doesn't hold it doesn't matter which it was.
            if now == *before || (now.1, before.1) == (0, 0) {
                continue;
            }
            if before.1 > 0 && self.held.get(&before.0).is_some_and(|(of, _)| *of == slot) {
                self.held.remove(&before.0);
                changed.push(before.0);
            }
            if now.1 > 0 {
                self.held.insert(now.0, (slot, now.1));
                changed.push(now.0);
            }
            *before = now;
        }
        changed
    }
}

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

    /// The table at `path`, which another daemon may still use.
    pub fn beside_another(path: &Path) -> io::Result<Lookups> {
        let lookups = Lookups::open(path, OFlags::CREATE)?;
        lookups.measure()?;
        Ok(lookups)
    }

    /// What the other daemon allocated meanwhile counts from here on.
    pub fn measure(&self) -> io::Result<()> {
        let held = self.file.metadata().map(|m| std::os::unix::fs::MetadataExt::blocks(&m) * 512)?;
        let allocated = u32::try_from(held / SLOT_BYTES).unwrap_or(SLOTS).min(SLOTS) / STEP * STEP;
        self.slots.lock().allocated = allocated;
        Ok(())
    }

    /// Begins anew: the kernel that it was for is gone.
    pub fn clear(&self) -> io::Result<()> {
        let mut slots = self.slots.lock();
        let bytes = u64::from(slots.allocated) * SLOT_BYTES;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if bytes > 0 {
            rustix::fs::fallocate(&self.file, punch, 0, bytes)?;
        }
        *slots = Slots::default();
        Ok(())
    }

    /// The other daemon is gone: it is ours.
    pub fn take_over(&self) -> io::Result<()> {
        self.measure()?;
        let mut slots = self.slots.lock();
        slots.free = (0..slots.allocated).rev().filter(|slot| self.read(*slot).1 == 0).collect();
        Ok(())
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
        let lookups = Lookups::beside_another(&path).expect("it opens");
        let mut known = References::default();
        let changed = known.look(&lookups);
        assert_eq!(changed.len(), (0..10_000).filter(|number| number % 3 != 0).count());
        assert!((2..10_002).all(|ino| known.of(Ino(ino)).map_or(0, |(_, count)| count) == (ino - 2) % 3));
        lookups.take_over().expect("it can be measured");
        let mut slot = None;
        lookups.set(Ino(77_777), &mut slot, 5);
        assert!(slot.is_some_and(|slot| known.held.values().all(|(taken, _)| *taken != slot)));
        assert_eq!(known.look(&lookups), [Ino(77_777)]);
        lookups.set(Ino(77_777), &mut slot, 0);
        assert!(known.look(&lookups) == [Ino(77_777)] && known.of(Ino(77_777)).is_none());
    }
}
