//! Holding writers of an arena file back whose writes don't come to us.
//!
//! A passthrough write takes the arena file's lock in the kernel. So does a write(2) of ours: from a page that
//! userfaultfd(2) has not filled yet it waits in the page fault, with the lock held, and every other writer waits behind
//! it. To let go, the page is poisoned, and our write ends with EFAULT, having written nothing; it only dates the file.
//! Should the daemon die meanwhile, the kernel lets go by itself.
//!
//! Who is held can't be killed, so hold for milliseconds only. Readers are not held.

use memmap2::{MmapMut, MmapOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mm::UserfaultfdFlags;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes of a page, and of what is written from.
const PAGE_BYTES: usize = 4096;
/// All locks are to be had in so long, or it goes on without: a write that has one takes as long as a copy of what it writes,
/// and who is held already waits meanwhile.
const LOCK_WAIT: Duration = Duration::from_millis(20);

/// The kernel's numbers (`linux/userfaultfd.h`).
const API_VERSION: u64 = 0xAA;
const FEATURE_POISON: u64 = 1 << 14;
const MODE_MISSING: u64 = 1;
const API: libc::Ioctl = ioctl(0x3F, size_of::<Api>());
const REGISTER: libc::Ioctl = ioctl(0x00, size_of::<Register>());
/// It reads only, and has a direction of its own.
const UNREGISTER: libc::Ioctl =
    (2 << 30 | (size_of::<Range>() as u32) << 16 | (API_VERSION as u32) << 8 | 1) as libc::Ioctl;
const POISON: libc::Ioctl = ioctl(0x08, size_of::<Poison>());

#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Range {
    start: u64,
    length: u64,
}

#[repr(C)]
struct Poison {
    start: u64,
    length: u64,
    mode: u64,
    updated: i64,
}

/// Of a request that is both read and written.
const fn ioctl(number: u32, bytes: usize) -> libc::Ioctl {
    (3 << 30 | (bytes as u32) << 16 | (API_VERSION as u32) << 8 | number) as libc::Ioctl
}

/// Runs `run` while nobody else writes `files`, which are open for writing and hold at least a byte. An error of the
/// kernel's means that it ran without that, or with only some of them held.
pub fn hold<T>(files: &[File], run: impl FnOnce() -> T) -> (T, io::Result<()>) {
    let traps = match files.iter().map(|_| Trap::new()).collect::<io::Result<Vec<Trap>>>() {
        Ok(traps) => traps,
        Err(e) => return (run(), Err(e)),
    };
    std::thread::scope(|scope| {
        // Dropped at the end of this, or where it panics: all are let go before any of the threads is waited for.
        let set: Vec<Set<'_>> = traps.iter().map(Set).collect();
        let begun = files.iter().zip(&traps).map(|(file, trap)| {
            let page = trap.page.as_ptr() as usize;
            let write = move || {
                // SAFETY: one byte of a page that is mapped until the scope ends; that it is not there is the kernel's to find.
                unsafe { libc::pwrite(file.as_raw_fd(), page as *const libc::c_void, 1, 0) }
            };
            std::thread::Builder::new().name("hold".into()).spawn_scoped(scope, write).map(drop)
        });
        let begun: io::Result<()> = begun.collect();
        let until = Instant::now() + LOCK_WAIT;
        let caught = traps.iter().try_fold(true, |all, trap| {
            Ok::<bool, io::Error>(trap.caught(until.saturating_duration_since(Instant::now()))? && all)
        });
        let out = run();
        drop(set);
        let held = match begun.and(caught) {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("not all files' locks were had in time")),
            Err(e) => Err(e),
        };
        (out, held)
    })
}

/// A page that waits for us whenever it is touched.
struct Trap {
    faults: OwnedFd,
    page: MmapMut,
}

/// One that is let go when this is dropped.
struct Set<'t>(&'t Trap);

impl Drop for Set<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Trap {
    fn new() -> io::Result<Trap> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: what it hands us are faults of the one page that is registered below, which only `hold` has touched.
        let faults = unsafe { rustix::mm::userfaultfd(flags)? };
        let mut api = Api { version: API_VERSION, features: FEATURE_POISON, ioctls: 0 };
        call(&faults, API, &mut api)?;
        let page = MmapOptions::new().len(PAGE_BYTES).map_anon()?;
        let (start, length) = (page.as_ptr() as u64, PAGE_BYTES as u64);
        call(&faults, REGISTER, &mut Register { start, length, mode: MODE_MISSING, ioctls: 0 })?;
        Ok(Trap { faults, page })
    }

    /// Waits until somebody is caught; false if nobody is in time.
    fn caught(&self, longest: Duration) -> io::Result<bool> {
        let wait = rustix::time::Timespec::try_from(longest).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&self.faults, PollFlags::IN)], Some(&wait))? > 0)
    }

    /// Whoever touches it from now on gets an error.
    fn release(&self) {
        let (start, length) = (self.page.as_ptr() as u64, PAGE_BYTES as u64);
        if let Err(e) = call(&self.faults, POISON, &mut Poison { start, length, mode: 0, updated: 0 }) {
            log::debug!("a page can't be poisoned ({e}): it is taken away");
            // SAFETY: a page of ours that nobody reads or writes but the kernel, for the write that waits.
            let _ = unsafe { libc::mprotect(start as *mut libc::c_void, PAGE_BYTES, libc::PROT_NONE) };
            let _ = call(&self.faults, UNREGISTER, &mut Range { start, length });
        }
    }
}

fn call<T>(faults: &OwnedFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: the request is one that reads and writes a structure of this size, which it is told.
    match unsafe { libc::ioctl(faults.as_raw_fd(), request, std::ptr::from_mut(argument)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    #[test]
    fn writers_wait_and_go_on_and_nothing_is_written() {
        let (a, b) = (tempfile::tempfile_in("/dev/shm"), tempfile::tempfile_in("/dev/shm"));
        let files = [a.expect("a file"), b.expect("a file")];
        for file in &files {
            file.write_all_at(b"first", 0).expect("written");
        }
        // No right to it, or a kernel without it.
        if let ((), Err(e)) = hold(&files, || ())
            && matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL))
        {
            assert!(std::env::var_os("AIMSS_NO_SKIPS").is_none(), "skipped layers count as failures here");
            println!("skipped: userfaultfd(2): {e}");
            return;
        }
        let begun = Instant::now();
        let (counts, stop) = ([AtomicU64::new(0), AtomicU64::new(0)], AtomicBool::new(false));
        std::thread::scope(|scope| {
            for (file, count) in files.iter().zip(&counts) {
                let stop = &stop;
                scope.spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        file.write_all_at(b"more", 100).expect("written");
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let seen = || counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            let moved = |since: [u64; 2], now: [u64; 2]| [now[0] - since[0], now[1] - since[1]];
            let (mut times, mut waited) = (0, true);
            while times < 20 {
                let before = seen();
                let start = Instant::now();
                while moved(before, seen()).contains(&0) && start.elapsed() < Duration::from_secs(10) {}
                let (meanwhile, held) = hold(&files, || {
                    // One whose write had ended may count it now.
                    let before = seen();
                    std::thread::sleep(Duration::from_millis(20));
                    moved(before, seen())
                });
                // On a machine that is busy the locks may not be had in time.
                if held.is_ok() {
                    waited = meanwhile.iter().all(|count| *count <= 1);
                    times += 1;
                }
                if !waited || begun.elapsed() > Duration::from_secs(20) {
                    break;
                }
            }
            // Before anything panics: the writers would go on for ever.
            stop.store(true, Ordering::Relaxed);
            assert!(waited, "somebody wrote meanwhile");
            assert_eq!(times, 20, "times held");
        });
        for file in &files {
            let mut start = [0; 5];
            file.read_exact_at(&mut start, 0).expect("read");
            assert_eq!(&start, b"first");
        }
    }
}
