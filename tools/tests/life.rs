//! The life of a real mount as a user lives it, by the binary alone: mounted, used, refused while in use,
//! unmounted, with the files on the backing and nothing left behind. Needs /dev/fuse and root or fusermount3;
//! says so where it is skipped.

mod support;

use aimss_fs::state::StateDir;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use support::aimss;

fn well(arguments: &[&str], dir: &Path) -> String {
    let output = aimss(arguments, dir);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it is text")
}

fn refusal(arguments: &[&str], dir: &Path) -> String {
    let output = aimss(arguments, dir);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8(output.stderr).expect("it is text")
}

#[test]
fn a_mount_is_used_refused_while_in_use_and_leaves_plain_files() {
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse can't be opened here");
        return;
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let dir = fs::canonicalize(place.path()).expect("it is there");
    for name in ["b", "m", "other"] {
        fs::create_dir(dir.join(name)).expect("it is ours");
    }
    well(&["mount", "--drain-delay", "1h", "b", "m"], &dir);
    let mut file = File::create(dir.join("m/file")).expect("the mount is ready");
    file.write_all(b"bytes").expect("the mount takes it");

    let report: serde_json::Value =
        serde_json::from_str(&well(&["status", "m", "--json"], &dir)).expect("it is JSON");
    assert_eq!(report["mounts"][0]["alive"], true);
    assert_eq!(report["mounts"][0]["mountpoint"], dir.join("m").to_str().expect("it is text"));

    // Nobody asked for a log.
    let log = StateDir::of(&dir.join("m")).log();
    let daemon = report["mounts"][0]["daemon"]["pid"].as_i64().expect("a process id");
    // SAFETY: a daemon that this test started.
    assert_eq!(unsafe { libc::kill(daemon as i32, libc::SIGABRT) }, 0);
    assert_eq!(fs::read(dir.join("m/file")).expect("the next one serves it"), b"bytes");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(20);
    while !said().contains(" died: signal 6") {
        assert!(Instant::now() < until, "what went wrong is written down: {}", said());
        std::thread::sleep(Duration::from_millis(20));
    }

    assert!(refusal(&["mount", "b", "other"], &dir).contains("mounted already, at"));
    assert!(refusal(&["mount", "m", "other"], &dir).contains("lies on the aimss mount"));
    assert!(refusal(&["mount", "b", "m"], &dir).contains("is busy"));
    let busy = refusal(&["umount", "m"], &dir);
    assert!(
        busy.contains(&format!("({}) has", std::process::id())) && busy.contains("m/file open"),
        "{busy}"
    );

    drop(file);
    well(&["drain", "m/file"], &dir);
    assert_eq!(fs::read(dir.join("b/file")).expect("it was drained"), b"bytes");
    fs::write(dir.join("m/late"), "later").expect("the mount takes it");
    well(&["umount", "m"], &dir);
    assert_eq!(fs::read(dir.join("b/late")).expect("it was drained"), b"later");
    let left: Vec<_> =
        fs::read_dir(dir.join("b")).expect("it is there").flatten().map(|e| e.file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(fs::read_dir(dir.join("m")).expect("it is there").count(), 0);
    assert!(refusal(&["umount", "m"], &dir).contains("is not mounted"));
}

#[test]
fn a_demo_of_a_few_megabytes_verifies() {
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        eprintln!("skipped: /dev/fuse can't be opened here");
        return;
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let said = well(&["demo", "--size", "8M", "--dir", "."], place.path());
    assert!(said.contains("All files verified by sha256sum"), "{said}");
    assert_eq!(fs::read_dir(place.path()).expect("it is there").count(), 0);
}
