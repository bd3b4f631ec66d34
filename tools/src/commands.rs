//! The commands, one file each.

pub mod bench;
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod fsck;
pub mod mount;
pub mod residence;
pub mod status;
pub mod stream;
pub mod umount;
pub mod upgrade;

use crate::cli::Command;
use aimss_fs::control::protocol::Action;
use anyhow::Result;
use std::io;

/// A command line that can't be meant: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Something is wrong, and stdout has said all of it: exit code 1.
#[derive(Debug)]
pub struct Told;

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it was said")
    }
}

impl std::error::Error for Told {}

/// Does what was asked.
pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Mount(asked) => mount::run(&asked),
        Command::Umount(asked) => umount::run(&asked),
        Command::Drain(asked) => drain::run(&asked),
        Command::Upgrade(asked) => upgrade::run(&asked),
        Command::Warm(asked) => residence::warm(&asked),
        Command::Pin(asked) => residence::run(Action::Pin, &asked.paths),
        Command::Unpin(asked) => residence::run(Action::Unpin, &asked.paths),
        Command::Evict(asked) => residence::run(Action::Evict, &asked.paths),
        Command::Status(asked) => status::run(&asked),
        Command::Stream(asked) => stream::run(&asked.command),
        Command::Fsck(asked) => fsck::run(&asked),
        Command::Doctor(asked) => doctor::run(&asked),
        Command::Demo(asked) => demo::run(&asked),
        Command::Bench(asked) => bench::run(&asked),
        Command::Keep(asked) => crate::background::keep(asked.log),
        Command::Serve(asked) => crate::background::serve(asked.log),
        Command::CgroupWorker(asked) => crate::bench::cgroup::worker(&asked),
    }
}

/// The system's words for an error, without the number.
pub fn why(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}
