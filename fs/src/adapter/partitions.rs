//! Requests on groups over partitions. Opening them waits for the storage of each partition, and so is done
//! beside the threads that read requests.

use super::Adapter;
use super::streams::MEMBER;
use crate::errno::errno;
use crate::streams::GroupNode;
use aimss_engine::{Ino, Kind};
use fuser::{FileHandle, ReplyOpen};

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

    pub(super) fn is_directory(&self, ino: Ino) -> bool {
        self.engine.attr(ino).is_ok_and(|attr| attr.kind == Kind::Directory)
    }
}
