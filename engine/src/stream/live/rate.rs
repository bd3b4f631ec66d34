//! How fast a count grows, as of when somebody asked last.

use std::time::{Duration, Instant};

/// Rates are means over at least this long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// When the rate was made last, and of which count.
    since: Option<(Instant, u64)>,
    a_second: f64,
}

impl Rate {
    /// Of a count that is so large now.
    pub fn new(count: u64) -> Rate {
        Rate { since: Some((Instant::now(), count)), a_second: 0.0 }
    }

    /// The rate now that the count is so large; of one that shrank, nothing. 0 at first.
    pub fn note(&mut self, now: Instant, count: u64) -> f64 {
        let (since, before) = *self.since.get_or_insert((now, count));
        let age = now.saturating_duration_since(since);
        if age >= RATE_OVER {
            self.a_second = count.saturating_sub(before) as f64 / age.as_secs_f64();
            self.since = Some((now, count));
        }
        self.a_second
    }
}
