//! How `aimss status` and its siblings talk to a daemon: lines of JSON over a Unix socket in the state directory.

pub mod client;
pub mod partitions;
pub mod path;
pub mod protocol;
pub mod server;
pub mod status;
pub mod stream;
