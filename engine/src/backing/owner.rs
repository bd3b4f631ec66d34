//! Acting on the backing as the owner of a file, so that quotas and root_squash hold for whoever wrote it.
//!
//! 1. A thread that is root sets its file system uid and gid (Linux keeps them per thread) around the call.
//! 2. Where the owner alone may not (the directory is no longer writable for him, but the change was granted when
//!    it was made), the call is repeated as root and the result given to the owner.
//!
//! A daemon that is not root acts as itself. Supplementary groups are not taken on.

use std::io;

/// The uid and gid to act as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// Root, or whoever the daemon is.
    pub const ROOT: Owner = Owner { uid: 0, gid: 0 };

    /// Runs `call` as this owner; once more as root where that is refused.
    pub(crate) fn run<T>(self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        if (self.uid == 0 && self.gid == 0) || !rustix::process::geteuid().is_root() {
            return call();
        }
        let result = {
            let _identity = Identity::assume(self);
            call()
        };
        match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => call(),
            other => other,
        }
    }
}

/// The thread's file system identity, back to root when dropped.
struct Identity;

impl Identity {
    fn assume(owner: Owner) -> Identity {
        set(owner.uid, owner.gid);
        Identity
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        set(0, 0);
    }
}

/// Group first while still root, user first on the way back: either way the calls are made with uid 0 on one side,
/// and they cannot fail for a process that is root.
fn set(uid: u32, gid: u32) {
    // SAFETY: both calls take plain numbers, touch this thread's credentials alone, and report no errors.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
}
