//! `aimss warm`, `pin`, `unpin` and `evict`: files into memory, and out of it.

use crate::progress::Display;
use crate::{cli, control, escape, size};
use aimss_engine::engine::Residence;
use aimss_fs::control::protocol::Action;
use anyhow::{Context as _, Result, bail};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Fetches what was `asked` for.
pub fn warm(asked: &cli::Warm) -> Result<()> {
    let paths = if asked.paths.is_empty() { listed(asked.null)? } else { asked.paths.clone() };
    run(Action::Warm, &paths)
}

/// Does `action` to `paths`.
pub fn run(action: Action, paths: &[PathBuf]) -> Result<()> {
    let mut all = Residence::default();
    for (known, paths) in control::by_mount(paths)? {
        // The mount point itself is the root, whose path is empty.
        let mut client = control::connect(&known)?;
        let moved = control::move_files(&mut client, action, paths, &mut Display::of(verb(action)))?;
        all.files += moved.files;
        all.bytes += moved.bytes;
        all.there += moved.there;
        all.there_bytes += moved.there_bytes;
    }
    let left = all.files - all.there;
    let count = |files: u64, bytes: u64| {
        format!("{files} {} ({})", if files == 1 { "file" } else { "files" }, size::human(bytes))
    };
    let (sum, rest) = (count(all.files, all.bytes), count(left, all.bytes - all.there_bytes));
    let (is, stays) = if all.files == 1 { ("is", "stays") } else { ("are", "stay") };
    match action {
        Action::Warm | Action::Pin if left > 0 => bail!(
            "not in memory: {rest} of {sum}; there is no room, or they are in use on the backing; give the mount more \
             --memory, or `aimss unpin` others"
        ),
        Action::Evict if left > 0 => bail!(
            "still in memory: {rest} of {sum}; open, mapped or pinned; close them or `aimss unpin` them, and try again"
        ),
        Action::Warm => println!("{sum} {is} in memory"),
        Action::Pin => println!("{sum} {stays} in memory"),
        Action::Unpin => println!("{sum} may leave memory"),
        Action::Evict => println!("{sum} {is} on the backing alone"),
    }
    Ok(())
}

fn verb(action: Action) -> &'static str {
    match action {
        Action::Warm | Action::Pin => "fetched",
        Action::Unpin | Action::Evict => "written",
    }
}

/// Paths from standard input, a line each, or each ended by NUL.
fn listed(null: bool) -> Result<Vec<PathBuf>> {
    let mut text = Vec::new();
    std::io::stdin().read_to_end(&mut text).context("the list of paths can't be read from standard input")?;
    let end = if null { 0 } else { b'\n' };
    let paths: Vec<PathBuf> = text
        .split(|&byte| byte == end)
        .filter(|path| !path.is_empty())
        .map(|path| PathBuf::from(OsString::from_vec(path.to_vec())))
        .collect();
    if paths.is_empty() {
        bail!(
            "no paths were given; name them, or write them to standard input, as `find DIR -type f | aimss warm` does"
        );
    }
    for path in &paths {
        if let Err(error) = std::fs::symlink_metadata(path) {
            bail!(
                "{} can't be reached ({}); check the list",
                escape::path(path),
                crate::commands::why(&error)
            );
        }
    }
    Ok(paths)
}
