//! `aimss completions`: what clap generates for a shell.

use crate::cli;
use anyhow::Result;
use clap::CommandFactory;
use std::io::Write;

/// Prints it.
pub fn run(asked: &cli::Completions) -> Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(asked.shell, &mut cli::Cli::command(), "aimss", &mut text);
    match std::io::stdout().write_all(&text) {
        // Whoever reads it has seen enough.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
