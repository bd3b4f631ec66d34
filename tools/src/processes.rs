//! Processes, by `/proc`: whether one still runs, and what it is called.

use aimss_fs::state;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// How often a wait looks again: short beside what an unmount costs, long beside what a look costs.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Kills process `pid`.
pub fn kill(pid: u32) {
    // One that is gone already is what was wanted.
    let _ = rustix::process::Pid::from_raw(pid.cast_signed())
        .map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
}

/// Waits until `pid` no longer runs, at most `limit`; whether it ended. It has, too, if its number is another's by then.
pub fn wait_gone(pid: u32, limit: Duration) -> bool {
    is_gone_within(limit, pid, state::started(pid))
}

/// Waits until `pid` no longer runs, for as long as it uses its processor at least once every `rest`; whether it ended.
pub fn wait_ended(pid: u32, rest: Duration) -> bool {
    let (since, mut used) = (state::started(pid), ticks(pid));
    while !is_gone_within(rest, pid, since) {
        let now = ticks(pid);
        if now == used {
            return false;
        }
        used = now;
    }
    true
}

/// Whether process `pid`, which runs `since` then, ends within `limit`. One that ended and that nobody has waited for yet (a
/// zombie) has.
fn is_gone_within(limit: Duration, pid: u32, since: Option<u64>) -> bool {
    let start = Instant::now();
    while since.is_some() && state::started(pid) == since {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

/// Processor time used, in clock ticks; 0 if it is gone.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // User and system time are the 12th and 13th field behind the name.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}

/// The program's name, for messages.
pub fn name(pid: u32) -> String {
    let name = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_ascii_end() {
        b"" => "a program".to_owned(),
        name => crate::escape::name(OsStr::from_bytes(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_works_is_waited_for_and_what_rests_is_not() {
        let mut busy = std::process::Command::new("timeout")
            .args(["--foreground", "2", "sh", "-c", "while :; do :; done"])
            .spawn()
            .expect("timeout is there");
        // The loop is a child of `timeout`: this waits for the one that works.
        let worker = || {
            let children = format!("/proc/{0}/task/{0}/children", busy.id());
            std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse::<u32>().ok()
        };
        let worker = std::iter::repeat_with(worker).flatten().next().expect("a child");
        assert!(wait_ended(worker, Duration::from_secs(1)));
        busy.wait().expect("it is our child");
        let mut resting = std::process::Command::new("sleep").arg("60").spawn().expect("sleep is there");
        std::thread::sleep(Duration::from_millis(100));
        assert!(!wait_ended(resting.id(), Duration::from_millis(200)));
        resting.kill().expect("it runs");
        resting.wait().expect("it is our child");
    }

    #[test]
    fn a_child_that_ended_no_longer_runs_though_nobody_waited_for_it() {
        let mut child = std::process::Command::new("true").spawn().expect("true is there");
        assert!(wait_gone(child.id(), Duration::from_secs(10)));
        child.wait().expect("it is our child");
        assert!(!wait_gone(std::process::id(), Duration::ZERO));
    }
}
