//! Groups over the partitions of a stream: members ask here, and are answered from the partitions that are
//! theirs ([`Assignment`] says which those are).
//!
//! 1. The group of the same name in each partition keeps offsets, batches and counts, as ever. In it the whole
//!    group is one member, the *seat*, for as long as it has members itself.
//! 2. A member takes part from its first question on: one that never asks keeps nothing from others. Coming
//!    back acknowledges its batch; then its partitions are tried in turn, beginning behind the one that gave
//!    last, so that none starves. A batch is of one partition.
//! 3. Where none has anything, the question waits, and the partitions are polled ([`Stream::poll_group`]). A
//!    poll that was told stays *armed* over changes of owners; its news go to whose the partition then is.
//! 4. When members come and go, or are late, partitions change hands: never one whose batch its member holds,
//!    and what a member held that is gone is given back first. So a partition has one reader at a time, and
//!    its order is kept.
//!
//! Each member is served by one thread at a time (`busy`); a cause to serve it that comes meanwhile makes that
//! thread look again.
//!
//! The group's lock is taken before its streams' locks, and none is held where an answer is given, a poll is
//! asked for or told.

mod groups;
mod seat;

use super::members::{AtEnd, Refusal, Waiting};
use crate::stream::StreamId;
use crate::stream::assignment::Assignment;
use crate::stream::group::MemberId;
use parking_lot::Mutex;
use seat::Seat;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(super) use groups::Groups;

/// Called when there are records.
type Wake = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Debug)]
pub struct PartitionedGroup {
    set: StreamId,
    name: Arc<str>,
    partitions: Vec<Seat>,
    state: Mutex<State>,
    members: AtomicU64,
}

#[derive(Debug)]
struct State {
    assignment: Assignment,
    /// Partitions of which the owner has a batch, or is being given one.
    given: Vec<bool>,
    /// Partitions that will tell of news.
    armed: Vec<bool>,
    members: BTreeMap<MemberId, Member>,
    /// The group was removed.
    removed: bool,
}

struct Member {
    takes_part: bool,
    questions: VecDeque<Question>,
    /// A thread has one of its questions in its hands.
    busy: bool,
    /// And is to look again.
    again: bool,
    /// It left meanwhile; that thread sees to it.
    left: bool,
    polls: Option<Wake>,
    /// The partition that was tried last.
    last: usize,
    /// When it was answered last.
    away_since: Instant,
}

#[derive(Debug)]
struct Question {
    asked: Waiting,
    at_end: AtEnd,
    /// What its member had is acknowledged.
    begun: bool,
    /// It waits, and is counted so.
    waits: bool,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member")
            .field("questions", &self.questions)
            .field("polls", &self.polls.is_some())
            .finish_non_exhaustive()
    }
}

impl State {
    /// A member asks: from now on it has a share. Returns who got partitions.
    fn take_part(&mut self, id: MemberId) -> Vec<MemberId> {
        let Some(member) = self.members.get_mut(&id) else { return Vec::new() };
        member.away_since = Instant::now();
        if std::mem::replace(&mut member.takes_part, true) {
            return Vec::new();
        }
        self.assignment.join(id, |partition| self.given[partition])
    }

    /// Takes the member's next question into the hands of one thread.
    fn next_question(&mut self, id: MemberId) -> Option<Question> {
        let member = self.members.get_mut(&id)?;
        if member.busy {
            member.again = true;
            return None;
        }
        let question = member.questions.pop_front()?;
        member.busy = true;
        Some(question)
    }

    /// The member's partitions, from behind the one that was tried last.
    fn turn(&self, id: MemberId) -> Vec<usize> {
        let Some(member) = self.members.get(&id) else { return Vec::new() };
        let (before, behind): (Vec<usize>, Vec<usize>) =
            self.assignment.of(id).partition(|partition| *partition <= member.last);
        [behind, before].concat()
    }
}

impl PartitionedGroup {
    fn new(set: StreamId, name: &str, partitions: Vec<Seat>) -> PartitionedGroup {
        let state = State {
            assignment: Assignment::new(partitions.len()),
            given: vec![false; partitions.len()],
            armed: vec![false; partitions.len()],
            members: BTreeMap::new(),
            removed: false,
        };
        PartitionedGroup {
            set,
            name: name.into(),
            partitions,
            state: Mutex::new(state),
            members: AtomicU64::new(1),
        }
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How many partitions each member has.
    pub fn shares(&self) -> Vec<usize> {
        let state = self.state.lock();
        state.members.keys().map(|id| state.assignment.of(*id).count()).collect()
    }

    fn join(&self) -> MemberId {
        let id = MemberId(self.members.fetch_add(1, Ordering::Relaxed));
        let member = Member {
            takes_part: false,
            questions: VecDeque::new(),
            busy: false,
            again: false,
            left: false,
            polls: None,
            last: self.partitions.len(),
            away_since: Instant::now(),
        };
        self.state.lock().members.insert(id, member);
        id
    }

    /// A member leaves; its partitions, and what it did not acknowledge, go to others.
    pub fn leave(self: &Arc<Self>, id: MemberId) {
        let hub = self.partitions[0].stream.hub.upgrade();
        let mut groups = hub.as_ref().map(|hub| hub.partitioned.0.lock());
        let mut state = self.state.lock();
        if let Some(member) = state.members.get_mut(&id)
            && member.busy
        {
            member.left = true;
            return;
        }
        let (returned, gained) = self.take_from(&mut state, id);
        let Some(member) = state.members.remove(&id) else { return };
        let last = state.members.is_empty();
        let key = (self.set, self.name.clone());
        if let Some(groups) = &mut groups
            && last
            && groups.get(&key).is_some_and(|group| Arc::ptr_eq(group, self))
        {
            groups.remove(&key);
        }
        drop(state);
        drop(groups);
        for question in member.questions {
            self.count(&question, -1);
            (question.asked.answer)(Err(Refusal::Interrupted));
        }
        if last {
            return seat::leave(&self.partitions, &self.name);
        }
        self.tell_of(&returned, &gained);
    }

    /// A member comes back for more: what it had is acknowledged, and the next records are its own.
    pub fn read(self: &Arc<Self>, asked: Waiting, at_end: AtEnd) {
        let id = asked.member;
        let gained = {
            let mut state = self.state.lock();
            let Some(member) = state.members.get_mut(&id) else {
                drop(state);
                return (asked.answer)(Err(Refusal::NoGroup));
            };
            member.questions.push_back(Question { asked, at_end, begun: false, waits: false });
            state.take_part(id)
        };
        self.serve(id);
        self.look_at_others(&gained, id);
    }

    /// Whether a read would be answered at once. If not, `wake` is called when it would; a new one of the same
    /// member replaces it.
    pub fn poll(self: &Arc<Self>, id: MemberId, wake: Option<Wake>) -> bool {
        let gained = self.state.lock().take_part(id);
        self.look_at_others(&gained, id);
        if self.has_work(id) {
            return true;
        }
        if let Some(wake) = wake
            && let Some(member) = self.state.lock().members.get_mut(&id)
        {
            member.polls = Some(wake);
        }
        self.tell_poller(id);
        false
    }

    fn has_work(&self, id: MemberId) -> bool {
        let own: Vec<usize> = {
            let state = self.state.lock();
            if state.removed {
                return true;
            }
            state.assignment.of(id).collect()
        };
        own.into_iter().any(|partition| {
            let stream = &self.partitions[partition].stream;
            stream.index_news();
            stream.has_work(&self.name)
        })
    }

    /// Answers what a member asks, one question after the other, until one has to wait.
    fn serve(self: &Arc<Self>, id: MemberId) {
        loop {
            let Some(question) = self.state.lock().next_question(id) else { return };
            let (at_end, waits) = (question.at_end, question.waits);
            let left = if question.begun { Some(question) } else { self.begin(question) };
            let left = left.and_then(|question| self.try_partitions(id, question));
            if left.is_none() && waits {
                self.partitions[0].stream.count_questions(-1);
            }
            let mut state = self.state.lock();
            let Some(member) = state.members.get_mut(&id) else { return };
            member.busy = false;
            if member.left {
                member.questions.extend(left);
                drop(state);
                return self.leave(id);
            }
            let again = std::mem::take(&mut member.again);
            let Some(mut question) = left else {
                member.away_since = Instant::now();
                continue;
            };
            if again || at_end == AtEnd::Wait {
                if !again && !question.waits {
                    question.waits = true;
                    self.count(&question, 1);
                }
                member.questions.push_front(question);
                drop(state);
                if again || self.arm(id) {
                    continue;
                }
                return;
            }
            member.away_since = Instant::now();
            drop(state);
            let nothing = if at_end == AtEnd::End { Ok(&[][..]) } else { Err(Refusal::WouldBlock) };
            (question.asked.answer)(nothing);
        }
    }

    /// A question is new: its member goes on within a long record, or acknowledges what it has.
    fn begin(&self, mut question: Question) -> Option<Question> {
        let id = question.asked.member;
        let held = {
            let state = self.state.lock();
            state.assignment.of(id).find(|partition| state.given[*partition])
        };
        if let Some(partition) = held {
            let seat = &self.partitions[partition];
            question.asked.member = seat.member;
            question.asked = seat.go_on_within(question.asked)?;
            question.asked.member = id;
            // With the lock held: whose the partition is next must not be acknowledged.
            let mut state = self.state.lock();
            seat.acknowledge(&self.name);
            state.given[partition] = false;
        }
        question.begun = true;
        Some(question)
    }

    /// Gives a question its answer, or the question back where no partition of its member has records.
    fn try_partitions(&self, id: MemberId, mut question: Question) -> Option<Question> {
        let turn = {
            let state = self.state.lock();
            if state.removed {
                drop(state);
                (question.asked.answer)(Err(Refusal::NoGroup));
                return None;
            }
            state.turn(id)
        };
        for partition in turn {
            {
                let mut state = self.state.lock();
                if state.assignment.owner(partition) != Some(id) {
                    continue;
                }
                state.given[partition] = true;
                if let Some(member) = state.members.get_mut(&id) {
                    member.last = partition;
                }
            }
            let Seat { stream, member } = &self.partitions[partition];
            // Nobody may have looked since the last append.
            stream.index_news();
            question.asked.member = *member;
            question.asked = match stream.try_answer(question.asked) {
                Ok(()) => return None,
                Err(asked) => asked,
            };
            question.asked.member = id;
            self.state.lock().given[partition] = false;
        }
        Some(question)
    }

    /// The next append to a partition of this member is to be noticed. True if there are records already.
    fn arm(self: &Arc<Self>, id: MemberId) -> bool {
        let unarmed: Vec<usize> = {
            let mut state = self.state.lock();
            let own: Vec<usize> = state.assignment.of(id).collect();
            own.into_iter().filter(|own| !std::mem::replace(&mut state.armed[*own], true)).collect()
        };
        let mut ready = false;
        for partition in unarmed {
            let group = Arc::downgrade(self);
            let wake: Wake = Box::new(move || {
                if let Some(group) = group.upgrade() {
                    group.news(partition);
                }
            });
            let Seat { stream, member } = &self.partitions[partition];
            if stream.poll_group(&self.name, *member, Some(wake)) {
                self.state.lock().armed[partition] = false;
                ready = true;
            }
        }
        ready
    }

    fn news(self: &Arc<Self>, partition: usize) {
        let owner = {
            let mut state = self.state.lock();
            state.armed[partition] = false;
            state.assignment.owner(partition)
        };
        if let Some(owner) = owner {
            self.look_at(owner);
        }
    }

    fn look_at(self: &Arc<Self>, id: MemberId) {
        self.serve(id);
        self.tell_poller(id);
    }

    fn look_at_others(self: &Arc<Self>, ids: &[MemberId], but: MemberId) {
        for id in ids.iter().filter(|id| **id != but) {
            self.look_at(*id);
        }
    }

    fn look_at_all(self: &Arc<Self>) {
        let ids: Vec<MemberId> = self.state.lock().members.keys().copied().collect();
        for id in ids {
            self.look_at(id);
        }
    }

    /// Wakes a member that polls, if there is something for it, or sees to it that this is noticed.
    fn tell_poller(self: &Arc<Self>, id: MemberId) {
        let polls = || self.state.lock().members.get(&id).is_some_and(|member| member.polls.is_some());
        while polls() {
            if self.has_work(id) {
                let wake = self.state.lock().members.get_mut(&id).and_then(|member| {
                    member.away_since = Instant::now();
                    member.polls.take()
                });
                if let Some(wake) = wake {
                    wake();
                }
            } else if !self.arm(id) {
                return;
            }
        }
    }

    /// A member has no share any more. Returns the partition whose batch it gave back, and who got partitions.
    fn take_from(&self, state: &mut State, id: MemberId) -> (Vec<usize>, Vec<MemberId>) {
        let held: Vec<usize> = state.assignment.of(id).filter(|partition| state.given[*partition]).collect();
        for partition in &held {
            state.given[*partition] = false;
            if state.removed {
                continue;
            }
            self.partitions[*partition].take_back(&self.name);
        }
        let State { assignment, given, .. } = state;
        (held, assignment.leave(id, |partition| given[partition]))
    }

    /// Batches were given back, and members got partitions.
    fn tell_of(self: &Arc<Self>, returned: &[usize], gained: &[MemberId]) {
        for id in gained {
            self.look_at(*id);
        }
        // Members of a partition's own group may wait for them, too.
        for partition in returned {
            self.partitions[*partition].stream.answer_waiting();
        }
    }

    /// Members that stay away longer than the stream allows lose their partitions until they come back.
    pub fn take_back_late(self: &Arc<Self>) {
        let Some(timeout) = self.partitions[0].stream.settings().ack_timeout else { return };
        let Some(deadline) = Instant::now().checked_sub(timeout) else { return };
        let (mut returned, mut gained) = (Vec::new(), Vec::new());
        {
            let mut state = self.state.lock();
            let is_late = |member: &Member| {
                let asks = member.busy || member.polls.is_some() || !member.questions.is_empty();
                member.takes_part && !asks && member.away_since < deadline
            };
            let late: Vec<MemberId> =
                state.members.iter().filter(|(_, member)| is_late(member)).map(|(id, _)| *id).collect();
            for id in late {
                if let Some(member) = state.members.get_mut(&id) {
                    member.takes_part = false;
                }
                let (held, more) = self.take_from(&mut state, id);
                returned.extend(held);
                gained.extend(more);
            }
        }
        self.tell_of(&returned, &gained);
    }

    /// Questions of threads for which a signal came are answered so.
    pub(super) fn answer_interrupted(&self, signalled: impl Fn(u32) -> bool) {
        let threads: Vec<(MemberId, u32)> = {
            let state = self.state.lock();
            let each = |(id, member): (&MemberId, &Member)| -> Vec<(MemberId, u32)> {
                member.questions.iter().map(|question| (*id, question.asked.thread)).collect()
            };
            state.members.iter().flat_map(each).collect()
        };
        for (id, thread) in threads.into_iter().filter(|(_, thread)| signalled(*thread)) {
            let interrupted: Vec<Question> = match self.state.lock().members.get_mut(&id) {
                // What a thread has in its hands comes next time.
                Some(member) if !member.busy => {
                    member.away_since = Instant::now();
                    let (of_thread, others) = std::mem::take(&mut member.questions)
                        .into_iter()
                        .partition(|question| question.asked.thread == thread);
                    member.questions = others;
                    of_thread.into()
                }
                _ => continue,
            };
            for question in interrupted {
                self.count(&question, -1);
                (question.asked.answer)(Err(Refusal::Interrupted));
            }
        }
    }

    fn count(&self, question: &Question, change: isize) {
        if question.waits {
            self.partitions[0].stream.count_questions(change);
        }
    }
}
