//! Whether a swap file can be where it is asked for.

use crate::cli;
use crate::commands::Usage;
use crate::{control, escape, size};
use aimss_fs::config::OverflowConfig;
use anyhow::{Result, bail};
use std::path::Path;

/// Without a size, so many times the memory.
const TIMES: u64 = 2;

/// The settings, if there is to be one: absolute, and apart from what is shown and where.
pub fn config(
    asked: &cli::Mount,
    memory_bytes: u64,
    (backing, mountpoint): (&Path, &Path),
) -> Result<Option<OverflowConfig>> {
    let Some(path) = &asked.overflow else { return Ok(None) };
    let bytes = match &asked.overflow_size {
        Some(text) => text
            .parse::<size::Size>()
            .map_err(|why| Usage(format!("--overflow-size: {why}")))?
            .of(size::machine_bytes()),
        None => memory_bytes * TIMES,
    };
    let shown = escape::path(path);
    if !rustix::process::geteuid().is_root() {
        bail!("--overflow {shown}: only root may swap; mount as root, or without it");
    }
    let (Some(name), Some(parent)) = (path.file_name(), path.parent()) else {
        bail!("--overflow {shown} is a directory; give the name of a file to be made");
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    if !parent.is_dir() {
        bail!("--overflow {shown}: there is no directory {}; make it first", escape::path(parent));
    }
    let path = control::resolve(parent)?.join(name);
    for (of, what) in [(backing, "backing"), (mountpoint, "mount point")] {
        if path.starts_with(of) {
            bail!("--overflow {shown} lies in the {what} {}; put it elsewhere", escape::path(of));
        }
    }
    Ok(Some(OverflowConfig { path, bytes }))
}
