//! `aimss mount`: checks, then starts the daemon, and returns when the mount can be used.

use crate::{background, cli, escape, mount};
use anyhow::Result;

/// Mounts as `asked`.
pub fn run(asked: &cli::Mount) -> Result<()> {
    let config = mount::config(asked)?;
    if !asked.foreground {
        // The daemon stays; this process needn't.
        background::start(&config, asked.log.as_deref())?;
        return Ok(());
    }
    if let Some(log) = &asked.log {
        rustix::stdio::dup2_stderr(background::open_log(log)?)?;
    }
    let ready = format!("aimss: {} is ready; Ctrl-C drains and unmounts", escape::path(&config.mountpoint));
    background::keep_here(&config, || eprintln!("{ready}"))
}
