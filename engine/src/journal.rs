//! What survives the death of the daemon: every change and every dirty file, written to memory that outlives the
//! process before it is answered.
//!
//! The journal is a file beside the arena's files. A record is one write: length, checksum, then the record in
//! postcard's encoding; a torn tail ends the reading and is ignored, since what it would have said was not answered.
//!
//! 1. While the daemon lives the journal is only appended to, and rewritten from the live state when it has grown.
//! 2. The next daemon reads it ([`replay`]), gives the state to an engine without a mount, and lets its drain bring
//!    the backing up to date. Only then is the backing mounted anew.
//!
//! Content is not in the journal: it is in the arena's files, which say themselves what they hold.

mod record;
mod replay;

pub use record::{Held, Record};
pub use replay::{Node, Recovered, replay, whole_bytes};

use crate::ids::{Ino, Seq};
use crate::namespace::{InodeState, Link, Names, Xattrs};
use crate::oplog::Change;
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Rewritten when it has grown to this much beyond what it held after the last rewrite.
const GROWTH_BYTES_MAX: u64 = 16 << 20;

/// See the module.
#[derive(Debug, Default)]
pub struct Journal {
    /// Guards the end of the file; a leaf lock.
    file: Mutex<Option<End>>,
    path: PathBuf,
    bytes: AtomicU64,
    rewritten: AtomicU64,
}

/// The end of the journal, where records are added.
#[derive(Debug)]
struct End {
    file: File,
    /// Bytes of whole records.
    bytes: u64,
    /// While the journal is being rewritten: what was added meanwhile.
    meanwhile: Option<Vec<u8>>,
}

impl End {
    /// Adds whole records, or nothing of them: a torn one would hide all that follow.
    fn add(&mut self, encoded: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all(encoded) {
            self.file.set_len(self.bytes)?;
            return Err(e);
        }
        self.bytes += encoded.len() as u64;
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.extend_from_slice(encoded);
        }
        Ok(())
    }
}

impl Journal {
    /// One that keeps nothing.
    pub fn none() -> Journal {
        Journal::default()
    }

    /// Starts a new journal at `path`.
    pub fn create(path: &Path) -> io::Result<Journal> {
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?);
        let end = End { file, bytes: 0, meanwhile: None };
        Ok(Journal { file: Mutex::new(Some(end)), path: path.into(), ..Journal::default() })
    }

    /// Goes on with the journal at `path`, behind its last whole record.
    pub fn resume(path: &Path) -> io::Result<Journal> {
        let bytes = whole_bytes(&fs::read(path)?) as u64;
        let file = File::from(rustix::fs::open(
            path,
            OFlags::WRONLY | OFlags::APPEND | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        file.set_len(bytes)?;
        let journal = Journal {
            file: Mutex::new(Some(End { file, bytes, meanwhile: None })),
            path: path.into(),
            ..Journal::default()
        };
        journal.bytes.store(bytes, Ordering::Relaxed);
        journal.rewritten.store(bytes, Ordering::Relaxed);
        Ok(journal)
    }

    /// Bytes it holds.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn append(&self, record: &Record<'_>) {
        let mut end = self.file.lock();
        let Some(end) = &mut *end else { return };
        match end.add(&record.encode()) {
            Ok(()) => self.bytes.store(end.bytes, Ordering::Relaxed),
            // Memory for the journal ended: the change is in the daemon's memory and in the arena still.
            Err(e) => {
                log::error!("the journal can't be written, so the daemon's death would lose changes: {e}");
            }
        }
    }

    pub(crate) fn made(&self, ino: Ino, link: &Link, state: &InodeState) {
        self.append(&Record::made(ino, link, state));
    }

    /// Objects and directories that the backing has, so that the change can be understood without it.
    pub(crate) fn context(&self, names: &Names, change: &Change) {
        for ino in change.objects() {
            if let Some(inode) = names.inode(ino) {
                let state = inode.state.lock();
                if !state.drained.is_empty() {
                    self.append(&Record::node(ino, &state));
                }
            }
        }
    }

    /// A directory that was found on the backing.
    pub(crate) fn found_directory(&self, ino: Ino, state: &InodeState) {
        self.append(&Record::node(ino, state));
    }

    pub(crate) fn changed(&self, seq: Seq, change: &Change) {
        self.append(&Record::Changed { seq, change: Cow::Borrowed(change) });
    }

    pub(crate) fn attributes(&self, ino: Ino, state: &InodeState) {
        if !state.drained.is_empty() {
            self.append(&Record::node(ino, state));
        }
        let xattrs = match &state.xattrs {
            Xattrs::Known(known) if !known.1.is_empty() => known
                .1
                .iter()
                .map(|name| (name.to_vec(), known.0.get(name).map(|value| value.to_vec())))
                .collect(),
            _ => Vec::new(),
        };
        self.append(&Record::Attributes { ino, attr: state.attr, xattrs });
    }

    pub(crate) fn dirty(&self, ino: Ino, state: &InodeState) {
        if !state.drained.is_empty() {
            self.append(&Record::node(ino, state));
        }
        self.append(&Record::dirty(ino, state));
    }

    pub(crate) fn clean(&self, ino: Ino) {
        self.append(&Record::Clean { ino });
    }

    pub(crate) fn cancelled(&self, ino: Ino) {
        self.append(&Record::Cancelled { ino });
    }

    pub(crate) fn done(&self, seq: Seq) {
        self.append(&Record::Done { seq });
    }

    /// Whether it has grown enough to be rewritten.
    pub(crate) fn wants_rewrite(&self) -> bool {
        self.bytes() > self.rewritten.load(Ordering::Relaxed) + GROWTH_BYTES_MAX
    }

    /// From here on, what is added is also kept for the end of [`Journal::rewrite`].
    pub(crate) fn begin_rewrite(&self) {
        if let Some(end) = &mut *self.file.lock() {
            end.meanwhile = Some(Vec::new());
        }
    }

    /// Replaces the journal by `records`, gathered since [`Journal::begin_rewrite`], and what was added meanwhile.
    pub(crate) fn rewrite(&self, records: &[Record<'_>]) -> io::Result<()> {
        let mut file = self.file.lock();
        let Some(end) = &mut *file else { return Ok(()) };
        let mut buffer: Vec<u8> = records.iter().flat_map(Record::encode).collect();
        buffer.extend(end.meanwhile.take().unwrap_or_default());
        let beside = self.path.with_extension("new");
        let next = Journal::create(&beside)?;
        let mut replacement = next.file.into_inner().ok_or(io::ErrorKind::NotFound)?;
        replacement.add(&buffer)?;
        fs::rename(&beside, &self.path)?;
        self.bytes.store(replacement.bytes, Ordering::Relaxed);
        self.rewritten.store(replacement.bytes, Ordering::Relaxed);
        *end = replacement;
        Ok(())
    }
}
