//! A disk that loses its power: a local backing that notes each change beside making it, stops at a call, and then
//! builds the directories that could be found when the power is back.
//!
//! 1. Every call that changes something is made under one lock and noted ([`record`]): names in the order of the
//!    calls, attributes and content as a row of versions, each with the oldest that is still possible: what was
//!    synced.
//! 2. From the call of [`Cut::at`] on all changes fail. That call itself may be done without anybody's hearing of it,
//!    and a copy in part. What was written through open files, past this trait, is read in that moment.
//! 3. [`Disk::after`] chooses what survives ([`survive`]) and builds it elsewhere ([`build`]); it may be asked again
//!    for other outcomes of the same cut.
//!
//! What is not synced survives by [`Order`]. In both, a file's bytes are those of its last fsync or of any later
//! version, page by page, or zeros where the file grew; its size is that of one of these versions.
//!
//! Nothing is made durable for real, so that this is fast. Inode numbers are not used again, since each file is held
//! by a descriptor without rights (which takes part in no lease).

mod build;
mod record;
mod survive;

pub use survive::{Order, Survivors};

use aimss_engine::backing::{
    AttrChange, Backing, Listed, LocalBacking, Make, Owner, RenameMode, Room, Stat, Way,
};
use parking_lot::Mutex;
use record::Record;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Where the power goes.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// The first call that fails; calls that change something are numbered from 0.
    pub at: u64,
    /// So many thousandths of its bytes are copied if it copies; anything else is done from the half on.
    pub torn: u64,
}

/// See the module.
pub struct Disk {
    inner: Arc<LocalBacking>,
    state: Mutex<State>,
}

struct State {
    calls: u64,
    cut: Option<Cut>,
    /// The power is gone, and the record is what it was then.
    gone: bool,
    record: Record,
    /// Each call, for the message of a failure.
    trace: Vec<String>,
}

/// What a call meets.
enum Power {
    On,
    /// It goes during this call, after so many thousandths of it.
    Going(u64),
    Gone,
}

impl Disk {
    /// A disk with nothing but our private directory on it.
    pub fn new(inner: Arc<LocalBacking>) -> Arc<Disk> {
        let record = Record::new(&inner);
        let state = State { calls: 0, cut: None, gone: false, record, trace: Vec::new() };
        Arc::new(Disk { inner, state: Mutex::new(state) })
    }

    /// Calls so far that change something.
    pub fn calls(&self) -> u64 {
        self.state.lock().calls
    }

    pub fn cut_at(&self, cut: Cut) {
        self.state.lock().cut = Some(cut);
    }

    pub fn is_cut(&self) -> bool {
        self.state.lock().gone
    }

    /// The power goes now, if it did not before.
    pub fn cut_now(&self) {
        let mut state = self.state.lock();
        if !state.gone {
            state.gone = true;
            state.record.look_at_all();
        }
    }

    /// One of the outcomes of the cut, built in the empty directory `into`.
    pub fn after(
        &self,
        order: Order,
        random: &mut super::random::Random,
        into: &std::path::Path,
    ) -> Survivors {
        let state = self.state.lock();
        assert!(state.gone, "the power is still on");
        let survivors = Survivors::choose(&state.record, order, random);
        build::build(&state.record, &survivors, random, into);
        survivors
    }

    /// The last calls, a line each.
    pub fn trace(&self, lines: usize) -> String {
        let state = self.state.lock();
        state.trace[state.trace.len().saturating_sub(lines)..].join("\n")
    }

    /// Makes a change and notes it, or doesn't.
    fn change<T>(
        &self,
        what: impl FnOnce() -> String,
        make: impl FnOnce(u64) -> io::Result<T>,
        note: impl FnOnce(&mut Record, &T),
    ) -> io::Result<T> {
        const WHOLE: u64 = 1000;
        let mut state = self.state.lock();
        let power = state.call(what);
        match power {
            Power::On => {
                let made = make(WHOLE)?;
                note(&mut state.record, &made);
                return Ok(made);
            }
            Power::Going(thousandths) => {
                if let Ok(made) = make(thousandths) {
                    note(&mut state.record, &made);
                }
                state.gone = true;
                state.record.look_at_all();
            }
            Power::Gone => {}
        }
        Err(io::Error::from_raw_os_error(libc::EIO))
    }

    /// A change that is done as a whole or not at all.
    fn whole<T>(
        &self,
        what: impl FnOnce() -> String,
        make: impl FnOnce() -> io::Result<T>,
        note: impl FnOnce(&mut Record, &T),
    ) -> io::Result<T> {
        let make = |thousandths| if thousandths < 500 { Err(io::ErrorKind::Other.into()) } else { make() };
        self.change(what, make, note)
    }
}

impl State {
    fn call(&mut self, what: impl FnOnce() -> String) -> Power {
        let number = self.calls;
        self.calls += 1;
        let power = match self.cut {
            _ if self.gone => Power::Gone,
            Some(cut) if number >= cut.at => Power::Going(cut.torn),
            _ => Power::On,
        };
        if !self.gone {
            let end = if matches!(power, Power::On) { "" } else { " CUT" };
            self.trace.push(format!("{number} {}{end}", what()));
        }
        power
    }
}

fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

impl Backing for Disk {
    fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        self.inner.stat(path)
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        self.inner.list(path)
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.inner.read_link(path)
    }

    fn open_read(&self, path: &[u8]) -> io::Result<File> {
        self.inner.open_read(path)
    }

    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File> {
        self.inner.open_write(path, owner)
    }

    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File> {
        let make = || self.inner.create(path, mode, owner);
        self.whole(|| format!("create {}", show(path)), make, |record, _| record.made(&self.inner, path))
    }

    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()> {
        let change = || self.inner.make(path, make, mode, owner);
        self.whole(|| format!("make {}", show(path)), change, |record, ()| record.made(&self.inner, path))
    }

    fn unlink(&self, path: &[u8]) -> io::Result<()> {
        let make = || self.inner.unlink(path);
        self.whole(|| format!("unlink {}", show(path)), make, |record, ()| record.removed(path))
    }

    fn rmdir(&self, path: &[u8]) -> io::Result<()> {
        let make = || self.inner.rmdir(path);
        self.whole(|| format!("rmdir {}", show(path)), make, |record, ()| record.removed(path))
    }

    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()> {
        let what = || format!("rename {mode:?} {} -> {}", show(from), show(to));
        self.whole(
            what,
            || self.inner.rename(from, to, mode),
            |record, ()| {
                if mode == RenameMode::Exchange {
                    record.exchanged(from, to);
                } else {
                    record.renamed(from, to);
                }
            },
        )
    }

    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let what = || format!("link {} -> {}", show(from), show(to));
        self.whole(what, || self.inner.link(from, to), |record, ()| record.linked(from, to))
    }

    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()> {
        let make = || self.inner.set_attr(path, change);
        self.whole(
            || format!("set_attr {}", show(path)),
            make,
            |record, ()| {
                record.attributes(&self.inner, path);
            },
        )
    }

    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()> {
        let make = || self.inner.set_file_attr(file, change);
        self.whole(|| "set_file_attr".into(), make, |record, ()| record.attributes_of_file(file))
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.inner.xattrs(path)
    }

    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let make = || self.inner.set_xattr(path, name, value);
        self.whole(
            || format!("set_xattr {}", show(path)),
            make,
            |record, ()| {
                record.attributes(&self.inner, path);
            },
        )
    }

    fn begin_write_out(&self, file: &File, _: Range<u64>) -> io::Result<()> {
        self.whole(|| "begin_write_out".into(), || Ok(()), |record, ()| record.look_at(file))
    }

    fn end_write_out(&self, file: &File, _: Range<u64>) -> io::Result<()> {
        self.whole(|| "end_write_out".into(), || Ok(()), |record, ()| record.look_at(file))
    }

    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()> {
        let make = |thousandths: u64| {
            if thousandths == 1000 {
                return self.inner.copy_in(to, from, ranges, size, written);
            }
            let mut left = ranges.iter().map(|r| r.end - r.start).sum::<u64>() * thousandths / 1000;
            for range in ranges {
                let end = range.end.min(range.start + left);
                to.write_all_at(&from[range.start as usize..end as usize], range.start)?;
                left -= end - range.start;
            }
            Ok(())
        };
        let number = || std::os::unix::fs::MetadataExt::ino(&to.metadata().expect("an open file"));
        self.change(
            || format!("copy {size} bytes to file {}", number()),
            make,
            |record, ()| record.look_at(to),
        )
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        let number = || std::os::unix::fs::MetadataExt::ino(&file.metadata().expect("an open file"));
        self.whole(|| format!("sync file {}", number()), || Ok(()), |record, ()| record.synced(file))
    }

    fn sync_dir(&self, path: &[u8]) -> io::Result<()> {
        let make = || self.inner.stat(path).map(|_| ());
        self.whole(|| format!("sync dir {}", show(path)), make, |record, ()| record.synced_dir(path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.whole(|| "sync all".into(), || Ok(()), |record, ()| record.synced_all())
    }

    fn room(&self) -> io::Result<Room> {
        self.inner.room()
    }
}
