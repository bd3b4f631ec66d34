//! One event of the next append to a file: inotify, armed once for each event wanted.
//!
//! It fires for writes through FUSE passthrough, a few microseconds after them, and costs the writer
//! something only while armed (docs/design/0001). A write between the last look at the file and the arming is
//! not announced: look again after arming.

use super::Stream;
use parking_lot::Mutex;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};

/// Bytes for events; each is 16 of them.
const EVENTS_BYTES: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Watch {
    inotify: OwnedFd,
    /// Whose file a watch descriptor is about. A leaf lock.
    streams: Mutex<HashMap<i32, Weak<Stream>>>,
}

impl Watch {
    pub fn new() -> io::Result<Watch> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Watch { inotify, streams: Mutex::default() })
    }

    /// Asks for one event of the next write to `file`.
    pub fn arm(&self, stream: &Arc<Stream>, file: &File) -> io::Result<()> {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut streams = self.streams.lock();
        let watch = inotify::add_watch(&self.inotify, path, WatchFlags::MODIFY | WatchFlags::ONESHOT)?;
        streams.insert(watch, Arc::downgrade(stream));
        Ok(())
    }

    /// The streams that were written to since.
    pub fn events(&self) -> Vec<Arc<Stream>> {
        let mut found = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); EVENTS_BYTES];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut streams = self.streams.lock();
        while let Ok(event) = reader.next() {
            if event.events().contains(inotify::ReadFlags::MODIFY)
                && let Some(stream) = streams.remove(&event.wd()).and_then(|stream| stream.upgrade())
            {
                found.push(stream);
            }
            if reader.is_buffer_empty() {
                // What comes now is found by the next poll.
                break;
            }
        }
        found
    }
}

impl AsFd for Watch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}
