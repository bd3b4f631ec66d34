//! Arms the failpoints of a mount's processes: see `engine/src/failpoint.rs`, which says what the file holds. Only a binary
//! that was built with them has any: [`crate::binary::with_failpoints`].

use anyhow::Result;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const FILE_BYTES: usize = 64;
const COUNT_BYTES: usize = 8;

/// The failpoints of one mount.
#[derive(Debug)]
pub struct Failpoints {
    file: File,
    names: PathBuf,
}

impl Failpoints {
    /// Those of `path`, with none armed, before a mount is made or after; `path` is for `AIMSS_FAILPOINTS` of `aimss mount`.
    pub fn create(path: &Path) -> Result<Failpoints> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path)?;
        file.set_len(FILE_BYTES as u64)?;
        let failpoints = Failpoints { file, names: path.with_extension("names") };
        failpoints.disarm()?;
        Ok(failpoints)
    }

    /// The process of the mount that passes the place `name` for the `count`-th time from now on is killed.
    pub fn arm(&self, name: &str, count: u64) -> Result<()> {
        self.disarm()?;
        let mut padded = [0; FILE_BYTES - COUNT_BYTES];
        padded[..name.len()].copy_from_slice(name.as_bytes());
        self.file.write_all_at(&padded, COUNT_BYTES as u64)?;
        Ok(self.file.write_all_at(&count.to_le_bytes(), 0)?)
    }

    /// Nobody is killed any more.
    pub fn disarm(&self) -> Result<()> {
        Ok(self.file.write_all_at(&[0; COUNT_BYTES], 0)?)
    }

    /// Whether what was armed is still to come.
    pub fn is_armed(&self) -> Result<bool> {
        let mut count = [0; COUNT_BYTES];
        self.file.read_exact_at(&mut count, 0)?;
        Ok(u64::from_le_bytes(count) > 0)
    }

    /// The names of all places that were passed so far.
    pub fn names(&self) -> Result<BTreeSet<String>> {
        match fs::read_to_string(&self.names) {
            Ok(names) => Ok(names.lines().map(str::to_owned).collect()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(e) => Err(e.into()),
        }
    }
}
