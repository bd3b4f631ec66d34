//! Extended attributes: read from the backing when first asked for, kept in memory, drained with the attributes.

use super::Engine;
use super::lookup::now_after;
use super::together::together;
use crate::error::{Error, Result};
use crate::ids::Ino;
use crate::namespace::{Inode, InodeState, Xattrs};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Files of one directory whose attributes are read ahead together.
const AHEAD: usize = 128;

impl Engine {
    /// Whether asking for attributes would wait for a backing whose calls travel.
    pub fn xattrs_wait(&self, ino: Ino) -> bool {
        self.backing.is_remote()
            && self.inode(ino).is_ok_and(|inode| {
                let state = inode.state.lock();
                matches!(state.xattrs, Xattrs::Unknown) && !state.drained.is_empty()
            })
    }

    /// The value of one attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Box<[u8]>> {
        let inode = self.inode(ino)?;
        self.load_xattrs(&inode)?;
        let state = inode.state.lock();
        state.xattrs.get(name).map(Box::from).ok_or(Error::NoAttribute)
    }

    /// All names.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Box<[u8]>>> {
        let inode = self.inode(ino)?;
        self.load_xattrs(&inode)?;
        let state = inode.state.lock();
        Ok(match &state.xattrs {
            Xattrs::Known(known) => known.0.keys().cloned().collect(),
            Xattrs::Unknown | Xattrs::None => Vec::new(),
        })
    }

    /// Sets one attribute, with the conditions of setxattr(2).
    pub fn set_xattr(&self, ino: Ino, name: &[u8], value: &[u8], create: bool, replace: bool) -> Result<()> {
        self.change_xattr(ino, |state| {
            match (state.xattrs.get(name).is_some(), create, replace) {
                (true, true, _) => return Err(Error::Exists),
                (false, _, true) => return Err(Error::NoAttribute),
                _ => {}
            }
            state.xattrs.set(name, Some(value));
            Ok(())
        })
    }

    /// Removes one attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.change_xattr(ino, |state| {
            state.xattrs.get(name).ok_or(Error::NoAttribute)?;
            state.xattrs.set(name, None);
            Ok(())
        })
    }

    fn change_xattr(&self, ino: Ino, change: impl FnOnce(&mut InodeState) -> Result<()>) -> Result<()> {
        let inode = self.inode(ino)?;
        self.load_xattrs(&inode)?;
        let mut state = inode.state.lock();
        change(&mut state)?;
        self.fold(ino, &mut state);
        state.attr.ctime = now_after(state.attr.ctime);
        self.journal.attributes(ino, &state);
        self.drain.mark(ino);
        Ok(())
    }

    fn load_xattrs(&self, inode: &Inode) -> Result<()> {
        let _shape = self.shape.read_recursive();
        self.load_xattrs_for_drain(inode)
    }

    /// Where asking for a file's attributes would wait: reads them together with those of files that are listed behind it, if
    /// the last one that was asked for is in the same directory. `ls -l` asks for those of all, one by one, and each is
    /// a trip.
    pub fn load_xattrs_ahead(&self, ino: Ino) {
        if !self.xattrs_wait(ino) {
            return;
        }
        let Some((parent, name)) = self.inode(ino).ok().and_then(|inode| inode.state.lock().place.clone())
        else {
            return;
        };
        if self.xattrs_asked_in.swap(parent.0, Ordering::Relaxed) != parent.0 {
            return;
        }
        let together_with: Vec<Ino> = {
            let names = self.names.lock();
            let Some(dir) = names.dirs.get(&parent) else { return };
            let cookie = dir.get(&name).map_or(0, |entry| entry.cookie);
            let known = |ino: &Ino| names.inode(*ino).is_some();
            let behind = dir.after(cookie).map(|(_, entry)| entry.ino).filter(known);
            std::iter::once(ino).chain(behind).take(AHEAD).collect()
        };
        let waiting: Vec<Ino> = together_with.into_iter().filter(|ino| self.xattrs_wait(*ino)).collect();
        together(&waiting, |ino| {
            // It is asked for again where this failed.
            let _ = self.inode(*ino).and_then(|inode| self.load_xattrs(&inode));
        });
    }

    /// Of an inode of which a journal told the changes: what it has besides, from the backing.
    pub(super) fn complete_xattrs(&self, inode: &Inode) -> Result<()> {
        if !inode.state.lock().xattrs.is_dirty() {
            return Ok(());
        }
        let _shape = self.shape.read_recursive();
        let found = self.backing.xattrs(&self.drained_path(inode.ino)?)?;
        if let Xattrs::Known(known) = &mut inode.state.lock().xattrs {
            let others = found.into_iter().filter(|(name, _)| !known.1.contains(&name[..]));
            known.0.extend(others.map(|(name, value)| (name.into(), value.into())));
        }
        Ok(())
    }

    /// The same for a caller that holds `shape`.
    pub(crate) fn load_xattrs_for_drain(&self, inode: &Inode) -> Result<()> {
        if !matches!(inode.state.lock().xattrs, Xattrs::Unknown) {
            return Ok(());
        }
        let found = {
            match self.drained_path(inode.ino) {
                Ok(path) => self.backing.xattrs(&path)?,
                Err(_) => Vec::new(),
            }
        };
        let mut state = inode.state.lock();
        if matches!(state.xattrs, Xattrs::Unknown) {
            let known = found.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
            state.xattrs = Xattrs::Known(Box::new((known, BTreeSet::new())));
        }
        Ok(())
    }
}

impl Xattrs {
    /// The value of `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        match self {
            Xattrs::Known(known) => known.0.get(name).map(|value| &**value),
            Xattrs::Unknown | Xattrs::None => None,
        }
    }

    /// Sets or removes `name`, to be drained. The attributes are known.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>) {
        if !matches!(self, Xattrs::Known(_)) {
            *self = Xattrs::Known(Box::new((BTreeMap::new(), BTreeSet::new())));
        }
        if let Xattrs::Known(known) = self {
            match value {
                Some(value) => known.0.insert(name.into(), value.into()),
                None => known.0.remove(name),
            };
            known.1.insert(name.into());
        }
    }
}
