//! Runs a test of `programs/`: real programs on the mount, with a verdict in the last line.

use crate::{Mount, binary, skip};
use anyhow::{Result, bail};
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The status with which a script says that it can't run here.
const SKIPPED: i32 = 77;

/// Runs `script` of `programs/` in the mount and in a directory of the backing's disk, followed by `arguments`.
pub fn run(mount: &Mount, script: &str, arguments: &[&str]) -> Result<()> {
    let reference = mount.beside("reference");
    fs::create_dir(&reference)?;
    // fsx.sh knows no second directory.
    let reference_path = (script != "fsx.sh").then_some(reference);
    finish(script, arguments, &start(&mount.point(), reference_path.as_deref(), script, arguments)?)
}

/// The same in a directory of a mount, with `reference` on the backing's disk.
pub fn run_in(dir: &Path, reference: &Path, script: &str, arguments: &[String]) -> Result<()> {
    let reference = (script != "fsx.sh").then_some(reference);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    finish(script, &arguments, &start(dir, reference, script, &arguments)?)
}

fn start(dir: &Path, reference: Option<&Path>, script: &str, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary::workspace().join("mount-tests/programs").join(script));
    Ok(command.arg(dir).args(reference).args(arguments).stdin(Stdio::null()).output()?)
}

fn finish(script: &str, arguments: &[&str], output: &Output) -> Result<()> {
    let said = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => print!("{said}"),
        Some(SKIPPED) => skip(said.trim_end().rsplit("skipped: ").next().unwrap_or("without a reason")),
        _ => bail!(
            "{script} {arguments:?}: {}\n{said}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ),
    }
    Ok(())
}
