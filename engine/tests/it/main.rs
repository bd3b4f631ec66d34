//! The engine without a mount, one program for all: a link of its own for each file would take longer than the tests.
//! Beside it are those that look at their process as a whole.
//!
//! `cargo test -p aimss-engine --test it takeover::` runs those of one file.

mod backlog;
mod cancelled_work;
mod drain_order;
mod failing_backing;
mod fetch;
mod fsck;
mod hardlinks;
mod namespace_model;
mod outside_changes;
mod power_cut;
mod recovery;
mod settled_meanwhile;
mod spill;
mod stalling_backing;
mod stream_damage;
mod stream_dataflow;
mod stream_full;
mod stream_live;
mod stream_log;
mod stream_partitions;
mod stream_read_only;
mod support;
mod takeover;
mod tier;
mod tier_scrub;
mod unnamed;
