//! Ctrl-C, SIGTERM and a closed terminal as events rather than death, for commands that have something to put
//! away.
//!
//! [`watch`] installs a handler that writes a byte to a pipe, and a thread that reads it. A handler rather
//! than a blocked signal: programs that are started inherit a mask but not a handler, so Ctrl-C still ends
//! them. [`note`] and [`check`] are the plain form: remember it, and fail at the next step.

use anyhow::{Result, bail};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
/// The pipe's writing end; never closed, so that a handler can't meet another file under its number.
static PIPE: OnceLock<OwnedFd> = OnceLock::new();

extern "C" fn on_signal(_: libc::c_int) {
    if let Some(pipe) = PIPE.get() {
        // SAFETY: write(2) may be called in a handler; the byte outlives the call. A full pipe has bytes
        // enough.
        unsafe { libc::write(pipe.as_raw_fd(), [0_u8].as_ptr().cast(), 1) };
    }
}

/// Calls `act` on a thread of its own for each SIGINT, SIGTERM and SIGHUP from now on. Once a process; a
/// second call changes nothing.
pub fn watch(mut act: impl FnMut() + Send + 'static) -> Result<()> {
    let flags = rustix::pipe::PipeFlags::CLOEXEC;
    let (reader, writer) = rustix::pipe::pipe_with(flags)?;
    if PIPE.set(writer).is_err() {
        return Ok(());
    }
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut reader = File::from(reader);
        while reader.read_exact(&mut [0]).is_ok() {
            act();
        }
    })?;
    for signal in SIGNALS {
        // SAFETY: an all-zero sigaction is valid (no flags, empty mask); the handler only reads a static and
        // calls write(2), both allowed in a handler.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
    }
    Ok(())
}

/// From now on a signal makes [`check`] fail; the work in progress ends at its next check and cleans up.
pub fn note() -> Result<()> {
    watch(|| INTERRUPTED.store(true, Ordering::Relaxed))
}

/// Fails once a signal came.
pub fn check() -> Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted; everything it made has been removed");
    }
    Ok(())
}
