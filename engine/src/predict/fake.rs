//! A tree in memory for tests of predictions, in which fetches arrive at once.

use super::{Account, By, Config, Predicted, Predictor, Seen, Sibling, Tree, natural_order};
use crate::ids::{Ino, Name};
use rustc_hash::{FxHashMap, FxHashSet};
use std::sync::Arc;

/// A directory for those that need one.
pub const DIRECTORY: Ino = Ino(1 << 40);

/// Size of files unless said otherwise.
pub const FILE_BYTES: u64 = 100 << 10;

/// An own small generator, as tests beside the code have none.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    /// The numbers below `count`.
    pub fn shuffled(&mut self, count: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..count).collect();
        for i in (1..count).rev() {
            numbers.swap(i, self.below(i as u64 + 1) as usize);
        }
        numbers
    }
}

/// What is there, and what of it is in memory.
#[derive(Default)]
struct Fake {
    files: FxHashMap<Ino, Arc<[Sibling]>>,
    memory: FxHashSet<Ino>,
    /// Of directories.
    parents: FxHashMap<Ino, Ino>,
}

impl Tree for Fake {
    fn files(&self, directory: Ino) -> Option<Arc<[Sibling]>> {
        self.files.get(&directory).cloned()
    }

    fn is_in_memory(&self, ino: Ino) -> bool {
        self.memory.contains(&ino)
    }

    fn place(&self, ino: Ino) -> Option<(Ino, Name)> {
        Some((*self.parents.get(&ino)?, Name::from(b"directory".to_vec())))
    }
}

/// What an open came to.
pub struct Opened {
    pub ino: Ino,
    /// It was in memory.
    pub hit: bool,
    pub predicted: Vec<Predicted>,
}

/// A predictor and its tree.
pub struct World {
    pub predictor: Predictor,
    tree: Fake,
    /// Size of all files.
    pub bytes: u64,
    /// Whether what is predicted comes into memory, at once.
    pub fetches_arrive: bool,
}

impl World {
    pub fn new(config: Config) -> World {
        World {
            predictor: Predictor::new(config),
            tree: Fake::default(),
            bytes: FILE_BYTES,
            fetches_arrive: true,
        }
    }

    /// A directory with so many files, whose places are their numbers.
    pub fn directory(&mut self, directory: Ino, files: usize) {
        self.directory_of(directory, (0..files).map(|i| format!("file{i}.jpg")).collect());
    }

    /// So many directories beside each other, with so many files each.
    pub fn family(&mut self, directories: usize, files: usize) -> Vec<Ino> {
        let family: Vec<Ino> =
            (1..=directories as u64).map(|number| Ino(DIRECTORY.0 + (number << 32))).collect();
        for directory in &family {
            self.directory(*directory, files);
            self.tree.parents.insert(*directory, DIRECTORY);
        }
        family
    }

    /// A directory with these files, which are put in order.
    pub fn directory_of(&mut self, directory: Ino, mut names: Vec<String>) {
        names.sort_by(|a, b| natural_order(a.as_bytes(), b.as_bytes()));
        let files = (names.into_iter().zip(directory.0 + 1..))
            .map(|(name, ino)| Sibling { name: Name::from(name.into_bytes()), ino: Ino(ino) })
            .collect();
        self.tree.files.insert(directory, files);
    }

    /// The file at a place of a directory.
    pub fn ino(&self, directory: Ino, place: usize) -> Ino {
        self.tree.files[&directory][place].ino
    }

    /// Opens a file by its place.
    pub fn open(&mut self, directory: Ino, place: usize, process: u32) -> Opened {
        let Sibling { name, ino } = self.tree.files[&directory][place].clone();
        let hit = !self.tree.memory.insert(ino);
        let seen = Seen { directory, name, ino, bytes: self.bytes, process };
        let predicted = self.predictor.opened(&seen, &self.tree);
        if self.fetches_arrive {
            for file in &predicted {
                assert!(self.tree.memory.insert(file.ino), "in memory already");
                self.predictor.fetched(file.ino, self.bytes);
            }
        }
        Opened { ino, hit, predicted }
    }

    /// Evicts everything.
    pub fn evict_all(&mut self) {
        for ino in self.tree.memory.drain() {
            self.predictor.evicted(ino);
        }
    }

    pub fn account(&self, by: By) -> Account {
        let accounts = self.predictor.account();
        accounts.iter().find(|(other, _)| *other == by).expect("all are listed").1
    }
}
