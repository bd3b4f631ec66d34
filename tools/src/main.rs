//! `aimss`: memory speed over a plain directory, for programs that change nothing.
//!
//! This crate is the command line and nothing else: it checks what it is asked before anything changes,
//! starts the daemon, talks to it over its control socket, and says what happened in whole sentences. What a
//! mount *is* lives in `aimss-fs`.
//!
//! Exit codes: 0 success; 1 it failed, one sentence on stderr says why and what to do; 2 the command line
//! itself was wrong (a size of zero, an unknown option), and nothing was tried.

mod background;
mod bench;
mod cli;
mod commands;
mod control;
mod doctor;
mod duration;
mod escape;
mod export;
mod gpu;
mod holders;
mod interrupt;
mod logger;
mod model;
mod mount;
mod mountinfo;
mod processes;
mod progress;
mod scratch;
mod size;
mod timestamp;
mod unmount;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = cli::Cli::parse().command;
    match commands::run(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<commands::Told>() => ExitCode::from(1),
        Err(error) => {
            // Names in it may come from anywhere.
            eprintln!("aimss: {}", escape::text(&format!("{error:#}")));
            ExitCode::from(if error.is::<commands::Usage>() { 2 } else { 1 })
        }
    }
}
