//! Which member of a group reads which partitions.
//!
//! 1. As long as there are members, each partition is one member's.
//! 2. Members have equally many, give or take one. With more members than partitions, some have none: they
//!    take over when another leaves.
//! 3. A member that stays keeps what it has as far as that allows: one that comes takes only its share, and
//!    what a leaving one had goes to those who have least. Who came first and has most keeps most, so that the
//!    same history always ends the same.
//!
//! A member that has anything never has to give up its last partition. So one that holds a batch, which is of
//! one partition, keeps that one: no partition changes hands under a batch.
//!
//! Not here: records, clocks, waiting.

use super::group::MemberId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// See the module.
#[derive(Debug)]
pub struct Assignment {
    owners: Vec<Option<MemberId>>,
    members: BTreeMap<MemberId, BTreeSet<usize>>,
}

impl Assignment {
    /// Of so many partitions to nobody yet.
    pub fn new(partitions: usize) -> Assignment {
        Assignment { owners: vec![None; partitions], members: BTreeMap::new() }
    }

    /// Whose a partition is.
    pub fn owner(&self, partition: usize) -> Option<MemberId> {
        self.owners[partition]
    }

    /// A member's partitions, in their order.
    pub fn of(&self, member: MemberId) -> impl DoubleEndedIterator<Item = usize> + '_ {
        self.members.get(&member).into_iter().flatten().copied()
    }

    /// A member has come; what `held` says stays where it is. Returns who got partitions.
    pub fn join(&mut self, member: MemberId, held: impl Fn(usize) -> bool) -> Vec<MemberId> {
        self.members.entry(member).or_default();
        self.level(held)
    }

    /// A member is gone. Returns who got partitions.
    pub fn leave(&mut self, member: MemberId, held: impl Fn(usize) -> bool) -> Vec<MemberId> {
        for partition in self.members.remove(&member).unwrap_or_default() {
            self.owners[partition] = None;
        }
        self.level(held)
    }

    fn level(&mut self, held: impl Fn(usize) -> bool) -> Vec<MemberId> {
        if self.members.is_empty() {
            return Vec::new();
        }
        let (least, more) = (self.owners.len() / self.members.len(), self.owners.len() % self.members.len());
        let mut order: Vec<MemberId> = self.members.keys().copied().collect();
        order.sort_by_key(|member| (Reverse(self.members[member].len()), *member));
        let shares: Vec<(MemberId, usize)> = order
            .into_iter()
            .enumerate()
            .map(|(i, member)| (member, least + usize::from(i < more)))
            .collect();
        for (member, share) in &shares {
            let own = self.members.entry(*member).or_default();
            let surplus = own.len().saturating_sub(*share);
            let given_up: Vec<usize> =
                own.iter().rev().copied().filter(|partition| !held(*partition)).take(surplus).collect();
            for partition in given_up {
                own.remove(&partition);
                self.owners[partition] = None;
            }
        }
        let mut free: VecDeque<usize> =
            (0..self.owners.len()).filter(|partition| self.owners[*partition].is_none()).collect();
        let mut gained = Vec::new();
        for (member, share) in shares {
            let own = self.members.entry(member).or_default();
            let room = share.saturating_sub(own.len()).min(free.len());
            for partition in free.drain(..room) {
                own.insert(partition);
                self.owners[partition] = Some(member);
            }
            if room > 0 {
                gained.push(member);
            }
        }
        gained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(assignment: &Assignment) -> Vec<Vec<usize>> {
        assignment.members.values().map(|own| own.iter().copied().collect()).collect()
    }

    #[test]
    fn who_comes_takes_a_share_and_who_stays_keeps_the_rest() {
        let mut assignment = Assignment::new(5);
        assert_eq!(assignment.join(MemberId(1), |_| false), [MemberId(1)]);
        assert_eq!(shares(&assignment), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(assignment.join(MemberId(2), |partition| partition == 4), [MemberId(2)]);
        assert_eq!(shares(&assignment), [vec![0, 1, 4], vec![2, 3]], "4 is held");
        assignment.join(MemberId(3), |_| false);
        assert_eq!(shares(&assignment), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(assignment.leave(MemberId(2), |_| false), [MemberId(1), MemberId(3)]);
        assert_eq!(shares(&assignment), [vec![0, 1, 2], vec![3, 4]]);
    }

    #[test]
    fn those_too_many_take_over() {
        let mut assignment = Assignment::new(1);
        for member in 1..=3 {
            assignment.join(MemberId(member), |_| false);
        }
        assert_eq!(shares(&assignment), [vec![0], vec![], vec![]]);
        assert_eq!(assignment.leave(MemberId(1), |_| false), [MemberId(2)]);
        assignment.leave(MemberId(2), |_| false);
        assignment.leave(MemberId(3), |_| false);
        assert_eq!(assignment.owner(0), None);
    }

    #[test]
    fn it_is_level_and_nothing_moves_without_need() {
        // An own small generator, as tests beside the code have none.
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for partitions in [1, 2, 7, 16] {
            let mut assignment = Assignment::new(partitions);
            let mut next = 0;
            for _ in 0..500 {
                let before = assignment.owners.clone();
                // Each holds a batch of one of its partitions, or none.
                let held: Vec<usize> = (assignment.members.values())
                    .filter_map(|own| own.iter().nth(random(3) as usize).copied())
                    .collect();
                let is_held = |partition: usize| held.contains(&partition);
                let count = assignment.members.len();
                let gone = (count > 0 && random(2) == 0)
                    .then(|| *assignment.members.keys().nth(random(count as u64) as usize).expect("one"));
                match gone {
                    Some(member) => assignment.leave(member, is_held),
                    None => assignment.join(
                        MemberId({
                            next += 1;
                            next
                        }),
                        is_held,
                    ),
                };
                let sizes: Vec<usize> = assignment.members.values().map(BTreeSet::len).collect();
                let (most, least) = (sizes.iter().max(), sizes.iter().min());
                assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{sizes:?}");
                assert_eq!(sizes.iter().sum::<usize>(), if sizes.is_empty() { 0 } else { partitions });
                let moved = |p: &usize| before[*p].is_some_and(|owner| assignment.owners[*p] != Some(owner));
                let moved: Vec<usize> = (0..partitions).filter(moved).collect();
                match gone {
                    Some(gone) => assert!(moved.iter().all(|p| before[*p] == Some(gone))),
                    None => {
                        assert!(moved.len() <= partitions.div_ceil(sizes.len()), "only its share");
                        assert!(!moved.iter().any(|p| is_held(*p)), "under a batch");
                    }
                }
            }
        }
    }
}
