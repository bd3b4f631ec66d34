//! `aimss stream cat`: records to stdout, as they are or one JSON object each.

use super::{base64, opened, options};
use crate::{cli, timestamp};
use aimss_engine::stream::{Micros, Offset};
use anyhow::Result;
use serde::Serialize;
use std::io::{self, BufWriter, Write};

/// Bytes kept back before a write(2): a pipe's usual size.
const OUT_BYTES: usize = 64 << 10;

/// A record in JSON.
#[derive(Serialize)]
struct Shown<'a> {
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
    let mut stream = opened::open(&asked.path)?;
    let from = opened::offset(&stream.log, from)?;
    let end = asked.to.map_or(stream.log.end().0, Offset).min(stream.log.end().0);
    let mut out = BufWriter::with_capacity(OUT_BYTES, io::stdout().lock());
    let written = stream.read(from, end, |offset, time, bytes| {
        if asked.json { write_json(&mut out, offset, time, bytes) } else { out.write_all(bytes) }
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
    missed.check(&asked.path, "the output")
}

fn is_broken_pipe(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}

fn write_json(out: &mut impl Write, offset: Offset, time: Micros, bytes: &[u8]) -> io::Result<()> {
    let text = std::str::from_utf8(bytes).ok();
    let base64 = text.is_none().then(|| base64::encode(bytes));
    let shown = Shown { offset: offset.0, time: timestamp::text(time), text, base64 };
    serde_json::to_writer(&mut *out, &shown)?;
    out.write_all(b"\n")
}
