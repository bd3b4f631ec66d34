//! A directory tree of the local machine (or anything mounted on it).
//!
//! 1. The root is opened once. Every path is resolved below it by `openat2` with `RESOLVE_BENEATH` and
//!    `RESOLVE_NO_SYMLINKS`: nothing in the tree, hostile or changed under us, leads outside.
//! 2. Parents of recently used paths stay open, so that a drain of many files in one directory resolves it once.
//!    The cache is emptied when a directory moves or goes.
//! 3. Paths longer than the kernel takes in one call are walked in pieces.

use super::{AttrChange, Backing, BackingId, Listed, Make, Owner, RenameMode, Room, Stat, Way, uring};
use crate::attr::{Attr, Kind, Timestamp};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, XattrFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Directories kept open. A drain works on a few at a time.
const OPEN_PARENTS_MAX: usize = 64;
/// Longest path given to the kernel at once; PATH_MAX is 4096 with the final NUL.
const PIECE_BYTES_MAX: usize = 3800;
/// Files at least this large are written with O_DIRECT; below, the page cache is cheaper than its set-up.
const DIRECT_BYTES_MIN: u64 = 4 << 20;

/// File systems whose storage is on another machine, by their magic numbers (statfs(2)): NFS, Lustre, Ceph, SMB (two),
/// AFS (two), BeeGFS, GPFS, 9p, and FUSE, of which most are.
const REMOTE: [u64; 11] = [
    0x6969,
    0x0bd0_0bd0,
    0x00c3_6400,
    0xff53_4d42,
    0xfe53_4d42,
    0x5346_414f,
    0x6b41_4653,
    0x1983_0326,
    0x4750_4653,
    0x0102_1997,
    0x6573_5546,
];

/// Tries to open a file whose lease is held.
const LEASE_TRIES: u32 = 1000;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// See the module.
#[derive(Debug)]
pub struct LocalBacking {
    root: OwnedFd,
    remote: bool,
    /// Guards the open parents; a leaf lock.
    parents: Mutex<FxHashMap<Box<[u8]>, Arc<OwnedFd>>>,
}

impl LocalBacking {
    /// Opens the directory `root`.
    pub fn open(root: &Path) -> io::Result<LocalBacking> {
        let root = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let remote =
            rustix::fs::fstatfs(&root).is_ok_and(|s| REMOTE.contains(&(s.f_type as u64 & 0xffff_ffff)));
        Ok(LocalBacking { root, remote, parents: Mutex::default() })
    }

    /// Opens `path` below `dir`.
    fn open_at(dir: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let mut start: Option<OwnedFd> = None;
        let mut rest = path;
        while rest.len() > PIECE_BYTES_MAX {
            let cut = rest[..PIECE_BYTES_MAX]
                .iter()
                .rposition(|&b| b == b'/')
                .ok_or(io::ErrorKind::InvalidFilename)?;
            let at = start.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
            let piece = OsStr::from_bytes(&rest[..cut]);
            let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            start = Some(rustix::fs::openat2(at, piece, directory, Mode::empty(), BENEATH)?);
            rest = &rest[cut + 1..];
        }
        let at = start.as_ref().map_or(dir.as_fd(), AsFd::as_fd);
        Ok(rustix::fs::openat2(at, OsStr::from_bytes(rest), flags | OFlags::CLOEXEC, mode, BENEATH)?)
    }

    fn directory(&self, path: &[u8]) -> io::Result<Arc<OwnedFd>> {
        if let Some(open) = self.parents.lock().get(path) {
            return Ok(open.clone());
        }
        let open =
            Arc::new(Self::open_at(&self.root, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?);
        let mut parents = self.parents.lock();
        if parents.len() >= OPEN_PARENTS_MAX {
            parents.clear();
        }
        parents.insert(path.into(), open.clone());
        Ok(open)
    }

    /// The open parent of `path` and its last component. The root is its own parent under the name `.`.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        let (parent, name): (&[u8], &[u8]) = match path.iter().rposition(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None if path.is_empty() => (b"", b"."),
            None => (b"", path),
        };
        Ok((self.directory(parent)?, OsStr::from_bytes(name)))
    }

    fn forget_directories(&self) {
        self.parents.lock().clear();
    }

    fn open_file(&self, path: &[u8], flags: OFlags) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        // Not blocking, so that a fifo planted under the name can't hold us.
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let open = || Self::open_at(&*parent, name.as_bytes(), flags, Mode::empty());
        let mut opened = open();
        for _ in 0..LEASE_TRIES {
            match &opened {
                // Somebody asks for the file's lease in this moment, which is over in the next.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::yield_now(),
                _ => break,
            }
            opened = open();
        }
        let file = File::from(opened?);
        if file.metadata()?.is_file() {
            return Ok(file);
        }
        Err(io::Error::other("the backing holds something else than a regular file under this name"))
    }
}

impl Backing for LocalBacking {
    fn is_remote(&self) -> bool {
        self.remote
    }

    fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        let (parent, name) = self.parent(path)?;
        stat_of(&rustix::fs::statat(&*parent, name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        let directory = Self::open_at(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        let mut listed = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let kind = Kind::from_mode(entry.file_type().as_raw_mode());
                listed.push(Listed { name: name.into(), ino: entry.ino(), kind });
            }
        }
        Ok(listed)
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::readlinkat(&*parent, name, Vec::new())?.into_bytes())
    }

    fn open_read(&self, path: &[u8]) -> io::Result<File> {
        self.open_file(path, OFlags::RDONLY)
    }

    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File> {
        match owner.run(|| self.open_file(path, OFlags::RDWR)) {
            // A daemon that is not root, and a file that its owner made read-only after writing it.
            Err(e) if e.raw_os_error() == Some(libc::EACCES) => {
                let mode = self.stat(path)?.attr.mode;
                let change = AttrChange { mode: Some(mode | 0o600), ..AttrChange::default() };
                self.set_attr(path, &change)?;
                let opened = self.open_file(path, OFlags::RDWR);
                self.set_attr(path, &AttrChange { mode: Some(mode), ..AttrChange::default() })?;
                opened
            }
            other => other,
        }
    }

    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW;
        owner.run(|| {
            // Without the special bits: they are set when the owner is right (a chown would clear them).
            let mode = Mode::from_raw_mode(mode & 0o777);
            Ok(File::from(Self::open_at(&*parent, name.as_bytes(), flags, mode)?))
        })
    }

    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        let mode = Mode::from_raw_mode(mode & 0o777);
        owner.run(|| {
            let _: () = match make {
                Make::Directory => rustix::fs::mkdirat(&*parent, name, mode)?,
                Make::Symlink(target) => rustix::fs::symlinkat(OsStr::from_bytes(target), &*parent, name)?,
                Make::Node(kind, rdev) => {
                    let kind = rustix::fs::FileType::from_raw_mode(kind.mode_bits());
                    rustix::fs::mknodat(&*parent, name, kind, mode, u64::from(*rdev))?;
                }
            };
            Ok(())
        })
    }

    fn unlink(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        Ok(rustix::fs::unlinkat(&*parent, name, AtFlags::empty())?)
    }

    fn rmdir(&self, path: &[u8]) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.forget_directories();
        Ok(rustix::fs::unlinkat(&*parent, name, AtFlags::REMOVEDIR)?)
    }

    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        let flags = match mode {
            RenameMode::Replace => rustix::fs::RenameFlags::empty(),
            RenameMode::NoReplace => rustix::fs::RenameFlags::NOREPLACE,
            RenameMode::Exchange => rustix::fs::RenameFlags::EXCHANGE,
        };
        let rename = |flags| rustix::fs::renameat_with(&*from_parent, from_name, &*to_parent, to_name, flags);
        let renamed = match rename(flags) {
            Err(rustix::io::Errno::INVAL) if mode == RenameMode::NoReplace => {
                rename(rustix::fs::RenameFlags::empty())
            }
            other => other,
        };
        self.forget_directories();
        Ok(renamed?)
    }

    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        let (from_parent, from_name) = self.parent(from)?;
        let (to_parent, to_name) = self.parent(to)?;
        Ok(rustix::fs::linkat(&*from_parent, from_name, &*to_parent, to_name, AtFlags::empty())?)
    }

    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        if let Some((uid, gid)) = change.owner {
            let (uid, gid) = ids(uid, gid);
            rustix::fs::chownat(&*parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(mode) = change.mode {
            change_mode(&parent, name, mode)?;
        }
        if let Some(times) = change.times {
            rustix::fs::utimensat(&*parent, name, &timestamps(times), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()> {
        if let Some((uid, gid)) = change.owner {
            let (uid, gid) = ids(uid, gid);
            rustix::fs::fchown(file, Some(uid), Some(gid))?;
        }
        if let Some(mode) = change.mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode & 0o7777))?;
        }
        if let Some(times) = change.times {
            rustix::fs::futimens(file, &timestamps(times))?;
        }
        Ok(())
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let (parent, name) = self.parent(path)?;
        let object = through_proc(&parent, name);
        let names = match grow(|buffer| rustix::fs::llistxattr(&*object, buffer)) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(Vec::new()),
            other => other?,
        };
        let mut found = Vec::new();
        for name in names.split(|&b| b == 0).filter(|name| !name.is_empty()) {
            match grow(|buffer| rustix::fs::lgetxattr(&*object, OsStr::from_bytes(name), buffer)) {
                Ok(value) => found.push((name.to_vec(), value)),
                Err(e) if e.raw_os_error() == Some(libc::ENODATA) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(found)
    }

    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        let (parent, file_name) = self.parent(path)?;
        let object = through_proc(&parent, file_name);
        let name = OsStr::from_bytes(name);
        match value {
            Some(value) => Ok(rustix::fs::lsetxattr(&*object, name, value, XattrFlags::empty())?),
            None => match rustix::fs::lremovexattr(&*object, name) {
                Err(rustix::io::Errno::NODATA) => Ok(()),
                other => Ok(other?),
            },
        }
    }

    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()> {
        let bytes: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        // A second descriptor of the same file, whatever its name is by now.
        let again = format!("/proc/self/fd/{}", to.as_raw_fd());
        let flags = OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
        let direct = (bytes >= DIRECT_BYTES_MIN)
            .then(|| rustix::fs::open(again, flags, Mode::empty()).map(File::from));
        let result = match direct {
            Some(Ok(direct)) => {
                uring::write_direct(&direct, from, &whole_pages(ranges), &|bytes| written(Way::Direct, bytes))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        match result {
            // No O_DIRECT or no io_uring here, or a file too small for them: through the page cache.
            Err(e) if !is_storage_failure(&e) => {
                for range in ranges {
                    to.write_all_at(&from[range.start as usize..range.end as usize], range.start)?;
                    written(Way::PageCache, range.end - range.start);
                }
            }
            other => other?,
        }
        if to.metadata()?.len() != size {
            to.set_len(size)?;
        }
        Ok(())
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn sync_dir(&self, path: &[u8]) -> io::Result<()> {
        let directory = Self::open_at(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::fsync(&directory)?)
    }

    fn sync_all(&self) -> io::Result<()> {
        let root = Self::open_at(&self.root, b"", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
        Ok(rustix::fs::syncfs(&root)?)
    }

    fn room(&self) -> io::Result<Room> {
        let s = rustix::fs::fstatvfs(&self.root)?;
        Ok(Room {
            block_bytes: s.f_frsize,
            blocks: s.f_blocks,
            free: s.f_bfree,
            available: s.f_bavail,
            files: s.f_files,
            files_free: s.f_ffree,
        })
    }
}

/// The storage itself said no: repeating the write another way would not help, and may hide the reason.
fn is_storage_failure(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::ENOSPC | libc::EDQUOT | libc::EROFS | libc::EFBIG))
}

/// `ranges` grown to page borders, for O_DIRECT; they stay sorted and apart.
fn whole_pages(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut pages: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges.iter().filter(|r| !r.is_empty()) {
        let start = range.start / uring::ALIGN_BYTES * uring::ALIGN_BYTES;
        let end = range.end.next_multiple_of(uring::ALIGN_BYTES);
        match pages.last_mut() {
            Some(last) if start <= last.end => last.end = end,
            _ => pages.push(start..end),
        }
    }
    pages
}

/// chmod that follows no symbolic link: `fchmodat2` where the kernel has it, else through `/proc`.
fn change_mode(parent: &OwnedFd, name: &OsStr, mode: u32) -> io::Result<()> {
    let object =
        rustix::fs::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let path = format!("/proc/self/fd/{}", object.as_raw_fd());
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o7777))?)
}

/// A path to an object whose parent is open, for calls that have no `at` form. The last component is not followed by
/// the `l` calls it is used with.
fn through_proc(parent: &OwnedFd, name: &OsStr) -> std::path::PathBuf {
    Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name)
}

fn grow(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1024];
    loop {
        match call(&mut buffer) {
            Ok(bytes) => {
                buffer.truncate(bytes);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => {
                let larger = buffer.len() * 8;
                buffer.resize(larger, 0);
            }
            Err(e) => return Err(e.into()),
        }
    }
}

fn ids(uid: u32, gid: u32) -> (rustix::fs::Uid, rustix::fs::Gid) {
    (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid))
}

fn timestamps((atime, mtime): (Timestamp, Timestamp)) -> rustix::fs::Timestamps {
    rustix::fs::Timestamps { last_access: atime.timespec(), last_modification: mtime.timespec() }
}

/// Attributes from `stat`. An error for a type that Linux doesn't know.
pub(crate) fn stat_of(s: &rustix::fs::Stat) -> io::Result<Stat> {
    let kind = Kind::from_mode(s.st_mode).ok_or(io::ErrorKind::Unsupported)?;
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds: nanoseconds as u32 };
    Ok(Stat {
        id: BackingId { dev: s.st_dev, ino: s.st_ino },
        attr: Attr {
            kind,
            mode: s.st_mode & 0o7777,
            uid: s.st_uid,
            gid: s.st_gid,
            nlink: s.st_nlink as u32,
            rdev: s.st_rdev as u32,
            size: s.st_size as u64,
            blocks: s.st_blocks as u64,
            atime: time(s.st_atime, s.st_atime_nsec),
            mtime: time(s.st_mtime, s.st_mtime_nsec),
            ctime: time(s.st_ctime, s.st_ctime_nsec),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_symbolic_link_in_the_middle_of_a_path_is_refused() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("real")).expect("mkdir");
        std::fs::write(dir.path().join("real/file"), b"x").expect("write");
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).expect("symlink");
        let backing = LocalBacking::open(dir.path()).expect("open");
        assert!(backing.open_read(b"real/file").is_ok());
        assert!(backing.open_read(b"link/passwd").is_err());
        assert!(backing.stat(b"../x").is_err());
    }

    #[test]
    fn what_is_made_where_its_owner_may_not_is_his_from_the_start() {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("AIMSS_NO_SKIPS").is_none(), "skipped layers count as failures here");
            println!("skipped: only root can act as somebody else");
            return;
        }
        // Readable by nobody but root: the way there is refused too.
        let dir = tempfile::tempdir().expect("a temporary directory");
        let backing = LocalBacking::open(dir.path()).expect("open");
        std::fs::create_dir(dir.path().join("theirs")).expect("mkdir");
        let owner = Owner { uid: 12_345, gid: 54_321 };
        backing.create(b"theirs/file", 0o644, owner).expect("create");
        backing.make(b"theirs/dir", &Make::Directory, 0o755, owner).expect("make");
        for path in [&b"theirs/file"[..], b"theirs/dir"] {
            let attr = backing.stat(path).expect("stat").attr;
            assert_eq!((attr.uid, attr.gid), (owner.uid, owner.gid));
        }
        // The thread is root again, with all its rights.
        backing.create(b"theirs/ours", 0o644, Owner::ROOT).expect("create");
        assert_eq!(backing.stat(b"theirs/ours").expect("stat").attr.uid, 0);
        std::fs::set_permissions(
            dir.path().join("theirs"),
            std::os::unix::fs::PermissionsExt::from_mode(0o000),
        )
        .expect("chmod");
        assert!(backing.stat(b"theirs/ours").is_ok());
    }

    #[test]
    fn ranges_grow_to_pages_and_merge() {
        assert_eq!(whole_pages(&[0..10, 4096..5000, 12288..12289]), vec![0..8192, 12288..16384]);
    }

    #[test]
    fn large_content_arrives_whole_and_with_its_size() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let backing = LocalBacking::open(dir.path()).expect("open");
        let owner = Owner { uid: 0, gid: 0 };
        let content: Vec<u8> = (0..DIRECT_BYTES_MIN as usize + 12_345).map(|i| (i / 7) as u8).collect();
        let mut padded = memmap2::MmapMut::map_anon(content.len()).expect("map");
        padded.copy_from_slice(&content);
        let file = backing.create(b"large", 0o644, owner).expect("create");
        // The mapping's last page is whole, as an arena file's is.
        let size = content.len() as u64;
        // SAFETY: the anonymous mapping is rounded up to whole pages by the kernel.
        let whole =
            unsafe { std::slice::from_raw_parts(padded.as_ptr(), content.len().next_multiple_of(4096)) };
        let ways = std::cell::Cell::new([0, 0]);
        let count = |way, bytes| {
            let [direct, cached] = ways.get();
            ways.set(if way == Way::Direct { [direct + bytes, cached] } else { [direct, cached + bytes] });
        };
        backing.copy_in(&file, whole, &[0..size], size, &count).expect("copy");
        // Past the page cache in whole pages, or all of it through it.
        assert!([[size.next_multiple_of(4096), 0], [0, size]].contains(&ways.get()), "{ways:?}");
        assert_eq!(std::fs::read(dir.path().join("large")).expect("read"), content);
    }
}
