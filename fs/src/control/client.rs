//! The asking side; blocking.

use super::protocol::{Progress, Reply, Request};
use crate::state::StateDir;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a daemon that died may take to be followed by the next.
const NEXT_DAEMON: Duration = Duration::from_secs(5);
/// Between two looks whether it is there.
const RETRY_EVERY: Duration = Duration::from_millis(10);

/// A mount that has a state directory.
#[derive(Debug, Clone)]
pub struct Known {
    /// Mount point.
    pub mountpoint: PathBuf,
    /// Backing.
    pub backing: PathBuf,
    /// The daemon.
    pub pid: u32,
    /// Whether the mount is served: the daemon lives, or is being started again.
    pub alive: bool,
    /// The daemon's keeper, if it lives.
    pub keeper: Option<u32>,
    /// Its state directory.
    pub state_dir: PathBuf,
}

/// Why a daemon couldn't be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No such mount.
    #[error("{0} is not mounted by aimss; `aimss status` lists what is")]
    NotMounted(String),
    /// It died.
    #[error(
        "the daemon of {mountpoint} (process {pid}) is gone; `aimss umount --lazy {mountpoint}` clears the mount, and mounting again brings back what it had"
    )]
    Dead {
        /// The mount.
        mountpoint: String,
        /// The daemon it had.
        pid: u32,
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

/// All mounts of this user.
pub fn mounts() -> Vec<Known> {
    let mut known: Vec<Known> = StateDir::all()
        .into_iter()
        .filter_map(|dir| {
            let record = dir.read_record()?;
            let (alive, keeper) = (record.alive(), record.keeper());
            let state_dir = dir.path().to_path_buf();
            Some(Known {
                mountpoint: record.mountpoint,
                backing: record.backing,
                pid: record.pid,
                alive,
                keeper,
                state_dir,
            })
        })
        .collect();
    known.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
    known
}

/// A connection to a daemon, or to the one that follows it.
#[derive(Debug)]
pub struct Client {
    known: Known,
    stream: BufReader<UnixStream>,
}

/// Connects to the daemon of `mountpoint`.
pub fn connect(mountpoint: &Path) -> Result<Client, ControlError> {
    let shown = mountpoint.display().to_string();
    let known = mounts().into_iter().find(|known| known.mountpoint == mountpoint);
    let Some(known) = known else { return Err(ControlError::NotMounted(shown)) };
    if !known.alive {
        return Err(ControlError::Dead { mountpoint: shown, pid: known.pid });
    }
    let stream = reach(&known).map_err(|source| ControlError::Io { mountpoint: shown, source })?;
    Ok(Client { known, stream })
}

fn reach(known: &Known) -> io::Result<BufReader<UnixStream>> {
    let begun = Instant::now();
    loop {
        match UnixStream::connect(known.state_dir.join("control.sock")) {
            Ok(stream) => return Ok(BufReader::new(stream)),
            // The next daemon is on its way.
            Err(_) if known.keeper.is_some() && begun.elapsed() < NEXT_DAEMON => {
                std::thread::sleep(RETRY_EVERY);
            }
            Err(source) => return Err(source),
        }
    }
}

impl Client {
    /// Asks, and waits for the answer; `on_progress` is called for what comes before it. Where the daemon dies before it
    /// answered, the next one is asked, unless that could do something twice.
    pub fn call(
        &mut self,
        request: &Request,
        on_progress: &mut dyn FnMut(Progress),
    ) -> Result<Reply, ControlError> {
        loop {
            let source = match self.exchange(request, on_progress) {
                Ok(reply) => return Ok(reply),
                Err(source) => source,
            };
            let mountpoint = self.known.mountpoint.display().to_string();
            if !is_death(&source) || self.known.keeper.is_none() || !request.may_be_repeated() {
                return Err(ControlError::Io { mountpoint, source });
            }
            std::thread::sleep(RETRY_EVERY);
            self.stream = reach(&self.known).map_err(|source| ControlError::Io { mountpoint, source })?;
        }
    }

    fn exchange(&mut self, request: &Request, on_progress: &mut dyn FnMut(Progress)) -> io::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line)?;
        loop {
            match read_reply(&mut self.stream)? {
                Reply::Progress(progress) => on_progress(progress),
                reply => return Ok(reply),
            }
        }
    }
}

/// Whether the connection ended as it does when its other end dies.
fn is_death(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
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
    use std::os::unix::net::UnixListener;

    #[test]
    fn where_a_daemon_dies_the_next_one_is_asked_unless_that_could_do_something_twice() {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(dir.path().join("control.sock")).expect("a socket");
        let daemons = std::thread::spawn(move || {
            for answer in [None, Some("{\"pending\":[]}\n"), None] {
                let (stream, _) = listener.accept().expect("a client");
                let mut lines = BufReader::new(stream);
                lines.read_line(&mut String::new()).expect("a request");
                if let Some(answer) = answer {
                    lines.get_mut().write_all(answer.as_bytes()).expect("an answer");
                }
            }
        });
        let known = Known {
            mountpoint: "/mnt".into(),
            backing: "/data".into(),
            pid: 1,
            alive: true,
            keeper: Some(1),
            state_dir: dir.path().into(),
        };
        let client = || Client { known: known.clone(), stream: reach(&known).expect("it listens") };
        let reply = client().call(&Request::Pending, &mut |_| {}).expect("the second one answers");
        assert!(matches!(reply, Reply::Pending(paths) if paths.is_empty()));
        let failed = client().call(&Request::Finish { discard: false }, &mut |_| {}).expect_err("it died");
        assert!(failed.to_string().starts_with("the daemon of /mnt doesn't answer"), "{failed}");
        daemons.join().expect("each was asked once");
    }
}
