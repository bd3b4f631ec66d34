//! Dataflows: streams by name, written, read and shuffled by one program, without a mount.
//!
//! The model is the streaming execution model of the paper behind aimss (Marcu, Danoy, Bouvry: Toward a
//! Push-based Stream Programming Model with AIMSS, 2024): *create* a stream, *write to* it, *read from* it,
//! *shuffle* streams into others, *destroy* it.
//!
//! 1. [`Dataflow::open`] takes a directory, where logs lie as a mount of that directory would have them, and
//!    another on faster storage, the arena, for what was appended last. So `aimss stream` and `aimss mount`
//!    find the same streams when the dataflow is closed.
//! 2. A [`Writer`] appends whole records to the active file in the arena. Behind it, threads copy its tail to
//!    the directory once a second, seal what comes to a segment, and give memory back.
//! 3. A [`Reader`] is a member of a group. It is lent records where they are: slices of the arena, or of an
//!    unpacked block, never copies. Coming back for more acknowledges, and the compiler sees to it that
//!    nothing borrowed is left by then. What a reader that is dropped had not acknowledged is given to
//!    another.
//! 4. [`Dataflow::finish`] says that nothing more comes: the stream is *ready* for the next stage. Readers
//!    come to an end, and a shuffle, which waits for all of its inputs, begins.
//!
//! What a crash costs: appends of the last second if the arena is lost as well, else nothing; the next `open`
//! brings what is in the arena to the directory, also if it names another. (A mount does not: open and close
//! the dataflow before.) Groups go on where they were written down, 50 ms before at most. A finished stream is
//! durable.
//!
//! Borrowed records are memory that nobody changes: the active file is written by `write(2)` behind its last
//! record only, and its front is not given back while a batch holds it. That is so because the arena is ours
//! alone (0700): a program that cuts or overwrites our files there changes what is borrowed, or ends us by
//! SIGBUS. Each record is compared with its checksum when it is lent.
//!
//! Not here: several programs on one dataflow (mount the directory for that), threads for the stages (the
//! caller's), shuffles of streams that go on for ever.
//!
//! # Example
//!
//! ```
//! use aimss_engine::stream::{Dataflow, Settings};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (directory, arena) = (tempfile::tempdir()?, tempfile::tempdir_in("/dev/shm")?);
//! # let (directory, arena) = (directory.path(), arena.path());
//! let dataflow = Dataflow::open(directory, arena)?;
//! for name in ["words", "part-0", "part-1"] {
//!     dataflow.create_stream(name, &Settings::default())?;
//! }
//! dataflow.write_to("words")?.append(b"to\nbe\nor\nnot\nto\nbe\n")?;
//! dataflow.finish("words")?;
//! dataflow.shuffle(&["words"], |line| line, &["part-0", "part-1"])?;
//! let mut count = 0;
//! for part in ["part-0", "part-1"] {
//!     let mut reader = dataflow.read_from(part, "counters")?;
//!     while let Some(batch) = reader.read()? {
//!         for record in batch {
//!             count += usize::from(record.bytes == b"be\n"); // not a copy
//!         }
//!     }
//! }
//! assert_eq!(count, 2);
//! dataflow.destroy("words")?;
//! dataflow.close()?;
//! # Ok(())
//! # }
//! ```

mod ends;
mod error;
mod flow;
mod lease;
mod shuffle;

pub use super::live::{Lent, Limits, Records};
pub use ends::{Got, Reader, Writer};
pub use error::{Error, Result};
pub use shuffle::{Shuffled, output_of};

use super::group;
use super::live::Streams;
use super::plain;
use super::segment::sync_directory;
use super::settings::MARKER_BYTES;
use super::{Marker, Settings, StreamId};
use flow::Flow;
use lease::Lease;
use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// As a mount has it unless told otherwise; memory for sealed records is what four full segments take.
const LIMITS: Limits =
    Limits { flush_every: Duration::from_secs(1), hot_bytes: 256 << 20, removed_after: Duration::ZERO };

/// See the module. Dropped, it is closed, and what fails is logged.
#[derive(Debug)]
pub struct Dataflow {
    directory: PathBuf,
    /// Where active files are; ours alone.
    memory: PathBuf,
    streams: Arc<Streams>,
    /// Those that were used. A leaf lock.
    flows: Mutex<HashMap<StreamId, Arc<Flow>>>,
    lease: Option<Lease>,
    /// Held while a name is made, which has one file on its way to it.
    naming: Mutex<()>,
}

fn at(path: &Path) -> impl Fn(io::Error) -> Error + '_ {
    move |source| Error::Io { path: path.display().to_string(), source }
}

impl Dataflow {
    /// Opens the streams in `directory`, which is made if it is missing, with memory below `arena`: a
    /// directory on a tmpfs, `/dev/shm` for one. Refused while a mount or another dataflow has the directory.
    pub fn open(directory: &Path, arena: &Path) -> Result<Dataflow> {
        Dataflow::open_with(directory, arena, LIMITS)
    }

    /// The same with other limits.
    pub fn open_with(directory: &Path, arena: &Path, limits: Limits) -> Result<Dataflow> {
        fs::create_dir_all(directory).map_err(at(directory))?;
        let directory = directory.canonicalize().map_err(at(directory))?;
        fs::create_dir_all(arena).map_err(at(arena))?;
        let arena = arena.canonicalize().map_err(at(arena))?;
        let lease = Lease::take(&directory)?;
        let name = format!("aimss-{:016x}", xxh3_64(directory.as_os_str().as_encoded_bytes()));
        let memory = arena.join(&name);
        if let Some(left) = lease.left().map_err(at(&directory))? {
            // The note may be anybody's who can write there.
            if left.file_name() == Some(name.as_ref()) && is_ours(&left).map_err(at(&left))? {
                Streams::recover(&directory, &left)
                    .map_err(|source| Error::Stream { name: format!("in {}", left.display()), source })?;
                remove(&left).map_err(at(&left))?;
            }
        }
        if is_ours(&memory).map_err(at(&memory))? {
            // Of a directory that somebody emptied.
            remove(&memory).map_err(at(&memory))?;
        }
        DirBuilder::new().mode(0o700).create(&memory).map_err(at(&memory))?;
        lease.note_memory(&memory).map_err(at(&directory))?;
        let streams = Streams::new(&directory, &memory, limits).map_err(at(&memory))?;
        streams.start();
        Ok(Dataflow {
            directory,
            memory,
            streams,
            flows: Mutex::default(),
            lease: Some(lease),
            naming: Mutex::default(),
        })
    }

    /// Makes a new, empty stream. Its name is a file in the directory, which stands for it.
    pub fn create_stream(&self, name: &str, settings: &Settings) -> Result<()> {
        let path = self.path(name)?;
        if path.symlink_metadata().is_ok() {
            return Err(Error::Exists { name: name.into() });
        }
        let owner = Some(rustix::process::geteuid().as_raw());
        let settings = Settings { path: name.into(), owner, ..settings.clone() };
        let failed = |source| Error::Stream { name: name.into(), source };
        let stream = self.streams.create(&settings).map_err(failed)?;
        let named = self.write_marker(&path, Marker(stream.id()));
        if let Err(e) = named {
            self.streams.doom(&stream);
            return Err(match e.kind() {
                io::ErrorKind::AlreadyExists => Error::Exists { name: name.into() },
                _ => at(&path)(e),
            });
        }
        Ok(())
    }

    /// The name is there with the whole marker, or not at all, and durable.
    fn write_marker(&self, path: &Path, marker: Marker) -> io::Result<()> {
        let _naming = self.naming.lock();
        let beside = self.directory.join(".aimss").join("marker.new");
        let mut file = plain::create(&beside)?;
        file.write_all(&marker.encode())?;
        file.sync_all()?;
        renameat_with(CWD, &beside, CWD, path, RenameFlags::NOREPLACE)?;
        sync_directory(&self.directory)
    }

    /// Names of all streams, in order.
    pub fn streams(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(at(&self.directory))? {
            let name = entry.map_err(at(&self.directory))?.file_name();
            if let Some(name) = name.to_str()
                && self.flow(name).is_ok()
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Appends to a stream, as one of its writers. They may be on several threads.
    pub fn write_to(&self, name: &str) -> Result<Writer<'_>> {
        Writer::new(self.flow(name)?, false)
    }

    /// Reads a stream as a member of a group, which is made if it is new and begins at the first record that
    /// is retained. Members of one group share its records.
    pub fn read_from(&self, name: &str, group: &str) -> Result<Reader<'_>> {
        if !group::is_name(group) {
            return Err(Error::GroupName { name: group.into() });
        }
        Reader::new(self.flow(name)?, group)
    }

    /// Makes the stream durable and says that nothing more comes: shuffles that wait for it begin, readers
    /// come to an end. Refused while it has writers.
    pub fn finish(&self, name: &str) -> Result<()> {
        self.flow(name)?.finish()
    }

    /// Whether nothing more comes.
    pub fn is_finished(&self, name: &str) -> Result<bool> {
        Ok(self.flow(name)?.end().is_some())
    }

    /// Removes a stream and its groups. Those who use it get errors; what they were lent stays until they let
    /// it go.
    pub fn destroy(&self, name: &str) -> Result<()> {
        let flow = self.flow(name)?;
        let path = self.path(name)?;
        fs::remove_file(&path).and_then(|()| sync_directory(&self.directory)).map_err(at(&path))?;
        self.flows.lock().remove(&flow.stream.id());
        flow.set_destroyed();
        self.streams.doom(&flow.stream);
        let groups: Vec<String> = flow.stream.inspect(|now| now.groups.keys().cloned().collect());
        for group in groups {
            flow.stream.remove_group(&group).map_err(at(&path))?;
        }
        Ok(())
    }

    /// Makes all durable in the directory, and gives the memory back. If it fails, the next `open` goes on
    /// from what is in the arena.
    pub fn close(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        self.streams.stop().map_err(|source| match source {
            super::Error::Stream { stream, source } => Error::Stream { name: stream, source: *source },
            source => Error::Stream { name: "that was used".into(), source },
        })?;
        remove(&self.memory).map_err(at(&self.memory))?;
        lease.give_back().map_err(at(&self.directory))
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let plain = !name.is_empty()
            && !name.contains(['/', '@', '\n', '\0'])
            && ![".", "..", ".aimss"].contains(&name);
        if plain { Ok(self.directory.join(name)) } else { Err(Error::StreamName { name: name.into() }) }
    }

    /// The stream with this name.
    fn flow(&self, name: &str) -> Result<Arc<Flow>> {
        let path = self.path(name)?;
        let missing = || Error::NoStream { name: name.into() };
        let Marker(id) = marker(&path).map_err(at(&path))?.ok_or_else(missing)?;
        if let Some(flow) = self.flows.lock().get(&id)
            && flow.name == name
        {
            return Ok(Arc::clone(flow));
        }
        let failed = |source| Error::Stream { name: name.into(), source };
        let stream = self.streams.open(id).map_err(failed)?;
        let noted = stream.settings().path;
        if noted != name {
            // A copy of a marker is only a file, as long as the stream is where it was.
            let original = self.directory.join(&noted);
            if !noted.is_empty() && marker(&original).is_ok_and(|found| found == Some(Marker(id))) {
                return Err(missing());
            }
            stream.change_settings(|settings| settings.path = name.into()).map_err(failed)?;
        }
        let directory = Streams::home(&self.directory).join(id.to_string());
        let flow = Arc::new(Flow::new(name, stream, directory));
        Ok(Arc::clone(self.flows.lock().entry(id).or_insert(flow)))
    }
}

impl Drop for Dataflow {
    fn drop(&mut self) {
        if let Err(e) = self.end() {
            log::warn!(
                "the dataflow in {} was not closed, its next opening goes on: {e}",
                self.directory.display()
            );
        }
    }
}

/// The marker in a file, if it is one.
fn marker(path: &Path) -> io::Result<Option<Marker>> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() == MARKER_BYTES as u64 => {
            fs::read(path).map(|bytes| Marker::decode(&bytes))
        }
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(None),
    }
}

/// Whether it is a directory of ours.
fn is_ours(directory: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(directory) {
        Ok(metadata) => Ok(metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
