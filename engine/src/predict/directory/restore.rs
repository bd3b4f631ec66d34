//! Restores: the first shard of a checkpoint brings the others.
//!
//! 1. Shards are files of 1 MiB and more whose names differ in numbers alone. At least three others are needed.
//! 2. The first of them opened, or two that follow each other, begin a restore: all the others are wanted, those
//!    behind it first.
//! 3. They are given as far as the bytes ahead allow, the rest as those are opened.
//!
//! Sizes of the others are looked at as far as they are known. The last shard may be smaller than the others.

use super::super::{By, Offers, Sibling};
use super::Open;
use crate::ids::{Ino, Name};
use smallvec::SmallVec;
use std::collections::VecDeque;

/// Smaller files are no shards: what is won by having them early is little.
const SHARD_BYTES_MIN: u64 = 1 << 20;

/// Others that make it a set of shards.
const SIBLINGS_MIN: usize = 3;

/// Files of other shapes between two shards. Bounds what an open costs among large files of no shape in common.
const GAP_MAX: usize = 64;

/// Shards of one restore.
const SHARDS_MAX: usize = 4096;

/// Restores in one directory at once: of the model and of the optimizer, say.
const RESTORES_MAX: usize = 4;

/// See the module.
#[derive(Debug, Default)]
pub struct Restores(SmallVec<[Restore; 1]>);

#[derive(Debug)]
struct Restore {
    /// A name of its shape.
    like: Name,
    /// What is not given yet.
    left: VecDeque<Sibling>,
}

impl Restores {
    /// Begins or continues a restore with an open; `before` were opened last. True if it is one.
    pub fn opened(&mut self, open: &Open<'_>, before: [Option<Ino>; 2], offers: &mut Offers<'_>) -> bool {
        let Some(place) = open.place else { return false };
        if open.seen.bytes < SHARD_BYTES_MIN || !offers.enabled.has(By::Restore) {
            return false;
        }
        let name = &open.seen.name;
        let known = self.0.iter().position(|restore| same_shape(&restore.like, name));
        let before_it = (open.files[..place].iter().rev().take(GAP_MAX))
            .find(|file| same_shape(&file.name, name))
            .map(|file| file.ino);
        let begins = match before_it {
            None => true,
            // Once begun, all of them are known; only the first begins it anew.
            Some(_) => known.is_none() && before.contains(&before_it),
        };
        if begins {
            if let Some(known) = known {
                self.0.remove(known);
            }
            let Some(left) = others(open, place, offers) else { return false };
            if self.0.len() >= RESTORES_MAX {
                self.0.remove(0);
            }
            self.0.push(Restore { like: name.clone(), left });
        }
        let Some(restore) = self.0.iter_mut().find(|restore| same_shape(&restore.like, name)) else {
            return false;
        };
        let mut room = offers.room(By::Restore, usize::MAX);
        while let Some(file) = restore.left.front() {
            let bytes = offers.tree.bytes(file.ino).unwrap_or(open.seen.bytes);
            if !room.has(bytes) {
                break;
            }
            if offers.offer(By::Restore, open.seen.directory, file, bytes) {
                room.take(bytes);
            }
            restore.left.pop_front();
        }
        true
    }
}

/// The other shards, those behind the opened one first; `None` if these are no shards.
fn others(open: &Open<'_>, place: usize, offers: &Offers<'_>) -> Option<VecDeque<Sibling>> {
    let name = &open.seen.name;
    let mut others = VecDeque::new();
    let mut alike = 0;
    let behind = shards(open.files[place + 1..].iter(), name);
    let mut ahead = shards(open.files[..place].iter().rev(), name);
    ahead.reverse();
    for file in behind.into_iter().chain(ahead).take(SHARDS_MAX) {
        let bytes = offers.tree.bytes(file.ino).unwrap_or(open.seen.bytes);
        if bytes / 2 <= open.seen.bytes {
            alike += usize::from(bytes >= open.seen.bytes / 2);
            others.push_back(file.clone());
        }
    }
    (alike >= SIBLINGS_MIN).then_some(others)
}

/// Those of one shape, until too many of others come.
fn shards<'a>(files: impl Iterator<Item = &'a Sibling>, name: &[u8]) -> Vec<&'a Sibling> {
    let mut gap = 0;
    files
        .map(|file| (file, same_shape(&file.name, name)))
        .take_while(|(_, same)| {
            gap = if *same { 0 } else { gap + 1 };
            gap <= GAP_MAX
        })
        .filter_map(|(file, same)| same.then_some(file))
        .take(SHARDS_MAX)
        .collect()
}

/// Whether two names differ in their numbers alone.
fn same_shape(a: &[u8], b: &[u8]) -> bool {
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        if a[i].is_ascii_digit() && b[j].is_ascii_digit() {
            (i, j) = (behind_digits(a, i), behind_digits(b, j));
        } else if a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else {
            return false;
        }
    }
    i == a.len() && j == b.len()
}

fn behind_digits(name: &[u8], start: usize) -> usize {
    name[start..].iter().position(|byte| !byte.is_ascii_digit()).map_or(name.len(), |run| start + run)
}

#[cfg(test)]
mod tests {
    use super::same_shape;
    use crate::ids::Ino;
    use crate::predict::fake::{DIRECTORY, World};
    use crate::predict::{By, Config};

    const SHARD_BYTES: u64 = 256 << 20;

    /// A checkpoint of 16 shards at places 2 to 17, with small files before and behind them.
    fn checkpoint(config: Config) -> World {
        let mut world = World::new(config);
        let mut names = vec!["config.json".to_owned(), "generation.json".to_owned()];
        names.extend((1..=16).map(|shard| format!("model-{shard:05}-of-00016.safetensors")));
        names.push("model.safetensors.index.json".to_owned());
        world.directory_of(DIRECTORY, names);
        world.bytes = SHARD_BYTES;
        world
    }

    #[test]
    fn shapes_differ_in_more_than_numbers() {
        assert!(same_shape(b"model-00001-of-16", b"model-2-of-00016"));
        assert!(same_shape(b"a1", b"a22") && same_shape(b"a", b"a"));
        assert!(!same_shape(b"a1", b"b1") && !same_shape(b"a", b"a1") && !same_shape(b"a1b", b"a1"));
    }

    #[test]
    fn the_first_shard_brings_the_others() {
        let mut world = checkpoint(Config { ahead_bytes_max: 4 << 30, ..Config::default() });
        let predicted = world.open(DIRECTORY, 2, 1).predicted;
        let inos: Vec<Ino> = predicted.iter().map(|predicted| predicted.ino).collect();
        let expected: Vec<Ino> = (3..18).map(|place| world.ino(DIRECTORY, place)).collect();
        assert_eq!(inos, expected);
        assert!(predicted.iter().all(|predicted| predicted.by == By::Restore));
    }

    #[test]
    fn what_is_ahead_is_bounded_and_the_rest_follows() {
        let mut world = checkpoint(Config { ahead_bytes_max: 4 * SHARD_BYTES, ..Config::default() });
        assert_eq!(world.open(DIRECTORY, 2, 1).predicted.len(), 4);
        for place in 3..18 {
            assert!(world.open(DIRECTORY, place, 1).hit, "{place}");
        }
        assert_eq!(world.account(By::Restore).predicted_files, 15);
    }

    #[test]
    fn two_in_a_row_bring_the_others_and_one_in_the_middle_does_not() {
        let mut world = checkpoint(Config { ahead_bytes_max: 8 << 30, ..Config::default() });
        assert!(world.open(DIRECTORY, 6, 1).predicted.is_empty());
        let predicted = world.open(DIRECTORY, 7, 1).predicted;
        assert_eq!(predicted.len(), 14);
        assert_eq!(predicted[0].ino, world.ino(DIRECTORY, 8));
        assert_eq!(predicted[13].ino, world.ino(DIRECTORY, 5), "those before it last");
    }

    #[test]
    fn small_files_are_no_shards() {
        let mut world = checkpoint(Config::default());
        world.bytes = 1000;
        assert!(world.open(DIRECTORY, 2, 1).predicted.is_empty());
    }
}
