//! The demo's table: one line a step, one column a side, seconds and GB/s.

use std::fmt::Write as _;
use std::time::Duration;

const SIDES: [&str; 3] = ["mount", "disk", "/dev/shm"];

/// Seconds and bytes of a step on each side.
type Cells = [Option<(Duration, u64)>; 3];

/// Steps in the order they were first added.
pub struct Table {
    bytes: u64,
    steps: Vec<(&'static str, Cells)>,
}

impl Table {
    /// For a checkpoint of `bytes`.
    pub fn new(bytes: u64) -> Self {
        Self { bytes, steps: Vec::new() }
    }

    /// `step` on `side` took `time` for `bytes`.
    pub fn add(&mut self, step: &'static str, side: &str, time: Duration, bytes: u64) {
        let column = SIDES.iter().position(|name| *name == side).unwrap_or(0);
        let at = self.steps.iter().position(|(name, _)| *name == step).unwrap_or_else(|| {
            self.steps.push((step, [None; 3]));
            self.steps.len() - 1
        });
        self.steps[at].1[column] = Some((time, bytes));
    }

    /// The table.
    pub fn text(&self) -> String {
        let size = format!("{:.2} GB in 25 files", self.bytes as f64 / 1e9);
        let mut out = format!(
            "{size:<24} {:>18} {:>18} {:>18}\n{}\n",
            "aimss",
            "bare disk, fsync",
            "/dev/shm",
            "-".repeat(81)
        );
        for (step, sides) in &self.steps {
            let cells: Vec<String> = sides.iter().map(|side| format!("{:>18}", cell(*side))).collect();
            writeln!(out, "{step:<24} {}", cells.join(" ").trim_end()).expect("a String takes all");
        }
        out
    }
}

fn cell(side: Option<(Duration, u64)>) -> String {
    let Some((time, bytes)) = side else { return String::new() };
    let seconds = time.as_secs_f64().max(1e-6);
    format!("{seconds:.2} s {:>5.2} GB/s", bytes as f64 / 1e9 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_have_a_column_for_each_side() {
        let mut table = Table::new(1_500_000_000);
        table.add("write", "mount", Duration::from_millis(100), 1_500_000_000);
        table.add("write", "/dev/shm", Duration::from_millis(500), 1_500_000_000);
        table.add("drain", "mount", Duration::from_secs(2), 3_000_000_000);
        let text = table.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "1.50 GB in 25 files                   aimss   bare disk, fsync           /dev/shm"
        );
        assert_eq!(
            lines[2],
            "write                     0.10 s 15.00 GB/s                     0.50 s  3.00 GB/s"
        );
        assert_eq!(lines[3], "drain                     2.00 s  1.50 GB/s");
    }
}
