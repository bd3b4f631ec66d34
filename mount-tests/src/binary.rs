//! Finds the `aimss` binary under test, and builds it when it isn't there or is older than its sources.
//!
//! `cargo test --workspace` has built it beside the tests already. `cargo test -p aimss-mount-tests` has not, or
//! has left an old one, so the times of the sources are compared and cargo is called once with the profile of the
//! running test. Which test comes first doesn't matter: cargo takes a lock of its own.

use anyhow::{Context as _, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::SystemTime;

/// The packages whose code is in the binary.
const SOURCES: [&str; 4] = ["engine", "fs", "gpu", "tools"];

static CHOSEN: OnceLock<PathBuf> = OnceLock::new();

/// The binary's path: `AIMSS_BIN`, or the one built beside the running test.
pub fn path() -> &'static Path {
    CHOSEN.get_or_init(|| match std::env::var_os("AIMSS_BIN") {
        Some(named) => PathBuf::from(named),
        None => beside_the_test().expect("the aimss binary is there or can be built"),
    })
}

/// Has [`path`] be this one from now on, for a program that builds its own. Call it before anybody asks.
pub fn choose(binary: PathBuf) {
    CHOSEN.set(binary).expect("it is chosen once, before it is asked for");
}

/// A binary with failpoints: the one beside the running program if that has debug assertions, and so the binary; or one
/// built in a target directory of its own.
pub fn with_failpoints() -> Result<PathBuf> {
    if cfg!(debug_assertions) {
        return beside_the_test();
    }
    let profile_dir = profile_dir()?;
    let target = profile_dir.parent().context("the profile lies in no target directory")?.join("failpoints");
    build(&profile_dir, &target, &["--features", "failpoints"])?;
    Ok(target.join(profile_dir.file_name().context("a profile has a name")?).join("aimss"))
}

/// A command that runs it.
pub fn aimss() -> Command {
    Command::new(path())
}

/// The workspace's top directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package is inside the workspace").to_owned()
}

/// Where the running program was built.
fn profile_dir() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // TARGET/PROFILE/deps/TEST-HASH, or TARGET/PROFILE/BINARY
    let dir = test.parent().context("the test lies in no directory")?;
    Ok(if dir.ends_with("deps") { dir.parent().unwrap_or(dir) } else { dir }.to_owned())
}

fn beside_the_test() -> Result<PathBuf> {
    let profile_dir = profile_dir()?;
    let binary = profile_dir.join("aimss");
    let changed = SOURCES.iter().map(|package| newest(&workspace().join(package))).max().flatten();
    if std::fs::metadata(&binary).and_then(|found| found.modified()).ok() < changed {
        let target = profile_dir.parent().context("the profile lies in no target directory")?;
        build(&profile_dir, target, &[])?;
    }
    Ok(binary)
}

fn build(profile_dir: &Path, target: &Path, features: &[&str]) -> Result<()> {
    let profile = match profile_dir.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--package", "aimss", "--profile", profile, "--target-dir"])
        .arg(target)
        .args(features)
        .current_dir(workspace())
        .status()
        .context("cargo can't be run")?;
    if !status.success() {
        bail!("cargo build --package aimss: {status}");
    }
    Ok(())
}

/// When the newest source file below `dir` changed; tests are no part of the binary.
fn newest(dir: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(dir).ok()?.flatten();
    entries
        .filter_map(|entry| match entry.file_type().ok()? {
            kind if kind.is_dir() && entry.file_name() == "tests" => None,
            kind if kind.is_dir() => newest(&entry.path()),
            _ => entry.metadata().ok()?.modified().ok(),
        })
        .max()
}
