//! The daemon's log: one line an event on stderr, which `aimss mount` has pointed at the log file.
//!
//! A logger of thirty lines instead of a package: the daemon needs time, level and text, and no formats.

use crate::escape;
use log::{LevelFilter, Log, Metadata, Record};
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// A log that nobody asked for takes no more of the memory that state directories are in.
const SMALL_BYTES_MAX: u64 = 1 << 20;

static IS_SMALL: AtomicBool = AtomicBool::new(false);

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
            if IS_SMALL.load(Ordering::Relaxed) {
                begin_anew_if_full();
            }
            // One write a line, so that lines of several threads don't mix. Nobody to tell if it fails.
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// The newest lines say most: those that are there go when it is full. Other processes append to it, too.
fn begin_anew_if_full() {
    let stderr = std::io::stderr();
    let is_full = rustix::fs::fstat(&stderr).is_ok_and(|stat| stat.st_size as u64 > SMALL_BYTES_MAX);
    if is_full && rustix::fs::ftruncate(&stderr, 0).is_ok() {
        let _ =
            writeln!(std::io::stderr(), "(earlier lines are gone: at most {SMALL_BYTES_MAX} bytes are kept)");
    }
}

/// From here on stderr is a file that is to stay small; records up to `default` go there.
pub fn keep_small(default: LevelFilter) {
    IS_SMALL.store(true, Ordering::Relaxed);
    log::set_max_level(level(default));
}

fn level(default: LevelFilter) -> LevelFilter {
    std::env::var("AIMSS_LOG").ok().and_then(|level| level.parse().ok()).unwrap_or(default)
}

/// Sends log records to stderr; `AIMSS_LOG` (error, warn, info, debug, trace) says how much, `default`
/// without it.
pub fn install(default: LevelFilter) {
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(level(default));
    }
}
