//! What a successor has entered, in words: for tests, which compare two of one daemon.

use super::Successor;
use crate::attr::{Attr, Timestamp};
use crate::ids::Ino;
use crate::journal::Basis;

impl Successor {
    /// What the tables hold, a line an object and a change: two successors of one daemon are to hold the same.
    pub fn tables(&self) -> Vec<String> {
        let names = self.engine.names.lock();
        let mut lines: Vec<String> = Vec::new();
        for (ino, inode) in &names.inodes {
            let state = inode.state.lock();
            let file = &state.file;
            // See `finish`.
            let place = Some(file.place).filter(|_| !self.entered.unsure.contains(ino));
            // What the files themselves tell depends on when they were asked.
            let mut attr = Attr { atime: Timestamp::default(), blocks: 0, ..state.attr };
            // Of those that may be written whoever needs to know asks again.
            let written = file.lingering || file.dirty || state.nameless();
            if written {
                (attr.mtime, attr.ctime, attr.size) = (Timestamp::default(), Timestamp::default(), 0);
            }
            let seen = Some(file.seen).filter(|_| !written);
            let shown = Some(attr).filter(|_| *ino != Ino::ROOT || state.attr_dirty);
            let target = state.target.as_ref().filter(|_| state.drained.is_empty());
            let pending = state.pending as usize - self.engine.oplog.cancelled_in(*ino);
            let basis = state.baseline().filter(|_| *ino != Ino::ROOT).map(Basis::from);
            let (place_here, drained, xattrs) = (&state.place, &state.drained, &state.xattrs);
            lines.push(format!(
                "{ino:?} {shown:?} at {place_here:?}, there at {drained:?} {basis:?} {target:?} {xattrs:?}"
            ));
            let (held, slot, attr_dirty) = (state.lookups, state.slot, state.attr_dirty);
            lines.push(format!(
                "{ino:?} attributes dirty {attr_dirty}, {pending} pending, held {held} {slot:?}"
            ));
            let (dirty, lingering, clean) = (file.dirty, file.lingering, file.clean);
            lines
                .push(format!("{ino:?} in {place:?} dirty {dirty} lingering {lingering} {clean:?} {seen:?}"));
        }
        for (ino, dir) in &names.dirs {
            let mut entries: Vec<String> = dir.names().map(|entry| format!("{entry:?}")).collect();
            let mut whiteouts: Vec<String> = dir.whiteouts.iter().map(|gone| format!("{gone:?}")).collect();
            entries.sort_unstable();
            whiteouts.sort_unstable();
            // One that is thought to lack something is asked for once more, no harm done.
            let drained = names.inode(*ino).is_some_and(|inode| !inode.state.lock().drained.is_empty());
            lines.push(format!(
                "{ino:?} complete {} {entries:?} without {whiteouts:?}",
                drained && dir.complete
            ));
        }
        let numbers = names.numbers().filter(|(_, ino)| names.inodes.contains_key(ino));
        lines.extend(numbers.map(|(id, ino)| format!("{id:?} is {ino:?}")));
        lines.extend(self.engine.oplog.describe());
        lines.extend(
            self.engine.drain.dirty_inodes().iter().map(|(ino, _)| format!("{ino:?} is to be drained")),
        );
        lines.push(format!("{:?}", names.last_ino()));
        lines.sort_unstable();
        lines
    }
}
