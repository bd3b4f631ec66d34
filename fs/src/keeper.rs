//! The keeper: a process that holds what must outlive the daemon, which is the connection to the kernel (`/dev/fuse`), and
//! has the next daemon ready when one dies. Applications then see a pause, and no error.
//!
//! It has no reason to fail: one thread, no request of the kernel ever comes to it, and it reads nothing but short messages
//! of the daemons that it started.
//!
//! 1. A daemon is a child whose stdin is a socket to the keeper. The first message says what to do, in JSON: serve
//!    ([`Role::First`]), or be ready to go on where another ends ([`Role::Successor`]).
//! 2. A first daemon that has everything asks for the mount ([`FromDaemon::Mount`]); the keeper makes it, keeps the
//!    descriptor, and hands a copy over.
//! 3. Once a daemon serves, its successor is started. It follows what the daemon notes ([`FromDaemon::Standing`]), and
//!    waits to be told [`ToDaemon::Go`]; then it asks for the descriptor ([`FromDaemon::Attach`]).
//! 4. When the socket of the daemon closes, it is gone. Exit code 0: it was unmounted, and the keeper ends, too. Anything
//!    else is a death: it is logged with its reason, and the successor goes on, at once and, if deaths follow each other,
//!    after pauses that grow. If there is no successor, one is started.
//! 5. Daemons that die again and again before they are ready, or as soon as they are, are given up: the keeper ends, and the
//!    kernel ends the connection with it, so that applications get an error instead of waiting for ever. Arena and journal
//!    stay for the next mount.
//! 6. An upgrade is a successor of another binary: when it stands ready, the daemon is told to end
//!    ([`ToDaemon::Retire`]). If it doesn't in time, it goes, and the daemon goes on.

use crate::config::MountConfig;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

pub(crate) mod mount;

/// A daemon that was ready for so long is not in a row of deaths: less, and the first request killed it.
/// Threads of its own begin 20 ms after that, and may end it as well.
const SETTLED: Duration = Duration::from_millis(50);
/// So many deaths in a row, and it is given up.
const DEATHS_MAX: u32 = 6;
/// Before the second try of a row; doubled with each.
const PAUSE: Duration = Duration::from_millis(100);
/// Who ended is reaped so long afterwards, when the next one serves.
const REAP_AFTER: Duration = Duration::from_millis(500);
/// The longest pause where none can be started.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// A successor is started so long after a daemon began to serve, so that it is in nobody's way.
const SUCCESSOR_AFTER: Duration = Duration::from_millis(500);
/// That is doubled with each one that ends before it is needed, so often.
const SUCCESSOR_DOUBLINGS: u32 = 7;
/// How long a successor that closed its connection may take to end, to be asked why.
const END_WAIT: Duration = Duration::from_millis(200);
const END_LOOK_EVERY: Duration = Duration::from_millis(1);
/// Longer than any settings.
const MESSAGE_BYTES_MAX: usize = 256 << 10;

/// What a daemon is started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It is the first of its mount.
    First,
    /// It goes on where another ends.
    Successor,
}

/// How a daemon came to serve.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Daemons that died before.
    pub deaths: u32,
    /// How the last one did.
    pub last_death: Option<String>,
    /// Daemons that gave way to another binary.
    pub upgrades: u32,
}

/// The first message to a daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// What to serve.
    pub config: MountConfig,
    /// For what.
    pub role: Role,
    /// The keeper's process.
    pub keeper: u32,
    /// Version of the layout of the state directory, [`crate::state::VERSION`].
    pub state: u32,
    /// The mount is gone, and the daemon before died over what was left to be done.
    #[serde(default)]
    pub unmounted: bool,
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
    /// It follows what another daemon notes, and can go on at once.
    Standing {
        /// Version of the program.
        version: String,
    },
    /// It can't serve; a sentence.
    Refused(String),
    /// The mount is gone; what is left to be done is its own, and nobody need stand ready.
    Unmounted,
    /// Its place is to be taken by one of this binary.
    Upgrade {
        /// Absolute.
        binary: PathBuf,
        /// How long that one may take to be ready.
        within: Duration,
    },
}

/// What a daemon is told.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToDaemon {
    /// The descriptor comes with this.
    Attached,
    /// There is no mount, or no upgrade; a sentence.
    Failed(String),
    /// The other daemon is gone: go on.
    Go(Life),
    /// Its successor is ready: end, with [`RETIRED`].
    Retire,
}

/// The exit code of a daemon that gave way to its successor.
pub const RETIRED: i32 = 75;

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
/// The signal that asked for an end, for daemons that are still to come, too.
static ASKED: AtomicI32 = AtomicI32::new(0);

/// Keeps the mount of `config` until it is unmounted. `start` starts a daemon of a binary with this socket as its stdin.
pub fn keep<S: Fn(&Path, OwnedFd) -> io::Result<Child>>(
    config: &MountConfig,
    start: S,
    mut tell: impl FnMut(Told),
) -> io::Result<()> {
    spare_from_oom_killer();
    pass_signals_on();
    let mut keeper = Keeper {
        config,
        start,
        binary: PathBuf::from("/proc/self/exe"),
        before: None,
        unmounted: false,
        ended: Vec::new(),
        reap_due: None,
        device: None,
        life: Life::default(),
        row: 0,
        successor: None,
        next_successor: None,
        failures: 0,
        upgrade: None,
    };
    let mut was_ready = false;
    let mut daemon = match keeper.start(Role::First) {
        Ok(daemon) => daemon,
        Err(e) => {
            tell(Told::Refused(format!("it can't be started: {e}")));
            return Ok(());
        }
    };
    DAEMON.store(daemon.pid(), Ordering::Relaxed);
    loop {
        let status = keeper.serve(&mut daemon, || {
            if !std::mem::replace(&mut was_ready, true) {
                tell(Told::Ready);
            }
        })?;
        DAEMON.store(0, Ordering::Relaxed);
        if status.success() {
            keeper.dismiss();
            let _ = daemon.child.wait();
            return Ok(());
        }
        let reason = daemon.refused.take().unwrap_or_else(|| how(status));
        if !was_ready {
            if keeper.device.take().is_some()
                && let Err(e) = mount::unmount(&config.mountpoint)
            {
                log::warn!("{} is left mounted: {e}", config.mountpoint.display());
            }
            tell(Told::Refused(reason));
            return Ok(());
        }
        let upgrade = keeper.upgrade.take_if(|_| status.code() == Some(RETIRED));
        if let Some(upgrade) = upgrade {
            keeper.before = Some(std::mem::replace(&mut keeper.binary, upgrade.binary));
            keeper.life.upgrades += 1;
        } else if !keeper.may_go_on(reason, daemon.ready) {
            keeper.dismiss();
            let _ = daemon.child.wait();
            return Ok(());
        }
        let next = keeper.next(&mut daemon.child);
        keeper.reap_later(std::mem::replace(&mut daemon, next).child);
    }
}

/// A daemon, or who is to be one.
struct Started {
    child: Child,
    socket: OwnedFd,
    /// A sentence of its own, if it said one.
    refused: Option<String>,
    /// Since when it serves.
    ready: Option<Instant>,
    /// It can go on at once.
    standing: bool,
}

impl Started {
    fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Ends a successor, which has changed nothing.
    fn end(mut self) -> Child {
        let _ = self.child.kill();
        self.child
    }
}

/// An upgrade that was asked for.
struct Upgrade {
    binary: PathBuf,
    until: Instant,
}

struct Keeper<'c, S> {
    config: &'c MountConfig,
    start: S,
    /// What daemons are started of.
    binary: PathBuf,
    /// What they were started of before an upgrade, until one of the new program serves.
    before: Option<PathBuf>,
    /// The mount is gone.
    unmounted: bool,
    /// Those that are to be reaped: daemons that ended, and successors that were told to. One that waits for a backing that
    /// stalls takes its time.
    ended: Vec<Child>,
    /// When they are.
    reap_due: Option<Instant>,
    /// The connection to the kernel.
    device: Option<OwnedFd>,
    life: Life,
    /// Deaths that followed each other at once.
    row: u32,
    successor: Option<Started>,
    /// When the next successor is to be started.
    next_successor: Option<Instant>,
    /// Successors that ended before they were needed, one after the other.
    failures: u32,
    upgrade: Option<Upgrade>,
}

impl<S: Fn(&Path, OwnedFd) -> io::Result<Child>> Keeper<'_, S> {
    fn start(&self, role: Role) -> io::Result<Started> {
        let (ours, theirs) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )?;
        let binary = self.upgrade.as_ref().map_or(&self.binary, |upgrade| &upgrade.binary);
        let child = (self.start)(binary, theirs)?;
        let (config, unmounted) = (self.config.clone(), self.unmounted);
        let hello =
            Hello { config, role, keeper: std::process::id(), state: crate::state::VERSION, unmounted };
        // One that can't be told ends by itself, which is seen.
        let _ = send(ours.as_fd(), &hello, None);
        Ok(Started { child, socket: ours, refused: None, ready: None, standing: false })
    }

    /// From a daemon's start, or its taking over, to its end; `ready` is called each time that one is.
    fn serve(&mut self, daemon: &mut Started, mut ready: impl FnMut()) -> io::Result<ExitStatus> {
        loop {
            let (of_daemon, of_successor) = self.wait(daemon)?;
            if of_daemon {
                // An error is an end as well.
                match receive::<FromDaemon>(daemon.socket.as_fd()) {
                    Ok(Some((message, _))) => {
                        self.heard(daemon, message);
                        if daemon.ready.is_some() {
                            ready();
                        }
                    }
                    Err(e) if is_unreadable(&e) => {
                        log::warn!("the daemon says what its keeper doesn't know: {e}");
                    }
                    Ok(None) | Err(_) => return ended(daemon.pid()),
                }
            }
            if of_successor {
                self.hear_successor(daemon);
            }
            self.see_to_successor(daemon);
            if self.reap_due.is_some_and(|due| due <= Instant::now()) {
                self.reap();
            }
        }
    }

    /// Waits until the daemon or its successor say something, or there is something to do.
    fn wait(&self, daemon: &Started) -> io::Result<(bool, bool)> {
        let due = [self.next_successor, self.reap_due, self.upgrade.as_ref().map(|upgrade| upgrade.until)];
        // One that doesn't fit is longer than anybody waits.
        let timeout =
            due.into_iter().flatten().min().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|rest| Timespec::try_from(rest).ok());
        let mut sockets = vec![PollFd::new(&daemon.socket, PollFlags::IN)];
        sockets.extend(self.successor.as_ref().map(|next| PollFd::new(&next.socket, PollFlags::IN)));
        match rustix::event::poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let said = |number: usize| sockets.get(number).is_some_and(|socket| !socket.revents().is_empty());
        Ok((said(0), said(1)))
    }

    fn heard(&mut self, daemon: &mut Started, message: FromDaemon) {
        match message {
            FromDaemon::Mount => self.answer(daemon, mount::mount(self.config)),
            FromDaemon::Attach => {
                let device = self.device.as_ref().ok_or(io::ErrorKind::NotConnected);
                self.answer(daemon, device.map_err(Into::into).and_then(OwnedFd::try_clone));
            }
            FromDaemon::Ready => {
                daemon.ready = Some(Instant::now());
                DAEMON.store(daemon.pid(), Ordering::SeqCst);
                self.before = None;
                // Also what one before was told, and did not live to do.
                pass_on(ASKED.load(Ordering::SeqCst));
                self.next_successor = self.config.standby.then(|| Instant::now() + SUCCESSOR_AFTER);
            }
            FromDaemon::Refused(sentence) => daemon.refused = Some(sentence),
            FromDaemon::Unmounted => {
                self.unmounted = true;
                self.dismiss();
                if self.upgrade.is_some() {
                    self.failed(daemon, "it is being unmounted");
                }
                self.next_successor = None;
            }
            FromDaemon::Upgrade { .. } if self.unmounted => {
                let _ = send(daemon.socket.as_fd(), &ToDaemon::Failed("it is being unmounted".into()), None);
            }
            FromDaemon::Upgrade { binary, within } => {
                self.dismiss();
                log::info!("{} is to be served by {}", self.config.mountpoint.display(), binary.display());
                self.upgrade = Some(Upgrade { binary, until: Instant::now() + within });
                self.next_successor = Some(Instant::now());
            }
            FromDaemon::Standing { .. } => {}
        }
    }

    /// The successor said something, or ended.
    fn hear_successor(&mut self, daemon: &Started) {
        let Some(mut successor) = self.successor.take() else { return };
        match receive::<FromDaemon>(successor.socket.as_fd()) {
            Ok(Some((FromDaemon::Standing { version }, _))) => {
                (successor.standing, self.failures) = (true, 0);
                if let Some(upgrade) = &self.upgrade {
                    log::info!("{} (version {version}) is ready, and takes over", upgrade.binary.display());
                    let _ = send(daemon.socket.as_fd(), &ToDaemon::Retire, None);
                }
                self.successor = Some(successor);
            }
            Ok(Some((FromDaemon::Refused(sentence), _))) => {
                successor.refused = Some(sentence);
                self.successor = Some(successor);
            }
            Ok(Some(_)) => self.successor = Some(successor),
            Ok(None) | Err(_) => {
                let refused = successor.refused.take();
                let mut child = successor.end();
                let begun = Instant::now();
                let status = loop {
                    match child.try_wait() {
                        Ok(None) if begun.elapsed() < END_WAIT => std::thread::sleep(END_LOOK_EVERY),
                        status => break status.ok().flatten(),
                    }
                };
                if status.is_none() {
                    self.reap_later(child);
                }
                let ended = || status.map_or_else(|| "it closed its connection".into(), how);
                self.failed(daemon, &refused.unwrap_or_else(ended));
            }
        }
    }

    /// A successor ended before it was needed, or did not come to be ready.
    fn failed(&mut self, daemon: &Started, reason: &str) {
        if let Some(upgrade) = self.upgrade.take() {
            log::warn!("{} does not take over: {reason}", upgrade.binary.display());
            let _ = send(daemon.socket.as_fd(), &ToDaemon::Failed(reason.into()), None);
            self.failures = 0;
        } else {
            self.failures += 1;
            log::info!("who is to follow the daemon of {} ended: {reason}", self.config.mountpoint.display());
        }
        let pause = SUCCESSOR_AFTER * (1 << self.failures.min(SUCCESSOR_DOUBLINGS));
        self.next_successor = self.config.standby.then(|| Instant::now() + pause);
    }

    /// Starts a successor when it is time, and ends one that takes too long.
    fn see_to_successor(&mut self, daemon: &Started) {
        if self.upgrade.as_ref().is_some_and(|upgrade| upgrade.until <= Instant::now()) {
            let stands = self.successor.as_ref().is_some_and(|successor| successor.standing);
            let what = if stands { "the daemon did not give way" } else { "it was not ready" };
            let reason = format!("{what} in the time given, see --within");
            self.dismiss();
            self.failed(daemon, &reason);
        }
        if self.successor.is_none()
            && !self.unmounted
            && self.next_successor.is_some_and(|due| due <= Instant::now())
        {
            self.next_successor = None;
            match self.start(Role::Successor) {
                Ok(successor) => self.successor = Some(successor),
                Err(e) => self.failed(daemon, &format!("it can't be started: {e}")),
            }
        }
    }

    /// A daemon died. False if it is given up, which is logged.
    fn may_go_on(&mut self, reason: String, ready: Option<Instant>) -> bool {
        let settled = ready.is_some_and(|ready| ready.elapsed() > SETTLED);
        self.row = if settled { 1 } else { self.row + 1 };
        let mountpoint = self.config.mountpoint.display();
        log::error!("the daemon of {mountpoint} died: {reason}");
        self.life.deaths += 1;
        self.life.last_death = Some(reason);
        if let Some(before) = self.before.take() {
            log::error!("{} could not go on; what served before does", self.binary.display());
            self.binary = before;
            self.life.upgrades -= 1;
        }
        // Of what it asked for, nothing will come.
        if self.upgrade.take().is_some() {
            self.dismiss();
        }
        if self.row > DEATHS_MAX {
            let row = self.row;
            log::error!(
                "{row} daemons died one after the other: {mountpoint} is given up; what it held is kept for the next mount"
            );
            return false;
        }
        if self.row > 1 {
            std::thread::sleep(PAUSE * (1 << (self.row - 2)));
        }
        true
    }

    /// Who goes on where one is `dead`, told so.
    fn next(&mut self, dead: &mut Child) -> Started {
        self.next_successor = None;
        let mut pause = PAUSE;
        let next = loop {
            match self.successor.take().map_or_else(|| self.start(Role::Successor), Ok) {
                Ok(next) => break next,
                // For want of memory, or of processes: applications wait, as they do for a daemon.
                Err(e) => {
                    log::error!("no daemon can be started: {e}");
                    // It may be what is in the way.
                    let _ = dead.try_wait();
                }
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PAUSE_MAX);
        };
        let _ = send(next.socket.as_fd(), &ToDaemon::Go(self.life.clone()), None);
        next
    }

    /// Ends the successor.
    fn dismiss(&mut self) {
        if let Some(successor) = self.successor.take() {
            self.reap_later(successor.end());
        }
    }

    fn reap_later(&mut self, child: Child) {
        self.ended.push(child);
        self.reap_due.get_or_insert_with(|| Instant::now() + REAP_AFTER);
    }

    /// Reaps who has ended, and comes again for who has not.
    fn reap(&mut self) {
        self.ended.retain_mut(|child| matches!(child.try_wait(), Ok(None)));
        self.reap_due = (!self.ended.is_empty()).then(|| Instant::now() + REAP_AFTER);
    }

    fn answer(&mut self, daemon: &Started, device: io::Result<OwnedFd>) {
        // A daemon that can't be told is dead, or will be.
        let _ = match device {
            Ok(device) => {
                let told = send(daemon.socket.as_fd(), &ToDaemon::Attached, Some(device.as_fd()));
                self.device = Some(device);
                told
            }
            Err(e) => send(daemon.socket.as_fd(), &ToDaemon::Failed(e.to_string()), None),
        };
    }
}

/// Waits for the end of a child, and leaves it to be reaped later: to reap one with 10,000 files takes 10 ms where somebody
/// looks at `/proc` now and then, whose memory of them goes with it.
fn ended(pid: i32) -> io::Result<ExitStatus> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    loop {
        match waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            // As wait(2) has them.
            Ok(Some(status)) => {
                let code = status.exit_status().map(|code| code << 8);
                return Ok(ExitStatus::from_raw(
                    code.or(status.terminating_signal()).unwrap_or(libc::SIGKILL),
                ));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
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

/// Whether a message came, but not one of this program's: the other side may be of another version.
fn is_unreadable(error: &io::Error) -> bool {
    error.get_ref().and_then(|inner| inner.downcast_ref::<serde_json::Error>()).is_some()
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

/// What a daemon does about that. A successor is killed rather than others: it can be started again.
pub fn for_oom_killer(role: Role) {
    let score = if role == Role::Successor { "500" } else { "0" };
    let _ = std::fs::write("/proc/self/oom_score_adj", score);
}

/// Sends a signal to the daemon, if there is one.
fn pass_on(signal: libc::c_int) {
    let daemon = DAEMON.load(Ordering::SeqCst);
    if daemon > 0 && signal > 0 {
        // SAFETY: kill(2) may be called by a signal handler, and changes no memory.
        unsafe { libc::kill(daemon, signal) };
    }
}

/// SIGTERM and SIGINT are for the daemon, which unmounts.
fn pass_signals_on() {
    extern "C" fn asked(signal: libc::c_int) {
        ASKED.store(signal, Ordering::SeqCst);
        pass_on(signal);
    }
    let handler: extern "C" fn(libc::c_int) = asked;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        // SAFETY: the handler does nothing that a handler may not do.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
    // SAFETY: a terminal that goes away takes no mount along.
    unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
}
