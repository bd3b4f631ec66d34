//! Changes of names that the backing does not have yet, and what must come before what.
//!
//! 1. Each change gets a number and the numbers of what it depends on: the last earlier change in each directory that
//!    it touches, the last earlier change of the object, and those of the directories' own names. So the order per
//!    directory and per name is kept, and whatever is unrelated may go first.
//! 2. The drain takes changes in the order of their numbers, as soon as all they depend on are done.
//! 3. An fsync takes the few that its file needs, and what those need, ahead of all others.
//! 4. A file or directory that is removed before its making was drained takes the making with it: nothing of it ever
//!    reaches the backing.

use crate::ids::{Ino, Name, Seq};
use crate::namespace::Link;
use parking_lot::{Condvar, Mutex};
use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// A change of names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the variants say what their fields are")]
pub enum Change {
    /// `ino` came to be as `link`.
    Make { ino: Ino, link: Link },
    /// `ino` got the further name `link`.
    Link { ino: Ino, link: Link },
    /// `ino` lost the name `link`.
    Unlink { ino: Ino, link: Link },
    /// `ino` moved; `replaced` had the name before.
    Rename { ino: Ino, from: Link, to: Link, replaced: Option<Ino> },
    /// `ino` at `from` and `other` at `to` swapped their names.
    Exchange { ino: Ino, from: Link, other: Ino, to: Link },
}

impl Change {
    /// The objects whose names change.
    pub fn objects(&self) -> SmallVec<[Ino; 2]> {
        match self {
            Change::Make { ino, .. } | Change::Link { ino, .. } | Change::Unlink { ino, .. } => {
                [*ino].into_iter().collect()
            }
            Change::Rename { ino, replaced, .. } => std::iter::once(*ino).chain(*replaced).collect(),
            Change::Exchange { ino, other, .. } => [*ino, *other].into_iter().collect(),
        }
    }

    /// The directories whose entries change.
    pub fn directories(&self) -> SmallVec<[Ino; 2]> {
        match self {
            Change::Make { link, .. } | Change::Link { link, .. } | Change::Unlink { link, .. } => {
                [link.0].into_iter().collect()
            }
            Change::Rename { from, to, .. } | Change::Exchange { from, to, .. } if from.0 == to.0 => {
                [from.0].into_iter().collect()
            }
            Change::Rename { from, to, .. } | Change::Exchange { from, to, .. } => {
                [from.0, to.0].into_iter().collect()
            }
        }
    }

    /// The names that this change gives, and to whom.
    pub fn given(&self) -> SmallVec<[(&Link, Ino); 2]> {
        match self {
            Change::Make { ino, link } | Change::Link { ino, link } => [(link, *ino)].into_iter().collect(),
            Change::Unlink { .. } => SmallVec::new(),
            Change::Rename { ino, to, .. } => [(to, *ino)].into_iter().collect(),
            Change::Exchange { ino, from, other, to } => [(to, *ino), (from, *other)].into_iter().collect(),
        }
    }

    /// The names in directories that this change gives or takes.
    pub fn links(&self) -> SmallVec<[&Link; 2]> {
        match self {
            Change::Make { link, .. } | Change::Link { link, .. } | Change::Unlink { link, .. } => {
                [link].into_iter().collect()
            }
            Change::Rename { from, to, .. } | Change::Exchange { from, to, .. } => {
                [from, to].into_iter().collect()
            }
        }
    }
}

/// A change that waits.
#[derive(Debug, Clone)]
pub struct Op {
    /// Its number.
    pub seq: Seq,
    /// What it does.
    pub change: Change,
    /// When it was made.
    pub since: Instant,
    /// Taken back: there is nothing to do.
    pub cancelled: bool,
    /// A daemon that died may have done it, without having lived to say so: it waited for no other when that one died.
    pub resumed: bool,
}

#[derive(Debug)]
struct Waiting {
    op: Op,
    needs: SmallVec<[Seq; 2]>,
    /// So many of those, the first, it needs by what it names; the others by where it was when it was entered.
    named: u8,
    applying: bool,
    /// After a failure: not before this time.
    not_before: Option<Instant>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct OpLog {
    inner: Mutex<Inner>,
    /// A change was finished, or failed.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    /// Boxed: the tree's half-empty nodes would waste more than the pointers cost.
    waiting: BTreeMap<Seq, Box<Waiting>>,
    last_of_object: FxHashMap<Ino, Seq>,
    last_in_directory: FxHashMap<Ino, Seq>,
    next: u64,
    /// Changes up to here were made in the time of a daemon before this one.
    inherited: Seq,
    /// Those of them that take a name away.
    takings: BTreeSet<Seq>,
    /// Inherited ones that were finished since this daemon began, as long as others are left.
    finished: FxHashSet<Seq>,
    left: usize,
}

/// What became of the wish to apply a change.
#[derive(Debug)]
pub enum Begin {
    /// It is the caller's now: [`OpLog::done`] or [`OpLog::failed`] must follow.
    Yours(Op),
    /// It is done already.
    Done,
}

impl OpLog {
    /// Adds a change that also waits for all in `below`: directories under a directory that moves.
    pub fn push(&self, change: Change, below: &[Ino]) -> Seq {
        let mut inner = self.inner.lock();
        let seq = Seq(inner.next + 1);
        self.enter(&mut inner, seq, change, below);
        seq
    }

    /// Adds a change that another daemon made, under the number that it had. Numbers must grow.
    pub fn inherit(&self, seq: Seq, change: Change, below: &[Ino]) {
        let mut inner = self.inner.lock();
        if matches!(change, Change::Unlink { .. } | Change::Rename { .. } | Change::Exchange { .. }) {
            inner.takings.insert(seq);
        }
        inner.inherited = seq;
        inner.left += 1;
        self.enter(&mut inner, seq, change, below);
    }

    /// The other daemon, which still lives, finished a change.
    pub fn finished_there(&self, seq: Seq) {
        let mut inner = self.inner.lock();
        inner.remove(seq);
        inner.finished.remove(&seq);
    }

    /// The other daemon took a making back: it keeps its place and does nothing.
    pub fn cancelled_there(&self, seq: Seq) {
        if let Some(waiting) = self.inner.lock().waiting.get_mut(&seq) {
            waiting.op.cancelled = true;
        }
    }

    fn enter(&self, inner: &mut Inner, seq: Seq, change: Change, below: &[Ino]) {
        inner.next = seq.0;
        let mut needs: SmallVec<[Seq; 2]> = SmallVec::new();
        let directories = change.directories();
        let objects = change.objects();
        for dir in directories.iter().chain(&objects) {
            needs.extend(inner.last_in_directory.get(dir).copied());
        }
        for object in objects.iter().chain(&directories) {
            needs.extend(inner.last_of_object.get(object).copied());
        }
        needs.sort_unstable();
        needs.dedup();
        // At most four objects and directories, each with two.
        let named = needs.len() as u8;
        // What is below a directory now says nothing of what was when it was made.
        for seq in below.iter().filter_map(|dir| inner.last_in_directory.get(dir)) {
            if !needs.contains(seq) {
                needs.push(*seq);
            }
        }
        for dir in directories {
            inner.last_in_directory.insert(dir, seq);
        }
        for object in objects {
            inner.last_of_object.insert(object, seq);
        }
        let op = Op { seq, change, since: Instant::now(), cancelled: false, resumed: false };
        if inner.waiting.is_empty() {
            self.changed.notify_all();
        }
        let waiting = Waiting { op, needs, named, applying: false, not_before: None };
        inner.waiting.insert(seq, Box::new(waiting));
        // Nobody is woken: the drain lets changes rest, and looks by itself.
    }

    /// Takes the making of `ino` back, if it waits untouched and nothing else names `ino`; the caller knows the latter.
    /// The change keeps its place, so that the order of the others stays, and does nothing when its turn comes.
    pub fn cancel_make(&self, ino: Ino) -> bool {
        let mut inner = self.inner.lock();
        let Some(&seq) = inner.last_of_object.get(&ino) else { return false };
        let Some(waiting) = inner.waiting.get(&seq) else { return false };
        // It may be on the backing for all we know.
        let resumed = inner.may_have_been_done(waiting);
        let Some(waiting) = inner.waiting.get_mut(&seq) else { return false };
        let begun = waiting.applying || resumed || waiting.not_before.is_some();
        if begun || !matches!(&waiting.op.change, Change::Make { ino: made, .. } if *made == ino) {
            return false;
        }
        waiting.op.cancelled = true;
        true
    }

    /// The first change that is at least `age` old and waits for nothing; marks it as being applied.
    pub fn next(&self, age: Duration) -> Option<Op> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        // In the order of their numbers they are in the order of their age.
        let old_enough = inner.waiting.values().take_while(|w| now.duration_since(w.op.since) >= age);
        let seq = old_enough.into_iter().find_map(|w| {
            let ready = !w.applying
                && w.not_before.is_none_or(|at| at <= now)
                && w.needs.iter().all(|n| !inner.waiting.contains_key(n));
            ready.then_some(w.op.seq)
        })?;
        inner.begin(seq)
    }

    /// Waits for a change: at most `resting` while there are some that are not old enough, else at most `idle`.
    pub fn wait(&self, resting: Duration, idle: Duration) {
        let mut inner = self.inner.lock();
        let longest = if inner.waiting.is_empty() { idle } else { resting };
        self.changed.wait_for(&mut inner, longest);
    }

    /// Waits until fewer than `count` wait, or for `longest`.
    pub fn wait_for_fewer(&self, count: usize, longest: Duration) {
        let end = Instant::now() + longest;
        let mut inner = self.inner.lock();
        while inner.waiting.len() >= count && !self.changed.wait_until(&mut inner, end).timed_out() {}
    }

    /// Ends all waits.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    /// Takes one change for application now, when all it needs is done; waits for others that apply it or those.
    pub fn begin(&self, seq: Seq) -> Begin {
        let mut inner = self.inner.lock();
        loop {
            let Some(waiting) = inner.waiting.get(&seq) else { return Begin::Done };
            if !waiting.applying && waiting.needs.iter().all(|n| !inner.waiting.contains_key(n)) {
                break;
            }
            self.changed.wait_for(&mut inner, Duration::from_millis(100));
        }
        inner.begin(seq).map_or(Begin::Done, Begin::Yours)
    }

    /// Takes a change that is found done, whatever it waits for.
    pub fn found_done(&self, seq: Seq) -> Option<Op> {
        let mut inner = self.inner.lock();
        inner.waiting.get(&seq).filter(|waiting| !waiting.applying)?;
        inner.begin(seq)
    }

    /// A change that was begun is on the backing.
    pub fn done(&self, seq: Seq) {
        self.inner.lock().remove(seq);
        self.changed.notify_all();
    }

    /// A change that was begun could not be applied; it waits for `retry`.
    pub fn failed(&self, seq: Seq, retry: Duration) {
        if let Some(waiting) = self.inner.lock().waiting.get_mut(&seq) {
            waiting.applying = false;
            waiting.not_before = Some(Instant::now() + retry);
        }
        self.changed.notify_all();
    }

    /// The changes that must be applied so that `objects` are on the backing under their names, in order.
    pub fn closure(&self, objects: impl IntoIterator<Item = Ino>) -> Vec<Seq> {
        let inner = self.inner.lock();
        let roots = objects.into_iter().filter_map(|object| inner.last_of_object.get(&object).copied());
        inner.close(roots.collect())
    }

    /// The same for all entries of a directory.
    pub fn closure_of_directory(&self, dir: Ino) -> Vec<Seq> {
        let inner = self.inner.lock();
        inner.close(inner.last_in_directory.get(&dir).into_iter().copied().collect())
    }

    /// Whether any change in this directory waits.
    pub fn concerns_directory(&self, dir: Ino) -> bool {
        self.inner.lock().last_in_directory.contains_key(&dir)
    }

    /// Changes that wait.
    pub fn len(&self) -> usize {
        self.inner.lock().waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Changes that failed and wait for their next try.
    pub fn failing(&self) -> usize {
        self.inner.lock().waiting.values().filter(|w| w.not_before.is_some()).count()
    }

    /// When the oldest that waits was made.
    pub fn oldest(&self) -> Option<Instant> {
        self.inner.lock().waiting.values().next().map(|w| w.op.since)
    }

    /// Those that take a name away and that a daemon that died may have done.
    pub fn takings_perhaps_done(&self) -> Vec<Op> {
        let inner = self.inner.lock();
        let takings = inner.takings.iter().filter_map(|seq| inner.waiting.get(seq));
        takings
            .filter(|waiting| inner.may_have_been_done(waiting))
            .map(|waiting| waiting.op.clone())
            .collect()
    }

    /// All that wait and were not taken back, a line each.
    pub(crate) fn describe(&self) -> Vec<String> {
        let inner = self.inner.lock();
        let line = |waiting: &Waiting| {
            let (op, done) = (&waiting.op, inner.may_have_been_done(waiting));
            format!("{:?} {:?} needs {:?} perhaps done {done}", op.seq, op.change, inner.needs(waiting))
        };
        inner.waiting.values().filter(|waiting| !waiting.op.cancelled).map(|waiting| line(waiting)).collect()
    }

    /// Those that were taken back and keep their place in a directory.
    pub(crate) fn cancelled_in(&self, dir: Ino) -> usize {
        let inner = self.inner.lock();
        let cancelled = inner.waiting.values().filter(|waiting| waiting.op.cancelled);
        cancelled.filter(|waiting| waiting.op.change.directories().contains(&dir)).count()
    }

    /// All that wait, in order.
    pub fn snapshot(&self) -> Vec<Op> {
        self.inner.lock().waiting.values().map(|w| w.op.clone()).collect()
    }
}

impl Inner {
    /// Gives a change to whoever applies it.
    fn begin(&mut self, seq: Seq) -> Option<Op> {
        let resumed = self.may_have_been_done(self.waiting.get(&seq)?);
        let waiting = self.waiting.get_mut(&seq)?;
        waiting.applying = true;
        waiting.op.resumed = resumed;
        Some(waiting.op.clone())
    }

    /// Whether a daemon that died may have done it. One that waited for others was not begun.
    fn may_have_been_done(&self, waiting: &Waiting) -> bool {
        let waited_for = |seq: &Seq| self.waiting.contains_key(seq) || self.finished.contains(seq);
        waiting.op.seq <= self.inherited
            && !waiting.needs.iter().take(usize::from(waiting.named)).any(waited_for)
    }

    /// What it waits for by what it names, also by way of what was taken back.
    fn needs(&self, waiting: &Waiting) -> BTreeSet<Seq> {
        let mut needs = BTreeSet::new();
        let named = waiting.needs.iter().take(usize::from(waiting.named));
        for need in named.filter_map(|seq| self.waiting.get(seq)) {
            if need.op.cancelled {
                needs.extend(self.needs(need));
            } else {
                needs.insert(need.op.seq);
            }
        }
        needs
    }

    fn remove(&mut self, seq: Seq) -> Option<Op> {
        let op = self.waiting.remove(&seq)?.op;
        if seq <= self.inherited {
            self.takings.remove(&seq);
            self.finished.insert(seq);
            self.left -= 1;
            if self.left == 0 {
                self.finished = FxHashSet::default();
            }
        }
        for object in op.change.objects() {
            if self.last_of_object.get(&object) == Some(&seq) {
                self.last_of_object.remove(&object);
            }
        }
        for dir in op.change.directories() {
            if self.last_in_directory.get(&dir) == Some(&seq) {
                self.last_in_directory.remove(&dir);
            }
        }
        Some(op)
    }

    /// `roots` and all they need that still waits.
    fn close(&self, roots: Vec<Seq>) -> Vec<Seq> {
        let mut found: FxHashSet<Seq> = FxHashSet::default();
        let mut stack = roots;
        while let Some(seq) = stack.pop() {
            if let Some(waiting) = self.waiting.get(&seq)
                && found.insert(seq)
            {
                stack.extend(waiting.needs.iter().copied());
            }
        }
        let mut ordered: Vec<Seq> = found.into_iter().collect();
        ordered.sort_unstable();
        ordered
    }
}

/// A link from its parts.
pub fn link(parent: Ino, name: &[u8]) -> Link {
    (parent, Name::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: Ino = Ino::ROOT;

    fn make(log: &OpLog, ino: u64, dir: Ino, name: &str) -> Seq {
        log.push(Change::Make { ino: Ino(ino), link: link(dir, name.as_bytes()) }, &[])
    }

    #[test]
    fn a_change_waits_for_earlier_ones_in_its_directory_alone() {
        let log = OpLog::default();
        let a = make(&log, 2, ROOT, "a");
        let b = make(&log, 3, ROOT, "b");
        let other = make(&log, 4, Ino(9), "c");
        assert_eq!(log.next(Duration::ZERO).map(|op| op.seq), Some(a));
        assert_eq!(log.next(Duration::ZERO).map(|op| op.seq), Some(other), "b waits for a, c for nothing");
        log.done(a);
        assert_eq!(log.next(Duration::ZERO).map(|op| op.seq), Some(b));
    }

    #[test]
    fn an_entry_waits_for_its_directory_to_be_made() {
        let log = OpLog::default();
        let dir = make(&log, 2, ROOT, "dir");
        let file = make(&log, 3, Ino(2), "file");
        assert_eq!(log.closure([Ino(3)]), vec![dir, file]);
    }

    #[test]
    fn the_closure_leaves_unrelated_changes_out() {
        let log = OpLog::default();
        let _unrelated = make(&log, 5, Ino(8), "x");
        let wanted = make(&log, 6, Ino(9), "y");
        assert_eq!(log.closure([Ino(6)]), vec![wanted]);
    }

    #[test]
    fn a_cancelled_making_leaves_the_order_of_the_others() {
        let log = OpLog::default();
        let a = make(&log, 2, ROOT, "a");
        make(&log, 3, ROOT, "temporary");
        let c = make(&log, 4, ROOT, "c");
        assert!(log.cancel_make(Ino(3)));
        let closure = log.closure([Ino(4)]);
        assert_eq!((closure.first(), closure.last()), (Some(&a), Some(&c)));
        log.done(a);
        assert!(log.next(Duration::ZERO).is_some_and(|op| op.cancelled));
    }

    #[test]
    fn a_directory_that_moves_waits_for_what_happened_in_it() {
        let log = OpLog::default();
        let inside = make(&log, 3, Ino(2), "inside");
        let moved = log.push(
            Change::Rename { ino: Ino(2), from: link(ROOT, b"d"), to: link(ROOT, b"e"), replaced: None },
            &[],
        );
        assert_eq!(log.closure([Ino(2)]), vec![inside, moved]);
    }
}
