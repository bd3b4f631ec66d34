//! A small disk of a test's own: ext4 in an image file, which can be full, and can be frozen as a disk that stalls.

use crate::mount::well;
use crate::{Mode, Mount, Setup, skip, skip_allowed};
use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk, unmounted and removed when dropped. Drop it after what uses it.
#[derive(Debug)]
pub struct Disk {
    point: PathBuf,
    image: PathBuf,
}

/// As long as it lives, whoever writes to the disk waits. Drop it before what uses the disk.
#[derive(Debug)]
pub struct Frozen<'d>(&'d Disk);

impl Disk {
    /// Makes one of so many bytes and mounts it on the directory `point`, whose parent goes with it. An error where
    /// e2fsprogs or loop devices are missing, or we are not root.
    pub fn mount(point: &Path, bytes: u64) -> Result<Self> {
        let disk = Self { point: point.to_path_buf(), image: point.with_extension("image") };
        fs::File::create(&disk.image)?.set_len(bytes)?;
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-m", "0", "-E", "nodiscard"]).arg(&disk.image);
        well(&make.output().context("mkfs.ext4 can't be run")?)?;
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop"]).arg(&disk.image).arg(&disk.point);
        well(&mount.output()?).context("no disk in a file can be mounted")?;
        Ok(disk)
    }

    /// Has all writers wait.
    pub fn freeze(&self) -> Result<Frozen<'_>> {
        well(&Command::new("fsfreeze").arg("-f").arg(&self.point).output()?)?;
        Ok(Frozen(self))
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0.point).output();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = unmount(&self.point, UnmountFlags::DETACH);
        let _ = fs::remove_file(&self.image);
        // Whoever made the directories could not remove them while we were mounted there.
        if let Some(place) = self.point.parent() {
            let _ = fs::remove_dir_all(place);
        }
    }
}

/// Runs `body` on a mount over a disk of its own of so many bytes, in both modes.
pub fn on_a_disk(bytes: u64, memory: &'static str, body: impl Fn(&Mount, &Disk) -> Result<()>) {
    if !Path::new("/dev/loop-control").exists() {
        // A container has none, whatever is installed in it.
        return skip_allowed("no loop devices");
    }
    for mode in [Mode::Passthrough, Mode::Daemon] {
        let setup = Setup { memory, drain_delay: "100ms", ..Setup::new(mode) };
        let mut made = None;
        let mount = Mount::start_over(&setup, |backing| {
            made = Some(Disk::mount(backing, bytes));
            Ok(())
        });
        let Some((mount, disk)) = mount.zip(made) else { return };
        let disk = match disk {
            Ok(disk) => disk,
            Err(error) => return skip(&format!("{error:#}")),
        };
        // Declared last, dropped first: the disk outlives its mount, whatever happens.
        let mount = mount;
        body(&mount, &disk).unwrap_or_else(|error| panic!("{mode:?}: {error:?}"));
        mount.finish();
    }
}
