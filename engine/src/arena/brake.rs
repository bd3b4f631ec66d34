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
use std::time::Duration;

/// Bytes of a page, and of what is written from.
const PAGE_BYTES: usize = 4096;
/// The lock is had in so long: a write that has it takes as long as a copy of what it writes.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// The kernel's numbers (`linux/userfaultfd.h`).
const API_VERSION: u64 = 0xAA;
const FEATURE_POISON: u64 = 1 << 14;
const MODE_MISSING: u64 = 1;
const API: libc::Ioctl = ioctl(0x3F, size_of::<Api>());
const REGISTER: libc::Ioctl = ioctl(0x00, size_of::<Register>());
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
    let mut run = Some(run);
    let mut out = None;
    let held = hold_each(files, &mut || out = run.take().map(|run| run()));
    (out.expect("it is run once, held or not"), held)
}

fn hold_each(files: &[File], run: &mut dyn FnMut()) -> io::Result<()> {
    let Some((file, others)) = files.split_first() else {
        run();
        return Ok(());
    };
    let trap = match Trap::new() {
        Ok(trap) => trap,
        Err(e) => {
            hold_each(others, run)?;
            return Err(e);
        }
    };
    let page = trap.page.as_ptr() as usize;
    std::thread::scope(|scope| {
        // SAFETY: one byte of a page that is mapped until the scope ends; that it may not be there is the kernel's to find.
        let write = move || unsafe { libc::pwrite(file.as_raw_fd(), page as *const libc::c_void, 1, 0) };
        let holder = match std::thread::Builder::new().name("hold".into()).spawn_scoped(scope, write) {
            Ok(holder) => holder,
            Err(e) => {
                hold_each(others, run)?;
                return Err(e);
            }
        };
        let caught = trap.caught();
        let below = hold_each(others, run);
        let released = trap.release();
        let written = holder.join().unwrap_or(-1);
        released?;
        if !caught? || written >= 0 {
            return Err(io::Error::other("the file's lock was not had in time"));
        }
        below
    })
}

/// A page that waits for us whenever it is touched.
struct Trap {
    faults: OwnedFd,
    page: MmapMut,
}

impl Trap {
    fn new() -> io::Result<Trap> {
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        // SAFETY: what it hands us are faults of the one page that is registered below, and that only `hold_each` touches.
        let faults = unsafe { rustix::mm::userfaultfd(flags)? };
        let mut api = Api { version: API_VERSION, features: FEATURE_POISON, ioctls: 0 };
        call(&faults, API, &mut api)?;
        let page = MmapOptions::new().len(PAGE_BYTES).map_anon()?;
        let (start, length) = (page.as_ptr() as u64, PAGE_BYTES as u64);
        call(&faults, REGISTER, &mut Register { start, length, mode: MODE_MISSING, ioctls: 0 })?;
        Ok(Trap { faults, page })
    }

    /// Waits until somebody is caught; false if nobody is in time.
    fn caught(&self) -> io::Result<bool> {
        let wait = rustix::time::Timespec::try_from(LOCK_WAIT).map_err(io::Error::other)?;
        Ok(poll(&mut [PollFd::new(&self.faults, PollFlags::IN)], Some(&wait))? > 0)
    }

    fn release(&self) -> io::Result<()> {
        let (start, length) = (self.page.as_ptr() as u64, PAGE_BYTES as u64);
        call(&self.faults, POISON, &mut Poison { start, length, mode: 0, updated: 0 })
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
    use std::time::Instant;

    #[test]
    fn writers_wait_and_go_on_and_nothing_is_written() {
        let (a, b) = (tempfile::tempfile_in("/dev/shm"), tempfile::tempfile_in("/dev/shm"));
        let files = [a.expect("a file"), b.expect("a file")];
        for file in &files {
            file.write_all_at(b"first", 0).expect("written");
        }
        if let ((), Err(e)) = hold(&files, || ()) {
            // The one reason there is: no right to it, or a kernel without it.
            assert!(matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::EINVAL)), "{e}");
            println!("SKIPPED: userfaultfd: {e}");
            return;
        }
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
            for _ in 0..20 {
                let before = seen();
                let start = Instant::now();
                while moved(before, seen()).contains(&0) {
                    assert!(start.elapsed() < Duration::from_secs(10), "nobody writes");
                }
                let (meanwhile, held) = hold(&files, || {
                    // One whose write had ended may not have counted it yet.
                    std::thread::sleep(Duration::from_millis(5));
                    let before = seen();
                    std::thread::sleep(Duration::from_millis(20));
                    moved(before, seen())
                });
                held.expect("held");
                assert_eq!(meanwhile, [0, 0]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        for file in &files {
            let mut start = [0; 5];
            file.read_exact_at(&mut start, 0).expect("read");
            assert_eq!(&start, b"first");
        }
    }
}
