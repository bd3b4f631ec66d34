//! The top of `.aimss`: what a crash leaves there, by its name, and the logs.

use super::{Check, Error, Fate, Mode, Progress, Repair, What};
use crate::stream::StreamId;
use std::ffi::OsStr;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A path is not longer.
const NOTE_BYTES_MAX: u64 = 4096;

impl Check<'_> {
    /// Checks what is in `home`, which is a backing's `.aimss`.
    pub(super) fn top(&mut self, home: &Path) -> Result<(), Error> {
        let entries = list(home)?;
        if let Some(memory) = memory_left(home)
            && self.mode == Mode::Repair
        {
            return Err(Error::InMemory { memory });
        }
        let mut streams = false;
        for entry in entries {
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().map_err(|source| Error::Io { path: path.clone(), source })?;
            let name = name.to_string_lossy();
            if name == "streams" && kind.is_dir() {
                streams = true;
            } else if !kind.is_file() {
                let ours = ["streams", "lease", "dataflow", "transitions"].contains(&&*name);
                if ours {
                    self.stays(&path, What::NoFile);
                } else {
                    self.note(&path, What::Unknown);
                }
            } else {
                self.leftover(&path, &name);
            }
        }
        if streams { self.logs(&home.join("streams")) } else { Ok(()) }
    }

    fn leftover(&mut self, path: &Path, name: &str) {
        let bytes = fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        let number = |prefix: &str| {
            let number = name.strip_prefix(prefix);
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        let what = match name {
            // The lease is the caller's to judge; guesses of what is opened next cost nothing if they are lost.
            "lease" | "transitions" => return,
            "dataflow" => match memory_left(path.parent().unwrap_or(path)) {
                Some(memory) => return self.stays(path, What::DataflowMemory(memory)),
                None => What::DataflowNote,
            },
            "marker.new" | "transitions.new" => What::Unfinished,
            _ if number("beside-") => What::Beside(bytes),
            _ if number("unnamed-") => What::Unnamed(bytes),
            _ => return self.note(path, What::Unknown),
        };
        self.repair(path, what, Repair::Remove, || fs::remove_file(path));
    }

    fn logs(&mut self, streams: &Path) -> Result<(), Error> {
        let mut logs = Vec::new();
        for entry in list(streams)? {
            let (path, name) = (entry.path(), entry.file_name());
            let id = name.to_str().and_then(|name| name.parse::<StreamId>().ok());
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match id {
                Some(id) if is_directory => {
                    let bytes = bytes_in(&path);
                    self.far.bytes_left += bytes;
                    logs.push((id, path, bytes));
                }
                Some(_) => self.stays(&path, What::NoFile),
                None if name.to_str().is_some_and(super::is_aside) => self.note(&path, What::SetAside),
                None => self.note(&path, What::Unknown),
            }
        }
        self.far.logs_left = logs.len() as u64;
        for (id, path, bytes) in logs {
            let Progress { bytes_done, bytes_left, .. } = self.far;
            self.report.logs += 1;
            if let Err(e) = self.log(id, &path) {
                self.failed(&path, &e);
            }
            self.far.logs_left -= 1;
            // Files that were not read count as well.
            self.far.bytes_done = bytes_done + bytes;
            self.far.bytes_left = bytes_left.saturating_sub(bytes);
            (self.progress)(self.far);
        }
        Ok(())
    }

    /// Enters why a log could not be checked to its end.
    pub(super) fn failed(&mut self, path: &Path, error: &crate::stream::Error) {
        let what = match error {
            crate::stream::Error::Newer { .. } => What::Later,
            other => What::Failed(other.to_string()),
        };
        self.enter(path, what, 0..0, Fate::Stays);
    }
}

/// A directory's entries in the order of their names.
fn list(directory: &Path) -> Result<Vec<DirEntry>, Error> {
    let io = |source| Error::Io { path: directory.to_owned(), source };
    let entries: io::Result<Vec<DirEntry>> = fs::read_dir(directory).map_err(io)?.collect();
    let mut entries = entries.map_err(io)?;
    entries.sort_by_key(DirEntry::file_name);
    Ok(entries)
}

/// Where a dataflow that died has left its memory, if that is still there.
fn memory_left(home: &Path) -> Option<PathBuf> {
    let note = home.join("dataflow");
    let metadata = fs::symlink_metadata(&note).ok()?;
    if !metadata.is_file() || metadata.len() > NOTE_BYTES_MAX {
        return None;
    }
    let memory = PathBuf::from(OsStr::from_bytes(&fs::read(note).ok()?));
    (memory.is_absolute() && fs::symlink_metadata(&memory).is_ok_and(|there| there.is_dir()))
        .then_some(memory)
}

fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|m| m.len())
        .sum()
}
