//! Epochs: every file of the directory is read once, in no order, then all of them again.
//!
//! 1. A pass is a run of opens without a repeat. A repeat begins the next.
//! 2. An epoch is believed in after so many distinct opens in no order that a repeat would have come by chance
//!    ([`Family::needed`]).
//! 3. Then what is not read in this pass is predicted, in natural order. The window counts fetches under way, not
//!    files ahead: as any file may be next, the more are in memory the better, up to the bytes allowed.
//! 4. A repeat after nine tenths of the files proves it: the next pass is believed in at once, with the whole window.
//!    Those of the last pass that come late, from a slower worker, are taken for what they are.
//! 5. A repeat before that refutes it. More distinct opens are needed the next time.
//! 6. Directories beside each other are believed in together ([`Family`]), with one window.

use super::super::{By, FILES_MAX, Offers};
use super::Open;
use super::family::{Family, Share};
use crate::ids::Ino;
use rustc_hash::FxHashMap;

/// Distinct opens that are needed in any case, and files that a directory must have: fewer are no data set.
pub const EPOCH_MIN: usize = 8;

/// See the module.
#[derive(Debug)]
pub struct Epoch {
    /// The pass in which each file was last opened.
    passes: FxHashMap<Ino, u32>,
    pass: u32,
    /// Distinct files opened in this pass.
    seen: usize,
    /// Those that were in no order.
    unordered: usize,
    /// It is believed in, by this directory's opens alone.
    holds: bool,
    /// The pass before was an epoch.
    continues: bool,
    share: Share,
    /// The next file to look at.
    cursor: usize,
}

impl Default for Epoch {
    fn default() -> Epoch {
        Epoch {
            passes: FxHashMap::default(),
            // Not 0: the one before it must be a number too.
            pass: 1,
            seen: 0,
            unordered: 0,
            holds: false,
            continues: false,
            share: Share::default(),
            cursor: 0,
        }
    }
}

impl Epoch {
    /// Notes an open. True if it begins a pass.
    pub fn note(&mut self, open: &Open<'_>, family: &mut Family, offers: &mut Offers<'_>) -> bool {
        let (ino, files) = (open.seen.ino, open.files.len());
        let before = self.passes.get(&ino).copied();
        let begins = before == Some(self.pass);
        if begins {
            let whole = files >= EPOCH_MIN && self.seen * 10 >= files * 9;
            let believed = self.holds || family.holds();
            let proven = whole && (believed || self.unordered >= family.needed(files));
            if !whole {
                if believed {
                    offers.ledger.refuted(By::Epoch);
                    offers.ledger.call_off_all(By::Epoch);
                }
                if files >= EPOCH_MIN {
                    family.repeated(believed);
                }
            } else if proven {
                family.proved();
            }
            self.begin(proven);
        } else if self.continues
            && self.seen * 10 < files
            && before.is_none_or(|before| before < self.pass.saturating_sub(1))
        {
            // The last pass's, from a slower worker.
            self.remember(ino, self.pass - 1);
            return false;
        }
        if self.remember(ino, self.pass) {
            self.seen += 1;
        }
        begins
    }

    /// Predicts, if an epoch is believed in. True if so.
    pub fn opened(
        &mut self,
        open: &Open<'_>,
        ordered: bool,
        family: &mut Family,
        offers: &mut Offers<'_>,
    ) -> bool {
        self.unordered += usize::from(!ordered);
        if open.right == Some(By::Epoch) {
            family.was_right();
        }
        let files = open.files;
        if ordered || !offers.enabled.has(By::Epoch) || files.len() < EPOCH_MIN {
            return false;
        }
        let distinct = self.unordered.min(self.seen);
        family.count(&mut self.share, distinct, files.len());
        self.holds |= distinct >= family.needed(files.len());
        if !self.holds && !family.holds() {
            return false;
        }
        let mut room = offers.room(By::Epoch, family.window());
        while room.has(open.bytes)
            && let Some(file) = files.get(self.cursor)
        {
            self.cursor += 1;
            if self.passes.get(&file.ino) != Some(&self.pass)
                && offers.offer(By::Epoch, open.seen.directory, file, open.bytes)
            {
                room.take(open.bytes);
            }
        }
        true
    }

    /// Number of files that are remembered.
    pub fn len(&self) -> usize {
        self.passes.len()
    }

    /// The files that are remembered.
    pub fn remembered(&self) -> impl Iterator<Item = Ino> + '_ {
        self.passes.keys().copied()
    }

    /// Whether this file is.
    pub fn remembers(&self, ino: Ino) -> bool {
        self.passes.contains_key(&ino)
    }

    /// Whether an epoch is believed in and has read this file.
    pub fn is_read(&self, ino: Ino, family: &Family) -> bool {
        (self.holds || family.holds()) && self.passes.get(&ino) == Some(&self.pass)
    }

    fn begin(&mut self, proven: bool) {
        // Passes end with each repeat, so they may be many; those so long ago are not remembered by then.
        self.pass = self.pass.wrapping_add(1).max(1);
        (self.seen, self.unordered, self.cursor) = (0, 0, 0);
        (self.holds, self.continues) = (proven, proven);
        self.share.pass_began();
    }

    /// False if there are too many files.
    fn remember(&mut self, ino: Ino, pass: u32) -> bool {
        let room = self.passes.len() < FILES_MAX || self.passes.contains_key(&ino);
        if room {
            self.passes.insert(ino, pass);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::Ino;
    use crate::predict::fake::{DIRECTORY, FILE_BYTES, Random, World};
    use crate::predict::{By, Config, Enabled};

    #[test]
    fn shuffled_epochs_are_predicted() {
        for seed in 1..=3 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let mut world = World::new(Config::default());
            world.directory(DIRECTORY, 2000);
            for pass in 0..4 {
                let mut hits = 0;
                for (i, file) in random.shuffled(2000).into_iter().enumerate() {
                    // As by 4 workers.
                    let opened = world.open(DIRECTORY, file, (i % 4) as u32);
                    hits += usize::from(opened.hit);
                    let known = pass > 0 || i > 100;
                    assert!(!known || world.predictor.done_for_now(opened.ino), "{pass} {i}");
                }
                println!("pass {pass}: {hits} of 2000");
                assert!(hits >= if pass == 0 { 1000 } else { 1800 });
                world.evict_all();
            }
            assert_eq!(world.account(By::Epoch).wasted_bytes, 0);
        }
    }

    #[test]
    fn stragglers_of_the_last_pass_do_not_refute_it() {
        let seed = 5;
        println!("seed {seed}");
        let mut random = Random(seed);
        let mut world = World::new(Config::default());
        world.directory(DIRECTORY, 1000);
        let mut late: Vec<usize> = Vec::new();
        for pass in 0..4 {
            let mut order = random.shuffled(1000);
            let begun = order.drain(..40).collect::<Vec<_>>();
            let missing = order.split_off(order.len() - 20);
            // Some of the last pass come between the first ones of this.
            late.retain(|file| !begun.contains(file));
            for file in begun.into_iter().chain(late.drain(..)).chain(order) {
                world.open(DIRECTORY, file, 1);
                assert!(pass < 2 || world.predictor.directories[&DIRECTORY].epoch.holds, "{pass} {file}");
            }
            late = missing;
        }
    }

    #[test]
    fn what_may_be_ahead_is_bounded_in_bytes() {
        let seed = 7;
        println!("seed {seed}");
        let mut random = Random(seed);
        let config = Config { ahead_bytes_max: 50 * FILE_BYTES, ..Config::default() };
        let mut world = World::new(config);
        world.directory(DIRECTORY, 1000);
        let mut ahead: i64 = 0;
        for _ in 0..2 {
            for file in random.shuffled(1000) {
                let opened = world.open(DIRECTORY, file, 1);
                ahead += opened.predicted.len() as i64 - i64::from(opened.hit);
                assert!(ahead <= 100, "{ahead}");
            }
            world.evict_all();
        }
    }

    #[test]
    fn a_repeat_refutes_it_and_more_is_needed_then() {
        // Else the second pass is in the order of the first.
        let enabled = Enabled { order: false, ..Enabled::ALL };
        let mut world = World::new(Config { enabled, ..Config::default() });
        world.directory(DIRECTORY, 400);
        // Far apart and never in one stride.
        let scattered = |i: usize| i * i % 401 % 400;
        let mut distinct: Vec<usize> = Vec::new();
        for file in (1..250).map(scattered) {
            if !distinct.contains(&file) {
                distinct.push(file);
            }
        }
        let first = distinct.iter().position(|file| !world.open(DIRECTORY, *file, 1).predicted.is_empty());
        assert_eq!(first, Some(39), "twice the root of 400");
        let before = world.account(By::Epoch).predicted_files;
        world.open(DIRECTORY, distinct[0], 1);
        assert!(!world.predictor.done_for_now(Ino(DIRECTORY.0 + 1 + distinct[0] as u64)), "refuted");
        for file in &distinct[1..90] {
            world.open(DIRECTORY, *file, 1);
        }
        assert_eq!(world.account(By::Epoch).predicted_files, before, "104 are needed now");
        for file in &distinct[90..110] {
            world.open(DIRECTORY, *file, 1);
        }
        assert!(world.account(By::Epoch).predicted_files > before);
    }
}
