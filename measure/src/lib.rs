//! How benchmarks measure: what `aimss bench` and `stream-bench` have in common.
//!
//! [`pairs`] alternates two sides and takes the median of the pairs' ratios; [`memory`] touches memory before
//! a timed run, because a virtual machine gives freed memory back to its host; [`cgroup`] limits and counts
//! memory; [`report`] shows figures beside their bars, as a table or as JSON.
//!
//! What it doesn't do: know what is measured, or judge. A bar that isn't met is shown.

pub mod cgroup;
pub mod memory;
pub mod pairs;
pub mod report;
