//! What the tests on real mounts share: the binary under test, a mount that cleans up after itself, trees that
//! can be compared, and the rule for what cannot run here.
//!
//! 1. `both_modes!` turns a function into two tests, one where files are passed through to memory and one where
//!    the daemon serves every call. Everything but speed must be the same.
//! 2. Each test has a mount of its own ([`Mount`]) over a directory of its own on a disk.
//! 3. When the function returns, [`Mount::finish`] looks at the whole tree through the mount, unmounts, and looks
//!    at the backing: both must be equal, with modes, owners, times, attributes, links and contents. So each test
//!    is a test of the drain as well, whatever else it is about.
//! 4. A test that can't run here prints `skipped: REASON` on stderr ([`skip()`]). With `AIMSS_NO_SKIPS=1`, as CI
//!    sets it, it fails instead.
//!
//! Settings: `AIMSS_BIN` names the binary to test (default: built here, see [`binary`]); `CARGO_TARGET_TMPDIR`
//! the directory for mounts and backings (default: `/var/tmp`; it must be on a disk, and other users must be able
//! to reach it); `AIMSS_GPU` a GPU for all mounts, such as `simulated:corrupt=1%`; `AIMSS_TEST_TOOLS` where `programs/install.sh` put its programs.
//!
//! Deliberately not here: anything of `engine` or `fs`. These tests know what a user knows.

pub mod binary;
pub mod bytes;
pub mod child;
pub mod disk;
pub mod failpoints;
pub mod held_open;
pub mod mount;
pub mod program;
pub mod skip;
pub mod tree;
pub mod user;
pub mod works;

pub use mount::{Mode, Mount, Setup};
pub use skip::{skip, skip_allowed};

use anyhow::Result;
use std::time::{Duration, Instant};

/// Runs `body` on a mount made for it, then unmounts and compares; what [`both_modes!`](crate::both_modes) calls.
pub fn run(setup: &Setup, body: impl FnOnce(&Mount) -> Result<()>) {
    if let Some(mount) = Mount::start(setup) {
        // With RUST_BACKTRACE=1 the error says where it came from.
        body(&mount).unwrap_or_else(|error| panic!("{error:?}"));
        mount.finish();
    }
}

/// Looks until `done` holds; fails after `longest`, saying what was waited for.
pub fn wait_until(what: &str, longest: Duration, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < longest, "after {longest:?} still waiting: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two tests from each function of a mount: `NAME::passthrough` and `NAME::daemon`.
///
/// ```ignore
/// both_modes! {
///     fn a_name_is_kept(mount: &Mount) { fs::write(mount.at("name"), "x")?; }
///     with { memory: "64M" }
///     fn a_large_file_is_kept(mount: &Mount) { ... }
/// }
/// ```
/// The function's body may use `?`; fields of [`Setup`] stand in `with { }`.
#[macro_export]
macro_rules! both_modes {
    ($(
        $(#[doc = $doc:literal])*
        $(with { $($field:ident: $value:expr),* $(,)? })?
        fn $name:ident($mount:ident: $given:ty) $body:block
    )*) => { $(
        $(#[doc = $doc])*
        mod $name {
            #[allow(unused_imports, reason = "not every function needs all of them")]
            use super::*;

            fn body($mount: $given) -> anyhow::Result<()> {
                $body
                Ok(())
            }

            #[test]
            fn passthrough() {
                let setup = $crate::Setup { $($($field: $value,)*)? ..$crate::Setup::new($crate::Mode::Passthrough) };
                $crate::run(&setup, body);
            }

            #[test]
            fn daemon() {
                let setup = $crate::Setup { $($($field: $value,)*)? ..$crate::Setup::new($crate::Mode::Daemon) };
                $crate::run(&setup, body);
            }
        }
    )* };
}
