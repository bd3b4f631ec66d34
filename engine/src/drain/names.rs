//! Applying changes of names to the backing.

use super::{IDLE_MAX, RETRY_FIRST, RETRY_MAX, Turn};
use crate::attr::Kind;
use crate::backing::{AttrChange, Make, Owner, RenameMode};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ids::{Ino, Seq};
use crate::namespace::{Inode, Link, Place, join_path};
use crate::oplog::{Begin, Change, Op};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the thread sleeps at most when nothing is due; what a caller waits for is applied by himself or at once.
const IDLE: Duration = Duration::from_millis(20);

impl Engine {
    pub(super) fn run_names(&self) {
        while !self.stopping.load(Ordering::Relaxed) {
            match self.oplog.next(self.delay()) {
                Some(op) => {
                    let _ = self.apply_begun(&op);
                }
                None => self.oplog.wait(IDLE, IDLE_MAX),
            }
        }
    }

    /// Applies a change that was begun, and says so to the log.
    fn apply_begun(&self, op: &Op) -> Result<()> {
        let result = if op.cancelled { Ok(()) } else { self.apply(&op.change, op.resumed) };
        match result {
            Ok(()) => {
                self.applied(op);
                Ok(())
            }
            Err(e) => {
                let path = op.change.links().first().map(|link| self.show(link)).unwrap_or_default();
                self.drain
                    .report(format!("{path}: the backing refused a change of names, which is retried: {e}"));
                self.drain.note(&e);
                self.oplog
                    .failed(op.seq, if op.since.elapsed() > RETRY_MAX { RETRY_MAX } else { RETRY_FIRST });
                Err(e)
            }
        }
    }

    fn applied(&self, op: &Op) {
        self.enter_applied(op);
        for ino in op.change.objects() {
            self.drain.unmark_if_nameless(self, ino);
            self.drop_if_unused(ino);
        }
    }

    /// A change is on the backing: tables, journal and log say so.
    fn enter_applied(&self, op: &Op) {
        let objects = if op.cancelled { SmallVec::new() } else { op.change.objects() };
        let touched = objects.into_iter().chain(op.change.directories());
        // Before anybody may take the change for done: an fsync that finds nothing left to apply must sync these.
        for dir in op.change.directories() {
            self.drain.unsynced(dir);
        }
        {
            let mut names = self.names.lock();
            for link in op.change.links() {
                if let Some(dir) = names.dirs.get_mut(&link.0) {
                    // A look at the backing that began before must not bring a name back, or take one away.
                    dir.touch(&link.1);
                    if dir.whiteouts.get(&link.1) == Some(&op.seq) {
                        dir.whiteouts.remove(&link.1);
                    }
                }
            }
            for (link, ino) in op.change.given() {
                if let Some(dir) = names.dirs.get_mut(&link.0).filter(|_| !op.cancelled) {
                    dir.mark_on_backing(&link.1, ino);
                }
            }
            let directories = op.change.directories();
            for ino in touched {
                if let Some(inode) = names.inode(ino) {
                    let mut state = inode.state.lock();
                    state.pending = state.pending.saturating_sub(1);
                    // The backing dated its directory anew; ours are the times that count.
                    state.attr_dirty |= directories.contains(&ino) && !op.cancelled;
                }
            }
            // Together for who rewrites the journal.
            self.journal.done(op.seq);
            self.oplog.done(op.seq);
        }
        for dir in op.change.directories() {
            self.drain.mark(dir);
        }
    }

    /// Applies now what must be on the backing so that `ino` is there under its names.
    pub(crate) fn apply_names_of(&self, ino: Ino) -> Result<()> {
        // The way to the one name that is remembered here, and then to those that the backing has.
        let place = self.inode(ino)?.state.lock().place.as_ref().map(|(parent, _)| *parent);
        self.apply_ways([ino].into_iter().collect(), place.into_iter().collect())?;
        let drained = self.inode(ino)?.state.lock().drained.iter().map(|link| link.0).collect();
        self.apply_ways(Vec::new(), drained)
    }

    /// Applies what `objects` and the directories on the ways from the root to `parents` need.
    fn apply_ways(&self, mut objects: Vec<Ino>, parents: Vec<Ino>) -> Result<()> {
        for mut at in parents {
            while at != Ino::ROOT {
                objects.push(at);
                let Some((parent, _)) = self.inode(at)?.state.lock().place.clone() else { break };
                at = parent;
            }
        }
        self.apply_all(self.oplog.closure(objects))
    }

    /// Applies changes in the order given.
    pub(crate) fn apply_all(&self, changes: Vec<Seq>) -> Result<()> {
        for seq in changes {
            if let Begin::Yours(op) = self.oplog.begin(seq) {
                self.apply_begun(&op)?;
            }
        }
        Ok(())
    }

    /// `resumed`: it may be done already.
    fn apply(&self, change: &Change, resumed: bool) -> Result<()> {
        match change {
            Change::Make { ino, link } => self.apply_make(*ino, link, resumed),
            Change::Link { ino, link } => {
                let _turn = self.settle_named(*ino, resumed)?;
                let inode = self.inode(*ino)?;
                {
                    let _shape = self.shape.read_recursive();
                    let (from, to) = (self.drained_path(*ino)?, self.path_in(link)?);
                    if !(resumed && self.backing.stat(&to).is_ok()) {
                        self.clear_the_way(&to)?;
                        self.backing.link(&from, &to)?;
                    }
                }
                inode.state.lock().drained.push(link.clone());
                Ok(())
            }
            Change::Unlink { ino, link } => self.apply_unlink(*ino, link),
            Change::Rename { ino, from, to, replaced } => {
                if let Some(replaced) = replaced {
                    self.settle_before_last_known_name_goes(*replaced, to)?;
                }
                let _turn = self.settle_named(*ino, resumed)?;
                if replaced.is_none() && !resumed {
                    let _shape = self.shape.read_recursive();
                    self.clear_the_way(&self.path_in(to)?)?;
                }
                let _shape = self.shape.write();
                if let Some(replaced) = replaced {
                    self.keep_for_users(*replaced, to, &self.path_in(to)?);
                }
                match self.backing.rename(&self.path_in(from)?, &self.path_in(to)?, RenameMode::Replace) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound && resumed => {}
                    Err(e) if e.kind() == io::ErrorKind::NotFound => self.source_is_gone(*ino, from),
                    other => other?,
                }
                if let Some(replaced) = replaced {
                    self.lose_drained(*replaced, to);
                }
                self.move_drained(*ino, from, to);
                Ok(())
            }
            Change::Exchange { ino, from, other, to } => {
                // A directory first, since one of the files in it may be the other; then in the order of their numbers,
                // so that nobody waits in a circle.
                let mut both = [*ino, *other];
                both.sort_unstable_by_key(|&ino| (!self.is_directory(ino), ino));
                let _first = self.settle_named(both[0], resumed)?;
                let _second = self.settle_named(both[1], resumed)?;
                let _shape = self.shape.write();
                let (from_path, to_path) = (self.path_in(from)?, self.path_in(to)?);
                // Done twice is undone.
                let done = resumed
                    && self.backing.stat(&from_path).is_ok_and(|there| {
                        self.names.lock().number_of(there.id).is_some_and(|number| number == *other)
                    });
                if !done {
                    self.backing.rename(&from_path, &to_path, RenameMode::Exchange)?;
                }
                self.move_drained(*ino, from, to);
                self.move_drained(*other, to, from);
                Ok(())
            }
        }
    }

    /// Of the changes that a journal left, some may be on the backing already without their daemon's having lived to
    /// say so. What they moved is looked for where it is now. Call before anything else looks; what is returned may have
    /// lost its last name.
    pub(crate) fn book_what_was_done(&self) -> Vec<Ino> {
        let mut objects = Vec::new();
        for op in self.oplog.takings_perhaps_done() {
            if !self.is_there(&op.change) {
                continue;
            }
            let Some(op) = self.oplog.found_done(op.seq) else { continue };
            match &op.change {
                Change::Rename { ino, from, to, replaced } => {
                    if let Some(replaced) = replaced {
                        self.lose_drained(*replaced, to);
                        self.find_kept_for_users(*replaced);
                    }
                    self.move_drained(*ino, from, to);
                }
                Change::Exchange { ino, from, other, to } => {
                    self.move_drained(*ino, from, to);
                    self.move_drained(*other, to, from);
                }
                Change::Unlink { ino, link } => {
                    self.lose_drained(*ino, link);
                    self.find_kept_for_users(*ino);
                }
                Change::Make { .. } | Change::Link { .. } => {}
            }
            self.enter_applied(&op);
            objects.extend(op.change.objects());
        }
        objects
    }

    /// Whether the backing shows a change that took a name away. Of the others it does no harm to do them twice.
    fn is_there(&self, change: &Change) -> bool {
        let at = |link: &Link| Some(self.backing.stat(&self.path_in(link).ok()?));
        let gone = |link: &Link| {
            at(link).is_some_and(|there| there.is_err_and(|e| e.kind() == io::ErrorKind::NotFound))
        };
        let number = |link: &Link| {
            let there = at(link)?.ok()?;
            Some((there.attr.kind, self.names.lock().number_of(there.id)))
        };
        match change {
            Change::Rename { ino, from, to, .. } => {
                let kind = self.inode(*ino).map(|inode| inode.kind).ok();
                let moved = |(there, number): (Kind, Option<Ino>)| {
                    Some(there) == kind && number.is_none_or(|number| number == *ino)
                };
                gone(from) && number(to).is_some_and(moved)
            }
            Change::Exchange { ino, from, other, to } => {
                let is = |link: &Link, ino: Ino| number(link).is_some_and(|(_, is)| is == Some(ino));
                is(from, *other) || is(to, *ino)
            }
            Change::Unlink { link, .. } => gone(link),
            Change::Make { .. } | Change::Link { .. } => false,
        }
    }

    /// A new file that is written to the backing has its name there, and its daemon did not live to say so.
    pub(crate) fn find_named(&self, ino: Ino, link: &Link) {
        let stat = self.path_in(link).ok().and_then(|path| self.backing.stat(&path).ok());
        let Some(stat) = stat.filter(|stat| stat.attr.kind == Kind::File) else { return };
        let Ok(inode) = self.inode(ino) else { return };
        let mut names = self.names.lock();
        let mut state = inode.state.lock();
        state.drained.push(link.clone());
        (state.file.place, state.file.taken_up) = (Place::Backing, true);
        names.bind(stat.id, ino);
        state.set_baseline(Some(crate::engine::baseline(&stat)));
        self.journal.basis(ino, &state);
    }

    /// See [`Engine::keep_for_users`].
    fn find_kept_for_users(&self, ino: Ino) {
        let Ok(inode) = self.inode(ino) else { return };
        let kept = self.backing.stat(&Engine::unnamed_path(ino)).is_ok();
        let mut state = inode.state.lock();
        if kept && state.nameless() && state.drained.is_empty() && state.file.place == Place::Backing {
            state.file.place = Place::Unnamed;
        }
    }

    fn move_drained(&self, ino: Ino, from: &Link, to: &Link) {
        if let Ok(inode) = self.inode(ino) {
            let mut state = inode.state.lock();
            state.drained.retain(|link| link != from && link != to);
            state.drained.push(to.clone());
        }
    }

    /// Makes durable what a rename or link is about to name: a file, or all files below a directory. While the turn is
    /// held, nobody writes what is newer and not durable to the file.
    fn settle_named(&self, ino: Ino, resumed: bool) -> Result<Option<Turn<'_>>> {
        let inode = self.inode(ino)?;
        if inode.kind != Kind::Directory {
            let turn = self.drain.turn(ino);
            return match self.settle_holding(&turn, &inode, true) {
                // Renamed already, by a daemon that did not live to say so.
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::NotFound && resumed => Ok(Some(turn)),
                other => other.map(|()| Some(turn)),
            };
        }
        // Where the backing has them: what was moved out of it here since then, or removed, is below it there.
        let mut known = FxHashMap::from_iter([(ino, true), (Ino::ROOT, ino == Ino::ROOT)]);
        for (file, _) in self.drain.dirty_inodes() {
            let Ok(file) = self.inode(file) else { continue };
            let parents: SmallVec<[Ino; 1]> = file.state.lock().drained.iter().map(|link| link.0).collect();
            if file.kind == Kind::File && parents.iter().any(|&dir| self.is_drained_below(dir, &mut known)) {
                match self.settle(&file, false) {
                    // Removed there meanwhile.
                    Err(Error::NotFound) if file.state.lock().drained.is_empty() => {}
                    // Its removal waits for this rename, and may be what makes the room that it lacks.
                    Err(e) if file.state.lock().nameless() => {
                        log::warn!(
                            "what a removed file below a renamed directory held is not on the backing: {e}"
                        );
                    }
                    other => other?,
                }
            }
        }
        // One flush for all of them.
        if self.may_hold_files(ino) {
            self.backing.sync_all()?;
        }
        Ok(None)
    }

    /// Whether the backing has `dir` below a directory. `known` says so of some; the way to one of those is added.
    fn is_drained_below(&self, dir: Ino, known: &mut FxHashMap<Ino, bool>) -> bool {
        let mut way: SmallVec<[Ino; 8]> = SmallVec::new();
        let mut at = dir;
        let is_below = loop {
            if let Some(&is_below) = known.get(&at) {
                break is_below;
            }
            way.push(at);
            let parent =
                self.inode(at).ok().and_then(|inode| inode.state.lock().drained.first().map(|l| l.0));
            let Some(parent) = parent else { break false };
            at = parent;
        };
        known.extend(way.into_iter().map(|dir| (dir, is_below)));
        is_below
    }

    /// Whether the backing may have files below a directory, as far as we know them.
    fn may_hold_files(&self, dir: Ino) -> bool {
        let names = self.names.lock();
        let mut directories = names.directories_below(dir);
        directories.push(dir);
        let mut known = directories.iter().filter_map(|dir| names.dirs.get(dir));
        // A name that the backing still shows may stand for a file, or a directory with some; a name given since may have
        // been another file's.
        known.any(|dir| !dir.whiteouts.is_empty() || dir.names().any(|(_, e)| e.kind != Kind::Directory))
    }

    fn is_directory(&self, ino: Ino) -> bool {
        self.inode(ino).is_ok_and(|inode| inode.kind == Kind::Directory)
    }

    fn apply_make(&self, ino: Ino, link: &Link, resumed: bool) -> Result<()> {
        let inode = self.inode(ino)?;
        if !inode.state.lock().drained.contains(link) {
            self.make_on_backing(&inode, link, resumed)?;
        }
        // The name is there, and the change done, whatever becomes of the rest: that is tried again by itself, and
        // whatever needs it waits for it.
        let with_name = inode.kind != Kind::Directory && is_small_and_closed(&inode);
        if with_name && let Err(e) = self.settle(&inode, false) {
            self.drain.note(&e);
            self.drain.report(format!(
                "{}: not on the backing yet, kept in memory and retried: {e}",
                self.show(link)
            ));
        }
        self.drain.mark(ino);
        Ok(())
    }

    fn make_on_backing(&self, inode: &Inode, link: &Link, resumed: bool) -> Result<()> {
        let _shape = self.shape.read_recursive();
        let path = self.path_in(link)?;
        let (attr, target, unnamed) = {
            let state = inode.state.lock();
            (state.attr, state.target.clone(), state.file.place == Place::Unnamed)
        };
        self.clear_the_way_for(inode, &path, unnamed, resumed)?;
        let owner = Owner { uid: attr.uid, gid: attr.gid };
        let made_before =
            resumed && !unnamed && self.backing.stat(&path).is_ok_and(|s| s.attr.kind == inode.kind);
        match inode.kind {
            _ if made_before => {
                let mut state = inode.state.lock();
                if inode.kind == Kind::File && state.file.place == Place::Empty {
                    // Whatever it holds was given to it with its name.
                    state.file.place = Place::Backing;
                }
            }
            Kind::File => self.make_file(inode, link, &path, owner)?,
            Kind::Directory => match self.backing.make(&path, &Make::Directory, attr.mode | 0o700, owner) {
                // A directory that appeared outside under the same name is the same directory.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            },
            Kind::Symlink => {
                self.backing.make(
                    &path,
                    &Make::Symlink(target.as_deref().unwrap_or_default()),
                    0o777,
                    owner,
                )?;
            }
            kind => self.backing.make(&path, &Make::Node(kind, attr.rdev), attr.mode, owner)?,
        }
        let stat = self.backing.stat(&path);
        {
            let mut names = self.names.lock();
            let mut state = inode.state.lock();
            if !state.drained.contains(link) {
                state.drained.push(link.clone());
            }
            state.attr_dirty = true;
            if let Ok(stat) = stat {
                names.bind(stat.id, inode.ino);
                state.set_baseline(Some(crate::engine::baseline(&stat)));
                self.journal.basis(inode.ino, &state);
            }
        }
        if inode.kind == Kind::Directory {
            // The rest of its attributes follows when nothing waits in it any more, except for what keeps others out.
            let change = AttrChange { owner: Some((attr.uid, attr.gid)), mode: Some(attr.mode), times: None };
            self.backing.set_attr(&path, &change)?;
        }
        Ok(())
    }

    fn apply_unlink(&self, ino: Ino, link: &Link) -> Result<()> {
        let directory = self.is_directory(ino);
        self.settle_before_last_known_name_goes(ino, link)?;
        let _shape = self.shape.write();
        let Ok(path) = self.path_in(link) else { return Ok(()) };
        self.keep_for_users(ino, link, &path);
        let removed = if directory { self.backing.rmdir(&path) } else { self.backing.unlink(&path) };
        match removed {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if directory && e.kind() == io::ErrorKind::DirectoryNotEmpty => {
                // Filled from outside after it was removed here: it stays, and is found again.
                self.drain.conflicts.fetch_add(1, Ordering::Relaxed);
                self.drain.report(format!(
                    "{}: removed here, but kept since files were put into it on the backing",
                    self.show(link)
                ));
            }
            Err(e) => return Err(e.into()),
        }
        self.lose_drained(ino, link);
        Ok(())
    }

    /// What is written to a file with other names goes through a name that we know, as long as we know one.
    fn settle_before_last_known_name_goes(&self, ino: Ino, link: &Link) -> Result<()> {
        let Ok(inode) = self.inode(ino) else { return Ok(()) };
        let last_known = {
            let state = inode.state.lock();
            state.file.dirty && !state.nameless() && state.drained.len() == 1 && state.drained[0] == *link
        };
        if last_known { self.settle(&inode, false) } else { Ok(()) }
    }

    /// A file loses its last name on the backing, which has its content, and is open: it gets one in our private directory, by
    /// which the next daemon finds it if this one dies. Removed with the last user.
    fn keep_for_users(&self, ino: Ino, link: &Link, path: &[u8]) {
        let Ok(inode) = self.inode(ino) else { return };
        let needed = {
            let state = inode.state.lock();
            let open = state.file.epoch.is_some() && state.file.place == Place::Backing;
            open && state.nameless() && state.drained.len() == 1 && state.drained[0] == *link
        };
        // Where that can't be (no hard links, another device), it is gone with this daemon.
        if needed && self.link_unnamed(path, &Engine::unnamed_path(ino)).is_ok() {
            let mut state = inode.state.lock();
            state.file.place = Place::Unnamed;
            self.journal.dirty(ino, &state);
        }
    }

    /// Something may be there: the same file, linked by a daemon that died right after that, or what one before left of
    /// another.
    fn link_unnamed(&self, path: &[u8], unnamed: &[u8]) -> io::Result<()> {
        let link = || self.backing.link(path, unnamed);
        match link() {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                if self.backing.stat(path)?.id == self.backing.stat(unnamed)?.id {
                    return Ok(());
                }
                self.backing.unlink(unnamed)?;
                link()
            }
            linked => linked,
        }
    }

    /// The backing no longer has `ino` under `link`. With the last name its number there is free for others.
    fn lose_drained(&self, ino: Ino, link: &Link) {
        let Ok(inode) = self.inode(ino) else { return };
        let mut names = self.names.lock();
        let mut state = inode.state.lock();
        state.drained.retain(|drained| drained != link);
        if !state.drained.is_empty() {
            return;
        }
        if state.nameless() {
            if let Some(baseline) = state.set_baseline(None) {
                names.unbind(baseline.id, ino);
            }
            return;
        }
        // A file that was found under one of its names has others there, which nobody looked up yet.
        let id = state.baseline().map(|baseline| baseline.id);
        drop(state);
        let others = names.links_of(ino);
        drop(names);
        for other in others {
            let found = self.path_in(&other).ok().and_then(|path| self.backing.stat(&path).ok());
            if id.is_some() && found.map(|stat| stat.id) == id {
                let mut state = inode.state.lock();
                state.drained.push(other);
                self.journal.found(ino, &state);
            }
        }
    }

    /// Somebody removed on the backing what is to be renamed there. What we hold of it is written anew.
    fn source_is_gone(&self, ino: Ino, from: &Link) {
        self.drain.conflicts.fetch_add(1, Ordering::Relaxed);
        self.drain.report(format!("{}: renamed here, but gone on the backing", self.show(from)));
        if let Ok(inode) = self.inode(ino) {
            let mut state = inode.state.lock();
            if state.file.place == crate::namespace::Place::Arena {
                state.file.touch();
                self.drain.mark(ino);
            }
        }
    }

    /// Where the backing would have a name.
    pub(crate) fn path_in(&self, link: &Link) -> Result<Vec<u8>> {
        Ok(join_path(&self.drained_path(link.0)?, &link.1))
    }

    /// Something that appeared outside under a name that we are about to make is kept under a conflict name.
    fn clear_the_way(&self, path: &[u8]) -> Result<()> {
        match self.backing.stat(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
            Ok(_) => self.keep_aside(path),
        }
    }

    /// `unnamed`: its content waits for the name, so that a file that is there already is somebody else's.
    fn clear_the_way_for(&self, inode: &Inode, path: &[u8], unnamed: bool, resumed: bool) -> Result<()> {
        match self.backing.stat(path) {
            // Made already.
            Ok(stat) if resumed && !unnamed && stat.attr.kind == inode.kind => Ok(()),
            Ok(stat) if stat.attr.kind == Kind::Directory && inode.kind == Kind::Directory => Ok(()),
            Ok(_) => self.keep_aside(path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Renames the outside version of a file: ours takes the name, nothing is lost.
    pub(super) fn keep_aside(&self, path: &[u8]) -> Result<()> {
        for number in 0..10_000_u32 {
            let count = if number > 0 { format!("-{number}") } else { String::new() };
            let suffix = format!(".aimss-conflict-{}{count}", self.config.node);
            // A long name gives up its end.
            let name_at = path.iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
            let room = crate::ids::NAME_BYTES_MAX.saturating_sub(suffix.len());
            let mut aside = path[..path.len().min(name_at + room)].to_vec();
            aside.extend_from_slice(suffix.as_bytes());
            match self.backing.stat(&aside) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.backing.rename(path, &aside, RenameMode::Replace)?;
                    self.drain.conflicts.fetch_add(1, Ordering::Relaxed);
                    self.drain.report(format!(
                        "{}: changed here and on the backing; the backing's version is kept as {}",
                        String::from_utf8_lossy(path).escape_debug(),
                        String::from_utf8_lossy(&aside).escape_debug()
                    ));
                    return Ok(());
                }
                Err(e) => return Err(e.into()),
                Ok(_) => {}
            }
        }
        Err(Error::Exists)
    }

    pub(super) fn show(&self, link: &Link) -> String {
        let dir = self.path_of(link.0).unwrap_or_default();
        String::from_utf8_lossy(&join_path(&dir, &link.1)).escape_debug().to_string()
    }
}

/// Whether an object's content, if it has any, is written by the thread that makes its name.
fn is_small_and_closed(inode: &Inode) -> bool {
    let state = inode.state.lock();
    inode.kind != Kind::File
        || state.file.writers() == 0 && state.attr.size <= super::content::WITH_NAME_BYTES_MAX
}
