//! What somebody else on the machine may not do to a mount, by whatever way: docs/operations.md ("Security") lists
//! who may reach what, each line with its test here or elsewhere.
//!
//! 1. `others`: another user's ways to files, to the state directory and to the daemon.
//! 2. `backing`: a backing that somebody else prepared, or changes while it is mounted.
//! 3. `names`: names that would drive a terminal or fake a line.
//! 4. `rights`: what a mount allows, and mounts of users other than root.

mod backing;
mod names;
mod others;
mod rights;
