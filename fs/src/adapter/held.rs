//! Requests that the daemon has and has not answered: for status, which names those that take too long, and for
//! programs that were killed meanwhile, which are let go.
//!
//! The kernel lets a killed program go only once what it asked for is answered. It would say that the program was
//! killed (FUSE_INTERRUPT), but fuser answers that it doesn't want to hear of it; so whoever waits for long is
//! looked at. Who asked for a change waits all the same: the kernel keeps changes in order by their answers.
//!
//! A request is entered (`Held::enter`) by the thread that reads it, and goes with the work from thread to thread
//! (`carry`). Who gives the kernel something to keep (an entry, a handle) asks first whether somebody still waits
//! (`still_awaited`), and takes it back if not. Members of a group, which may wait for days, are not here: who looks
//! after them is in the engine.

use aimss_engine::Ino;
use aimss_engine::journal::AGAIN;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From when on it is looked at whether the program that waits was killed.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// From when on a request has taken too long.
pub const TOO_LONG: Duration = Duration::from_secs(5);
/// What is not let go: it would be done later than its program's end, when the kernel neither orders it among others nor
/// forgets what it remembers of before.
const CHANGE: [&str; 14] = [
    "setattr",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "create",
    "write",
    "setxattr",
    "removexattr",
    "fallocate",
    "copy_file_range",
];
/// The most that are named.
const NAMED_MAX: usize = 10;
/// SIGKILL in a set of signals.
const KILLED: u64 = 1 << (libc::SIGKILL - 1);
/// A fuse_out_header.
const HEADER_BYTES: usize = 16;

/// One that is held.
#[derive(Debug, Clone)]
pub struct Request {
    /// As FUSE calls it.
    pub operation: &'static str,
    /// What it is on: the object, or the directory of `name`.
    pub ino: Ino,
    /// Empty where the operation takes none.
    pub name: Box<[u8]>,
    /// Thread that asked; 0 if nobody waits.
    pub thread: u32,
    /// When it was read.
    pub since: Instant,
    /// It changes something: whoever asked for it waits, dead or alive.
    changes: bool,
    /// It was said that it takes too long.
    is_told: bool,
}

/// All that are held, by the kernel's number.
#[derive(Debug, Default)]
pub struct Held(Mutex<HashMap<u64, Request>>);

thread_local! {
    /// What this thread works on.
    static HERE: RefCell<Option<Holding>> = const { RefCell::new(None) };
}

/// A request until it is answered.
#[derive(Debug)]
pub(super) struct Holding {
    held: Arc<Held>,
    number: u64,
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.held.0.lock().remove(&self.number);
    }
}

/// The request that this thread works on, unless it was carried away; dropped, it is answered.
#[derive(Debug)]
pub(super) struct Here {
    /// Another one, further up the stack, is the one.
    nested: bool,
}

impl Drop for Here {
    fn drop(&mut self) {
        if !self.nested {
            drop(HERE.take());
        }
    }
}

/// A request on its way to another thread.
#[derive(Debug)]
pub(super) struct Carried(Option<Holding>);

/// Takes what this thread works on along.
pub(super) fn carry() -> Carried {
    Carried(HERE.take())
}

impl Carried {
    /// This thread works on it from here on.
    pub(super) fn arrive(self) -> Here {
        HERE.replace(self.0);
        Here { nested: false }
    }
}

/// Whether somebody still waits for the answer to what this thread works on. If so, they are not let go from here on.
pub(super) fn still_awaited() -> bool {
    HERE.with_borrow(|here| match here {
        Some(Holding { held, number }) => held.0.lock().remove(number).is_some(),
        None => true,
    })
}

impl Held {
    /// This thread works on a request from here on.
    pub(super) fn enter(
        self: &Arc<Held>,
        request: &fuser::Request,
        operation: &'static str,
        ino: Ino,
        name: &[u8],
    ) -> Here {
        if HERE.with_borrow(Option::is_some) {
            return Here { nested: true };
        }
        let number = request.unique().0;
        let (thread, since) = (request.pid(), Instant::now());
        let changes = CHANGE.contains(&operation);
        self.0.lock().insert(
            number,
            Request { operation, ino, name: name.into(), thread, since, changes, is_told: false },
        );
        HERE.replace(Some(Holding { held: self.clone(), number }));
        Here { nested: false }
    }

    /// Whether a request, by its number without [`AGAIN`], is still to be answered.
    pub fn awaits(&self, number: u64) -> bool {
        let held = self.0.lock();
        held.contains_key(&number) || held.contains_key(&(number | AGAIN))
    }

    /// For how long the oldest one is held.
    pub fn oldest(&self) -> Duration {
        let held = self.0.lock();
        held.values().map(|request| request.since.elapsed()).max().unwrap_or_default()
    }

    /// Those that have taken too long, the oldest first, and how many more there are.
    pub fn too_long(&self) -> (Vec<Request>, usize) {
        let mut all: Vec<Request> =
            self.older_than(TOO_LONG).into_iter().map(|(_, request)| request).collect();
        all.sort_by_key(|request| request.since);
        let more = all.len().saturating_sub(NAMED_MAX);
        all.truncate(NAMED_MAX);
        (all, more)
    }

    /// Those that have taken too long since this was asked last.
    pub fn newly_too_long(&self) -> Vec<Request> {
        let mut held = self.0.lock();
        let new = held.values_mut().filter(|request| !request.is_told && request.since.elapsed() >= TOO_LONG);
        new.map(|request| {
            request.is_told = true;
            request.clone()
        })
        .collect()
    }

    /// Answers those whose programs were killed; to be called every now and then.
    pub fn let_killed_go(&self, device: &OwnedFd) {
        for (number, request) in self.older_than(LOOKED_AFTER) {
            // Taken out before: who is about to give the kernel something sees that nobody waits.
            if !request.changes && was_killed(request.thread) && self.0.lock().remove(&number).is_some() {
                log::info!(
                    "{} of a thread that was killed ({}) is done unheard",
                    request.operation,
                    request.thread
                );
                let mut answer = [0; HEADER_BYTES];
                answer[..4].copy_from_slice(&(HEADER_BYTES as u32).to_ne_bytes());
                answer[4..8].copy_from_slice(&(-libc::EINTR).to_ne_bytes());
                answer[8..].copy_from_slice(&number.to_ne_bytes());
                // Answered a moment ago, or unmounted: as good.
                let _ = rustix::io::write(device.as_fd(), &answer);
            }
        }
    }

    fn older_than(&self, age: Duration) -> Vec<(u64, Request)> {
        let held = self.0.lock();
        let old = held.iter().filter(|(_, request)| request.since.elapsed() >= age);
        old.map(|(number, request)| (*number, request.clone())).collect()
    }
}

/// Whether SIGKILL waits for a thread, which any signal becomes that ends its process.
fn was_killed(thread: u32) -> bool {
    if thread == 0 {
        return false;
    }
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    let pending = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).unwrap_or(0)
    };
    (pending("SigPnd:") | pending("ShdPnd:")) & KILLED != 0
}
