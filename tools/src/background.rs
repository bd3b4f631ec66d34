//! The daemon's start: from `aimss mount`, which returns when the mount is ready, to a process of its own.
//!
//! 1. The parent starts its own binary (`/proc/self/exe`, so a replaced binary doesn't matter) with the
//!    hidden command `serve`, and writes the settings as JSON to its stdin.
//! 2. The child leaves the session and the directory it was started in, so that neither a closing terminal
//!    nor an unmount of that directory is in its way.
//! 3. The child's stdout is a pipe on which it says one line: `ready`, or `error` and a sentence. If it dies
//!    first, the pipe closes, and the parent says that.
//! 4. stderr is the log file, or the parent's stderr until the mount is ready and nothing afterwards.

use crate::logger;
use aimss_fs::config::MountConfig;
use anyhow::{Context as _, Result, anyhow, bail};
use log::LevelFilter;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const READY: &str = "ready";
const ERROR: &str = "error ";

/// Starts a daemon for `config` and returns when its mount can be used. The error is the daemon's sentence.
pub fn start(config: &MountConfig, log: Option<&Path>) -> Result<Child> {
    let stderr = match log {
        Some(path) => Stdio::from(open_log(path)?),
        None => Stdio::inherit(),
    };
    let log_flag = log.map(|_| "--log");
    let settings = serde_json::to_vec(config).context("the settings have no JSON form")?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("aimss")
        .arg("serve")
        .args(log_flag)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .context("the daemon can't be started")?;
    if let Some(mut stdin) = child.stdin.take() {
        // If the child died already, what it said is the better message.
        let _ = stdin.write_all(&settings);
    }
    let mut said = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut said)?;
    }
    if said.trim_end() == READY {
        return Ok(child);
    }
    let status = child.wait()?;
    match said.strip_prefix(ERROR) {
        Some(sentence) => Err(anyhow!("{}", sentence.trim_end())),
        None => {
            bail!("the daemon ended before the mount was ready ({status}); --foreground shows what it says")
        }
    }
}

/// Opens the log file `path` for appending.
pub fn open_log(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        let why = crate::commands::why(&error);
        anyhow!("the log {} can't be written ({why}); give --log another file", crate::escape::path(path))
    })
}

/// The child's side: what `aimss serve` does.
pub fn serve(stderr_is_log: bool) -> Result<()> {
    let mut settings = Vec::new();
    std::io::stdin().read_to_end(&mut settings)?;
    let config: MountConfig = serde_json::from_slice(&settings)
        .context("`aimss serve` reads its settings from stdin; use `aimss mount`")?;
    let mut pipe = File::from(rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Fails only for a leader of a process group, which a child is not.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    // Or it would be called `exe`.
    let _ = rustix::thread::set_name(c"aimss");
    let mut telling = pipe.try_clone()?;
    let ready = Box::new(move || {
        // The parent may have been killed meanwhile; the mount is as ready as ever.
        let _ = writeln!(telling, "{READY}");
        if !stderr_is_log {
            let _ = rustix::stdio::dup2_stderr(&null);
        }
    });
    // Without a log, stderr is the terminal of `aimss mount`, which says itself what goes wrong.
    let level = if stderr_is_log { LevelFilter::Info } else { LevelFilter::Off };
    let told = run(config, level, ready);
    if let Err(error) = told {
        let sentence = format!("{error:#}").replace('\n', " ");
        log::error!("{sentence}");
        let _ = writeln!(pipe, "{ERROR}{sentence}");
        std::process::exit(1);
    }
    Ok(())
}

/// Serves `config` in this process until it is unmounted; SIGINT and SIGTERM unmount it and drain (the daemon
/// sees to that itself).
pub fn run(config: MountConfig, level: LevelFilter, ready: Box<dyn FnOnce() + Send>) -> Result<()> {
    logger::install(level);
    aimss_fs::daemon::serve(config, ready).map_err(|error| anyhow!("{error}"))
}
