//! Rows about the bytes of large files: written, read, mapped.
//!
//! "Size known" means that the name has been written before: the mount then reserves what the file had. Both
//! sides rewrite the same name, as a checkpoint that is saved again does.

use super::rate;
use crate::bench::pairs::{Medians, alternate};
use crate::bench::report::{Bar, Outcome};
use crate::bench::{Context, memory, timed, work};
use crate::escape;
use crate::scratch::Mounted;
use anyhow::{Context as _, Result};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs;
use std::path::{Path, PathBuf};

const FILE_BYTES: u64 = 1 << 30;
const MIB: usize = 1 << 20;
/// Two copies (ours and theirs) and the memory that is touched beforehand must fit with room to spare.
const MEMORY_SHARE: u64 = 15;

fn file_bytes(context: &Context) -> u64 {
    context.scaled_to_memory(FILE_BYTES, MEMORY_SHARE)
}

/// Rewrites `file` on both sides in blocks of `block` bytes.
fn rewrite(context: &Context, ours: &Path, theirs: &Path, block: usize) -> Result<Medians> {
    let bytes = file_bytes(context);
    let block = work::buffer(block);
    let once = |path: &Path| -> Result<f64> {
        let time = timed(bytes, || work::write(path, bytes, &block))?;
        Ok(rate(bytes, time))
    };
    // The size becomes known, on both sides.
    work::write(ours, bytes, &block)?;
    work::write(theirs, bytes, &block)?;
    alternate(context.pairs, || once(ours), || once(theirs))
}

/// `write-1m`.
pub fn write_known(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let (ours, theirs) = (mount.point().join("file"), context.shm()?.join("file"));
    let medians = rewrite(context, &ours, &theirs, MIB)?;
    fs::remove_file(&theirs)?;
    Ok(vec![Outcome::against("/dev/shm", "GB/s", medians, Bar::AtLeast(4.0))])
}

/// `write-sizes`.
pub fn write_sizes(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let bar = Bar::AtLeast(0.9);
    let tmpfs = match Tmpfs::mount(context.disk("tmpfs")?, file_bytes(context) * 2) {
        Ok(tmpfs) => tmpfs,
        Err(error) => {
            return Ok(vec![Outcome::skipped(
                bar,
                format!("a tmpfs of our own can't be mounted: {error:#}"),
            )]);
        }
    };
    let mut outcomes = Vec::new();
    for (case, block) in [("4k", 4 << 10), ("64k", 64 << 10), ("1m", MIB)] {
        let name = format!("file-{case}");
        let (ours, theirs) = (mount.point().join(&name), tmpfs.0.join(&name));
        let medians = rewrite(context, &ours, &theirs, block)?;
        outcomes.push(Outcome::against("tmpfs", "GB/s", medians, bar).case(case));
        fs::remove_file(&ours)?;
        fs::remove_file(&theirs)?;
    }
    Ok(outcomes)
}

/// A tmpfs with the arena's options, unmounted when dropped.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(point: PathBuf, bytes: u64) -> Result<Self> {
        let options = std::ffi::CString::new(format!("mode=0700,huge=within_size,size={bytes}"))?;
        rustix::mount::mount("aimss-bench", &point, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .with_context(|| format!("at {}", escape::path(&point)))?;
        Ok(Self(point))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("aimss: {} is still mounted: {error}", escape::path(&self.0));
        }
    }
}

/// `write-unknown`: a new name in a new directory each time, so that neither the name's earlier size nor its
/// siblings' tell anything; and a name unlike those before, since directories beside it tell something too.
pub fn write_unknown(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let bytes = file_bytes(context);
    let block = work::buffer(MIB);
    let run = std::cell::Cell::new(0);
    let once = |base: &Path| -> Result<f64> {
        run.set(run.get() + 1);
        let dir = base.join(format!("dir-{}", run.get()));
        fs::create_dir(&dir)?;
        let path = dir.join("x".repeat(run.get()));
        let time = timed(bytes, || work::write(&path, bytes, &block))?;
        fs::remove_dir_all(&dir)?;
        Ok(rate(bytes, time))
    };
    let shm = context.shm()?;
    let medians = alternate(context.pairs, || once(mount.point()), || once(&shm))?;
    Ok(vec![Outcome::against("/dev/shm", "GB/s", medians, Bar::AtLeast(1.3))])
}

/// Writes the same file to both sides, then measures `again` on each, the first time not counted.
fn reread(
    context: &Context,
    mount: &Mounted,
    bar: f64,
    again: impl Fn(&Path, u64) -> Result<()>,
) -> Result<Vec<Outcome>> {
    let bytes = file_bytes(context);
    let (ours, theirs) = (mount.point().join("file"), context.shm()?.join("file"));
    memory::touch(bytes * 2)?;
    for path in [&ours, &theirs] {
        work::write(path, bytes, &work::buffer(MIB))?;
        again(path, bytes)?;
    }
    let once = |path: &Path| -> Result<f64> { Ok(rate(bytes, timed(0, || again(path, bytes))?)) };
    let medians = alternate(context.pairs, || once(&ours), || once(&theirs))?;
    fs::remove_file(&theirs)?;
    Ok(vec![Outcome::against("/dev/shm", "GB/s", medians, Bar::AtLeast(bar))])
}

/// `read`.
pub fn read(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    let buffer = std::cell::RefCell::new(work::buffer(MIB));
    reread(context, mount, 1.5, |path, bytes| work::read(path, bytes, &mut buffer.borrow_mut()))
}

/// `mmap-sum`.
pub fn mmap_sum(context: &Context, mount: &Mounted) -> Result<Vec<Outcome>> {
    reread(context, mount, 1.0, |path, _| {
        std::hint::black_box(memory::sum(path)?);
        Ok(())
    })
}
