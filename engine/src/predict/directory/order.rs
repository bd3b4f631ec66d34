//! Orders: by name, forward, backward or every k-th, and the order of the last pass.
//!
//! 1. Each process is followed in itself, as several may read at once, each in its own order; all opens of the
//!    directory are followed together besides, as a script may read each file by a process of its own.
//! 2. Two steps of the same kind in a row make a course. Then the files ahead on it are predicted.
//! 3. The window counts files ahead of the reader. It begins small and doubles each time that a prediction is used.
//! 4. One step off the course ends it.

use super::super::{By, Offers, Seen, Sibling};
use super::{Open, place};
use crate::ids::Ino;
use rustc_hash::FxHashMap;

/// Longest stride. Workers that share a directory take every k-th file, and there are rarely more.
const STRIDE_MAX: i64 = 16;

/// Steps in a row that make a course.
const STEPS_MIN: u32 = 2;

/// Files ahead at first.
const WINDOW_MIN: usize = 4;

/// Files of the last pass whose order is known: 48 bytes each.
const SEQUENCE_MAX: usize = 1 << 16;

/// A shorter pass says nothing that two steps and one to come would not.
const SEQUENCE_MIN: usize = 4;

/// Processes that are followed in one directory.
const READERS_MAX: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Order {
    readers: FxHashMap<u32, Follower>,
    whole: Follower,
    /// This pass.
    sequence: Vec<Sibling>,
    /// The last one.
    last: Vec<Sibling>,
    /// Each file's place in it.
    last_places: FxHashMap<Ino, u32>,
    opens: u64,
}

impl Order {
    /// The files opened last by the process and by anybody.
    pub fn before(&self, process: u32) -> [Option<Ino>; 2] {
        let reader = self.readers.get(&process);
        [reader.and_then(Follower::last_ino), self.whole.last_ino()]
    }

    /// Follows an open and predicts, if there is a course. True if so.
    pub fn opened(&mut self, open: &Open<'_>, pass_begins: bool, offers: &mut Offers<'_>) -> bool {
        self.opens += 1;
        if pass_begins {
            self.turn();
        }
        if self.sequence.len() < SEQUENCE_MAX {
            self.sequence.push(sibling(open.seen));
        }
        self.forget_reader(open.seen.process);
        let replay = self.last_places.get(&open.seen.ino).map(|place| *place as usize);
        let reader = self.readers.entry(open.seen.process).or_default();
        reader.opened_at = self.opens;
        // Both take the step, whether they are asked or not.
        let left = [reader.step(open, replay, &self.last), self.whole.step(open, replay, &self.last)];
        if left.iter().any(|files| !files.is_empty()) {
            offers.ledger.refuted(By::Order);
        }
        for file in left.iter().flatten() {
            offers.ledger.call_off(By::Order, *file);
        }
        let follower = if reader.course.is_some() { reader } else { &mut self.whole };
        if !offers.enabled.has(By::Order) {
            return false;
        }
        follower.predict(open, &self.last, offers)
    }

    fn turn(&mut self) {
        let ended = std::mem::take(&mut self.sequence);
        if ended.len() >= SEQUENCE_MIN {
            self.last_places = ended.iter().zip(0..).map(|(file, place)| (file.ino, place)).collect();
            self.last = ended;
        }
    }

    /// Makes room for one more process.
    fn forget_reader(&mut self, process: u32) {
        if self.readers.len() >= READERS_MAX
            && !self.readers.contains_key(&process)
            && let Some(oldest) =
                self.readers.iter().min_by_key(|(_, reader)| reader.opened_at).map(|(process, _)| *process)
        {
            self.readers.remove(&oldest);
        }
    }
}

/// How opens go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Course {
    /// By so many places in natural order.
    Stride(i64),
    /// As in the last pass.
    Replay,
}

impl Course {
    /// The file that is so many steps ahead of a reader, whose place is given in natural order and in the last pass.
    fn ahead<'f>(
        self,
        (files, place): (&'f [Sibling], Option<usize>),
        (last, replay): (&'f [Sibling], Option<usize>),
        steps: usize,
    ) -> Option<&'f Sibling> {
        match self {
            Course::Stride(stride) => files.get(usize::try_from(place? as i64 + stride * steps as i64).ok()?),
            Course::Replay => last.get(replay? + steps),
        }
    }
}

/// Follows one reader.
#[derive(Debug)]
struct Follower {
    opened_at: u64,
    last: Option<Sibling>,
    /// Its place in the last pass.
    last_replay: Option<usize>,
    stride: i64,
    /// Steps in a row by this stride.
    strides: u32,
    /// Steps in a row as in the last pass.
    replays: u32,
    course: Option<Course>,
    /// Files on the course that are predicted, from here on.
    ahead: usize,
    window: usize,
}

impl Default for Follower {
    fn default() -> Follower {
        Follower {
            opened_at: 0,
            last: None,
            last_replay: None,
            stride: 0,
            strides: 0,
            replays: 0,
            course: None,
            ahead: 0,
            window: WINDOW_MIN,
        }
    }
}

impl Follower {
    fn last_ino(&self) -> Option<Ino> {
        self.last.as_ref().map(|last| last.ino)
    }

    /// Takes a step. Gives the files that were predicted on a course which it left.
    fn step(&mut self, open: &Open<'_>, replay: Option<usize>, last: &[Sibling]) -> Vec<Ino> {
        let before = (self.course, self.last_replay);
        let last_place = self.last.as_ref().and_then(|last| place(open.files, &last.name));
        let stride = (open.place.zip(last_place))
            .map(|(now, last)| now as i64 - last as i64)
            .filter(|stride| *stride != 0 && stride.abs() <= STRIDE_MAX);
        (self.stride, self.strides) = match stride {
            Some(stride) if stride == self.stride => (stride, self.strides.saturating_add(1)),
            Some(stride) => (stride, 1),
            None => (0, 0),
        };
        let replayed = replay.zip(self.last_replay).is_some_and(|(now, last)| now == last + 1);
        self.replays = if replayed { self.replays.saturating_add(1) } else { 0 };
        (self.last, self.last_replay) = (Some(sibling(open.seen)), replay);

        let course = match self.course {
            Some(Course::Replay) if self.replays >= STEPS_MIN => Some(Course::Replay),
            _ if self.strides >= STEPS_MIN => Some(Course::Stride(self.stride)),
            _ if self.replays >= STEPS_MIN => Some(Course::Replay),
            _ => None,
        };
        if course == self.course {
            self.ahead = self.ahead.saturating_sub(1);
            return Vec::new();
        }
        let left = (1..=self.ahead)
            .filter_map(|steps| before.0?.ahead((open.files, last_place), (last, before.1), steps))
            .map(|file| file.ino)
            .collect();
        (self.course, self.ahead, self.window) = (course, 0, WINDOW_MIN);
        left
    }

    /// Predicts what is ahead on the course, if there is one. True if so.
    fn predict(&mut self, open: &Open<'_>, last: &[Sibling], offers: &mut Offers<'_>) -> bool {
        let Some(course) = self.course else { return false };
        if open.right == Some(By::Order) {
            self.window = self.window.saturating_mul(2);
        }
        let by_bytes = offers.ledger.ahead_bytes_max() / open.bytes.max(1);
        let window = self.window.min(offers.ledger.limit(By::Order)).min(by_bytes as usize);
        while self.ahead < window {
            let steps = self.ahead + 1;
            let Some(file) = course.ahead((open.files, open.place), (last, self.last_replay), steps) else {
                break;
            };
            self.ahead = steps;
            offers.offer(By::Order, open.seen.directory, file, open.bytes);
        }
        true
    }
}

fn sibling(seen: &Seen) -> Sibling {
    Sibling { name: seen.name.clone(), ino: seen.ino }
}

#[cfg(test)]
mod tests {
    use crate::predict::fake::{DIRECTORY, Random, World};
    use crate::predict::{By, Config, Enabled};

    fn world(files: usize) -> World {
        let enabled = Enabled { order: true, ..Enabled::NONE };
        let mut world = World::new(Config { enabled, ..Config::default() });
        world.directory(DIRECTORY, files);
        world
    }

    /// All but the first three, which make the course, were in memory.
    fn is_followed(world: &mut World, files: impl Iterator<Item = usize>) {
        for (i, file) in files.enumerate() {
            let opened = world.open(DIRECTORY, file, 1);
            assert_eq!(opened.hit, i >= 3, "open {i}");
        }
    }

    #[test]
    fn names_are_followed_forward() {
        let mut world = world(1000);
        is_followed(&mut world, 0..1000);
        let account = world.account(By::Order);
        assert_eq!((account.predicted_files, account.late_files), (997, 0));
    }

    #[test]
    fn names_are_followed_backward() {
        is_followed(&mut world(1000), (0..1000).rev());
    }

    #[test]
    fn names_are_followed_in_strides() {
        is_followed(&mut world(1000), (3..1000).step_by(7));
        is_followed(&mut world(1000), (3..1000).step_by(16).rev());
    }

    #[test]
    fn two_readers_are_followed_each_in_itself() {
        let mut world = world(1000);
        for i in 0..400 {
            assert_eq!(world.open(DIRECTORY, i, 1).hit, i >= 3);
            assert_eq!(world.open(DIRECTORY, 999 - i, 2).hit, i >= 3);
        }
    }

    #[test]
    fn a_process_a_file_is_followed_too() {
        let mut world = world(1000);
        for i in 0..1000 {
            assert_eq!(world.open(DIRECTORY, i, 100 + i as u32).hit, i >= 3);
        }
    }

    #[test]
    fn the_order_of_the_last_pass_is_followed() {
        let seed = 3;
        println!("seed {seed}");
        let mut world = world(1000);
        let files = Random(seed).shuffled(1000);
        for file in &files {
            world.open(DIRECTORY, *file, 1);
        }
        world.evict_all();
        let hits = files.iter().filter(|file| world.open(DIRECTORY, **file, 1).hit).count();
        assert!(hits >= 990, "{hits}");
    }

    #[test]
    fn the_window_grows_as_predictions_are_used() {
        let mut world = world(2000);
        let given: Vec<usize> = (0..8).map(|i| world.open(DIRECTORY, i, 1).predicted.len()).collect();
        assert_eq!(given, [0, 0, 4, 5, 9, 17, 33, 65]);
        let mut ahead = 133 - 5;
        for i in 8..100 {
            ahead = ahead + world.open(DIRECTORY, i, 1).predicted.len() - 1;
        }
        assert_eq!(ahead, 256);
    }
}
