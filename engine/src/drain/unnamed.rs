//! Making new files on the backing: empty ones, and those whose content is there already, without a name.
//!
//! See [`Place::Unnamed`] and `engine/unnamed.rs`, which makes them.

use crate::backing::{Owner, RenameMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::namespace::{Inode, Link, Place};
use std::io;

impl Engine {
    /// Gives a new file its name on the backing: an empty file for a start, or the one that has its content there
    /// already. It may be opened for the first time, emptied, or written to meanwhile; [`InodeState::drained`] and
    /// [`Place`] change together, under the inode's lock.
    pub(super) fn make_file(&self, inode: &Inode, link: &Link, path: &[u8], owner: Owner) -> Result<()> {
        let made_empty = inode.state.lock().file.place != Place::Unnamed;
        if made_empty {
            // With the inode not locked: storage may hang.
            let mode = inode.state.lock().attr.mode;
            drop(self.backing.create(path, mode, owner)?);
            let mut state = inode.state.lock();
            if state.file.place != Place::Unnamed {
                state.drained.push(link.clone());
                return Ok(());
            }
            // Opened for the first time since: what was just made gives way.
        }
        let mode = if made_empty { RenameMode::Replace } else { RenameMode::NoReplace };
        match self.backing.rename(&Engine::unnamed_path(inode.ino), path, mode) {
            Ok(()) => {
                let mut state = inode.state.lock();
                if state.file.place == Place::Unnamed {
                    state.file.place = Place::Backing;
                } else {
                    // Emptied, and in memory since.
                    state.file.replaced = true;
                }
                state.drained.push(link.clone());
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_without_content(inode, link, path, owner)
            }
            Err(e) if e.raw_os_error() == Some(libc::EXDEV) => {
                // Another file system, or another project's quota: the next ones go by the arena.
                self.backing_refuses_passthrough();
                self.copy_the_unnamed(inode, link, path, owner)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The file with the content is not there (any more).
    fn make_without_content(&self, inode: &Inode, link: &Link, path: &[u8], owner: Owner) -> Result<()> {
        let mode = inode.state.lock().attr.mode;
        match self.backing.create(path, mode, owner) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e.into()),
            _ => {}
        }
        let mut state = inode.state.lock();
        if state.file.place == Place::Unnamed {
            state.file.place = Place::Backing;
            self.drain.report(format!(
                "{}: somebody removed its content from the backing's .aimss before it had its name",
                self.show(link)
            ));
        }
        state.drained.push(link.clone());
        Ok(())
    }

    /// Where a rename can't reach the name. Not while anybody can write: what he has open would not be the copy.
    fn copy_the_unnamed(&self, inode: &Inode, link: &Link, path: &[u8], owner: Owner) -> Result<()> {
        let source = self.backing.open_read(&Engine::unnamed_path(inode.ino))?;
        let in_use = || inode.state.lock().file.epoch.is_some() || crate::arena::in_use(&source);
        if in_use() {
            return Err(Error::Io(io::Error::other(
                "it is open, and can't be moved to its name until it is closed",
            )));
        }
        let mut target = self.backing.create(path, 0o600, owner)?;
        let copied = io::copy(&mut &source, &mut target).and_then(|_| self.backing.sync_file(&target));
        let mut state = inode.state.lock();
        if copied.is_err() || state.file.epoch.is_some() || state.file.place != Place::Unnamed {
            drop(state);
            self.backing.unlink(path)?;
            copied?;
            return Err(Error::Io(io::Error::other("it was opened while it was moved to its name")));
        }
        state.file.place = Place::Backing;
        state.drained.push(link.clone());
        drop(state);
        self.remove_unnamed(inode.ino);
        Ok(())
    }
}
