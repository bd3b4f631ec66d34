//! `aimss stream`: streams of a mount through its daemon, streams of a backing directory directly.
//!
//! 1. [`place`] finds out which of the two a path is. A backing that is mounted by us counts as the mount.
//! 2. [`opened`] opens what is to be read, without changing anything: for a mount, its daemon first makes the
//!    log's directory complete.
//! 3. [`partitions`] is for directories of partitions: what is asked is done to each.
//! 4. The others do one thing each. What changes a log of a backing does so with the backing's lease.

mod base64;
mod cat;
mod change;
mod export;
mod list;
mod opened;
mod options;
mod partitions;
mod place;
mod remove;
mod show;
mod verify;

use crate::cli::stream::StreamCommand;
use anyhow::Result;
use std::io::{self, Write};

/// Does what was `asked`.
pub fn run(asked: &StreamCommand) -> Result<()> {
    match asked {
        StreamCommand::Create(asked) => change::create(asked),
        StreamCommand::Set(asked) => change::set(asked),
        StreamCommand::Ls(asked) => list::run(asked),
        StreamCommand::Info(asked) => show::info(asked),
        StreamCommand::Groups(asked) => show::groups(asked),
        StreamCommand::Cat(asked) => cat::run(asked),
        StreamCommand::Export(asked) => export::run(asked),
        StreamCommand::Seek(asked) => change::seek(asked),
        StreamCommand::Trim(asked) => change::trim(asked),
        StreamCommand::Rm(asked) => remove::run(asked),
        StreamCommand::Verify(asked) => verify::run(asked),
    }
}

/// Prints `text`; a reader that has left is none of our business.
fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// `1 record`, `2 records`.
pub fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
