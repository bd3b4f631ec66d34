//! A consumer group: who got which records, what is acknowledged, and what has to be given again.
//!
//! 1. A *member* (one open descriptor) takes a batch: first what was taken from others ([`Group::claim`] says
//!    from where), else from the group's cursor on. It has at most one batch at a time.
//! 2. Coming back for more acknowledges the batch before.
//! 3. A member that is gone, or held its batch too long, gives it back: those records are given to the next
//!    one that asks, before anything new.
//!
//! Invariants, where `committed` is the offset that is written down:
//! - Every record before `committed` was acknowledged, trimmed or lost. So a restart from there delivers each
//!   record at least once.
//! - No record is with two members at a time.
//! - Offsets are given in their order as long as nobody dies.
//!
//! Not here: bytes, clocks, waiting. What is written down is in [`file`].

mod file;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::Instant;

/// Longest name of a group: with the stream's name and `@` it has to fit into a name.
pub const NAME_BYTES_MAX: usize = 64;

/// A member of a group, for as long as its descriptor is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MemberId(pub u64);

/// What a group has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Records given to members, again or not.
    pub delivered: u64,
    /// Records given again.
    pub redelivered: u64,
    /// Records that retention or damage took before they were delivered.
    pub lost: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    name: String,
    /// The next record that nobody was given.
    cursor: u64,
    /// Given back, by their first record.
    returned: BTreeMap<u64, u64>,
    members: HashMap<MemberId, Option<Held>>,
    counts: Counts,
    /// As last written down.
    saved: Option<u64>,
}

/// A member's batch.
#[derive(Debug, Clone)]
struct Held {
    records: Range<u64>,
    since: Instant,
}

/// Where a member's next batch comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The first record wanted.
    pub from: u64,
    /// The batch may not go further: these records were given back.
    pub until: Option<u64>,
}

/// Whether a name may be a group's: letters, digits, `.`, `_`, `-`, no leading dot, 1 to 64 bytes.
pub fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.starts_with('.') && name.bytes().all(plain)
}

impl Group {
    /// A new group whose first record is `start`.
    pub fn new(name: &str, start: u64) -> Group {
        Group {
            name: name.into(),
            cursor: start,
            returned: BTreeMap::new(),
            members: HashMap::new(),
            counts: Counts::default(),
            saved: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it counted.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Open members.
    pub fn members(&self) -> usize {
        self.members.len()
    }

    /// Every record before this one is done with.
    pub fn committed(&self) -> u64 {
        let held = self.members.values().flatten().map(|held| held.records.start).min();
        let returned = self.returned.keys().next().copied();
        [Some(self.cursor), held, returned].into_iter().flatten().min().unwrap_or(self.cursor)
    }

    /// Whether a member that asks now would get a record of a stream that ends at `end`.
    pub fn has_work(&self, end: u64) -> bool {
        !self.returned.is_empty() || self.cursor < end
    }

    /// A member has come.
    pub fn join(&mut self, member: MemberId) {
        self.members.insert(member, None);
    }

    /// A member is gone; what it holds goes to others. True if there was anything.
    pub fn leave(&mut self, member: MemberId) -> bool {
        let held = self.members.remove(&member).flatten();
        held.is_some_and(|held| self.give_back(held))
    }

    fn give_back(&mut self, held: Held) -> bool {
        if held.records.is_empty() {
            return false;
        }
        self.returned.insert(held.records.start, held.records.end);
        true
    }

    /// The member comes back: what it holds is acknowledged.
    pub fn acknowledge(&mut self, member: MemberId) {
        if let Some(held) = self.members.get_mut(&member) {
            *held = None;
        }
    }

    /// Where the member's next batch comes from. `first` is the first record that is retained: those that the
    /// group still wanted before it count as lost.
    pub fn claim(&mut self, first: u64) -> Claim {
        while let Some((&from, &until)) = self.returned.iter().next() {
            if from >= first {
                return Claim { from, until: Some(until) };
            }
            self.returned.remove(&from);
            self.counts.lost += until.min(first) - from;
            if until > first {
                self.returned.insert(first, until);
            }
        }
        if self.cursor < first {
            self.counts.lost += first - self.cursor;
            self.cursor = first;
        }
        Claim { from: self.cursor, until: None }
    }

    /// The member got the records `given` on its claim; those between are `lost`.
    pub fn give(&mut self, member: MemberId, claim: &Claim, given: Range<u64>, now: Instant) {
        let lost = given.start - claim.from;
        self.counts.lost += lost;
        self.counts.delivered += given.end - given.start;
        match claim.until {
            Some(until) => {
                self.counts.redelivered += given.end - given.start;
                self.returned.remove(&claim.from);
                if given.end < until {
                    self.returned.insert(given.end, until);
                }
            }
            None => self.cursor = given.end,
        }
        if !given.is_empty() {
            self.members.insert(member, Some(Held { records: given, since: now }));
        }
    }

    /// Takes batches back that are held since before `deadline`; true if there were any.
    pub fn take_back(&mut self, deadline: Instant) -> bool {
        let late: Vec<Held> = self
            .members
            .values_mut()
            .filter_map(|held| held.take_if(|held| held.since < deadline && !held.records.is_empty()))
            .collect();
        let any = !late.is_empty();
        for held in late {
            self.give_back(held);
        }
        any
    }

    /// Goes on at `offset`, whatever was given before. What members hold now stays theirs, and is not given
    /// again.
    pub fn seek(&mut self, offset: u64) {
        self.cursor = offset;
        self.returned.clear();
        for held in self.members.values_mut() {
            *held = None;
        }
    }

    /// What is to be written down, if that changed.
    pub fn unsaved(&self) -> Option<u64> {
        let committed = self.committed();
        (self.saved != Some(committed)).then_some(committed)
    }

    /// `committed` is written down.
    pub fn saved(&mut self, committed: u64) {
        self.saved = Some(committed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: MemberId = MemberId(1);
    const B: MemberId = MemberId(2);

    /// A member asks; the stream ends at `end`, and a batch has at most `most` records.
    fn take(group: &mut Group, member: MemberId, end: u64, most: u64) -> Range<u64> {
        group.acknowledge(member);
        let claim = group.claim(0);
        let until = (claim.from + most).min(claim.until.unwrap_or(end)).min(end);
        let given = claim.from..until.max(claim.from);
        group.give(member, &claim, given.clone(), Instant::now());
        given
    }

    #[test]
    fn coming_back_acknowledges_and_leaving_does_not() {
        let mut group = Group::new("g", 0);
        group.join(A);
        group.join(B);
        assert_eq!(take(&mut group, A, 100, 10), 0..10);
        assert_eq!(take(&mut group, B, 100, 10), 10..20);
        assert_eq!(group.committed(), 0);
        assert_eq!(take(&mut group, A, 100, 10), 20..30);
        assert_eq!(group.committed(), 10, "B still has 10 to 19");
        assert!(group.leave(B));
        assert_eq!(group.committed(), 10);
        assert_eq!(take(&mut group, A, 100, 4), 10..14, "what B had comes first, in pieces if need be");
        assert_eq!(take(&mut group, A, 100, 100), 14..20);
        assert_eq!(take(&mut group, A, 100, 10), 30..40);
        assert_eq!(group.committed(), 30);
        assert_eq!(group.counts(), Counts { delivered: 50, redelivered: 10, lost: 0 });
    }

    #[test]
    fn a_batch_that_is_held_too_long_goes_to_another() {
        let mut group = Group::new("g", 0);
        group.join(A);
        group.join(B);
        take(&mut group, A, 10, 5);
        let before = Instant::now().checked_sub(std::time::Duration::from_secs(60)).expect("up for a minute");
        assert!(!group.take_back(before));
        assert!(group.take_back(Instant::now() + std::time::Duration::from_secs(1)));
        assert_eq!(take(&mut group, B, 10, 5), 0..5);
        assert_eq!(take(&mut group, A, 10, 5), 5..10, "its late acknowledgement counts for nothing");
        assert_eq!(group.committed(), 0, "B has not come back");
    }

    #[test]
    fn what_retention_took_is_counted() {
        let mut group = Group::new("g", 0);
        group.join(A);
        take(&mut group, A, 10, 5);
        group.leave(A);
        assert_eq!(group.claim(3), Claim { from: 3, until: Some(5) });
        assert_eq!(group.counts().lost, 3);
        assert_eq!(group.claim(8), Claim { from: 8, until: None });
        assert_eq!(group.counts().lost, 8);
    }

    #[test]
    fn names_are_plain() {
        assert!(is_name("a") && is_name("trainer-1.b_C"));
        for bad in ["", ".a", "a/b", "a b", "a@b", "\u{e4}", &"x".repeat(65)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
