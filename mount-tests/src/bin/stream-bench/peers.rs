//! The systems a user would pick instead.

pub mod nats;
pub mod redis;

use aimss_mount_tests::child;
use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than a server needs to start.
const START_MAX: Duration = Duration::from_secs(20);

/// A server that was started here; killed when dropped: all of it is in memory.
#[derive(Debug)]
struct Started(Child);

impl Started {
    /// Runs `command`, its output thrown away, until `answers`.
    fn new(mut command: Command, mut answers: impl FnMut() -> bool) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child::spawn(&mut command);
        let mut started =
            Self(child.with_context(|| format!("{name} can't be run; see docs/benchmarks.md"))?);
        let start = Instant::now();
        while !answers() {
            if let Some(status) = started.0.try_wait()? {
                bail!("{name} ended at once ({status})");
            }
            anyhow::ensure!(start.elapsed() < START_MAX, "{name} doesn't answer after {START_MAX:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(started)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that `peers.sh install` may have put beside the others, else one of the path.
fn program(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let dir = std::env::var_os("PEERS_DIR")
        .map_or_else(|| Path::new(&home).join(".cache/aimss-peers"), PathBuf::from);
    let installed = dir.join("venv/bin").join(name);
    if installed.exists() { installed } else { name.into() }
}
