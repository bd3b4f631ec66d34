//! One stream of a mount: its log, its groups, and who writes.

use super::ahead::Ahead;
use super::hub::Streams;
use super::members::{Piece, Waiting};
use super::pins::Pins;
use super::rate::Rate;
use super::summary::Stored;
use crate::Timestamp;
use crate::stream::group::{Counts, Group, MemberId};
use crate::stream::log::names::unused;
use crate::stream::log::{Copied, Listing};
use crate::stream::{Error, Framing, Log, Micros, Offset, Position, Result, Retention, Settings, StreamId};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Bytes indexed with the log borrowed once, so that readers get their turn.
const INDEX_STEP_BYTES: u64 = 8 << 20;
/// Bytes a second that writers through us get when memory for what is not sealed is used up: half of what is sealed.
const SLOW_BYTES: f64 = 200e6;
/// A pause of a writer is this long at least: a shorter one is added to the next.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest pause after one write.
const PAUSE_MAX: Duration = Duration::from_millis(200);

/// Where a group goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the first record that is retained.
    Earliest,
    /// Behind the last.
    Latest,
    /// At this record.
    Offset(Offset),
    /// At the first record that is not before.
    Time(Micros),
}

/// A stream as a file: the bytes from the first that is retained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// Position in the stream of the file's first byte.
    pub begin: Position,
    /// Size of the file in bytes.
    pub bytes: u64,
    /// When something was appended last, or what [`Stream::set_mtime`] was told since.
    pub mtime: Timestamp,
}

/// A stream at one moment, for [`Stream::inspect`].
#[derive(Debug)]
pub struct Moment<'a> {
    /// Its settings.
    pub settings: Settings,
    /// Its log.
    pub log: &'a Log,
    /// Its groups.
    pub groups: &'a BTreeMap<String, Group>,
    /// Handles that append.
    pub writers: u32,
    /// Records appended a second, over the last seconds.
    pub rate: f64,
    /// Bytes in memory.
    pub memory_bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    pub(super) id: StreamId,
    pub(super) directory: PathBuf,
    pub(super) hub: Weak<Streams>,
    /// A leaf lock, like `framing` beside it not held across I/O: threads that read requests look at them.
    settings: Mutex<Settings>,
    framing: Framing,
    pub(super) log: RwLock<Log>,
    pub(super) copied: Mutex<Copied>,
    pub(super) groups: Mutex<BTreeMap<String, Group>>,
    pub(super) waiting: Mutex<Vec<Waiting>>,
    pub(super) polling: Polling,
    pub(super) ahead: Ahead,
    /// Members that are within a long record.
    pub(super) pieces: Mutex<HashMap<MemberId, Piece>>,
    /// The active file, for appends that come to us.
    writer: Mutex<Option<File>>,
    active_file: Arc<File>,
    /// Held while settings or group files are written, so that the last one written says the last.
    saving: Mutex<()>,
    /// Causes to look at who waits, so far.
    pub(super) causes: AtomicU64,
    /// Held while a writer comes, and while the last one's tail is set aside: nobody appends then.
    writers: Mutex<Writers>,
    members: AtomicU64,
    /// On the service's list of streams that are looked at.
    pub(super) awake: AtomicBool,
    /// Group offsets changed since they were written down.
    pub(super) unsaved: AtomicBool,
    /// Bytes came since the last copy.
    pub(super) uncopied: AtomicBool,
    /// Its active records come to a segment.
    pub(super) full: AtomicBool,
    /// Something is to be done from time to time: retention, or late members.
    pub(super) chores: AtomicBool,
    /// To be removed once nobody uses it.
    pub(super) doomed: AtomicBool,
    /// When the service was last woken for it.
    pub(super) woken: Mutex<Option<Instant>>,
    /// It is looked at by time, and needs no watch.
    pub(super) quick: AtomicBool,
    /// The first byte that was retained when it was opened.
    opened_at: Position,
    /// Behind the last byte when the service looked.
    pub(super) end_looked_at: AtomicU64,
    /// How much of the active file's front was given back.
    pub(super) punched: Mutex<u64>,
    /// Behind the last byte that is durable on the backing.
    pub(super) flushed: AtomicU64,
    pub(super) stored: Stored,
    /// What of the active file is lent.
    pub(super) pins: Pins,
    rate: Mutex<Rate>,
    /// What writers through us are to be held up.
    owed: Mutex<Duration>,
    /// Bytes that can't be divided were reported.
    refusal_told: AtomicBool,
}

/// Appends all of `data`, or what there is room for: nothing at all is an error. Returns where the first byte is, and how
/// many there are.
fn write_some(file: &mut File, data: &[u8]) -> io::Result<(u64, usize)> {
    let (mut at, mut done) = (0, 0);
    while done < data.len() {
        match file.write(&data[done..]) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if done == 0 => return Err(e),
            Ok(0) | Err(_) => break,
            Ok(bytes) => {
                if done == 0 {
                    // Where the end was by then: O_APPEND leaves the descriptor's position behind what it wrote.
                    at = file.stream_position()? - bytes as u64;
                }
                done += bytes;
            }
        }
    }
    Ok((at, done))
}

/// See [`Stream::pause_after`].
fn pause(bytes: u64, unsealed: u64, share: u64) -> Duration {
    let half = (share / 2).max(1);
    let over = unsealed.saturating_sub(half) as f64 / half as f64;
    Duration::from_secs_f64((bytes as f64 / SLOW_BYTES * over).min(PAUSE_MAX.as_secs_f64()))
}

fn has_chores(settings: &Settings) -> bool {
    settings.ack_timeout.is_some() || settings.retention != Retention::default()
}

/// Handles that append.
#[derive(Debug, Default)]
struct Writers {
    /// Through the kernel.
    passed_through: u32,
    /// Through us.
    served: u32,
}

/// A member of a group, and what is to be called when it has records.
type Poll = (Arc<str>, MemberId, Box<dyn FnOnce() + Send>);

/// Who polls.
#[derive(Default)]
pub(super) struct Polling(Mutex<Vec<Poll>>);

impl std::ops::Deref for Polling {
    type Target = Mutex<Vec<Poll>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::fmt::Debug for Polling {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} who poll", self.0.lock().len())
    }
}

impl Stream {
    /// Opens the log in `directory` with its active file in `active`.
    pub(super) fn open(
        id: StreamId,
        directory: &Path,
        active: &Path,
        hub: Weak<Streams>,
    ) -> Result<Arc<Stream>> {
        let settings = Settings::read(directory)?;
        let listing = Listing::of(directory)?;
        let mut log = Log::open_apart(&listing, active, settings.log)?;
        let copied = Copied::open(&log, &listing)?;
        // What a dead daemon's members did not acknowledge is given again from where it was written down.
        let mut groups = BTreeMap::new();
        for name in listing.groups() {
            match Group::read(directory, name) {
                Ok(group) => {
                    groups.insert(name.clone(), group);
                }
                Err(e) => {
                    log::warn!("{e}: it is put aside, and the group begins anew");
                    let file = Group::path(directory, name);
                    fs::rename(&file, unused(&file.with_extension("group.damaged")))?;
                }
            }
        }
        let uncopied = log.news()?.end() > copied.end();
        let (records, flushed) = (log.end().0.0, copied.end());
        for (name, group) in &mut groups {
            if group.committed() > records {
                // Acknowledged, and lost with the node's memory: other records will have those offsets, and must not be
                // passed over if power is lost again.
                group.seek(records);
                Group::write(directory, name, records, group.counts())?;
                group.saved(records);
            }
        }
        Ok(Arc::new(Stream {
            id,
            directory: directory.into(),
            hub,
            active_file: log.active_file(),
            opened_at: log.first().1,
            log: RwLock::new(log),
            copied: Mutex::new(copied),
            groups: Mutex::new(groups),
            waiting: Mutex::default(),
            polling: Polling::default(),
            ahead: Ahead::default(),
            pieces: Mutex::default(),
            end_looked_at: AtomicU64::new(0),
            writer: Mutex::default(),
            writers: Mutex::default(),
            saving: Mutex::default(),
            causes: AtomicU64::new(0),
            members: AtomicU64::new(1),
            awake: AtomicBool::new(false),
            unsaved: AtomicBool::new(true),
            uncopied: AtomicBool::new(uncopied),
            full: AtomicBool::new(true),
            chores: AtomicBool::new(has_chores(&settings)),
            framing: settings.log.framing,
            settings: Mutex::new(settings),
            doomed: AtomicBool::new(false),
            woken: Mutex::new(None),
            quick: AtomicBool::new(false),
            punched: Mutex::new(0),
            flushed: AtomicU64::new(flushed),
            stored: Stored::default(),
            pins: Pins::default(),
            rate: Mutex::new(Rate::new(records)),
            owed: Mutex::default(),
            refusal_told: AtomicBool::new(false),
        }))
    }

    /// Its id.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Its settings.
    pub fn settings(&self) -> Settings {
        self.settings.lock().clone()
    }

    /// How it is divided into records.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Changes what may change on a stream with data: retention, the time to acknowledge, where it is.
    pub fn change_settings(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let _saving = self.saving.lock();
        let old = self.settings();
        let mut new = old.clone();
        change(&mut new);
        new.log = old.log;
        if new != old {
            new.write(&self.directory)?;
            self.chores.store(has_chores(&new), Ordering::Relaxed);
            if let Some(hub) = self.hub.upgrade().filter(|_| has_chores(&new)) {
                hub.chores.store(true, Ordering::Relaxed);
            }
            *self.settings.lock() = new;
        }
        Ok(())
    }

    /// The first byte that was retained when it was opened.
    pub fn opened_at(&self) -> Position {
        self.opened_at
    }

    /// Whether its front goes some day.
    pub fn loses_front(&self) -> bool {
        self.settings.lock().retention != Retention::default()
    }

    /// The active file, for reading. While the mount lives it is one file.
    pub fn active_file(&self) -> Arc<File> {
        Arc::clone(&self.active_file)
    }

    /// The stream as a file.
    pub fn view(&self) -> Result<View> {
        let log = self.log.read();
        let begin = log.first().1;
        let end = log.end_of_bytes()?;
        drop(log);
        let told = self.settings.lock().mtime.filter(|told| told.0 == end);
        let mtime = match told {
            Some((_, told)) => told,
            None => self.active_file.metadata()?.modified()?.into(),
        };
        Ok(View { begin, bytes: end.0 - begin.0, mtime })
    }

    /// Sets the time of change, durably, as utimensat(2) does; the next append sets it anew.
    pub fn set_mtime(&self, mtime: Timestamp) -> Result<()> {
        let end = self.log.read().end_of_bytes()?;
        self.change_settings(|settings| settings.mtime = Some((end, mtime)))
    }

    /// Reads the file's bytes from a position of the stream on; 0 at the end.
    pub fn read_at(&self, from: Position, into: &mut [u8]) -> Result<usize> {
        self.index_news();
        let log = self.log.read();
        let end = log.end().1;
        let mut done = 0;
        if from < end {
            done = log.read_bytes(from, into)?;
        }
        let at = Position(from.0 + done as u64);
        if done < into.len() && at >= end {
            done += log.read_pending(at, &mut into[done..])?;
        }
        Ok(done)
    }

    /// Appends what one write(2) brought, or as much as there is room for; returns how much. An error means nothing.
    pub fn append(self: &Arc<Self>, data: &[u8]) -> Result<usize> {
        self.append_at(data).map(|(_, bytes)| bytes)
    }

    /// The same; also says where the first byte is, whoever else appended meanwhile.
    pub fn append_at(self: &Arc<Self>, data: &[u8]) -> Result<(Position, usize)> {
        let appended = if self.framing() == Framing::Write {
            let mut log = self.log.write();
            let position = log.end().1;
            log.append(data, Micros::now())?;
            (position, data.len())
        } else {
            let (at, bytes) = self.write_to_active(data)?;
            (self.log.read().position_at(at), bytes)
        };
        self.has_news();
        if self.is_awaited() {
            self.index_news();
            self.answer_waiting();
        }
        self.wake();
        Ok(appended)
    }

    /// Appends to the active file; returns where in it, and how much.
    fn write_to_active(&self, data: &[u8]) -> io::Result<(u64, usize)> {
        let mut writer = self.writer.lock();
        // Its name changes with each seal.
        let path = format!("/proc/self/fd/{}", self.active_file.as_raw_fd());
        let file = match &mut *writer {
            Some(file) => file,
            none => none.insert(OpenOptions::new().append(true).open(path)?),
        };
        write_some(file, data)
    }

    /// How long whoever appended so many bytes through us is to wait for the answer, so that memory is not filled faster
    /// than segments are sealed: nothing while half of its share is free, then more and more.
    pub fn pause_after(&self, bytes: usize) -> Option<Duration> {
        let share = self.hub.upgrade()?.limits.hot_bytes;
        let pause = pause(bytes as u64, self.log.read().unsealed_bytes(), share);
        if pause.is_zero() {
            return None;
        }
        let mut owed = self.owed.lock();
        *owed += pause;
        (*owed >= PAUSE_MIN).then(|| std::mem::take(&mut *owed).min(PAUSE_MAX))
    }

    /// Bytes that are in memory alone, or in the copy of the tail, but in no segment.
    pub fn unsealed_bytes(&self) -> u64 {
        self.log.read().unsealed_bytes()
    }

    /// Bytes came that the backing does not have.
    pub(super) fn has_news(&self) {
        if !self.uncopied.swap(true, Ordering::Relaxed)
            && let Some(hub) = self.hub.upgrade()
        {
            hub.appended.store(true, Ordering::Relaxed);
            hub.uncopied.set();
        }
    }

    /// Enters what had come to the active file at the time of the call; returns how many records that were.
    pub fn index_news(&self) -> u64 {
        let mut records = 0;
        let Ok(length) = self.active_file.metadata().map(|m| m.len()) else { return records };
        loop {
            let mut log = {
                let log = self.log.upgradable_read();
                if log.seen() >= length || !log.is_splitting() {
                    return records;
                }
                parking_lot::RwLockUpgradableReadGuard::upgrade(log)
            };
            match log.index_some(Micros::now(), INDEX_STEP_BYTES) {
                Ok(new) => records += new,
                Err(e) => {
                    log::warn!("what came to stream {} can't be indexed: {e}", self.id);
                    return records;
                }
            }
            self.has_news();
        }
    }

    /// A handle that appends is opened, through the kernel or through us. False: through the kernel it may not, since
    /// somebody else appends, and records of this framing would be torn.
    pub fn writer_opened(&self, passed_through: bool) -> bool {
        let many = self.framing() == Framing::Line;
        let mut writers = self.writers.lock();
        if writers.passed_through + writers.served == 0 {
            // What a writer left that nobody saw close.
            self.index_news();
            self.set_tail_aside();
        }
        if !passed_through {
            writers.served += 1;
        } else if many || writers.passed_through + writers.served == 0 {
            writers.passed_through += 1;
        } else {
            return false;
        }
        true
    }

    /// A handle that appended before this daemon began still does: what is no whole record at the end may be its, and half
    /// way.
    pub fn writer_taken_up(&self, passed_through: bool) {
        let mut writers = self.writers.lock();
        if passed_through {
            writers.passed_through += 1;
        } else {
            writers.served += 1;
        }
    }

    /// It is closed. With the last, what is no whole record goes aside, except of a line, which may be
    /// continued.
    pub fn writer_closed(self: &Arc<Self>, passed_through: bool) {
        self.wake();
        let mut writers = self.writers.lock();
        let count = if passed_through { &mut writers.passed_through } else { &mut writers.served };
        *count = count.saturating_sub(1);
        if writers.passed_through + writers.served > 0 {
            return;
        }
        *self.writer.lock() = None;
        self.index_news();
        self.log.write().close_writer();
        self.set_tail_aside();
    }

    /// Nobody appends: bytes at the end that are no record, and can't become one, go aside.
    fn set_tail_aside(&self) {
        let mut log = self.log.write();
        if self.framing() == Framing::Line && !log.is_refused() {
            return;
        }
        match log.set_tail_aside() {
            Ok(0) => {}
            Ok(bytes) => {
                self.refusal_told.store(false, Ordering::Relaxed);
                log::warn!("{bytes} bytes at the end of stream {} are no record and were set aside", self.id);
                self.has_news();
            }
            Err(e) => log::warn!("the torn tail of stream {} can't be set aside: {e}", self.id),
        }
    }

    /// Whether the coming of the first writer, or the closing of the last, waits for storage: bytes go aside then, or
    /// another thread is at it.
    pub fn writers_wait(&self) -> bool {
        let Some(writers) = self.writers.try_lock() else { return true };
        if writers.passed_through + writers.served > 1 {
            return false;
        }
        self.index_news();
        let log = self.log.read();
        (self.framing != Framing::Line || log.is_refused())
            && log.end_of_bytes().is_ok_and(|end| end > log.end().1)
    }

    /// Says, once, that a writer appends what can't be divided into records.
    pub(super) fn tell_of_refusal(&self) {
        let (refused, end) = {
            let log = self.log.read();
            (log.is_refused(), log.end())
        };
        if refused && !self.refusal_told.swap(true, Ordering::Relaxed) {
            log::warn!(
                "what was appended to stream {} from byte {} on is no {} record, nor is anything behind it until all \
                 writers have closed it: end the program that wrote that",
                self.id,
                end.1.0,
                self.framing
            );
        }
    }

    /// Handles that append.
    pub fn writers(&self) -> u32 {
        let writers = self.writers.lock();
        writers.passed_through + writers.served
    }

    /// A member joins a group, which is made, durably, if it is new.
    pub fn join(&self, group: &str) -> io::Result<MemberId> {
        if let Some(member) = self.join_at_once(group) {
            return Ok(member);
        }
        let _saving = self.saving.lock();
        if !self.has_group(group) {
            let start = self.log.read().first().0.0;
            Group::write(&self.directory, group, start, Counts::default())?;
            let mut new = Group::new(group, start);
            new.saved(start);
            self.groups.lock().insert(group.into(), new);
        }
        Ok(self.join_at_once(group).expect("it is there, and who removes groups waits"))
    }

    fn join_at_once(&self, group: &str) -> Option<MemberId> {
        let mut groups = self.groups.lock();
        let group = groups.get_mut(group)?;
        let member = MemberId(self.members.fetch_add(1, Ordering::Relaxed));
        group.join(member);
        Some(member)
    }

    /// A member leaves; what it did not acknowledge goes to others.
    pub fn leave(self: &Arc<Self>, group: &str, member: MemberId) {
        self.pieces.lock().remove(&member);
        self.polling.lock().retain(|(_, other, _)| *other != member);
        let returned = self.groups.lock().get_mut(group).is_some_and(|group| group.leave(member));
        self.offsets_changed();
        if returned {
            self.answer_waiting();
        }
    }

    /// Whether there is such a group.
    pub fn has_group(&self, group: &str) -> bool {
        self.groups.lock().contains_key(group)
    }

    /// Lets a group, which is made if it is new, go on elsewhere; returns the offset.
    pub fn seek(self: &Arc<Self>, group: &str, to: Start) -> Result<Offset> {
        let _saving = self.saving.lock();
        self.index_news();
        let (first, end) = {
            let log = self.log.read();
            (log.first().0, log.end().0)
        };
        let offset = match to {
            Start::Earliest => first,
            Start::Latest => end,
            Start::Offset(offset) if offset < first || offset > end => {
                return Err(Error::OutOfRange { offset, first, end });
            }
            Start::Offset(offset) => offset,
            Start::Time(time) => self.log.read().offset_at_time(time)?,
        };
        let counts = self.groups.lock().get(group).map(Group::counts).unwrap_or_default();
        Group::write(&self.directory, group, offset.0, counts)?;
        {
            let mut groups = self.groups.lock();
            let entry = groups.entry(group.into()).or_insert_with(|| Group::new(group, offset.0));
            entry.seek(offset.0);
            entry.saved(offset.0);
        }
        self.answer_waiting();
        Ok(offset)
    }

    /// Removes a group; its members get errors. False if there is none.
    pub fn remove_group(self: &Arc<Self>, group: &str) -> io::Result<bool> {
        let _saving = self.saving.lock();
        if self.groups.lock().remove(group).is_none() {
            return Ok(false);
        }
        match fs::remove_file(Group::path(&self.directory, group)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        self.ahead.remove(group);
        self.answer_waiting();
        Ok(true)
    }

    /// Makes what was appended, and the groups' offsets, durable on the backing.
    pub fn sync(&self) -> Result<()> {
        self.index_news();
        self.copy_news()?;
        self.save_offsets()?;
        Ok(())
    }

    /// Copies what is new to the log's directory.
    pub(super) fn copy_news(&self) -> Result<()> {
        let mut copied = self.copied.lock();
        self.uncopied.store(false, Ordering::Relaxed);
        let news = self.log.write().news()?;
        copied.bring_up_to_date(&news).inspect_err(|_| {
            self.log.write().news_failed(&news);
            self.has_news();
        })?;
        self.flushed.store(news.end(), Ordering::Relaxed);
        Ok(())
    }

    /// Writes group offsets down that changed.
    pub fn save_offsets(&self) -> io::Result<()> {
        let _saving = self.saving.lock();
        self.unsaved.store(false, Ordering::Relaxed);
        let unsaved: Vec<(String, u64, Counts)> = {
            let groups = self.groups.lock();
            groups.values().filter_map(|g| Some((g.name().into(), g.unsaved()?, g.counts()))).collect()
        };
        for (name, committed, counts) in unsaved {
            Group::write(&self.directory, &name, committed, counts)
                .inspect_err(|_| self.unsaved.store(true, Ordering::Relaxed))?;
            if let Some(group) = self.groups.lock().get_mut(&name) {
                group.saved(committed);
            } else {
                // Removed meanwhile.
                let _ = fs::remove_file(Group::path(&self.directory, &name));
            }
        }
        Ok(())
    }

    /// Takes batches back that members hold longer than the stream allows.
    pub fn take_back_late(self: &Arc<Self>) {
        let Some(timeout) = self.settings.lock().ack_timeout else { return };
        let Some(deadline) = Instant::now().checked_sub(timeout) else { return };
        let any = self.groups.lock().values_mut().fold(false, |any, group| group.take_back(deadline) | any);
        if any {
            self.answer_waiting();
        }
    }

    /// The first record that some group still needs.
    pub(super) fn acknowledged(&self) -> Option<Offset> {
        self.groups.lock().values().map(Group::committed).min().map(Offset)
    }

    /// Shows `look` the stream as it is now.
    pub fn inspect<T>(&self, look: impl FnOnce(&Moment<'_>) -> T) -> T {
        self.index_news();
        let writers = self.writers();
        let groups = self.groups.lock();
        let log = self.log.read();
        let rate = self.rate.lock().note(Instant::now(), log.end().0.0);
        look(&Moment {
            settings: self.settings.lock().clone(),
            log: &log,
            groups: &groups,
            writers,
            rate,
            memory_bytes: log.hot_bytes() + log.active_bytes(),
        })
    }

    /// Removes segments whose records are all before `offset`; returns how many records went.
    pub fn trim_before(&self, offset: Offset) -> Result<u64> {
        Ok(self.log.write().trim_before(offset)?.records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_slowed_smoothly_and_below_what_is_sealed() {
        let share = 1 << 30;
        assert_eq!(pause(1 << 20, share / 2, share), Duration::ZERO);
        let bytes_a_second = |unsealed| f64::from(1 << 20) / pause(1 << 20, unsealed, share).as_secs_f64();
        assert!(bytes_a_second(share / 2 + share / 100) > 5e9, "hardly at first");
        assert!((bytes_a_second(share) / SLOW_BYTES - 1.0).abs() < 0.01);
        assert!(bytes_a_second(2 * share) < SLOW_BYTES / 2.0, "and more when that was not enough");
        assert_eq!(pause(1 << 30, u64::MAX, 0), PAUSE_MAX);
    }
}
