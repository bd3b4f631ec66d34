//! One stream of a dataflow: its log, and whether it is finished.
//!
//! A stream is *finished* once somebody said so and all of it is durable. A file in the log's directory says
//! where it ends; where more was appended since, by a mount, it does not count.

use super::error::{Error, Result};
use crate::stream::live::Stream;
use crate::stream::segment::{open_to_read, sync_directory};
use crate::stream::{Offset, plain};
use parking_lot::{Condvar, Mutex};
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Name of the file that says where a finished stream ends.
const FILE: &str = "finished";
/// Its first line, and its version.
const HEAD: &str = "aimss-finished 1";

/// See the module.
#[derive(Debug)]
pub(super) struct Flow {
    pub name: String,
    pub stream: Arc<Stream>,
    directory: PathBuf,
    /// Guards against one that finishes while another appends: open writers, and where the stream ends.
    state: Mutex<State>,
    /// Held while something is appended, and set right if that failed.
    pub appending: Mutex<()>,
    pub bell: Arc<Bell>,
    destroyed: AtomicBool,
}

#[derive(Debug)]
struct State {
    writers: usize,
    end: Option<Offset>,
}

/// Rung when those who wait should look again. A leaf lock.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<u64>,
    changed: Condvar,
}

impl Bell {
    pub fn ring(&self) {
        *self.rung.lock() += 1;
        self.changed.notify_all();
    }

    /// How often it rang so far.
    pub fn rung(&self) -> u64 {
        *self.rung.lock()
    }

    /// Waits until it rang more often than `before`; false if that was not until `deadline`.
    pub fn wait(&self, before: u64, deadline: Option<Instant>) -> bool {
        let mut rung = self.rung.lock();
        while *rung == before {
            match deadline {
                None => self.changed.wait(&mut rung),
                Some(deadline) => {
                    if self.changed.wait_until(&mut rung, deadline).timed_out() {
                        return *rung != before;
                    }
                }
            }
        }
        true
    }
}

impl Flow {
    /// The stream as it was found, with its log in `directory`.
    pub fn new(name: &str, stream: Arc<Stream>, directory: PathBuf) -> Flow {
        let text = open_to_read(&directory.join(FILE)).and_then(io::read_to_string);
        let end = text.ok().and_then(|text| {
            let (head, end) = text.trim_end().split_once("\nend = ")?;
            if head == HEAD { end.parse().ok().map(Offset) } else { None }
        });
        let end = end.filter(|end| *end == stream.inspect(|now| now.log.end().0));
        Flow {
            name: name.into(),
            stream,
            directory,
            state: Mutex::new(State { writers: 0, end }),
            appending: Mutex::default(),
            bell: Arc::default(),
            destroyed: AtomicBool::new(false),
        }
    }

    /// Where it ends, if it is finished.
    pub fn end(&self) -> Option<Offset> {
        self.state.lock().end
    }

    /// Refuses one that was destroyed.
    pub fn check(&self) -> Result<()> {
        if self.destroyed.load(Ordering::SeqCst) {
            return Err(Error::Destroyed { name: self.name.clone() });
        }
        Ok(())
    }

    /// It was destroyed.
    pub fn set_destroyed(&self) {
        self.destroyed.store(true, Ordering::SeqCst);
        self.bell.ring();
    }

    /// Waits until it is finished.
    pub fn wait_until_finished(&self) -> Result<Offset> {
        loop {
            let rung = self.bell.rung();
            self.check()?;
            if let Some(end) = self.end() {
                return Ok(end);
            }
            self.bell.wait(rung, None);
        }
    }

    /// A writer comes; with `alone`, only if there is no other.
    pub fn writer_opened(&self, alone: bool) -> Result<()> {
        self.check()?;
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Err(Error::Finished { name: self.name.clone() });
        }
        if alone && state.writers > 0 {
            return Err(Error::HasWriters { name: self.name.clone() });
        }
        state.writers += 1;
        self.stream.writer_opened(false);
        Ok(())
    }

    /// It is gone.
    pub fn writer_closed(&self) {
        let mut state = self.state.lock();
        state.writers -= 1;
        self.stream.writer_closed(false);
    }

    /// Says that nothing more comes, once all that came is durable.
    pub fn finish(&self) -> Result<()> {
        self.check()?;
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Ok(());
        }
        if state.writers > 0 {
            return Err(Error::HasWriters { name: self.name.clone() });
        }
        self.stream.sync().map_err(|source| self.failed(source))?;
        let end = self.stream.inspect(|now| now.log.end().0);
        self.note(end).map_err(|e| self.failed(e.into()))?;
        state.end = Some(end);
        drop(state);
        self.bell.ring();
        Ok(())
    }

    fn note(&self, end: Offset) -> std::io::Result<()> {
        let beside = self.directory.join(format!("{FILE}.new"));
        let mut file = plain::create(&beside)?;
        file.write_all(format!("{HEAD}\nend = {}\n", end.0).as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, self.directory.join(FILE))?;
        sync_directory(&self.directory)
    }

    /// An error of this stream's log.
    pub fn failed(&self, source: crate::stream::Error) -> Error {
        Error::Stream { name: self.name.clone(), source }
    }
}
