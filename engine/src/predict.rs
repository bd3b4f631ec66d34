//! Which files will be opened next.
//!
//! The engine tells of each open for reading and of what became of each fetch; it is told what to fetch.
//!
//! 1. The ledger (`account`) says whether the file opened had been predicted, and by whom.
//! 2. Its directory (`directory`) is asked. A restore brings the other shards of a checkpoint; an order is
//!    continued; an epoch, which reads every file once, brings those not read yet.
//! 3. If none of these holds there, the file that came behind this one before is predicted (`transitions`).
//! 4. What is in memory already or predicted already is left out, and what is given is entered in the ledger.
//!
//! Invariants:
//! - A file is predicted at most once until it is opened, its fetch is dropped or it is evicted.
//! - A predictor that wastes much gives nothing any more until it would have been right again.
//! - All tables are bounded. An open costs a few lookups, a few binary searches in the list of its directory, and
//!   what it gives.
//!
//! Not here: I/O, threads, clocks (time is counted in opens), and what is read inside a file.

use crate::ids::{Ino, Name};
use account::{Ledger, Room};
use directory::{Directory, Family};
use rustc_hash::FxHashMap;
use std::cmp::Ordering;
use std::sync::Arc;
use transitions::Transitions;

mod account;
mod directory;
#[cfg(test)]
mod fake;
mod transitions;

pub use account::Account;

/// Directories that are followed. A data set with a directory a class has a thousand.
const DIRECTORIES_MAX: usize = 4096;

/// Files that are remembered in one directory, and about so many in all of them: some 64 bytes each.
const FILES_MAX: usize = 1 << 20;

/// Processes whose last open is remembered.
const PROCESSES_MAX: usize = 4096;

/// Files ahead, unless said otherwise: enough that 8 streams of 5 ms an operation never run dry between two opens.
const AHEAD_FILES_MAX: usize = 256;

/// Bytes ahead, unless said otherwise: 8 shards of 256 MiB at once.
const AHEAD_BYTES_MAX: u64 = 2 << 30;

/// Who predicted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The opens follow an order of names, or that of the last time.
    Order,
    /// Every file of the directory is read once, in no order.
    Epoch,
    /// The shards of a checkpoint are read.
    Restore,
    /// It came behind this file before.
    Transition,
}

impl By {
    /// All of them, as accounts list them.
    pub const ALL: [By; 4] = [By::Order, By::Epoch, By::Restore, By::Transition];

    /// As status and settings call it.
    pub fn word(self) -> &'static str {
        match self {
            By::Order => "order",
            By::Epoch => "epoch",
            By::Restore => "restore",
            By::Transition => "transition",
        }
    }

    /// Its place in [`By::ALL`].
    fn index(self) -> usize {
        match self {
            By::Order => 0,
            By::Epoch => 1,
            By::Restore => 2,
            By::Transition => 3,
        }
    }
}

/// Which predictors are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enabled {
    /// See [`By::Order`].
    pub order: bool,
    /// See [`By::Epoch`].
    pub epoch: bool,
    /// See [`By::Restore`].
    pub restore: bool,
    /// See [`By::Transition`].
    pub transition: bool,
    /// What is read of a file from front to back is fetched whole. Not asked here: the engine sees it.
    pub scan: bool,
}

impl Enabled {
    /// All of them.
    pub const ALL: Enabled =
        Enabled { order: true, epoch: true, restore: true, transition: true, scan: true };

    /// None of them.
    pub const NONE: Enabled =
        Enabled { order: false, epoch: false, restore: false, transition: false, scan: false };

    /// Whether this one is.
    pub fn has(self, by: By) -> bool {
        match by {
            By::Order => self.order,
            By::Epoch => self.epoch,
            By::Restore => self.restore,
            By::Transition => self.transition,
        }
    }
}

/// What the user sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Which predictors are asked.
    pub enabled: Enabled,
    /// Files that are predicted ahead: in order, files in front of the reader; of an epoch or a restore, fetches
    /// under way.
    pub ahead_files_max: usize,
    /// Bytes that are predicted and not yet opened, for each predictor; for an epoch, twice that.
    pub ahead_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Config {
        Config { enabled: Enabled::ALL, ahead_files_max: AHEAD_FILES_MAX, ahead_bytes_max: AHEAD_BYTES_MAX }
    }
}

/// A file that was opened for reading.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Where it was opened.
    pub directory: Ino,
    /// Its name there.
    pub name: Name,
    /// The file.
    pub ino: Ino,
    /// Its size.
    pub bytes: u64,
    /// Who opened it.
    pub process: u32,
}

/// A file of a directory, as the predictor is told about it.
#[derive(Debug, Clone)]
pub struct Sibling {
    /// Its name there.
    pub name: Name,
    /// The file.
    pub ino: Ino,
}

/// What the predictor may ask; answers from memory.
pub trait Tree {
    /// The regular files of a directory in [`natural_order`]; `None` if not known yet. Asked at each open, so the
    /// list should be kept.
    fn files(&self, directory: Ino) -> Option<Arc<[Sibling]>>;

    /// Whether the content is in memory already or on its way.
    fn is_in_memory(&self, ino: Ino) -> bool;

    /// The size of a file, if it is known.
    fn bytes(&self, _ino: Ino) -> Option<u64> {
        None
    }

    /// Directory and name of a file. Without an answer, files behind another are known only if they were opened
    /// since the start.
    fn place(&self, _ino: Ino) -> Option<(Ino, Name)> {
        None
    }
}

/// To be fetched, the most urgent first.
#[derive(Debug, Clone)]
pub struct Predicted {
    /// Where it is expected to be opened.
    pub directory: Ino,
    /// Its name there.
    pub name: Name,
    /// The file.
    pub ino: Ino,
    /// Bytes, about.
    pub bytes: u64,
    /// Who says so.
    pub by: By,
}

/// See the module.
#[derive(Debug)]
pub struct Predictor {
    config: Config,
    ledger: Ledger,
    directories: FxHashMap<Ino, Directory>,
    /// What directories of one parent, which is the key, have in common; of those without a known parent, each alone.
    families: FxHashMap<Ino, Family>,
    /// Files remembered in all directories.
    files: usize,
    /// Where files were opened. Each of them is remembered in its directory too.
    places: FxHashMap<Ino, (Ino, Name)>,
    /// What each process opened last.
    last: FxHashMap<u32, Ino>,
    transitions: Transitions,
    /// Counts opens: the clock of all this.
    opens: u64,
}

impl Predictor {
    /// One that knows nothing yet.
    pub fn new(config: Config) -> Predictor {
        Predictor {
            config,
            ledger: Ledger::new(config.ahead_files_max, config.ahead_bytes_max),
            directories: FxHashMap::default(),
            families: FxHashMap::default(),
            files: 0,
            places: FxHashMap::default(),
            last: FxHashMap::default(),
            transitions: Transitions::default(),
            opens: 0,
        }
    }

    /// Learns from an open, and says what to fetch.
    pub fn opened(&mut self, seen: &Seen, tree: &dyn Tree) -> Vec<Predicted> {
        self.opens += 1;
        let right = self.ledger.opened(seen.ino);
        let before = self.opened_before(seen);
        if before == Some(seen.ino) {
            // Opened twice in a row: for its header, then for its content. Says nothing of other files.
            return Vec::new();
        }
        let mut offers =
            Offers { tree, enabled: self.config.enabled, ledger: &mut self.ledger, given: Vec::new() };
        let directory = self.directories.entry(seen.directory).or_default();
        directory.opened_at = self.opens;
        let files_before = directory.len();
        if directory.parent.is_none() {
            directory.parent = tree.place(seen.directory).map(|(parent, _)| parent);
        }
        let family = self.families.entry(directory.family(seen.directory)).or_default();
        let held = directory.opened(seen, right, family, &mut offers);
        self.files += directory.len() - files_before;
        if directory.remembers(seen.ino) {
            self.places.insert(seen.ino, (seen.directory, seen.name.clone()));
        }
        if offers.enabled.has(By::Transition) {
            if let Some(before) = before {
                self.transitions.learn(before, seen.ino);
            }
            if !held
                && let Some(next) = self.transitions.next(seen.ino)
                && let Some((directory, name)) = tree.place(next).or_else(|| self.places.get(&next).cloned())
            {
                let bytes = tree.bytes(next).unwrap_or(seen.bytes);
                if offers.room(By::Transition, usize::MAX).has(bytes) {
                    offers.offer(By::Transition, directory, &Sibling { name, ino: next }, bytes);
                }
            }
        }
        let given = offers.given;
        self.forget_old(seen.directory);
        given
    }

    /// A file came into memory.
    pub fn fetched(&mut self, ino: Ino, bytes: u64) {
        self.ledger.fetched(ino, bytes);
    }

    /// The fetch of a file was dropped.
    pub fn failed(&mut self, ino: Ino) {
        self.ledger.failed(ino);
    }

    /// A file left memory, or is gone.
    pub fn evicted(&mut self, ino: Ino) {
        self.ledger.evicted(ino);
    }

    /// Files that were predicted and will not be opened after all, since this was asked last: [`Predictor::failed`]
    /// for those whose fetches could be dropped.
    pub fn called_off(&mut self) -> Vec<Ino> {
        self.ledger.called_off()
    }

    /// What each predictor did.
    pub fn account(&self) -> [(By, Account); 4] {
        By::ALL.map(|by| (by, self.ledger.account(by)))
    }

    /// True if a file that was read will, by the epoch predictor, not be read again before all others of its
    /// directory: it is evicted first.
    pub fn done_for_now(&self, seen_ino: Ino) -> bool {
        self.config.enabled.has(By::Epoch)
            && self.places.get(&seen_ino).is_some_and(|(place, _)| {
                let directory = self.directories.get(place);
                let family = directory.and_then(|directory| self.families.get(&directory.family(*place)));
                directory.zip(family).is_some_and(|(directory, family)| directory.is_read(seen_ino, family))
            })
    }

    /// What is known of files behind each other, for [`Predictor::import`].
    pub fn export(&self) -> Vec<(Ino, Ino, u8)> {
        self.transitions.export()
    }

    /// Takes over what [`Predictor::export`] gave before a restart.
    pub fn import(&mut self, known: &[(Ino, Ino, u8)]) {
        self.transitions.import(known);
    }

    /// What the process opened before this.
    fn opened_before(&mut self, seen: &Seen) -> Option<Ino> {
        if self.last.len() >= PROCESSES_MAX && !self.last.contains_key(&seen.process) {
            // Processes end without a word. Each one that lives loses one pair by this.
            self.last.clear();
        }
        self.last.insert(seen.process, seen.ino)
    }

    /// Keeps the tables bounded. Forgets an eighth at once, so that each open pays a constant share of it.
    fn forget_old(&mut self, keep: Ino) {
        if self.directories.len() <= DIRECTORIES_MAX && self.files <= FILES_MAX {
            return;
        }
        let mut by_age: Vec<(u64, Ino)> = (self.directories.iter())
            .filter(|(ino, _)| **ino != keep)
            .map(|(ino, directory)| (directory.opened_at, *ino))
            .collect();
        by_age.sort_unstable();
        if self.families.len() > DIRECTORIES_MAX {
            // What they know comes again.
            self.families.clear();
        }
        for (_, ino) in by_age {
            if self.directories.len() <= DIRECTORIES_MAX / 8 * 7 && self.files <= FILES_MAX / 8 * 7 {
                break;
            }
            if let Some(directory) = self.directories.remove(&ino) {
                self.files -= directory.len();
                for file in directory.remembered() {
                    self.places.remove(&file);
                }
            }
        }
    }
}

/// What one open gives, and what it may ask.
struct Offers<'a> {
    tree: &'a dyn Tree,
    enabled: Enabled,
    ledger: &'a mut Ledger,
    given: Vec<Predicted>,
}

impl Offers<'_> {
    /// How much this predictor may give now, with so many fetches under way at most.
    fn room(&mut self, by: By, window: usize) -> Room {
        self.ledger.room(by, window)
    }

    /// Predicts a file of about this size, if it isn't in memory or predicted. True if this took room.
    fn offer(&mut self, by: By, directory: Ino, file: &Sibling, bytes: u64) -> bool {
        if self.ledger.is_predicted(by, file.ino) || self.tree.is_in_memory(file.ino) {
            return false;
        }
        if self.ledger.predict(by, file.ino, bytes) {
            self.given.push(Predicted { directory, name: file.name.clone(), ino: file.ino, bytes, by });
        }
        true
    }
}

/// Names in the order in which people count: runs of digits compare as numbers, all else byte by byte. A total
/// order: of equal numbers, the one with fewer leading zeros comes first.
pub fn natural_order(a: &[u8], b: &[u8]) -> Ordering {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        let (digits_a, digits_b) = (digits(&a[i..]), digits(&b[j..]));
        let order = if digits_a.is_empty() || digits_b.is_empty() {
            let order = a[i].cmp(&b[j]);
            (i, j) = (i + 1, j + 1);
            order
        } else {
            (i, j) = (i + digits_a.len(), j + digits_b.len());
            let (number_a, number_b) = (without_zeros(digits_a), without_zeros(digits_b));
            number_a
                .len()
                .cmp(&number_b.len())
                .then_with(|| number_a.cmp(number_b))
                .then(digits_a.len().cmp(&digits_b.len()))
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    (a.len() - i).cmp(&(b.len() - j))
}

/// The digits at the start.
fn digits(name: &[u8]) -> &[u8] {
    let end = name.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(name.len());
    &name[..end]
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    &digits[start..]
}

#[cfg(test)]
mod tests {
    use super::fake::{DIRECTORY, Random, World};
    use super::*;

    #[test]
    fn names_are_in_the_order_of_their_numbers() {
        let ordered: [&[u8]; 9] = [b"", b"a", b"a1", b"a1b", b"a01", b"a2", b"a10", b"a10b2", b"b"];
        for (i, a) in ordered.iter().enumerate() {
            for (j, b) in ordered.iter().enumerate() {
                assert_eq!(natural_order(a, b), i.cmp(&j), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn a_file_is_not_predicted_again_while_it_is_outstanding() {
        let mut world = World::new(Config::default());
        world.directory(DIRECTORY, 100);
        world.fetches_arrive = false;
        let mut predicted = Vec::new();
        for i in 0..50 {
            predicted.extend(world.open(DIRECTORY, i, 1).predicted.iter().map(|p| p.ino));
        }
        let count = predicted.len();
        predicted.sort_unstable();
        predicted.dedup();
        assert_eq!(predicted.len(), count);
        let account = world.account(By::Order);
        assert_eq!(account.predicted_files, count as u64);
        assert_eq!((account.late_files, account.used_bytes), (47, 0));
    }

    #[test]
    fn popular_files_at_random_cause_almost_nothing() {
        const OPENS: usize = 20_000;
        for seed in 1..=3 {
            println!("seed {seed}");
            let mut random = Random(seed);
            let mut world = World::new(Config::default());
            world.directory(DIRECTORY, 2000);
            let files = random.shuffled(2000);
            // Zipf: the k-th most popular file has a share of 1/k.
            let mut shares = Vec::new();
            let mut sum = 0.0;
            for rank in 1..=2000 {
                sum += 1.0 / f64::from(rank);
                shares.push(sum);
            }
            let mut unused = std::collections::HashSet::new();
            for open in 0..OPENS {
                let drawn = random.below(1 << 30) as f64 / f64::from(1 << 30) * sum;
                let rank = shares.partition_point(|share| *share < drawn).min(1999);
                let opened = world.open(DIRECTORY, files[rank], (open % 4) as u32);
                unused.remove(&opened.ino);
                unused.extend(opened.predicted.iter().map(|predicted| predicted.ino));
            }
            assert!(unused.len() < OPENS / 100, "{} of {OPENS}", unused.len());
        }
    }

    #[test]
    fn what_came_behind_a_file_twice_is_predicted() {
        let mut world = World::new(Config::default());
        let (models, tables) = (Ino(1 << 40), Ino(2 << 40));
        world.directory(models, 2);
        world.directory(tables, 2);
        for _ in 0..2 {
            assert!(world.open(models, 0, 1).predicted.is_empty());
            assert!(world.open(tables, 1, 1).predicted.is_empty());
            world.evict_all();
        }
        let opened = world.open(models, 0, 1);
        assert_eq!(opened.predicted.len(), 1);
        let predicted = &opened.predicted[0];
        assert_eq!((predicted.by, predicted.directory), (By::Transition, tables));
        assert!(world.open(tables, 1, 1).hit);

        let mut later = World::new(Config::default());
        later.directory(models, 2);
        later.directory(tables, 2);
        later.predictor.import(&world.predictor.export());
        assert!(later.open(models, 0, 1).predicted.is_empty(), "its name isn't known before it was opened");
        later.open(tables, 1, 1);
        later.evict_all();
        assert_eq!(later.open(models, 0, 1).predicted.len(), 1);
    }

    #[test]
    fn one_that_wastes_is_turned_down_and_up_again_when_it_would_have_been_right() {
        let mut world = World::new(Config::default());
        world.directory(DIRECTORY, 20_000);
        // It looks like an order each time, and never is.
        for start in [0, 1000, 2000, 3000, 4000] {
            for i in start..start + 3 {
                world.open(DIRECTORY, i, 1);
            }
            world.evict_all();
        }
        let account = world.account(By::Order);
        assert_eq!((account.window, account.refused), (0, 1), "{account:?}");
        assert!(account.wasted_bytes > 0);
        let mut given = 0;
        for i in 8000..8030 {
            given += world.open(DIRECTORY, i, 1).predicted.len();
        }
        assert_eq!(given, 0, "turned down");
        for i in 8030..8100 {
            given += world.open(DIRECTORY, i, 1).predicted.len();
        }
        assert!(given > 0, "turned up");
        assert!(world.account(By::Order).window > 0);
    }

    #[test]
    fn what_was_asked_for_is_called_off_when_a_prediction_fails() {
        let mut world = World::new(Config::default());
        world.directory(DIRECTORY, 1000);
        world.fetches_arrive = false;
        let mut asked: Vec<Ino> = Vec::new();
        for place in [10, 11, 12, 13] {
            asked.extend(world.open(DIRECTORY, place, 1).predicted.iter().map(|predicted| predicted.ino));
        }
        assert!(world.predictor.called_off().is_empty());
        let opened = world.ino(DIRECTORY, 13);
        world.open(DIRECTORY, 700, 1);
        let mut called_off = world.predictor.called_off();
        called_off.sort_unstable();
        asked.retain(|ino| *ino != opened);
        assert_eq!(called_off, asked, "the order is left");
        assert!(world.predictor.called_off().is_empty(), "told once");

        // An epoch over 400 files is believed in after 40 opens, and refuted by the first repeat.
        let enabled = Enabled { order: false, ..Enabled::ALL };
        let mut world = World::new(Config { enabled, ..Config::default() });
        world.directory(DIRECTORY, 400);
        world.fetches_arrive = false;
        let mut files = Random(3).shuffled(400);
        files.truncate(45);
        for place in &files {
            world.open(DIRECTORY, *place, 1);
        }
        let asked = world.account(By::Epoch);
        assert!(asked.predicted_files > 0 && world.predictor.called_off().is_empty());
        world.open(DIRECTORY, files[0], 1);
        let called_off = world.predictor.called_off().len() as u64;
        assert_eq!(called_off + world.account(By::Epoch).late_files, asked.predicted_files);
    }

    #[test]
    fn one_that_is_switched_off_gives_nothing() {
        let mut world = World::new(Config { enabled: Enabled::NONE, ..Config::default() });
        world.directory(DIRECTORY, 100);
        for i in 0..100 {
            assert!(world.open(DIRECTORY, i, 1).predicted.is_empty());
        }
    }

    #[test]
    fn tables_are_bounded() {
        let mut world = World::new(Config::default());
        for directory in 1..=DIRECTORIES_MAX as u64 + 10 {
            world.directory(Ino(directory << 40), 2);
            world.open(Ino(directory << 40), 0, directory as u32);
        }
        assert!(world.predictor.directories.len() <= DIRECTORIES_MAX);
        assert_eq!(world.predictor.places.len(), world.predictor.directories.len());
        assert!(world.predictor.last.len() <= PROCESSES_MAX);
        assert!(world.predictor.directories.contains_key(&Ino((DIRECTORIES_MAX as u64 + 10) << 40)));
    }
}
