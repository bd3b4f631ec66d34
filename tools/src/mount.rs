//! What stands between a command line and a mount: the checks, and the settings they end in.

pub mod backing;
pub mod point;
pub mod privileges;

use crate::cli;
use crate::commands::Usage;
use crate::{duration, size};
use aimss_fs::config::{FsyncPolicy, MountConfig};
use anyhow::{Result, bail};

/// Checks everything that can be checked without changing anything; the settings of the mount.
pub fn config(asked: &cli::Mount) -> Result<MountConfig> {
    let memory = asked.memory.as_deref().map(str::parse::<size::Size>).transpose();
    let memory = memory.map_err(|why| Usage(format!("--memory: {why}")))?;
    let memory_bytes = size::memory_budget(memory, size::machine_bytes()).map_err(Usage)?;
    let drain_delay =
        duration::parse(&asked.drain_delay).map_err(|why| Usage(format!("--drain-delay: {why}")))?;
    let stream_flush =
        duration::parse(&asked.stream_flush).map_err(|why| Usage(format!("--stream-flush: {why}")))?;
    if asked.no_passthrough.iter().any(String::is_empty) {
        bail!(Usage(
            "--no-passthrough '' matches no file; give a glob such as '*.mdb', or '**' for all files".into()
        ));
    }
    let mountpoint = point::check(&asked.mountpoint)?;
    let backing = backing::check(&asked.backing, &mountpoint)?;
    privileges::check(&mountpoint, asked.allow_other)?;
    Ok(MountConfig {
        backing,
        mountpoint,
        memory_bytes,
        fsync: match asked.fsync {
            cli::Fsync::Durable => FsyncPolicy::Durable,
            cli::Fsync::Memory => FsyncPolicy::Memory,
        },
        no_passthrough: asked.no_passthrough.clone(),
        streams: asked.streams.clone(),
        stream_flush,
        allow_other: asked.allow_other,
        take_over: asked.take_over,
        drain_delay,
    })
}
