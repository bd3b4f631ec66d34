//! Deaths of daemons: how each came about, and when there are too many.
//!
//! 1. A daemon that crashes within [`SETTLED`] is one more of a row; so is one that did not come to serve. A row is given up
//!    when it is too long, and before that each try of it waits longer than the one before.
//! 2. Whoever is ended from outside, by SIGKILL for example, is no crash, and not the program's fault once it has answered
//!    who waited: such deaths may follow each other for ever, without a pause.
//! 3. Ended before that, it is one of a row of its own. An OOM killer that ends all of them at their start would
//!    otherwise do so for ever. A daemon that was ended later says nothing about a row of crashes, and doesn't end it.

use super::{RETIRED, rest};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};
use std::time::Duration;

/// A daemon that served for so long ends a row of crashes: a request that kills whoever answers it is sent again at once,
/// and what a daemon does by itself it has begun by then.
const SETTLED: Duration = Duration::from_secs(10);
/// One that was ready for so long has answered who waited. Threads of its own begin 20 ms after that, and may end it as well.
const ANSWERED: Duration = Duration::from_millis(50);
/// So many deaths in a row, and the next one is too many.
const ROW_MAX: u32 = 6;
/// Before the second try of a row; doubled with each.
const PAUSE: Duration = Duration::from_millis(100);
/// A status of wait(2) that is neither an exit nor a signal.
const UNKNOWN: i32 = 0x7f;

/// The deaths of one program.
#[derive(Debug, Default)]
pub(super) struct Deaths {
    /// Crashes in a row.
    crashes: u32,
    /// Ended from outside before they answered anybody, in a row.
    early: u32,
}

/// What follows from a death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The program is not to blame: go on at once.
    Innocent,
    /// It is: go on after a pause.
    Blamed(Duration),
    /// So many died in a row that it is given up.
    TooMany(u32),
}

impl Deaths {
    /// A daemon ended with `status`, after it `served` for so long: zero if it didn't come to.
    pub(super) fn note(&mut self, status: ExitStatus, served: Duration) -> Verdict {
        if served >= SETTLED {
            self.crashes = 0;
        }
        if served >= ANSWERED {
            self.early = 0;
        }
        let crashed = is_crash(status);
        if !crashed && served >= ANSWERED {
            return Verdict::Innocent;
        }
        let row = if crashed { &mut self.crashes } else { &mut self.early };
        *row += 1;
        match *row {
            1 => Verdict::Blamed(Duration::ZERO),
            row @ 2..=ROW_MAX => Verdict::Blamed(PAUSE * (1 << (row - 2))),
            row => Verdict::TooMany(row),
        }
    }
}

/// Whether a daemon ended by a fault of its own: by a signal that the kernel or the program itself sends for one, or with an
/// exit code that says so.
/// Whether a daemon ended by its own fault.
pub(super) fn is_crash(status: ExitStatus) -> bool {
    match status.signal() {
        Some(signal) => matches!(
            signal,
            libc::SIGABRT
                | libc::SIGBUS
                | libc::SIGFPE
                | libc::SIGILL
                | libc::SIGSEGV
                | libc::SIGSYS
                | libc::SIGTRAP
                | libc::SIGXCPU
                | libc::SIGXFSZ
        ),
        // It gave way to a successor that was gone by then.
        None => status.code() != Some(RETIRED),
    }
}

/// How a process ended that should not have.
pub(super) fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = Signal::from_named_raw(signal).map(|signal| format!("{signal:?}"));
            match name.as_deref().and_then(|name| name.trim_matches('"').strip_prefix("Signal::")) {
                Some(name) => format!("signal {signal} ({name})"),
                None => format!("signal {signal}"),
            }
        }
        (None, Some(code)) => format!("it ended with code {code}; its log says why"),
        (None, None) => "nobody knows how".into(),
    }
}

/// Waits for the end of a child, and leaves it to be reaped later: to reap one with 10,000 files takes 10 ms where somebody
/// looks at `/proc` now and then, whose memory of them goes with it.
pub(super) fn ended(child: &Child) -> ExitStatus {
    loop {
        match waitid(WaitId::Pid(Pid::from_child(child)), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
            // As wait(2) has them.
            Ok(Some(status)) => {
                let code = status.exit_status().map(|code| code << 8);
                return ExitStatus::from_raw(code.or(status.terminating_signal()).unwrap_or(libc::SIGKILL));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            // It has been reaped already.
            Err(rustix::io::Errno::CHILD) => return ExitStatus::from_raw(UNKNOWN),
            Err(e) => rest("waitid", e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_signal(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    fn by_code(code: i32) -> ExitStatus {
        ExitStatus::from_raw(code << 8)
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn daemons_that_are_killed_while_they_serve_are_never_too_many() {
        let mut deaths = Deaths::default();
        for _ in 0..1000 {
            assert_eq!(deaths.note(by_signal(libc::SIGKILL), ANSWERED), Verdict::Innocent);
        }
    }

    #[test]
    fn crashes_are_too_many_although_each_served_for_a_while() {
        let mut deaths = Deaths::default();
        let statuses = [by_signal(libc::SIGSEGV), by_code(1), by_signal(libc::SIGABRT)];
        let mut pauses = Vec::new();
        let row = loop {
            match deaths.note(statuses[pauses.len() % statuses.len()], SECOND) {
                Verdict::Blamed(pause) => pauses.push(pause.as_millis()),
                Verdict::TooMany(row) => break row,
                Verdict::Innocent => panic!("a crash is the program's fault"),
            }
            // Others are killed in between.
            assert_eq!(deaths.note(by_signal(libc::SIGKILL), SECOND), Verdict::Innocent);
        };
        assert_eq!((row, pauses), (ROW_MAX + 1, vec![0, 100, 200, 400, 800, 1600]));
    }

    #[test]
    fn one_that_served_for_long_ends_a_row() {
        let mut deaths = Deaths::default();
        for _ in 0..ROW_MAX {
            deaths.note(by_signal(libc::SIGBUS), SECOND);
        }
        for _ in 0..100 {
            assert_eq!(deaths.note(by_signal(libc::SIGBUS), SETTLED), Verdict::Blamed(Duration::ZERO));
        }
    }

    #[test]
    fn daemons_that_are_killed_before_they_serve_are_too_many() {
        let killed = by_signal(libc::SIGKILL);
        let mut deaths = Deaths::default();
        for _ in 0..ROW_MAX {
            assert!(matches!(deaths.note(killed, Duration::ZERO), Verdict::Blamed(_)));
        }
        assert_eq!(deaths.note(killed, Duration::ZERO), Verdict::TooMany(ROW_MAX + 1));
        assert_eq!(deaths.note(killed, ANSWERED), Verdict::Innocent);
        assert_eq!(deaths.note(killed, Duration::ZERO), Verdict::Blamed(Duration::ZERO));
    }

    #[test]
    fn an_end_is_named() {
        assert_eq!(how(by_signal(libc::SIGKILL)), "signal 9 (KILL)");
        assert_eq!(how(by_code(1)), "it ended with code 1; its log says why");
        assert_eq!(how(ExitStatus::from_raw(UNKNOWN)), "nobody knows how");
        assert!(is_crash(ExitStatus::from_raw(UNKNOWN)) && !is_crash(by_code(RETIRED)));
    }
}
