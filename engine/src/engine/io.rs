//! Reads and writes that come to the daemon, and the calls that always do: fallocate, seeks for data and holes, copies
//! between files.
//!
//! A file that is open in passthrough can be changed here too (truncate, fallocate): on the same file, through a
//! descriptor of its own that lives for the call.

use super::Engine;
use super::attrs::stat_of_file;
use super::open::reopen;
use crate::attr::{Kind, Timestamp};
use crate::error::{Error, Result};
use crate::fetch::Cause;
use crate::ids::Ino;
use crate::namespace::{Inode, OpenMode, Place};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// relatime: an access time older than this is refreshed.
const ATIME_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// What a seek looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whence {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// What of a file's content a change may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touches {
    /// Nothing of the old is left.
    All,
    /// What lies between the old size and the new one.
    Size,
    /// Anything.
    Anywhere,
}

impl Engine {
    /// Reads up to `buffer.len()` bytes at `offset`; fewer at the end of the file.
    pub fn read(&self, ino: Ino, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        // On a local one there is nothing to be fetched, and a read is a read.
        let from_backing = self.read_waits(ino);
        if from_backing {
            let inode = self.inode(ino)?;
            self.note_scan(&inode, offset, buffer.len() as u64);
            if let Some(read) = self.read_in_flight(&inode, offset, buffer) {
                self.accessed(ino);
                return Ok(read);
            }
        }
        let file = self.content_file(ino)?;
        let mut done = 0;
        while done < buffer.len() {
            let (rest, at) = (&mut buffer[done..], offset + done as u64);
            let read =
                if from_backing { self.backing.read_at(&file, rest, at) } else { file.read_at(rest, at) };
            match read {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.accessed(ino);
        Ok(done)
    }

    /// Whether a read would wait for the backing.
    pub fn read_waits(&self, ino: Ino) -> bool {
        self.backing.is_remote()
            && self.inode(ino).is_ok_and(|inode| inode.state.lock().file.place.is_on_backing())
    }

    /// relatime for reads that we serve.
    fn accessed(&self, ino: Ino) {
        if let Ok(inode) = self.inode(ino) {
            let mut state = inode.state.lock();
            let attr = &mut state.attr;
            let now = Timestamp::now();
            let old = now.seconds - attr.atime.seconds > ATIME_AGE_MAX.as_secs() as i64;
            if attr.atime <= attr.mtime || attr.atime <= attr.ctime || old {
                attr.atime = now;
            }
        }
    }

    /// Writes `data` at `offset`, or at the end with `append`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], append: bool) -> Result<()> {
        let inode = self.inode(ino)?;
        self.make_way(&inode, data.len() as u64)?;
        let mut state = inode.state.lock();
        let Some(OpenMode::Daemon(file)) = state.file.epoch.as_ref().map(|e| e.mode.clone()) else {
            // Passthrough with direct I/O, or a mapping's write-back: the file is another one, the rest the same.
            drop(state);
            return self.change_content(&inode, |file| file.write_all_at(data, offset), Touches::Anywhere);
        };
        let at = if append { state.attr.size } else { offset };
        if append {
            self.journal.appends(ino, at);
        }
        if !state.file.dirty {
            self.journal.dirty(ino, &state);
        }
        if let Err(e) = file.write_all_at(data, at) {
            if e.raw_os_error() == Some(libc::ENOSPC) && state.file.place == Place::Arena {
                // The arena is fuller than we thought; the backing may have room.
                drop(state);
                return match self.move_to_backing(ino) {
                    Err(Error::NotFound) => Err(Error::NoSpace),
                    moved => moved.and_then(|()| self.write(ino, offset, data, append)),
                };
            }
            // A part may have arrived.
            let stat = stat_of_file(&file)?;
            state.seen(&stat);
            state.file.changed(None);
            state.file.touch();
            self.drain.mark(ino);
            return Err(e.into());
        }
        let end = at + data.len() as u64;
        let size = state.attr.size.max(end);
        let now = super::lookup::now_after(state.attr.ctime);
        let attr = &mut state.attr;
        (attr.size, attr.mtime, attr.ctime) = (size, now, now);
        attr.blocks = size.div_ceil(512);
        if !state.file.dirty {
            self.drain.mark(ino);
        }
        state.file.touch();
        let on_backing = state.file.place.is_on_backing();
        // A hole before it is one there, too: what was there was cut before.
        state.file.changed(Some(at..end));
        // What was failed to be written is kept in the page cache until it is written again.
        let may_go = on_backing && !state.file.write_back_failed;
        let behind = state.file.epoch.as_mut().map(|epoch| &mut epoch.behind).filter(|_| may_go);
        let (out, far) = behind.map_or((None, false), |behind| (behind.note(at..end), behind.is_far()));
        drop(state);
        if let Some(out) = out {
            self.begin_write_out(&inode, &file, out);
        } else if far {
            self.wait_for_write_out(&inode);
        }
        Ok(())
    }

    /// The file to read an inode's content from.
    fn content_file(&self, ino: Ino) -> Result<Arc<File>> {
        let inode = self.inode(ino)?;
        let state = inode.state.lock();
        Ok(match (state.file.epoch.as_ref().map(|e| e.mode.clone()), state.file.place) {
            (Some(OpenMode::Daemon(file) | OpenMode::Backing(file)), _) => file,
            (Some(OpenMode::Arena(content)), _) => Arc::new(content.file()?.try_clone()?),
            (None, Place::Arena) => Arc::new(self.arena.open_read(ino)?.into_file()?),
            (None, Place::Empty) => return Err(Error::Invalid),
            (None, Place::Unnamed) => {
                drop(state);
                Arc::new(self.open_unnamed(&inode, |path| self.backing.open_read(path))?)
            }
            (None, Place::Backing) => {
                drop(state);
                let _shape = self.shape.read_recursive();
                Arc::new(self.backing.open_read(&self.drained_path(ino)?)?)
            }
        })
    }

    /// Changes the content of a file, open or not, in whatever place it is.
    pub(super) fn change_content(
        &self,
        inode: &Inode,
        change: impl FnOnce(&File) -> io::Result<()>,
        touches: Touches,
    ) -> Result<()> {
        let emptied = touches == Touches::All;
        if inode.kind != Kind::File {
            return Err(Error::Invalid);
        }
        let cold = |state: &crate::namespace::InodeState| {
            let closed = state.file.epoch.is_none() && state.file.mapped.is_none();
            state.file.place.is_on_backing() && closed && !emptied
        };
        let fetch = {
            let state = inode.state.lock();
            cold(&state) && state.file.place == Place::Backing
        };
        if fetch {
            self.fetch_now(inode, Cause::Demand);
        }
        let written_there = emptied && {
            let state = inode.state.lock();
            state.file.place == Place::Backing && state.file.dirty
        };
        let ours = if written_there { self.look_at_own(inode.ino) } else { None };
        let mut state = inode.state.lock();
        if cold(&state) {
            drop(state);
            return self.change_on_backing(inode, change);
        }
        if ours.is_some() {
            state.set_baseline(ours);
        }
        self.fold(inode.ino, &mut state);
        let (file, view) = match state.file.epoch.as_ref().map(|e| e.mode.clone()) {
            Some(OpenMode::Arena(content)) => (reopen(content.file()?)?, None),
            Some(OpenMode::Backing(file)) => (reopen(&file)?, Some(file)),
            Some(OpenMode::Daemon(file)) => (file.try_clone()?, Some(file)),
            None if let Some(file) = state.file.mapped.clone() => (reopen(&file)?, Some(file)),
            None => {
                if state.file.place != Place::Arena {
                    self.arena.remove(inode.ino);
                    drop(self.arena.create(inode.ino)?);
                    if state.file.place == Place::Unnamed {
                        self.remove_unnamed(inode.ino);
                    }
                    state.file.place = Place::Arena;
                }
                (self.arena.open_write(inode.ino)?, None)
            }
        };
        let size = state.attr.size;
        // Before: content that changed is not taken for clean by whoever takes over.
        self.journal.dirty(inode.ino, &state);
        let changed = change(&file);
        let stat = stat_of_file(view.as_deref().unwrap_or(&file))?;
        let between = size.min(stat.stamp.size)..size.max(stat.stamp.size);
        state.file.changed((touches == Touches::Size && changed.is_ok()).then_some(between));
        changed?;
        if emptied && state.file.place == Place::Arena && !state.drained.is_empty() {
            state.file.replaced = true;
        }
        state.seen(&stat);
        self.journal.dirty(inode.ino, &state);
        state.file.touch();
        self.drain.mark(inode.ino);
        Ok(())
    }

    /// What the backing holds of a file that we wrote there ourselves.
    fn look_at_own(&self, ino: Ino) -> Option<crate::namespace::Baseline> {
        let _shape = self.shape.read_recursive();
        let path = self.drained_path(ino).ok()?;
        self.backing.stat(&path).ok().map(|stat| super::baseline(&stat))
    }

    /// A cold file too large to be fetched: changed in place.
    fn change_on_backing(&self, inode: &Inode, change: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        let owner = crate::backing::Owner::ROOT;
        let unnamed = inode.state.lock().file.place == Place::Unnamed;
        let file = if unnamed {
            self.open_unnamed(inode, |path| self.backing.open_write(path, owner))?
        } else {
            let _shape = self.shape.read_recursive();
            self.backing.open_write(&self.drained_path(inode.ino)?, owner)?
        };
        {
            // Before, so that what is being fetched of it is not taken for the file.
            let mut state = inode.state.lock();
            self.journal.dirty(inode.ino, &state);
            state.file.touch();
        }
        self.drain.mark(inode.ino);
        change(&file)?;
        let mut state = inode.state.lock();
        state.seen(&stat_of_file(&file)?);
        state.file.touch();
        self.drain.mark(inode.ino);
        Ok(())
    }

    /// fallocate(2) with Linux's mode bits.
    pub fn fallocate(&self, ino: Ino, offset: u64, length: u64, mode: i32) -> Result<()> {
        const SUPPORTED: i32 =
            libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
        if mode & !SUPPORTED != 0 {
            return Err(Error::NotSupported);
        }
        let end =
            offset.checked_add(length).filter(|&end| i64::try_from(end).is_ok()).ok_or(Error::TooLarge)?;
        let inode = self.inode(ino)?;
        let size = self.attr(ino)?.size;
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        if mode & libc::FALLOC_FL_ZERO_RANGE != 0 {
            // tmpfs has no ZERO_RANGE: a hole reads the same, and the size is set apart.
            let punched = end.min(size).saturating_sub(offset);
            return self.change_content(
                &inode,
                |file| {
                    if punched > 0 {
                        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                        rustix::fs::fallocate(file, flags, offset, punched)?;
                    }
                    if !keep && end > size { file.set_len(end) } else { Ok(()) }
                },
                Touches::Anywhere,
            );
        }
        if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 && !self.make_room(length) {
            // Room is promised where it is: on the backing.
            let room = self.backing.room()?;
            if room.available.saturating_mul(room.block_bytes) < length {
                return Err(Error::NoSpace);
            }
            return self.change_content(
                &inode,
                |file| if !keep && end > size { file.set_len(end) } else { Ok(()) },
                Touches::Size,
            );
        }
        let flags = FallocateFlags::from_bits_retain(mode as u32);
        let touches = if mode & libc::FALLOC_FL_PUNCH_HOLE == 0 { Touches::Size } else { Touches::Anywhere };
        self.change_content(&inode, |file| Ok(rustix::fs::fallocate(file, flags, offset, length)?), touches)
    }

    /// The next data or hole at or behind `offset`.
    pub fn seek(&self, ino: Ino, offset: u64, whence: Whence) -> Result<u64> {
        let size = self.attr(ino)?.size;
        if offset >= size {
            return Err(Error::NoData);
        }
        let file = match self.content_file(ino) {
            // A descriptor of its own: the seek must not race with another one on the same.
            Ok(file) => reopen_read(&file)?,
            Err(Error::Invalid) => return Err(Error::NoData),
            Err(e) => return Err(e),
        };
        let from = match whence {
            Whence::Data => rustix::fs::SeekFrom::Data(offset),
            Whence::Hole => rustix::fs::SeekFrom::Hole(offset),
        };
        match rustix::fs::seek(&file, from) {
            Ok(found) => Ok(found),
            Err(rustix::io::Errno::NXIO) => Err(Error::NoData),
            Err(e) => Err(e.into()),
        }
    }

    /// Copies up to `length` bytes from one file to another; returns how many.
    pub fn copy_range(&self, from: (Ino, u64), to: (Ino, u64), length: u64) -> Result<u64> {
        const STEP_BYTES: u64 = 1 << 20;
        let source = self.content_file(from.0)?;
        let mut buffer = vec![0; STEP_BYTES.min(length) as usize];
        let mut done = 0;
        while done < length {
            let want = STEP_BYTES.min(length - done) as usize;
            let n = source.read_at(&mut buffer[..want], from.1 + done)?;
            if n == 0 {
                break;
            }
            self.write(to.0, to.1 + done, &buffer[..n], false)?;
            done += n as u64;
        }
        Ok(done)
    }
}

fn reopen_read(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}
