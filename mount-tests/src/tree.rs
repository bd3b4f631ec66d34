//! A tree as a program sees it, in a form that can be compared.
//!
//! Everything that must survive the way to the backing: names, types, contents, modes, owners, modification times
//! to the nanosecond, device numbers, link targets, extended attributes (POSIX ACLs are two of them), and which
//! names are links to one file. Contents are kept as the hash of the blocks that are not all zero, so that a file of
//! 5 GiB with one written page is read in a moment, and a hole equals zeros.
//!
//! Not compared: allocation, access and change times, inode numbers, and `.aimss` at the top, which is ours.

use anyhow::{Context as _, Result};
use rustix::fs::{SeekFrom, lgetxattr, llistxattr};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use xxhash_rust::xxh3::Xxh3;

const BLOCK_BYTES: u64 = 64 << 10;
/// What Linux allows for a list of names and for a value.
const XATTR_BYTES_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug, PartialEq, Eq)]
pub struct Tree(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first name of the same file.
    first_name: PathBuf,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File { size: u64, content: u64 },
    Symlink(PathBuf),
    Device(u64),
    Fifo,
    Socket,
}

impl Tree {
    /// Reads all below `root`, and `root` itself.
    pub fn read(root: &Path) -> Result<Self> {
        let mut names = vec![PathBuf::new()];
        let mut done = 0;
        while done < names.len() {
            let name = names[done].clone();
            let path = if done == 0 { root.to_owned() } else { root.join(&name) };
            done += 1;
            if !fs::symlink_metadata(&path)?.is_dir() {
                continue;
            }
            for entry in fs::read_dir(&path).with_context(|| format!("{} can't be read", path.display()))? {
                names.push(name.join(entry?.file_name()));
            }
        }
        names.retain(|name| !name.starts_with(".aimss"));
        // First names must not depend on the order of directories.
        names.sort();
        let mut first_names = HashMap::new();
        let mut tree = BTreeMap::new();
        for name in names {
            let path = if name.as_os_str().is_empty() { root.to_owned() } else { root.join(&name) };
            let entry = Entry::read(&path, &name, &mut first_names);
            tree.insert(name, entry.with_context(|| format!("{} can't be read", path.display()))?);
        }
        Ok(Self(tree))
    }

    /// Without its root, whose time of modification changes when a mount makes `.aimss` there.
    #[must_use]
    pub fn below_the_root(mut self) -> Self {
        self.0.remove(Path::new(""));
        self
    }

    /// How many entries there are below its root.
    pub fn count(&self) -> usize {
        self.0.keys().filter(|name| !name.as_os_str().is_empty()).count()
    }

    /// Fails with each difference, unless there is none.
    pub fn assert_same(&self, other: &Self, ours: &str, theirs: &str) {
        const SHOWN_MAX: usize = 20;
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let differences: Vec<String> = names
            .filter(|name| self.0.get(*name) != other.0.get(*name))
            .map(|name| {
                let (a, b) = (self.0.get(name), other.0.get(name));
                format!("{}:\n  {ours}: {a:?}\n  {theirs}: {b:?}", name.display())
            })
            .collect();
        let count = differences.len();
        let shown = differences[..count.min(SHOWN_MAX)].join("\n");
        assert!(differences.is_empty(), "{count} differences between {ours} and {theirs}:\n{shown}");
    }
}

impl Entry {
    fn read(path: &Path, name: &Path, first_names: &mut HashMap<u64, PathBuf>) -> Result<Self> {
        let found = fs::symlink_metadata(path)?;
        let kind = found.file_type();
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_file() {
            Kind::File { size: found.len(), content: content(&File::open(path)?, found.len())? }
        } else if kind.is_symlink() {
            Kind::Symlink(fs::read_link(path)?)
        } else if kind.is_fifo() {
            Kind::Fifo
        } else if kind.is_socket() {
            Kind::Socket
        } else {
            Kind::Device(found.rdev())
        };
        Ok(Self {
            kind,
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            modified: (found.mtime(), found.mtime_nsec()),
            xattrs: xattrs(path)?,
            first_name: first_names.entry(found.ino()).or_insert_with(|| name.to_owned()).clone(),
        })
    }
}

/// A hash of the blocks that are not all zero and where they are.
fn content(file: &File, size: u64) -> Result<u64> {
    let mut hash = Xxh3::new();
    let mut block = vec![0; BLOCK_BYTES as usize];
    let mut offset = 0;
    while offset < size {
        let data = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        offset = data / BLOCK_BYTES * BLOCK_BYTES;
        let wanted = BLOCK_BYTES.min(size - offset) as usize;
        file.read_exact_at(&mut block[..wanted], offset)?;
        if block[..wanted].iter().any(|byte| *byte != 0) {
            hash.update(&offset.to_le_bytes());
            hash.update(&block[..wanted]);
        }
        offset += BLOCK_BYTES;
    }
    Ok(hash.digest())
}

/// All extended attributes of a path, not following a symbolic link.
pub fn xattrs(path: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut list = vec![0; XATTR_BYTES_MAX];
    let length = llistxattr(path, &mut list[..])?;
    list.truncate(length);
    let mut value = vec![0; XATTR_BYTES_MAX];
    list.split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let length = lgetxattr(path, name, &mut value[..])?;
            Ok((name.to_vec(), value[..length].to_vec()))
        })
        .collect()
}

/// The names in a directory, sorted.
pub fn names(dir: &Path) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.push(entry?.file_name().into_vec());
    }
    names.sort();
    Ok(names)
}

/// A path of bytes.
pub fn path(name: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(name))
}
