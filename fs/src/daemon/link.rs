//! A daemon's side of the socket to its keeper.

use super::Daemon;
use crate::keeper::{self, FromDaemon, Hello, Life, ToDaemon};
use rustix::event::{PollFd, PollFlags, Timespec};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a daemon that gives way sees to it that offsets of groups are on the backing.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct Link(OwnedFd);

impl Link {
    /// The socket, and what it is told first.
    pub fn new(socket: OwnedFd) -> io::Result<(Link, Hello)> {
        let hello = keeper::receive(socket.as_fd())?.ok_or(io::ErrorKind::UnexpectedEof)?.0;
        Ok((Link(socket), hello))
    }

    /// Tells the keeper something. False if it is gone, and needs not be told.
    pub fn tell(&self, what: &FromDaemon) -> bool {
        keeper::send(self.0.as_fd(), what, None).is_ok()
    }

    pub(super) fn ask(&self, question: &FromDaemon) -> io::Result<OwnedFd> {
        keeper::send(self.0.as_fd(), question, None)?;
        match keeper::receive(self.0.as_fd())? {
            Some((ToDaemon::Attached, Some(device))) => Ok(device),
            Some((ToDaemon::Failed(why), _)) => Err(io::Error::other(why)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Waits for the word to go on where another daemon ended, so long. An unexpected end: it is not needed.
    pub(super) fn told_to_go(&self, wait: Duration) -> io::Result<Option<Life>> {
        let timeout = Timespec::try_from(wait).ok();
        let mut socket = [PollFd::new(&self.0, PollFlags::IN)];
        match rustix::event::poll(&mut socket, timeout.as_ref()) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        match keeper::receive(self.0.as_fd())? {
            Some((ToDaemon::Go(life), _)) => Ok(Some(life)),
            Some(_) => Ok(None),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Daemon {
    /// Does what the keeper says while this daemon serves.
    pub(super) fn listen_to_keeper(self: Arc<Daemon>) {
        let listen = move || {
            while let Ok(Some((message, _))) = keeper::receive::<ToDaemon>(self.link.0.as_fd()) {
                match message {
                    // What is left to be done after an unmount is this one's.
                    ToDaemon::Retire if self.unmounted.load(Ordering::SeqCst) => {}
                    ToDaemon::Retire => self.give_way(),
                    ToDaemon::Failed(sentence) => {
                        if let Some(asked) = self.upgrade.lock().take() {
                            let _ = asked.send(sentence);
                        }
                    }
                    ToDaemon::Attached | ToDaemon::Go(_) => {}
                }
            }
            // Nobody answers any more.
            drop(self.upgrade.lock().take());
        };
        if let Err(e) = std::thread::Builder::new().name("keeper".into()).spawn(listen) {
            log::warn!("no thread listens to the keeper, so there will be no upgrade: {e}");
        }
    }

    /// The successor is ready. What is not answered comes to that one.
    fn give_way(&self) -> ! {
        log::info!("another daemon takes over");
        let (streams, (done, end)) = (self.streams.clone(), mpsc::channel());
        std::thread::spawn(move || {
            if let Err(e) = streams.all().sync_all() {
                log::info!("groups may be given again what they acknowledged last: {e}");
            }
            let _ = done.send(());
        });
        // On a backing that stalls they have to do without.
        let _ = end.recv_timeout(LAST_WORDS);
        // As at a death, nothing is tidied up.
        // SAFETY: it doesn't return.
        unsafe { libc::_exit(keeper::RETIRED) }
    }

    /// Asks for one of another binary to take over; returns only if that fails, with a sentence.
    pub fn upgrade(&self, binary: PathBuf, within: Duration) -> String {
        let (asked, answer) = mpsc::channel();
        {
            let mut upgrade = self.upgrade.lock();
            if upgrade.is_some() {
                return "another upgrade is under way; wait for its end".into();
            }
            *upgrade = Some(asked);
        }
        if !self.link.tell(&FromDaemon::Upgrade { binary, within }) {
            drop(self.upgrade.lock().take());
        }
        answer.recv().unwrap_or_else(|_| "the keeper of this mount is gone".into())
    }
}
