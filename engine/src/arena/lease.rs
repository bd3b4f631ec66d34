//! File leases as a question: who could still touch this file?
//!
//! `F_SETLEASE F_RDLCK` succeeds only while no descriptor or mapping can write the file; `F_WRLCK` only while no
//! other descriptor or mapping exists at all (fcntl(2), "Leases"; the kernel's `check_conflicting_open`). The answer
//! is taken and the lease given back in one breath, so that it never stands in anybody's way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// No writers.
    Read,
    /// Nobody at all.
    Write,
}

/// An open that meets a lease in the moment it is held sends SIGIO to its holder, which would end the process.
pub(super) fn ignore_breaks() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
    }
}

/// Whether a lease of `kind` could be had just now.
pub(super) fn can_hold(file: &File, kind: Kind) -> bool {
    let wanted = match kind {
        Kind::Read => libc::F_RDLCK,
        Kind::Write => libc::F_WRLCK,
    };
    take_and_give_back(file, wanted).is_ok()
}

/// Whether anybody else has `file` open or mapped; false where the kernel can't tell.
pub(crate) fn in_use(file: &File) -> bool {
    is_refused(file, libc::F_WRLCK)
}

/// Whether anybody can still write `file`; false where the kernel can't tell.
pub(crate) fn has_writers(file: &File) -> bool {
    is_refused(file, libc::F_RDLCK)
}

/// Somebody stands in the way, and not the file system.
fn is_refused(file: &File, lease: libc::c_int) -> bool {
    take_and_give_back(file, lease).is_err_and(|e| e.raw_os_error() == Some(libc::EAGAIN))
}

fn take_and_give_back(file: &File, lease: libc::c_int) -> io::Result<()> {
    // SAFETY: fcntl on an open descriptor with plain numbers.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory_file() -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("file");
        std::fs::write(&path, vec![1; 8192]).expect("write");
        (dir, path)
    }

    #[test]
    fn a_writer_is_seen_until_it_closes() {
        let (_dir, path) = memory_file();
        let reader = File::open(&path).expect("open");
        assert!(can_hold(&reader, Kind::Read));
        let writer = File::options().write(true).open(&path).expect("open for writing");
        assert!(!can_hold(&reader, Kind::Read));
        drop(writer);
        assert!(can_hold(&reader, Kind::Read) && can_hold(&reader, Kind::Write));
    }

    #[test]
    fn a_mapping_is_seen_after_its_file_was_closed() {
        let (_dir, path) = memory_file();
        let reader = File::open(&path).expect("open");
        let writer = File::options().read(true).write(true).open(&path).expect("open for writing");
        // SAFETY: nobody shrinks the file.
        let mapping = unsafe { memmap2::MmapMut::map_mut(&writer).expect("map") };
        drop(writer);
        assert!(!can_hold(&reader, Kind::Read));
        drop(mapping);
        assert!(can_hold(&reader, Kind::Read));
    }
}
