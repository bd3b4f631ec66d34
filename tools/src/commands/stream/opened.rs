//! A stream to look at or to read from, wherever it is; nothing is changed by it.

use super::place::{self, Place};
use crate::{control, escape};
use aimss_engine::stream::group::Group;
use aimss_engine::stream::log::Listing;
use aimss_engine::stream::{self, Error, Log, Micros, Offset, Settings};
use aimss_fs::control::stream::{GroupInfo, SeekTo, StreamInfo, StreamRequest};
use anyhow::{Result, anyhow, bail};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes read at a time; a longer record gets what it needs.
const BUFFER_BYTES: usize = 1 << 20;

/// A stream that is open for reading.
pub struct Opened {
    /// As the user named it.
    pub path: PathBuf,
    /// In numbers.
    pub info: StreamInfo,
    /// Its log as of now.
    pub log: Log,
    settings: Settings,
    /// A daemon goes on writing to it.
    pub live: bool,
}

/// What there was beside the records that were served.
#[derive(Debug, Default)]
pub struct Missed {
    /// Damaged records.
    pub lost: u64,
    /// Records that retention took while we read.
    pub trimmed: u64,
}

/// The stream at `path` in numbers.
pub fn look(path: &Path) -> Result<StreamInfo> {
    match place::find(path)? {
        Place::Mount { known, path } => control::stream(&known, StreamRequest::Flush { path }),
        Place::Backing { .. } => Ok(open(path)?.info),
    }
}

/// Opens the stream at `path`.
pub fn open(path: &Path) -> Result<Opened> {
    match place::find(path)? {
        Place::Mount { known, path: relative } => {
            let info = control::stream(&known, StreamRequest::Flush { path: relative })?;
            let (settings, log) = open_log(path, &info.directory)?;
            Ok(Opened { path: path.to_owned(), info, log, settings, live: true })
        }
        Place::Backing { top, path: relative, directory } => {
            place::note_owner(&top);
            let (settings, log) = open_log(path, &directory)?;
            let info =
                info(&relative, &settings, &log).map_err(|error| unreadable(path, &directory, &error))?;
            Ok(Opened { path: path.to_owned(), info, log, settings, live: false })
        }
    }
}

/// The log in `directory`, with its settings, for reading.
fn open_log(path: &Path, directory: &Path) -> Result<(Settings, Log)> {
    let settings = Settings::read(directory).map_err(|error| unreadable(path, directory, &error))?;
    let log =
        Log::open_read_only(directory, settings.log).map_err(|error| unreadable(path, directory, &error))?;
    Ok((settings, log))
}

/// A log's numbers and its groups, without a daemon.
pub fn info(path: &Path, settings: &Settings, log: &Log) -> stream::Result<StreamInfo> {
    let mut info = StreamInfo::of(path, settings, log)?;
    for name in Listing::of(log.directory())?.groups() {
        let group = Group::read(log.directory(), name)?;
        info.groups.push(GroupInfo::of(&group, info.first_offset, info.end_offset));
    }
    Ok(info)
}

/// A sentence for a log that can't be opened.
pub fn unreadable(path: &Path, directory: &Path, error: &Error) -> anyhow::Error {
    let (shown, directory) = (escape::path(path), escape::path(directory));
    match error {
        Error::Io(e) if e.kind() == io::ErrorKind::NotFound => anyhow!(
            "the log of {shown} is not whole: {directory} has no settings; bring the directory back from a copy of the \
             backing"
        ),
        Error::Io(e) => {
            anyhow!("the log of {shown} in {directory} can't be read: {}", crate::commands::why(e))
        }
        Error::Newer { .. } => {
            anyhow!("the log of {shown} was written by a later aimss: {error}; use that one")
        }
        Error::Settings(why) => {
            anyhow!("{shown} can't be read ({directory}): {why}; use the version that made it")
        }
        other => anyhow!("the log of {shown} in {directory} can't be read: {other}"),
    }
}

/// The record that `to` means in `log`.
pub fn offset(log: &Log, to: SeekTo) -> Result<Offset> {
    let (first, end) = (log.first().0, log.end().0);
    match to {
        SeekTo::Earliest => Ok(first),
        SeekTo::Latest => Ok(end),
        SeekTo::Time(micros) => Ok(log.offset_at_time(Micros(micros))?),
        SeekTo::Offset(offset) if offset < first.0 => bail!(
            "record {offset} is not kept any more: the first that is has offset {}; give that, or earliest",
            first.0
        ),
        SeekTo::Offset(offset) if offset > end.0 => {
            bail!(
                "there is no record {offset} yet: the stream ends before offset {}; give that, or latest",
                end.0
            )
        }
        SeekTo::Offset(offset) => Ok(Offset(offset)),
    }
}

impl Opened {
    /// Opens the log anew: what the daemon sealed or trimmed since is found again.
    pub fn refresh(&mut self) -> Result<()> {
        let directory = &self.info.directory;
        self.log = Log::open_read_only(directory, self.settings.log)
            .map_err(|error| unreadable(&self.path, directory, &error))?;
        Ok(())
    }

    /// Gives the records from `from` on, before `end`, to `each`: offset, time and bytes.
    pub fn read(
        &mut self,
        from: Offset,
        end: Offset,
        mut each: impl FnMut(Offset, Micros, &[u8]) -> io::Result<()>,
    ) -> Result<Missed> {
        let mut missed = Missed::default();
        let mut buffer = vec![0; BUFFER_BYTES];
        let (mut next, mut records) = (from, Vec::new());
        // The place where the log was opened anew for damage, so that it is done once a place.
        let mut refreshed = None;
        while next < end {
            records.clear();
            let note =
                |record: stream::Record<'_>| records.push((record.offset, record.time, record.bytes.len()));
            let batch = match self.log.read_with(next, &mut buffer, note) {
                Ok(batch) => batch,
                Err(Error::BufferTooSmall { needed_bytes }) => {
                    buffer.resize(needed_bytes, 0);
                    continue;
                }
                Err(Error::Trimmed { first, .. }) => {
                    missed.trimmed += first.min(end).0 - next.0;
                    next = first;
                    continue;
                }
                Err(error) => return Err(unreadable(&self.path, &self.info.directory, &error)),
            };
            if batch.lost > 0 && self.live && refreshed != Some(next) {
                refreshed = Some(next);
                self.refresh()?;
                continue;
            }
            missed.lost += batch.first.min(end).0 - next.0;
            let mut rest = &buffer[..batch.bytes];
            for (offset, time, length) in &records {
                let (bytes, behind) = rest.split_at(*length);
                rest = behind;
                if *offset < end {
                    each(*offset, *time, bytes)?;
                }
            }
            if batch.next == next {
                break;
            }
            next = batch.next;
        }
        Ok(missed)
    }
}

impl Missed {
    /// Fails if records are damaged; `what` they are not in.
    pub fn check(&self, path: &Path, what: &str) -> Result<()> {
        let shown = escape::path(path);
        if self.trimmed > 0 {
            let records = super::counted(self.trimmed, "record");
            eprintln!("aimss: note: retention took {records} of {shown} meanwhile");
        }
        match self.lost {
            0 => Ok(()),
            lost => bail!(
                "{} of {shown} are damaged and not in {what}; `aimss stream verify {shown}` says where",
                super::counted(lost, "record")
            ),
        }
    }
}
