//! `aimss stream`: its subcommands and their help.

use aimss_engine::stream::partition::PARTITIONS_MAX;
use clap::{Args, Subcommand};
use std::path::PathBuf;

pub const EXAMPLES: &str = "\
Examples:
  aimss stream create --retention 10GiB --retention 7d /mnt/fast/events
      A stream: many programs append lines to it with open(2) and write(2), others read it, in groups or alone.
  echo hello >> /mnt/fast/events && aimss stream cat /mnt/fast/events
  aimss stream groups /mnt/fast/events          who reads it, and how far behind they are
  aimss stream cat /data/backing/events         the same without a mount, from the backing directory
  aimss stream export /mnt/fast/events day.log  as a plain file

PATH is a stream in a mount, or in a backing directory. If that is mounted, its daemon is asked; else its files are \
read, or changed, directly. A directory of partitions (`create --partitions`) is a PATH too, except for `export`: what \
is asked is done to each partition, or shown as a sum. Every subcommand has a --help with examples.

Exit codes: 0 success; 1 it failed, or there is damage, and one sentence on stderr says which; 2 usage.";

/// `aimss stream`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Stream {
    /// What to do with it.
    #[command(subcommand)]
    pub command: StreamCommand,
}

/// What can be done with streams.
#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// Make a stream in a mount
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(Create),
    /// Change what a stream keeps, and how long a batch may be held
    #[command(after_long_help = SET_EXAMPLES)]
    Set(Set),
    /// List the streams of a mount or of a backing directory
    #[command(after_long_help = LS_EXAMPLES)]
    Ls(Ls),
    /// Show a stream's settings, its records, and what they take
    #[command(after_long_help = INFO_EXAMPLES)]
    Info(Look),
    /// Show a stream's groups: lag, rate, members, redeliveries, lost records
    #[command(after_long_help = GROUPS_EXAMPLES)]
    Groups(Look),
    /// Write a stream's records to stdout
    #[command(after_long_help = CAT_EXAMPLES)]
    Cat(Cat),
    /// Copy a stream's bytes to a new plain file, durably
    #[command(after_long_help = EXPORT_EXAMPLES)]
    Export(Export),
    /// Let a group go on elsewhere: read again, or skip
    #[command(after_long_help = SEEK_EXAMPLES)]
    Seek(Seek),
    /// Remove old segments now
    #[command(after_long_help = TRIM_EXAMPLES)]
    Trim(Trim),
    /// Remove a stream with its log, or a group of it
    #[command(after_long_help = RM_EXAMPLES)]
    Rm(Rm),
    /// Read all of a stream and list what is damaged
    #[command(after_long_help = VERIFY_EXAMPLES)]
    Verify(Verify),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  aimss stream create /mnt/fast/events
      Lines, kept for ever.
  aimss stream create --retention acked --retention 100GiB --ack-timeout 30s /mnt/fast/jobs
      A record goes once every group has acknowledged it, and in any case when 100 GiB came behind it. A batch that \
a member holds for more than 30 s is given to another.
  aimss stream create --framing fixed:4096 --compress none /mnt/fast/samples
  aimss stream create --partitions 8 /mnt/fast/clicks
      A directory of 8 streams, named 0 to 7. Whoever writes chooses one and appends to it; the members of a group \
/mnt/fast/clicks@GROUP share the partitions, and each partition's records come in their order.

Framings: `line` ends with a newline; `len32` begins with its length, a little-endian u32; `fixed:N` has N bytes; \
`write` is what one write(2) brought.

Exit codes: 0 made; 1 refused, and nothing changed; 2 usage.";

/// `aimss stream create`.
#[derive(Debug, Args)]
pub struct Create {
    /// A name in a mount that is free
    pub path: PathBuf,
    /// Where records end: line, len32, fixed:N or write
    #[arg(long, default_value = "line")]
    pub framing: String,
    /// What is kept: the last 10GiB, the last 7d, or what is not acked by every group; may be repeated, and
    /// what one of them does not keep goes; `10m` is ten minutes, `10M` ten mebibytes [default: all]
    #[arg(long, value_name = "SIZE|AGE|acked")]
    pub retention: Vec<String>,
    /// At which size a segment is sealed; also the longest record; at most 1GiB
    #[arg(long, value_name = "SIZE", default_value = "64MiB")]
    pub segment: String,
    /// How sealed segments are stored: lz4 or none
    #[arg(long, value_name = "HOW", default_value = "lz4")]
    pub compress: String,
    /// How long a member of a group may hold a batch before others get it [default: while it is open]
    #[arg(long, value_name = "DURATION")]
    pub ack_timeout: Option<String>,
    /// Make a directory of so many streams, 1 to 1024, that are one to its groups [default: one stream, a file]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    pub partitions: Option<u32>,
}

const SET_EXAMPLES: &str = "\
Examples:
  aimss stream set --retention 7d /mnt/fast/events
      Seven days, and no other limit: all limits are replaced.
  aimss stream set --retention none --ack-timeout none /mnt/fast/events

Framing, segment size and compression are for ever. Exit codes: 0 changed; 1 refused, and nothing changed; 2 usage.";

/// `aimss stream set`.
#[derive(Debug, Args)]
pub struct Set {
    /// The stream
    pub path: PathBuf,
    /// What is kept, instead of what was: as for `create`, or none for no limit; may be repeated
    #[arg(long, value_name = "SIZE|AGE|acked|none")]
    pub retention: Vec<String>,
    /// How long a member may hold a batch; none: while it is open
    #[arg(long, value_name = "DURATION|none")]
    pub ack_timeout: Option<String>,
}

const LS_EXAMPLES: &str = "\
Examples:
  aimss stream ls                     the streams of all mounts
  aimss stream ls /mnt/fast/run7      those below this directory
  aimss stream ls /data/backing       also without a mount
  aimss stream ls --json | jq '.streams[] | select(.groups[].lag > 1000) | .path'
      The JSON is a stable schema; sizes are bytes, spans seconds, times microseconds since 1970.

Exit codes: 0 shown, also if there are none; 1 it failed; 2 usage.";

/// `aimss stream ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// A mount, a backing directory, or a directory in one [default: all mounts]
    pub path: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const INFO_EXAMPLES: &str = "\
Examples:
  aimss stream info /mnt/fast/events
  aimss stream info --json /mnt/fast/events | jq .end_offset

Exit codes: 0 shown; 1 no such stream; 2 usage.";

const GROUPS_EXAMPLES: &str = "\
Examples:
  aimss stream groups /mnt/fast/events
  aimss stream groups --json /mnt/fast/events | jq '.groups[] | {name, lag}'

Lag counts records from the group's committed offset to the end. Lost are records that retention or damage took before \
the group got them. Without a mount there are no members and no rates.

Exit codes: 0 shown; 1 no such stream; 2 usage.";

/// `aimss stream info` and `groups`.
#[derive(Debug, Args)]
pub struct Look {
    /// The stream
    pub path: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const CAT_EXAMPLES: &str = "\
Examples:
  aimss stream cat /mnt/fast/events | head
  aimss stream cat --from 1000 --to 1010 /mnt/fast/events
      Records 1000 to 1009.
  aimss stream cat --from time:-5m --json /mnt/fast/events
      One line a record, {\"offset\", \"time\", \"text\"}, with \"base64\" instead of \"text\" where it is no UTF-8.

Bytes are as they were appended, framing included. Partitions come one behind the other; JSON has their numbers. Ends at the records that are there now; `tail -f` follows.

Exit codes: 0 written, also if the reader of a pipe left; 1 some records are damaged and left out, or it failed; \
2 usage.";

/// `aimss stream cat`.
#[derive(Debug, Args)]
pub struct Cat {
    /// The stream
    pub path: PathBuf,
    /// The first record: an offset, earliest, or time:T as for `seek`
    #[arg(long, value_name = "WHERE", default_value = "earliest", allow_hyphen_values = true)]
    pub from: String,
    /// The record to end before, by its offset [default: the end]
    #[arg(long, value_name = "OFFSET")]
    pub to: Option<u64>,
    /// One JSON object a record
    #[arg(long)]
    pub json: bool,
}

const EXPORT_EXAMPLES: &str = "\
Examples:
  aimss stream export /mnt/fast/events /data/events.txt
  aimss stream export /data/backing/events events.txt      without a mount

The file has the bytes of all records that are retained, the stream's mode, and the last record's time. It is durable \
when this returns, or it is not there.

Exit codes: 0 copied; 1 it failed, or records are damaged and left out; 2 usage.";

/// `aimss stream export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The stream
    pub path: PathBuf,
    /// A file that is not there yet
    pub target: PathBuf,
}

const SEEK_EXAMPLES: &str = "\
Examples:
  aimss stream seek /mnt/fast/events trainer --to earliest             all again
  aimss stream seek /mnt/fast/events trainer --to latest               skip what is there
  aimss stream seek /mnt/fast/events trainer --to offset:1000
  aimss stream seek /mnt/fast/events trainer --to time:2026-11-24T12:00:00Z
  aimss stream seek /mnt/fast/events trainer --to time:-5m             what came in the last five minutes

A time is RFC 3339 with Z or an offset, or seconds since 1970, or an age. A group that is new is made. Of a directory of \
partitions all are changed; an offset is one partition's, so it takes that one's path: /mnt/fast/clicks/0.

Exit codes: 0 done; 1 no such record, or it failed; 2 usage.";

/// `aimss stream seek`.
#[derive(Debug, Args)]
pub struct Seek {
    /// The stream
    pub path: PathBuf,
    /// The group: letters, digits, '.', '_' and '-'
    pub group: String,
    /// Where it goes on: earliest, latest, offset:N or time:T
    #[arg(long, value_name = "WHERE", allow_hyphen_values = true)]
    pub to: String,
}

const TRIM_EXAMPLES: &str = "\
Examples:
  aimss stream trim /mnt/fast/events --before 1000000

Whole segments go, those all of whose records are before that one, in each partition if there are several. Groups that still wanted them count them as lost.

Exit codes: 0 done, also if there was nothing to remove; 1 it failed; 2 usage.";

/// `aimss stream trim`.
#[derive(Debug, Args)]
pub struct Trim {
    /// The stream
    pub path: PathBuf,
    /// The first record that is kept in any case
    #[arg(long, value_name = "OFFSET")]
    pub before: u64,
}

const RM_EXAMPLES: &str = "\
Examples:
  aimss stream rm /mnt/fast/events                    the stream and all its records
  aimss stream rm /mnt/fast/events@trainer            only the group `trainer`
  aimss stream rm --group trainer /mnt/fast/events    the same
  aimss stream rm /mnt/fast/clicks                    all partitions, and their directory

Exit codes: 0 removed; 1 no such stream or group, or it is in use; 2 usage.";

/// `aimss stream rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The stream; with @GROUP behind it, a group
    pub path: PathBuf,
    /// Only this group
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
}

const VERIFY_EXAMPLES: &str = "\
Examples:
  aimss stream verify /data/backing/events

Reads every byte. Each problem is a line with the file in the log's directory (`aimss stream info` names it), the place \
in it, what is wrong there, and which records are lost by it.

Exit codes: 0 nothing is wrong; 1 something is, or it could not be read; 2 usage.";

/// `aimss stream verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The stream
    pub path: PathBuf,
}
