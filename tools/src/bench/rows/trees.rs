//! Rows about a source tree, unpacked by `cp -a` and worked on by ordinary programs.
//!
//! The tree is the user's (`--tree`) or a made one in the proportions of a large C or Rust project:
//! directories of a dozen files, most of a few KiB, some of a hundred.

use super::names::against_mergerfs;
use super::per_second;
use crate::bench::report::Outcome;
use crate::bench::{Context, timed, work};
use crate::scratch::Mounted;
use anyhow::Result;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

const DIRECTORIES: u64 = 500;
const FILES_A_DIRECTORY: u64 = 12;
/// Bytes of the made tree's files, in turn.
const FILE_BYTES: [usize; 6] = [700, 3_000, 5_500, 9_000, 16_000, 90_000];

/// `find`: `find TREE -size +1G`, which looks at each file.
pub fn find(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let source = source(context)?;
    let count = entries(&source)?;
    against_mergerfs(context, mount, 2.0, |base| {
        let tree = unpack(&source, base)?;
        let arguments = [tree.as_os_str(), OsStr::new("-size"), OsStr::new("+1G")];
        let time = timed(0, || work::program("find", &arguments))?;
        fs::remove_dir_all(&tree)?;
        Ok(per_second(count, time))
    })
}

/// `rm-rf`: `rm -rf TREE`.
pub fn remove(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let source = source(context)?;
    let count = entries(&source)?;
    against_mergerfs(context, mount, 2.0, |base| {
        let tree = unpack(&source, base)?;
        let time = timed(0, || work::program("rm", &[OsStr::new("-rf"), tree.as_os_str()]))?;
        Ok(per_second(count, time))
    })
}

fn unpack(source: &Path, base: &Path) -> Result<PathBuf> {
    let tree = base.join("tree");
    work::program("cp", &[OsStr::new("-a"), source.as_os_str(), tree.as_os_str()])?;
    Ok(tree)
}

fn source(context: &Context) -> Result<PathBuf> {
    if let Some(tree) = &context.tree {
        return Ok(tree.clone());
    }
    let tree = context.disk("tree")?;
    let content = work::buffer(FILE_BYTES[FILE_BYTES.len() - 1]);
    let mut sizes = FILE_BYTES.iter().cycle();
    for directory in 0..context.scaled(DIRECTORIES) {
        // Three levels, as `fs/ext4/inode.c` in a kernel.
        let dir = tree.join(format!("group-{}", directory / 50)).join(format!("part-{}", directory / 5));
        let dir = dir.join(format!("module-{directory}"));
        fs::create_dir_all(&dir)?;
        for file in 0..FILES_A_DIRECTORY {
            let bytes = sizes.next().copied().unwrap_or(0);
            fs::write(dir.join(format!("source-{file}.c")), &content[..bytes])?;
        }
    }
    Ok(tree)
}

/// Files and directories in `tree`, itself included.
fn entries(tree: &Path) -> Result<u64> {
    let mut count = 1;
    for entry in fs::read_dir(tree)? {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() { entries(&entry.path())? } else { 1 };
    }
    Ok(count)
}
