//! A checkpoint as training programs write them: shards, optimizer files and an index, each under a temporary
//! name and then renamed; with sums that `sha256sum -c` can verify anywhere.
//!
//! The content is pseudo-random, so that nothing on the way can compress it, and different in each file: one
//! random block, started at another place for each file. Making it costs nothing while a write is timed.

use crate::escape;
use anyhow::{Context as _, Result, bail, ensure};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SHARDS: u64 = 16;
const OPTIMIZER_FILES: u64 = 8;
/// Blocks of the plain writer and reader: what `torch.save` and `cp` use or more.
const BLOCK: usize = 1 << 20;
const SUMS: &str = "SHA256SUMS";

/// A checkpoint, and where its source is.
pub struct Checkpoint {
    source: PathBuf,
    names: Vec<String>,
    file_bytes: u64,
    index: String,
}

impl Checkpoint {
    /// Makes the source of about `bytes` in the empty directory `source`, and its sums.
    pub fn make(source: &Path, bytes: u64) -> Result<Self> {
        let shards = (1..=SHARDS).map(|number| format!("model-{number:05}-of-{SHARDS:05}.safetensors"));
        let optimizer = (0..OPTIMIZER_FILES).map(|rank| format!("optimizer-rank-{rank}.pt"));
        let names: Vec<String> = shards.chain(optimizer).collect();
        let file_bytes = bytes / (SHARDS + OPTIMIZER_FILES);
        let index = index(&names[..SHARDS as usize], file_bytes * SHARDS);
        let checkpoint = Self { source: source.to_owned(), names, file_bytes, index };
        let content = random(file_bytes as usize);
        checkpoint.write(source, &content, false)?;
        checkpoint.sum()?;
        Ok(checkpoint)
    }

    /// All bytes of it.
    pub fn bytes(&self) -> u64 {
        self.names.len() as u64 * self.file_bytes + self.index.len() as u64
    }

    /// The random block all files are made of.
    pub fn content(&self) -> Result<Vec<u8>> {
        // The first file starts at 0.
        Ok(fs::read(self.source.join(&self.names[0]))?)
    }

    /// Writes it to `dir`: each file under a temporary name, renamed when whole; with `sync`, durable.
    pub fn write(&self, dir: &Path, content: &[u8], sync: bool) -> Result<()> {
        fs::create_dir_all(dir)?;
        for (number, name) in self.names.iter().enumerate() {
            let start = content.len() / self.names.len() * number;
            write_file(dir, name, [&content[start..], &content[..start]], sync)?;
        }
        write_file(dir, "model.safetensors.index.json", [self.index.as_bytes(), b""], sync)?;
        if sync {
            File::open(dir)?.sync_all()?;
        }
        Ok(())
    }

    /// `cp -r` of the source to `dir`, and with `sync`, `sync` of what it wrote.
    pub fn copy(&self, dir: &Path, sync: bool) -> Result<()> {
        run(Command::new("cp").arg("-r").arg(&self.source).arg(dir))?;
        if sync {
            run(Command::new("sync").args(self.names.iter().map(|name| dir.join(name))).arg(dir))?;
        }
        Ok(())
    }

    /// Reads all files in `dir`.
    pub fn read(&self, dir: &Path) -> Result<()> {
        let mut block = vec![0; BLOCK];
        for name in &self.names {
            let path = dir.join(name);
            let mut file = File::open(&path)?;
            let mut total = 0;
            loop {
                match file.read(&mut block)? as u64 {
                    0 => break,
                    got => total += got,
                }
            }
            ensure!(
                total == self.file_bytes,
                "{} has {total} bytes instead of {}",
                escape::path(&path),
                self.file_bytes
            );
        }
        Ok(())
    }

    /// Verifies the files in `dir` with `sha256sum -c` and the source's sums.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        let sums = self.source.join(SUMS);
        run(Command::new("sha256sum").args(["--check", "--strict", "--quiet"]).arg(sums).current_dir(dir))
            .with_context(|| format!("the files in {} are not those that were written", escape::path(dir)))
    }

    fn sum(&self) -> Result<()> {
        let output = Command::new("sha256sum")
            .args(&self.names)
            .arg("model.safetensors.index.json")
            .current_dir(&self.source)
            .stderr(Stdio::inherit())
            .output()
            .context("sha256sum can't be run (it is in the package coreutils)")?;
        ensure!(output.status.success(), "sha256sum failed on the source");
        Ok(fs::write(self.source.join(SUMS), output.stdout)?)
    }
}

fn write_file(dir: &Path, name: &str, parts: [&[u8]; 2], sync: bool) -> Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let mut file = File::create(&temporary)?;
    for part in parts {
        for block in part.chunks(BLOCK) {
            file.write_all(block)?;
        }
    }
    if sync {
        file.sync_all()?;
    }
    drop(file);
    Ok(fs::rename(&temporary, dir.join(name))?)
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    match command.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("{program} failed ({status})"),
        Err(error) => bail!("{program} can't be run ({error}); install coreutils"),
    }
}

/// The index of a sharded model: which tensor is in which shard.
fn index(shards: &[String], total: u64) -> String {
    let mut text = format!("{{\n  \"metadata\": {{\"total_size\": {total}}},\n  \"weight_map\": {{\n");
    for (layer, shard) in shards.iter().enumerate() {
        let comma = if layer + 1 < shards.len() { "," } else { "" };
        writeln!(text, "    \"model.layers.{layer}.weight\": \"{shard}\"{comma}")
            .expect("a String takes all");
    }
    text + "  }\n}\n"
}

/// `length` pseudo-random bytes, the same each time (xorshift64, Marsaglia 2003).
fn random(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_and_copied_verifies_and_a_changed_byte_does_not() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let source = dir.path().join("source");
        fs::create_dir(&source).expect("it is ours");
        let checkpoint = Checkpoint::make(&source, 1 << 20).expect("there is room");
        let (written, copied) = (dir.path().join("written"), dir.path().join("copied"));
        let content = checkpoint.content().expect("it was made");
        checkpoint.write(&written, &content, true).expect("there is room");
        checkpoint.copy(&copied, true).expect("there is room");
        checkpoint.read(&written).expect("all are whole");
        checkpoint.verify(&written).expect("the same bytes");
        checkpoint.verify(&copied).expect("the same bytes");
        fs::write(written.join("optimizer-rank-0.pt"), b"other").expect("it is ours");
        assert!(checkpoint.verify(&written).is_err());
        assert!(checkpoint.read(&written).is_err());
    }

    #[test]
    fn files_differ_from_each_other() {
        let content = random(4096);
        assert_ne!(content[..2048], content[2048..]);
    }

    #[test]
    fn the_index_is_json() {
        let text = index(&["a".into(), "b".into()], 7);
        let value: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        assert_eq!(value["weight_map"]["model.layers.1.weight"], "b");
    }
}
