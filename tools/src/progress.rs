//! How far a drain is, for people: a bar with bytes, rate and time left on a terminal; elsewhere (a log, a
//! pipe) one plain line every few seconds, so that a long drain is seen to move and a short one says nothing.

use crate::size;
use aimss_fs::control::protocol::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How often a plain line is printed.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows the progress of one drain.
pub struct Display {
    shape: Shape,
    /// What is done to bytes.
    verb: &'static str,
}

enum Shape {
    Bar { bar: ProgressBar, started: Instant },
    Lines { started: Instant, last: Instant },
    Silent,
}

impl Display {
    /// A bar if stderr is a terminal, lines otherwise.
    pub fn new() -> Self {
        Self::of("written")
    }

    /// The same for bytes that are not written, but `verb`.
    pub fn of(verb: &'static str) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { shape: Shape::Lines { started: Instant::now(), last: Instant::now() }, verb };
        }
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {msg}") {
            bar.set_style(style.progress_chars("##-"));
        }
        Self { shape: Shape::Bar { bar, started: Instant::now() }, verb }
    }

    /// Shows nothing: for mounts a command makes for itself.
    pub fn silent() -> Self {
        Self { shape: Shape::Silent, verb: "written" }
    }

    /// Takes note of `progress`.
    pub fn update(&mut self, progress: Progress) {
        match &mut self.shape {
            Shape::Bar { bar, started } => {
                bar.set_length(progress.bytes_done + progress.bytes_left);
                bar.set_position(progress.bytes_done);
                bar.set_message(line(self.verb, progress, started.elapsed()));
            }
            Shape::Lines { started, last } => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    eprintln!("aimss: {}", line(self.verb, progress, started.elapsed()));
                }
            }
            Shape::Silent => {}
        }
    }

    /// Says a sentence, on a line of its own.
    pub fn say(&self, sentence: &str) {
        match &self.shape {
            Shape::Bar { bar, .. } => bar.suspend(|| eprintln!("aimss: {sentence}")),
            Shape::Lines { .. } => eprintln!("aimss: {sentence}"),
            Shape::Silent => {}
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Shape::Bar { bar, .. } = &self.shape {
            bar.finish_and_clear();
        }
    }
}

fn line(verb: &str, progress: Progress, elapsed: Duration) -> String {
    let rate = progress.bytes_done as f64 / elapsed.as_secs_f64().max(0.001);
    let left = if rate > 0.0 {
        crate::duration::human(Duration::from_secs_f64((progress.bytes_left as f64 / rate).min(1e9)))
    } else {
        "unknown time".to_owned()
    };
    format!(
        "{} {verb}, {} in {} items left, {}/s, {left} left",
        size::human(progress.bytes_done),
        size::human(progress.bytes_left),
        progress.items_left,
        size::human(rate as u64),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_bytes_rate_and_time_left() {
        let progress = Progress { bytes_left: 3 << 30, items_left: 7, bytes_done: 1 << 30 };
        let text = line("written", progress, Duration::from_secs(4));
        assert_eq!(text, "1 GiB written, 3 GiB in 7 items left, 256 MiB/s, 12 s left");
    }

    #[test]
    fn a_drain_that_has_not_moved_has_no_time_left() {
        assert!(line("written", Progress::default(), Duration::ZERO).contains("unknown time left"));
    }
}
