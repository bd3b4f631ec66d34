//! Where memory of open files goes that nothing else could take: a swap file, or a swap device, of the arena's own.
//!
//! An open passthrough file is tied to its arena file, whose pages may neither be moved nor punched. Swapped out they may
//! be: readers, writers and mappings find them again, since the kernel brings them back. MADV_PAGEOUT of a mapping of ours
//! swaps out what we choose (`../shared/probes/pause/pageout.c` of the design: 1.7 GB/s out, 3.6 GB/s back).
//!
//! Limits: what a program has mapped itself, the kernel leaves where it is. Pages that are swapped out may stay cached
//! until somebody needs the memory. And like all swap, the kernel may use it for others when the machine is short.

use memmap2::MmapOptions;
use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Of the kernel, on all machines that we build for.
const PAGE_BYTES: u64 = 4096;
/// Swapped out by one call.
const STEP_BYTES: u64 = 16 << 20;
/// At the end of the first page of what is set up as swap.
const MAGIC: &[u8; 10] = b"SWAPSPACE2";
/// Where the first page tells the version, and then the number of the last page (`union swap_header` of linux/swap.h).
const HEADER_AT: usize = 1024;
/// The label of files that we set up, by which we know them again.
const LABEL: &[u8; 14] = b"aimss-overflow";
const LABEL_AT: usize = HEADER_AT + 28;
/// Before all other swap of the machine (SWAP_FLAG_PREFER, and the highest priority): what is swapped out is to go here.
const PREFERRED: libc::c_int = 0x8000 | PRIORITY;
const PRIORITY: libc::c_int = 0x7fff;
/// Small ones are not worth it, and the kernel refuses the smallest.
const BYTES_MIN: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub struct Overflow {
    path: PathBuf,
    bytes: u64,
    used: AtomicU64,
    /// What files of ours hold there at most.
    ours: AtomicU64,
}

impl Overflow {
    /// Makes the file `path`, of `bytes`, and swaps to it from now on; or swaps to the device that it is, which has to be
    /// set up as swap. [`check_free`] comes before.
    pub fn open(path: &Path, bytes: u64) -> io::Result<Overflow> {
        let other = |what: &str| io::Error::other(what.to_owned());
        let ours = match fs::metadata(path) {
            Ok(there) if there.file_type().is_block_device() => false,
            Ok(there) if there.is_file() && is_ours(path) => {
                fs::remove_file(path)?;
                true
            }
            Ok(_) => {
                return Err(other("something else is there already; give the name of a file to be made"));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => true,
            Err(e) => return Err(e),
        };
        if ours {
            set_up(path, bytes).inspect_err(|_| drop(fs::remove_file(path)))?;
        } else if !is_swap(path)? {
            return Err(other(
                "it is a device that is not set up as swap; `mkswap` does that, and erases it",
            ));
        }
        swap_on(path).inspect_err(|_| {
            if ours {
                let _ = fs::remove_file(path);
            }
        })?;
        let bytes = in_use(path)?.map_or(bytes, |area| area.bytes);
        Ok(Overflow { path: path.into(), bytes, used: AtomicU64::new(0), ours: AtomicU64::new(0) })
    }

    /// Goes on with one that a daemon that died began; `None` where it is not in use any more.
    pub fn take_up(path: &Path) -> io::Result<Option<Overflow>> {
        let area = in_use(path)?;
        Ok(area.map(|area| Overflow {
            path: path.into(),
            bytes: area.bytes,
            used: AtomicU64::new(area.used),
            ours: AtomicU64::new(0),
        }))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is in it, as of the last look; not what the kernel put there for others.
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed).min(self.ours.load(Ordering::Relaxed))
    }

    /// The files whose memory goes there hold `bytes` in all.
    pub(crate) fn is_for(&self, bytes: u64) {
        self.ours.store(bytes, Ordering::Relaxed);
    }

    /// Sees how much is in it.
    pub(crate) fn look(&self) {
        if let Ok(Some(area)) = in_use(&self.path) {
            self.used.store(area.used, Ordering::Relaxed);
        }
    }
}

/// Whether a path can become the overflow. Not if it is in use as swap already, by whomever: what we did not begin, we must
/// not end. And not beside swap of the same priority, another mount's overflow: the kernel would share our pages out.
pub fn check_free(path: &Path) -> io::Result<()> {
    let path = resolved(path);
    for area in areas()? {
        if area.path == path {
            return Err(io::Error::other("it is in use as swap already"));
        }
        if area.priority == PRIORITY {
            let name = area.path.display();
            return Err(io::Error::other(format!(
                "{name} is another mount's overflow, and a machine can have one"
            )));
        }
    }
    Ok(())
}

/// Ends a swap file, and removes it if it is a file of ours. What is in it comes back to memory first, so call it when the
/// files are gone.
pub fn release(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a string that ends with a zero.
    if in_use(path)?.is_some() && unsafe { libc::swapoff(name.as_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    if is_ours(path) { fs::remove_file(path) } else { Ok(()) }
}

/// Swaps what is in memory of `range` of an arena file out, as far as the kernel does it; `enough` is told between steps
/// how far that is.
pub(crate) fn page_out(
    file: &File,
    range: Range<u64>,
    mut enough: impl FnMut(u64) -> bool,
) -> io::Result<()> {
    let mut from = range.start / PAGE_BYTES * PAGE_BYTES;
    while from < range.end && !enough(from) {
        let bytes = STEP_BYTES.min(range.end - from);
        let end = from + bytes;
        // SAFETY: read by nobody, not even by us; that the file may shrink meanwhile is the kernel's to bear.
        let map = unsafe { MmapOptions::new().offset(from).len(bytes as usize).map(file)? };
        let mut resident = vec![0_u8; bytes.div_ceil(PAGE_BYTES) as usize];
        let start = map.as_ptr().cast_mut().cast::<libc::c_void>();
        // SAFETY: the mapping's own range, and a byte for each of its pages.
        if unsafe { libc::mincore(start, bytes as usize, resident.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        for run in runs(&resident) {
            let (offset, length) = (run.start * PAGE_BYTES as usize, run.len() * PAGE_BYTES as usize);
            for advice in [libc::MADV_POPULATE_READ, libc::MADV_PAGEOUT] {
                // SAFETY: within the mapping; neither changes what the file holds. One that fails, because the file was cut
                // meanwhile, has swapped out less.
                unsafe { libc::madvise(start.byte_add(offset), length, advice) };
            }
        }
        from = end;
    }
    Ok(())
}

/// Runs of pages that are in memory.
fn runs(resident: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + resident[at..].iter().position(|page| page & 1 == 1)?;
        let length = resident[start..].iter().position(|page| page & 1 == 0);
        at = length.map_or(resident.len(), |length| start + length);
        Some(start..at)
    })
}

/// A swap file or device that is in use.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    path: PathBuf,
    bytes: u64,
    used: u64,
    priority: libc::c_int,
}

/// All of them.
fn areas() -> io::Result<Vec<Area>> {
    Ok(fs::read_to_string("/proc/swaps")?.lines().skip(1).filter_map(area).collect())
}

/// A line of /proc/swaps: name, kind, size and use in KiB, priority.
fn area(line: &str) -> Option<Area> {
    let mut fields = line.split_ascii_whitespace();
    let path = PathBuf::from(OsString::from_vec(unescaped(fields.next()?)));
    let mut kib = || fields.next()?.parse::<u64>().ok();
    let (_kind, bytes, used) = (kib(), kib()? * 1024, kib()? * 1024);
    Some(Area { path, bytes, used, priority: fields.next()?.parse().ok()? })
}

/// A swap file or device, if it is in use.
fn in_use(path: &Path) -> io::Result<Option<Area>> {
    let path = resolved(path);
    Ok(areas()?.into_iter().find(|area| area.path == path))
}

/// As the kernel names it.
fn resolved(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// A name as /proc shows it: blanks and backslashes as octal numbers.
fn unescaped(name: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(name.len()), name.as_bytes());
    while let Some((byte, behind)) = rest.split_first() {
        let octal = behind.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| *byte == b'\\') {
            Some(escaped) => {
                out.push(escaped);
                rest = &behind[3..];
            }
            None => {
                out.push(*byte);
                rest = behind;
            }
        }
    }
    out
}

fn first_page(path: &Path) -> io::Result<Vec<u8>> {
    let mut page = vec![0; PAGE_BYTES as usize];
    File::open(path)?.read_exact_at(&mut page, 0)?;
    Ok(page)
}

fn is_swap(path: &Path) -> io::Result<bool> {
    Ok(first_page(path)?.ends_with(MAGIC))
}

fn is_ours(path: &Path) -> bool {
    first_page(path).is_ok_and(|page| page.ends_with(MAGIC) && page[LABEL_AT..].starts_with(LABEL))
}

/// Makes a file and sets it up as swap.
fn set_up(path: &Path, bytes: u64) -> io::Result<()> {
    let bytes = bytes / PAGE_BYTES * PAGE_BYTES;
    if bytes < BYTES_MIN {
        return Err(io::Error::other(format!("{bytes} bytes are too few")));
    }
    let file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
    let mut page = vec![0; PAGE_BYTES as usize];
    page[HEADER_AT..HEADER_AT + 4].copy_from_slice(&1_u32.to_ne_bytes());
    let last = u32::try_from(bytes / PAGE_BYTES - 1).map_err(io::Error::other)?;
    page[HEADER_AT + 4..HEADER_AT + 8].copy_from_slice(&last.to_ne_bytes());
    page[LABEL_AT..LABEL_AT + LABEL.len()].copy_from_slice(LABEL);
    let magic_at = page.len() - MAGIC.len();
    page[magic_at..].copy_from_slice(MAGIC);
    file.write_all_at(&page, 0)?;
    file.sync_all()
}

fn swap_on(path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a string that ends with a zero.
    match unsafe { libc::swapon(name.as_ptr(), PREFERRED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_runs_are_understood() {
        assert_eq!(unescaped(r"/a\040b\134c"), b"/a b\\c");
        assert_eq!(unescaped(r"/plain\x"), br"/plain\x");
        let line = "/a\\040b                                 file\t\t4194300\t\t79668\t\t-2";
        let path = PathBuf::from("/a b");
        assert_eq!(area(line), Some(Area { path, bytes: 4_194_300 << 10, used: 79_668 << 10, priority: -2 }));
        assert_eq!(runs(&[1, 1, 0, 1, 0, 0]).collect::<Vec<_>>(), [0..2, 3..4]);
        assert_eq!(runs(&[0, 3]).collect::<Vec<_>>(), [1..2]);
        assert_eq!(runs(&[]).count(), 0);
    }

    #[test]
    fn what_is_set_up_is_known_again_and_nothing_else_is_touched() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("swap");
        assert!(set_up(&path, 4095).is_err() && !path.exists());
        set_up(&path, BYTES_MIN).expect("set up");
        assert!(is_ours(&path) && is_swap(&path).expect("read"));
        assert_eq!(fs::metadata(&path).expect("it is there").len(), BYTES_MIN);
        release(&path).expect("removed");
        assert!(!path.exists());
        let other = place.path().join("other");
        fs::write(&other, vec![7; 8192]).expect("written");
        assert!(!is_ours(&other) && !is_swap(&other).expect("read"));
        assert!(Overflow::open(&other, BYTES_MIN).is_err());
        release(&other).expect("nothing to do");
        assert_eq!(fs::read(&other).expect("it is there"), vec![7; 8192]);
    }
}
