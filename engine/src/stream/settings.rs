//! What a stream is told when it is made, and the small file that stands for it in its directory.
//!
//! 1. [`Settings`] are kept as text beside the log, one `key = value` a line, so that they can be read with
//!    any tool and keys may be added.
//! 2. The [`Marker`] is all that the stream's name on the backing holds: 512 bytes of text that say to a
//!    person what this is, and to us which log belongs to it. Its id is 128 random bits: who can't read the
//!    marker can't make another that leads to the same log.

use super::{Compression, Error, LogConfig, Partition, Position, Result, Retention, plain};
use crate::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Name of the settings' file in a log's directory.
pub(crate) const FILE: &str = "settings";
/// First line of that file: what it is, and its version.
const HEAD: &str = "aimss-stream-settings 1";
/// First word of a marker.
const MARKER_HEAD: &str = "aimss-stream 1 ";
/// Bytes of a marker: a size that tells which files to look into.
pub const MARKER_BYTES: usize = 512;

/// Names one stream for ever: 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u128);

impl StreamId {
    /// A new one.
    pub fn random() -> io::Result<StreamId> {
        let mut bytes = [0; 16];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(StreamId(u128::from_le_bytes(bytes)))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for StreamId {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<StreamId, ()> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if digits { u128::from_str_radix(text, 16).map(StreamId).map_err(drop) } else { Err(()) }
    }
}

/// What the name of a stream holds on the backing; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marker(pub StreamId);

impl Marker {
    /// The bytes of the file.
    pub fn encode(self) -> Vec<u8> {
        let mut text = format!(
            "{MARKER_HEAD}{}\n\nThis file stands for an aimss stream: a log of records, which is kept in\n\
             .aimss/streams/{} at the top of this tree.\nWithout a mount, read it with: aimss stream cat FILE\n\
             To plain bytes, for good:   aimss stream export FILE TARGET\n",
            self.0, self.0
        )
        .into_bytes();
        text.resize(MARKER_BYTES - 1, b' ');
        text.push(b'\n');
        text
    }

    /// The marker in a file's bytes, if they are one.
    pub fn decode(bytes: &[u8]) -> Option<Marker> {
        if bytes.len() != MARKER_BYTES {
            return None;
        }
        let line = bytes.split(|b| *b == b'\n').next()?;
        let id = std::str::from_utf8(line).ok()?.strip_prefix(MARKER_HEAD)?;
        id.parse().ok().map(Marker)
    }
}

/// The streams that have a marker somewhere below `backing`, outside `.aimss`, and a path of each relative to it.
pub fn markers_below(backing: &Path) -> io::Result<HashMap<StreamId, PathBuf>> {
    let mut found = HashMap::new();
    let mut directories = vec![backing.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            let (kind, path) = (entry.file_type()?, entry.path());
            if kind.is_dir() && path != backing.join(".aimss") {
                directories.push(path);
            } else if kind.is_file() && entry.metadata()?.len() == MARKER_BYTES as u64 {
                let mut bytes = Vec::new();
                super::segment::open_to_read(&path)?.read_to_end(&mut bytes)?;
                if let (Some(marker), Ok(relative)) = (Marker::decode(&bytes), path.strip_prefix(backing)) {
                    found.insert(marker.0, relative.to_owned());
                }
            }
        }
    }
    Ok(found)
}

/// What a stream is made with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Of its log.
    pub log: LogConfig,
    /// What is kept.
    pub retention: Retention,
    /// How long a member may hold a batch before it is given to another; `None`: as long as it is open.
    pub ack_timeout: Option<Duration>,
    /// Where the stream is, as far as is known, relative to the backing: a marker elsewhere is a copy while this one
    /// is there.
    pub path: String,
    /// Who owns the stream; a marker of another owner is not the stream's.
    pub owner: Option<u32>,
    /// Which part of a partitioned stream it is.
    pub partition: Option<Partition>,
    /// The time of change that it was told, and its last byte's place then: it counts until something is appended.
    pub mtime: Option<(Position, Timestamp)>,
    /// Its last name was removed: the log goes, unless a crash brings the name back.
    pub doomed: bool,
}

impl Settings {
    /// The value of each setting, as users write them.
    pub fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = vec![
            ("framing", self.log.framing.to_string()),
            ("segment", self.log.segment_bytes.to_string()),
            ("compress", compression_word(self.log.compression).to_string()),
        ];
        if let Some(bytes) = self.retention.bytes {
            pairs.push(("retention.bytes", bytes.to_string()));
        }
        if let Some(age) = self.retention.age {
            pairs.push(("retention.age", age.as_secs().to_string()));
        }
        if self.retention.acknowledged {
            pairs.push(("retention.acked", "true".into()));
        }
        if let Some(timeout) = self.ack_timeout {
            pairs.push(("ack_timeout_ms", timeout.as_millis().to_string()));
        }
        pairs
    }

    /// Changes the setting `key` to `value`, both as [`Settings::pairs`] has them; an empty value takes a
    /// limit away. Keys that are not known are passed over.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let number = || value.parse::<u64>().map_err(|_| Error::Settings("a stream's setting is no number"));
        let limit = || if value.is_empty() { Ok(None) } else { number().map(Some) };
        match key {
            "framing" => self.log.framing = value.parse()?,
            "segment" => self.log.segment_bytes = number()?,
            "compress" => self.log.compression = compression(value)?,
            "retention.bytes" => self.retention.bytes = limit()?,
            "retention.age" => self.retention.age = limit()?.map(Duration::from_secs),
            "retention.acked" => self.retention.acknowledged = value == "true",
            "ack_timeout_ms" => self.ack_timeout = limit()?.map(Duration::from_millis),
            _ => {}
        }
        Ok(())
    }

    /// Writes them into a log's directory, durably.
    pub fn write(&self, directory: &Path) -> Result<()> {
        let lines: Vec<String> =
            self.pairs().iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
        let owner = self.owner.map_or(String::new(), |owner| format!("owner = {owner}\n"));
        let partition = self.partition.map_or(String::new(), |part| format!("partition = {part}\n"));
        let mtime = self.mtime.map_or(String::new(), |(end, time)| {
            format!("mtime = {} {}.{:09}\n", end.0, time.seconds, time.nanoseconds)
        });
        let doomed = if self.doomed { "doomed = true\n" } else { "" };
        let path = self.path.replace('\n', " ");
        let text = format!("{HEAD}\n{}{owner}{partition}{mtime}{doomed}path = {path}\n", lines.concat());
        let beside = directory.join(format!("{FILE}.new"));
        let mut file = plain::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, directory.join(FILE))?;
        super::segment::sync_directory(directory)?;
        Ok(())
    }

    /// Whether a log's directory has settings: one without is being made, or removed. Where that can't be told, it is an
    /// error.
    pub fn is_there(directory: &Path) -> io::Result<bool> {
        match fs::symlink_metadata(directory.join(FILE)) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes them: what is left of the directory is no log any more.
    pub fn remove(directory: &Path) -> io::Result<()> {
        fs::remove_file(directory.join(FILE))
    }

    /// Reads them. Keys that are not known are passed over; a file of a later version is refused.
    pub fn read(directory: &Path) -> Result<Settings> {
        let text = io::read_to_string(super::segment::open_to_read(&directory.join(FILE))?)?;
        let mut lines = text.lines();
        if lines.next() != Some(HEAD) {
            return Err(Error::Settings("the stream's settings were written by another version of aimss"));
        }
        let mut settings = Settings::default();
        for line in lines {
            let Some((key, value)) = line.split_once(" = ") else { continue };
            settings.take(key, value)?;
        }
        Ok(settings)
    }

    fn take(&mut self, key: &str, value: &str) -> Result<()> {
        match key {
            "path" => self.path = value.to_string(),
            "owner" => self.owner = value.parse().ok(),
            "partition" => self.partition = value.parse().ok(),
            "mtime" => self.mtime = mtime(value),
            "doomed" => self.doomed = value == "true",
            _ => self.set(key, value)?,
        }
        Ok(())
    }

    /// What can be believed of settings that can't be read as a whole, and whether the framing is said there. What
    /// would have something removed is not believed.
    pub fn salvage(text: &str) -> (Settings, bool) {
        let (mut settings, mut framed) = (Settings::default(), false);
        for (key, value) in text.lines().filter_map(|line| line.split_once(" = ")) {
            if key == "doomed" || key.starts_with("retention") {
                continue;
            }
            let before = settings.clone();
            if settings.take(key, value).and_then(|()| settings.log.check()).is_err() {
                settings = before;
            } else {
                framed |= key == "framing";
            }
        }
        (settings, framed)
    }

    /// Whether the settings' text was written by a later version of aimss.
    pub fn is_later(text: &str) -> bool {
        let head = text.lines().next().and_then(|line| line.strip_prefix(HEAD.trim_end_matches('1')));
        head.and_then(|version| version.parse::<u32>().ok()).is_some_and(|version| version > 1)
    }
}

/// `END SECONDS.NANOSECONDS`
fn mtime(text: &str) -> Option<(Position, Timestamp)> {
    let (end, time) = text.split_once(' ')?;
    let (seconds, nanoseconds) = time.split_once('.')?;
    let time = Timestamp { seconds: seconds.parse().ok()?, nanoseconds: nanoseconds.parse().ok()? };
    Some((Position(end.parse().ok()?), time))
}

/// How users write a compression.
pub fn compression_word(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "none",
        Compression::Lz4 => "lz4",
    }
}

/// The compression that a word means.
pub fn compression(word: &str) -> Result<Compression> {
    match word {
        "lz4" => Ok(Compression::Lz4),
        "none" => Ok(Compression::None),
        _ => Err(Error::Settings("compression is `lz4` or `none`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        let mut settings = Settings::default();
        settings.write(dir.path()).expect("written");
        assert_eq!(Settings::read(dir.path()).expect("read"), settings);
        settings.log.framing = crate::stream::Framing::Fixed(7);
        settings.log.compression = Compression::None;
        settings.retention =
            Retention { bytes: Some(5), age: Some(Duration::from_secs(9)), acknowledged: true };
        settings.ack_timeout = Some(Duration::from_millis(1500));
        settings.path = "a/b.stream".into();
        settings.owner = Some(1000);
        settings.partition = Some(Partition { set: StreamId(7), number: 1, count: 3 });
        settings.mtime = Some((Position(12), Timestamp { seconds: -3, nanoseconds: 45 }));
        settings.doomed = true;
        settings.write(dir.path()).expect("written");
        assert_eq!(Settings::read(dir.path()).expect("read"), settings);
    }

    #[test]
    fn settings_of_another_version_are_refused() {
        let dir = tempfile::tempdir().expect("a scratch directory");
        fs::write(dir.path().join(FILE), "aimss-stream-settings 2\nframing = line\n").expect("written");
        assert!(matches!(Settings::read(dir.path()), Err(Error::Settings(_))));
    }

    #[test]
    fn only_a_whole_marker_is_one() {
        let marker = Marker(StreamId(0x1234));
        let bytes = marker.encode();
        assert_eq!(bytes.len(), MARKER_BYTES);
        assert_eq!(Marker::decode(&bytes), Some(marker));
        assert_eq!(Marker::decode(&bytes[..511]), None);
        assert_eq!(Marker::decode(&[b' '; MARKER_BYTES]), None);
    }
}
