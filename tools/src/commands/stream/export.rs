//! `aimss stream export`: a stream's bytes as a plain file, whole and durable or not at all.

use super::opened::{self, Missed, Opened};
use super::{counted, partitions, print};
use crate::{cli, escape};
use aimss_engine::stream::Micros;
use anyhow::{Result, anyhow, bail};
use std::fs::{self, File, FileTimes, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes a write(2): what storage likes.
const OUT_BYTES: usize = 1 << 20;

/// Exports as `asked`.
pub fn run(asked: &cli::stream::Export) -> Result<()> {
    if let Some(set) = partitions::find(&asked.path)? {
        let (shown, first) = (escape::path(&set.path), escape::path(&set.path.join("0")));
        bail!(
            "{shown} has partitions, whose records have no order among them; export each one: {first} and so on"
        );
    }
    let mut stream = opened::open(&asked.path)?;
    let target = escape::path(&asked.target);
    // Nobody else reads it before it has the stream's mode.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&asked.target).map_err(|error| {
            match error.kind() {
                io::ErrorKind::AlreadyExists => anyhow!("{target} is there already; give a new name"),
                _ => anyhow!("{target} can't be made ({}); give another place", crate::commands::why(&error)),
            }
        })?;
    match write(&mut stream, file, &asked.target) {
        Ok((missed, bytes)) => {
            print(&format!("{} in {target}\n", counted(bytes, "byte")))?;
            missed.check(&asked.path, &target)
        }
        Err(error) => {
            let _ = fs::remove_file(&asked.target);
            Err(anyhow!("{target} is not written and was removed: {error:#}"))
        }
    }
}

fn write(stream: &mut Opened, file: File, target: &Path) -> Result<(Missed, u64)> {
    let mut out = BufWriter::with_capacity(OUT_BYTES, file);
    let (mut bytes, mut last) = (0, None);
    let (from, end) = (stream.log.first().0, stream.log.end().0);
    let missed = stream.read(from, end, |_, time, record| {
        (bytes, last) = (bytes + record.len() as u64, Some(time));
        out.write_all(record)
    })?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    let name = fs::metadata(&stream.path)?;
    let time = match last {
        Some(Micros(micros)) => UNIX_EPOCH + Duration::from_micros(micros),
        None => name.modified()?,
    };
    file.set_permissions(fs::Permissions::from_mode(name.mode() & 0o777))?;
    file.set_times(FileTimes::new().set_accessed(time).set_modified(time))?;
    file.sync_all()?;
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok((missed, bytes))
}
