//! Open handles, where the next daemon finds them: each is noted in the journal before the open is answered, and until it is
//! closed. A request that comes again finds what it was given.

use aimss_engine::Ino;
use aimss_engine::engine::{Served, StillOpen};
use aimss_engine::journal::Journal;
use fuser::FileHandle;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

/// An open file.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct KeptFile {
    /// Which.
    pub ino: u64,
    /// It may write.
    pub write: bool,
    /// It is exec(2)'s.
    pub exec: bool,
    /// How it is served.
    pub served: KeptServed,
    /// The kernel's backing id, in passthrough.
    pub id: Option<u32>,
    /// Bytes of the arena promised with it.
    pub promised: u64,
}

/// [`Served`], in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum KeptServed {
    Arena,
    Backing,
    Daemon,
}

impl From<Served> for KeptServed {
    fn from(served: Served) -> KeptServed {
        match served {
            Served::Arena => KeptServed::Arena,
            Served::Backing => KeptServed::Backing,
            Served::Daemon => KeptServed::Daemon,
        }
    }
}

impl From<KeptServed> for Served {
    fn from(served: KeptServed) -> Served {
        match served {
            KeptServed::Arena => Served::Arena,
            KeptServed::Backing => Served::Backing,
            KeptServed::Daemon => Served::Daemon,
        }
    }
}

/// Handles of files that are no streams, by their numbers. See the module.
#[derive(Debug, Default)]
pub(super) struct Handles {
    files: Mutex<HashMap<u64, KeptFile>>,
    last: AtomicU64,
}

impl Handles {
    /// Those that a journal's notes tell of.
    pub fn take_up<'n>(notes: impl Iterator<Item = (u64, &'n [u8])>) -> Handles {
        let mut files = HashMap::new();
        for (number, note) in notes {
            match postcard::from_bytes(note) {
                Ok(file) => drop(files.insert(number, file)),
                Err(e) => log::error!("an open file can't be served any more, its note can't be read: {e}"),
            }
        }
        // Above all that were ever given out, whatever the clock says: a close that comes again must not hit another file.
        let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_micros() as u64);
        let last = files.keys().copied().max().unwrap_or(0).max(now);
        Handles { files: Mutex::new(files), last: AtomicU64::new(last) }
    }

    /// What the engine is told of them.
    pub fn still_open(&self) -> Vec<StillOpen> {
        let mut open: BTreeMap<u64, StillOpen> = BTreeMap::new();
        for file in self.files.lock().values() {
            let (ino, served) = (Ino(file.ino), file.served.into());
            let none = StillOpen { ino, served, handles: 0, writers: 0, promised: 0 };
            let all = open.entry(file.ino).or_insert(none);
            all.handles += 1;
            all.writers += u32::from(file.write);
            all.promised += file.promised;
        }
        open.into_values().collect()
    }

    /// The kernel's backing ids of these files are of no use any more.
    pub fn forget_ids_of(&mut self, files: &[Ino]) {
        for file in self.files.get_mut().values_mut().filter(|file| files.contains(&Ino(file.ino))) {
            file.id = None;
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<KeptFile> {
        self.files.lock().values().copied().collect()
    }

    /// Notes an open file; its handle.
    pub fn keep_file(&self, journal: &Journal, file: KeptFile) -> FileHandle {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        journal.note(number, postcard::to_allocvec(&file).ok());
        self.files.lock().insert(number, file);
        FileHandle(number)
    }

    /// The file of a handle.
    pub fn file(&self, number: u64) -> Option<KeptFile> {
        self.files.lock().get(&number).copied()
    }

    /// A handle is closed; `None` if it was before, by a daemon that did not live to say so.
    pub fn close(&self, journal: &Journal, number: u64) -> Option<KeptFile> {
        let file = self.files.lock().remove(&number)?;
        journal.note(number, None);
        Some(file)
    }
}
