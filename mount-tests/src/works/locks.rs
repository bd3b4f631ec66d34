//! Locks on whole files: flock(2), and those of open file descriptions by fcntl(2), which like flock exclude threads of
//! one process that have descriptors of their own.
//!
//! The kernel keeps these locks by itself: at INIT (`fs/src/adapter.rs`) the daemon asks neither for FUSE_POSIX_LOCKS nor
//! for FUSE_FLOCK_LOCKS, and it has no `getlk`, `setlk` or `flock`; it never hears of a lock, nor of who waits for one. So
//! what is proven is not that daemons pass locks on, but that a death leaves alone what they hang on: the open file, and the
//! kernel's inode, to which the file's name must lead whoever opens it anew from the next daemon. And that what is read and
//! written under a lock is what the one before left.

use super::Load;
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FlockOperation, flock};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A lock is held for so many steps: longer than many a daemon lives.
const HELD_FOR: u64 = 200;
/// Without a lock, so that the other one has it meanwhile.
const PAUSE: Duration = Duration::from_millis(1);

/// Two threads count, each by descriptors of its own, and one of them holds other locks all the time.
pub(super) fn locks(dir: &Path, load: &Load) -> Result<()> {
    let (ended, ours, theirs) = (AtomicBool::new(false), Counter::open_all(dir)?, Counter::open_all(dir)?);
    let mut held = Kind::ALL.map(|kind| Held::take(kind, dir)).into_iter().collect::<Result<Vec<_>>>()?;
    let counted = std::thread::scope(|scope| {
        let other = scope.spawn(|| -> Result<u64> {
            let mut counted = 0;
            while !ended.load(Ordering::SeqCst) {
                theirs.iter().try_for_each(Counter::count)?;
                counted += 1;
                std::thread::sleep(PAUSE);
            }
            Ok(counted)
        });
        let mut counted = 0;
        let worked = load.each(|number| {
            ensure!(!other.is_finished(), "the other thread has failed");
            ours.iter().try_for_each(Counter::count)?;
            counted += 1;
            for held in &mut held {
                held.excludes_others()?;
                if number % HELD_FOR == HELD_FOR - 1 {
                    held.changes_hands()?;
                }
            }
            std::thread::sleep(PAUSE);
            Ok(())
        });
        ended.store(true, Ordering::SeqCst);
        // What it says is why, where both failed.
        let others = other.join().expect("no panic").context("the other thread")?;
        worked?;
        anyhow::Ok(counted + others)
    })?;
    for counter in &ours {
        let (kind, number) = (counter.kind, counter.number()?);
        ensure!(number == counted, "under {kind} one was added {counted} times, which came to {number}");
    }
    drop((ours, theirs, held));
    for kind in Kind::ALL {
        fs::remove_file(kind.counted(dir))?;
        fs::remove_file(kind.held(dir))?;
    }
    Ok(())
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Flock,
    OpenFile,
}

impl Kind {
    const ALL: [Kind; 2] = [Kind::Flock, Kind::OpenFile];

    fn counted(self, dir: &Path) -> PathBuf {
        dir.join(format!("counted-under-{self}"))
    }

    fn held(self, dir: &Path) -> PathBuf {
        dir.join(format!("held-under-{self}"))
    }

    /// Waits until nobody else has it.
    fn lock(self, file: &File) -> io::Result<()> {
        match self {
            Kind::Flock => Ok(flock(file, FlockOperation::LockExclusive)?),
            Kind::OpenFile => set(file, libc::F_OFD_SETLKW, libc::F_WRLCK),
        }
    }

    /// False where another has it.
    fn try_lock(self, file: &File) -> io::Result<bool> {
        let locked: io::Result<()> = match self {
            Kind::Flock => flock(file, FlockOperation::NonBlockingLockExclusive).map_err(Into::into),
            Kind::OpenFile => set(file, libc::F_OFD_SETLK, libc::F_WRLCK),
        };
        match locked {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            locked => locked.map(|()| true),
        }
    }

    fn unlock(self, file: &File) -> io::Result<()> {
        match self {
            Kind::Flock => Ok(flock(file, FlockOperation::Unlock)?),
            Kind::OpenFile => set(file, libc::F_OFD_SETLK, libc::F_UNLCK),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Flock => "flock",
            Kind::OpenFile => "open-file-lock",
        })
    }
}

/// Changes the lock that an open file description has on its whole file.
#[allow(unsafe_code)]
fn set(file: &File, command: libc::c_int, to: libc::c_int) -> io::Result<()> {
    // SAFETY: all of its fields are numbers.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = to as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    // SAFETY: the descriptor is open, and the kernel reads the lock during the call alone.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A number in a file, to which one is added under the lock of a descriptor.
struct Counter {
    kind: Kind,
    file: File,
}

impl Counter {
    /// One of each kind.
    fn open_all(dir: &Path) -> Result<Vec<Counter>> {
        Kind::ALL.into_iter().map(|kind| Ok(Counter { kind, file: open(&kind.counted(dir))? })).collect()
    }

    fn count(&self) -> Result<()> {
        self.kind.lock(&self.file).with_context(|| format!("{} of a counter", self.kind))?;
        let added = self.add_one();
        self.kind.unlock(&self.file).with_context(|| format!("the end of {} of a counter", self.kind))?;
        added
    }

    fn add_one(&self) -> Result<()> {
        let number = self.number()? + 1;
        self.file.write_all_at(&number.to_le_bytes(), 0)?;
        let read = self.number()?;
        ensure!(read == number, "under {} {number} was written, and {read} is there", self.kind);
        Ok(())
    }

    fn number(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        let read = self.file.read_at(&mut bytes, 0)?;
        ensure!(matches!(read, 0 | 8), "{read} bytes of a number");
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A lock that one of two descriptors has.
struct Held {
    kind: Kind,
    path: PathBuf,
    files: [File; 2],
    /// Which of them.
    owner: usize,
}

impl Held {
    fn take(kind: Kind, dir: &Path) -> Result<Held> {
        let path = kind.held(dir);
        let files = [open(&path)?, open(&path)?];
        ensure!(kind.try_lock(&files[0])?, "{kind} of a new file is not to be had");
        Ok(Held { kind, path, files, owner: 0 })
    }

    /// Neither the other descriptor can have it, nor one that is opened now.
    fn excludes_others(&self) -> Result<()> {
        let anew = open(&self.path)?;
        for (who, file) in [("another descriptor", &self.files[1 - self.owner]), ("a new one", &anew)] {
            ensure!(!self.kind.try_lock(file)?, "{} was given to {who} while it was held", self.kind);
        }
        Ok(())
    }

    fn changes_hands(&mut self) -> Result<()> {
        self.kind.unlock(&self.files[self.owner])?;
        self.owner = 1 - self.owner;
        let given = self.kind.try_lock(&self.files[self.owner])?;
        ensure!(given, "{} was given back, and is not to be had", self.kind);
        Ok(())
    }
}
