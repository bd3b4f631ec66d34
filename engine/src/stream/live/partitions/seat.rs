//! A group's place in one of its partitions: the only member that the group as a whole is there.

use crate::stream::group::MemberId;
use crate::stream::live::{Stream, Waiting};
use std::sync::Arc;

/// A partition, and the group's member in its group.
#[derive(Debug)]
pub(super) struct Seat {
    pub stream: Arc<Stream>,
    pub member: MemberId,
}

impl Seat {
    /// Gives the next piece of a long record, if its reader is within one; else the question back.
    pub fn go_on_within(&self, question: Waiting) -> Option<Waiting> {
        let within = self.stream.pieces.lock().remove(&self.member);
        let Some(piece) = within else { return Some(question) };
        self.stream.answer_piece(question, piece);
        None
    }

    /// What its reader has is acknowledged.
    pub fn acknowledge(&self, group: &str) {
        if let Some(group) = self.stream.groups.lock().get_mut(group) {
            group.acknowledge(self.member);
        }
        self.stream.offsets_changed();
    }

    /// What its reader has goes to whoever asks next.
    pub fn take_back(&self, group: &str) {
        self.stream.pieces.lock().remove(&self.member);
        if let Some(group) = self.stream.groups.lock().get_mut(group) {
            group.leave(self.member);
            group.join(self.member);
        }
    }
}

/// The group has no members any more.
pub(super) fn leave(seats: &[Seat], name: &str) {
    for Seat { stream, member } in seats {
        stream.leave(name, *member);
    }
}
