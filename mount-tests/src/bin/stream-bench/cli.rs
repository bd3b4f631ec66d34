//! The command line.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Streams on a mount beside Redis streams and NATS JetStream, in alternating pairs
#[derive(Debug, Parser)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true, max_term_width = 100)]
pub struct Cli {
    /// What the harness asks of copies of itself.
    #[command(subcommand)]
    pub worker: Option<Worker>,
    /// What is to be measured.
    #[command(flatten)]
    pub bench: Bench,
}

/// What is to be measured, and with whom.
#[derive(Debug, Args)]
pub struct Bench {
    /// The mount point; a directory that is no mount is a stand-in that only tries the harness
    #[arg(long, value_name = "DIR", required_unless_present = "list")]
    pub mount: Option<PathBuf>,
    /// Mount BACKING at the mount point, and unmount at the end; `cold-read` and `restart` need it
    #[arg(long, value_name = "BACKING")]
    pub backing: Option<PathBuf>,
    /// More options for `aimss mount`, separated by spaces
    #[arg(long, value_name = "OPTIONS", default_value = "", allow_hyphen_values = true)]
    pub mount_options: String,
    /// Options for `aimss stream create` in `sweep`, separated by spaces
    #[arg(long, value_name = "OPTIONS", default_value = "--retention 128MiB", allow_hyphen_values = true)]
    pub stream_options: String,
    /// `start` (one without persistence, on a Unix socket), `none`, HOST:PORT or the path of a socket
    #[arg(long, value_name = "ADDR|SOCKET", default_value = "start")]
    pub redis: String,
    /// `start` (JetStream, on 127.0.0.1), `none` or HOST:PORT
    #[arg(long, value_name = "ADDR", default_value = "start")]
    pub nats: String,
    /// The process of a NATS server that was not started here: without it its processor time is not compared
    #[arg(long, value_name = "PID")]
    pub nats_pid: Option<i32>,
    /// Only these rows
    #[arg(long, value_name = "ROW,...", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Only these cells of `sweep`: RECORD:CHUNK:PRODUCERS in bytes, such as 100:4096:1
    #[arg(long, value_name = "CELL,...", value_delimiter = ',')]
    pub cell: Vec<String>,
    /// Alternating pairs a figure
    #[arg(long, default_value_t = 5)]
    pub pairs: usize,
    /// Seconds of a timed run of `sweep` (the first is dropped) and `indexer`
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// GiB of the larger log of `restart`
    #[arg(long, value_name = "GIB", default_value_t = 16)]
    pub big: u64,
    /// Write 3 to /proc/sys/vm/drop_caches before each cold read: the disk is measured too
    #[arg(long)]
    pub drop_caches: bool,
    /// A smoke run: a sixteenth of each size and count, at most 2 pairs
    #[arg(long)]
    pub quick: bool,
    /// One JSON document instead of the table
    #[arg(long)]
    pub json: bool,
    /// Show the rows, and measure nothing
    #[arg(long)]
    pub list: bool,
}

/// A child's task. It says `ready` on stdout when it is about to wait; the harness kills it unless it ends
/// itself.
#[derive(Debug, Subcommand)]
#[command(hide = true)]
pub enum Worker {
    /// Reads a group for ever and keeps the count of bytes in FILE
    Drink {
        /// The group's file.
        group: PathBuf,
        /// Where the count is kept, 8 bytes.
        count: PathBuf,
    },
    /// Reads N time stamps from a group and prints how old each was, in nanoseconds
    Ages {
        /// The group's file.
        group: PathBuf,
        /// How many.
        count: usize,
    },
    /// The same with XREAD BLOCK
    RedisAges {
        /// The server's URL.
        url: String,
        /// The stream's key.
        key: String,
        /// How many.
        count: usize,
    },
    /// Holds streams open for appending, and reads groups of the first ones, a thread each
    Hold {
        /// The directory of the streams.
        dir: PathBuf,
        /// How many streams.
        streams: usize,
        /// How many readers.
        readers: usize,
    },
}
