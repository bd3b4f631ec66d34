//! What the tests of the binary share.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the binary under test in `dir`.
pub fn aimss(arguments: &[&str], dir: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_aimss"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("the binary was built")
}
