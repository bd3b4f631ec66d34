//! Reading and changing attributes.
//!
//! Files in passthrough are written behind our back: their size and times are taken from the file that the kernel
//! writes to, whenever somebody asks. What an application sets itself (utimensat) stays until that file changes again.

use super::io::Touches;
use super::lookup::now_after;
use super::{Engine, Found};
use crate::arena::{ArenaStat, Stamp};
use crate::attr::{Attr, Kind, Timestamp};
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{InodeState, OpenMode};
use std::fs::File;
use std::sync::Arc;

/// Largest file size: what off_t holds.
const SIZE_BYTES_MAX: u64 = i64::MAX as u64;

/// Attributes to be changed.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size: cut or extended with zeros.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<Timestamp>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
}

impl Engine {
    /// Attributes of an inode.
    pub fn attr(&self, ino: Ino) -> Result<Attr> {
        let inode = self.inode(ino)?;
        let stale = {
            let state = inode.state.lock();
            state.in_step() && state.place.is_some()
        };
        if stale && ino != Ino::ROOT {
            self.revalidate(&inode);
        }
        let mut state = inode.state.lock();
        self.fold(ino, &mut state);
        Ok(state.attr)
    }

    /// Attributes, and whether only we can change them.
    pub fn attr_and_age(&self, ino: Ino) -> Result<Found> {
        self.attr(ino)?;
        let inode = self.inode(ino)?;
        let mut state = inode.state.lock();
        Ok(self.found(&inode, &mut state))
    }

    /// Whether reads and writes of this inode may go on without us, so that its attributes age at once.
    pub fn changes_unseen(&self, ino: Ino) -> bool {
        self.inode(ino).is_ok_and(|inode| {
            let mut state = inode.state.lock();
            self.ask_again(ino, &mut state);
            state.file.lingering || state.file.writers() > 0
        })
    }

    /// Whether a file that had writers after its last close still has them. Often the kernel had just not got round to
    /// letting go of its own descriptor.
    pub(crate) fn ask_again(&self, ino: Ino, state: &mut InodeState) {
        if !state.file.lingering || state.file.epoch.is_some() {
            return;
        }
        if let Some(file) = state.file.mapped.clone() {
            state.linger_on(&file);
        } else {
            state.file.lingering = self.arena.open_read(ino).is_ok_and(|content| {
                if let Ok(stat) = content.stat() {
                    state.fold(&stat);
                }
                !content.writers_gone()
            });
        }
    }

    /// Brings size and times of a file that is written behind our back up to date; false if it isn't.
    pub(crate) fn fold(&self, ino: Ino, state: &mut InodeState) -> bool {
        if state.attr.kind != Kind::File {
            return false;
        }
        let stat = match state.file.epoch.as_ref().map(|e| &e.mode) {
            Some(OpenMode::Arena(content)) => content.stat().ok(),
            Some(OpenMode::Backing(file)) => stat_of_file(file).ok(),
            Some(OpenMode::Daemon(_)) => None,
            None if let Some(file) = &state.file.mapped => stat_of_file(file).ok(),
            None if state.file.lingering => self.arena.open_read(ino).and_then(|content| content.stat()).ok(),
            None => None,
        };
        if let Some(stat) = stat {
            state.fold(&stat);
        }
        stat.is_some()
    }

    /// Changes attributes; returns them as they are then.
    pub fn set_attr(&self, ino: Ino, change: &SetAttr) -> Result<Attr> {
        let inode = self.inode(ino)?;
        if let Some(size) = change.size {
            self.truncate(ino, size)?;
        }
        let mut state = inode.state.lock();
        if change.mtime.is_some()
            && let Some(ahead) = state.file.epoch.as_ref().and_then(|epoch| epoch.ahead.clone())
        {
            // Allocation would date the file after what is set here.
            ahead.call_off();
        }
        self.fold(ino, &mut state);
        let now = now_after(state.attr.ctime);
        let attr = &mut state.attr;
        attr.mode = change.mode.map_or(attr.mode, |mode| mode & 0o7777);
        attr.uid = change.uid.unwrap_or(attr.uid);
        attr.gid = change.gid.unwrap_or(attr.gid);
        attr.atime = change.atime.unwrap_or(attr.atime);
        attr.mtime = change.mtime.unwrap_or(attr.mtime);
        attr.ctime = now;
        let attr = *attr;
        state.attr_dirty = true;
        state.times_set |= change.atime.is_some() || change.mtime.is_some();
        self.journal.attributes(ino, &state);
        self.drain.mark(ino);
        Ok(attr)
    }

    /// Cuts a file or extends it with zeros.
    pub(super) fn truncate(&self, ino: Ino, size: u64) -> Result<()> {
        if size > SIZE_BYTES_MAX {
            return Err(Error::TooLarge);
        }
        let inode = self.inode(ino)?;
        match inode.kind {
            Kind::File => {}
            Kind::Directory => return Err(Error::IsDirectory),
            _ => return Err(Error::Invalid),
        }
        let touches = if size == 0 { Touches::All } else { Touches::Size };
        self.change_content(&inode, |file| file.set_len(size), touches)
    }

    /// Whether reading a symbolic link would wait for a backing whose calls travel.
    pub fn read_link_waits(&self, ino: Ino) -> bool {
        self.is_remote() && self.inode(ino).is_ok_and(|inode| inode.state.lock().target.is_none())
    }

    /// The target of a symbolic link.
    pub fn read_link(&self, ino: Ino) -> Result<Box<[u8]>> {
        let inode = self.inode(ino)?;
        if inode.kind != Kind::Symlink {
            return Err(Error::Invalid);
        }
        if let Some(target) = inode.state.lock().target.clone() {
            return Ok(target);
        }
        let _shape = self.shape.read_recursive();
        let target: Box<[u8]> = self.backing.read_link(&self.drained_path(ino)?)?.into();
        inode.state.lock().target = Some(target.clone());
        Ok(target)
    }
}

impl InodeState {
    /// Folds the state of the file that holds the content into the attributes.
    pub(crate) fn fold(&mut self, stat: &ArenaStat) {
        let dated = self.file.dated.as_deref().copied();
        if stat.stamp != self.file.seen {
            self.attr.size = stat.stamp.size;
            let by_drain = dated.is_some_and(|(_, mtime)| mtime == stat.stamp.mtime);
            if stat.stamp.mtime != self.file.seen.mtime && !by_drain {
                self.attr.mtime = stat.stamp.mtime;
                self.attr.ctime = self.attr.ctime.max(stat.stamp.mtime);
            }
            self.file.seen = stat.stamp;
        }
        if stat.atime != self.file.seen_atime {
            if dated.is_none_or(|(atime, _)| atime != stat.atime) {
                // Read since we looked. What an application set itself stays until then.
                self.attr.atime = stat.atime;
            }
            self.file.seen_atime = stat.atime;
        }
        // Blocks allocated ahead of a writer are the daemon's, not the file's.
        self.attr.blocks = stat.blocks.min(stat.stamp.size.next_multiple_of(4096) / 512);
    }

    /// After a daemon's death: what was written after its last word on this inode is newer than that.
    pub(crate) fn take_newer_times(&mut self, there: &Attr) {
        self.attr.size = there.size;
        if there.mtime > self.attr.ctime {
            (self.attr.mtime, self.attr.ctime) = (there.mtime, there.mtime);
        }
        self.file.seen = Stamp { size: there.size, mtime: there.mtime };
        self.file.seen_atime = there.atime;
    }

    /// Nobody has `file`, which is the backing's, open any more: do mappings outlive that?
    pub(crate) fn linger_on(&mut self, file: &Arc<File>) {
        if let Ok(stat) = stat_of_file(file) {
            self.fold(&stat);
        }
        self.file.lingering = crate::arena::has_writers(file);
        self.file.mapped = self.file.lingering.then(|| file.clone());
    }

    /// After a change of content that we made ourselves and dated: what the file says now is known.
    pub(crate) fn seen(&mut self, stat: &ArenaStat) {
        self.file.know(stat);
        self.attr.size = stat.stamp.size;
        self.attr.blocks = stat.blocks.min(stat.stamp.size.next_multiple_of(4096) / 512);
        // The backing's own file is dated already; ours would differ by microseconds.
        if self.file.place.is_on_backing() {
            let own = stat.stamp.mtime;
            (self.attr.mtime, self.attr.ctime) = (own, self.attr.ctime.max(own));
            return;
        }
        let now = now_after(self.attr.ctime);
        (self.attr.mtime, self.attr.ctime) = (now, now);
    }
}

/// The same view of a file of the backing as of one of the arena.
pub(crate) fn stat_of_file(file: &File) -> std::io::Result<ArenaStat> {
    Ok(ArenaStat::from(&file.metadata()?))
}
