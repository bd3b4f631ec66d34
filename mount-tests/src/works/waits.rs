//! Members of groups that wait for records: in epoll, in poll(2), or in read(2).
//!
//! 1. Each is the only member of a group of its own, in a thread of its own, and waits without an end. It stops at the
//!    record that says that it is the last one.
//! 2. Whoever appends waits until all were given the record, so that mostly each append finds all of them at the end of the
//!    stream, and each of them has to be woken for each record. It says so if one is not.
//! 3. A thread that is not woken is left behind: nothing ends its wait but the end of the mount, which gives it an error.

use super::Load;
use super::streams::Given;
use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, epoll, poll};
use rustix::io::retry_on_intr;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Far longer than daemons that follow each other take to serve; who is not woken within it never will be.
const WOKEN_WITHIN: Duration = Duration::from_secs(30);
/// Before the next append, so that those who were woken wait again.
const A_MOMENT: Duration = Duration::from_millis(2);
/// Of so many appends one does not wait until the record was given, so that the next finds members on their way.
const AWAITED_NOT: u64 = 8;
/// Stream and groups are begun anew after so many.
const RECORDS_MAX: u64 = 10_000;
/// The word of the last record.
const LAST: &str = "last";

pub(super) fn waits_for_records(dir: &Path, load: &Load) -> Result<()> {
    load.again_and_again(|| waits_at_a_stream(dir, load))
}

fn waits_at_a_stream(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("awaited.stream");
    let mut writer = OpenOptions::new().append(true).create(true).open(&path)?;
    let ways = [Way::Epoll, Way::Poll, Way::Read];
    let mut members = ways.map(|way| Member::start(way, dir)).into_iter().collect::<Result<Vec<_>>>()?;
    let mut appended = 0;
    let worked = load.each_below(RECORDS_MAX, |number| {
        writer.write_all(format!("record {number}\n").as_bytes()).context("an append")?;
        appended = number + 1;
        if !appended.is_multiple_of(AWAITED_NOT) {
            members.iter_mut().try_for_each(|member| member.is_given(appended))?;
            std::thread::sleep(A_MOMENT);
        }
        Ok(())
    });
    // Whatever came of it, or those who can be woken would wait on.
    let last = writer.write_all(format!("{LAST} {appended}\n").as_bytes());
    worked?;
    last.context("the last append")?;
    members.iter_mut().try_for_each(|member| member.is_given(appended + 1))?;
    fs::remove_file(path)?;
    Ok(())
}

/// How a member waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Epoll,
    Poll,
    Read,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Epoll => "epoll",
            Way::Poll => "poll",
            Way::Read => "read",
        })
    }
}

/// A member, as whoever appends sees it.
struct Member {
    way: Way,
    /// How many records it was given so far, each time, or why it ended.
    told: Receiver<Result<u64>>,
    given: u64,
}

impl Member {
    /// Opens the group, and has a thread wait for its records.
    fn start(way: Way, dir: &Path) -> Result<Member> {
        let (tell, told) = channel();
        let flags = if way == Way::Read { 0 } else { libc::O_NONBLOCK };
        let group = dir.join(format!("awaited.stream@{way}"));
        let file = OpenOptions::new().read(true).custom_flags(flags).open(group).context("a group")?;
        let waiting = Waiting::new(way, file)?;
        std::thread::spawn(move || {
            if let Err(e) = waiting.until_the_last(&tell) {
                // Who would hear it may have failed before.
                let _ = tell.send(Err(e));
            }
        });
        Ok(Member { way, told, given: 0 })
    }

    /// Waits until it was given so many records.
    fn is_given(&mut self, records: u64) -> Result<()> {
        let who = format!("a member that waits in {}", self.way);
        while self.given < records {
            match self.told.recv_timeout(WOKEN_WITHIN) {
                Ok(given) => self.given = given.with_context(|| who.clone())?,
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{who} was not woken for {WOKEN_WITHIN:?}: {records} records are there, and it was given {}",
                    self.given
                ),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{who} ended with {} of {records} records", self.given)
                }
            }
        }
        ensure!(self.given == records, "{who} was given {} records of {records}", self.given);
        Ok(())
    }
}

/// What the thread of a member has.
struct Waiting {
    file: File,
    way: Way,
    /// In which it waits, if that is its way.
    epoll: Option<OwnedFd>,
}

impl Waiting {
    fn new(way: Way, file: File) -> Result<Waiting> {
        let epoll = if way == Way::Epoll {
            let made = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll_create1")?;
            epoll::add(&made, &file, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
                .context("epoll_ctl")?;
            Some(made)
        } else {
            None
        };
        Ok(Waiting { file, way, epoll })
    }

    /// Reads what comes, and tells each time how many records that makes; closes the group before it tells of the last.
    fn until_the_last(mut self, tell: &Sender<Result<u64>>) -> Result<()> {
        let (mut given, mut batch) = (Given::default(), vec![0; 1 << 16]);
        loop {
            self.wait()?;
            let bytes = match self.file.read(&mut batch) {
                // Woken for nothing, as all who waited are when a daemon takes over.
                Err(e) if e.kind() == ErrorKind::WouldBlock && self.way != Way::Read => continue,
                read => read.context("a read of the group")?,
            };
            ensure!(bytes > 0, "a read of a group that has no end gave nothing");
            if given.take(&batch[..bytes])? == Some(LAST) {
                drop(self);
                let _ = tell.send(Ok(given.next));
                return Ok(());
            }
            // Whoever appends has failed.
            if tell.send(Ok(given.next)).is_err() {
                return Ok(());
            }
        }
    }

    /// Returns when there is something to read, or might be.
    fn wait(&self) -> Result<()> {
        match (self.way, &self.epoll) {
            (Way::Epoll, Some(epoll)) => {
                let mut ready = Vec::with_capacity(1);
                retry_on_intr(|| epoll::wait(epoll, spare_capacity(&mut ready), None))
                    .context("epoll_wait")?;
            }
            (Way::Poll, _) => {
                retry_on_intr(|| poll(&mut [PollFd::new(&self.file, PollFlags::IN)], None))
                    .context("poll")?;
            }
            // read(2) waits itself.
            _ => {}
        }
        Ok(())
    }
}
