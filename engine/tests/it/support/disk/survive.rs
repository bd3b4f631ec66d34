//! Which changes of names survive a loss of power.

use super::super::random::Random;
use super::record::{Object, Record, Tie};
use std::collections::BTreeMap;

/// What a disk keeps of the order in which names change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// All changes of names up to one of them, over all directories; attributes as of then. So do file systems with a
    /// journal (ext4, XFS). At least up to the last change in each directory that was synced: that an fsync of
    /// anything brings the whole journal along is not relied on.
    Log,
    /// In each directory the changes up to one of them, whatever happens in others; attributes as of any time since
    /// they were synced. A rename from one directory to another may show in both, or in neither yet, but not only as
    /// gone: the new name, and the names of the directories on its way, are written first, as soft updates do. Two names of a directory are
    /// one after the check of the file system, the newer one. An exchange between directories is in both or in
    /// neither.
    Directory,
}

/// The choice for one outcome.
#[derive(Debug)]
pub struct Survivors {
    pub order: Order,
    /// Steps that survive where the order is that of the log.
    pub steps: usize,
    /// Changes that survive, of each directory.
    pub changes: Vec<usize>,
}

impl Survivors {
    pub fn choose(record: &Record, order: Order, random: &mut Random) -> Survivors {
        let steps = between(random, record.steps_floor, record.steps.len());
        let mut changes = Vec::new();
        for known in &record.objects {
            changes.push(match order {
                Order::Log => known.changes.iter().take_while(|change| change.step < steps).count(),
                Order::Directory => between(random, known.changes_floor, known.changes.len()),
            });
        }
        let mut survivors = Survivors { order, steps, changes };
        while survivors.tie(record) {}
        survivors
    }

    /// Adds what must be there with something that is; whether there was such.
    fn tie(&mut self, record: &Record) -> bool {
        let mut added = false;
        for (step, tie) in record.steps.iter().enumerate() {
            let needs = match tie {
                Tie::One => continue,
                Tie::Moved { from, to, way } => {
                    let needed = way.iter().copied().chain([(*to, step)]);
                    vec![(*from, needed.collect())]
                }
                Tie::Swapped(one, other) => vec![(*one, vec![(*other, step)]), (*other, vec![(*one, step)])],
            };
            for (with, needed) in needs {
                if self.has(record, with, step) {
                    for (dir, step) in needed {
                        added |= self.add(record, dir, step);
                    }
                }
            }
        }
        added
    }

    fn has(&self, record: &Record, dir: Object, step: usize) -> bool {
        record.objects[dir].changes[..self.changes[dir]].last().is_some_and(|change| change.step >= step)
    }

    /// Has a directory keep its changes up to a step; whether that is news.
    fn add(&mut self, record: &Record, dir: Object, step: usize) -> bool {
        let until = record.objects[dir].changes.iter().take_while(|change| change.step <= step).count();
        let news = until > self.changes[dir];
        self.changes[dir] = self.changes[dir].max(until);
        news
    }

    /// The names that survive in a directory, each with the step that made it.
    pub fn entries(&self, record: &Record, dir: Object) -> BTreeMap<Vec<u8>, (Object, usize)> {
        let mut entries = BTreeMap::new();
        for change in &record.objects[dir].changes[..self.changes[dir]] {
            for (name, to) in &change.set {
                match to {
                    Some(object) => entries.insert(name.clone(), (*object, change.step)),
                    None => entries.remove(name),
                };
            }
        }
        entries
    }
}

/// The ends more often than a place between them.
fn between(random: &mut Random, least: usize, most: usize) -> usize {
    match random.below(6) {
        0 => least,
        1 => most,
        _ => least + random.below((most - least + 1) as u64) as usize,
    }
}
