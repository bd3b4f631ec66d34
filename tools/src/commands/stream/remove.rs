//! `aimss stream rm`: a stream with its log, or a group.
//!
//! `PATH@GROUP` means the group, unless the whole of it is the name of a stream. Of partitions the first ones go last:
//! what an interruption leaves is still found as what it is.

use super::options;
use super::partitions::{self, Set};
use super::place::{self, Place};
use crate::{cli, control, escape};
use aimss_engine::stream::group::Group;
use aimss_fs::control::client::Known;
use aimss_fs::control::stream::StreamRequest;
use anyhow::{Context as _, Result, anyhow, bail};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Removes what was `asked`.
pub fn run(asked: &cli::stream::Rm) -> Result<()> {
    if let Some(group) = &asked.group {
        options::check_group(group)?;
        return group_of(&asked.path, group);
    }
    if let Some((path, group)) = split(&asked.path)
        && !is_stream(&asked.path)?
    {
        options::check_group(&group)?;
        return group_of(&path, &group);
    }
    let shown = escape::path(&asked.path);
    if let Some(set) = partitions::find(&asked.path)? {
        return all_of(&set);
    }
    match place::find(&asked.path)? {
        Place::Mount { known, path } => {
            if !knows(&known, &path)? {
                bail!(
                    "{shown} is no stream; `aimss stream ls` lists those that there are, `rm` removes files"
                );
            }
            let name = known.mountpoint.join(path);
            fs::remove_file(name)
                .map_err(|error| anyhow!("{shown} can't be removed ({})", crate::commands::why(&error)))
        }
        Place::Backing { top, path, directory } => {
            let _lease = place::lease(&top)?;
            remove_there(&top, &top.join(path), &directory)
        }
    }
}

fn remove_there(top: &Path, name: &Path, directory: &Path) -> Result<()> {
    let shown = escape::path(name);
    // The name first: a log without one is listed, and can be removed; a name without a log leads nowhere.
    remove_durably(name).with_context(|| format!("{shown} can't be removed"))?;
    fs::remove_dir_all(directory)
        .with_context(|| format!("{shown} is removed, but its log stays in {}", escape::path(directory)))?;
    // Only if it was the last.
    let _ = fs::remove_dir(top.join(place::STREAMS));
    Ok(())
}

/// All partitions, and their directory.
fn all_of(set: &Set) -> Result<()> {
    for path in set.paths().iter().rev() {
        match place::find(path)? {
            // By its name, as one who may remove it.
            Place::Mount { .. } => fs::remove_file(path).map_err(|error| {
                anyhow!("{} can't be removed ({})", escape::path(path), crate::commands::why(&error))
            })?,
            Place::Backing { top, path, directory } => {
                let _lease = place::lease(&top)?;
                remove_there(&top, &top.join(path), &directory)?;
            }
        }
    }
    let shown = escape::path(&set.path);
    fs::remove_dir(&set.path).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty => {
            anyhow!("the partitions in {shown} are removed; the directory stays, as it has other files")
        }
        _ => anyhow!("{shown} can't be removed ({})", crate::commands::why(&error)),
    })?;
    if set.mounted {
        return Ok(());
    }
    let parent = set.path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok(File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?)
}

/// A group over partitions, from those that have it.
fn shared_group(set: &Set, name: &str) -> Result<()> {
    let shown = escape::path(&set.path);
    let Some(group) = set.groups().into_iter().find(|group| group.name == name) else {
        bail!("{shown} has no group {name}; `aimss stream groups {shown}` lists those that it has");
    };
    if group.partitions.iter().any(|partition| partition.group.members > 0) {
        bail!("group {name} of {shown} has members; end them first");
    }
    for partition in &group.partitions {
        group_of(&set.path.join(partition.name()), name)?;
    }
    Ok(())
}

fn group_of(path: &Path, group: &str) -> Result<()> {
    let shown = escape::path(path);
    if let Some(set) = partitions::find(path)? {
        return shared_group(&set, group);
    }
    match place::find(path)? {
        Place::Mount { known, path } => {
            control::stream(&known, StreamRequest::RemoveGroup { path, group: group.to_owned() })?;
            Ok(())
        }
        Place::Backing { top, directory, .. } => {
            let _lease = place::lease(&top)?;
            match remove_durably(&Group::path(&directory, group)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    bail!(
                        "{shown} has no group {group}; `aimss stream groups {shown}` lists those that it has"
                    )
                }
                other => other.with_context(|| format!("group {group} of {shown} can't be removed")),
            }
        }
    }
}

fn remove_durably(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

/// The two sides of the last `@` in the path's last component.
fn split(path: &Path) -> Option<(PathBuf, String)> {
    let name = path.file_name()?.as_bytes();
    let at = name.iter().rposition(|b| *b == b'@').filter(|at| *at > 0)?;
    let group = String::from_utf8_lossy(&name[at + 1..]).into_owned();
    Some((path.with_file_name(OsStr::from_bytes(&name[..at])), group))
}

/// Whether the whole path is a stream. Other names with `@` are shown by a mount too: they stand for groups.
fn is_stream(path: &Path) -> Result<bool> {
    if partitions::find(path)?.is_some() {
        return Ok(true);
    }
    let resolved = place::resolve_name(path)?;
    match place::of_mount(&resolved)? {
        Some((known, path)) => knows(&known, &path),
        None => Ok(place::marker(&resolved).is_ok()),
    }
}

fn knows(known: &Known, path: &Path) -> Result<bool> {
    Ok(control::streams(known)?.iter().any(|info| info.path == path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_at_sign_of_the_name_divides() {
        let divided = |path: &str| split(Path::new(path));
        assert_eq!(divided("/m@n/s@a@g"), Some((PathBuf::from("/m@n/s@a"), "g".into())));
        assert_eq!(divided("/m@n/s"), None);
        assert_eq!(divided("@g"), None);
    }
}
