//! Acting on the backing as the owner of a file, so that quotas and root_squash hold for whoever wrote it.
//!
//! 1. A thread that is root sets its file system uid and gid (Linux keeps them per thread) around the call.
//! 2. Where the owner alone may not (the directory is not, or no longer, writable for him, but the change was granted
//!    when it was made), the call is repeated as the owner with root's right to pass over permissions: what it makes
//!    is his from the start, whenever the machine dies.
//! 3. Where that is refused too (by a server, which knows nothing of our rights), it is repeated as root; whoever
//!    calls gives the result to the owner.
//!
//! A daemon that is not root acts as itself. Supplementary groups are not taken on.

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
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

    /// Runs `call` as this owner; where that is refused, once more past permissions, and then as root.
    pub(crate) fn run<T>(self, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        if (self.uid == 0 && self.gid == 0) || !rustix::process::geteuid().is_root() {
            return call();
        }
        let refused = |result: &io::Result<T>| {
            let error = result.as_ref().err().and_then(io::Error::raw_os_error);
            matches!(error, Some(libc::EACCES | libc::EPERM))
        };
        let mut result = {
            let _identity = Identity::assume(self);
            call()
        };
        if refused(&result) {
            let identity = Identity::assume(self);
            if identity.pass_over_permissions() {
                result = call();
            }
        }
        if refused(&result) { call() } else { result }
    }
}

/// The thread's file system identity, back to root when dropped.
struct Identity;

impl Identity {
    fn assume(owner: Owner) -> Identity {
        set(owner.uid, owner.gid);
        Identity
    }

    /// Takes back, until this is dropped, what the thread lost with root's identity; says whether it could.
    fn pass_over_permissions(&self) -> bool {
        let passing = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        capabilities(None).is_ok_and(|mut sets| {
            sets.effective |= passing & sets.permitted;
            set_capabilities(None, sets).is_ok()
        })
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
