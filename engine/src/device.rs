//! A place beside host memory that can hold extents on their way to the backing: the memory of a GPU.
//!
//! The trait's home; the tier that uses it comes with its own issue. No method may panic, and a device that fails
//! costs speed, never data.

use std::io;

/// Memory that extents can be copied to and from.
pub trait Device: Send + Sync {
    /// For people, such as `NVIDIA H200 (GPU 0)`.
    fn name(&self) -> String;
    /// Bytes that may be used now.
    fn free_bytes(&self) -> io::Result<u64>;
}
