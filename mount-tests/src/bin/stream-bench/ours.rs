//! Our side: streams and groups, which are files on a mount.
//!
//! A directory that is no aimss mount is a *stand-in*: groups are then the plain file, read from its start,
//! and its end is taken for "nothing yet". It tries the harness; its figures are the file system's.

use aimss_mount_tests::{binary, mount::well};
use anyhow::{Context as _, Result, ensure};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a reader of a stand-in waits at its end. Never used on a mount.
const STAND_IN_NAP: Duration = Duration::from_micros(50);

/// The directory on the mount in which all rows work; removed at the end.
const SCRATCH: &str = "stream-bench";

/// Where our streams lie.
#[derive(Debug)]
pub struct Ours {
    point: PathBuf,
    backing: Option<PathBuf>,
    mount_options: Vec<String>,
    mounted_here: bool,
}

impl Ours {
    /// Streams at `point`, over `backing` if it is to be mounted here.
    pub fn new(point: &Path, backing: Option<&Path>, mount_options: &str) -> Result<Self> {
        let point = fs::canonicalize(point).with_context(|| format!("{} is not there", point.display()))?;
        let mount_options = mount_options.split_whitespace().map(str::to_owned).collect();
        let mut ours = Self { point, backing: backing.map(Into::into), mount_options, mounted_here: false };
        if let Some(backing) = backing {
            ensure!(!ours.is_mount(), "{} is mounted already; leave --backing out", ours.point.display());
            ours.mount(backing)?;
        }
        ours.scratch()?;
        Ok(ours)
    }

    /// Whether an aimss mount is there.
    pub fn is_mount(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let point = self.point.to_string_lossy();
        table.lines().any(|line| line.split(' ').nth(4) == Some(&point) && line.contains(" - fuse"))
    }

    /// The directory to be mounted, if it was given.
    pub fn backing(&self) -> Option<&Path> {
        self.backing.as_deref()
    }

    /// A file of this name in the scratch directory.
    pub fn at(&self, name: &str) -> PathBuf {
        self.point.join(SCRATCH).join(name)
    }

    /// Makes the scratch directory on what is mounted now, without what an earlier run left there.
    pub fn scratch(&self) -> Result<()> {
        self.clear()?;
        fs::create_dir(self.point.join(SCRATCH)).context("the mount takes no directory")
    }

    fn clear(&self) -> Result<()> {
        match fs::remove_dir_all(self.point.join(SCRATCH)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).context("the scratch directory stays")
            }
            _ => Ok(()),
        }
    }

    /// `aimss mount`, which returns when the mount is ready.
    pub fn mount(&mut self, backing: &Path) -> Result<()> {
        let mut command = binary::aimss();
        command.arg("mount").arg(backing).arg(&self.point).args(&self.mount_options);
        well(&command.output()?).with_context(|| format!("mounting {}", backing.display()))?;
        self.mounted_here = true;
        Ok(())
    }

    /// `aimss umount`.
    pub fn umount(&mut self) -> Result<()> {
        self.aimss(&["umount"])?;
        self.mounted_here = false;
        Ok(())
    }

    /// `aimss drain`.
    pub fn drain(&self) -> Result<()> {
        if self.is_mount() { self.aimss(&["drain"]) } else { Ok(()) }
    }

    fn aimss(&self, subcommand: &[&str]) -> Result<()> {
        let output = binary::aimss().args(subcommand).arg(&self.point).output()?;
        well(&output).with_context(|| format!("aimss {}", subcommand.join(" ")))
    }

    /// Makes a stream: by opening it where there are no `options`, else by `aimss stream create OPTIONS
    /// PATH`.
    pub fn create(&self, path: &Path, options: &str) -> Result<()> {
        if options.is_empty() || !self.is_mount() {
            return open_append(path).map(drop);
        }
        let mut command = binary::aimss();
        command.args(["stream", "create"]).args(options.split_whitespace()).arg(path);
        well(&command.output()?).context("aimss stream create")
    }

    /// The file of a group of a stream; `until_tail` for the one that ends there.
    pub fn group(&self, stream: &Path, group: &str, until_tail: bool) -> PathBuf {
        if !self.is_mount() {
            return stream.to_owned();
        }
        let mut path = stream.as_os_str().to_owned().into_vec();
        path.extend(format!("@{group}{}", if until_tail { "+eof" } else { "" }).bytes());
        OsString::from_vec(path).into()
    }

    /// The daemon's process; `None` of a stand-in.
    pub fn daemon(&self) -> Result<Option<i32>> {
        if !self.is_mount() {
            return Ok(None);
        }
        let output = binary::aimss().args(["status", "--json"]).arg(&self.point).output()?;
        well(&output)?;
        let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        let pid = status["mounts"][0]["daemon"]["pid"].as_i64().context("no daemon in the status")?;
        Ok(Some(pid.try_into()?))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let cleared = self.clear();
        let unmounted = if self.mounted_here { self.umount() } else { Ok(()) };
        for error in cleared.err().into_iter().chain(unmounted.err()) {
            eprintln!("stream-bench: {error:#}");
        }
    }
}

/// Opens as a shell's `>>` does.
pub fn open_append(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("{} can't be opened for appending", path.display()))
}

/// read(2) that waits; at the end of a stand-in it asks again.
pub fn read_waiting(file: &mut File, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match file.read(buffer)? {
            0 => std::thread::sleep(STAND_IN_NAP),
            got => return Ok(got),
        }
    }
}
