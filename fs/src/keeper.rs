//! The keeper: a process that holds what must outlive the daemon, which is the connection to the kernel (`/dev/fuse`), and
//! has the next daemon ready when one dies. Applications then see a pause, and no error.
//!
//! It has no reason to fail: one thread, no request of the kernel ever comes to it, and it reads nothing but short messages
//! of the daemons that it started. What fails for want of memory is tried again.
//!
//! 1. A daemon is a child whose stdin is a socket to the keeper. The first message says what to do, in JSON: serve
//!    ([`Role::First`]), or be ready to go on where another ends ([`Role::Successor`]). All are of one program, which the
//!    keeper holds open (`program`), so that its file may go.
//! 2. A first daemon that has everything asks for the mount ([`FromDaemon::Mount`]); the keeper makes it, keeps the
//!    descriptor, and hands a copy over.
//! 3. Once a daemon serves, its successor is started. It follows what the daemon notes ([`FromDaemon::Standing`]), and
//!    waits to be told [`ToDaemon::Go`]; then it asks for the descriptor ([`FromDaemon::Attach`]).
//! 4. When the socket of the daemon closes, it is gone. Exit code 0: it was unmounted, and the keeper ends, too. Anything
//!    else is a death: it is logged with its reason, and the successor goes on, at once and, if deaths follow each other,
//!    after pauses that grow. If there is no successor, one is started.
//! 5. Daemons that crash again and again within seconds (`deaths`) are given up, and so is a program that can't be started:
//!    the keeper ends, and the kernel ends the connection with it, so that applications get an error instead of waiting for
//!    ever. Arena and journal stay for the next mount.
//! 6. An upgrade is a successor of another binary: when it stands ready, the daemon is told to end
//!    ([`ToDaemon::Retire`]). If it doesn't in time, it goes, and the daemon goes on.
//! 7. The program of an upgrade is on trial for a minute. If one of its daemons crashes, the program before serves again.

use crate::config::MountConfig;
use deaths::{Deaths, Verdict, how};
use program::Program;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

mod deaths;
pub(crate) mod mount;
mod program;

/// A program that served for so long after an upgrade stays: long enough for what it does by itself now and then.
const TRIAL: Duration = Duration::from_secs(60);
/// Who ended is reaped so long afterwards, when the next one serves.
const REAP_AFTER: Duration = Duration::from_millis(500);
/// Between two tries to start a daemon where that fails: the first pause, doubled with each, and the longest.
const START_PAUSE: Duration = Duration::from_millis(100);
const START_PAUSE_MAX: Duration = Duration::from_secs(5);
/// So long it is tried. Applications wait meanwhile, as they do for a daemon; memory or processes that are short for longer
/// than this may be so for ever.
const START_FOR: Duration = Duration::from_secs(60);
/// A successor is started so long after a daemon began to serve, so that it is in nobody's way.
const SUCCESSOR_AFTER: Duration = Duration::from_millis(500);
/// That is doubled with each one that ends before it is needed, so often.
const SUCCESSOR_DOUBLINGS: u32 = 7;
/// How long a successor that closed its connection may take to end, to be asked why.
const END_WAIT: Duration = Duration::from_millis(200);
const END_LOOK_EVERY: Duration = Duration::from_millis(1);
/// Before a call that failed for want of something is tried again.
const CALL_AGAIN: Duration = Duration::from_millis(10);
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
    /// Daemons that gave way to another binary, less those whose binary serves again.
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

/// Keeps the mount of `config` until it is unmounted, or given up. `start` starts a daemon of a binary, which may be a path
/// below `/proc/self`, with this socket as its stdin.
pub fn keep<S: Fn(&Path, OwnedFd) -> io::Result<Child>>(
    config: &MountConfig,
    start: S,
    mut tell: impl FnMut(Told),
) {
    spare_from_oom_killer();
    take_signals();
    let begun = Program::own().and_then(|program| {
        let keeper = Keeper {
            config,
            start,
            program,
            trial: None,
            unmounted: false,
            ended: Vec::new(),
            reap_due: None,
            device: None,
            life: Life::default(),
            deaths: Deaths::default(),
            successor: None,
            next_successor: None,
            failures: 0,
            upgrade: None,
        };
        let daemon = keeper.start(Role::First)?;
        Ok((keeper, daemon))
    });
    let (mut keeper, mut daemon) = match begun {
        Ok(begun) => begun,
        Err(e) => return tell(Told::Refused(format!("it can't be started: {e}"))),
    };
    let mut was_ready = false;
    DAEMON.store(daemon.pid(), Ordering::Relaxed);
    loop {
        let status = keeper.serve(&mut daemon, || {
            if !std::mem::replace(&mut was_ready, true) {
                tell(Told::Ready);
            }
        });
        DAEMON.store(0, Ordering::Relaxed);
        if status.success() {
            break;
        }
        let reason = daemon.refused.take().unwrap_or_else(|| how(status));
        if !was_ready {
            if keeper.device.take().is_some()
                && let Err(e) = mount::unmount(&config.mountpoint)
            {
                log::warn!("{} is left mounted: {e}", config.mountpoint.display());
            }
            return tell(Told::Refused(reason));
        }
        let upgrade = keeper.upgrade.take_if(|_| status.code() == Some(RETIRED));
        if let Some(upgrade) = upgrade {
            keeper.put_on_trial(upgrade.program);
        } else if !keeper.may_go_on(status, reason, daemon.ready) {
            break;
        }
        let Some(next) = keeper.next(&mut daemon.child) else { break };
        keeper.reap_later(std::mem::replace(&mut daemon, next).child);
    }
    keeper.dismiss();
    let _ = daemon.child.wait();
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
    program: Program,
    until: Instant,
}

/// Nobody waits longer for an upgrade.
const WITHIN_MAX: Duration = Duration::from_secs(24 * 3600);
/// The program of an upgrade serves, and may yet prove to be worse than the one before.
struct Trial {
    /// What serves again if it does.
    before: Program,
    /// When it has proved itself; `None` while no daemon of it serves.
    ends: Option<Instant>,
    /// Upgrades since that.
    upgrades: u32,
}

struct Keeper<'c, S> {
    config: &'c MountConfig,
    start: S,
    /// What daemons are started of.
    program: Program,
    /// Whether that is on trial.
    trial: Option<Trial>,
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
    /// Those of daemons of this program.
    deaths: Deaths,
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
        let program = self.upgrade.as_ref().map_or(&self.program, |upgrade| &upgrade.program);
        let child = program.start(|path| (self.start)(path, theirs))?;
        let (config, unmounted) = (self.config.clone(), self.unmounted);
        let hello =
            Hello { config, role, keeper: std::process::id(), state: crate::state::VERSION, unmounted };
        // One that can't be told ends by itself, which is seen.
        let _ = send(ours.as_fd(), &hello, None);
        Ok(Started { child, socket: ours, refused: None, ready: None, standing: false })
    }

    /// From a daemon's start, or its taking over, to its end; `ready` is called each time that one is.
    fn serve(&mut self, daemon: &mut Started, mut ready: impl FnMut()) -> ExitStatus {
        loop {
            let (of_daemon, of_successor) = self.wait(daemon);
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
                    Err(e) if is_passing(&e) => rest("recvmsg", e),
                    Ok(None) | Err(_) => return deaths::ended(&daemon.child),
                }
            }
            if of_successor {
                self.hear_successor(daemon);
            }
            self.see_to_successor(daemon);
            self.see_to_trial();
            if self.reap_due.is_some_and(|due| due <= Instant::now()) {
                self.reap();
            }
        }
    }

    /// Waits until the daemon or its successor say something, or there is something to do.
    fn wait(&self, daemon: &Started) -> (bool, bool) {
        let due = [
            self.next_successor,
            self.reap_due,
            self.upgrade.as_ref().map(|upgrade| upgrade.until),
            self.trial.as_ref().and_then(|trial| trial.ends),
        ];
        // One that doesn't fit is longer than anybody waits.
        let timeout =
            due.into_iter().flatten().min().map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|rest| Timespec::try_from(rest).ok());
        let mut sockets = vec![PollFd::new(&daemon.socket, PollFlags::IN)];
        sockets.extend(self.successor.as_ref().map(|next| PollFd::new(&next.socket, PollFlags::IN)));
        match rustix::event::poll(&mut sockets, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // The mount must not end of that.
            Err(e) => rest("poll", e.into()),
        }
        let said = |number: usize| sockets.get(number).is_some_and(|socket| !socket.revents().is_empty());
        (said(0), said(1))
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
                if let Some(trial) = &mut self.trial {
                    trial.ends = Some(Instant::now() + TRIAL);
                }
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
            FromDaemon::Upgrade { binary, within } => match Program::open(&binary) {
                Ok(program) => {
                    self.dismiss();
                    log::info!("{} is to be served by {program}", self.config.mountpoint.display());
                    self.upgrade = Some(Upgrade { program, until: Instant::now() + within.min(WITHIN_MAX) });
                    self.next_successor = Some(Instant::now());
                }
                Err(e) => {
                    let failed = ToDaemon::Failed(format!("it can't be started: {e}"));
                    let _ = send(daemon.socket.as_fd(), &failed, None);
                }
            },
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
                    log::info!("{} (version {version}) is ready, and takes over", upgrade.program);
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
            log::warn!("{} does not take over: {reason}", upgrade.program);
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

    /// The program of an upgrade stays once it has proved itself.
    fn see_to_trial(&mut self) {
        let is_over = |trial: &mut Trial| trial.ends.is_some_and(|ends| ends <= Instant::now());
        if self.trial.take_if(is_over).is_some() {
            log::info!("{} goes on with {}", self.config.mountpoint.display(), self.program);
        }
    }

    /// The program of an upgrade serves from now on, for the time being.
    fn put_on_trial(&mut self, program: Program) {
        let before = std::mem::replace(&mut self.program, program);
        // Of several upgrades within a minute, what served before the first of them.
        let trial = self.trial.get_or_insert(Trial { before, ends: None, upgrades: 0 });
        (trial.ends, trial.upgrades) = (None, trial.upgrades + 1);
        self.deaths = Deaths::default();
        self.life.upgrades += 1;
    }

    /// What served before an upgrade does so again, if that upgrade is still on trial. Called after a death.
    fn go_back(&mut self) -> bool {
        let Some(trial) = self.trial.take() else { return false };
        // It is of the program that goes.
        self.dismiss();
        log::error!("{} could not go on; what served before does, {}", self.program, trial.before);
        self.program = trial.before;
        self.deaths = Deaths::default();
        self.life.upgrades -= trial.upgrades;
        if let Some(reason) = &mut self.life.last_death {
            reason.push_str("; the program before the upgrade serves again");
        }
        true
    }

    /// A daemon died, for a `reason`. False if it is given up, which is logged.
    fn may_go_on(&mut self, status: ExitStatus, reason: String, ready: Option<Instant>) -> bool {
        let served = ready.map_or(Duration::ZERO, |ready| ready.elapsed());
        let mountpoint = self.config.mountpoint.display();
        log::error!("the daemon of {mountpoint} died: {reason}");
        self.life.deaths += 1;
        self.life.last_death = Some(reason);
        // Of what it asked for, nothing will come.
        if self.upgrade.take().is_some() {
            self.dismiss();
        }
        if let Some(trial) = &mut self.trial {
            trial.ends = None;
        }
        match self.deaths.note(status, served) {
            Verdict::Innocent => true,
            // Who is killed before it could show anything shows nothing of its program.
            Verdict::Blamed(_) if deaths::is_crash(status) && self.go_back() => true,
            Verdict::TooMany(_) if self.go_back() => true,
            Verdict::Blamed(pause) => {
                std::thread::sleep(pause);
                true
            }
            Verdict::TooMany(row) => {
                self.given_up(&format!("{row} daemons died one after the other"));
                false
            }
        }
    }

    fn given_up(&self, why: &str) {
        let mountpoint = self.config.mountpoint.display();
        log::error!("{why}: {mountpoint} is given up; what it held is kept for the next mount");
    }

    /// Who goes on where one is `dead`, told so. `None` if none can be started, which is logged.
    fn next(&mut self, dead: &mut Child) -> Option<Started> {
        self.next_successor = None;
        let (begun, mut pause) = (Instant::now(), START_PAUSE);
        let next = loop {
            match self.successor.take().map_or_else(|| self.start(Role::Successor), Ok) {
                Ok(next) => break next,
                Err(e) => {
                    log::error!("no daemon can be started: {e}");
                    // It may be what is in the way.
                    let _ = dead.try_wait();
                    if !is_passing(&e) && self.go_back() {
                        continue;
                    }
                }
            }
            if begun.elapsed() >= START_FOR {
                self.given_up("no daemon can be started");
                return None;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(START_PAUSE_MAX);
        };
        let _ = send(next.socket.as_fd(), &ToDaemon::Go(self.life.clone()), None);
        Some(next)
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

/// A call failed that only a want of something can fail: says so, the first time, and rests.
fn rest(call: &str, error: io::Error) {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !SAID.swap(true, Ordering::Relaxed) {
        log::warn!("{call} fails, and is tried again: {error}");
    }
    std::thread::sleep(CALL_AGAIN);
}

/// Whether something was short that may be there again: memory, processes, descriptors.
fn is_passing(error: &io::Error) -> bool {
    let short = [libc::EAGAIN, libc::ENOMEM, libc::ENOBUFS, libc::EMFILE, libc::ENFILE];
    error.raw_os_error().is_some_and(|code| short.contains(&code))
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
fn take_signals() {
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
    // SAFETY: where a parent had it ignored, nobody would hear how a daemon ended.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
}
