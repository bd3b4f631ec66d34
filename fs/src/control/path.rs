//! Paths in JSON: text, or, where they are no UTF-8, the list of their bytes. `serde` alone refuses those, and one
//! file of such a name would then be an answer that can't be given.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(untagged)]
enum Read {
    Text(String),
    Bytes(Vec<u8>),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written<'p> {
    Text(&'p str),
    Bytes(&'p [u8]),
}

impl From<Read> for PathBuf {
    fn from(read: Read) -> PathBuf {
        match read {
            Read::Text(text) => text.into(),
            Read::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

fn written(path: &Path) -> Written<'_> {
    path.to_str().map_or(Written::Bytes(path.as_os_str().as_bytes()), Written::Text)
}

/// For `#[serde(with)]` on a path.
pub fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    written(path).serialize(to)
}

/// For `#[serde(with)]` on a path.
pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<PathBuf, D::Error> {
    Read::deserialize(from).map(PathBuf::from)
}

/// The same of a list of paths.
pub mod list {
    use super::{Deserialize, Deserializer, PathBuf, Read, Serializer, written};

    /// For `#[serde(with)]` on a list of paths.
    pub fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| written(path)))
    }

    /// For `#[serde(with)]` on a list of paths.
    pub fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
        Ok(Vec::<Read>::deserialize(from)?.into_iter().map(PathBuf::from).collect())
    }
}
