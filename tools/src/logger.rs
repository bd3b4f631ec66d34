//! The daemon's log: one line an event on stderr, which `aimss mount` has pointed at the log file.
//!
//! A logger of thirty lines instead of a package: the daemon needs time, level and text, and no formats.

use crate::escape;
use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

struct Lines;

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // fuser warns at each end of a mount that it was unmounted by somebody else, which is how we do it.
        let chatter = metadata.target().starts_with("fuser")
            && metadata.level() > log::Level::Error
            && log::max_level() < LevelFilter::Debug;
        metadata.level() <= log::max_level() && !chatter
    }

    fn log(&self, record: &Record<'_>) {
        // Whoever asked was killed meanwhile, and let go.
        let unheard = record.target() == "fuser::reply"
            && record.args().to_string().contains("(os error 2)")
            && log::max_level() < LevelFilter::Debug;
        if self.enabled(record.metadata()) && !unheard {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let line = format!(
                "{}.{:03} {} {}: {}\n",
                since.as_secs(),
                since.subsec_millis(),
                record.level(),
                record.target(),
                escape::lines(&record.args().to_string())
            );
            // One write a line, so that lines of several threads don't mix. Nobody to tell if it fails.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// Sends log records to stderr; `AIMSS_LOG` (error, warn, info, debug, trace) says how much, `default`
/// without it.
pub fn install(default: LevelFilter) {
    let level = std::env::var("AIMSS_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(default);
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(level);
    }
}
