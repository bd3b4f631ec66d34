//! Operators: each record of an input is in the partition of its key, once.

use super::Load;
use crate::{binary, wait_until};
use anyhow::{Context as _, Result, ensure};
use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::time::Duration;

/// Batches that are appended before the outputs are looked at.
const BATCHES: u64 = 400;
/// Lines of a batch.
const LINES: u64 = 50;
const PARTITIONS: u32 = 4;
/// For what an operator has to take, whatever dies meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);

fn aimss(arguments: &[&str], paths: &[&Path]) -> Result<()> {
    let said = binary::aimss().args(arguments).args(paths).output().context("the binary can be run")?;
    ensure!(
        said.status.success(),
        "aimss {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&said.stderr).trim_end()
    );
    Ok(())
}

/// Appends lines, each with a number and a key, and looks where they come out: shuffled by key, and filtered.
pub(super) fn shuffled_and_filtered(dir: &Path, load: &Load) -> Result<()> {
    let name = dir.file_name().and_then(|name| name.to_str()).context("a directory with a plain name")?;
    let (shuffle, filter) = (format!("{name}.shuffle"), format!("{name}.filter"));
    let (input, shuffled, filtered) = (dir.join("in.stream"), dir.join("by-key"), dir.join("even"));
    load.again_and_again(|| {
        let mut file = OpenOptions::new().append(true).create_new(true).open(&input)?;
        let partitions = PARTITIONS.to_string();
        let by_key =
            ["op", "create", "shuffle", "--by", "csv:1", "--partitions", &partitions, "--name", &shuffle];
        aimss(&[&by_key[..], &["--into"]].concat(), &[&shuffled, &input])?;
        let even =
            ["op", "create", "filter", "--where", "text.contains(\",even,\")", "--name", &filter, "--into"];
        aimss(&even, &[&filtered, &input])?;
        let mut lines = 0;
        load.each_below(BATCHES, |_| {
            let mut text = String::new();
            for number in lines..lines + LINES {
                let parity = if number % 2 == 0 { "even" } else { "odd" };
                text.push_str(&format!(
                    "{number},key-{},{parity},{}\n",
                    number % 97,
                    "x".repeat(number as usize % 60)
                ));
            }
            lines += LINES;
            file.write_all(text.as_bytes()).context("append")?;
            // About as fast as such a stream is in the field.
            std::thread::sleep(Duration::from_millis(5));
            Ok(())
        })?;
        drop(file);
        look_at_shuffled(&input, &shuffled, lines)?;
        look_at_filtered(&input, &filtered)?;
        for operator in [&shuffle, &filter] {
            aimss(&["op", "rm", operator], &[])?;
        }
        fs::remove_file(&input)?;
        fs::remove_file(&filtered)?;
        fs::remove_dir_all(&shuffled)?;
        Ok(())
    })
}

fn bytes_of(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

fn number_of(line: &str) -> Result<u64> {
    line.split(',')
        .next()
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("no line of ours: {line}"))
}

fn look_at_shuffled(input: &Path, shuffled: &Path, lines: u64) -> Result<()> {
    let all = bytes_of(input);
    let partitions: Vec<_> = (0..PARTITIONS).map(|number| shuffled.join(number.to_string())).collect();
    wait_until("all records are shuffled", PATIENCE, || {
        partitions.iter().map(|partition| bytes_of(partition)).sum::<u64>() >= all
    });
    let mut of_key = HashMap::new();
    let mut seen = vec![false; lines as usize];
    for (number, partition) in partitions.iter().enumerate() {
        let mut last = None;
        for line in text_of(partition)?.lines() {
            let at = number_of(line)?;
            ensure!(last < Some(at), "{line} of partition {number} came behind {last:?}");
            last = Some(at);
            let twice = seen.get_mut(at as usize).map(|seen| std::mem::replace(seen, true));
            ensure!(twice == Some(false), "{line} is in the partitions twice, or was never appended");
            let key = line.split(',').nth(1).unwrap_or_default().to_owned();
            let of = *of_key.entry(key).or_insert(number);
            ensure!(of == number, "{line} is in partition {number}, its key in {of}");
        }
    }
    let missing = seen.iter().filter(|seen| !**seen).count();
    ensure!(missing == 0, "{missing} of {lines} records are in no partition");
    Ok(())
}

fn look_at_filtered(input: &Path, filtered: &Path) -> Result<()> {
    let expected: String = text_of(input)?.lines().filter(|line| line.contains(",even,")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    wait_until("all records are filtered", PATIENCE, || bytes_of(filtered) >= expected.len() as u64);
    ensure!(
        text_of(filtered)? == expected,
        "{} is not what a filter makes of {}",
        filtered.display(),
        input.display()
    );
    Ok(())
}
