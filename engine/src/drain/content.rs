//! Copying the content of one file to the backing.
//!
//! 1. The arena file's state is read (size, time of last change), and whether anybody could change it (lease).
//! 2. Its data ranges are written: all of them to a new file beside when the content was replaced as a whole, else in
//!    place. Of a file that was drained while open only chunks whose checksum changed are written.
//! 3. Attributes follow, and where the caller asks for durability, fsync.
//! 4. If nobody could write, and the state is what it was, the file is clean. Otherwise it stays dirty, and what was
//!    written counts as one of the states it had.
//!
//! No lock is held while content is copied: names may move on the backing meanwhile, so paths are built anew.
//! The daemon never reads a mapping of the arena itself, only the kernel does, so that a file that is cut meanwhile
//! costs an error that is retried, not a signal.

use super::attributes::Times;
use super::{IDLE_MAX, RETRY_MAX, Turn};
use crate::arena::{ArenaStat, Content};
use crate::attr::Kind;
use crate::backing::{Owner, RenameMode, Stat, Way};
use crate::engine::{Engine, PRIVATE_DIRECTORY};
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Behind, Inode, OpenMode, Place, Xattrs, join_path};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use xxhash_rust::xxh3::xxh3_128;

/// Files copied at once. Each keeps eight blocks in flight, so two hide the gaps between files.
pub(super) const THREADS: usize = 2;
/// Files up to this size are written by the thread that makes their name: one pass, one path resolution.
pub(super) const WITH_NAME_BYTES_MAX: u64 = 256 << 10;
/// How the names of files in our private directory begin that are to replace others; the inode's number follows.
pub(crate) const BESIDE_PREFIX: &str = "beside-";
/// Unit of change detection in files that are drained while open. Smaller finds less to write, larger costs less memory.
const CHUNK_BYTES: u64 = 256 << 10;

/// One checksum a chunk.
type Checksums = Box<[u128]>;

/// How a drain found the content.
struct Source {
    content: Content,
    before: ArenaStat,
    /// Nobody could write when we began.
    quiet: bool,
    /// Changes counted when we began; see [`crate::namespace::FileState::touched`].
    touched: u64,
    /// All content was replaced since the last drain.
    replaced: bool,
    /// It leaves the arena: whoever moves it knows what is written meanwhile.
    moving: bool,
    owner: Owner,
    /// Checksums of what the last drain wrote of a file that stays open.
    chunks: Option<Box<[u128]>>,
}

impl Engine {
    pub(super) fn run_content(&self, work: &crossbeam_channel::Receiver<Ino>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let Ok(ino) = work.recv_timeout(IDLE_MAX) else { continue };
            let result = self.inode(ino).map_or(Ok(()), |inode| self.settle(&inode, false));
            self.settled(ino, result);
        }
    }

    /// Books the result of one try.
    fn settled(&self, ino: Ino, result: Result<()>) {
        let Err(e) = result else {
            let Ok(inode) = self.inode(ino) else { return self.drain.unmark(ino) };
            // Decided under the inode's lock: a writer that comes now finds it off the list and puts it there again.
            let state = inode.state.lock();
            return self.drain.tried(ino, !state.unsettled(), Instant::now() + RETRY_MAX);
        };
        self.drain.failed(ino);
        if self.inode(ino).map_or(true, |inode| inode.state.lock().nameless()) {
            // Its last name went while it was written: nothing of it is missing anywhere.
            return;
        }
        self.kept(ino, "not on the backing yet, kept in memory and retried", &e);
    }

    /// Remembers why a file is still in memory, for status and log.
    pub(crate) fn kept(&self, ino: Ino, how: &str, why: &Error) {
        self.drain.note(why);
        let path = self.path_of(ino).unwrap_or_default();
        let path = String::from_utf8_lossy(&path).escape_debug().to_string();
        self.drain.report(format!("{path}: {how}: {why}"));
    }

    /// Brings content and attributes of one object to the backing, where its name is. With `durable`, to stay.
    pub(crate) fn settle(&self, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let turn = self.drain.turn(inode.ino);
        self.settle_holding(&turn, inode, durable)
    }

    /// The same for who has the turn already.
    pub(crate) fn settle_holding(&self, _turn: &Turn<'_>, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        inode.state.lock().settling = true;
        let result = self.settle_in_turn(inode, durable);
        let nameless = {
            let mut state = inode.state.lock();
            state.settling = false;
            state.nameless()
        };
        if nameless {
            // Whoever needed it last left it to us.
            self.drop_if_unused(inode.ino);
        }
        result
    }

    fn settle_in_turn(&self, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let (dirty, place, named) = {
            let state = inode.state.lock();
            (state.file.dirty, state.file.place, !state.drained.is_empty())
        };
        if !named && inode.ino != Ino::ROOT {
            // Its name is still to come; whoever brings it, brings this.
            return Ok(());
        }
        match (inode.kind, dirty, place) {
            (Kind::File, true, Place::Arena) => return self.copy_content(inode, durable),
            (Kind::File, true, Place::Backing) => return self.sync_in_place(inode, durable),
            (Kind::Directory, ..) if self.oplog.concerns_directory(inode.ino) && !durable => {
                // Its times would be changed again by what waits.
                return Ok(());
            }
            _ => {}
        }
        let _shape = self.shape.read_recursive();
        let path = self.drained_path(inode.ino)?;
        self.apply_attributes(inode, &path, Times::IfChanged)?;
        {
            let stat = self.backing.stat(&path)?;
            let mut state = inode.state.lock();
            if state.file.place == Place::Empty {
                state.file.dirty = false;
            }
            state.set_baseline(Some(crate::engine::baseline(&stat)));
            self.journal.settled(inode.ino, &state);
        }
        if inode.kind == Kind::Directory {
            self.compare_from_now_on(inode.ino);
        }
        match inode.kind {
            Kind::File if durable => Ok(self.backing.sync_file(&self.backing.open_read(&path)?)?),
            Kind::Directory if durable => Ok(self.backing.sync_dir(&path)?),
            _ => Ok(()),
        }
    }

    /// A directory made here is on the backing now, where others may put names into it: from here on its listings are
    /// compared.
    fn compare_from_now_on(&self, ino: Ino) {
        let mtime = self.inode(ino).ok().and_then(|inode| inode.state.lock().baseline()).map(|b| b.mtime);
        if let (Some(mtime), Some(dir)) = (mtime, self.names.lock().dirs.get_mut(&ino)) {
            dir.validated.get_or_insert((Instant::now(), mtime));
        }
    }

    pub(super) fn copy_content(&self, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let (source, beside) = {
            let mut state = inode.state.lock();
            let content = self.arena.open_read(inode.ino)?;
            let before = content.stat()?;
            let served_by_us =
                matches!(state.file.epoch.as_ref().map(|e| &e.mode), Some(OpenMode::Daemon(_)));
            // While we serve the file we hold a descriptor that writes; but then every write marks it dirty again.
            let quiet = if served_by_us {
                state.file.writers() == 0 && !state.file.lingering
            } else {
                content.writers_gone()
            };
            if state.file.epoch.is_none() {
                state.file.lingering = !quiet;
            }
            if !served_by_us {
                state.fold(&before);
            }
            // Also of one whose last name went here, and is on the backing until the drain comes to that.
            let beside = state.file.replaced && state.attr.nlink <= 1 && state.drained.len() == 1;
            let replaced = std::mem::take(&mut state.file.replaced);
            let owner = Owner { uid: state.attr.uid, gid: state.attr.gid };
            let touched = state.file.touched;
            let chunks = state.file.chunks.take();
            let moving = state.file.epoch.as_ref().is_some_and(|epoch| epoch.moving.is_some());
            (Source { content, before, quiet, touched, replaced, moving, owner, chunks }, beside)
        };
        match self.make_way_and_write(inode, &source, beside, durable) {
            Ok(chunks) => self.conclude(inode, &source, chunks),
            Err(e) => {
                self.own_what_is_there(inode, source.replaced);
                Err(e)
            }
        }
    }

    /// After a failure the backing may hold a part of the content: our own doing, not somebody else's.
    pub(crate) fn own_what_is_there(&self, inode: &Inode, replaced: bool) {
        let stat = self.look_where_it_is(inode);
        let mut state = inode.state.lock();
        state.file.replaced |= replaced;
        if let Some(stat) = stat {
            state.set_baseline(Some(crate::engine::baseline(&stat)));
        }
    }

    /// What the backing has of it, under the name that it has by now: what had one when it was written may have another,
    /// and that may be another file's.
    fn look_where_it_is(&self, inode: &Inode) -> Option<Stat> {
        let _shape = self.shape.read_recursive();
        self.drained_path(inode.ino).ok().and_then(|path| self.backing.stat(&path).ok())
    }

    fn make_way_and_write(
        &self,
        inode: &Arc<Inode>,
        source: &Source,
        beside: bool,
        durable: bool,
    ) -> Result<Option<Checksums>> {
        let (outside, alone) = {
            let _shape = self.shape.read_recursive();
            let path = self.drained_path(inode.ino)?;
            let outside = self.changed_outside(inode, &path);
            if outside == Some(Outside::Changed) {
                self.keep_aside(&path)?;
                self.redate_parent(inode);
            }
            // Names that nobody looked up count too: all are to show the new content.
            let alone = self.backing.stat(&path).is_ok_and(|stat| stat.attr.nlink == 1);
            (outside, alone)
        };
        if (beside && alone) || outside.is_some() {
            self.write_beside(inode, source, durable).map(|()| None)
        } else {
            self.write_in_place(inode, source, durable)
        }
    }

    /// The content is written: is the file clean now?
    fn conclude(&self, inode: &Inode, source: &Source, chunks: Option<Box<[u128]>>) -> Result<()> {
        let stat = self.look_where_it_is(inode);
        let mut names = self.names.lock();
        let mut state = inode.state.lock();
        if let Some(stat) = stat {
            if let Some(before) = state.last_baseline().filter(|before| before.id != stat.id) {
                names.unbind(before.id, inode.ino);
            }
            state.set_baseline(Some(crate::engine::baseline(&stat)));
            names.bind(stat.id, inode.ino);
        }
        drop(names);
        state.file.chunks = chunks;
        let after = source.content.stat()?;
        let unchanged = source.before.stamp == after.stamp && state.file.touched == source.touched;
        if source.quiet && unchanged && state.file.place == Place::Arena && state.file.writers() == 0 {
            state.file.dirty = false;
            state.file.lingering = false;
            state.file.chunks = None;
            state.file.clean = Some(after.stamp);
        }
        let clean = state.file.clean.filter(|_| !state.file.dirty);
        self.journal.settled(inode.ino, &state);
        drop(state);
        if let Some(stamp) = clean {
            self.may_be_evicted(inode.ino, stamp.size);
        }
        Ok(())
    }

    /// Whether the backing's file is another than the one we last saw there.
    fn changed_outside(&self, inode: &Inode, path: &[u8]) -> Option<Outside> {
        let before = inode.state.lock().baseline()?;
        match self.backing.stat(path) {
            Ok(now)
                if now.id == before.id && (now.attr.size, now.attr.mtime) == (before.size, before.mtime) =>
            {
                None
            }
            Ok(_) => Some(Outside::Changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Outside::Gone),
            Err(_) => None,
        }
    }

    /// Writes the content to a new file in our private directory and renames it over the old one.
    fn write_beside(&self, inode: &Arc<Inode>, source: &Source, durable: bool) -> Result<()> {
        let beside = join_path(PRIVATE_DIRECTORY, format!("{BESIDE_PREFIX}{}", inode.ino.0).as_bytes());
        match self.backing.unlink(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let file = match self.backing.create(&beside, 0o600, source.owner) {
            // No private directory: an engine without a mount's set-up. In place then.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.write_in_place(inode, source, durable).map(|_| ());
            }
            other => other?,
        };
        let size = source.before.stamp.size;
        let ranges = data_ranges(source.content.file()?, size);
        let done = self
            .copy(&file, &source.content, &ranges, size)
            .and_then(|()| self.move_in(inode, &beside, &file));
        match done {
            Ok(()) => Ok(()),
            Err(e) => {
                let _ = self.backing.unlink(&beside);
                self.mark_all_attributes(inode)?;
                match e {
                    // The name is on another device than our private directory.
                    Error::NotSupported => self.write_in_place(inode, source, durable).map(|_| ()),
                    other => Err(other),
                }
            }
        }
    }

    /// Gives a file written beside its attributes and the name.
    fn move_in(&self, inode: &Arc<Inode>, beside: &[u8], file: &File) -> Result<()> {
        let _shape = self.shape.read_recursive();
        let path = self.drained_path(inode.ino)?;
        self.mark_all_attributes(inode)?;
        self.apply_attributes(inode, beside, Times::Ours)?;
        // Durable before it takes the name, whoever asks: a crash leaves the old content or the new, whole.
        self.backing.sync_file(file)?;
        // Before, so that nobody takes the backing's new times for news; and after, in case the directory was settled in
        // between.
        self.redate_parent(inode);
        let renamed = self.backing.rename(beside, &path, RenameMode::Replace);
        self.redate_parent(inode);
        match renamed {
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => Err(Error::NotSupported),
            other => Ok(other?),
        }
    }

    /// The backing is about to change a directory: its times here are the ones that count, and its entries are to be
    /// made durable by the next fsync that needs them.
    fn redate_parent(&self, inode: &Inode) {
        let parent = inode.state.lock().drained.first().map(|link| link.0);
        if let Some(parent) = parent.and_then(|parent| self.inode(parent).ok()) {
            let mut state = parent.state.lock();
            state.attr_dirty = true;
            self.journal.attributes(parent.ino, &state);
            drop(state);
            self.drain.mark(parent.ino);
            self.drain.unsynced(parent.ino);
        }
    }

    /// A new file has none of the old one's attributes.
    fn mark_all_attributes(&self, inode: &Arc<Inode>) -> Result<()> {
        self.load_xattrs_for_drain(inode)?;
        let mut state = inode.state.lock();
        state.attr_dirty = true;
        if let Xattrs::Known(known) = &mut state.xattrs {
            let names: Vec<_> = known.0.keys().cloned().collect();
            known.1.extend(names);
        }
        Ok(())
    }

    /// Writes the content into the file that is there; returns the checksums of its chunks where it is still being
    /// written.
    fn write_in_place(
        &self,
        inode: &Arc<Inode>,
        source: &Source,
        durable: bool,
    ) -> Result<Option<Checksums>> {
        let file = {
            let _shape = self.shape.read_recursive();
            let path = self.drained_path(inode.ino)?;
            match self.backing.open_write(&path, source.owner) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.backing.create(&path, 0o600, source.owner)?
                }
                other => other?,
            }
        };
        let size = source.before.stamp.size;
        let empty = file.metadata()?.len() == 0;
        let chunks = if let Some(known) = &source.chunks {
            Some(self.write_changed(&file, source.content.file()?, known, size)?)
        } else if source.quiet || source.moving {
            // Where the old file holds bytes, our holes must be written as zeros.
            let ranges = if empty { data_ranges(source.content.file()?, size) } else { one_range(size) };
            self.copy(&file, &source.content, &ranges, size)?;
            None
        } else {
            // Only what was written may be summed: a sum taken before may tell of what comes again later, and was
            // not what was copied. An empty file is zeros once it has its size; of another one nothing is known.
            let chunks = if empty { size.div_ceil(CHUNK_BYTES) } else { 0 };
            let zeros = vec![xxh3_128(&[0; CHUNK_BYTES as usize]); chunks as usize];
            Some(self.write_changed(&file, source.content.file()?, &zeros, size)?)
        };
        {
            let _shape = self.shape.read_recursive();
            self.apply_attributes(inode, &self.drained_path(inode.ino)?, Times::Ours)?;
        }
        if durable {
            self.backing.sync_file(&file)?;
        }
        Ok(chunks)
    }

    /// Writes the chunks whose checksum changed. What is summed is what is written, whatever happens meanwhile.
    fn write_changed(&self, to: &File, from: &File, known: &[u128], size: u64) -> Result<Box<[u128]>> {
        let mut buffer = vec![0; CHUNK_BYTES as usize];
        let mut sums = Vec::with_capacity(size.div_ceil(CHUNK_BYTES) as usize);
        // The page cache would be charged to us.
        let mut behind = Behind::default();
        for (i, at) in (0..size).step_by(CHUNK_BYTES as usize).enumerate() {
            let chunk = &mut buffer[..CHUNK_BYTES.min(size - at) as usize];
            crate::arena::read_exact_at(from, chunk, at)?;
            let sum = xxh3_128(chunk);
            // The last chunk that was known may have grown.
            if known.get(i) != Some(&sum) || i + 1 >= known.len() {
                to.write_all_at(chunk, at)?;
                self.drain.written.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                if let Some(out) = behind.note(at..at + chunk.len() as u64) {
                    self.backing.begin_write_out(to, out.begin)?;
                    out.end.map_or(Ok(()), |range| self.backing.end_write_out(to, range))?;
                    behind.done();
                }
            }
            sums.push(sum);
        }
        if to.metadata()?.len() != size {
            to.set_len(size)?;
        }
        Ok(sums.into())
    }

    /// Copies `ranges` of a file of the arena, and cuts `to` to `size`.
    pub(crate) fn copy(&self, to: &File, content: &Content, ranges: &[Range<u64>], size: u64) -> Result<()> {
        if ranges.is_empty() || size == 0 {
            return Ok(self.backing.copy_in(to, &[], &[], size, &|_, _| {})?);
        }
        // SAFETY: the mapping is given to system calls only, which report a file that shrank as EFAULT; no code of
        // ours reads it. See the module.
        let mapping = unsafe {
            memmap2::MmapOptions::new().len(size.next_multiple_of(4096) as usize).map(content.file()?)?
        };
        let count = |way, bytes| {
            self.drain.written.fetch_add(bytes, Ordering::Relaxed);
            if way == Way::Direct {
                self.drain.written_direct.fetch_add(bytes, Ordering::Relaxed);
            }
        };
        Ok(self.backing.copy_in(to, &mapping, ranges, size, &count)?)
    }
}

/// What happened to the backing's file without us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outside {
    Changed,
    Gone,
}

fn one_range(size: u64) -> Vec<Range<u64>> {
    if size == 0 { Vec::new() } else { std::iter::once(0..size).collect() }
}

/// The parts of a file that are not holes, rounded by the file system to its pages.
pub(super) fn data_ranges(file: &File, size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            // No seeking for data here: all of it.
            Err(_) => return one_range(size),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).unwrap_or(size).min(size);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if start < end => ranges.push(start..end),
            _ => {}
        }
        at = end.max(at + 1);
    }
    ranges
}
