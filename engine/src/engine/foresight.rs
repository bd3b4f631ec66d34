//! Tells the predictors what is opened, and queues what they expect.
//!
//! An open only leaves a note; a thread of its own asks [`crate::predict`], which may list directories, and hands what is
//! expected to [`crate::fetch`]. Notes that come faster than they are read are dropped: prediction is a guess anyway.

use super::Engine;
use crate::fetch::{Cause, Request};
use crate::ids::{Ino, Name};
use crate::namespace::{Inode, Place};
use crate::predict::{self, Account, By, Predictor, Seen, Sibling, Tree, natural_order};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Notes that may wait.
const NOTES_MAX: usize = 1 << 14;
/// Sorted listings kept.
const LISTINGS_MAX: usize = 256;
/// Notes that come within this time are taken together, and so often it is waited for them before it is slept for good.
const TOGETHER: Duration = Duration::from_millis(1);
const PATIENCE: u32 = 20;
/// So many notes that wait are too many to spend time on others.
const BEHIND: usize = 4;
/// Transitions that are kept over restarts.
const TRANSITIONS_MAX: usize = 1 << 16;

/// What happened.
#[derive(Debug)]
enum Note {
    Opened(Seen),
    Fetched(Ino, u64),
    NotFetched(Ino),
    Evicted(Ino),
    /// A clean file was closed.
    Closed(Ino),
    Stop,
}

/// See the module.
#[derive(Debug)]
pub struct Foresight {
    notes: Sender<Note>,
    read: Receiver<Note>,
    /// Nobody predicts: nothing is noted.
    predictor: Option<Mutex<Predictor>>,
    /// A directory's files in natural order, as of its version.
    #[allow(clippy::type_complexity, reason = "used here alone")]
    listings: Mutex<FxHashMap<Ino, (u64, Arc<[Sibling]>)>>,
    /// What was learned before a restart, by path, until the file is opened: its number is not known before.
    earlier: Mutex<FxHashMap<String, Vec<(String, u8)>>>,
}

/// How often a file was opened behind another one; paths from the top of the tree.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Transition {
    /// The first of the two.
    pub from: String,
    /// The second; the same as the first for all others together.
    pub to: String,
    /// How often.
    pub count: u8,
}

impl Foresight {
    pub(super) fn new(config: Option<predict::Config>) -> Foresight {
        let (notes, read) = crossbeam_channel::bounded(NOTES_MAX);
        let predictor = config.map(|config| Mutex::new(Predictor::new(config)));
        Foresight { notes, read, predictor, listings: Mutex::default(), earlier: Mutex::default() }
    }

    fn note(&self, note: Note) {
        if self.predictor.is_some() {
            let _ = self.notes.try_send(note);
        }
    }

    /// Waits for a note. While they come, they are taken a few at a time: a thread that sleeps until the next one has to be
    /// woken by each open, which costs more than what it does.
    fn next_note(&self) -> Option<Note> {
        for _ in 0..PATIENCE {
            match self.read.try_recv() {
                Ok(note) => return Some(note),
                Err(_) => std::thread::sleep(TOGETHER),
            }
        }
        self.read.recv().ok()
    }

    /// Ends the thread.
    pub(crate) fn stop(&self) {
        // Where there is no room for it, the thread is awake, and sees that the engine stops.
        self.note(Note::Stop);
    }

    /// What each predictor came to; nothing if nobody predicts.
    pub fn account(&self) -> Vec<(By, Account)> {
        self.predictor.as_ref().map(|predictor| predictor.lock().account().into()).unwrap_or_default()
    }
}

impl Engine {
    /// Whether anybody predicts.
    pub fn predicts(&self) -> bool {
        self.foresight.predictor.is_some()
    }

    /// Whether files that are scanned are to be fetched.
    pub(crate) fn foresees_scans(&self) -> bool {
        self.config.predict.is_some_and(|config| config.enabled.scan)
    }

    /// What each predictor came to.
    pub fn predictions(&self) -> Vec<(By, Account)> {
        self.foresight.account()
    }

    /// Which file was opened behind which, for [`Engine::take_over_transitions`]. Files whose names are no UTF-8 are
    /// left out.
    pub fn transitions(&self) -> Vec<Transition> {
        let Some(predictor) = &self.foresight.predictor else { return Vec::new() };
        let path = |ino| self.path_of(ino).and_then(|path| String::from_utf8(path).ok());
        let known = predictor.lock().export();
        let learned = known
            .into_iter()
            .filter_map(|(from, to, count)| Some(Transition { from: path(from)?, to: path(to)?, count }));
        let earlier = self.foresight.earlier.lock();
        let untouched = earlier.iter().flat_map(|(from, behind)| {
            behind.iter().map(|(to, count)| Transition { from: from.clone(), to: to.clone(), count: *count })
        });
        learned.chain(untouched).take(TRANSITIONS_MAX).collect()
    }

    /// Goes on with what was learned before a restart.
    pub fn take_over_transitions(&self, known: Vec<Transition>) {
        if self.predicts() {
            let mut earlier = self.foresight.earlier.lock();
            for Transition { from, to, count } in known.into_iter().take(TRANSITIONS_MAX) {
                earlier.entry(from).or_default().push((to, count));
            }
        }
    }

    /// What was known of a file before a restart, now that it has a number.
    fn remember(&self, predictor: &Mutex<Predictor>, seen: &Seen) {
        // Finding the other file may ask the backing: not while opens wait to be looked at.
        if self.foresight.read.len() > BEHIND || self.foresight.earlier.lock().is_empty() {
            return;
        }
        let path = self.path_of(seen.ino).and_then(|path| String::from_utf8(path).ok());
        let Some((from, behind)) =
            path.and_then(|path| self.foresight.earlier.lock().remove_entry(path.as_str()))
        else {
            return;
        };
        let number = |path: &str| {
            path.split('/').try_fold(Ino::ROOT, |at, name| self.resolve(at, name.as_bytes())).ok()
        };
        let known: Vec<(Ino, Ino, u8)> = (behind.iter())
            .filter_map(|(to, count)| {
                let to = if *to == from { seen.ino } else { number(to)? };
                Some((seen.ino, to, *count))
            })
            .collect();
        predictor.lock().import(&known);
    }

    /// A file is opened for reading.
    pub(super) fn opened_for_reading(&self, inode: &Inode, process: u32) {
        let (link, bytes, cold) = {
            let state = inode.state.lock();
            (state.place.clone(), state.attr.size, state.file.place == Place::Backing)
        };
        {
            let mut counts = self.cache_counts.lock();
            if cold { counts.misses += 1 } else { counts.hits += 1 }
        }
        if self.predicts()
            && let Some((directory, name)) = link
        {
            self.foresight.note(Note::Opened(Seen { directory, name, ino: inode.ino, bytes, process }));
        }
    }

    /// A file that was read is closed by its last reader.
    pub(super) fn closed_after_reading(&self, ino: Ino) {
        self.foresight.note(Note::Closed(ino));
    }

    /// A file came into memory.
    pub(crate) fn came_in(&self, ino: Ino, bytes: u64) {
        self.may_be_evicted(ino, bytes);
        self.foresight.note(Note::Fetched(ino, bytes));
    }

    /// It did not.
    pub(crate) fn not_fetched(&self, ino: Ino) {
        self.foresight.note(Note::NotFetched(ino));
    }

    /// It left again.
    pub(super) fn went_out(&self, ino: Ino) {
        self.foresight.note(Note::Evicted(ino));
    }

    /// The thread that asks the predictors.
    pub(crate) fn run_foresight(&self) {
        let Some(predictor) = &self.foresight.predictor else { return };
        while let Some(note) = self.foresight.next_note() {
            if self.stopping.load(Ordering::Relaxed) {
                return;
            }
            match note {
                Note::Opened(seen) => self.foresee(predictor, &seen),
                Note::Fetched(ino, bytes) => predictor.lock().fetched(ino, bytes),
                Note::NotFetched(ino) => predictor.lock().failed(ino),
                Note::Evicted(ino) => predictor.lock().evicted(ino),
                Note::Closed(ino) => {
                    if predictor.lock().done_for_now(ino) {
                        self.cache.lock().ahead(ino.0);
                    }
                }
                Note::Stop => return,
            }
            let unwanted = predictor.lock().called_off();
            for ino in self.fetcher.call_off(&unwanted) {
                predictor.lock().failed(ino);
            }
        }
    }

    fn foresee(&self, predictor: &Mutex<Predictor>, seen: &Seen) {
        if let Err(e) = self.load_directory_once(seen.directory) {
            log::debug!("nothing is predicted from inode {}: {e}", seen.directory.0);
            return;
        }
        self.remember(predictor, seen);
        let predicted = predictor.lock().opened(seen, &Known(self));
        if !predicted.is_empty() {
            let request = |predicted: predict::Predicted| Request {
                ino: predicted.ino,
                link: Some((predicted.directory, predicted.name)),
                bytes: predicted.bytes,
                cause: Cause::Predicted(predicted.by),
            };
            self.fetcher.add(predicted.into_iter().map(request).collect());
        }
    }

    /// A listing that is a little old is good enough to guess from.
    fn load_directory_once(&self, dir: Ino) -> crate::Result<()> {
        let complete = self.names.lock().dirs.get(&dir).is_some_and(|dir| dir.complete);
        if complete { Ok(()) } else { self.load_directory(dir) }
    }
}

/// What the namespace knows, for the predictors.
struct Known<'e>(&'e Engine);

impl Tree for Known<'_> {
    fn files(&self, directory: Ino) -> Option<Arc<[Sibling]>> {
        let version = self.0.names.lock().dirs.get(&directory)?.version;
        let mut listings = self.0.foresight.listings.lock();
        if let Some((of, files)) = listings.get(&directory)
            && *of == version
        {
            return Some(files.clone());
        }
        let mut files: Vec<Sibling> = {
            let names = self.0.names.lock();
            let entries = names.dirs.get(&directory)?.names();
            entries
                .filter(|(_, entry)| entry.kind == crate::attr::Kind::File)
                .map(|(name, entry)| Sibling { name: name.clone(), ino: entry.ino })
                .collect()
        };
        files.sort_by(|a, b| natural_order(&a.name, &b.name));
        let files: Arc<[Sibling]> = files.into();
        if listings.len() >= LISTINGS_MAX {
            listings.clear();
        }
        listings.insert(directory, (version, files.clone()));
        Some(files)
    }

    fn is_in_memory(&self, ino: Ino) -> bool {
        self.0.fetcher.knows(ino)
            || self.0.inode(ino).is_ok_and(|inode| inode.state.lock().file.place != Place::Backing)
    }

    fn bytes(&self, ino: Ino) -> Option<u64> {
        Some(self.0.inode(ino).ok()?.state.lock().attr.size)
    }

    fn place(&self, ino: Ino) -> Option<(Ino, Name)> {
        self.0.inode(ino).ok()?.state.lock().place.clone()
    }
}
