//! On real mounts, one program for all: a link of its own for each file would take longer than many a test.
//!
//! `cargo test -p aimss-mount-tests --test it takeover::` runs those of one file.

mod appends;
mod attributes;
mod death;
mod directories;
mod disks;
mod durability;
mod far;
mod gpu;
mod hangs;
mod links;
mod mappings;
mod memory;
mod names;
mod nodes;
mod open_files;
mod other_users;
mod outside;
mod partitions;
mod programs;
mod refusals;
mod renames;
mod residence;
mod round_trip;
mod security;
mod sparse;
mod stream_status;
mod streams;
mod suid;
mod takeover;
