//! A log's settings, without which nothing opens it.
//!
//! What they say that matters for reading is the framing, and sealed segments say it too. The stream's path and owner
//! come from the file that stands for it. Limits of retention are not guessed: a log without them loses nothing.

use super::{Check, Repair, What, keep_aside};
use crate::stream::segment::{Segment, open_to_read};
use crate::stream::settings::{FILE, Settings, markers_below};
use crate::stream::{Framing, LogConfig, Result, StreamId};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Longer texts are no settings: a path and a dozen short lines.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// The files that stand for streams, if the tree could be looked through.
pub(super) type Markers = Option<HashMap<StreamId, PathBuf>>;

/// The tree can't be looked through.
struct Unknown;

impl Check<'_> {
    /// What to open the log with; none if that can't be told, or must not be done.
    pub(super) fn settings(
        &mut self,
        id: StreamId,
        directory: &Path,
        names: &[String],
    ) -> Result<Option<LogConfig>> {
        let path = directory.join(FILE);
        let framing = framing_of_segments(directory, names);
        let mut text = Vec::new();
        match open_to_read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.without_settings(id, directory, framing);
            }
            file => drop(file?.take(TEXT_BYTES_MAX).read_to_end(&mut text)?),
        }
        let text = String::from_utf8_lossy(&text);
        if Settings::is_later(&text) {
            self.stays(&path, What::Later);
            return Ok(None);
        }
        let (what, mut settings) = match Settings::read(directory) {
            Ok(settings) if settings.log.check().is_ok() => match framing {
                Some(framing) if framing != settings.log.framing => (What::Framing, settings),
                _ => return Ok(Some(settings.log)),
            },
            _ => {
                let (settings, framed) = Settings::salvage(&text);
                if framing.is_none() && !framed && has_bytes(names) {
                    self.stays(&path, What::Settings);
                    return Ok(None);
                }
                let settings = if settings.path.is_empty() { self.named(id, settings) } else { settings };
                (What::Settings, settings)
            }
        };
        settings.log.framing = framing.unwrap_or(settings.log.framing);
        self.stream = Some(settings.path.clone().into());
        let repaired = self.repair(&path, what, Repair::Settings, || {
            keep_aside(&path)?;
            settings.write(directory).map_err(io::Error::other)
        });
        Ok((repaired || !self.repairs()).then_some(settings.log))
    }

    fn without_settings(
        &mut self,
        id: StreamId,
        directory: &Path,
        framing: Option<Framing>,
    ) -> Result<Option<LogConfig>> {
        let marker = self.marker(id);
        let Ok(marker) = marker else {
            self.stays(directory, What::NoSettings);
            return Ok(None);
        };
        match (marker, framing) {
            (None, _) if is_unfinished(directory)? => {
                self.repair(directory, What::EmptyLog, Repair::Remove, || fs::remove_dir(directory));
                Ok(None)
            }
            (None, _) => {
                self.set_aside(directory, What::Nameless);
                Ok(None)
            }
            (Some(_), None) => {
                self.stays(directory, What::NoSettings);
                Ok(None)
            }
            (Some(_), Some(framing)) => {
                let mut settings = self.named(id, Settings::default());
                self.stream = Some(settings.path.clone().into());
                settings.log.framing = framing;
                let repaired = self.repair(directory, What::NoSettings, Repair::Settings, || {
                    settings.write(directory).map_err(io::Error::other)
                });
                Ok((repaired || !self.repairs()).then_some(settings.log))
            }
        }
    }

    /// The settings with path and owner of the file that stands for the stream, if there is one.
    fn named(&mut self, id: StreamId, settings: Settings) -> Settings {
        let Ok(Some(marker)) = self.marker(id) else { return settings };
        let owner = fs::symlink_metadata(self.backing.join(&marker)).ok().map(|metadata| metadata.uid());
        Settings { path: marker.to_string_lossy().into(), owner, ..settings }
    }

    /// The file that stands for a stream, if there is one; fails if the tree can't be looked through.
    fn marker(&mut self, id: StreamId) -> std::result::Result<Option<PathBuf>, Unknown> {
        let backing = self.backing;
        let markers = self.markers.get_or_insert_with(|| markers_below(backing).ok());
        markers.as_ref().map(|markers| markers.get(&id).cloned()).ok_or(Unknown)
    }
}

/// As the first segment says that can be read.
fn framing_of_segments(directory: &Path, names: &[String]) -> Option<Framing> {
    let mut sealed = names.iter().filter(|name| name.ends_with(".sealed"));
    sealed.find_map(|name| Segment::open(&directory.join(name)).ok().map(|segment| segment.header().framing))
}

/// Whether nothing in a log's directory was finished.
fn is_unfinished(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if !entry?.file_name().to_string_lossy().ends_with(".new") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a log has files whose bytes the framing divides.
fn has_bytes(names: &[String]) -> bool {
    names.iter().any(|name| name.ends_with(".active") || name.ends_with(".sealed"))
}
