//! Reading a journal while another daemon writes it, so that little is left to be read when that one dies.

use super::lookups::Lookups;
use super::record::HEAD_BYTES;
use super::replay::Recovered;
use super::{Record, References};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Read at once, unless a record is longer.
const READ_BYTES: usize = 256 << 10;

/// What the journal at a path says, as far as it was read; the kernel's references beside it.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: File,
    lookups: Lookups,
    /// What was read.
    pub left: Recovered,
    /// What the kernel holds.
    pub references: References,
}

/// Why a journal can't be followed any more: it has to be read from its start.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// It was rewritten twice in between, or from memory alone.
    #[error("the journal was rewritten, and does not follow from what was read of it")]
    Rewritten,
    /// It can't be read.
    #[error("the journal can't be read: {0}")]
    Io(#[from] io::Error),
}

impl Follower {
    /// Reads the journal at `path` to its end.
    pub fn begin(path: &Path) -> Result<Follower, Lost> {
        let lookups = Lookups::beside_another(&super::beside(path))?;
        let (left, references) = (Recovered::default(), References::default());
        let mut follower = Follower { path: path.into(), file: File::open(path)?, lookups, left, references };
        follower.follow()?;
        Ok(follower)
    }

    /// Reads what was added.
    pub fn follow(&mut self) -> Result<(), Lost> {
        loop {
            self.read_on()?;
            let current = File::open(&self.path)?;
            if current.metadata()?.ino() == self.file.metadata()?.ino() {
                break;
            }
            // Nothing is added to one that was replaced: this is all of it.
            self.read_on()?;
            self.file = current;
            let mut rewritten = Vec::new();
            (&self.file).read_to_end(&mut rewritten)?;
            let (generation, whole, end) = Record::find_rewritten(&rewritten).ok_or(Lost::Rewritten)?;
            if !whole || generation != self.left.generation + 1 {
                return Err(Lost::Rewritten);
            }
            (self.left.generation, self.left.bytes) = (generation, end as u64);
        }
        self.lookups.measure()?;
        self.left.touched.references.extend(self.references.look(&self.lookups));
        Ok(())
    }

    fn read_on(&mut self) -> io::Result<()> {
        let mut bytes = vec![0; READ_BYTES];
        loop {
            let read = self.file.read_at(&mut bytes, self.left.bytes)?;
            let begin = self.left.bytes;
            self.left.read(&bytes[..read]);
            if self.left.bytes > begin {
                continue;
            }
            match bytes.first_chunk() {
                // More of a record may be there than was read.
                Some(&length)
                    if read == bytes.len() && HEAD_BYTES + u32::from_le_bytes(length) as usize > read =>
                {
                    bytes.resize(bytes.len() * 2, 0);
                }
                _ => return Ok(()),
            }
        }
    }
}
