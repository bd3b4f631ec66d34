//! The arena's own tmpfs.
//!
//! `huge=within_size`: large pages where a file is large enough for them, so that small files don't cost 2 MiB each.
//! Its size limit is not the budget: a writer that grows beyond what anybody expected is to be drained and evicted
//! around, not to see ENOSPC. The limit is what the machine can lose without harm.

use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the journal beside the files.
const JOURNAL: &str = "journal";
/// Name of the directory of streams beside them.
pub const STREAMS: &str = "streams";
/// Memory left to the rest of the machine, in percent.
const LEFT_PERCENT: u64 = 10;

/// A directory for the arena. It stays, for the next daemon, unless [`ArenaMount::discard`] is called.
#[derive(Debug)]
pub struct ArenaMount {
    path: PathBuf,
    /// It is a tmpfs of ours.
    pub own_filesystem: bool,
}

impl ArenaMount {
    /// The directory of the files.
    pub fn files(&self) -> io::Result<PathBuf> {
        let files = self.path.join("files");
        match fs::create_dir(&files) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(files),
        }
    }

    /// The directory of streams' active files.
    pub fn streams(&self) -> PathBuf {
        self.path.join(STREAMS)
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Everything in it is on the backing, or given up: unmounts and removes it.
    pub fn discard(self) {
        if self.own_filesystem {
            let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Whether another file system begins at `path`.
fn is_mount_point(path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let parent = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Makes the arena's directory `path`, with a tmpfs on it where we may mount one. One that a dead daemon left is used
/// as it is, with what it holds. `bytes`: what it has to hold at least, swapped out or not.
pub fn mount_arena(path: &Path, bytes: u64) -> io::Result<ArenaMount> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    if path.join(JOURNAL).exists() {
        return Ok(ArenaMount { path: path.into(), own_filesystem: is_mount_point(path)? });
    }
    // Left by a daemon that died before it kept anything there.
    while is_mount_point(path)? && rustix::mount::unmount(path, UnmountFlags::DETACH).is_ok() {}
    let limit = (memory_bytes() / 100 * (100 - LEFT_PERCENT)).max(bytes);
    for huge in ["huge=within_size,", ""] {
        let options = std::ffi::CString::new(format!("{huge}mode=0700,size={limit},nr_inodes=0"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        match rustix::mount::mount("aimss-arena", path, "tmpfs", flags, &*options) {
            Ok(()) => return Ok(ArenaMount { path: path.into(), own_filesystem: true }),
            // A kernel without huge pages in tmpfs.
            Err(rustix::io::Errno::INVAL) => {}
            Err(e) => {
                log::info!("no tmpfs of its own for the arena ({e}): it shares the one of its directory");
                break;
            }
        }
    }
    Ok(ArenaMount { path: path.into(), own_filesystem: false })
}

/// The machine's memory.
pub fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram as u64 * u64::from(info.mem_unit)
}
