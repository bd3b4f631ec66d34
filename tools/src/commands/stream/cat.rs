//! `aimss stream cat`: records to stdout, as they are or one JSON object each.

use super::{base64, opened, options, partitions};
use crate::commands::Usage;
use crate::{cli, timestamp};
use aimss_engine::stream::{Micros, Offset};
use aimss_fs::control::stream::SeekTo;
use anyhow::Result;
use serde::Serialize;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Bytes kept back before a write(2): a pipe's usual size.
const OUT_BYTES: usize = 64 << 10;

/// A record in JSON.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    offset: u64,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Writes what was `asked` for.
pub fn run(asked: &cli::stream::Cat) -> Result<()> {
    let from = options::seek_to("--from", &asked.from)?;
    let Some(set) = partitions::find(&asked.path)? else { return write(asked, from, &asked.path) };
    if asked.to.is_some() || matches!(from, SeekTo::Offset(_)) {
        return Err(Usage(format!(
            "offsets count the records of one partition; give one, such as {}",
            one(&set)
        ))
        .into());
    }
    set.each(|path| write(asked, from, path))
}

/// The path of a partition, for a sentence.
fn one(set: &partitions::Set) -> String {
    crate::escape::path(&set.path.join("0"))
}

fn write(asked: &cli::stream::Cat, from: SeekTo, path: &Path) -> Result<()> {
    let mut stream = opened::open(path)?;
    let partition = stream.info.partition.as_ref().map(|partition| partition.number);
    let from = opened::offset(&stream.log, from)?;
    let end = asked.to.map_or(stream.log.end().0, Offset).min(stream.log.end().0);
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let written = stream.read(from, end, |offset, time, bytes| {
        if asked.json { write_json(&mut out, partition, (offset, time), bytes) } else { out.write_all(bytes) }
    });
    let flushed = out.flush();
    // What is left in the buffer has no reader either: dropping it would try once more.
    let _ = out.into_parts();
    let missed = match (written, flushed) {
        (Err(error), _) if error.downcast_ref().is_some_and(is_broken_pipe) => return Ok(()),
        (_, Err(error)) if is_broken_pipe(&error) => return Ok(()),
        (written, flushed) => {
            flushed?;
            written?
        }
    };
    missed.check(path, "the output")
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn write_json(
    out: &mut impl Write,
    partition: Option<u32>,
    (offset, time): (Offset, Micros),
    bytes: &[u8],
) -> io::Result<()> {
    let text = std::str::from_utf8(bytes).ok();
    let base64 = text.is_none().then(|| base64::encode(bytes));
    let shown = Shown { partition, offset: offset.0, time: timestamp::text(time), text, base64 };
    serde_json::to_writer(&mut *out, &shown)?;
    out.write_all(b"\n")
}
