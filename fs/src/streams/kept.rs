//! What the next daemon has to know of streams: numbers of nodes that the kernel was given, and open handles. Noted in the
//! journal before anybody is told of them; keys are the numbers themselves.
//!
//! A member of a group joins anew in the next daemon: what it was given and had not acknowledged is given again, from the
//! offset that was written down.

use super::{APPENDER, GROUP, GroupNode, HANDLE_FIRST, Handle, StreamFiles, VIEW, ViewNode};
use aimss_engine::Ino;
use aimss_engine::journal::{Journal, Recovered};
use aimss_engine::stream::{Position, StreamId};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;

/// Set in the key of what waits for a handle to be readable.
const POLL: u64 = 1 << 63;
/// Set in the key of a stream's inode that is about to lose a name. No node has both.
const GOING: u64 = GROUP | VIEW;

/// A node that has no inode of its own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum KeptNode {
    /// See [`ViewNode`].
    View { stream: u64, begin: u64 },
    /// See [`GroupNode`].
    Group { stream: u64, group: String, eof: bool },
    /// See [`StreamFiles::going`].
    Going { id: u128 },
}

/// An open handle.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum KeptHandle {
    /// See [`Handle::Plain`].
    Plain { ino: u64, begin: u64, write: bool },
    /// See [`Handle::Appender`].
    Appender { ino: u64, id: u32 },
    /// Of a group.
    Member(KeptNode),
}

impl KeptHandle {
    /// The stream's; none of a group's.
    pub(super) fn inode(&self) -> Option<Ino> {
        match self {
            KeptHandle::Plain { ino, .. } | KeptHandle::Appender { ino, .. } => Some(Ino(*ino)),
            KeptHandle::Member(_) => None,
        }
    }
}

impl KeptNode {
    pub fn of_group(node: &GroupNode) -> KeptNode {
        KeptNode::Group { stream: node.stream.0, group: node.group.to_string(), eof: node.eof }
    }

    fn group(&self) -> Option<GroupNode> {
        match self {
            KeptNode::Group { stream, group, eof } => {
                Some(GroupNode { stream: Ino(*stream), group: group.as_str().into(), eof: *eof })
            }
            KeptNode::View { .. } | KeptNode::Going { .. } => None,
        }
    }
}

/// Handles begin behind this: above all that a daemon before this one gave out.
pub(super) fn first_number() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64)
}

/// What the adapter is told of a handle that is taken up.
#[derive(Debug)]
pub struct AppenderId {
    /// The stream's inode.
    pub ino: Ino,
    /// The kernel's backing id of its active file.
    pub id: u32,
}

impl StreamFiles {
    pub(super) fn note_node(&self, number: u64, node: Option<&KeptNode>) {
        self.engine.journal().note(number, node.and_then(|node| postcard::to_allocvec(node).ok()));
    }

    pub(super) fn note_handle(&self, number: u64, kept: KeptHandle) {
        self.engine.journal().note(number, postcard::to_allocvec(&kept).ok());
        self.kept.lock().insert(number, kept);
    }

    pub(super) fn forget_handle(&self, number: u64) {
        self.kept.lock().remove(&number);
        self.engine.journal().note(number, None);
        self.engine.journal().note(number | POLL, None);
    }

    /// The kernel waits for a handle to be readable, and calls it so.
    pub fn note_poll(&self, number: u64, kernel: u64) {
        self.engine.journal().note(number | POLL, Some(kernel.to_le_bytes().to_vec()));
    }

    /// What may be a stream is about to lose a name. If this daemon does not live to see what that means for its log, the
    /// next one does ([`StreamFiles::gone`]). [`StreamFiles::seen_to`] follows.
    pub fn going(&self, ino: Option<Ino>) {
        if let Some((ino, stream)) = ino.and_then(|ino| Some((ino, self.of_known(ino)?))) {
            // On the way to what was asked for, and not the answer.
            let _preparing = Journal::preparing();
            self.note_node(GOING | ino.0, Some(&KeptNode::Going { id: stream.id().0 }));
        }
    }

    /// It has lost it, or not, and its log is doomed where it has to be.
    pub fn seen_to(&self, ino: Ino) {
        let _preparing = Journal::preparing();
        self.note_node(GOING | ino.0, None);
    }

    /// Streams that lost their last name in the time of the daemon that left this, which did not live to see to it. An
    /// inode whose name goes is kept, at least until the kernel is told.
    pub fn gone(left: &Recovered) -> Vec<(Ino, StreamId)> {
        let mut gone = Vec::new();
        for (&key, note) in
            left.notes.iter().filter(|(key, _)| **key < HANDLE_FIRST && **key & GOING == GOING)
        {
            let ino = Ino(key & !GOING);
            if let Ok(KeptNode::Going { id }) = postcard::from_bytes::<KeptNode>(note)
                && left.nodes.get(&ino).is_some_and(|node| node.attr.nlink == 0)
            {
                gone.push((ino, StreamId(id)));
            }
        }
        gone
    }

    /// What the kernel calls handles that it may wait for.
    pub fn polled(left: &Recovered) -> Vec<u64> {
        let notes = left.notes.iter().filter(|(key, _)| **key & POLL != 0);
        notes.filter_map(|(_, kernel)| Some(u64::from_le_bytes(kernel.as_slice().try_into().ok()?))).collect()
    }

    /// The inode of an open handle, its stream's; none of a group's.
    pub fn inode_of_handle(&self, number: u64) -> Option<Ino> {
        self.kept.lock().get(&number)?.inode()
    }

    /// Goes on with what the last daemon noted; the backing ids of those that append. A handle that can't be had back
    /// gives EIO from here on.
    pub fn take_up(&self, left: &Recovered) -> Vec<AppenderId> {
        self.taken_over.store(true, Ordering::Relaxed);
        let mut ids = Vec::new();
        for (&number, note) in left.notes.iter().filter(|(key, _)| **key < HANDLE_FIRST) {
            if number & (GROUP | VIEW) == 0 {
                continue;
            }
            match postcard::from_bytes::<KeptNode>(note) {
                Ok(KeptNode::View { stream, begin }) => {
                    let node = ViewNode { stream: Ino(stream), begin: Position(begin) };
                    self.views.lock().take_up(number, &node);
                }
                Ok(node) => {
                    if let Some(node) = node.group() {
                        self.groups.lock().take_up(number, &node);
                    }
                }
                Err(e) => {
                    log::error!("node {number:x} can't be served any more, its note can't be read: {e}");
                }
            }
        }
        let handles = left.notes.iter().filter(|(key, _)| **key >= HANDLE_FIRST && **key & POLL == 0);
        for (&number, note) in handles {
            // Whatever the clock says.
            self.next_handle.fetch_max(number + 1, Ordering::Relaxed);
            let handle = postcard::from_bytes::<KeptHandle>(note).ok().and_then(|kept| {
                let handle = self.take_up_handle(&kept, &mut ids)?;
                self.kept.lock().insert(number, kept);
                Some(handle)
            });
            match handle {
                Some(handle) => drop(self.handles.lock().insert(number, handle)),
                None => log::error!("an open stream can't be served any more"),
            }
        }
        ids
    }

    fn take_up_handle(&self, kept: &KeptHandle, ids: &mut Vec<AppenderId>) -> Option<Handle> {
        match kept {
            KeptHandle::Plain { ino, begin, write } => {
                let stream = self.of_inode(Ino(*ino))?;
                if *write {
                    stream.writer_taken_up(false);
                }
                Some(Handle::Plain { stream, begin: Position(*begin), write: *write })
            }
            KeptHandle::Appender { ino, id } => {
                let stream = self.of_inode(Ino(*ino & !APPENDER))?;
                stream.writer_taken_up(true);
                ids.push(AppenderId { ino: Ino(*ino), id: *id });
                Some(Handle::Appender { stream })
            }
            KeptHandle::Member(node) => self.join(&node.group()?).ok(),
        }
    }
}

/// Whether a handle is a stream's.
pub fn is_stream_handle(number: u64) -> bool {
    number >= HANDLE_FIRST
}
