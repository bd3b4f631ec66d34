//! Copies to and from a device are made by threads of their own: a device that hangs holds those, and nobody who reads a
//! file.

use crossbeam_channel::{RecvTimeoutError, Sender};
use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Copies at once: those of one file that goes there, and as many that come back. A bus is busy with two or three.
const THREADS: usize = 8;
/// Between two looks whether the device was given up meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

type Job = Box<dyn FnOnce() + Send>;

/// See the module.
#[derive(Default)]
pub(super) struct Calls {
    /// To the threads, which end with this; `None` where there are none to be had.
    jobs: OnceLock<Option<Sender<Job>>>,
}

impl std::fmt::Debug for Calls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl Calls {
    /// What `call` gives.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::TimedOut`]: it took longer than `patience`, or the device was `given_up` before. The thread that
    /// makes it has what it was given for as long as it takes.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        patience: Duration,
        given_up: impl Fn() -> bool,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let Some(jobs) = self.jobs() else { return Ok(call()) };
        let (done, result) = crossbeam_channel::bounded(1);
        let begun = Instant::now();
        // Who doesn't wait any more needs no result.
        let job: Job = Box::new(move || drop(done.send(call())));
        jobs.send(job).map_err(|_| io::Error::other("the threads that copy to the device ended"))?;
        loop {
            match result.recv_timeout(patience.min(LOOK_EVERY)) {
                Ok(result) => return Ok(result),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() >= patience || given_up() => {
                    let why = format!("it has not answered for {:.1} s", begun.elapsed().as_secs_f64());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, why));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("a thread that copies to the device panicked"));
                }
            }
        }
    }

    /// Makes a call that nobody waits for.
    pub(super) fn later(&self, call: impl FnOnce() + Send + 'static) {
        if let Some(jobs) = self.jobs() {
            // Where the threads ended it is not made, and dropped here.
            let _ = jobs.send(Box::new(call));
        } else {
            call();
        }
    }

    fn jobs(&self) -> Option<&Sender<Job>> {
        let start = || {
            let (jobs, work) = crossbeam_channel::unbounded::<Job>();
            let spawned = (0..THREADS).filter(|_| {
                let work = work.clone();
                let run = move || work.iter().for_each(|job| job());
                std::thread::Builder::new().name("device".into()).spawn(run).is_ok()
            });
            (spawned.count() > 0).then_some(jobs)
        };
        self.jobs.get_or_init(start).as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_holds_its_thread_and_no_caller() {
        let calls = Calls::default();
        let patience = Duration::from_millis(20);
        assert_eq!(calls.wait(patience, || false, || 7).expect("it answers"), 7);
        let (end, held) = crossbeam_channel::bounded::<()>(0);
        let hangs = held.clone();
        let late = calls.wait(patience, || false, move || hangs.recv()).expect_err("it hangs");
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        // Others go on.
        assert_eq!(calls.wait(patience, || false, || 8).expect("it answers"), 8);
        let begun = Instant::now();
        let given_up = calls.wait(Duration::from_secs(60), || true, move || held.recv());
        assert_eq!(given_up.expect_err("it was given up").kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(10));
        drop(end);
    }
}
