//! Word count in two stages over streams in memory, with a shuffle between them:
//!
//!     cargo run --release -p aimss-engine --example streaming
//!
//! 1. Two sources write lines of text to `lines`.
//! 2. Two mappers share the group `mappers` of it; each writes the words that it finds to a stream of its own.
//! 3. The shuffle waits until both are finished, and brings each word to the partition of its hash.
//! 4. A reducer a partition counts. Since equal words are in one partition, counts need not be merged.
//!
//! All but the shuffle's own appends are without a copy: mappers and reducers look at the records where they are.

use aimss_engine::stream::dataflow::Result;
use aimss_engine::stream::{Dataflow, Settings};
use std::collections::HashMap;
use std::time::{Duration, Instant};

const LINES_PER_SOURCE: usize = 500_000;
const PARTITIONS: [&str; 4] = ["part-0", "part-1", "part-2", "part-3"];
const WORDS: [&str; 16] = [
    "the", "of", "and", "stream", "record", "to", "in", "log", "is", "offset", "segment", "a", "group",
    "that", "memory", "shuffle",
];

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let (directory, arena) = (tempfile::tempdir_in("/var/tmp")?, tempfile::tempdir_in("/dev/shm")?);
    println!("logs in {}, memory in {}", directory.path().display(), arena.path().display());
    let dataflow = Dataflow::open(directory.path(), arena.path())?;
    for name in ["lines", "words-0", "words-1"].iter().chain(&PARTITIONS) {
        dataflow.create_stream(name, &Settings::default())?;
    }
    let begin = Instant::now();
    let counts = std::thread::scope(|scope| {
        let dataflow = &dataflow;
        let reducers = PARTITIONS.map(|part| scope.spawn(move || reduce(dataflow, part)));
        let shuffle = scope.spawn(|| {
            let shuffled =
                dataflow.shuffle(&["words-0", "words-1"], |word| word.trim_ascii_end(), &PARTITIONS);
            (shuffled, Instant::now())
        });
        let mappers = ["words-0", "words-1"].map(|words| scope.spawn(move || map(dataflow, words)));
        let sources = [1, 2].map(|seed| scope.spawn(move || write_lines(dataflow, seed)));
        for source in sources {
            source.join().expect("no panic")?;
        }
        dataflow.finish("lines")?;
        say("lines written", LINES_PER_SOURCE as u64 * 2, begin.elapsed());
        let mapped = mappers.map(|mapper| mapper.join().expect("no panic"));
        for (i, words) in mapped.into_iter().enumerate() {
            println!("    mapper {i} got {} of the lines", words?);
        }
        let mapped = begin.elapsed();
        let (shuffled, done) = shuffle.join().expect("no panic");
        let shuffled = shuffled?;
        say("words shuffled", shuffled.records, done.duration_since(begin).saturating_sub(mapped));
        reducers.into_iter().map(|reducer| reducer.join().expect("no panic")).collect::<Result<Vec<_>>>()
    })?;
    let mut all: Vec<(&String, &u64, usize)> = Vec::new();
    for (part, counts) in counts.iter().enumerate() {
        all.extend(counts.iter().map(|(word, count)| (word, count, part)));
    }
    all.sort_by_key(|(word, count, _)| (std::cmp::Reverse(**count), *word));
    for (word, count, part) in all.iter().take(5) {
        println!("    {count:>9} {word:<8} in {}", PARTITIONS[*part]);
    }
    say("words counted, in all", all.iter().map(|(_, count, _)| **count).sum(), begin.elapsed());
    for name in dataflow.streams()? {
        dataflow.destroy(&name)?;
    }
    Ok(dataflow.close()?)
}

/// Lines of some words, a few hundred at a time.
fn write_lines(dataflow: &Dataflow, seed: u64) -> Result<()> {
    let mut writer = dataflow.write_to("lines")?;
    let (mut state, mut lines) = (seed, Vec::new());
    for i in 1..=LINES_PER_SOURCE {
        for _ in 0..8 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // The smaller of two, so that some words are frequent.
            let at = (state >> 33) % 16;
            lines.extend_from_slice(WORDS[at.min(state >> 60) as usize].as_bytes());
            lines.push(b' ');
        }
        lines.push(b'\n');
        if i % 500 == 0 {
            writer.append(&lines)?;
            lines.clear();
        }
    }
    writer.append(if lines.is_empty() { b"\n" } else { &lines })
}

/// Words of the lines that this mapper gets, one a record; returns how many lines that were.
fn map(dataflow: &Dataflow, to: &str) -> Result<u64> {
    let mut reader = dataflow.read_from("lines", "mappers")?;
    let mut writer = dataflow.write_to(to)?;
    let (mut lines, mut words) = (0, Vec::new());
    while let Some(batch) = reader.read()? {
        lines += batch.len() as u64;
        words.clear();
        for line in batch {
            for word in line.bytes.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()) {
                words.extend_from_slice(word);
                words.push(b'\n');
            }
        }
        if !words.is_empty() {
            writer.append(&words)?;
        }
    }
    drop(writer);
    dataflow.finish(to)?;
    Ok(lines)
}

/// How often each word of a partition is there.
fn reduce(dataflow: &Dataflow, part: &str) -> Result<HashMap<String, u64>> {
    let mut reader = dataflow.read_from(part, "reducers")?;
    let mut counts: HashMap<Vec<u8>, u64> = HashMap::new();
    while let Some(batch) = reader.read()? {
        for record in batch {
            let word = record.bytes.trim_ascii_end();
            match counts.get_mut(word) {
                Some(count) => *count += 1,
                None => drop(counts.insert(word.to_vec(), 1)),
            }
        }
    }
    Ok(counts.into_iter().map(|(word, count)| (String::from_utf8_lossy(&word).into_owned(), count)).collect())
}

fn say(what: &str, records: u64, took: Duration) {
    let rate = records as f64 / took.as_secs_f64().max(1e-9) / 1e6;
    println!("{records:>9} {what}: {:.2} s, {rate:.1} million a second", took.as_secs_f64());
}
