//! Runs a test of `programs/`: real programs on the mount, with a verdict in the last line.

use crate::{Mount, binary, skip};
use anyhow::{Result, bail};
use std::fs;
use std::process::{Command, Stdio};

/// The status with which a script says that it can't run here.
const SKIPPED: i32 = 77;

/// Runs `script` of `programs/` in the mount and in a directory of the backing's disk, followed by `arguments`.
pub fn run(mount: &Mount, script: &str, arguments: &[&str]) -> Result<()> {
    let reference = mount.beside("reference");
    fs::create_dir(&reference)?;
    // fsx.sh knows no second directory.
    let reference_path = (script != "fsx.sh").then_some(&reference);
    let output = Command::new(binary::workspace().join("mount-tests/programs").join(script))
        .arg(mount.point())
        .args(reference_path)
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
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
