//! The command line: what can be asked, and the help that teaches it.
//!
//! Sizes and durations are taken as text and read by the commands, so that a bad one gets the same kind of
//! sentence as every other bad input instead of the parser's.

pub mod stream;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const ABOUT: &str = "Memory speed over a plain directory, for programs that change nothing but a path";

const LONG_ABOUT: &str = "\
aimss mounts as a file system over a directory that already exists on disk storage (local NVMe, Lustre, BeeGFS, \
NFS). Programs write and read at memory speed; aimss moves the data to that directory behind their backs, as \
plain files under the same names. Unmount, and `ls` of the directory shows the tree.

The life of a mount:
  aimss doctor                      what this machine allows, and what each missing thing costs
  aimss mount /data/ckpt /mnt/fast  returns when /mnt/fast can be used
  aimss status                      memory used, what still waits to be written, how files were opened
  aimss drain                       returns when everything is durable on /data/ckpt
  aimss umount /mnt/fast            drains, unmounts, leaves nothing behind";

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 it failed, and one sentence on stderr says why and what to do; 2 the command line was \
wrong, and nothing was tried.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "aimss", version, about = ABOUT, long_about = LONG_ABOUT, after_long_help = EXIT_CODES)]
#[command(max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Mount a directory at memory speed; returns when the mount is ready
    #[command(after_long_help = MOUNT_EXAMPLES)]
    Mount(Box<Mount>),
    /// Write everything to the backing directory, unmount, leave nothing behind
    #[command(after_long_help = UMOUNT_EXAMPLES)]
    Umount(Umount),
    /// Wait until files, or everything, are durable on the backing directory
    #[command(after_long_help = DRAIN_EXAMPLES)]
    Drain(Drain),
    /// Let another version of the program take a mount over while it is used
    #[command(after_long_help = UPGRADE_EXAMPLES)]
    Upgrade(Upgrade),
    /// Fetch files, or all below directories, into memory; returns when they are there
    #[command(after_long_help = WARM_EXAMPLES)]
    Warm(Warm),
    /// Fetch files into memory, and keep them there
    #[command(after_long_help = PIN_EXAMPLES)]
    Pin(Paths),
    /// Let files leave memory again that were pinned
    Unpin(Paths),
    /// Make files durable and take them out of memory
    #[command(after_long_help = EVICT_EXAMPLES)]
    Evict(Paths),
    /// Show memory, what still waits to be written, and how files are served
    #[command(after_long_help = STATUS_EXAMPLES)]
    Status(Status),
    /// Streams: make, list, read, verify and remove logs of records, and place their groups
    #[command(after_long_help = stream::EXAMPLES)]
    Stream(stream::Stream),
    /// Check what aimss keeps in a backing directory that is not mounted, and repair it
    #[command(after_long_help = FSCK_EXAMPLES)]
    Fsck(Fsck),
    /// Say what this machine allows, what each missing thing costs, and the command that gives it
    #[command(after_long_help = DOCTOR_EXAMPLES)]
    Doctor(Doctor),
    /// Write, drain, read back and verify a checkpoint through a mount, beside the bare disk and /dev/shm
    #[command(after_long_help = DEMO_EXAMPLES)]
    Demo(Demo),
    /// Measure the mount against /dev/shm, the bare disk and other systems, side by side
    #[command(after_long_help = BENCH_EXAMPLES)]
    Bench(Bench),
    /// The keeper: reads its settings from stdin. Started by `aimss mount`.
    #[command(hide = true)]
    Keep(Serve),
    /// The daemon: its stdin is a socket to its keeper, which starts it.
    #[command(hide = true)]
    Serve(Serve),
    /// A worker of `aimss bench` that puts itself into a memory cgroup.
    #[command(hide = true)]
    CgroupWorker(CgroupWorker),
}

const MOUNT_EXAMPLES: &str = "\
Examples:
  aimss mount /data/ckpt /mnt/fast
      /mnt/fast shows /data/ckpt; a quarter of the machine's memory holds what is written and read.
  aimss mount --memory 32G --fsync memory /lustre/run7 /mnt/fast
      32 GiB, and fsync(2) returns at once: the data survives the program, not the node.
  aimss mount --no-passthrough '*.mdb' --no-passthrough 'db/**' /data /mnt/fast
      LMDB and the like rely on msync(2) of a mapping being durable: their files are served by the daemon.

The daemon runs in the background until `aimss umount`. SIGTERM makes it drain and unmount by itself. Set \
AIMSS_LOG to error, warn, info (default), debug or trace for what --log gets.

Exit codes: 0 mounted; 1 refused, with one sentence on stderr, and nothing changed; 2 usage.";

/// `aimss mount`.
#[derive(Debug, Args)]
pub struct Mount {
    /// The directory whose files are shown, and where they are kept; it must exist and be writable
    pub backing: PathBuf,
    /// An empty directory to mount at
    pub mountpoint: PathBuf,
    /// Ceiling for file data in memory: 512M, 4G, 4GiB or 25% [default: a quarter of the machine's memory]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// Make the swap file PATH, or use the swap device that it is, for files that grow while they are open beyond what
    /// memory was promised for them; without it their writers are slowed, and memory can exceed --memory
    #[arg(long, value_name = "PATH")]
    pub overflow: Option<PathBuf>,
    /// Size of the swap file [default: twice --memory]
    #[arg(long, value_name = "SIZE", requires = "overflow")]
    pub overflow_size: Option<String>,
    /// Keep copies of files that leave memory in as much of a GPU's memory: they come back from there instead of from the
    /// backing; 16G, or 50% of what the GPU has
    #[arg(long, value_name = "SIZE")]
    pub gpu_memory: Option<String>,
    /// Which GPU: its number, or `free` for the one with the most free memory; or `simulated`, host memory that acts as
    /// one, with faults as in simulated:corrupt=1%,put=1%,get=1%,delay=1ms,seed=1
    #[arg(long, value_name = "GPU", default_value = "free", requires = "gpu_memory")]
    pub gpu: String,
    /// Give memory back within a second where less than this is free on the GPU
    #[arg(long, value_name = "SIZE", default_value = "2G", requires = "gpu_memory")]
    pub gpu_reserve: String,
    /// What fsync(2) waits for
    #[arg(long, value_enum, default_value_t = Fsync::Durable)]
    pub fsync: Fsync,
    /// Serve files that match GLOB by the daemon, which sees every call; may be repeated; '**' means all files
    #[arg(long, value_name = "GLOB")]
    pub no_passthrough: Vec<String>,
    /// New files that match GLOB are streams: append-only logs that consumer groups are fed from; may be
    /// repeated
    #[arg(long, value_name = "GLOB", default_value = "*.stream")]
    pub streams: Vec<String>,
    /// How long what was appended to a stream may be in memory alone; fsync(2) doesn't wait for it
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub stream_flush: String,
    /// Let other users use the mount too (others than root need user_allow_other in /etc/fuse.conf)
    #[arg(long)]
    pub allow_other: bool,
    /// Stay in the foreground and log to stderr; Ctrl-C drains and unmounts
    #[arg(long)]
    pub foreground: bool,
    /// Append the daemon's log to FILE [default: what goes wrong, the last MiB, is in `log` in the state directory]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// How long a change rests in memory before it is written (500ms, 1s, 1h); changes that cancel out
    /// meanwhile, as a temporary file created and deleted, are never written; fsync, drain and umount don't
    /// wait for it
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub drain_delay: String,
    /// Who may predict what is opened next, and have it fetched into memory: auto (all, if the backing is a network file
    /// system), all, none, or some of order,epoch,restore,transition,scan
    #[arg(long, value_name = "WHO", default_value = "auto")]
    pub prefetch: String,
    /// How long what the backing said of a file is taken for granted: changes made outside the mount show after
    /// it; longer saves a trip to the backing an open
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub revalidate: String,
    /// Take the backing over from an owner on another node that no longer exists
    #[arg(long)]
    pub take_over: bool,
    /// Keep no second daemon ready to take over if this one dies: saves its memory (1.6 KB a file that is known),
    /// and a death makes requests wait longer, half a second with 100,000 files known
    #[arg(long)]
    pub no_standby: bool,
    /// For measurements: act as if the backing were as slow as MODEL says, as in
    /// latency=5ms,bandwidth=300MiB/s,streams=8,jitter=10%,seed=1 (bandwidth is that of one stream)
    #[arg(long, value_name = "MODEL")]
    pub slow_backing: Option<String>,
}

/// What fsync waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fsync {
    /// Until the file and the names that lead to it are durable on the backing directory
    Durable,
    /// Nothing: the data is in memory and is written like any other
    Memory,
}

const UMOUNT_EXAMPLES: &str = "\
Examples:
  aimss umount /mnt/fast
      Drains with a progress bar, unmounts, and returns when nothing is left behind. Refuses, naming program, \
process and file, while files are in use.
  aimss umount --lazy /mnt/fast
      Drains and takes the name away now; the daemon ends when the last file closes. Also clears the mount that \
a dead daemon left.
  aimss umount --force /mnt/fast
      For a daemon or a backing that hangs: takes the mount away now. Nothing is drained, and nothing is lost: \
the next `aimss mount` of the same two takes up what the backing did not have. Until then that is in memory, and \
a restart of the machine loses it.
  aimss umount --export /other/disk/rescue /mnt/fast
      For a backing that is full or gone: what it cannot take is copied to /other/disk/rescue, with modes, owners, \
times and extended attributes, and then the mount is given up.

Exit codes: 0 unmounted; 1 refused or failed: the mount is as it was, and no data is lost; 2 usage.";

/// `aimss umount`.
#[derive(Debug, Args)]
pub struct Umount {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// Don't wait for open files: they stay usable, and the daemon ends when the last one closes
    #[arg(long, conflicts_with = "export")]
    pub lazy: bool,
    /// Take the mount away at once, whatever hangs: kills the daemon, drains nothing; programs that use it get
    /// errors, and what the backing lacks stays in memory until the next mount takes it up
    #[arg(long, conflicts_with_all = ["lazy", "export"])]
    pub force: bool,
    /// If the backing can't take everything, copy the rest to DIR (new or empty) and unmount
    #[arg(long, value_name = "DIR")]
    pub export: Option<PathBuf>,
}

const UPGRADE_EXAMPLES: &str = "\
Examples:
  aimss upgrade /mnt/fast                                  to the program that runs this command
  aimss upgrade --binary /opt/aimss-1.2/aimss /mnt/fast    to another one

The new daemon is started beside the old one, follows what it does, and takes over when it is ready. Programs see a \
pause of milliseconds: open files, locks and mappings stay. If the new one isn't ready in time, or keeps its state in \
another format, the old one goes on; if the new one crashes within a minute, the old program serves again. The keeper, a \
process that only starts daemons, stays the old program's.

Exit codes: 0 the new daemon serves the mount; 1 it doesn't, and a sentence says why: the old one goes on; 2 usage.";

/// `aimss upgrade`.
#[derive(Debug, Args)]
pub struct Upgrade {
    /// Where it is mounted
    pub mountpoint: PathBuf,
    /// The program that is to serve the mount [default: the one that runs this command]
    #[arg(long, value_name = "PATH")]
    pub binary: Option<PathBuf>,
    /// How long the new daemon may take to be ready
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub within: String,
}

const DRAIN_EXAMPLES: &str = "\
Examples:
  aimss drain                          everything, on all mounts
  aimss drain /mnt/fast                everything on this mount
  aimss drain /mnt/fast/step-1000      this directory and all below it
  aimss drain a.bin b.bin && scp ...   these files

Exit codes: 0 durable; 1 something could not be written: it is still in memory and will be tried again; 2 usage.";

/// `aimss drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Files or directories on mounts; none: everything on all mounts
    pub paths: Vec<PathBuf>,
}

const WARM_EXAMPLES: &str = "\
Examples:
  aimss warm /mnt/fast/imagenet/train         a directory and all below it
  aimss warm model-*.safetensors
  find /mnt/fast/set -name '*.tar' -print0 | aimss warm --null
      The list comes from standard input.

What doesn't fit pushes out what is least useful; pinned files and those that are open stay.
`getfattr -n user.aimss.state FILE` says where a file is: memory, backing or both; dirty or clean; for how long.

Exit codes: 0 all of it is in memory; 1 some of it isn't, and a sentence says how much; 2 usage.";

/// `aimss warm`.
#[derive(Debug, Args)]
pub struct Warm {
    /// Files or directories on mounts; none: a list on standard input, one a line
    pub paths: Vec<PathBuf>,
    /// Paths on standard input end with NUL instead of a newline
    #[arg(short = '0', long)]
    pub null: bool,
}

const PIN_EXAMPLES: &str = "\
Examples:
  aimss pin /mnt/fast/base-model      fetched now, and not evicted until `aimss unpin` or the unmount

Pinned files are still drained. Exit codes: 0 all of it is in memory to stay; 1 some of it isn't, and is not \
pinned; 2 usage.";

const EVICT_EXAMPLES: &str = "\
Examples:
  aimss evict /mnt/fast/step-1000     drained first, then given back

Exit codes: 0 none of it is in memory; 1 some of it still is: open, mapped or pinned; 2 usage.";

/// `aimss pin`, `unpin`, `evict`.
#[derive(Debug, Args)]
pub struct Paths {
    /// Files or directories on mounts
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
}

const STATUS_EXAMPLES: &str = "\
Examples:
  aimss status                    all mounts
  aimss status /mnt/fast          one
  aimss status --json | jq '.mounts[0].drain.bytes'
      The JSON is a stable schema: {\"mounts\": [{\"mountpoint\", \"backing\", \"alive\", \"memory\", \"drain\", \
\"daemon\", \"files\", \"modes\", \"limits\", ...}]}; sizes are bytes, rates bytes a second, ages seconds. Fields are \
added, never renamed.

Exit codes: 0 shown (also when nothing is mounted); 1 no such mount, or its daemon doesn't answer; 2 usage.";

/// `aimss status`.
#[derive(Debug, Args)]
pub struct Status {
    /// Only this mount
    pub mountpoint: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const FSCK_EXAMPLES: &str = "\
Examples:
  aimss fsck /data/ckpt               changes nothing; a line for each thing found, then a summary
  aimss fsck --rebuild /data/ckpt     repairs what can be repaired, and says what it did

What is looked at is /data/ckpt/.aimss: logs of streams (segments, settings, groups) and what a crash leaves. Your \
files are not touched. --rebuild removes leftovers, writes damaged indexes of segments anew from the rest, and sets \
aside what it can't use; nothing that may hold a record is removed. A group whose place is lost gets all records that \
are kept again. Unmount first; after a crash with data left in memory, mount and unmount first.

Exit codes: 0 nothing is wrong, or all of it was repaired; 1 something was found and is not repaired; 2 it could not \
be checked: no such directory, it is mounted, another node owns it, or usage.";

/// `aimss fsck`.
#[derive(Debug, Args)]
pub struct Fsck {
    /// The directory that was given to `aimss mount` first
    pub backing: PathBuf,
    /// Repair what can be repaired
    #[arg(long)]
    pub rebuild: bool,
}

const DOCTOR_EXAMPLES: &str = "\
Examples:
  aimss doctor
  aimss doctor /data/ckpt
  aimss doctor --json | jq '.checks[] | select(.verdict != \"ok\")'

Changes nothing. Exit codes: 0 whatever is missing, since aimss works without most of it; 1 for a BACKING that can't
be looked at; 2 usage.";

/// `aimss doctor`.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Directories that are, or could be, backings: what they lie on, and whether a GPU could reach it
    #[arg(value_name = "BACKING")]
    pub backings: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  aimss demo
  aimss demo --size 256M --dir /scratch

A checkpoint of 16 shards, 8 optimizer files and an index is written three ways: through a mount, straight to the \
disk with fsync, and to /dev/shm; by a plain writer and by `cp`. It is drained, verified with `sha256sum -c` on the \
backing directory after unmounting, mounted again and read back. Everything is removed at the end, also after an \
error or Ctrl-C.

Exit codes: 0 all bytes verified; 1 something failed; 2 usage.";

/// `aimss demo`.
#[derive(Debug, Args)]
pub struct Demo {
    /// Size of the checkpoint [default: 1536M, less on machines with little memory or disk]
    #[arg(long, value_name = "SIZE")]
    pub size: Option<String>,
    /// A directory on the disk to compare with; a scratch directory is made in it [default: $TMPDIR or
    /// /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

const BENCH_EXAMPLES: &str = "\
Examples:
  aimss bench --quick                      a smoke run: small sizes, few pairs, figures mean little
  aimss bench --dir /scratch               all rows, on the disk of /scratch
  aimss bench --only write-1m,read,stat    some rows
  aimss bench --peer mergerfs=/mnt/mfs --peer juicefs=/mnt/jfs --json > figures.json
      Rows against other systems need those mounted (mergerfs over /dev/shm, for the same medium).

Each figure is the median of alternating pairs in one run: ours, theirs, ours, theirs; before each, as much memory as \
the work needs is touched once, so that no side pays for a virtual machine's first touch. Each row says how the opens \
were served (passthrough or daemon). Some rows need root: a tmpfs of its own, memory cgroups.

Exit codes: 0 measured, whether the bars were met or not; 1 a row failed; 2 usage.";

/// `aimss bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Only these rows, separated by commas; --list shows them
    #[arg(long, value_name = "ROW", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Show the rows and what they measure
    #[arg(long)]
    pub list: bool,
    /// A smoke run: sizes a sixteenth, two pairs
    #[arg(long)]
    pub quick: bool,
    /// Alternating pairs a figure
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub pairs: usize,
    /// A directory on the disk for backing and scratch files [default: $TMPDIR or /var/tmp]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Another system to compare with, and a writable directory on it; may be repeated
    #[arg(long, value_name = "NAME=DIR")]
    pub peer: Vec<String>,
    /// How slow the backing is for rows about fetching ahead; bandwidth is that of one stream
    #[arg(long, value_name = "MODEL", default_value = "latency=5ms,bandwidth=300MiB/s,streams=8")]
    pub backing: String,
    /// A source tree to unpack for find and rm-rf [default: a made one of 6,000 files]
    #[arg(long, value_name = "DIR")]
    pub tree: Option<PathBuf>,
    /// The GPU of rows about one: a number, free for the one with the most free memory, or simulated
    #[arg(long, value_name = "GPU", default_value = "free")]
    pub gpu: String,
    /// Serve all files of the mount by the daemon, to see the fallback's figures
    #[arg(long)]
    pub no_passthrough: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The hidden keeper and daemon.
#[derive(Debug, Args)]
pub struct Serve {
    /// stderr is the log: keep it.
    #[arg(long)]
    pub log: bool,
}

/// The hidden worker.
#[derive(Debug, Args)]
pub struct CgroupWorker {
    /// The `cgroup.procs` to write its pid to.
    pub procs: PathBuf,
    /// What to do.
    pub doing: Doing,
    /// To which file.
    pub file: PathBuf,
    /// How much; files of the working set, of `zipf`.
    pub bytes: u64,
    /// Of `zipf`: which of the readers, and how many files it opens.
    #[arg(num_args = 2)]
    pub reader: Vec<u64>,
}

/// What the hidden worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Doing {
    /// Writes a file and reads it.
    Both,
    /// Writes it anew, and syncs it.
    Write,
    /// Appends to it, and syncs it.
    Append,
    /// Writes it anew, open for reading too, and syncs it.
    Update,
    /// Writes it anew.
    Hold,
    /// Reads it.
    Read,
    /// Reads files of a directory, some more often than others.
    Zipf,
}

impl Doing {
    /// Its word on the command line.
    pub fn word(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
