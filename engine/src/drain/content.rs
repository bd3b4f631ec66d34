//! Copying the content of one file to the backing.
//!
//! 1. The arena file's state is read (size, time of last change), and whether anybody could change it (lease).
//! 2. Its data ranges are written: all of them to a new file beside when the content was replaced as a whole, else in
//!    place. Of a file that was drained while open only chunks whose checksum changed are written.
//! 3. Attributes follow, and where the caller asks for durability, fsync.
//! 4. If nobody could write, and the state is what it was, the file is clean. Otherwise it stays dirty, and what was
//!    written counts as one of the states it had.
//!
//! Checksums are taken before a chunk is written: whatever changes in between is found different the next time.
//! The daemon never reads a mapping of the arena itself, only the kernel does, so that a file that is cut meanwhile
//! costs an error that is retried, not a signal.

use super::{RETRY_FIRST, RETRY_MAX};
use crate::arena::{ArenaStat, Content};
use crate::attr::Kind;
use crate::backing::{Owner, RenameMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Inode, OpenMode, Place};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use xxhash_rust::xxh3::xxh3_128;

/// Files copied at once. Each keeps eight blocks in flight, so two hide the gaps between files.
pub(super) const THREADS: usize = 2;
/// Files up to this size are written by the thread that makes their name: one pass, one path resolution.
pub(super) const WITH_NAME_BYTES_MAX: u64 = 256 << 10;
/// Unit of change detection in files that are drained while open. Smaller finds less to write, larger costs less memory.
const CHUNK_BYTES: u64 = 256 << 10;

/// How a drain found the content.
struct Source {
    content: Content,
    before: ArenaStat,
    /// Nobody could write when we began.
    quiet: bool,
}

impl Engine {
    pub(super) fn run_content(&self, work: &crossbeam_channel::Receiver<Ino>) {
        while !self.stopping.load(Ordering::Relaxed) {
            let Ok(ino) = work.recv_timeout(Duration::from_millis(200)) else { continue };
            let result = self.inode(ino).map_or(Ok(()), |inode| self.settle(&inode, false));
            self.settled(ino, result);
        }
    }

    /// Books the result of one try.
    fn settled(&self, ino: Ino, result: Result<()>) {
        let unsettled = self.inode(ino).is_ok_and(|inode| inode.state.lock().unsettled());
        let mut dirty = self.drain.dirty.lock();
        match result {
            Ok(()) if !unsettled => {
                dirty.remove(&ino);
            }
            Ok(()) => {
                if let Some(due) = dirty.get_mut(&ino) {
                    (due.queued, due.failures) = (false, 0);
                    due.at = Some(Instant::now() + RETRY_MAX);
                }
            }
            Err(e) => {
                if let Some(due) = dirty.get_mut(&ino) {
                    due.queued = false;
                    due.failures += 1;
                    due.at = Some(Instant::now() + (RETRY_FIRST * (1 << due.failures.min(5))).min(RETRY_MAX));
                }
                self.drain.note(&e);
                drop(dirty);
                let path = self.path_of(ino).unwrap_or_default();
                let path = String::from_utf8_lossy(&path).escape_debug().to_string();
                self.drain.report(format!("{path}: not on the backing yet, kept in memory and retried: {e}"));
            }
        }
    }

    /// Brings content and attributes of one object to the backing, where its name is. With `durable`, to stay.
    pub(crate) fn settle(&self, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let _turn = self.drain.turn(inode.ino);
        let _shape = self.shape.read();
        let Ok(path) = self.drained_path(inode.ino) else {
            // Its name is still to come; whoever brings it, brings this.
            return Ok(());
        };
        if inode.kind != Kind::File {
            if inode.kind == Kind::Directory && self.oplog.concerns_directory(inode.ino) && !durable {
                // Its times would be changed again by what waits.
                return Ok(());
            }
            self.apply_attributes(inode, &path, false)?;
            self.journal.clean(inode.ino);
            return if durable && inode.kind == Kind::Directory { Ok(self.backing.sync_dir(&path)?) } else { Ok(()) };
        }
        let (dirty, place) = {
            let state = inode.state.lock();
            (state.file.dirty, state.file.place)
        };
        match (dirty, place) {
            (true, Place::Arena) => self.copy_content(inode, path, durable),
            (true, Place::Backing) => self.sync_in_place(inode, &path, durable),
            (true, Place::Empty) | (false, _) => {
                self.apply_attributes(inode, &path, false)?;
                {
                    let mut state = inode.state.lock();
                    if state.file.place == Place::Empty {
                        state.file.dirty = false;
                    }
                    self.rebase(&mut state, &path)?;
                }
                self.journal.clean(inode.ino);
                if durable { Ok(self.backing.sync_file(&self.backing.open_read(&path)?)?) } else { Ok(()) }
            }
        }
    }

    /// A file whose content was written to the backing's own file: only durability is missing.
    fn sync_in_place(&self, inode: &Arc<Inode>, path: &[u8], durable: bool) -> Result<()> {
        {
            let mut state = inode.state.lock();
            self.fold(inode.ino, &mut state);
        }
        self.apply_attributes(inode, path, false)?;
        if durable {
            self.backing.sync_file(&self.backing.open_read(path)?)?;
        }
        let mut state = inode.state.lock();
        if state.file.writers() == 0 {
            state.file.dirty = false;
            state.file.dirty_since = None;
        }
        self.rebase(&mut state, path)
    }

    /// Remembers what the backing holds now as in step with us.
    fn rebase(&self, state: &mut crate::namespace::InodeState, path: &[u8]) -> Result<()> {
        let stat = self.backing.stat(path)?;
        state.baseline = Some(crate::engine::baseline(&stat));
        Ok(())
    }

    fn copy_content(&self, inode: &Arc<Inode>, path: Vec<u8>, durable: bool) -> Result<()> {
        let (source, beside, owner, chunks) = {
            let mut state = inode.state.lock();
            let content = self.arena.open_read(inode.ino)?;
            let before = content.stat()?;
            let served_by_us = matches!(state.file.epoch.as_ref().map(|e| &e.mode), Some(OpenMode::Daemon(_)));
            // While we serve the file we hold a descriptor that writes; but then every write marks it dirty again.
            let quiet = if served_by_us { state.file.writers() == 0 } else { content.writers_gone() };
            if state.file.epoch.is_none() {
                state.file.lingering = !quiet;
            }
            if !served_by_us {
                state.fold(&before);
            }
            let beside = state.file.replaced && state.attr.nlink == 1 && state.drained.len() == 1;
            let owner = Owner { uid: state.attr.uid, gid: state.attr.gid };
            (Source { content, before, quiet }, beside, owner, state.file.chunks.take())
        };
        let outside = self.changed_outside(inode, &path);
        if outside == Some(Outside::Changed) {
            self.keep_aside(&path)?;
        }
        let target_gone = outside.is_some();
        let written = if beside || target_gone {
            self.write_beside(inode, &path, &source, owner, durable).map(|()| None)
        } else {
            self.write_in_place(inode, &path, &source, owner, durable, chunks)
        };
        let chunks = match written {
            Ok(chunks) => chunks,
            Err(e) => {
                // The backing may hold a part of it: our own doing, not somebody else's.
                inode.state.lock().baseline = None;
                return Err(e);
            }
        };
        let after = source.content.stat()?;
        let mut names = self.names.lock();
        let mut state = inode.state.lock();
        self.rebase(&mut state, &path)?;
        if let Some(baseline) = state.baseline {
            names.bind(baseline.id, inode.ino);
        }
        drop(names);
        state.file.chunks = chunks;
        state.file.replaced = false;
        let unchanged = source.before.stamp == after.stamp && state.file.place == Place::Arena;
        if source.quiet && unchanged && state.file.writers() == 0 {
            state.file.dirty = false;
            state.file.dirty_since = None;
            state.file.lingering = false;
            state.file.chunks = None;
            state.file.clean = Some(after.stamp);
            self.journal.clean(inode.ino);
        }
        Ok(())
    }

    /// Whether the backing's file is another than the one we last saw there.
    fn changed_outside(&self, inode: &Inode, path: &[u8]) -> Option<Outside> {
        let before = inode.state.lock().baseline?;
        match self.backing.stat(path) {
            Ok(now) if now.id == before.id && (now.attr.size, now.attr.mtime) == (before.size, before.mtime) => None,
            Ok(_) => Some(Outside::Changed),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Some(Outside::Gone),
            Err(_) => None,
        }
    }

    /// Writes the content to a new file in our private directory and renames it over the old one.
    fn write_beside(&self, inode: &Arc<Inode>, path: &[u8], source: &Source, owner: Owner, durable: bool) -> Result<()> {
        let beside = format!(".aimss/beside-{}", inode.ino.0).into_bytes();
        match self.backing.unlink(&beside) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
        let file = match self.backing.create(&beside, 0o600, owner) {
            // No private directory: an engine without a mount's set-up. In place then.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return self.write_in_place(inode, path, source, owner, durable, None).map(|_| ());
            }
            other => other?,
        };
        let size = source.before.stamp.size;
        let ranges = data_ranges(source.content.file(), size)?;
        let done = self.copy(&beside, &file, &source.content, &ranges, size).and_then(|()| {
            self.mark_all_attributes(inode);
            self.apply_attributes(inode, &beside, true)?;
            // Durable before it takes the name, whoever asks: a crash leaves the old content or the new, whole.
            self.backing.sync_file(&file)?;
            self.redate_parent(inode);
            match self.backing.rename(&beside, path, RenameMode::Replace) {
                Err(e) if e.raw_os_error() == Some(libc::EXDEV) => Err(Error::NotSupported),
                other => Ok(other?),
            }
        });
        match done {
            Ok(()) => Ok(()),
            Err(e) => {
                let _ = self.backing.unlink(&beside);
                inode.state.lock().attr_dirty = true;
                match e {
                    // The name is on another device than our private directory.
                    Error::NotSupported => {
                        self.write_in_place(inode, path, source, owner, durable, None).map(|_| ())
                    }
                    other => Err(other),
                }
            }
        }
    }

    /// The backing is about to date a directory anew; its times here are the ones that count.
    fn redate_parent(&self, inode: &Inode) {
        let parent = inode.state.lock().drained.first().map(|link| link.0);
        if let Some(parent) = parent.and_then(|parent| self.inode(parent).ok()) {
            parent.state.lock().attr_dirty = true;
            self.drain.mark(parent.ino);
        }
    }

    /// A new file has none of the old one's attributes.
    fn mark_all_attributes(&self, inode: &Arc<Inode>) {
        let _ = self.load_xattrs_for_drain(inode);
        let mut state = inode.state.lock();
        state.attr_dirty = true;
        if let crate::namespace::Xattrs::Known(known) = &mut state.xattrs {
            known.1 = known.0.keys().cloned().collect();
        }
    }

    fn write_in_place(
        &self,
        inode: &Arc<Inode>,
        path: &[u8],
        source: &Source,
        owner: Owner,
        durable: bool,
        known: Option<Box<[u128]>>,
    ) -> Result<Option<Box<[u128]>>> {
        let file = match self.backing.open_write(path, owner) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.backing.create(path, 0o600, owner)?,
            other => other?,
        };
        let size = source.before.stamp.size;
        let held = file.metadata()?.len();
        // Where the old file holds bytes, our holes must be written as zeros.
        let mut ranges = if held == 0 { data_ranges(source.content.file(), size)? } else { one_range(size) };
        let mut chunks = None;
        if !source.quiet || known.is_some() {
            let now = checksums(source.content.file(), size)?;
            if let Some(known) = &known {
                ranges = changed_chunks(known, &now, size);
            }
            chunks = Some(now);
        }
        self.copy(path, &file, &source.content, &ranges, size)?;
        self.apply_attributes(inode, path, true)?;
        if durable {
            self.backing.sync_file(&file)?;
        }
        Ok(chunks)
    }

    fn copy(&self, path: &[u8], to: &File, content: &Content, ranges: &[Range<u64>], size: u64) -> Result<()> {
        if ranges.is_empty() || size == 0 {
            return Ok(self.backing.copy_in(path, to, &[], &[], size, &|_| {})?);
        }
        // SAFETY: the mapping is given to system calls only, which report a file that shrank as EFAULT; no code of
        // ours reads it. See the module.
        let mapping = unsafe { memmap2::MmapOptions::new().len(size.next_multiple_of(4096) as usize).map(content.file())? };
        let count = |bytes| {
            self.drain.written.fetch_add(bytes, Ordering::Relaxed);
        };
        Ok(self.backing.copy_in(path, to, &mapping, ranges, size, &count)?)
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
fn data_ranges(file: &File, size: u64) -> io::Result<Vec<Range<u64>>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            // No seeking for data here: all of it.
            Err(_) => return Ok(one_range(size)),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).unwrap_or(size).min(size);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ if start < end => ranges.push(start..end),
            _ => {}
        }
        at = end.max(at + 1);
    }
    Ok(ranges)
}

fn checksums(file: &File, size: u64) -> Result<Box<[u128]>> {
    let mut buffer = vec![0; CHUNK_BYTES as usize];
    (0..size.div_ceil(CHUNK_BYTES))
        .map(|i| {
            let at = i * CHUNK_BYTES;
            let chunk = &mut buffer[..CHUNK_BYTES.min(size - at) as usize];
            crate::arena::read_exact_at(file, chunk, at)?;
            Ok(xxh3_128(chunk))
        })
        .collect()
}

/// The chunks that differ; the last one of the shorter list counts as changed, it may have grown.
fn changed_chunks(before: &[u128], now: &[u128], size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (i, sum) in now.iter().enumerate() {
        if before.get(i) == Some(sum) && i + 1 < before.len() {
            continue;
        }
        let start = i as u64 * CHUNK_BYTES;
        let end = (start + CHUNK_BYTES).min(size);
        match ranges.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => ranges.push(start..end),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changed_chunks_are_written() {
        let before = [1, 2, 3, 4];
        let now = [1, 9, 3, 4];
        let size = 4 * CHUNK_BYTES;
        assert_eq!(changed_chunks(&before, &now, size), vec![CHUNK_BYTES..2 * CHUNK_BYTES, 3 * CHUNK_BYTES..size]);
    }

    #[test]
    fn chunks_behind_the_old_end_are_written() {
        let size = 3 * CHUNK_BYTES - 5;
        assert_eq!(changed_chunks(&[1], &[1, 2, 3], size), vec![0..size]);
    }
}
