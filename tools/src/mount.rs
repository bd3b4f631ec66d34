//! What stands between a command line and a mount: the checks, and the settings they end in.

pub mod backing;
mod gpu;
mod overflow;
pub mod point;
pub mod privileges;

use crate::cli;
use crate::commands::Usage;
use crate::{duration, escape, model, size};
use aimss_fs::config::{FsyncPolicy, MountConfig, Prefetch};
use aimss_fs::daemon::residence::predictor_words;
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
    let revalidate =
        duration::parse(&asked.revalidate).map_err(|why| Usage(format!("--revalidate: {why}")))?;
    let slow = asked.slow_backing.as_deref().map(model::parse).transpose();
    let slow = slow.map_err(|why| Usage(format!("--slow-backing: {why}")))?;
    let prefetch = prefetch(&asked.prefetch)?;
    let gpu = gpu::config(asked)?;
    if asked.no_passthrough.iter().any(String::is_empty) {
        bail!(Usage(
            "--no-passthrough '' matches no file; give a glob such as '*.mdb', or '**' for all files".into()
        ));
    }
    let mountpoint = point::check(&asked.mountpoint)?;
    let backing = backing::check(&asked.backing, &mountpoint)?;
    privileges::check(&mountpoint, asked.allow_other)?;
    let overflow = overflow::config(asked, memory_bytes, (&backing, &mountpoint))?;
    Ok(MountConfig {
        backing,
        mountpoint,
        memory_bytes,
        overflow,
        gpu,
        fsync: match asked.fsync {
            cli::Fsync::Durable => FsyncPolicy::Durable,
            cli::Fsync::Memory => FsyncPolicy::Memory,
        },
        no_passthrough: asked.no_passthrough.clone(),
        streams: asked.streams.clone(),
        stream_flush,
        allow_other: asked.allow_other,
        take_over: asked.take_over,
        standby: !asked.no_standby,
        journal: true,
        drain_delay,
        revalidate,
        prefetch,
        slow,
    })
}

fn prefetch(text: &str) -> Result<Prefetch> {
    let by = |words: &mut dyn Iterator<Item = &str>| Prefetch::By(words.map(str::to_owned).collect());
    let all = || predictor_words().into_iter();
    match text.trim() {
        "auto" => Ok(Prefetch::Auto),
        "all" => Ok(by(&mut all())),
        "none" => Ok(by(&mut std::iter::empty())),
        list => {
            let words: Vec<&str> = list.split(',').map(str::trim).collect();
            if let Some(unknown) = words.iter().find(|word| !all().any(|known| known == **word)) {
                bail!(Usage(format!(
                    "--prefetch: there is no predictor '{}'; give auto, all, none, or some of {}",
                    escape::text(unknown),
                    all().collect::<Vec<_>>().join(",")
                )));
            }
            Ok(by(&mut words.into_iter()))
        }
    }
}
