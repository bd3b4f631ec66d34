//! Which file came behind which.
//!
//! Each file has up to two successors with small counters. One that is neither takes from the smaller counter, and
//! its place when that is 0 (Misra and Gries, Finding repeated elements, 1982): so a counter never says more than
//! there was. A hand goes round the table when it is full: it halves what it passes and takes the first that is
//! worth little.
//!
//! Not here: who opened the files.

use crate::ids::Ino;
use rustc_hash::FxHashMap;

/// Files with successors: 40 bytes each.
const TRANSITIONS_MAX: usize = 1 << 16;

/// Files that the hand passes at most, so that an open stays cheap.
const HAND_STEPS_MAX: usize = 16;

/// Once is chance.
const FOLLOWED_MIN: u8 = 2;

#[derive(Debug, Clone, Copy)]
struct Successors {
    from: Ino,
    /// How often any file came behind it.
    cases: u8,
    /// Which, and how often; 0: free.
    next: [(Ino, u8); 2],
}

impl Successors {
    fn new(from: Ino) -> Successors {
        Successors { from, cases: 0, next: [(from, 0); 2] }
    }

    fn halve(&mut self) {
        self.cases /= 2;
        for (_, count) in &mut self.next {
            *count /= 2;
        }
    }

    fn learn(&mut self, to: Ino) {
        if self.cases == u8::MAX {
            self.halve();
        }
        self.cases += 1;
        match self.next.iter().position(|(ino, count)| *ino == to && *count > 0) {
            // No more than the cases, which have room.
            Some(known) => self.next[known].1 += 1,
            None => {
                let least = usize::from(self.next[1].1 < self.next[0].1);
                match self.next[least].1 {
                    0 => self.next[least] = (to, 1),
                    count => self.next[least].1 = count - 1,
                }
            }
        }
    }

    fn best(&self) -> Option<Ino> {
        let (ino, count) = if self.next[1].1 > self.next[0].1 { self.next[1] } else { self.next[0] };
        (count >= FOLLOWED_MIN && u16::from(count) * 2 >= u16::from(self.cases)).then_some(ino)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Transitions {
    slots: Vec<Successors>,
    places: FxHashMap<Ino, u32>,
    hand: usize,
}

impl Transitions {
    /// `to` was opened behind `from`.
    pub fn learn(&mut self, from: Ino, to: Ino) {
        if from != to {
            let slot = self.slot(from);
            self.slots[slot].learn(to);
        }
    }

    /// What will probably be opened behind `from`: what was, at least twice and in half of the cases.
    pub fn next(&self, from: Ino) -> Option<Ino> {
        self.places.get(&from).and_then(|slot| self.slots[*slot as usize].best())
    }

    /// What predicts: from, to, how often. With `to` equal to `from`: how often others came. What may be chance is left
    /// out: of files that are read at random, it is all.
    pub fn export(&self) -> Vec<(Ino, Ino, u8)> {
        let mut known = Vec::new();
        for slot in self.slots.iter().filter(|slot| slot.best().is_some()) {
            let counted = slot.next[0].1.saturating_add(slot.next[1].1);
            let others = (slot.from, slot.cases.saturating_sub(counted));
            for (to, count) in slot.next.into_iter().chain([others]) {
                if count > 0 {
                    known.push((slot.from, to, count));
                }
            }
        }
        known
    }

    /// Takes over what [`Transitions::export`] gave.
    pub fn import(&mut self, known: &[(Ino, Ino, u8)]) {
        for (from, to, count) in known {
            let place = self.slot(*from);
            let slot = &mut self.slots[place];
            // What was kept may be damaged: no counter may be more than the cases.
            let count = (*count).min(u8::MAX - slot.cases);
            slot.cases += count;
            if from != to
                && let Some(free) = slot.next.iter_mut().find(|(_, count)| *count == 0)
            {
                *free = (*to, count);
            }
        }
    }

    fn slot(&mut self, from: Ino) -> usize {
        if let Some(place) = self.places.get(&from) {
            return *place as usize;
        }
        let place = if self.slots.len() < TRANSITIONS_MAX {
            self.slots.push(Successors::new(from));
            self.slots.len() - 1
        } else {
            let place = self.least_near_hand();
            self.places.remove(&self.slots[place].from);
            self.slots[place] = Successors::new(from);
            place
        };
        self.places.insert(from, place as u32);
        place
    }

    fn least_near_hand(&mut self) -> usize {
        for _ in 0..HAND_STEPS_MAX {
            self.hand = (self.hand + 1) % self.slots.len();
            if self.slots[self.hand].cases <= 1 {
                break;
            }
            self.slots[self.hand].halve();
        }
        self.hand
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_is_predicted_after_two_times_and_in_half_of_the_cases() {
        let mut transitions = Transitions::default();
        let (a, b) = (Ino(10), Ino(11));
        transitions.learn(a, b);
        assert_eq!(transitions.next(a), None);
        transitions.learn(a, b);
        assert_eq!(transitions.next(a), Some(b));
        assert_eq!(transitions.next(b), None);
        for other in 0..3 {
            transitions.learn(a, Ino(100 + other));
        }
        assert_eq!(transitions.next(a), None, "2 of 5");
        for _ in 0..3 {
            transitions.learn(a, b);
        }
        assert_eq!(transitions.next(a), Some(b), "5 of 8");
    }

    #[test]
    fn what_is_exported_predicts_the_same() {
        let mut transitions = Transitions::default();
        for (from, to) in [(1, 2), (1, 2), (2, 3), (2, 3), (2, 4), (2, 5), (2, 6), (1, 2), (1, 3)] {
            transitions.learn(Ino(from), Ino(to));
        }
        let mut later = Transitions::default();
        later.import(&transitions.export());
        for from in 1..4 {
            assert_eq!(later.next(Ino(from)), transitions.next(Ino(from)));
        }
        assert_eq!(later.next(Ino(1)), Some(Ino(2)));
        assert_eq!(later.next(Ino(2)), None);
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_repeats() {
        let mut transitions = Transitions::default();
        let (a, b) = (Ino(1), Ino(2));
        for ino in 0..3 * TRANSITIONS_MAX as u64 {
            if ino.is_multiple_of(1000) {
                transitions.learn(a, b);
            }
            transitions.learn(Ino(100 + ino), Ino(101 + ino));
        }
        assert_eq!((transitions.slots.len(), transitions.places.len()), (TRANSITIONS_MAX, TRANSITIONS_MAX));
        assert_eq!(transitions.next(a), Some(b));
        for _ in 0..1000 {
            transitions.learn(a, b);
        }
        assert_eq!(transitions.next(a), Some(b), "counters don't overflow");
    }
}
