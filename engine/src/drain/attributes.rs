//! Attributes of one object, brought to the backing.

use crate::attr::{Attr, Kind};
use crate::backing::AttrChange;
use crate::engine::Engine;
use crate::error::Result;
use crate::namespace::{Inode, InodeState};
use std::sync::Arc;

/// What becomes of the times that the backing shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Times {
    /// Set to ours where attributes changed.
    IfChanged,
    /// Set to ours: content was just written, which changed them.
    Ours,
    /// Left, unless an application set them: somebody writes the file there, which dates it as well as we could. The
    /// last close sets them.
    Left,
}

/// An extended attribute and what it is set to, or that it is removed.
type XattrChange = (Box<[u8]>, Option<Box<[u8]>>);

impl Engine {
    /// Brings the backing's attributes and extended attributes of an object in line with ours.
    pub(super) fn apply_attributes(&self, inode: &Arc<Inode>, path: &[u8], times: Times) -> Result<()> {
        let (attr, xattrs, all, times_set, dates) = {
            let mut state = inode.state.lock();
            let dirty = std::mem::take(&mut state.attr_dirty);
            let times_set = std::mem::take(&mut state.times_set);
            let all = dirty || times == Times::Ours;
            let dates = all && (times != Times::Left || times_set);
            if dates && state.file.place.is_on_backing() {
                // Before: whoever looks at the file from now on is not to take them for a writer's.
                state.file.dated = Some(Box::new((state.attr.atime, state.attr.mtime)));
            }
            (state.attr, state.xattrs.take_dirty(), all, times_set, dates)
        };
        let result = self.apply_attributes_to(&attr, &xattrs, path, all, dates);
        self.dated(inode, &attr, result.is_ok());
        if result.is_err() {
            let mut state = inode.state.lock();
            state.attr_dirty = true;
            state.times_set |= times_set;
            state.restore_dirty_xattrs(xattrs.into_iter().map(|(name, _)| name));
        }
        result
    }

    /// A file of the backing has our times from now on, or those that it had.
    fn dated(&self, inode: &Inode, attr: &Attr, done: bool) {
        let mut state = inode.state.lock();
        if state.file.dated.is_none() {
            return;
        }
        let looked = self.fold(inode.ino, &mut state);
        state.file.dated = None;
        if done && !looked && state.file.place.is_on_backing() {
            // Nobody writes it but by us.
            (state.file.seen.mtime, state.file.seen_atime) = (attr.mtime, attr.atime);
        }
    }

    fn apply_attributes_to(
        &self,
        attr: &Attr,
        xattrs: &[XattrChange],
        path: &[u8],
        owner_and_mode: bool,
        times: bool,
    ) -> Result<()> {
        let backing = &*self.backing;
        let symlink = attr.kind == Kind::Symlink;
        if owner_and_mode {
            let now = backing.stat(path)?.attr;
            let owner = ((now.uid, now.gid) != (attr.uid, attr.gid)).then_some((attr.uid, attr.gid));
            // A change of owner clears suid and sgid, so the mode follows it.
            let mode = (!symlink && (owner.is_some() || now.mode != attr.mode)).then_some(attr.mode);
            backing.set_attr(path, &AttrChange { owner, mode, times: None })?;
        }
        for (name, value) in xattrs {
            match backing.set_xattr(path, name, value.as_deref()) {
                Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                    self.drain.report(format!(
                        "{}: the backing can't hold the extended attribute {}",
                        String::from_utf8_lossy(path).escape_debug(),
                        String::from_utf8_lossy(name).escape_debug()
                    ));
                }
                other => other?,
            }
        }
        if times {
            let times = Some((attr.atime, attr.mtime));
            backing.set_attr(path, &AttrChange { owner: None, mode: None, times })?;
        }
        Ok(())
    }
}

impl crate::namespace::Xattrs {
    /// The attributes that the backing must be told, with their values; they count as told from here on.
    fn take_dirty(&mut self) -> Vec<XattrChange> {
        let crate::namespace::Xattrs::Known(known) = self else { return Vec::new() };
        let dirty = std::mem::take(&mut known.1);
        dirty.into_iter().map(|name| (name.clone(), known.0.get(&name).cloned())).collect()
    }
}

impl InodeState {
    fn restore_dirty_xattrs(&mut self, names: impl Iterator<Item = Box<[u8]>>) {
        if let crate::namespace::Xattrs::Known(known) = &mut self.xattrs {
            known.1.extend(names);
        }
    }
}
