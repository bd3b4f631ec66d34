//! The tree in memory: inodes, directories, and what of them the backing has.
//!
//! Nothing is imported from the backing: a name is looked up there when it is first asked for, a directory listed
//! when it is first read. From then on the tree in memory is the truth, and the drain brings the backing after it.
//! What the backing has is remembered per inode as its *drained links*: the names under which the drain would find
//! it there, which differ from the names here while changes wait.

mod dir;
mod inode;
mod table;
mod written;

pub use dir::{Dir, Entry, Expected};
pub use inode::{Baseline, Epoch, FileState, Inode, InodeState, Link, OpenMode, Place, Xattrs, join_path};
pub use table::Names;
pub use written::{Behind, Moving, WriteOut, Written};
