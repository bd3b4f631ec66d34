//! Processes, by `/proc`: whether one still runs, and what it is called.

use std::time::{Duration, Instant};

/// How often a wait looks again: short beside what an unmount costs, long beside what a look costs.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Whether process `pid` runs. One that ended and that nobody has waited for yet (a zombie) doesn't.
pub fn runs(pid: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The name, in parentheses, may itself hold parentheses.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// Waits until `pid` no longer runs, at most `limit`; whether it ended.
pub fn wait_gone(pid: u32, limit: Duration) -> bool {
    let start = Instant::now();
    while runs(pid) {
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    true
}

/// The program's name, for messages.
pub fn name(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    match name.trim_end() {
        "" => "a program".to_owned(),
        name => crate::escape::text(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_ended_no_longer_runs_though_nobody_waited_for_it() {
        let mut child = std::process::Command::new("true").spawn().expect("true is there");
        assert!(wait_gone(child.id(), Duration::from_secs(10)));
        child.wait().expect("it is our child");
        assert!(runs(std::process::id()));
    }
}
