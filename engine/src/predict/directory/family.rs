//! Directories beside each other, which a data set with a directory a class is spread over: what their opens say
//! together of epochs.
//!
//! 1. Distinct opens of all of them are counted, and the files of those that were opened in. If a repeat would
//!    have come by chance among so many files, all are read in one epoch: each directory alone would need as
//!    much proof again.
//! 2. Of `n` files chosen at random, `k` are distinct with a probability of about `exp(-k^2 / 2n)`: the birthday
//!    problem. That of each run of opens must be below [`CHANCE`], divided by the square of the number of runs, so
//!    that all of them together, however many, are rarely taken for an epoch.
//! 3. A repeat in a directory that was not read whole ends a run. If an epoch was believed in, twice as many opens
//!    are needed besides the next time, of each directory too.
//!
//! What each directory contributes is kept by itself ([`Share`]); those with few files don't.

use super::epoch::EPOCH_MIN;

/// So improbable must chance be, as a logarithm: one in seven, for the first run.
const CHANCE: f64 = -2.0;

/// Fetches under way at first.
const WINDOW_MIN: usize = 8;

/// Doublings after which nothing changes any more.
const REFUTED_MAX: u32 = 16;

/// See the module.
#[derive(Debug)]
pub struct Family {
    /// Counts the times that it began anew.
    run: u32,
    /// Those since the last proof.
    failed: u32,
    /// Distinct opens in no order, in this run.
    opens: usize,
    /// Files of the directories that were opened in.
    files: usize,
    holds: bool,
    refuted: u32,
    window: usize,
}

impl Default for Family {
    fn default() -> Family {
        Family { run: 1, failed: 0, opens: 0, files: 0, holds: false, refuted: 0, window: WINDOW_MIN }
    }
}

/// What a directory contributed to a run.
#[derive(Debug, Default, Clone, Copy)]
pub struct Share {
    run: u32,
    /// Distinct opens of the directory's own pass that are counted, or were before the run.
    counted: usize,
}

impl Share {
    /// The directory's own pass begins: its opens are counted from none on.
    pub fn pass_began(&mut self) {
        self.counted = 0;
    }
}

impl Family {
    /// Counts the opens of a directory: `opens` distinct ones in no order in its own pass, the last of them now.
    pub fn count(&mut self, share: &mut Share, opens: usize, files: usize) {
        if share.run != self.run {
            *share = Share { run: self.run, counted: opens.saturating_sub(1) };
            self.files += files;
        }
        self.opens += opens.saturating_sub(share.counted);
        share.counted = opens;
        self.holds |= self.opens >= self.needed(self.files);
    }

    /// An epoch is believed in.
    pub fn holds(&self) -> bool {
        self.holds
    }

    /// Distinct opens in no order, of so many files, that are more than chance.
    pub fn needed(&self, files: usize) -> usize {
        let runs = f64::from(self.failed) + 1.0;
        let by_chance = (2.0 * files as f64 * (2.0 * runs.ln() - CHANCE)).sqrt().ceil() as usize;
        // No more than a whole pass, which is proof enough.
        (by_chance.max(EPOCH_MIN) << self.refuted).min((files * 9).div_ceil(10)).max(EPOCH_MIN)
    }

    /// Fetches that may be under way.
    pub fn window(&self) -> usize {
        self.window
    }

    /// One that was predicted was opened.
    pub fn was_right(&mut self) {
        self.window = self.window.saturating_mul(2);
    }

    /// A directory was read whole, and begins anew.
    pub fn proved(&mut self) {
        (self.refuted, self.failed) = (0, 0);
        self.window = usize::MAX;
    }

    /// A file was opened again before the others of its directory; `believed` says whether anybody held that for an
    /// epoch.
    pub fn repeated(&mut self, believed: bool) {
        if believed {
            self.refuted = (self.refuted + 1).min(REFUTED_MAX);
        }
        self.run = self.run.wrapping_add(1).max(1);
        self.failed = self.failed.saturating_add(1);
        (self.opens, self.files, self.holds) = (0, 0, false);
        self.window = WINDOW_MIN;
    }
}

#[cfg(test)]
mod tests {
    use crate::predict::fake::{Random, World};
    use crate::predict::{By, Config};
    use std::collections::HashSet;

    const DIRECTORIES: usize = 50;
    const FILES: usize = 100;

    #[test]
    fn an_epoch_over_many_directories_is_believed_in_as_one() {
        for seed in 1..=3 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let mut world = World::new(Config::default());
            let family = world.family(DIRECTORIES, FILES);
            for pass in 0..3 {
                let mut hits = 0;
                for (i, file) in random.shuffled(DIRECTORIES * FILES).into_iter().enumerate() {
                    let opened = world.open(family[file / FILES], file % FILES, (i % 4) as u32);
                    hits += usize::from(opened.hit);
                }
                println!("pass {pass}: {hits}");
                // Twice the root of 5000 are 142 opens; alone, each directory would need 20: 1000 in all.
                assert!(hits >= DIRECTORIES * FILES - if pass == 0 { 600 } else { 250 });
                world.evict_all();
            }
            assert_eq!(world.account(By::Epoch).wasted_bytes, 0);
        }
    }

    #[test]
    fn reads_at_random_in_many_directories_cause_almost_nothing() {
        const OPENS: usize = 20_000;
        for seed in 1..=5 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let mut world = World::new(Config::default());
            let family = world.family(DIRECTORIES, FILES);
            let mut unused = HashSet::new();
            for open in 0..OPENS {
                let file = random.below((DIRECTORIES * FILES) as u64) as usize;
                let opened = world.open(family[file / FILES], file % FILES, (open % 4) as u32);
                unused.remove(&opened.ino);
                unused.extend(opened.predicted.iter().map(|predicted| predicted.ino));
            }
            println!("{} of {OPENS} were never used", unused.len());
            assert!(unused.len() < OPENS / 100);
        }
    }
}
