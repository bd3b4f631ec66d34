//! `aimss manual`: a page a command, from what `--help` says.

use crate::commands::why;
use crate::{cli, escape};
use anyhow::{Result, anyhow};
use clap::CommandFactory;
use std::fs;

/// Writes them.
pub fn run(asked: &cli::Manual) -> Result<()> {
    let directory = &asked.directory;
    let shown = escape::path(directory);
    fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(cli::Cli::command(), directory))
        .map_err(|e| anyhow!("{shown} can't be written to ({}); name another directory", why(&e)))?;
    println!("the manual is in {shown}; `man {shown}/aimss.1` shows its first page");
    Ok(())
}
