//! Which files leave memory first.
//!
//! Memory ends, the directory behind does not: what is in both may leave memory and be fetched again. The
//! choice of what leaves decides how often that happens. It is a policy over numbers and sizes: it knows keys
//! (inode numbers) and bytes, counts uses, and names the next to leave.
//!
//! Not here: what may leave (the engine is asked for each), memory itself, locks, and when to begin.

mod s3fifo;

pub use s3fifo::S3Fifo;
