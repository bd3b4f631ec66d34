//! What the rows gave, as a table or as JSON.

use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Counts of opens: mode, then reason.
pub type Modes = BTreeMap<String, BTreeMap<String, u64>>;

/// What a figure must reach.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bar {
    /// The ratio is at least this.
    AtLeast(f64),
    /// The value (or ratio) is below this.
    Below(f64),
    /// The value (or ratio) is this or less.
    AtMost(f64),
    /// The work ends well.
    Completes,
    /// Stated, not judged.
    Stated,
}

impl Serialize for Bar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text())
    }
}

impl Bar {
    fn text(self) -> String {
        match self {
            Self::AtLeast(bar) => format!(">= {bar}"),
            Self::Below(bar) => format!("< {bar}"),
            Self::AtMost(bar) => format!("<= {bar}"),
            Self::Completes => "completes".into(),
            Self::Stated => "stated".into(),
        }
    }
}

/// One figure.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// Which of the row's figures, such as the block size; may be empty.
    pub case: String,
    /// What `ours` and `theirs` are in.
    pub unit: &'static str,
    /// Our median; absent if the row could not run here.
    pub ours: Option<f64>,
    /// Their median.
    pub theirs: Option<f64>,
    /// Who they are; may be empty.
    pub against: String,
    /// Ours over theirs, the median of the pairs.
    pub ratio: Option<f64>,
    /// What must be reached.
    pub bar: Bar,
    /// Whether it was; absent where nothing can be said.
    pub met: Option<bool>,
    /// What else should be known; may be empty.
    pub note: String,
}

impl Outcome {
    /// Alternating pairs against somebody.
    pub fn against(who: &str, unit: &'static str, medians: crate::pairs::Medians, bar: Bar) -> Self {
        let met = judge(bar, medians.ratio);
        Self {
            case: String::new(),
            unit,
            ours: Some(medians.ours),
            theirs: Some(medians.theirs),
            against: who.into(),
            ratio: Some(medians.ratio),
            bar,
            met,
            note: String::new(),
        }
    }

    /// A value of our own.
    pub fn value(unit: &'static str, value: f64, bar: Bar) -> Self {
        Self {
            case: String::new(),
            unit,
            ours: Some(value),
            theirs: None,
            against: String::new(),
            ratio: None,
            bar,
            met: judge(bar, value),
            note: String::new(),
        }
    }

    /// A row that can't run here, and what it needs.
    pub fn skipped(bar: Bar, needs: impl Into<String>) -> Self {
        let note = format!("not measured: {}", needs.into());
        Self { ours: None, met: None, note, ..Self::value("", 0.0, bar) }
    }

    /// Our value where there is nobody to compare with.
    pub fn alone(unit: &'static str, value: f64, bar: Bar, needs: impl Into<String>) -> Self {
        Self { met: None, note: format!("not compared: {}", needs.into()), ..Self::value(unit, value, bar) }
    }

    /// The same, for one of several figures of a row.
    #[must_use]
    pub fn case(mut self, case: impl Into<String>) -> Self {
        self.case = case.into();
        self
    }

    /// The same, with something to know about it.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

fn judge(bar: Bar, value: f64) -> Option<bool> {
    match bar {
        Bar::AtLeast(bar) => Some(value >= bar),
        Bar::Below(bar) => Some(value < bar),
        Bar::AtMost(bar) => Some(value <= bar),
        Bar::Completes => Some(true),
        Bar::Stated => None,
    }
}

/// One row and how its opens were served.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Its name.
    pub row: &'static str,
    /// What it measures.
    pub what: &'static str,
    /// Its figures.
    pub outcomes: Vec<Outcome>,
    /// What was run, exactly, in one line; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub conditions: String,
    /// How opens on our mount were served.
    pub modes: Modes,
    /// What the mount could not have.
    pub limits: Vec<String>,
}

/// `after` less `before`, without zeros.
pub fn difference(before: &Modes, after: &Modes) -> Modes {
    let mut modes = Modes::new();
    for (mode, reasons) in after {
        for (reason, count) in reasons {
            let earlier = before.get(mode).and_then(|reasons| reasons.get(reason)).copied().unwrap_or(0);
            if *count > earlier {
                modes.entry(mode.clone()).or_default().insert(reason.clone(), count - earlier);
            }
        }
    }
    modes
}

/// The table's heading.
pub fn heading() -> String {
    format!(
        "{:<24} {:>12} {:>12} {:<9} {:>7} {:>10}  {}\n{}",
        "row",
        "ours",
        "theirs",
        "of",
        "ratio",
        "bar",
        "met",
        "-".repeat(86)
    )
}

/// How files were opened: of each mode, its reasons and how often.
pub fn opens(modes: &Modes) -> Vec<String> {
    let of = |(mode, reasons): (&String, &BTreeMap<String, u64>)| {
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        format!("{mode}: {}", reasons.join(", "))
    };
    modes.iter().map(of).collect()
}

/// The lines of one row: its figures, notes and mode counts.
pub fn lines(measured: &Measured) -> String {
    let mut out = String::new();
    for outcome in &measured.outcomes {
        let name = format!("{} {}", measured.row, outcome.case);
        let met = match outcome.met {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "-",
        };
        let line = format!(
            "{:<24} {:>12} {:>12} {:<9} {:>7} {:>10}  {met}",
            name.trim_end(),
            figure(outcome.ours, outcome.unit),
            figure(outcome.theirs, outcome.unit),
            outcome.against,
            outcome.ratio.map_or_else(|| "-".into(), |ratio| format!("{ratio:.2}")),
            outcome.bar.text(),
        );
        out += line.trim_end();
        out.push('\n');
        if !outcome.note.is_empty() {
            writeln!(out, "    {}", outcome.note).expect("a String takes all");
        }
    }
    if !measured.conditions.is_empty() {
        writeln!(out, "    {}", measured.conditions).expect("a String takes all");
    }
    for opens in opens(&measured.modes) {
        writeln!(out, "    opens, {opens}").expect("a String takes all");
    }
    for limit in &measured.limits {
        writeln!(out, "    limit: {limit}").expect("a String takes all");
    }
    out
}

fn figure(value: Option<f64>, unit: &str) -> String {
    let Some(value) = value else { return "-".into() };
    let (value, prefix) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e4 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    // `M/s`, but `12 MGB/s` reads badly: rates of bytes come in GB/s already and stay below the prefixes.
    format!("{value:.decimals$} {prefix}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pairs::Medians;

    #[test]
    fn a_row_shows_its_figures_its_verdict_and_its_modes() {
        let medians = Medians { ours: 15.3, theirs: 2.9, ratio: 5.27 };
        let modes = Modes::from([("passthrough".into(), BTreeMap::from([("known size".into(), 6)]))]);
        let outcome = Outcome::against("/dev/shm", "GB/s", medians, Bar::AtLeast(4.0));
        let measured = Measured {
            row: "write-1m",
            what: "",
            outcomes: vec![outcome],
            conditions: "one pair".into(),
            modes,
            limits: Vec::new(),
        };
        assert_eq!(
            lines(&measured),
            "write-1m                    15.3 GB/s    2.90 GB/s /dev/shm     5.27       >= 4  yes\n    \
             one pair\n    \
             opens, passthrough: 6 known size\n"
        );
    }

    #[test]
    fn a_row_that_could_not_run_says_what_it_needs() {
        let outcome = Outcome::skipped(Bar::AtLeast(2.0), "give --peer mergerfs=DIR");
        assert_eq!((outcome.met, outcome.ours), (None, None));
        assert_eq!(outcome.note, "not measured: give --peer mergerfs=DIR");
    }

    #[test]
    fn mode_counts_are_differences() {
        let modes = |count| Modes::from([("daemon".into(), BTreeMap::from([("glob".into(), count)]))]);
        assert_eq!(difference(&modes(2), &modes(5)), modes(3));
        assert!(difference(&modes(2), &modes(2)).is_empty());
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(figure(Some(1_234_567.0), "/s"), "1.23 M/s");
        assert_eq!(figure(Some(11_400.0), "/s"), "11.4 k/s");
        assert_eq!(figure(None, "/s"), "-");
    }
}
