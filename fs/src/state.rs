//! What a mount keeps outside its backing: a private directory per mount, the arena in it, and the lease that says who
//! owns the backing.
//!
//! Layout, version [`VERSION`]:
//! ```text
//! /run/aimss (root) or $XDG_RUNTIME_DIR/aimss or /dev/shm/aimss-UID
//!   MOUNT/            MOUNT: the mount point's path as a hash, 16 hex digits
//!     version         a number in text
//!     mount.json      mount point, backing, process
//!     control.sock    see `control`
//!     init            the kernel's INIT, for daemons that take over; see `session`
//!     standby         the process that is ready to take over, while there is one
//!     overflow        the path of the swap file, while there is one
//!     arena/          a tmpfs of its own for root
//!       files/        file data, a file an inode
//!       journal       see the engine's `journal`
//!       journal.lookups  what the kernel holds of each inode
//! BACKING/.aimss/lease  who owns the backing: node, process, mount point
//! BACKING/.aimss/transitions  which files are opened behind which, where that is predicted
//! ```
//! Everything is mode 0700 or 0600.

mod arena;
mod lease;
mod overflow;
mod private;
pub mod transitions;

pub use arena::{ArenaMount, STREAMS, memory_bytes, mount_arena};
pub use lease::{Lease, LeaseError, Looked, Owner};
pub use overflow::{end_overflow, open_overflow, overflow_in_use};

use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Tries to make a directory beside others that remove its parent.
const TRIES: u32 = 8;
/// Version of the layout above.
pub const VERSION: u32 = 4;

/// Who serves a mount.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountRecord {
    /// Mount point.
    pub mountpoint: PathBuf,
    /// Backing.
    pub backing: PathBuf,
    /// The daemon.
    pub pid: u32,
    /// When it started, in clock ticks since boot, so that a reused pid isn't taken for it.
    pub started: u64,
    /// Its keeper, which starts it again, and when that started.
    #[serde(default)]
    pub keeper: Option<(u32, u64)>,
}

/// A mount's private directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    path: PathBuf,
}

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A newer aimss left it.
    #[error(
        "the state directory {path} is of version {found}, newer than this program's {VERSION}; use the newer aimss, or remove the directory if nothing in it is needed"
    )]
    Newer {
        /// Where.
        path: PathBuf,
        /// Its version.
        found: String,
    },
    /// It belongs to somebody else.
    #[error(
        "the state directory {path} is not yours alone; remove it or set XDG_RUNTIME_DIR to a private directory"
    )]
    NotPrivate {
        /// Where.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("the state directory {path} can't be used: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where all state directories of this user are.
pub fn root() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/run/aimss");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_dir() => Path::new(&dir).join("aimss"),
        _ => PathBuf::from(format!("/dev/shm/aimss-{}", rustix::process::geteuid().as_raw())),
    }
}

/// Where else they may be, of daemons that were started in another environment; with [`root`].
fn roots() -> Vec<PathBuf> {
    let uid = rustix::process::geteuid().as_raw();
    let mut roots = vec![root()];
    if uid != 0 {
        roots.push(format!("/run/user/{uid}/aimss").into());
        roots.push(format!("/dev/shm/aimss-{uid}").into());
    }
    roots
}

impl StateDir {
    /// The state directory of a mount point, whether it exists or not.
    pub fn of(mountpoint: &Path) -> StateDir {
        use std::os::unix::ffi::OsStrExt;
        StateDir { path: root().join(format!("{:016x}", fnv1a(mountpoint.as_os_str().as_bytes()))) }
    }

    /// The one that [`StateDir::path`] names.
    pub(crate) fn at(path: &Path) -> StateDir {
        StateDir { path: path.to_path_buf() }
    }

    /// Makes it, private.
    pub fn create(&self) -> Result<(), StateError> {
        let io = |source| StateError::Io { path: self.path.clone(), source };
        // Another mount that ends may remove the parent in between.
        let mut made = self.make();
        for _ in 0..TRIES {
            if made.is_ok() {
                break;
            }
            made = self.make();
        }
        if let Some(path) = made.map_err(io)? {
            return Err(StateError::NotPrivate { path });
        }
        let version = self.path.join("version");
        match fs::read_to_string(&version) {
            Ok(found) if found.trim().parse() == Ok(VERSION) => Ok(()),
            // Version 1 knew no `Held::Unnamed` in its journal, version 2 no records for daemons that take over, version 3
            // none about rewritings: all are read as they are.
            Ok(found) if found.trim().parse::<u32>().is_ok_and(|found| found < VERSION) => {
                fs::write(version, VERSION.to_string()).map_err(io)
            }
            Ok(found) => Err(StateError::Newer { path: self.path.clone(), found: found.trim().into() }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::write(version, VERSION.to_string()).map_err(io)
            }
            Err(e) => Err(io(e)),
        }
    }

    /// Makes the parent, and it; which of them is not private, if one isn't. Nothing is made in a parent that is not.
    fn make(&self) -> io::Result<Option<PathBuf>> {
        for dir in [root(), self.path.clone()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            if !is_private(&dir)? {
                return Ok(Some(dir));
            }
        }
        Ok(None)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the arena is.
    pub fn arena(&self) -> PathBuf {
        self.path.join("arena")
    }

    /// Whether a daemon left a journal here.
    pub fn has_journal(&self) -> bool {
        self.arena().join("journal").exists()
    }

    /// The control socket.
    pub fn socket(&self) -> PathBuf {
        self.path.join("control.sock")
    }

    /// What went wrong, where nobody asked for a log.
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where the kernel's INIT is kept.
    pub fn init(&self) -> PathBuf {
        self.path.join("init")
    }

    /// Notes that this process stands ready to take over.
    pub fn note_standby(&self) {
        let pid = std::process::id();
        if let Err(e) = fs::write(self.path.join("standby"), format!("{pid} {}", started(pid).unwrap_or(0))) {
            log::debug!("who stands ready can't be noted: {e}");
        }
    }

    /// The process that stands ready to take over, if one does.
    pub fn standby(&self) -> Option<u32> {
        let noted = fs::read_to_string(self.path.join("standby")).ok()?;
        let (pid, since) = noted.split_once(' ')?;
        let (pid, since) = (pid.parse().ok()?, since.parse().ok()?);
        (pid != std::process::id() && started(pid) == Some(since)).then_some(pid)
    }

    /// Writes who serves the mount.
    pub fn record(&self, record: &MountRecord) -> io::Result<()> {
        let json = serde_json::to_vec(record).map_err(io::Error::other)?;
        // Whoever looks while it is written sees the old one.
        fs::write(self.path.join("mount.json.new"), json)?;
        fs::rename(self.path.join("mount.json.new"), self.path.join("mount.json"))
    }

    /// Reads who serves the mount. What lies where others could have put it says nothing.
    pub fn read_record(&self) -> Option<MountRecord> {
        let private = |dir: &Path| is_private(dir).unwrap_or(false);
        if !self.path.parent().is_some_and(private) || !private(&self.path) {
            return None;
        }
        serde_json::from_slice(&fs::read(self.path.join("mount.json")).ok()?).ok()
    }

    /// Removes it; the arena is unmounted before.
    pub fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)?;
        // The last mount takes the parent along; another one keeps it.
        let _ = fs::remove_dir(root());
        Ok(())
    }

    /// All state directories of this user.
    pub fn all() -> Vec<StateDir> {
        StateDir::all_in(&root())
    }

    fn all_in(root: &Path) -> Vec<StateDir> {
        let Ok(entries) = fs::read_dir(root) else { return Vec::new() };
        entries
            .flatten()
            .map(|entry| StateDir { path: entry.path() })
            .filter(|dir| dir.path.is_dir())
            .collect()
    }
}

/// Whether it is a directory, and this user's alone.
fn is_private(dir: &Path) -> io::Result<bool> {
    let found = fs::symlink_metadata(dir)?;
    let mine = found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o077 == 0;
    Ok(found.is_dir() && mine)
}

impl MountRecord {
    /// Whether the mount is served: the daemon lives, or a keeper that starts the next one.
    pub fn alive(&self) -> bool {
        self.daemon_lives() || self.keeper().is_some()
    }

    /// Whether the daemon lives.
    pub fn daemon_lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// The keeper, if it lives.
    pub fn keeper(&self) -> Option<u32> {
        self.keeper.filter(|(pid, when)| started(*pid) == Some(*when)).map(|(pid, _)| pid)
    }
}

/// Detaches a mount whose daemon is dead. Its arena and journal stay: the next mount brings back what was in them.
/// False if nothing was mounted there by aimss.
pub fn clear_stale(mountpoint: &Path) -> io::Result<bool> {
    let Some(record) = StateDir::of(mountpoint).read_record() else { return Ok(false) };
    if record.alive() {
        return Err(io::Error::other(format!("its daemon (process {}) is alive", record.pid)));
    }
    if rustix::process::geteuid().is_root() {
        return match rustix::mount::unmount(mountpoint, rustix::mount::UnmountFlags::DETACH) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::INVAL) => Ok(false),
            Err(e) => Err(e.into()),
        };
    }
    Ok(std::process::Command::new("fusermount3").args(["-u", "-z"]).arg(mountpoint).status()?.success())
}

/// The mount point at which a daemon of this user has, or left, something in memory for `backing`: the one that the
/// lease's owner is named with, or one whose record names the backing. Looked for wherever this user's daemons may keep
/// it: one without a session had another place than one with.
pub fn left_in_memory(backing: &Path, owner: Option<&Owner>) -> Option<PathBuf> {
    let has_journal = |owner: &&Owner| {
        let name = StateDir::of(&owner.mountpoint).path.file_name().map(std::ffi::OsStr::to_owned);
        let of = |root: PathBuf| StateDir { path: root.join(name.clone().unwrap_or_default()) };
        roots().into_iter().map(of).any(|state| state.has_journal())
    };
    owner.filter(has_journal).map(|owner| owner.mountpoint.clone()).or_else(|| {
        let all = roots().into_iter().flat_map(|root| StateDir::all_in(&root));
        let states = all.filter(StateDir::has_journal);
        let mut records = states.filter_map(|state| state.read_record());
        records.find(|record| record.backing == backing).map(|record| record.mountpoint)
    })
}

/// When a process started, in clock ticks since boot; field 22 of `/proc/PID/stat`. `None` if it doesn't run: one that ended
/// and that nobody has waited for yet (a zombie) doesn't.
pub fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in parentheses, may hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if matches!(fields.first().copied(), Some("Z" | "X")) {
        return None;
    }
    fields.get(19)?.parse().ok()
}

/// The hash of Fowler, Noll and Vo, variant 1a, 64 bits: stable over builds, and collisions don't harm (the record
/// says which mount point it is for).
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_alive_and_a_reused_pid_is_not() {
        let pid = std::process::id();
        let started = started(pid).expect("we run");
        let record = |started| MountRecord {
            mountpoint: "/m".into(),
            backing: "/b".into(),
            pid,
            started,
            keeper: None,
        };
        assert!(record(started).alive());
        assert!(!record(started + 1).alive());
    }
}
