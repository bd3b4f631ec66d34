//! Files leave the arena by way of a device's memory, if there is one: while memory is short, those that would leave next
//! are copied there ahead of need. Whoever needs their memory then just evicts them, and they come back from there; see
//! `room` and [`crate::fetch`]. While nobody else has use for the device it checks those that it has.

use super::Engine;
use crate::device::Device;
use crate::error::Result;
use crate::ids::Ino;
use crate::namespace::InodeState;
use crate::tier::{Copy, CopyOf, Tier, TierConfig, TierStatus};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Copies are made while less than one part in so many of the memory is free.
const FREE_SHARE: u64 = 2;
/// Of the files that leave next, as many as have one part in so many of the memory.
const AHEAD_SHARE: u64 = 4;
/// Of those, so many at most are looked at in one go.
const LOOKS_MAX: usize = 4096;
/// Between two looks whether the device's owner wants memory back.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks for files to be copied that found none.
const LOOKS_APART: Duration = Duration::from_millis(20);
/// After a copy that failed, or found no room.
const PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// Clean files that leave the arena leave copies in a device's memory from now on. Once.
    pub fn use_device(self: &Arc<Engine>, device: Arc<dyn Device>, config: TierConfig) {
        if self.tier.set(Arc::new(Tier::new(device, config))).is_err() {
            return;
        }
        self.spawn("copy-ahead", Engine::run_copier);
        self.spawn("device-watch", Engine::run_device_watch);
        self.spawn("scrub", Engine::run_scrub);
    }

    /// What is in the device's memory, if there is one.
    pub fn tier_status(&self) -> Option<TierStatus> {
        self.tier.get().map(|tier| tier.status())
    }

    /// The copy of a file in this state, if there is one.
    pub(crate) fn copy_of(&self, ino: Ino, state: &InodeState) -> Option<Arc<Copy>> {
        self.tier.get()?.copy_of(ino, state)
    }

    /// Whether a file may come back from a device.
    pub(crate) fn may_have_copy(&self, ino: Ino) -> bool {
        self.tier.get().is_some_and(|tier| tier.has(ino))
    }

    /// Whoever copies is to look, if memory is short.
    pub(crate) fn copy_ahead_if_short(&self) {
        if let Some(tier) = self.tier.get().filter(|_| self.is_filling()) {
            tier.wake();
        }
    }

    fn is_filling(&self) -> bool {
        self.unpromised_bytes() < self.arena.ceiling_bytes() / FREE_SHARE
    }

    fn run_device_watch(&self) {
        let Some(tier) = self.tier.get() else { return };
        while !self.stopping.load(Ordering::Relaxed) {
            tier.give_way();
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn run_scrub(&self) {
        if let Some(tier) = self.tier.get() {
            tier.scrub(&self.stopping);
        }
    }

    fn run_copier(&self) {
        let Some(tier) = self.tier.get() else { return };
        while !self.stopping.load(Ordering::Relaxed) && !tier.is_lost() {
            match self.copy_coldest(tier) {
                // Others may have become cold meanwhile.
                Ok(1..) => {}
                Ok(0) => {
                    // Each close of a clean file wakes us, and a look costs.
                    tier.pause(LOOKS_APART, &self.stopping);
                    tier.rest(crate::drain::IDLE_MAX);
                }
                Err(e) => {
                    log::debug!("a file is not copied to the device: {e}");
                    tier.pause(PAUSE, &self.stopping);
                }
            }
        }
    }

    /// Copies what leaves next and has no copy; returns how many files that were.
    fn copy_coldest(&self, tier: &Tier) -> Result<u64> {
        if !self.is_filling() {
            return Ok(0);
        }
        // Not so many that they would push each other out.
        let possible = tier.possible_bytes();
        let ahead = (self.arena.ceiling_bytes() / AHEAD_SHARE).min(possible / 2);
        let coldest = self.cache.lock().coldest(ahead, LOOKS_MAX, |bytes| tier.cost(bytes, possible));
        let (mut copied, mut failed) = (0, Ok(()));
        for key in coldest {
            if self.stopping.load(Ordering::Relaxed) || tier.is_lost() {
                break;
            }
            match self.copy_file(tier, Ino(key), possible) {
                Ok(was) => copied += u64::from(was),
                // The next one may do.
                Err(e) => failed = Err(e),
            }
        }
        failed.map(|()| copied)
    }

    /// Copies a clean file that nobody uses, if it is worth a copy and has none.
    fn copy_file(&self, tier: &Tier, ino: Ino, possible: u64) -> Result<bool> {
        let Ok(inode) = self.inode(ino) else { return Ok(false) };
        let (content, of) = {
            // One that is locked is in use.
            let Some(state) = inode.state.try_lock() else { return Ok(false) };
            if tier.cost(state.attr.size, possible).is_none()
                || tier.copy_of(ino, &state).is_some()
                || self.clean_and_unused(&inode, &state).is_none()
            {
                return Ok(false);
            }
            let Some(of) = CopyOf::now(&state) else { return Ok(false) };
            (self.arena.open_read(ino)?, of)
        };
        let copy = tier.copy_in(content.file()?, of)?;
        // Locked, so that the inode is not forgotten in between.
        let state = inode.state.lock();
        let still = copy.of.is(&state);
        if still {
            tier.keep(ino, copy);
        }
        Ok(still)
    }
}
