//! `aimss op`: its subcommands and their help.

use clap::{Args, Subcommand};
use std::path::PathBuf;

pub const EXAMPLES: &str = "\
Examples:
  aimss op create shuffle /mnt/fast/clicks --by json:user --partitions 8 --into /mnt/fast/by-user
      Each line of clicks goes to one of 8 streams in the directory by-user: all lines of a user to the same, in their \
order. Groups read the directory as one: /mnt/fast/by-user@GROUP.
  aimss op create merge /mnt/fast/a /mnt/fast/b --into /mnt/fast/all
  aimss op create filter /mnt/fast/log --where 'text.contains(\"ERROR\")' --into /mnt/fast/errors
  aimss op ls                         all operators, what they take a second, and how far behind they are
  aimss op rm by-user                 ends it; what it made stays

An operator works inside the storage, from the first record of its inputs on, and goes on where it was after a crash, an \
upgrade, or a mount. Each record of an input gets into the output once. Nobody else appends to an output.

Exit codes: 0 success; 1 it failed, and one sentence on stderr says why; 2 usage.";

/// `aimss op`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true)]
pub struct Op {
    /// What to do.
    #[command(subcommand)]
    pub command: OpCommand,
}

/// What can be done with operators.
#[derive(Debug, Subcommand)]
pub enum OpCommand {
    /// Make an operator, and its output
    #[command(after_long_help = CREATE_EXAMPLES)]
    Create(Create),
    /// List operators: what they do, take a second, and how far behind they are
    #[command(after_long_help = LS_EXAMPLES)]
    Ls(Ls),
    /// End an operator; what it made stays
    #[command(after_long_help = RM_EXAMPLES)]
    Rm(Rm),
}

const CREATE_EXAMPLES: &str = "\
Examples:
  aimss op create shuffle /mnt/fast/clicks --by json:user.id --partitions 8 --into /mnt/fast/by-user
  aimss op create shuffle /mnt/fast/orders --by csv:2 --range m,t --into /mnt/fast/by-name --name names
      Three partitions: keys before m, from m to t, and from t on.
  aimss op create --file by-user.toml /mnt/fast

A file says the same, with paths relative to the mount:
  function = \"shuffle\"                # or \"merge\", \"filter\" with a `where`, \"project\" with `fields`
  inputs = [\"clicks\"]                 # streams, or directories of partitions
  output = \"by-user\"
  key = \"json:user.id\"                # json:FIELD, csv:N, regex:PATTERN, len32-key, record
  partitions = 8
  partitioning = \"hash\"               # or \"range\", with bounds = [\"m\", \"t\"], or \"round-robin\"

Exit codes: 0 made; 1 refused, and nothing changed; 2 usage.";

/// `aimss op create`.
#[derive(Debug, Args)]
#[command(disable_help_subcommand = true, args_conflicts_with_subcommands = true)]
#[command(subcommand_negates_reqs = true)]
pub struct Create {
    /// What it does.
    #[command(subcommand)]
    pub function: Option<Function>,
    /// A file that says what it does, in TOML
    #[arg(long, value_name = "FILE", required = true)]
    pub file: Option<PathBuf>,
    /// The mount
    #[arg(required = true)]
    pub mountpoint: Option<PathBuf>,
    /// Its name [default: the file's, without its ending]
    #[arg(long)]
    pub name: Option<String>,
}

/// What an operator may do.
#[derive(Debug, Subcommand)]
pub enum Function {
    /// Records go to the partition of their key
    Shuffle(Shuffle),
    /// Records of several streams go to one
    Merge(Merge),
    /// Those records stay of which an expression is true
    Filter(Filter),
    /// Of records that are JSON objects some fields stay
    Project(Project),
}

/// `aimss op create filter`.
#[derive(Debug, Args)]
pub struct Filter {
    /// Streams in a mount, or directories of partitions
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// The expression, as in 'value.price > 7 && value.user.name == \"ann\"', or 'text.contains(\"ERROR\")'
    #[arg(long = "where", value_name = "EXPRESSION")]
    pub expression: String,
    /// The stream, in the same mount: a name that is free
    #[arg(long, value_name = "OUT")]
    pub into: PathBuf,
    /// Its name [default: that of OUT]
    #[arg(long)]
    pub name: Option<String>,
}

/// `aimss op create project`.
#[derive(Debug, Args)]
pub struct Project {
    /// Streams in a mount, or directories of partitions
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// The fields that stay, in this order
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',', required = true)]
    pub fields: Vec<String>,
    /// The stream, in the same mount: a name that is free
    #[arg(long, value_name = "OUT")]
    pub into: PathBuf,
    /// Its name [default: that of OUT]
    #[arg(long)]
    pub name: Option<String>,
}

/// `aimss op create shuffle`.
#[derive(Debug, Args)]
pub struct Shuffle {
    /// Streams in a mount, or directories of partitions
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// The key: json:FIELD, csv:N, regex:PATTERN, len32-key or record
    #[arg(long, value_name = "KEY")]
    pub by: Option<String>,
    /// How many partitions there are, 1 to 1024
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// Partitions by ranges of keys: the first key of each but the first, in order
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', conflicts_with_all = ["partitions", "round_robin"])]
    pub range: Vec<String>,
    /// Partitions in turn, whatever the key is
    #[arg(long)]
    pub round_robin: bool,
    /// The directory of the partitions, in the same mount: a name that is free
    #[arg(long, value_name = "OUT")]
    pub into: PathBuf,
    /// Its name [default: that of OUT]
    #[arg(long)]
    pub name: Option<String>,
}

/// `aimss op create merge`.
#[derive(Debug, Args)]
pub struct Merge {
    /// Streams in a mount, or directories of partitions
    #[arg(required = true)]
    pub inputs: Vec<PathBuf>,
    /// The stream, in the same mount: a name that is free
    #[arg(long, value_name = "OUT")]
    pub into: PathBuf,
    /// Its name [default: that of OUT]
    #[arg(long)]
    pub name: Option<String>,
}

const LS_EXAMPLES: &str = "\
Examples:
  aimss op ls                         those of all mounts
  aimss op ls /mnt/fast
  aimss op ls --json | jq '.operators[] | select(.lag > 1000) | .name'
      The JSON is a stable schema.";

/// `aimss op ls`.
#[derive(Debug, Args)]
pub struct Ls {
    /// A mount [default: all]
    pub mountpoint: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

const RM_EXAMPLES: &str = "\
Examples:
  aimss op rm by-user
  aimss op rm by-user --on /mnt/fast  where several mounts have one of that name

Exit codes: 0 removed; 1 refused, and nothing changed; 2 usage.";

/// `aimss op rm`.
#[derive(Debug, Args)]
pub struct Rm {
    /// The operator
    pub name: String,
    /// Its mount [default: the one that has it]
    #[arg(long, value_name = "MOUNTPOINT")]
    pub on: Option<PathBuf>,
}
