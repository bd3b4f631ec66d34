//! The file of results: a line of JSON a round. A campaign that is killed while it writes one leaves a line without an end,
//! which counts as not written: it is passed over, and cut off before the next one is appended.

use crate::blows::Dealt;
use crate::watch::Sample;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

/// What came of a round: a line of the results.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The round's.
    pub seed: u64,
    /// Who served the files.
    pub mode: String,
    /// A sentence, if it failed.
    pub error: Option<String>,
    /// Its blows.
    pub dealt: Dealt,
    /// Steps of each work.
    pub steps: BTreeMap<String, u64>,
    /// The longest step of each, in milliseconds.
    pub longest_ms: BTreeMap<String, u64>,
    /// After each blow.
    pub samples: Vec<Sample>,
    /// At each rest.
    #[serde(default)]
    pub at_rest: Vec<Sample>,
    /// How long it took.
    pub seconds: f64,
}

/// All rounds of the file that are whole.
pub fn read(results: &Path) -> Result<Vec<Outcome>> {
    let bytes = match fs::read(results) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("{} can't be read", results.display()))?,
    };
    let line =
        |line| serde_json::from_slice(line).with_context(|| format!("{}: no outcome", results.display()));
    bytes[..whole(&bytes)].split_inclusive(|byte| *byte == b'\n').map(line).collect()
}

/// Adds one.
pub fn append(results: &Path, outcome: &Outcome) -> Result<()> {
    let mut file = File::options().create(true).read(true).append(true).open(results)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    file.set_len(whole(&bytes) as u64)?;
    Ok(file.write_all(format!("{}\n", serde_json::to_string(outcome)?).as_bytes())?)
}

/// How many of the bytes are lines with an end.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_line_without_an_end_is_passed_over_and_cut_off() {
        let dir = tempfile::tempdir().expect("a directory");
        let results = dir.path().join("results.jsonl");
        let append = |seed| {
            append(&results, &Outcome { seed, ..Outcome::default() }).expect("it is written");
            fs::read(&results).expect("it is there")
        };
        let seeds = || read(&results).map(|all| all.iter().map(|one| one.seed).collect::<Vec<u64>>());
        assert!(seeds().expect("no file is no round").is_empty());
        let first = append(1);
        let second = append(2);
        for bytes in first.len()..second.len() {
            fs::write(&results, &second[..bytes]).expect("it is torn");
            assert_eq!(seeds().expect("one is whole"), [1_u64]);
            append(3);
            assert_eq!(seeds().expect("two are whole"), [1_u64, 3]);
        }
        fs::write(&results, b"{\n").expect("it is garbled");
        assert!(seeds().expect_err("a line that has its end must be one").to_string().contains("no outcome"));
    }
}
