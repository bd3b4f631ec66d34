//! All streams of a mount.
//!
//! Their logs lie in `.aimss/streams/ID` of the backing, their active files in a directory of the arena,
//! which outlives a daemon that dies: the next one opens what is there ([`Streams::open_left`]), or, where no arena
//! outlives its user, brings it to the logs ([`Streams::recover`]).

use super::Stream;
use super::ahead::Wanted;
use super::partitions::Groups;
use super::summary::Rates;
use super::watch::Watch;
use crate::stream::log::{Copied, Listing};
use crate::stream::{Error, Log, Result, Settings, StreamId, plain};
use crossbeam_channel::{Receiver, Sender};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Where a backing keeps its logs, below its root.
const HOME: &str = ".aimss/streams";

/// What streams may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long appended bytes may be in memory alone.
    pub flush_every: Duration,
    /// Memory for records that are sealed and could be read from their segments.
    pub hot_bytes: u64,
    /// How long the log of a removed stream stays: until its name is gone from the backing for sure.
    pub removed_after: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Streams {
    pub(super) home: PathBuf,
    active_home: PathBuf,
    pub(super) limits: Limits,
    open: Mutex<HashMap<StreamId, Arc<Stream>>>,
    /// Whoever opens a log holds its lock meanwhile, so that nobody opens it twice; taken before `open`.
    opening: Mutex<HashMap<StreamId, Arc<Mutex<()>>>>,
    pub(super) watch: Watch,
    /// Wakes the service.
    pub(super) event: OwnedFd,
    /// Streams that the service is to look at.
    pub(super) woken: Mutex<Vec<Arc<Stream>>>,
    pub(super) offsets: Signal,
    pub(super) full: Signal,
    pub(super) uncopied: Signal,
    /// Batches to be read ahead.
    pub(super) wanted: (Mutex<Option<Sender<Wanted>>>, Receiver<Wanted>),
    /// Set when the threads are to end.
    pub(super) ended: Signal,
    doomed: Mutex<Vec<(Instant, Arc<Stream>)>>,
    /// Removed, and not to be opened: what memory has of them is to go with it.
    given_up: Mutex<HashSet<StreamId>>,
    pub(super) rates: Mutex<Rates>,
    /// Groups over partitions that have members.
    pub(super) partitioned: Groups,
    /// Questions of members that wait, in all streams.
    pub(super) questions: AtomicUsize,
    pub(super) stopping: AtomicBool,
    /// It was said that sealing is behind.
    pub(super) behind_told: AtomicBool,
    /// Some stream was appended to since sealing was looked at.
    pub(super) appended: AtomicBool,
    /// Some stream has something to be done from time to time.
    pub(super) chores: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Something to be done, and the thread that does it.
#[derive(Debug, Default)]
pub(super) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub fn set(&self) {
        let mut set = self.set.lock();
        if !*set {
            *set = true;
            self.changed.notify_one();
        }
    }

    /// Waits until it is set, or for so long, and clears it; whether it was set.
    pub fn wait(&self, longest: Duration) -> bool {
        let mut set = self.set.lock();
        if !*set {
            self.changed.wait_for(&mut set, longest);
        }
        std::mem::take(&mut *set)
    }
}

impl Streams {
    /// The directory of a backing's logs.
    pub fn home(backing: &Path) -> PathBuf {
        backing.join(HOME)
    }

    /// The streams of `backing`, with active files below `active_home`.
    pub fn new(backing: &Path, active_home: &Path, limits: Limits) -> io::Result<Arc<Streams>> {
        fs::create_dir_all(active_home)?;
        let (wants, wanted) = crossbeam_channel::unbounded();
        Ok(Arc::new(Streams {
            home: Streams::home(backing),
            active_home: active_home.into(),
            limits,
            open: Mutex::default(),
            opening: Mutex::default(),
            watch: Watch::new()?,
            event: rustix::event::eventfd(
                0,
                rustix::event::EventfdFlags::CLOEXEC | rustix::event::EventfdFlags::NONBLOCK,
            )?,
            woken: Mutex::default(),
            offsets: Signal::default(),
            full: Signal::default(),
            uncopied: Signal::default(),
            wanted: (Mutex::new(Some(wants)), wanted),
            ended: Signal::default(),
            doomed: Mutex::default(),
            given_up: Mutex::default(),
            rates: Mutex::default(),
            partitioned: Groups::default(),
            questions: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            behind_told: AtomicBool::new(false),
            appended: AtomicBool::new(false),
            chores: AtomicBool::new(false),
            threads: Mutex::default(),
        }))
    }

    /// Brings what a dead daemon left of active files to the logs.
    pub fn recover(backing: &Path, active_home: &Path) -> Result<()> {
        let Some(entries) = if_there(fs::read_dir(active_home))? else { return Ok(()) };
        for entry in entries {
            let name = entry?.file_name();
            let directory = if_there(plain::directory_in(&Streams::home(backing), &name))?;
            let there = directory.as_deref().map_or(Ok(false), Settings::is_there)?;
            let Some(directory) = directory.filter(|_| there) else {
                log::warn!("{} is the memory of a stream that was being removed", name.display());
                continue;
            };
            let settings = Settings::read(&directory)?;
            let listing = Listing::of(&directory)?;
            let mut log = Log::open_apart(&listing, &active_home.join(&name), settings.log)?;
            let mut copied = Copied::open(&log, &listing)?;
            copied.bring_up_to_date(&log.news()?)?;
        }
        Ok(())
    }

    /// Opens all streams that the last daemon of this mount had open: their writers may go on, and what they append is to
    /// be sealed and copied. All are tried. The first that can't be opened is the error: what memory has of it may be
    /// nowhere else. Those that had lost their last name go ([`Streams::doom`]), or, where they are `kept`, stay as they
    /// are, for [`Streams::settle_doomed`].
    pub fn open_left(self: &Arc<Self>, kept: bool) -> Result<()> {
        let mut opened = Ok(());
        for id in self.in_memory()? {
            let given_up = self.given_up.lock().contains(&id);
            let passed_over = given_up || kept && self.is_doomed_and_closed(id);
            if !passed_over && let Err(e) = self.open_one_left(id, kept) {
                log::warn!("what is in memory alone can't be brought to the backing: {e}");
                opened = opened.and(Err(e));
            }
        }
        opened
    }

    /// It was removed, and can't be opened: nobody waits for what memory has of it.
    pub fn give_up(&self, id: StreamId) {
        self.given_up.lock().insert(id);
    }

    fn is_doomed_and_closed(&self, id: StreamId) -> bool {
        !self.open.lock().contains_key(&id) && self.settings_of(id).is_ok_and(|settings| settings.doomed)
    }

    fn settings_of(&self, id: StreamId) -> Result<Settings> {
        Settings::read(&plain::directory_in(&self.home, id.to_string())?)
    }

    fn open_one_left(self: &Arc<Self>, id: StreamId, kept: bool) -> Result<()> {
        let failed = match self.open(id) {
            Ok(stream) => {
                if !kept && stream.settings().doomed {
                    // Removed in the time of the last daemon, which did not live to see its log gone.
                    self.doom(&stream);
                }
                return Ok(());
            }
            Err(e) => e,
        };
        let name = id.to_string();
        let settings = self.settings_of(id).unwrap_or_default();
        if settings.doomed {
            log::warn!("removed stream {name} can't be opened, and its log stays for now: {failed}");
            return Ok(());
        }
        match fs::symlink_metadata(self.active_home.join(&name)) {
            // It was removed just now.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            _ => Err(of_stream(id, &settings.path, failed)),
        }
    }

    /// The streams that have something in memory.
    fn in_memory(&self) -> io::Result<Vec<StreamId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.active_home)? {
            ids.extend(entry?.file_name().to_str().and_then(|name| name.parse::<StreamId>().ok()));
        }
        Ok(ids)
    }

    /// The directories in memory of streams that the backing does not have all of and does not take now. What they hold
    /// can be saved elsewhere by [`Streams::save`].
    pub fn left_in_memory(self: &Arc<Self>) -> io::Result<Vec<PathBuf>> {
        let is_safe = |id: &StreamId| {
            self.open(*id).is_ok_and(|stream| stream.settings().doomed || stream.sync().is_ok())
        };
        let left = self.in_memory()?.into_iter().filter(|id| !is_safe(id));
        Ok(left.map(|id| self.active_home.join(id.to_string())).collect())
    }

    /// Saves what memory has of a stream, in one of [`Streams::left_in_memory`], where a backing at `target` would have
    /// its log. Copied from there to the `backing`, while that is not mounted, it is part of the log again.
    pub fn save(memory: &Path, backing: &Path, target: &Path) -> Result<()> {
        let name = memory.file_name().unwrap_or_default();
        let directory = Streams::home(target).join(name);
        Log::save_active(memory, &directory)?;
        let settings = plain::directory_in(&Streams::home(backing), name).map(|log| Settings::read(&log));
        match settings {
            Ok(Ok(settings)) => settings.write(&directory),
            // The records are what counts.
            _ => Ok(()),
        }
    }

    /// Makes a new, empty stream.
    pub fn create(self: &Arc<Self>, settings: &Settings) -> Result<Arc<Stream>> {
        settings.log.check()?;
        let id = StreamId::random()?;
        let made = self.make_log(id, settings).and_then(|()| self.open(id));
        if made.is_err() {
            // Nothing of it is to be found by the next daemon.
            let _ = self.remove_log(id);
        }
        made
    }

    fn make_log(&self, id: StreamId, settings: &Settings) -> Result<()> {
        fs::create_dir_all(&self.home)?;
        plain::check_home(&self.home)?;
        let directory = self.home.join(id.to_string());
        fs::create_dir(&directory)?;
        settings.write(&directory)?;
        Ok(crate::stream::segment::sync_directory(&self.home)?)
    }

    /// Removes a log that nobody uses, and what memory has of it. The settings go before the rest: whoever finds them
    /// finds a whole log. Memory goes before them: what is there without them is no removed stream's.
    fn remove_log(&self, id: StreamId) -> io::Result<()> {
        let name = id.to_string();
        if_there(fs::remove_dir_all(self.active_home.join(&name)))?;
        if let Some(directory) = if_there(plain::directory_in(&self.home, &name))? {
            if_there(Settings::remove(&directory))?;
            if_there(fs::remove_dir_all(directory))?;
        }
        Ok(())
    }

    /// The lock that whoever opens a log, or removes it, holds meanwhile.
    fn opening_of(&self, id: StreamId) -> Arc<Mutex<()>> {
        self.opening.lock().entry(id).or_default().clone()
    }

    /// The stream with this id; fails if there is none.
    pub fn open(self: &Arc<Self>, id: StreamId) -> Result<Arc<Stream>> {
        let opening = self.opening_of(id);
        let _opening = opening.lock();
        if let Some(stream) = self.open.lock().get(&id) {
            return Ok(stream.clone());
        }
        let name = id.to_string();
        let directory = plain::directory_in(&self.home, &name)?;
        let stream = Stream::open(id, &directory, &self.active_home.join(&name), Arc::downgrade(self))?;
        self.open.lock().insert(id, stream.clone());
        // It may have anything of what the threads do.
        self.chores.fetch_or(stream.chores.load(Ordering::Relaxed), Ordering::Relaxed);
        for signal in [&self.offsets, &self.full, &self.uncopied] {
            signal.set();
        }
        stream.wake();
        Ok(stream)
    }

    /// All that were opened.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.open.lock().values().cloned().collect()
    }

    /// The stream has no name any more: its log goes when nobody uses it and the name is gone from the
    /// backing; or, if we die before that, at the next mount ([`Streams::doomed`]).
    pub fn doom(&self, stream: &Arc<Stream>) {
        if !stream.doomed.swap(true, Ordering::Relaxed) {
            if let Err(e) = stream.change_settings(|settings| settings.doomed = true) {
                log::warn!("stream {} is removed, but a crash now would leave its log: {e}", stream.id);
            }
            self.doomed.lock().push((Instant::now(), stream.clone()));
        }
    }

    /// The logs of a backing, which is not mounted, whose streams had lost their last name. A crash may have brought
    /// one back: only whoever has looked for their markers may remove them.
    pub fn doomed(backing: &Path) -> io::Result<Vec<StreamId>> {
        let home = Streams::home(backing);
        if if_there(plain::check_home(&home))?.is_none() {
            return Ok(Vec::new());
        }
        let mut doomed = Vec::new();
        for entry in fs::read_dir(home)? {
            let entry = entry?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(id) = id
                && entry.file_type()?.is_dir()
                && Settings::read(&entry.path()).is_ok_and(|settings| settings.doomed)
            {
                doomed.push(id);
            }
        }
        Ok(doomed)
    }

    /// Removes one of those, with what memory has of it, or, if it is `named` after all, lets it live. One that is open
    /// by now was found under a name that came back, and stays; one that is gone by now was removed in this daemon's time.
    pub fn settle_doomed(&self, id: StreamId, named: bool) -> Result<()> {
        let opening = self.opening_of(id);
        let _opening = opening.lock();
        if self.open.lock().contains_key(&id) {
            return Ok(());
        }
        let directory = if_there(plain::directory_in(&self.home, id.to_string()))?;
        let Some(directory) = directory else { return Ok(()) };
        if !Settings::is_there(&directory)? {
            return Ok(());
        }
        if named {
            return Settings { doomed: false, ..Settings::read(&directory)? }.write(&directory);
        }
        self.remove_log(id)?;
        self.opening.lock().remove(&id);
        Ok(())
    }

    /// Removes the logs of streams that are gone.
    pub(super) fn remove_doomed(&self, now: bool) {
        let ripe = |(since, stream): &mut (Instant, Arc<Stream>)| {
            let rested = now || since.elapsed() >= self.limits.removed_after;
            rested && stream.writers() == 0 && !stream.has_members()
        };
        let gone: Vec<_> = self.doomed.lock().extract_if(.., ripe).collect();
        for (_, stream) in gone {
            let opening = self.opening_of(stream.id);
            // Who opens it meanwhile would make anew what goes.
            let _opening = opening.lock();
            self.open.lock().remove(&stream.id);
            if let Err(e) = self.remove_log(stream.id) {
                log::warn!("the log of removed stream {} stays: {e}", stream.id);
            }
            self.opening.lock().remove(&stream.id);
        }
    }

    /// Bytes in no segment yet, where they take more of the memory than streams are to have: writers by the kernel's way
    /// are faster than they are sealed, and nothing slows them down.
    pub fn behind(&self) -> Option<u64> {
        let unsealed = self.all().iter().map(|stream| stream.unsealed_bytes()).sum();
        (unsealed > self.limits.hot_bytes).then_some(unsealed)
    }

    /// Makes everything durable that was appended. All streams are tried; the first that fails is the error.
    pub fn sync_all(&self) -> Result<()> {
        let mut synced = Ok(());
        for stream in self.all().iter().filter(|stream| !stream.is_doomed()) {
            synced = synced.and(stream.sync().map_err(|e| of_stream(stream.id, &stream.settings().path, e)));
        }
        synced
    }

    /// Ends the threads, as the death of the daemon would: what is not durable stays so.
    pub fn end_threads(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.offsets.set();
        self.full.set();
        self.uncopied.set();
        self.ended.set();
        *self.wanted.0.lock() = None;
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            let _ = thread.join();
        }
    }

    /// Ends the threads; everything is durable afterwards, or an error says what isn't.
    pub fn stop(&self) -> Result<()> {
        self.end_threads();
        self.remove_doomed(true);
        self.sync_all()?;
        // Nothing is left where there are no streams.
        let _ = fs::remove_dir(&self.home);
        Ok(())
    }
}

/// What is not there is none.
fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// An error of one of several streams.
fn of_stream(id: StreamId, path: &str, source: Error) -> Error {
    let stream = if path.is_empty() { id.to_string() } else { format!("{path} ({id})") };
    Error::Stream { stream, source: Box::new(source) }
}
