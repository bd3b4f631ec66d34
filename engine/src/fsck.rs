//! Checks what aimss keeps in a backing's `.aimss`, and repairs what can be repaired, while nobody uses it.
//!
//! There is no catalog beside the files: a log is its segments, its active file, its settings and its groups'
//! files. So a check looks at each of them, and what can be made again is made from the others:
//!
//! 1. The top of `.aimss` is listed. What a crash leaves there is known by its name ([`leftovers`](self)).
//! 2. Each log's directory is listed; what is no plain file there is never opened. Then come its settings, its
//!    segments, what opening would put right, its records, its groups (`log`, `settings`, `segments`, `groups`).
//! 3. Each thing is a [`Finding`]: where, [`What`], and its [`Fate`]. With [`Mode::Repair`] it is repaired at
//!    once, and the fate says what was done; with [`Mode::Look`] nothing is changed, and it says what would be.
//!
//! Invariants:
//! - Outside `.aimss` nothing is opened but names of streams, for reading, and only if a log has lost its settings.
//! - Nothing that may hold a record is removed: it is set aside, under a name that nothing had.
//! - A segment is replaced only by one that has the same stored bytes and fewer faults.
//! - A group goes back, never forward: its records come again at worst.
//! - What failed with one log is a finding, and the next log is looked at.
//!
//! Not here: who owns the backing. The caller holds its lease.

mod groups;
mod log;
mod segments;
mod settings;
mod top;

use crate::engine::PRIVATE_DIRECTORY;
use crate::stream::Damage;
use crate::stream::log::names::unused;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether anything is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is.
    Look,
    /// What can be repaired is.
    Repair,
}

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `.aimss` is no directory, and may lead elsewhere: look at it, and move it away.
    #[error(
        "{path} is not a directory; aimss keeps its things in a directory of that name, and follows no link"
    )]
    InTheWay {
        /// Whole path.
        path: PathBuf,
    },
    /// A dataflow died, and its memory is still there: open it again, which brings that to the logs.
    #[error(
        "a dataflow died and left records in memory, in {memory}; open it again first, which brings them here"
    )]
    InMemory {
        /// Where.
        memory: PathBuf,
    },
    /// It can't be read.
    #[error("{path} can't be read: {source}")]
    Io {
        /// Whole path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What something is that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The lease of a daemon that died and left nothing in memory.
    Lease,
    /// The same, but there is something in memory.
    LeaseInMemory,
    /// A file of so many bytes on its way to its name.
    Beside(u64),
    /// Content of so many bytes whose name had not come.
    Unnamed(u64),
    /// The writing of a file was interrupted.
    Unfinished,
    /// A note of a dataflow's memory, which is gone.
    DataflowNote,
    /// A note of a dataflow's memory, which is still there.
    DataflowMemory(PathBuf),
    /// Nothing of aimss.
    Unknown,
    /// A link, a pipe or the like where a file of aimss should be.
    NoFile,
    /// An earlier repair, or a daemon, put it out of the way.
    SetAside,
    /// A log that was being made, or removed, and has nothing.
    EmptyLog,
    /// A log without settings.
    NoSettings,
    /// A log without settings, and no file stands for it.
    Nameless,
    /// Settings that can't be read.
    Settings,
    /// Settings with another framing than the records have.
    Framing,
    /// Written by a later version.
    Later,
    /// A segment, or the active file, at so many bytes.
    Damage(Damage, u64),
    /// It held the records from this one on, which are in no other file.
    LostFrom(u64),
    /// A name says less than is sealed.
    OldName,
    /// An active file in which nothing is, or nothing that is not sealed.
    Empty,
    /// Marks of records are not those of the active file.
    Marks,
    /// A group's file can't be read.
    Group,
    /// A group goes on at this record, which is not there.
    GroupBeyond(u64),
    /// It could not be read or changed.
    Failed(String),
}

/// How something is repaired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// It is removed.
    Remove,
    /// It gets another name beside, which nothing reads.
    SetAside,
    /// It gets the name that is right.
    Rename,
    /// It is written anew from what is there.
    Rewrite,
    /// Settings are written anew; limits of retention are not among them.
    Settings,
    /// Its last bytes are put into a file of their own.
    TailAside,
    /// Its old file is set aside, and the group goes on at this record.
    Group(u64),
}

/// What becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Nothing has to be done.
    Noted,
    /// This would repair it.
    Would(Repair),
    /// This has repaired it.
    Did(Repair),
    /// It stays as it is.
    Stays,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, relative to the backing.
    pub path: PathBuf,
    /// The name of the stream whose log it is in, relative to the backing, if its settings say it.
    pub stream: Option<PathBuf>,
    /// What it is.
    pub what: What,
    /// Offsets of the records that are lost by it; empty where nothing is.
    pub lost: Range<u64>,
    /// What becomes of it.
    pub fate: Fate,
}

/// How far a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Bytes of logs looked at.
    pub bytes_done: u64,
    /// Bytes of logs to be looked at.
    pub bytes_left: u64,
    /// Logs to be looked at.
    pub logs_left: u64,
}

/// What a check came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Whether there is an `.aimss` at all.
    pub is_there: bool,
    /// In the order of the directory's names; of one log, in the order of its records.
    pub findings: Vec<Finding>,
    /// Logs that were looked at.
    pub logs: u64,
    /// Records in them, those that are lost included.
    pub records: u64,
    /// Sealed segments in them.
    pub segments: u64,
}

impl Report {
    /// Findings that were repaired.
    pub fn repaired(&self) -> usize {
        self.findings.iter().filter(|finding| matches!(finding.fate, Fate::Did(_))).count()
    }

    /// Findings that could be repaired.
    pub fn repairable(&self) -> usize {
        self.findings.iter().filter(|finding| matches!(finding.fate, Fate::Would(_))).count()
    }

    /// Findings that stay.
    pub fn left(&self) -> usize {
        self.findings.iter().filter(|finding| finding.fate == Fate::Stays).count()
    }

    /// Records that are lost.
    pub fn lost(&self) -> u64 {
        self.findings.iter().map(|finding| finding.lost.end.saturating_sub(finding.lost.start)).sum()
    }
}

/// Checks `backing`; `progress` hears how far that is. Nobody else uses the backing meanwhile.
pub fn run(backing: &Path, mode: Mode, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    if !is_there(backing)? {
        return Ok(Report::default());
    }
    let report = Report { is_there: true, ..Report::default() };
    let far = Progress::default();
    let mut check = Check { backing, mode, report, progress, far, stream: None, markers: None };
    check.top(&home(backing))?;
    Ok(check.report)
}

/// Whether there is anything of aimss in `backing`. Refused if it would have to be looked for elsewhere.
pub fn is_there(backing: &Path) -> Result<bool, Error> {
    let path = home(backing);
    match fs::symlink_metadata(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(Error::Io { path, source }),
        Ok(metadata) if !metadata.is_dir() => Err(Error::InTheWay { path }),
        Ok(_) => Ok(true),
    }
}

fn home(backing: &Path) -> PathBuf {
    backing.join(OsStr::from_bytes(PRIVATE_DIRECTORY))
}

/// One check under way.
struct Check<'a> {
    backing: &'a Path,
    mode: Mode,
    report: Report,
    progress: &'a mut dyn FnMut(Progress),
    far: Progress,
    /// The one that is looked at.
    stream: Option<PathBuf>,
    /// Names of streams in the tree, once somebody asked for them.
    markers: Option<settings::Markers>,
}

impl Check<'_> {
    fn repairs(&self) -> bool {
        self.mode == Mode::Repair
    }

    fn enter(&mut self, path: &Path, what: What, lost: Range<u64>, fate: Fate) {
        let path = path.strip_prefix(self.backing).unwrap_or(path).to_owned();
        self.report.findings.push(Finding { path, stream: self.stream.clone(), what, lost, fate });
    }

    fn note(&mut self, path: &Path, what: What) {
        self.enter(path, what, 0..0, Fate::Noted);
    }

    fn stays(&mut self, path: &Path, what: What) {
        self.enter(path, what, 0..0, Fate::Stays);
    }

    /// Enters what can be repaired by `repair`, and has it done by `how` if it is to be; whether it is repaired now.
    fn repair(
        &mut self,
        path: &Path,
        what: What,
        repair: Repair,
        how: impl FnOnce() -> io::Result<()>,
    ) -> bool {
        let done = if self.repairs() { Some(how()) } else { None };
        match done {
            None => self.enter(path, what, 0..0, Fate::Would(repair)),
            Some(Ok(())) => {
                self.enter(path, what, 0..0, Fate::Did(repair));
                return true;
            }
            Some(Err(e)) => {
                self.stays(path, what);
                self.stays(path, What::Failed(e.to_string()));
            }
        }
        false
    }

    fn is_found(&self, path: &Path) -> bool {
        self.report.findings.iter().any(|finding| self.backing.join(&finding.path) == path)
    }

    fn set_aside(&mut self, path: &Path, what: What) -> bool {
        self.repair(path, what, Repair::SetAside, || aside(path))
    }

    fn seen(&mut self, bytes: u64) {
        self.far.bytes_done += bytes;
        self.far.bytes_left = self.far.bytes_left.saturating_sub(bytes);
        (self.progress)(self.far);
    }
}

/// Gives a file the name that says that it is damaged.
fn aside(path: &Path) -> io::Result<()> {
    rename_to_new(path, &damaged(path))
}

/// The same for a file that is about to be replaced by a new one: it keeps its own name until then, so that there is
/// one at any time, where the file system has links.
fn keep_aside(path: &Path) -> io::Result<()> {
    let linked = fs::hard_link(path, unused(&damaged(path)));
    linked.or_else(|_| aside(path))
}

/// Renames to `wanted`, or, if that is there, to it with a number.
fn rename_to_new(from: &Path, wanted: &Path) -> io::Result<()> {
    let to = unused(wanted);
    fs::rename(from, &to)?;
    crate::stream::segment::sync_directory(to.parent().unwrap_or(Path::new(".")))
}

fn damaged(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(crate::stream::log::recover::DAMAGED);
    PathBuf::from(name)
}

/// Whether a name says that its file was set aside.
fn is_aside(name: &str) -> bool {
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    let number = |rest: &str| rest.strip_prefix('-').is_some_and(|n| n.parse::<u32>().is_ok());
    ["damaged", "torn"]
        .iter()
        .any(|word| ending.strip_prefix(word).is_some_and(|rest| rest.is_empty() || number(rest)))
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Lease => f.write_str("the lease of a daemon that died and left nothing in memory"),
            What::LeaseInMemory => f.write_str("the lease of a daemon that died and left data in memory"),
            What::Beside(bytes) => {
                write!(f, "left by a crash: {bytes} bytes that were to replace a file, which is as it was")
            }
            What::Unnamed(bytes) => {
                write!(f, "left by a crash: {bytes} bytes of a file whose name had not come to the backing")
            }
            What::Unfinished => f.write_str("left by a crash: a file whose writing was interrupted"),
            What::DataflowNote => f.write_str("left by a crash: the note of a dataflow's memory, which is gone"),
            What::DataflowMemory(memory) => {
                write!(f, "a dataflow died and left records in memory, in {}", memory.display())
            }
            What::Unknown => f.write_str("nothing that aimss made"),
            What::NoFile => f.write_str("no plain file, though aimss keeps one under this name; it was not opened"),
            What::SetAside => f.write_str("set aside earlier, and read by nothing"),
            What::EmptyLog => f.write_str("left by a crash: a log that was being made or removed, without records"),
            What::NoSettings => f.write_str("a log without settings can't be opened"),
            What::Nameless => {
                f.write_str("a log without settings, and no file of the backing stands for it: its removal was interrupted")
            }
            What::Settings => f.write_str("the log's settings can't be read, so that it can't be opened"),
            What::Framing => {
                f.write_str("the settings say another framing than the records have, so that the log can't be opened")
            }
            What::Later => f.write_str("written by a later version of aimss, and to be checked by that"),
            What::Damage(damage, at) if *at > 0 => write!(f, "at byte {at}: {damage}"),
            What::Damage(damage, _) => write!(f, "{damage}"),
            What::LostFrom(offset) => {
                write!(f, "its records, from record {offset} on, are in no other file")
            }
            What::OldName => f.write_str("left by a crash: its name says less than is sealed"),
            What::Empty => f.write_str("left by a crash: an active file without records"),
            What::Marks => f.write_str("the lengths of active records are not those of the active file"),
            What::Group => f.write_str("where the group goes on can't be read"),
            What::GroupBeyond(at) => write!(f, "the group goes on at record {at}, behind the end of the log"),
            What::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}
