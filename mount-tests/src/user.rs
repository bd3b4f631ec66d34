//! Being somebody else, for what other users may and may not do: a thread that is another user from its start to its
//! end, or a program that is.

use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// `nobody`.
pub const NOBODY: u32 = 65_534;
/// Somebody else, with no name.
pub const SOMEBODY: u32 = 54_321;

/// Runs `work` in a thread of its own that is user and group `id`, with no other groups and no rights besides.
pub fn as_user<T: Send>(id: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
            // Of this thread alone: the kernel keeps them a thread.
            set_thread_groups(&[]).expect("root may");
            set_thread_res_gid(gid, gid, gid).expect("root may");
            set_thread_res_uid(uid, uid, uid).expect("root may");
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A command that runs `program` as user and group `id`, without other groups.
pub fn command_as(id: u32, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(id).gid(id);
    command
}
