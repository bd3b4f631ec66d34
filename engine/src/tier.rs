//! Copies of clean files in the memory of a device, for those that leave the arena: what is opened again comes back from
//! there instead of from the backing.
//!
//! - `pages`: memory of the device, taken in slabs and given out in pages.
//! - `calls`: copies there and back, which nobody waits for longer than a limit.
//! - `copy`: the content of one file, page by page, each with a checksum: what comes back is what went there, or an
//!   error.
//! - `scrub`: checks of copies where they lie, while nobody else has use for the device.
//! - Here: which files have copies, and which of those make room for others.
//!
//! The tier takes no more than its limit, and leaves its owner a reserve: where less than that is free on the device, it
//! gives slabs back, with what lay there ([`Tier::give_way`]).
//!
//! Nothing here is the only copy of anything. A device that fails a copy costs that copy; one that fails a slab, or
//! doesn't answer, is *lost*, and is used no more.

mod calls;
mod copy;
mod pages;
mod rest;
mod scrub;

pub(crate) use copy::Copy;
pub use pages::PAGE_BYTES;
pub use scrub::ScrubStatus;

use crate::attr::Timestamp;
use crate::backing::BackingId;
use crate::device::Device;
use crate::ids::Ino;
use crate::namespace::{Baseline, InodeState};
use pages::{Pages, Take};
use parking_lot::Mutex;
use rest::Rest;
use rustc_hash::FxHashMap;
use scrub::Scrub;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A copy takes one part in so many of the tier at most: a larger one would push out all others.
const LARGEST_PART: u64 = 2;
/// Smaller files are not worth a page.
const FILE_BYTES_MIN: u64 = 256 << 10;
/// A page takes a thousandth of that; a GPU that is reset answers within seconds, if it ever does.
const PATIENCE: Duration = Duration::from_secs(10);
/// All of an H200's memory is a tenth of a second of its time.
const SCRUB_EVERY: Duration = Duration::from_secs(600);

/// What a tier may take, in bytes, and how often it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TierConfig {
    /// Of the device's memory at most.
    pub limit_bytes: u64,
    /// Of it that are to be free for others.
    pub reserve_bytes: u64,
    /// Smaller files are not copied.
    pub file_bytes_min: u64,
    /// A device that takes longer for a copy of a page is lost.
    pub patience: Duration,
    /// From the end of a round of checks to the next.
    pub scrub_every: Duration,
}

impl TierConfig {
    /// With all else as it is where nobody says otherwise.
    pub fn new(limit_bytes: u64, reserve_bytes: u64) -> TierConfig {
        TierConfig {
            limit_bytes,
            reserve_bytes,
            file_bytes_min: FILE_BYTES_MIN,
            patience: PATIENCE,
            scrub_every: SCRUB_EVERY,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Tier {
    pages: Arc<Pages>,
    file_bytes_min: u64,
    held: Mutex<Held>,
    counts: Counts,
    scrub: Scrub,
    /// Whoever copies rests here.
    copier: Rest,
}

/// The content of a file on a device, of no mount; it goes when dropped.
#[derive(Debug)]
pub struct Lodged(Copy);

/// What was used last goes last: what is about to leave memory counts as used, or one copy would push out another that
/// is needed just as soon.
#[derive(Debug, Default)]
struct Held {
    copies: FxHashMap<Ino, Kept>,
    /// By their last use.
    order: BTreeMap<u64, Ino>,
    uses: u64,
    /// To be freed when no lock is held.
    gone: Vec<Arc<Copy>>,
}

#[derive(Debug)]
struct Kept {
    copy: Arc<Copy>,
    used: u64,
}

#[derive(Debug, Default)]
struct Counts {
    in_files: AtomicU64,
    in_bytes: AtomicU64,
    out_files: AtomicU64,
    out_bytes: AtomicU64,
    failures: AtomicU64,
    damaged: AtomicU64,
    given_back: AtomicU64,
}

/// A snapshot; status shows it as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TierStatus {
    /// The device's name.
    pub device: String,
    /// Whether it only acts as one.
    pub simulated: bool,
    /// Why it is used no more.
    pub lost: Option<String>,
    /// Bytes that may be taken, and that are taken.
    pub limit: u64,
    /// See `limit`.
    pub taken: u64,
    /// Files that have copies, and the bytes of those.
    pub files: u64,
    /// See `files`.
    pub bytes: u64,
    /// Copied to it since the start.
    pub in_files: u64,
    /// See `in_files`.
    pub in_bytes: u64,
    /// Brought back into memory from it since the start.
    pub out_files: u64,
    /// See `out_files`.
    pub out_bytes: u64,
    /// Copies that failed, to it or from it or while they lay there.
    pub failures: u64,
    /// Of those, copies that had other bytes than went there.
    pub damaged: u64,
    /// Bytes given back because others needed the device's memory.
    pub given_back: u64,
    /// Checks of copies where they lie.
    #[serde(default)]
    pub scrub: ScrubStatus,
}

impl Tier {
    /// An empty one.
    pub fn new(device: Arc<dyn Device>, config: TierConfig) -> Tier {
        Tier {
            pages: Arc::new(Pages::new(device, config)),
            file_bytes_min: config.file_bytes_min,
            held: Mutex::default(),
            counts: Counts::default(),
            scrub: Scrub::new(config.scrub_every),
            copier: Rest::default(),
        }
    }

    /// What a copy of a file of this size would take, if the file is worth one and not too large for it.
    /// `possible` is what [`Tier::possible_bytes`] said.
    pub(crate) fn cost(&self, bytes: u64, possible: u64) -> Option<u64> {
        let taken = bytes.next_multiple_of(PAGE_BYTES);
        (bytes >= self.file_bytes_min.max(1) && taken <= possible / LARGEST_PART).then_some(taken)
    }

    /// What it could hold now.
    pub(crate) fn possible_bytes(&self) -> u64 {
        if self.is_lost() { 0 } else { self.pages.possible_bytes() }
    }

    /// Copies the first `bytes` of a file of no mount: what is done to those of mounts, to be measured.
    pub fn lodge(&self, file: &File, bytes: u64) -> io::Result<Lodged> {
        self.copy_in(file, CopyOf::nothing(bytes)).map(Lodged)
    }

    /// Copies that to `target`.
    pub fn bring_back(&self, lodged: &Lodged, target: &File) -> io::Result<()> {
        self.note_failure(lodged.0.read_all(&self.pages, target))
    }

    /// Whether it is used no more.
    pub fn is_lost(&self) -> bool {
        self.pages.lost().is_some()
    }

    /// Copies the content of a file; it is in the tier once [`Tier::keep`] has it.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::StorageFull`]: there is no room for it. Others are the device's, and those of reading the file.
    pub(crate) fn copy_in(&self, file: &File, of: CopyOf) -> io::Result<Copy> {
        let pages = self.room_for(of.size).ok_or(io::ErrorKind::StorageFull)?;
        self.note_failure(Copy::fill(&self.pages, pages, file, of))
    }

    /// From here on the copy is the inode's.
    pub(crate) fn keep(&self, ino: Ino, copy: Copy) {
        if copy.is_leaving() {
            // Its owner wants the memory back since.
            return self.held.lock().gone.push(Arc::new(copy));
        }
        self.counts.in_files.fetch_add(1, Ordering::Relaxed);
        self.counts.in_bytes.fetch_add(copy.of.size, Ordering::Relaxed);
        self.held.lock().insert(ino, Arc::new(copy));
    }

    /// The copy of a file whose inode is in this state, if there is one of just that content. A stale one goes.
    pub(crate) fn copy_of(&self, ino: Ino, state: &InodeState) -> Option<Arc<Copy>> {
        let mut held = self.held.lock();
        let copy = held.copies.get(&ino)?.copy.clone();
        if !copy.of.is(state) {
            held.drop_copy(ino);
            return None;
        }
        held.used(ino);
        Some(copy)
    }

    /// Whether there is a copy, of whatever age.
    pub(crate) fn has(&self, ino: Ino) -> bool {
        self.held.lock().copies.contains_key(&ino)
    }

    /// Copies `bytes` from `offset` of a copy into the same place of `target`, page by page; `alone` is held while
    /// something is written. Where that fails the copy goes.
    pub(crate) fn copy_out(
        &self,
        ino: Ino,
        copy: &Copy,
        range: std::ops::Range<u64>,
        target: &File,
        alone: &Mutex<()>,
    ) -> io::Result<()> {
        let result = self.note_failure(copy.read(&self.pages, range, target, alone));
        if let Err(e) = &result {
            if e.kind() == io::ErrorKind::InvalidData {
                self.counts.damaged.fetch_add(1, Ordering::Relaxed);
            }
            self.forget(ino);
        }
        result
    }

    /// A file came back into memory from its copy.
    pub(crate) fn came_back(&self, bytes: u64) {
        self.counts.out_files.fetch_add(1, Ordering::Relaxed);
        self.counts.out_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The copy of a file goes, if there is one.
    pub(crate) fn forget(&self, ino: Ino) {
        self.held.lock().drop_copy(ino);
    }

    /// A copy goes that was found to have other bytes than went there, if it is the file's still.
    fn forget_damaged(&self, ino: Ino, copy: &Arc<Copy>) -> bool {
        let mut held = self.held.lock();
        let still = held.copies.get(&ino).is_some_and(|kept| Arc::ptr_eq(&kept.copy, copy));
        if still {
            held.drop_copy(ino);
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        }
        still
    }

    /// The inode is forgotten, cold and in this state; it is known anew when the file is found again.
    pub(crate) fn forgotten(&self, ino: Ino, state: &InodeState) {
        let mut held = self.held.lock();
        let Some(kept) = held.copies.get(&ino) else { return };
        if kept.copy.of.is(state) {
            kept.copy.of.touched.store(0, Ordering::Relaxed);
        } else {
            held.drop_copy(ino);
        }
    }

    /// Where its owner has less than the reserve, slabs are given back until that is there. Call twice a second, or more
    /// often.
    pub fn give_way(&self) {
        self.bury();
        let Some(wanted) = self.pages.wanted_by_others() else {
            if self.is_lost() {
                self.clear();
            }
            return;
        };
        let mut given = self.pages.release_empty(wanted);
        while given < wanted {
            let Some(block) = self.pages.emptiest() else { break };
            let mut held = self.held.lock();
            let there = held.copies.iter().filter(|(_, kept)| kept.copy.lies_in(block));
            let there: Vec<Ino> = there.map(|(ino, _)| *ino).collect();
            for ino in there {
                held.drop_copy(ino);
            }
            drop(held);
            self.bury();
            given += self.pages.release(block);
        }
        self.counts.given_back.fetch_add(given, Ordering::Relaxed);
        log::debug!("{given} bytes of the device are given back, of {wanted} that others want");
    }

    /// All copies go.
    fn clear(&self) {
        let mut held = self.held.lock();
        let inos: Vec<Ino> = held.copies.keys().copied().collect();
        for ino in inos {
            held.drop_copy(ino);
        }
        drop(held);
        self.bury();
        self.pages.release_empty(u64::MAX);
    }

    /// Frees what copies had that are gone. With no lock held: a device may take milliseconds to free a slab.
    fn bury(&self) {
        let gone = std::mem::take(&mut self.held.lock().gone);
        drop(gone);
    }

    /// A snapshot.
    pub fn status(&self) -> TierStatus {
        let held = self.held.lock();
        let (files, bytes) =
            (held.copies.len() as u64, held.copies.values().map(|kept| kept.copy.of.size).sum());
        drop(held);
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TierStatus {
            device: self.pages.device().name(),
            simulated: self.pages.device().is_simulated(),
            lost: self.pages.lost(),
            limit: self.pages.limit_bytes(),
            taken: self.pages.taken_bytes(),
            files,
            bytes,
            in_files: count(&self.counts.in_files),
            in_bytes: count(&self.counts.in_bytes),
            out_files: count(&self.counts.out_files),
            out_bytes: count(&self.counts.out_bytes),
            failures: count(&self.counts.failures),
            damaged: count(&self.counts.damaged),
            given_back: count(&self.counts.given_back),
            scrub: self.scrub.status(),
        }
    }

    /// Rests until there may be something to do, or for `time`.
    pub(crate) fn rest(&self, time: Duration) {
        self.copier.until_woken(time);
    }

    /// Rests for `time`, or until the engine is `stopping`.
    pub(crate) fn pause(&self, time: Duration, stopping: &AtomicBool) {
        self.copier.until_stopping(time, stopping);
    }

    /// Whoever rests here is to see that the engine is stopping.
    pub(crate) fn stop(&self) {
        self.wake();
        self.scrub.wake();
    }

    /// There may be something to do.
    pub(crate) fn wake(&self) {
        self.copier.wake();
    }

    /// Pages for so much; the least useful copies go for it.
    fn room_for(&self, bytes: u64) -> Option<Vec<pages::Page>> {
        // Before others go for it in vain.
        if bytes > self.possible_bytes() {
            return None;
        }
        self.bury();
        loop {
            match self.pages.take(bytes) {
                Take::Pages(pages) => return Some(pages),
                Take::Never => return None,
                Take::Full => {
                    let mut held = self.held.lock();
                    let (_, ino) = held.order.first_key_value()?;
                    let ino = *ino;
                    held.drop_copy(ino);
                    drop(held);
                    self.bury();
                }
            }
        }
    }

    fn note_failure<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() {
            self.counts.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

impl Held {
    fn insert(&mut self, ino: Ino, copy: Arc<Copy>) {
        self.drop_copy(ino);
        self.uses += 1;
        self.order.insert(self.uses, ino);
        self.copies.insert(ino, Kept { copy, used: self.uses });
    }

    fn used(&mut self, ino: Ino) {
        let Some(kept) = self.copies.get_mut(&ino) else { return };
        self.uses += 1;
        self.order.remove(&kept.used);
        self.order.insert(self.uses, ino);
        kept.used = self.uses;
    }

    fn drop_copy(&mut self, ino: Ino) {
        let Some(kept) = self.copies.remove(&ino) else { return };
        self.order.remove(&kept.used);
        self.gone.push(kept.copy);
    }
}

/// Which content a copy is of.
#[derive(Debug)]
pub(crate) struct CopyOf {
    /// Bytes.
    pub size: u64,
    /// What the backing held.
    baseline: Baseline,
    /// Changes counted; see [`crate::namespace::FileState::touched`].
    touched: AtomicU64,
}

impl CopyOf {
    /// That of no inode.
    fn nothing(size: u64) -> CopyOf {
        let (id, never) = (BackingId { dev: 0, ino: 0 }, Timestamp::default());
        let baseline = Baseline { id, size, mtime: never, ctime: never, checked: Instant::now() };
        CopyOf { size, baseline, touched: AtomicU64::new(0) }
    }

    /// That of an inode in this state, which the backing has exactly; `None` where the backing has nothing of it.
    pub(crate) fn now(state: &InodeState) -> Option<CopyOf> {
        let (size, touched) = (state.attr.size, AtomicU64::new(state.file.touched));
        state.baseline().filter(|baseline| baseline.size == size).map(|baseline| CopyOf {
            size,
            baseline,
            touched,
        })
    }

    /// Whether an inode in this state has that content.
    pub(crate) fn is(&self, state: &InodeState) -> bool {
        // With the time of change, which nobody can set: not ours and not others' utimensat(2) hides a change.
        let known = |baseline: Baseline| (baseline.id, baseline.size, baseline.mtime, baseline.ctime);
        state.file.touched == self.touched.load(Ordering::Relaxed)
            && state.attr.size == self.size
            && state.baseline().map(known) == Some(known(self.baseline))
    }
}
