//! Checks of copies where they lie, by the device itself: one that has been damaged goes before anybody asks for it.
//!
//! 1. A round takes the copies that are there when it begins, one after another, in slices: of pages as many as the
//!    device checks in a few milliseconds, of one copy or of many.
//! 2. Before each slice the device is asked whether it is idle. Where it isn't the round waits.
//! 3. A copy of which a page has another checksum than it had on the host goes, and counts as damaged.
//! 4. From the end of a round to the next it rests.
//!
//! Nobody waits for this, and this no longer for a device than a copy does. No lock is held while the device works. A
//! copy is held as long as a slice takes, so that its memory goes back to who wants it just after; in between it may go,
//! and the round goes on with the next. What comes during a round is for the next one.

use super::rest::Rest;
use super::{Copy, Tier};
use crate::device::{Extent, Scrubber};
use crate::ids::Ino;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Between two looks whether the device is idle again.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After a slice that failed, or when the device didn't tell whether it is idle.
const PAUSE: Duration = Duration::from_secs(30);
/// Of a slice: 4 GiB of whole pages, which no device reads in much less than a millisecond. With no bound, slices of
/// small files would keep the host busy and not the device.
const SLICE_PAGES_MAX: usize = 2048;

/// A snapshot; status shows it as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Why nothing is checked now, in a sentence.
    pub off: Option<String>,
    /// Bytes checked since the start.
    pub bytes: u64,
    /// Times that all copies were checked.
    pub rounds: u64,
    /// Seconds since the last of those ended.
    pub last: Option<f64>,
    /// Copies that were found damaged.
    pub damaged: u64,
}

/// What of the tier is this thread's.
#[derive(Debug)]
pub(super) struct Scrub {
    every: Duration,
    /// A leaf lock.
    told: Mutex<Told>,
    rest: Rest,
}

#[derive(Debug, Default)]
struct Told {
    /// But for `last`.
    status: ScrubStatus,
    /// When the last round did.
    ended: Option<Instant>,
}

impl Scrub {
    pub(super) fn new(every: Duration) -> Scrub {
        Scrub { every, told: Mutex::default(), rest: Rest::default() }
    }

    pub(super) fn status(&self) -> ScrubStatus {
        let told = self.told.lock();
        let last = told.ended.map(|ended| ended.elapsed().as_secs_f64());
        ScrubStatus { last, ..told.status.clone() }
    }

    /// Whoever rests is to look whether the engine is stopping.
    pub(super) fn wake(&self) {
        self.rest.wake();
    }

    fn note_why_not(&self, why: &io::Error) {
        let off = self.told.lock().status.off.replace(why.to_string());
        if off.is_none() {
            log::warn!("copies on the device are not checked: {why}");
        }
    }
}

/// What of a round is left.
#[derive(Debug)]
struct Round {
    copies: std::vec::IntoIter<(Ino, Weak<Copy>)>,
    /// One that is begun, and its next page.
    begun: Option<(Ino, Weak<Copy>, usize)>,
}

/// Pages that are checked at once; those of a copy stand side by side.
#[derive(Debug, Default)]
struct Slice {
    extents: Vec<Extent>,
    pages: Vec<(Ino, Arc<Copy>, usize)>,
    bytes: u64,
}

impl Round {
    /// As many of the next pages as have `bytes_max`, or one; none where all that were left are gone.
    fn slice(&mut self, bytes_max: u64) -> Slice {
        let mut slice = Slice::default();
        while let Some((ino, weak, first)) = self.begun.take().or_else(|| self.next_copy()) {
            // One that is gone needs no check.
            let Some(copy) = weak.upgrade() else { continue };
            for page in first..copy.pages() {
                let extent = copy.extent(page);
                if !slice.has_room(extent.bytes, bytes_max) {
                    self.begun = Some((ino, weak, page));
                    return slice;
                }
                slice.bytes += extent.bytes;
                slice.extents.push(extent);
                slice.pages.push((ino, copy.clone(), page));
            }
        }
        slice
    }

    fn is_over(&self) -> bool {
        self.begun.is_none() && self.copies.len() == 0
    }

    fn next_copy(&mut self) -> Option<(Ino, Weak<Copy>, usize)> {
        self.copies.next().map(|(ino, copy)| (ino, copy, 0))
    }
}

impl Slice {
    fn has_room(&self, bytes: u64, bytes_max: u64) -> bool {
        self.pages.is_empty() || (self.bytes + bytes <= bytes_max && self.pages.len() < SLICE_PAGES_MAX)
    }
}

impl Tier {
    /// Checks copies round after round, until the engine is `stopping`, or the device is lost or can't.
    pub(crate) fn scrub(&self, stopping: &AtomicBool) {
        let scrubber = match self.pages.device().scrubber() {
            Ok(scrubber) => scrubber,
            Err(why) => return self.scrub.note_why_not(&why),
        };
        while !self.scrub_ends(stopping) {
            self.scrub_round(&scrubber, stopping);
            self.scrub.rest.until_stopping(self.scrub.every, stopping);
        }
    }

    fn scrub_ends(&self, stopping: &AtomicBool) -> bool {
        stopping.load(Ordering::Relaxed) || self.is_lost()
    }

    fn scrub_round(&self, scrubber: &Arc<dyn Scrubber>, stopping: &AtomicBool) {
        let mut round = self.scrub_begins();
        let mut all = !round.is_over();
        while !round.is_over() {
            if self.scrub_ends(stopping) {
                return;
            }
            match self.scrub_slice(&mut round, scrubber) {
                Ok(true) => {}
                Ok(false) => self.scrub.rest.until_stopping(LOOK_EVERY, stopping),
                Err(why) => {
                    all = false;
                    self.scrub.note_why_not(&why);
                    self.scrub.rest.until_stopping(PAUSE, stopping);
                }
            }
        }
        if all {
            let mut told = self.scrub.told.lock();
            told.status.rounds += 1;
            told.ended = Some(Instant::now());
        }
    }

    fn scrub_begins(&self) -> Round {
        let held = self.held.lock();
        let copies: Vec<_> =
            held.copies.iter().map(|(ino, kept)| (*ino, Arc::downgrade(&kept.copy))).collect();
        Round { copies: copies.into_iter(), begun: None }
    }

    /// Checks the next slice; false if the device isn't idle.
    fn scrub_slice(&self, round: &mut Round, scrubber: &Arc<dyn Scrubber>) -> io::Result<bool> {
        if !scrubber.is_idle()? {
            return Ok(false);
        }
        let Slice { extents, pages, bytes } = round.slice(scrubber.slice_bytes());
        let scrubber = scrubber.clone();
        let checksums = self.pages.call(move || scrubber.checksums(&extents))??;
        let mut damaged = 0;
        for ((ino, copy, page), crc) in pages.iter().zip(checksums) {
            if !copy.is_intact(*page, crc) && self.forget_damaged(*ino, copy) {
                log::warn!("the copy of inode {} on the device was damaged where it lay", ino.0);
                damaged += 1;
            }
        }
        let mut told = self.scrub.told.lock();
        told.status.off = None;
        told.status.bytes += bytes;
        told.status.damaged += damaged;
        drop(told);
        drop(pages);
        self.bury();
        Ok(true)
    }
}
