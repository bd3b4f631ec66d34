//! New files that are on the backing before their name is; see [`Place::Unnamed`] and docs/design/0003.
//!
//! Their content has a path in our private directory until `drain/unnamed.rs` gives it its name. Whoever looks for it
//! by path may find it under neither for a moment, and looks again.

use super::open::KnownBefore;
use super::{Engine, PRIVATE_DIRECTORY, Reason, Want};
use crate::arena::ArenaStat;
use crate::backing::Owner;
use crate::drain::Turn;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Expected, Inode, InodeState, Place, join_path};
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How the names of its files begin that have no name elsewhere yet.
pub(super) const UNNAMED_PREFIX: &str = "unnamed-";
/// Looks for a file that is on its way from our private directory to its name, and the pause between them.
pub(super) const NAMING_LOOKS_MAX: u32 = 1000;
pub(super) const NAMING_PAUSE: Duration = Duration::from_micros(200);

/// What [`Engine::make_unnamed`] made; removed again unless it is taken.
pub(super) struct MadeUnnamed<'e> {
    engine: &'e Engine,
    content: Option<(File, ArenaStat)>,
    owner: Owner,
    /// Nobody else makes it meanwhile.
    turn: Turn<'e>,
}

impl MadeUnnamed<'_> {
    /// The file is where the inode's content is from now on; `None` if it has another owner by now.
    pub fn take(mut self, state: &mut InodeState) -> Option<File> {
        if (self.owner.uid, self.owner.gid) != (state.attr.uid, state.attr.gid) {
            return None;
        }
        let (file, stat) = self.content.take()?;
        state.file.place = Place::Unnamed;
        state.file.know(&stat);
        Some(file)
    }
}

impl Drop for MadeUnnamed<'_> {
    fn drop(&mut self) {
        if self.content.is_some() {
            self.engine.remove_unnamed(self.turn.ino());
        }
    }
}

impl Engine {
    /// Where the backing has the content of a new file until its name is made there.
    pub(crate) fn unnamed_path(ino: Ino) -> Vec<u8> {
        join_path(PRIVATE_DIRECTORY, format!("{UNNAMED_PREFIX}{:x}", ino.0).as_bytes())
    }

    /// The backing's files can't be passed through: what is new is kept in the arena, whatever its size.
    pub fn backing_refuses_passthrough(&self) {
        self.backing_stacks.store(false, Ordering::Relaxed);
    }

    /// Why a new file is better written to the backing's page cache than to the arena; `None` where it isn't.
    pub(super) fn fits_backing_better(
        &self,
        state: &InodeState,
        want: Want,
        known: &KnownBefore<'_>,
    ) -> Option<Reason> {
        // A file that replaces one on the backing is written beside it, from the arena.
        let new = want.may_be_unnamed() && state.drained.is_empty();
        if !new || !known.name_on_root_device || !self.backing_stacks.load(Ordering::Relaxed) {
            return None;
        }
        match known.expected {
            Expected::Unknown => Some(Reason::SizeUnknown),
            _ if !known.room => Some(Reason::NoRoom),
            _ => None,
        }
    }

    /// Makes the file that holds a new file's content until its name is on the backing, and opens it for reading, if it
    /// is to be there as far as is known. With the inode not locked: storage that hangs would hold up whoever asks for
    /// its attributes. `None` also where that can't be: no private directory, a backing that is full or can only be
    /// read.
    pub(super) fn make_unnamed(
        &self,
        inode: &Inode,
        want: Want,
        known: &KnownBefore<'_>,
    ) -> Option<MadeUnnamed<'_>> {
        if !known.name_on_root_device {
            // Most opens: nothing is made there.
            return None;
        }
        let wanted = || {
            let state = inode.state.lock();
            let idle = state.file.epoch.is_none() && state.file.place == Place::Empty;
            let owner = Owner { uid: state.attr.uid, gid: state.attr.gid };
            (idle && self.fits_backing_better(&state, want, known).is_some()).then_some(owner)
        };
        wanted()?;
        let turn = self.unnamed.take(inode.ino);
        // Not if another open made it meanwhile.
        let owner = wanted()?;
        let path = Engine::unnamed_path(inode.ino);
        let create = || self.backing.create(&path, 0o600, owner);
        let made = create().or_else(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => self.backing.unlink(&path).and_then(|()| create()),
            _ => Err(e),
        });
        drop(made.ok()?);
        let opened = self.backing.open_read(&path).and_then(|file| {
            let stat = super::attrs::stat_of_file(&file)?;
            Ok((file, stat))
        });
        let Ok((file, stat)) = opened else {
            self.remove_unnamed(inode.ino);
            return None;
        };
        if !self.backing_leases.load(Ordering::Relaxed) {
            // Nobody else knows this file: where its lease is refused, leases say nothing.
            self.backing_leases.store(!crate::arena::has_writers(&file), Ordering::Relaxed);
        }
        Some(MadeUnnamed { engine: self, content: Some((file, stat)), owner, turn })
    }

    /// Of a file without a name that nobody has open any more, what the private directory holds goes.
    pub(super) fn leave_private_directory(&self, ino: Ino) {
        let Ok(inode) = self.inode(ino) else { return };
        {
            let mut state = inode.state.lock();
            let kept = state.file.place == Place::Unnamed && state.nameless() && state.pending == 0;
            if !kept || state.file.epoch.is_some() || state.file.lingering {
                return;
            }
            state.file.place = Place::Backing;
        }
        self.remove_unnamed(ino);
    }

    pub(crate) fn remove_unnamed(&self, ino: Ino) {
        if let Err(e) = self.backing.unlink(&Engine::unnamed_path(ino))
            && e.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("a file of the private directory that nobody needs any more can't be removed: {e}");
        }
    }

    /// Whether a rename from our private directory can reach a name in `parent`: same device, as far as the backing has
    /// the way there; what is still to be made there will be on the device of what it is made in.
    pub(super) fn is_on_root_device(&self, parent: Ino) -> bool {
        let device =
            |ino| self.inode(ino).ok().and_then(|inode| inode.state.lock().baseline()).map(|b| b.id.dev);
        let mut at = parent;
        loop {
            if let Some(found) = device(at) {
                return Some(found) == device(Ino::ROOT);
            }
            let Some(up) = self.inode(at).ok().and_then(|inode| inode.state.lock().place.clone()) else {
                return false;
            };
            at = up.0;
        }
    }

    /// Opens a file whose name is being made on the backing, or was a moment ago.
    pub(super) fn open_unnamed(
        &self,
        inode: &Inode,
        open: impl Fn(&[u8]) -> io::Result<File>,
    ) -> Result<File> {
        for _ in 0..NAMING_LOOKS_MAX {
            let path = {
                let _shape = self.shape.read_recursive();
                if inode.state.lock().file.place == Place::Unnamed {
                    Ok(Engine::unnamed_path(inode.ino))
                } else {
                    self.drained_path(inode.ino)
                }
            };
            match open(&path?) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    std::thread::sleep(NAMING_PAUSE);
                }
                opened => return Ok(opened?),
            }
        }
        Err(Error::NotFound)
    }
}
