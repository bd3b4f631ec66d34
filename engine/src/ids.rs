//! Numbers and names that must not be confused.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// An inode number, stable while the mount lives. 1 is the root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ino(pub u64);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

/// Place of a change in the operation log; grows by one with each change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Seq(pub u64);

/// One component of a path: any bytes but `/` and NUL, at most 255 of them.
pub type Name = Arc<[u8]>;

/// Longest name, as on Linux's local file systems.
pub const NAME_BYTES_MAX: usize = 255;
