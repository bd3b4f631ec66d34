//! Children that end with this process, however it ends: a server that outlived a killed benchmark would
//! disturb the next one, and a process that outlived its test keeps the mount busy.

use rustix::process::{Signal, set_parent_process_death_signal};
use std::io::Result;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Starts `command`; the kernel kills it when the calling thread is gone. Call it on the main thread.
#[allow(unsafe_code)]
pub fn spawn(command: &mut Command) -> Result<Child> {
    // SAFETY: between fork and exec nothing is done but one system call, which takes no lock and no memory.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    command.spawn()
}
