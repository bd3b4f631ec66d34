//! The start of keeper and daemon: from `aimss mount`, which returns when the mount is ready, to processes of their own.
//!
//! 1. The parent starts its own binary (`/proc/self/exe`, so a replaced binary doesn't matter) with the
//!    hidden command `keep`, and writes the settings as JSON to its stdin.
//! 2. The keeper leaves the session and the directory it was started in, so that neither a closing terminal
//!    nor an unmount of that directory is in its way, and starts `serve`, the daemon, through a descriptor of its
//!    binary; see [`aimss_fs::keeper`].
//! 3. The keeper's stdout is a pipe on which it says one line: `ready`, or `error` and a sentence. If it dies
//!    first, the pipe closes, and the parent says that.
//! 4. stderr is the log file; without one it is the parent's until the mount is ready, and then a small file in the state
//!    directory, which has what went wrong.

use crate::logger;
use aimss_fs::config::MountConfig;
use aimss_fs::daemon::Link;
use aimss_fs::keeper::{self, FromDaemon, Told};
use aimss_fs::state::StateDir;
use anyhow::{Context as _, Result, anyhow, bail};
use log::LevelFilter;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const READY: &str = "ready";
const ERROR: &str = "error ";

/// Starts a keeper for `config`, and returns when its mount can be used. The error is the daemon's sentence.
pub fn start(config: &MountConfig, log: Option<&Path>) -> Result<Child> {
    let stderr = match log {
        Some(path) => Stdio::from(open_log(path)?),
        None => Stdio::inherit(),
    };
    let log_flag = log.map(|_| "--log");
    let settings = serde_json::to_vec(config).context("the settings have no JSON form")?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("aimss")
        .arg("keep")
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

/// The keeper's side: what `aimss keep` does.
pub fn keep(stderr_is_log: bool) -> Result<()> {
    let mut settings = Vec::new();
    std::io::stdin().read_to_end(&mut settings)?;
    let config: MountConfig = serde_json::from_slice(&settings)
        .context("`aimss keep` reads its settings from stdin; use `aimss mount`")?;
    // The pipe to the parent, apart from stdout, which closes.
    let mut pipe = File::from(rustix::io::fcntl_dupfd_cloexec(std::io::stdout(), 3)?);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    // Fails only for a leader of a process group, which a child is not.
    let _ = rustix::process::setsid();
    rustix::process::chdir("/")?;
    // Or it would be called `exe`.
    let _ = rustix::thread::set_name(c"aimss-keeper");
    // Without a log, stderr is the terminal of `aimss mount`, which says itself what goes wrong.
    logger::install(if stderr_is_log { LevelFilter::Info } else { LevelFilter::Off });
    keeper::keep(
        &config,
        |binary, socket| daemon(binary, socket, stderr_is_log, false),
        |told| {
            // The parent may have been killed meanwhile; the mount is as ready as ever.
            let _ = match told {
                Told::Ready => writeln!(pipe, "{READY}"),
                Told::Refused(sentence) => writeln!(pipe, "{ERROR}{}", sentence.replace('\n', " ")),
            };
            if !stderr_is_log {
                log_what_goes_wrong(&config.mountpoint, &null);
            }
        },
    );
    Ok(())
}

/// From here on stderr is the log in the state directory of a mount, or nothing if it can't be opened.
fn log_what_goes_wrong(mountpoint: &Path, null: &File) {
    let log = StateDir::of(mountpoint).log();
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(log);
    let _ = rustix::stdio::dup2_stderr(opened.as_ref().unwrap_or(null));
    if opened.is_ok() {
        logger::keep_small(LevelFilter::Warn);
    }
}

/// Keeps a mount from this process, which is in the foreground, until it is unmounted; SIGINT and SIGTERM unmount it and
/// drain. The error is the daemon's sentence.
pub fn keep_here(config: &MountConfig, mut ready: impl FnMut()) -> Result<()> {
    logger::install(LevelFilter::Info);
    let mut refused = None;
    keeper::keep(
        config,
        |binary, socket| daemon(binary, socket, true, true),
        |told| match told {
            Told::Ready => ready(),
            Told::Refused(sentence) => refused = Some(sentence),
        },
    );
    refused.map_or(Ok(()), |sentence| Err(anyhow!("{sentence}")))
}

/// Starts a daemon of `binary` whose stdin is the socket to its keeper.
fn daemon(binary: &Path, socket: OwnedFd, stderr_is_log: bool, foreground: bool) -> std::io::Result<Child> {
    let mut command = Command::new(binary);
    command.arg0("aimss").arg("serve").stdin(Stdio::from(socket)).stdout(Stdio::null());
    if stderr_is_log {
        command.arg("--log");
    }
    if foreground {
        // The terminal's signals come to the keeper, which passes them on.
        command.process_group(0);
    }
    command.spawn()
}

/// The daemon's side: what `aimss serve` does.
pub fn serve(stderr_is_log: bool) -> Result<()> {
    let socket = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::process::chdir("/")?;
    // Or it would be called like the keeper's descriptor, a number.
    let _ = rustix::thread::set_name(c"aimss");
    logger::install(if stderr_is_log { LevelFilter::Info } else { LevelFilter::Off });
    let (link, hello) =
        Link::new(socket).context("`aimss serve` is started by a keeper; use `aimss mount`")?;
    let link = Arc::new(link);
    let mountpoint = hello.config.mountpoint.clone();
    let ready = move || {
        if !stderr_is_log {
            log_what_goes_wrong(&mountpoint, &null);
        }
    };
    if let Err(error) = aimss_fs::daemon::serve(hello, &link, crate::gpu::open, ready) {
        let sentence = error.to_string();
        log::error!("{sentence}");
        link.tell(&FromDaemon::Refused(sentence));
        std::process::exit(1);
    }
    Ok(())
}
