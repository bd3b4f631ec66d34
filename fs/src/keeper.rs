//! The keeper: a process that holds what must outlive the daemon, which is the connection to the kernel (`/dev/fuse`), and
//! starts the daemon again when it dies. Applications then see a pause, and no error.
//!
//! It has no reason to fail: one thread, no request of the kernel ever comes to it, and it reads nothing but short messages
//! of the daemon that it started.
//!
//! 1. The daemon is a child whose stdin is a socket to the keeper. The first message says what to do, in JSON: serve
//!    [`Life::First`], or take over ([`Life::Next`]).
//! 2. A first daemon that has everything asks for the mount ([`FromDaemon::Mount`]); the keeper makes it, keeps the
//!    descriptor, and hands a copy over. A next one asks for the copy alone ([`FromDaemon::Attach`]).
//! 3. When the socket closes, the daemon is gone. Exit code 0: it was unmounted, and the keeper ends, too. Anything else
//!    is a death: it is logged with its reason, and the next daemon is started, at once and then with pauses that grow.
//! 4. Daemons that die again and again before they are ready, or as soon as they are, are given up: the keeper ends, and the
//!    kernel ends the connection with it, so that applications get an error instead of waiting for ever. Arena and journal
//!    stay for the next mount.

use crate::config::MountConfig;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

pub(crate) mod mount;

/// A daemon that was ready for so long is not in a row of deaths: less, and the first request killed it.
const SETTLED: Duration = Duration::from_millis(20);
/// So many deaths in a row, and it is given up.
const DEATHS_MAX: u32 = 6;
/// Before the second try of a row; doubled with each.
const PAUSE: Duration = Duration::from_millis(100);
/// Longer than any settings.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What a daemon is started for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It is the first of its mount.
    First,
    /// It takes over from one that died.
    Next {
        /// Daemons that died before.
        deaths: u32,
        /// How the last one did.
        reason: String,
    },
}

/// The first message to a daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What to serve.
    pub config: MountConfig,
    /// For what.
    pub life: Life,
    /// The keeper's process.
    pub keeper: u32,
}

/// What a daemon tells its keeper.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromDaemon {
    /// Everything is there but the mount.
    Mount,
    /// The descriptor of the mount, please.
    Attach,
    /// The mount can be used, from now on or again.
    Ready,
    /// It can't serve; a sentence.
    Refused(String),
}

/// What a daemon is answered.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToDaemon {
    /// The descriptor comes with this.
    Attached,
    /// There is no mount; a sentence.
    Failed(String),
}

/// What a keeper tells who started it.
#[derive(Debug)]
pub enum Told {
    /// The mount can be used. Told once.
    Ready,
    /// There will be none; a sentence.
    Refused(String),
}

/// The daemon that signals are passed on to: the first from its start, a next one once it is ready to unmount.
static DAEMON: AtomicI32 = AtomicI32::new(0);
/// The signal that asked for an end, for a daemon that is still to come.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// Keeps the mount of `config` until it is unmounted. `start` starts a daemon with this socket as its stdin.
pub fn keep(
    config: &MountConfig,
    start: impl Fn(OwnedFd) -> io::Result<Child>,
    mut tell: impl FnMut(Told),
) -> io::Result<()> {
    spare_from_oom_killer();
    pass_signals_on();
    let mut keeper = Keeper { config, device: None, was_ready: false, ready: None };
    let (mut life, mut row) = (Life::First, 0);
    loop {
        keeper.ready = None;
        let reason = match keeper.one_life(&life, &start, &mut tell) {
            Ok((status, _)) if status.success() => return Ok(()),
            Ok((status, refused)) => refused.unwrap_or_else(|| how(status)),
            Err(e) => format!("it can't be started: {e}"),
        };
        if !keeper.was_ready {
            if keeper.device.take().is_some()
                && let Err(e) = mount::unmount(&config.mountpoint)
            {
                log::warn!("{} is left mounted: {e}", config.mountpoint.display());
            }
            tell(Told::Refused(reason));
            return Ok(());
        }
        let deaths = if let Life::Next { deaths, .. } = life { deaths + 1 } else { 1 };
        let settled = keeper.ready.is_some_and(|ready| ready.elapsed() > SETTLED);
        row = if settled { 1 } else { row + 1 };
        log::error!("the daemon of {} died: {reason}", config.mountpoint.display());
        if row > DEATHS_MAX {
            log::error!(
                "{row} daemons died one after the other: {} is given up; what it held is kept for the next mount",
                config.mountpoint.display()
            );
            return Ok(());
        }
        if row > 1 {
            std::thread::sleep(PAUSE * (1 << (row - 2)));
        }
        life = Life::Next { deaths, reason };
    }
}

struct Keeper<'c> {
    config: &'c MountConfig,
    /// The connection to the kernel.
    device: Option<OwnedFd>,
    was_ready: bool,
    /// Since when this daemon is.
    ready: Option<Instant>,
}

impl Keeper<'_> {
    /// From a daemon's start to its end; what it refused, if it said so.
    fn one_life(
        &mut self,
        life: &Life,
        start: &impl Fn(OwnedFd) -> io::Result<Child>,
        tell: &mut impl FnMut(Told),
    ) -> io::Result<(ExitStatus, Option<String>)> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let mut child = start(theirs)?;
        let pid = child.id().cast_signed();
        if *life == Life::First {
            DAEMON.store(pid, Ordering::Relaxed);
        }
        let hello = Hello { config: self.config.clone(), life: life.clone(), keeper: std::process::id() };
        let mut refused = None;
        if send(ours.as_fd(), &hello, None).is_ok() {
            // An error is an end as well.
            while let Ok(Some((message, _))) = receive::<FromDaemon>(ours.as_fd()) {
                match message {
                    FromDaemon::Mount => self.answer(ours.as_fd(), mount::mount(self.config)),
                    FromDaemon::Attach => {
                        let device = self.device.as_ref().ok_or(io::ErrorKind::NotConnected);
                        self.answer(ours.as_fd(), device.map_err(Into::into).and_then(OwnedFd::try_clone));
                    }
                    FromDaemon::Ready => {
                        self.ready = Some(Instant::now());
                        DAEMON.store(pid, Ordering::SeqCst);
                        pass_on(ASKED.swap(0, Ordering::SeqCst));
                        if !std::mem::replace(&mut self.was_ready, true) {
                            tell(Told::Ready);
                        }
                    }
                    FromDaemon::Refused(sentence) => refused = Some(sentence),
                }
            }
        }
        // A daemon that was told nothing ends of that.
        drop(ours);
        let status = child.wait();
        DAEMON.store(0, Ordering::Relaxed);
        Ok((status?, refused))
    }

    fn answer(&mut self, socket: BorrowedFd<'_>, device: io::Result<OwnedFd>) {
        // A daemon that can't be told is dead, or will be.
        let _ = match device {
            Ok(device) => {
                let told = send(socket, &ToDaemon::Attached, Some(device.as_fd()));
                self.device = Some(device);
                told
            }
            Err(e) => send(socket, &ToDaemon::Failed(e.to_string()), None),
        };
    }
}

/// How a process ended that should not have.
fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = rustix::process::Signal::from_named_raw(signal).map(|signal| format!("{signal:?}"));
            match name.as_deref().and_then(|name| name.trim_matches('"').strip_prefix("Signal::")) {
                Some(name) => format!("signal {signal} ({name})"),
                None => format!("signal {signal}"),
            }
        }
        (None, Some(code)) => format!("it ended with code {code}; its log says why"),
        (None, None) => "nobody knows how".into(),
    }
}

/// Sends a message, with a descriptor.
pub fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    with: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = with.map(|with| [with]);
    if let Some(descriptors) = &descriptors {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a message, and the descriptor that came with it; `None` at the end.
pub fn receive<M: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(M, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut bytes)];
        match rustix::net::recvmsg(socket, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            received => break received?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let mut with = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            with = descriptors.next();
        }
    }
    Ok(Some((serde_json::from_slice(&bytes[..received.bytes])?, with)))
}

/// Whoever else is killed for want of memory: without the keeper a death of the daemon is seen.
fn spare_from_oom_killer() {
    // Only root may.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
}

/// What the daemon does about that.
pub fn as_others_for_oom_killer() {
    let _ = std::fs::write("/proc/self/oom_score_adj", "0");
}

/// Whether there is a daemon for it.
fn pass_on(signal: libc::c_int) -> bool {
    let daemon = DAEMON.load(Ordering::SeqCst);
    if daemon > 0 && signal > 0 {
        // SAFETY: kill(2) may be called by a signal handler, and changes no memory.
        unsafe { libc::kill(daemon, signal) };
    }
    daemon > 0
}

/// SIGTERM and SIGINT are for the daemon, which unmounts.
fn pass_signals_on() {
    extern "C" fn asked(signal: libc::c_int) {
        if !pass_on(signal) {
            ASKED.store(signal, Ordering::SeqCst);
        }
    }
    let handler: extern "C" fn(libc::c_int) = asked;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler does nothing that a handler may not do.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    // SAFETY: a terminal that goes away takes no mount along.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}
