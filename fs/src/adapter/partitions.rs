//! Requests on groups over partitions. Opening and removing them waits for the storage of each partition, and
//! so is done beside the threads that read requests.

use super::Adapter;
use super::streams::MEMBER;
use crate::errno::errno;
use crate::streams::GroupNode;
use aimss_engine::{Ino, Kind};
use fuser::{FileHandle, ReplyEmpty, ReplyOpen};

impl Adapter {
    /// Opens a group over partitions; gives the reply back for a group of one stream.
    pub(super) fn open_partitioned(&self, node: &GroupNode, reply: ReplyOpen) -> Option<ReplyOpen> {
        if !self.is_directory(node.stream) {
            return Some(reply);
        }
        let (streams, node) = (self.streams.clone(), node.clone());
        self.aside(move |_| match streams.open_partitioned_group(&node) {
            Ok(handle) => reply.opened(FileHandle(handle), MEMBER),
            Err(e) => reply.error(errno(&e)),
        });
        None
    }

    /// Removes a group over partitions by its name; gives the reply back for other names.
    pub(super) fn unlink_partitioned(
        &self,
        parent: Ino,
        name: &[u8],
        reply: ReplyEmpty,
    ) -> Option<ReplyEmpty> {
        if !name.contains(&b'@') || self.engine.resolve(parent, name).is_ok() {
            return Some(reply);
        }
        let Some(Ok((_, node))) = self.find_group(parent, name) else { return Some(reply) };
        if !self.is_directory(node.stream) {
            return Some(reply);
        }
        let streams = self.streams.clone();
        self.aside(move |_| super::reply_empty(streams.remove_partitioned_group(&node), reply));
        None
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.engine.attr(ino).is_ok_and(|attr| attr.kind == Kind::Directory)
    }
}
