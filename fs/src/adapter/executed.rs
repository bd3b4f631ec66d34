//! Files that are being executed, so that O_RDONLY|O_TRUNC is refused there with ETXTBSY.
//!
//! The kernel refuses writers of such a file by itself, but cuts it at an open that doesn't write before it looks: with
//! FUSE_ATOMIC_O_TRUNC the cut is ours, in OPEN, and the program dies of SIGBUS. An exec(2) tells us, by `FMODE_EXEC`
//! in the flags of its open, and its handle lives as long as the program.

use aimss_engine::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Among the flags of an open, from the kernel's `linux/fs.h`: on behalf of exec(2).
const FMODE_EXEC: i32 = 0x20;

/// Handles of each file that were opened to be executed.
#[derive(Debug, Default)]
pub(super) struct Executed(Mutex<HashMap<Ino, u64>>);

impl Executed {
    /// Whether these flags of an open are exec(2)'s.
    pub(super) fn is_exec(flags: i32) -> bool {
        flags & FMODE_EXEC != 0
    }

    /// Whether an open with these flags would cut what is being executed.
    pub(super) fn refuses(&self, ino: Ino, flags: i32) -> bool {
        flags & libc::O_ACCMODE == libc::O_RDONLY
            && flags & libc::O_TRUNC != 0
            && self.0.lock().contains_key(&ino)
    }

    /// A handle is opened to be executed.
    pub(super) fn opened(&self, ino: Ino) {
        *self.0.lock().entry(ino).or_default() += 1;
    }

    /// One of those is closed, or was not opened after all.
    pub(super) fn closed(&self, ino: Ino) {
        let mut files = self.0.lock();
        if let Some(handles) = files.get_mut(&ino) {
            *handles -= 1;
            if *handles == 0 {
                files.remove(&ino);
            }
        }
    }
}
