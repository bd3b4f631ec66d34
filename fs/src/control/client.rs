//! The asking side; blocking. A daemon that dies is followed by the next, and so is who asks:
//!
//! 1. Where nobody answers, who serves the mount is read anew.
//! 2. If its keeper lives, the next daemon is waited for, however long that takes: who asks hears of it ([`Heard`]), and may
//!    be ended. Nothing is lost by that.
//! 3. If the keeper is gone as well, so that nobody will follow, that is [`ControlError::Dead`].
//! 4. If nothing is left, as when the mount was unmounted, or another mount has been made there since, that is
//!    [`ControlError::NotMounted`]. No other mount is ever asked in the place of the one that was meant.

use super::protocol::{Progress, Reply, Request};
use super::server::LINE_BYTES_MAX;
use crate::state::{self, StateDir};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two looks whether the next daemon is there: at first, and once somebody has heard that it is waited for.
const RETRY_EVERY: Duration = Duration::from_millis(10);
const RETRY_SELDOM: Duration = Duration::from_millis(100);
/// Nobody need hear of a wait that is over before that: one daemon follows another in less.
const UNHEARD: Duration = Duration::from_secs(1);

/// A mount that has a state directory.
#[derive(Debug, Clone)]
pub struct Known {
    /// Mount point.
    pub mountpoint: PathBuf,
    /// Backing.
    pub backing: PathBuf,
    /// The daemon.
    pub pid: u32,
    /// When it started, in clock ticks since boot: its number may be another process's by now.
    pub started: u64,
    /// Whether the mount is served: the daemon lives, or is being started again.
    pub alive: bool,
    /// The daemon's keeper, if it lives.
    pub keeper: Option<u32>,
    /// The keeper whether it lives or not, and when it started: what the mount is known by while daemons follow each other.
    pub kept_by: Option<(u32, u64)>,
    /// Its state directory.
    pub state_dir: PathBuf,
}

/// Why a daemon couldn't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such mount, or none any more.
    #[error("{0} is not mounted by aimss; `aimss status` lists what is")]
    NotMounted(String),
    /// It died, and no other follows.
    #[error(
        "the daemon of {mountpoint} (process {pid}) is gone; `aimss umount --lazy {mountpoint}` clears the mount, and mounting again brings back what it had"
    )]
    Dead {
        /// The mount.
        mountpoint: String,
        /// The daemon it had.
        pid: u32,
    },
    /// The request is longer than a daemon reads.
    #[error(
        "{bytes} bytes are more than the daemon of {mountpoint} can be asked at once; name fewer paths, or directories"
    )]
    TooLong {
        /// The mount.
        mountpoint: String,
        /// Of the request.
        bytes: usize,
    },
    /// The connection broke.
    #[error("the daemon of {mountpoint} doesn't answer: {source}")]
    Io {
        /// The mount.
        mountpoint: String,
        /// Why.
        source: io::Error,
    },
}

/// What is heard before the answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Heard {
    /// How far the daemon is.
    Progress(Progress),
    /// No daemon serves the mount at the moment; the one that its keeper starts next is waited for. Comes once a wait, and
    /// only if it takes longer than usual.
    Waiting,
}

/// All mounts of this user.
pub fn mounts() -> Vec<Known> {
    let mut known: Vec<Known> = StateDir::all().iter().filter_map(Known::read).collect();
    known.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    known
}

impl Known {
    /// What a state directory says.
    fn read(dir: &StateDir) -> Option<Known> {
        let record = dir.read_record()?;
        Some(Known {
            alive: record.alive(),
            keeper: record.keeper(),
            kept_by: record.keeper,
            pid: record.pid,
            started: record.started,
            state_dir: dir.path().to_path_buf(),
            mountpoint: record.mountpoint,
            backing: record.backing,
        })
    }

    /// Reads anew who serves the mount. An error if nobody does, and nobody will.
    pub fn look_again(&mut self) -> Result<(), ControlError> {
        let now = Known::read(&StateDir::at(&self.state_dir)).filter(|now| self.goes_on_as(now));
        *self = now.ok_or_else(|| ControlError::NotMounted(self.shown()))?;
        if self.alive {
            return Ok(());
        }
        Err(ControlError::Dead { mountpoint: self.shown(), pid: self.pid })
    }

    /// Whether the daemon lives that was the last to enter its name.
    pub fn daemon_lives(&self) -> bool {
        state::started(self.pid) == Some(self.started)
    }

    /// Whether `now` is the same mount.
    fn goes_on_as(&self, now: &Known) -> bool {
        match (self.kept_by, now.kept_by) {
            (Some(keeper), Some(of_now)) => keeper == of_now,
            // It died before the daemon that it had started could name it.
            (Some(_), None) => true,
            // There was nobody who could have started another daemon.
            (None, _) => (self.pid, self.started) == (now.pid, now.started),
        }
    }

    fn shown(&self) -> String {
        self.mountpoint.display().to_string()
    }
}

/// A connection to a daemon, or to the one that follows it.
#[derive(Debug)]
pub struct Client {
    known: Known,
    stream: BufReader<UnixStream>,
}

/// Connects to the daemon of `mountpoint`; `heard` is told where the next one has to be waited for.
pub fn connect(mountpoint: &Path, heard: &mut dyn FnMut(Heard)) -> Result<Client, ControlError> {
    let mut known = mounts()
        .into_iter()
        .find(|known| known.mountpoint == mountpoint)
        .ok_or_else(|| ControlError::NotMounted(mountpoint.display().to_string()))?;
    let stream = reach(&mut known, heard)?;
    Ok(Client { known, stream })
}

/// Connects to whoever serves the mount, and waits for who is on the way.
fn reach(known: &mut Known, heard: &mut dyn FnMut(Heard)) -> Result<BufReader<UnixStream>, ControlError> {
    let (begun, mut pause) = (Instant::now(), RETRY_EVERY);
    loop {
        known.look_again()?;
        match UnixStream::connect(known.state_dir.join("control.sock")) {
            Ok(stream) => return Ok(BufReader::new(stream)),
            Err(error) if is_nobody(&error) => {}
            Err(source) => return Err(ControlError::Io { mountpoint: known.shown(), source }),
        }
        if pause == RETRY_EVERY && begun.elapsed() >= UNHEARD {
            pause = RETRY_SELDOM;
            heard(Heard::Waiting);
        }
        std::thread::sleep(pause);
    }
}

impl Client {
    /// The mount, and who served it when that was last looked at: when this connection was made, or by [`Client::look`].
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// The same, as it is now. A daemon that has just taken over may not have entered its name yet.
    pub fn look(&mut self) -> Result<&Known, ControlError> {
        self.known.look_again()?;
        Ok(&self.known)
    }

    /// Asks, and waits for the answer; `heard` is told what comes before it. Where the daemon dies before it answered, the
    /// next one is asked, unless that could do something twice.
    pub fn call(&mut self, request: &Request, heard: &mut dyn FnMut(Heard)) -> Result<Reply, ControlError> {
        let mut line = serde_json::to_vec(request).map_err(|e| self.broken(e.into()))?;
        line.push(b'\n');
        // The daemon would hang up, which looks like its death.
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(ControlError::TooLong { mountpoint: self.known.shown(), bytes: line.len() });
        }
        loop {
            let source = match self.exchange(&line, heard) {
                Ok(reply) => return Ok(reply),
                Err(source) => source,
            };
            if !is_death(&source) || !request.may_be_repeated() {
                return Err(self.broken(source));
            }
            // Where nobody follows there is nothing to wait for.
            self.known.look_again()?;
            std::thread::sleep(RETRY_EVERY);
            self.stream = reach(&mut self.known, heard)?;
        }
    }

    fn exchange(&mut self, line: &[u8], heard: &mut dyn FnMut(Heard)) -> io::Result<Reply> {
        self.stream.get_mut().write_all(line)?;
        loop {
            match read_reply(&mut self.stream)? {
                Reply::Progress(progress) => heard(Heard::Progress(progress)),
                reply => return Ok(reply),
            }
        }
    }

    fn broken(&self, source: io::Error) -> ControlError {
        ControlError::Io { mountpoint: self.known.shown(), source }
    }
}

/// Whether the connection ended as it does when its other end dies.
fn is_death(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// Whether nobody listens, rather than somebody who can't be reached from here.
fn is_nobody(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, Interrupted, NotFound};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | Interrupted | NotFound)
}

/// The next line as a reply.
#[doc(hidden)]
pub fn read_reply(lines: &mut impl BufRead) -> io::Result<Reply> {
    let mut line = String::new();
    if lines.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::MountRecord;
    use std::fs::{self, DirBuilder, Permissions};
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::thread::JoinHandle;

    /// A state directory as private as it has to be, and the one above it.
    fn state_dir() -> (tempfile::TempDir, StateDir) {
        let above = tempfile::tempdir().expect("a directory");
        fs::set_permissions(above.path(), Permissions::from_mode(0o700)).expect("it is ours");
        let state = StateDir::at(&above.path().join("mount"));
        DirBuilder::new().mode(0o700).create(state.path()).expect("it is ours");
        (above, state)
    }

    /// Enters a daemon that is gone, and its keeper.
    fn enter(state: &StateDir, keeper: (u32, u64)) {
        let (mountpoint, backing) = ("/mnt".into(), "/data".into());
        let record = MountRecord { mountpoint, backing, pid: u32::MAX, started: 0, keeper: Some(keeper) };
        state.record(&record).expect("it is ours");
    }

    fn process(pid: u32) -> (u32, u64) {
        (pid, state::started(pid).expect("it runs"))
    }

    /// One daemon after the other, each with a connection: it answers, or dies of the question. All questions at the end.
    fn daemons(state: &StateDir, answers: &'static [Option<&'static str>]) -> JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(state.socket()).expect("a socket");
        std::thread::spawn(move || {
            let mut asked = Vec::new();
            for answer in answers {
                let (stream, _) = listener.accept().expect("a client");
                let (mut lines, mut line) = (BufReader::new(stream), String::new());
                lines.read_line(&mut line).expect("a request");
                asked.push(line);
                if let Some(answer) = answer {
                    let answer = format!("{answer}\n");
                    lines.get_mut().write_all(answer.as_bytes()).expect("an answer");
                }
            }
            asked
        })
    }

    fn client(state: &StateDir) -> Client {
        let mut known = Known::read(state).expect("a record");
        let stream = reach(&mut known, &mut |_| {}).expect("it listens");
        Client { known, stream }
    }

    #[test]
    fn where_a_daemon_dies_the_next_one_is_asked_unless_that_could_do_something_twice() {
        let (_above, state) = state_dir();
        enter(&state, process(std::process::id()));
        let daemons = daemons(&state, &[None, Some("{\"pending\":[]}"), None, None, Some("\"done\""), None]);
        let reply = client(&state).call(&Request::Pending, &mut |_| {}).expect("the second one answers");
        assert!(matches!(reply, Reply::Pending(paths) if paths.is_empty()));
        let finish = Request::Finish { discard: true };
        let reply = client(&state).call(&finish, &mut |_| {}).expect("the fifth one answers");
        assert!(matches!(reply, Reply::Done));
        let upgrade = Request::Upgrade { binary: "/aimss".into(), within: Duration::ZERO };
        let failed = client(&state).call(&upgrade, &mut |_| {}).expect_err("it died");
        assert!(failed.to_string().starts_with("the daemon of /mnt doesn't answer"), "{failed}");
        let asked = daemons.join().expect("each was asked once");
        assert_eq!(asked[2..5], ["{\"finish\":{\"discard\":true}}\n"; 3]);
    }

    #[test]
    fn a_mount_that_ended_is_told_from_one_that_nobody_serves_any_more() {
        let (_above, state) = state_dir();
        let mut keeper = Command::new("sleep").arg("60").spawn().expect("sleep is there");
        let kept_by = process(keeper.id());
        enter(&state, kept_by);
        let daemons = daemons(&state, &[None, None, None]);
        let finish = Request::Finish { discard: true };
        let mut clients = [client(&state), client(&state), client(&state)];
        let mut failed = |number: usize| {
            let client = &mut clients[number];
            client.call(&finish, &mut |_| {}).expect_err("nobody is asked in its place")
        };
        // Another mount, with a keeper of its own.
        enter(&state, process(std::process::id()));
        let error = failed(0);
        assert!(matches!(error, ControlError::NotMounted(_)), "{error}");
        enter(&state, kept_by);
        keeper.kill().expect("it runs");
        keeper.wait().expect("it is our child");
        let error = failed(1);
        assert!(matches!(error, ControlError::Dead { pid: u32::MAX, .. }), "{error}");
        fs::remove_file(state.path().join("mount.json")).expect("it is there");
        let error = failed(2);
        assert!(matches!(error, ControlError::NotMounted(_)), "{error}");
        daemons.join().expect("each was asked once");
    }

    #[test]
    fn who_waits_for_the_next_daemon_for_long_hears_of_it_once() {
        let (_above, state) = state_dir();
        enter(&state, process(std::process::id()));
        let later = state.clone();
        let late = std::thread::spawn(move || {
            std::thread::sleep(UNHEARD + Duration::from_secs(2));
            daemons(&later, &[Some("\"done\"")]).join().expect("it was asked")
        });
        let (mut known, mut heard) = (Known::read(&state).expect("a record"), Vec::new());
        let stream = reach(&mut known, &mut |what| heard.push(what)).expect("it comes");
        assert_eq!(heard, [Heard::Waiting]);
        let finish = Request::Finish { discard: false };
        Client { known, stream }.call(&finish, &mut |_| {}).expect("it answers");
        late.join().expect("it came");
    }

    #[test]
    fn what_is_longer_than_a_daemon_reads_is_not_sent() {
        let (_above, state) = state_dir();
        enter(&state, process(std::process::id()));
        let _listener = UnixListener::bind(state.socket()).expect("a socket");
        let path = PathBuf::from("x".repeat(LINE_BYTES_MAX as usize));
        let failed = client(&state).call(&Request::Drain { paths: vec![path] }, &mut |_| {});
        assert!(matches!(failed, Err(ControlError::TooLong { .. })), "{failed:?}");
    }
}
