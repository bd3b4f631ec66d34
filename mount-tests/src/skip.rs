//! What to do with a test that can't run here.
//!
//! A layer that is silently not tested looks like one that passes, so the reason is printed past the test
//! harness (which shows nothing of tests that pass), and CI sets `AIMSS_NO_SKIPS=1`, which makes it a failure.

use std::io::Write;

/// Says why this test doesn't run; fails instead where nothing may be skipped. Return after it.
pub fn skip(reason: &str) {
    assert!(
        std::env::var_os("AIMSS_NO_SKIPS").is_none_or(|value| value != "1"),
        "would be skipped, and AIMSS_NO_SKIPS=1: {reason}"
    );
    print("skipped", reason);
}

/// Like [`skip`] for the few that no machine can be asked to run, CI included. Each use says why.
pub fn skip_allowed(reason: &str) {
    print("skipped (allowed)", reason);
}

fn print(what: &str, reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // The macros' output is held back for tests that pass; the handle's is not.
    let _ = writeln!(std::io::stderr(), "{what}: {reason} ({name})");
}
