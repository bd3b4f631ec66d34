//! Bad input on the command line: each case ends with exit code 1 or 2 and one sentence on stderr that names the
//! thing, and changes nothing. No mount is made here, so that these run anywhere.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use support::aimss;
use tempfile::TempDir;

/// A directory with an empty `m`, a backing `b` with a file in it, and a plain file `f`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for name in ["m", "b"] {
            fs::create_dir(dir.path().join(name)).expect("it is ours");
        }
        fs::write(dir.path().join("b/data"), "bytes").expect("it is ours");
        fs::write(dir.path().join("f"), "").expect("it is ours");
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Runs, and checks that it is refused with `code`, in one sentence that has all of `words`, and that nothing has
    /// changed.
    fn refused(&self, code: i32, arguments: &[&str], words: &[&str]) {
        let before = snapshot(self.path());
        let output = aimss(arguments, self.path());
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(said.starts_with("aimss: ") && said.lines().count() == 1, "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: '{word}' is not in: {said}");
        }
        assert_eq!(snapshot(self.path()), before, "{arguments:?}");
    }
}

/// Every path below `dir`, with mode, size and times.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let metadata = fs::symlink_metadata(entry.path()).expect("it is ours");
        let facts = (metadata.mode(), metadata.size(), metadata.mtime(), metadata.mtime_nsec());
        all.insert(entry.path(), facts);
        if metadata.is_dir() {
            all.append(&mut snapshot(&entry.path()));
        }
    }
    all
}

#[test]
fn a_backing_that_is_missing_or_no_directory_is_refused() {
    let place = Place::new();
    place.refused(1, &["mount", "nowhere", "m"], &["nowhere", "doesn't exist", "mkdir -p"]);
    place.refused(1, &["mount", "f", "m"], &["backing f", "not a directory"]);
}

#[test]
fn a_backing_that_is_not_writable_is_refused() {
    let place = Place::new();
    // /proc can be written to by nobody, root included; its own mount options differ from machine to machine.
    place.refused(1, &["mount", "/proc/self", "m"], &["/proc/"]);
    if is_root() {
        eprintln!("skipped in part: root may write where modes forbid it");
        return;
    }
    fs::set_permissions(place.path().join("b"), fs::Permissions::from_mode(0o500)).expect("it is ours");
    place.refused(1, &["mount", "b", "m"], &["not writable"]);
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[test]
fn a_mount_point_that_is_missing_no_directory_full_or_busy_is_refused() {
    let place = Place::new();
    fs::create_dir(place.path().join("full")).expect("it is ours");
    fs::write(place.path().join("full/file"), "").expect("it is ours");
    place.refused(1, &["mount", "b", "nowhere"], &["mount point nowhere", "mkdir -p nowhere"]);
    place.refused(1, &["mount", "b", "f"], &["mount point f", "not a directory"]);
    place.refused(1, &["mount", "b", "full"], &["full", "isn't empty"]);
    place.refused(1, &["mount", "b", "/proc"], &["/proc is busy"]);
}

#[test]
fn backing_and_mount_point_inside_each_other_are_refused() {
    let place = Place::new();
    fs::create_dir(place.path().join("b/inner")).expect("it is ours");
    symlink("b/inner", place.path().join("link")).expect("it is ours");
    place.refused(1, &["mount", "m", "m"], &["as backing and as mount point"]);
    place.refused(1, &["mount", "b", "b/inner"], &["inside the backing"]);
    place.refused(1, &["mount", "b", "link"], &["inside the backing"]);
}

#[test]
fn memory_that_is_zero_absurd_or_more_than_the_machine_has_is_refused() {
    let place = Place::new();
    for (size, word) in [("0", "nothing"), ("0%", "nothing"), ("101%", "whole machine"), ("4Q", "unit")] {
        place.refused(2, &["mount", "--memory", size, "b", "m"], &["--memory", word]);
    }
    place.refused(2, &["mount", "--memory", "1000T", "b", "m"], &["more than this machine has"]);
    place.refused(2, &["mount", "--memory", "1", "b", "m"], &["at least 16 MiB"]);
    place.refused(2, &["mount", "--memory", "lots", "b", "m"], &["'lots' is not a size"]);
}

#[test]
fn other_bad_options_are_refused() {
    let place = Place::new();
    place.refused(2, &["mount", "--drain-delay", "soon", "b", "m"], &["--drain-delay", "soon"]);
    place.refused(2, &["mount", "--no-passthrough", "", "b", "m"], &["--no-passthrough"]);
    place.refused(2, &["demo", "--size", "0"], &["--size"]);
    place.refused(2, &["bench", "--only", "speed"], &["speed", "--list"]);
    place.refused(2, &["bench", "--peer", "mergerfs"], &["NAME=DIR"]);
    place.refused(1, &["demo", "--size", "1M", "--dir", "nowhere"], &["nowhere"]);
}

#[test]
fn a_log_that_cannot_be_written_is_refused() {
    let place = Place::new();
    place.refused(1, &["mount", "--log", "nowhere/log", "b", "m"], &["log", "nowhere/log"]);
}

#[test]
fn what_is_not_mounted_is_refused_by_name() {
    let place = Place::new();
    place.refused(1, &["umount", "m"], &["not mounted", "aimss status"]);
    place.refused(1, &["umount", "nowhere"], &["nowhere"]);
    place.refused(1, &["umount", "/proc"], &["not of aimss"]);
    place.refused(1, &["status", "m"], &["no aimss mount"]);
    place.refused(1, &["drain", "b/data"], &["no aimss mount"]);
}

#[test]
fn names_cannot_drive_the_terminal() {
    let place = Place::new();
    place.refused(1, &["mount", "no\x1b[2Jwhere\n", "m"], &["no\\x1b[2Jwhere\\n"]);
}

#[test]
fn usage_errors_have_exit_code_2_and_help_has_0() {
    let place = Place::new();
    for arguments in [
        &["mount"][..],
        &["mount", "--wrong", "b", "m"],
        &["unknown"],
        &[],
        &["umount", "--lazy", "--export", "d", "m"],
    ] {
        assert_eq!(aimss(arguments, place.path()).status.code(), Some(2), "{arguments:?}");
    }
    for command in ["mount", "umount", "drain", "status", "doctor", "demo", "bench"] {
        let output = aimss(&[command, "--help"], place.path());
        let text = String::from_utf8(output.stdout).expect("it is text");
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text.contains("Examples:") && text.contains("Exit codes:"), "{command}: {text}");
    }
}

#[test]
fn doctor_ends_well_and_its_json_is_json() {
    let place = Place::new();
    assert_eq!(aimss(&["doctor"], place.path()).status.code(), Some(0));
    let output = aimss(&["doctor", "--json"], place.path());
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(report["checks"].as_array().is_some_and(|checks| checks.len() >= 10));
}

#[test]
fn status_as_json_has_the_list_of_mounts() {
    let place = Place::new();
    let output = aimss(&["status", "--json"], place.path());
    assert_eq!(output.status.code(), Some(0));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert!(report["mounts"].is_array());
}
