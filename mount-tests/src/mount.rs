//! A real mount of its own for one test, which leaves nothing behind.
//!
//! 1. Everything lies in one temporary directory: `backing`, `mnt`, `log`. Other users can reach it, because tests
//!    switch users.
//! 2. [`Mount::finish`] is the good end: the mount's tree and the backing after `aimss umount` must be equal, the
//!    state directory gone, the log without a panic.
//! 3. A daemon that hangs must not hang the tests: after [`Setup::longest`] the connection is aborted, so that what waits
//!    for it gets an error, and `aimss` itself is given `COMMAND_LIMIT`.
//! 4. Dropped in any other way, also by a panic, the mount is given up in steps, each for when the one before did
//!    not help: `aimss umount --lazy`, the connection's abort and umount2(2), the daemon's end, the arena's unmount.
//!    Only what has this mount point's path is touched.

use crate::failpoints::Failpoints;
use crate::tree::Tree;
use crate::{binary, skip};
use anyhow::{Context as _, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a program of another thread of this test, between fork and exec, may hold a copy of a descriptor.
const FORK_WAIT: Duration = Duration::from_secs(5);
/// How long a lazy unmount may take before harder means: nothing is left to drain that matters.
const LAZY_WAIT: Duration = Duration::from_secs(30);

/// Longer than any test takes on a slow machine.
const LONGEST: Duration = Duration::from_secs(300);
/// In seconds, as timeout(1) takes it: more than a drain of what tests write takes on a slow disk.
const COMMAND_LIMIT: &str = "120";

/// Who serves the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The kernel, where the file is in memory.
    Passthrough,
    /// The daemon, each call.
    Daemon,
}

/// How to mount.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Who serves the files.
    pub mode: Mode,
    /// `--memory`. The default is small enough for the smallest CI machine, with tests side by side.
    pub memory: &'static str,
    /// `--drain-delay`. A long one keeps changes in memory until something asks for them.
    pub drain_delay: &'static str,
    /// `--slow-backing`: the backing as storage on another machine.
    pub slow: Option<&'static str>,
    /// `--revalidate` over a slow backing: as a rule nothing changes outside while a test runs.
    pub revalidate: &'static str,
    /// Its processes can be killed at places with a name, see [`Mount::failpoints`].
    pub failpoints: bool,
    /// `--overflow`, a file beside the backing, and its size.
    pub overflow: Option<&'static str>,
    /// `--gpu`, with 256 MiB of it; without, what `AIMSS_GPU` says.
    pub gpu: Option<&'static str>,
    /// The mount is given up if it lives longer.
    pub longest: Duration,
}

impl Setup {
    /// As users mount, but for the memory.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode,
            memory: "1G",
            drain_delay: "1s",
            slow: None,
            revalidate: "1h",
            failpoints: false,
            overflow: None,
            gpu: None,
            longest: LONGEST,
        }
    }
}

/// A mount, alive until [`finish`](Mount::finish) or drop.
#[derive(Debug)]
pub struct Mount {
    setup: Setup,
    place: TempDir,
    /// A machine has one overflow at a time.
    _overflow: Option<File>,
    /// Dropped with the mount, which ends the thread that waits for it.
    _watched: Sender<()>,
}

impl Mount {
    /// Mounts an empty backing. `None` if this machine can't, which has then been said.
    pub fn start(setup: &Setup) -> Option<Self> {
        Self::start_over(setup, |_| Ok(()))
    }

    /// Mounts a backing that `fill` has put files into.
    pub fn start_over(setup: &Setup, fill: impl FnOnce(&Path) -> Result<()>) -> Option<Self> {
        if let Some(reason) = why_not() {
            skip(&reason);
            return None;
        }
        let place = place().expect("the disk takes a directory");
        let watched = watch(place.path().join("mnt"), setup.longest);
        let overflow = setup.overflow.map(|_| only_one().expect("a file that can be locked"));
        let mount = Self { setup: setup.clone(), place, _overflow: overflow, _watched: watched };
        fill(&mount.backing()).expect("the backing can be filled");
        mount.mount_again().expect("the mount is made");
        Some(mount)
    }

    /// The directory on the disk.
    pub fn backing(&self) -> PathBuf {
        self.place.path().join("backing")
    }

    /// The mount point.
    pub fn point(&self) -> PathBuf {
        self.place.path().join("mnt")
    }

    /// A directory of this test beside them, on the backing's disk.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A path on the mount.
    pub fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.point().join(name)
    }

    /// The same path on the backing.
    pub fn behind(&self, name: impl AsRef<Path>) -> PathBuf {
        self.backing().join(name)
    }

    /// Runs `aimss mount` with the same settings.
    pub fn mount_again(&self) -> Result<()> {
        let mut command = limited();
        command.arg("mount").arg(self.backing()).arg(self.point()).arg("--allow-other");
        command.args(["--memory", self.setup.memory, "--drain-delay", self.setup.drain_delay]);
        command.arg("--log").arg(self.beside("log"));
        if self.setup.mode == Mode::Daemon {
            command.args(["--no-passthrough", "**"]);
        }
        if let Some(model) = self.setup.slow {
            command.args(["--slow-backing", model, "--revalidate", self.setup.revalidate]);
        }
        if let Some(size) = self.setup.overflow {
            command.arg("--overflow").arg(self.beside("overflow")).args(["--overflow-size", size]);
        }
        if let Some(gpu) = self.setup.gpu.map(str::to_owned).or_else(|| std::env::var("AIMSS_GPU").ok()) {
            command.args(["--gpu", &gpu, "--gpu-memory", "256M", "--gpu-reserve", "64M"]);
        }
        if self.setup.failpoints {
            self.failpoints()?;
            command.env("AIMSS_FAILPOINTS", self.beside("failpoints"));
        }
        well(&command.stdin(Stdio::null()).output()?)
    }

    /// Its failpoints, with none armed.
    pub fn failpoints(&self) -> Result<Failpoints> {
        Failpoints::create(&self.beside("failpoints"))
    }

    /// Waits until a second daemon stands ready.
    pub fn wait_for_standby(&self) {
        let stands = || self.status().is_ok_and(|status| status["keeper"]["standby"]["pid"].is_u64());
        crate::wait_until("a second daemon stands ready", Duration::from_secs(20), stands);
    }

    /// Has a daemon of another program take over.
    pub fn upgrade(&self, program: &Path) -> Result<()> {
        let before = self.daemon_pid();
        well(&self.aimss(&["upgrade", "--binary", program.to_str().context("a path in UTF-8")?]))?;
        ensure!(self.daemon_pid() != before, "the daemon is another");
        let running = self.program()?;
        ensure!(running == fs::canonicalize(program)?, "{} serves", running.display());
        Ok(())
    }

    /// The program that the daemon runs; with ` (deleted)` behind its path if that is gone.
    pub fn program(&self) -> Result<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/exe", self.daemon_pid().context("a daemon")?))?)
    }

    /// Runs `aimss SUBCOMMAND... MOUNTPOINT`, whatever comes of it.
    pub fn aimss(&self, subcommand: &[&str]) -> Output {
        let mut command = limited();
        command.args(subcommand).arg(self.point()).stdin(Stdio::null());
        command.output().expect("the binary can be run")
    }

    /// Waits until everything is on the backing.
    pub fn drain(&self) -> Result<()> {
        well(&self.aimss(&["drain"]))
    }

    /// `aimss umount`. A process of this test that is about to be another program is waited for.
    pub fn umount(&self) -> Result<()> {
        let start = Instant::now();
        loop {
            let output = self.aimss(&["umount"]);
            let said = String::from_utf8_lossy(&output.stderr);
            if !said.contains("is in use") || start.elapsed() > FORK_WAIT {
                return well(&output);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What `aimss status --json` says of this mount.
    pub fn status(&self) -> Result<serde_json::Value> {
        let output = self.aimss(&["status", "--json"]);
        well(&output)?;
        let mut all: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(all["mounts"][0].take())
    }

    /// Kills keeper and daemon as a crash of both would, and returns when they are gone.
    pub fn kill_both(&self) -> Result<()> {
        let daemon = self.daemon().context("the mount has a daemon")?;
        if let Some(keeper) = self.process("keeper") {
            kill(keeper);
        }
        kill(daemon);
        Ok(())
    }

    /// Stops keeper and daemon where they are, as if they hung. They go on when they are killed.
    pub fn stop_both(&self) -> Result<()> {
        for pid in [self.process("keeper"), self.daemon()] {
            send(pid.context("the mount is served")?, rustix::process::Signal::STOP);
        }
        Ok(())
    }

    /// Kills the daemon as a crash would; its keeper starts the next one. Returns when that serves.
    pub fn kill_daemon(&self) -> Result<()> {
        let daemon = self.daemon().context("the mount has a daemon")?;
        send(daemon, rustix::process::Signal::KILL);
        let next = || self.daemon().is_some_and(|next| next != daemon);
        crate::wait_until("the next daemon", Duration::from_secs(20), next);
        Ok(())
    }

    /// Has the daemon end as by a fault of its own. Returns when it is gone.
    pub fn crash_daemon(&self) -> Result<()> {
        let daemon = self.daemon().context("the mount has a daemon")?;
        send(daemon, rustix::process::Signal::ABORT);
        crate::wait_until("its end", Duration::from_secs(20), || self.daemon() != Some(daemon));
        Ok(())
    }

    /// Whether anything is mounted there.
    pub fn is_mounted(&self) -> bool {
        is_mounted(&self.point())
    }

    /// The daemon of this moment.
    pub fn daemon_pid(&self) -> Option<i32> {
        self.daemon()
    }

    /// The directory in memory that holds the files' contents.
    pub fn arena(&self) -> Option<PathBuf> {
        Some(self.state_dirs().first()?.join("arena"))
    }

    /// Unmounts, and fails unless the backing then shows the tree that the mount showed, and nothing is left.
    pub fn finish(self) {
        self.drain().expect("the backing takes everything");
        let shown = Tree::read(&self.point()).expect("the mount can be read");
        self.umount().expect("the mount can be unmounted");
        let kept = Tree::read(&self.backing()).expect("the backing can be read");
        shown.assert_same(&kept, "the mount", "the backing after umount");
        assert!(self.state_dirs().is_empty(), "umount left {:?}", self.state_dirs());
        let log = fs::read(self.beside("log")).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        assert!(!log.contains("panicked"), "the daemon's log:\n{log}");
    }

    fn daemon(&self) -> Option<i32> {
        self.process("pid")
    }

    /// `pid` for the daemon, or `keeper`.
    fn process(&self, which: &str) -> Option<i32> {
        let record = fs::read(self.state_dirs().first()?.join("mount.json")).ok()?;
        let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
        let (pid, when) = match which {
            "pid" => (&record["pid"], &record["started"]),
            _ => (&record[which][0], &record[which][1]),
        };
        let pid = pid.as_i64()?.try_into().ok()?;
        // The number of a process that is long dead may be another one's by now.
        (started(pid) == when.as_u64()).then_some(pid)
    }

    /// The state directories whose record names our mount point: none or one.
    fn state_dirs(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir("/run/aimss") else { return Vec::new() };
        let ours = |dir: &PathBuf| {
            let record = fs::read(dir.join("mount.json")).unwrap_or_default();
            let record: serde_json::Value = serde_json::from_slice(&record).unwrap_or_default();
            record["mountpoint"].as_str().map(Path::new) == Some(&self.point())
        };
        entries.flatten().map(|entry| entry.path()).filter(ours).collect()
    }

    fn give_up(&self) {
        let mut lazy = binary::aimss();
        lazy.args(["umount", "--lazy"]).arg(self.point()).stdin(Stdio::null()).stderr(Stdio::null());
        if let Ok(mut lazy) = lazy.spawn() {
            let start = Instant::now();
            while matches!(lazy.try_wait(), Ok(None)) && start.elapsed() < LAZY_WAIT {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = lazy.kill();
            let _ = lazy.wait();
        }
        while abort(&self.point()) {
            if unmount(self.point(), UnmountFlags::DETACH).is_err() {
                break;
            }
        }
        for pid in [self.process("keeper"), self.daemon()].into_iter().flatten() {
            kill(pid);
        }
        for dir in self.state_dirs() {
            let _ = unmount(dir.join("arena"), UnmountFlags::DETACH);
            let _ = fs::remove_dir_all(dir);
        }
        if self.setup.overflow.is_some() {
            let mut end = Command::new("swapoff");
            let _ = end.arg(self.beside("overflow")).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if is_mounted(&self.point()) || !self.state_dirs().is_empty() {
            if std::thread::panicking() {
                let log = fs::read(self.beside("log")).unwrap_or_default();
                eprintln!("the daemon's log:\n{}", String::from_utf8_lossy(&log));
            }
            self.give_up();
        }
    }
}

/// Waits for other tests, of other processes too, that have an overflow.
fn only_one() -> Result<File> {
    // The directory itself: nothing stays.
    let held = File::open(std::env::temp_dir())?;
    held.lock()?;
    Ok(held)
}

/// Fails with what a command said, unless it succeeded.
pub fn well(output: &Output) -> Result<()> {
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Why nothing can be mounted here.
fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("tests on mounts need root, for passthrough, owners and devices".into());
    }
    let opened = File::options().read(true).write(true).open("/dev/fuse");
    opened.err().map(|error| format!("/dev/fuse can't be opened: {error}"))
}

/// A directory that other users can reach, with the two that a mount needs.
pub fn place() -> Result<TempDir> {
    let disk = std::env::var_os("CARGO_TARGET_TMPDIR").unwrap_or_else(|| "/var/tmp".into());
    // The mount is known by its real path.
    let place = tempfile::Builder::new().prefix("aimss-test-").tempdir_in(fs::canonicalize(disk)?)?;
    fs::set_permissions(place.path(), Permissions::from_mode(0o755))?;
    for name in ["backing", "mnt"] {
        fs::create_dir(place.path().join(name))?;
    }
    Ok(place)
}

/// Whether a FUSE file system is mounted at `point`, from the mount table: a dead one can't be asked.
fn is_mounted(point: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let line = table.lines().rev().find(|line| line.split(' ').nth(4).map(Path::new) == Some(point));
    line.and_then(|line| line.split_once(" - ")).is_some_and(|(_, tail)| tail.starts_with("fuse"))
}

/// Whether something was mounted at `point`; requests that wait for its daemon get an error.
fn abort(point: &Path) -> bool {
    let mounted = is_mounted(point);
    if mounted {
        // Aborts first, and fails where it is in use.
        let _ = unmount(point, UnmountFlags::FORCE);
    }
    mounted
}

/// Aborts the mount at `point` unless what is returned is dropped within `longest`.
fn watch(point: PathBuf, longest: Duration) -> Sender<()> {
    let (watched, ended) = channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(longest) == Err(RecvTimeoutError::Timeout) {
            eprintln!("{} is given up after {longest:?}", point.display());
            abort(&point);
        }
    });
    watched
}

/// `aimss`, ended when it takes too long.
fn limited() -> Command {
    let mut command = Command::new("timeout");
    command.arg(COMMAND_LIMIT).arg(binary::path());
    command
}

/// When a process that runs started, in clock ticks since boot: field 22 of `/proc/PID/stat`, the 20th after the name.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split_whitespace();
    // A zombie does nothing any more.
    let (state, started) = (fields.next()?, fields.nth(18)?);
    (state != "Z").then(|| started.parse().ok())?
}

fn send(pid: i32, signal: rustix::process::Signal) {
    if let Some(pid) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn kill(pid: i32) {
    send(pid, rustix::process::Signal::KILL);
    // Dead is not gone: its memory and descriptors are freed first. A zombie holds neither.
    let gone = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('Z'))
    };
    crate::wait_until("the daemon's end", Duration::from_secs(20), gone);
}
