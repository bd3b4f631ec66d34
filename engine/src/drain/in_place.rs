//! Files whose content was written to the backing's own file, through its page cache: what is missing there is
//! durability, and attributes.

use super::attributes::Times;
use super::content::data_ranges;
use crate::backing::Owner;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::namespace::{Inode, OpenMode};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Files from this size on are synced by the drain, smaller ones with all others.
const SYNC_BYTES_MIN: u64 = 4 << 20;

impl Engine {
    /// A file whose content was written to the backing's own file: durability and attributes are missing.
    pub(super) fn sync_in_place(&self, inode: &Arc<Inode>, durable: bool) -> Result<()> {
        let file = {
            let _shape = self.shape.read_recursive();
            Arc::new(self.backing.open_read(&self.drained_path(inode.ino)?)?)
        };
        self.wait_for_write_outs(inode.ino);
        let (touched, size, unseen_writers, failed) = {
            let mut state = inode.state.lock();
            if !state.file.place.is_on_backing() {
                // Emptied since we looked: it is in memory, and stays there while we have its turn.
                drop(state);
                return self.copy_content(inode, durable);
            }
            self.fold(inode.ino, &mut state);
            let passed_through =
                matches!(state.file.epoch.as_ref().map(|e| &e.mode), Some(OpenMode::Backing(_)));
            let unseen = passed_through && state.file.writers() > 0;
            let failed = std::mem::take(&mut state.file.write_back_failed);
            (state.file.touched, state.attr.size, unseen, failed)
        };
        if failed && let Err(e) = self.write_again(inode, &file) {
            inode.state.lock().file.write_back_failed = true;
            return Err(e);
        }
        {
            let _shape = self.shape.read_recursive();
            let path = self.drained_path(inode.ino)?;
            // The writes dated the file there by the backing's clock; while somebody writes, that is as good as ours.
            // Before the sync, which carries them along.
            self.apply_attributes(inode, &path, if unseen_writers { Times::Left } else { Times::Ours })?;
        }
        // Of a large file the page cache may hold a good part: it counts as drained when that is written.
        if (durable || failed || size >= SYNC_BYTES_MIN)
            && let Err(e) = self.backing.sync_file(&file)
        {
            // The kernel tells it once, and takes the pages for clean.
            inode.state.lock().file.write_back_failed = true;
            return Err(e.into());
        }
        let _shape = self.shape.read_recursive();
        let stat = self.backing.stat(&self.drained_path(inode.ino)?)?;
        let mut state = inode.state.lock();
        let leases = self.backing_leases.load(Ordering::Relaxed);
        let mapped = match state.file.epoch.as_ref().map(|e| &e.mode) {
            // Emptied meanwhile: it is in memory, and what this file holds is nobody's.
            _ if !state.file.place.is_on_backing() => false,
            None if leases => {
                state.linger_on(&file);
                state.file.lingering
            }
            // The descriptor that we serve with could write, too.
            None | Some(OpenMode::Daemon(_)) => false,
            Some(_) => leases && crate::arena::has_writers(&file),
        };
        if state.file.writers() == 0 && !mapped && state.file.touched == touched {
            state.file.dirty = false;
            self.drain.written.fetch_add(size, Ordering::Relaxed);
        }
        state.set_baseline(Some(crate::engine::baseline(&stat)));
        self.journal.settled(inode.ino, &state);
        Ok(())
    }

    /// Makes pages dirty anew that the kernel failed to write: it keeps them as they are, but would not try again.
    fn write_again(&self, inode: &Inode, file: &File) -> Result<()> {
        if inode.state.lock().file.writers() > 0 || crate::arena::has_writers(file) {
            return Err(Error::Io(io::Error::other(
                "the backing failed to write what is still being written; close it, so that it can be tried again",
            )));
        }
        let path = {
            let _shape = self.shape.read_recursive();
            self.drained_path(inode.ino)?
        };
        let target = self.backing.open_write(&path, Owner::ROOT)?;
        let mut buffer = vec![0; 1 << 20];
        for range in data_ranges(file, file.metadata()?.len()) {
            let mut at = range.start;
            while at < range.end {
                let step = buffer.len().min((range.end - at) as usize);
                let got = file.read_at(&mut buffer[..step], at)?;
                if got == 0 {
                    break;
                }
                target.write_all_at(&buffer[..got], at)?;
                at += got as u64;
            }
        }
        Ok(())
    }
}
