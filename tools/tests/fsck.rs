//! `aimss fsck`: exit codes and sentences, and who is refused.

mod support;

use aimss_engine::stream::group::{Counts, Group};
use aimss_engine::stream::{Log, LogConfig, Marker, Micros, Settings, StreamId};
use rustix::fs::{CWD, FileType, FlockOperation, flock, mknodat};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use support::aimss;
use tempfile::TempDir;

const ID: StreamId = StreamId(0xf5c);

/// A backing `b` with a stream of 20 sealed records and two more, and a group that has ten.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().expect("a temporary directory"));
        let log = place.log();
        fs::create_dir_all(&log).expect("ours");
        fs::write(place.0.path().join("b/events"), Marker(ID).encode()).expect("ours");
        Settings { path: "events".into(), ..Settings::default() }.write(&log).expect("ours");
        let mut stream = Log::open(&log, LogConfig::default()).expect("an empty directory");
        for i in 0..22 {
            stream.append(format!("line {i}\n").as_bytes(), Micros(i)).expect("room");
            if i == 19 {
                stream.seal(Micros(i)).expect("room");
            }
        }
        Group::write(&log, "g", 10, Counts::default()).expect("ours");
        place
    }

    fn home(&self) -> PathBuf {
        self.0.path().join("b/.aimss")
    }

    fn log(&self) -> PathBuf {
        self.home().join("streams").join(ID.to_string())
    }

    /// Exit code, what is on stdout, what is on stderr.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut all = vec!["fsck"];
        all.extend(arguments);
        let output = aimss(&all, self.0.path());
        let text = |bytes| String::from_utf8(bytes).expect("it is text");
        (output.status.code().expect("it ended"), text(output.stdout), text(output.stderr))
    }

    /// Runs, and checks that it can't be checked, for a reason in one sentence that has all of `words`.
    fn refused(&self, arguments: &[&str], words: &[&str]) {
        let (code, said, why) = self.run(arguments);
        assert_eq!((code, said.as_str()), (2, ""), "{arguments:?}: {why}");
        assert!(why.starts_with("aimss: ") && why.lines().count() == 1, "{arguments:?}: {why}");
        for word in words {
            assert!(why.contains(word), "{arguments:?}: '{word}' is not in: {why}");
        }
    }

    fn lease(&self, node: &str, mountpoint: &Path) {
        let lease = serde_json::json!({ "node": node, "pid": 7, "mountpoint": mountpoint });
        fs::write(self.home().join("lease"), lease.to_string()).expect("ours");
    }
}

fn here() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[test]
fn nothing_wrong_is_exit_code_0_and_one_line() {
    let place = Place::new();
    let (code, said, why) = place.run(&["b"]);
    assert_eq!((code, why.as_str()), (0, ""));
    assert!(said.ends_with("b: 1 log, 1 segment, 22 records; nothing wrong\n"), "{said}");
    assert_eq!(said.lines().count(), 1);
    let (code, again, _) = place.run(&["--rebuild", "b"]);
    assert_eq!((code, again), (0, said));
    assert!(!place.home().join("lease").exists(), "the lease is given back");
}

#[test]
fn without_a_directory_of_ours_there_is_nothing_to_check() {
    let place = Place::new();
    fs::create_dir(place.0.path().join("plain")).expect("ours");
    for arguments in [&["plain"][..], &["--rebuild", "plain"]] {
        let (code, said, why) = place.run(arguments);
        assert_eq!((code, why.as_str()), (0, ""));
        assert!(said.starts_with("nothing of aimss is in ") && said.ends_with("plain\n"), "{said}");
    }
    assert_eq!(fs::read_dir(place.0.path().join("plain")).expect("ours").count(), 0);
}

#[test]
fn what_is_found_is_1_until_it_is_repaired() {
    let place = Place::new();
    fs::write(place.home().join("beside-17"), "left").expect("ours");
    fs::write(place.log().join("g.group"), "rubbish").expect("ours");
    for _ in 0..2 {
        let (code, said, why) = place.run(&["b"]);
        assert_eq!((code, why.as_str()), (1, ""));
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert_eq!(
            lines[0],
            ".aimss/beside-17: left by a crash: 4 bytes that were to replace a file, which is as it was; --rebuild \
             removes it"
        );
        assert!(lines[1].ends_with("lets it go on at record 0, the first kept"), "{said}");
        assert!(lines[2].ends_with("; 2 findings: 2 that --rebuild repairs; 0 records lost"), "{said}");
    }
    let (code, said, _) = place.run(&["b", "--rebuild"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("which is as it was; removed\n"), "{said}");
    assert!(said.contains("`aimss stream seek`") && said.contains("2 findings: 2 repaired"), "{said}");
    let (code, said, _) = place.run(&["b"]);
    assert!(code == 0 && said.contains("g.group.damaged (of events): set aside earlier"), "{said}");
    assert!(said.ends_with("nothing wrong\n"), "{said}");
}

#[test]
fn what_stays_is_1_with_the_records_that_are_lost() {
    let place = Place::new();
    let segment = fs::read_dir(place.log()).expect("there").flatten().map(|entry| entry.path());
    let segment =
        segment.into_iter().find(|path| path.extension().is_some_and(|e| e == "sealed")).expect("one");
    fs::remove_file(&segment).expect("ours");
    let name = segment.with_file_name(format!("{:020}-{:020}.sealed", 0, 0));
    fs::write(name, "rubbish").expect("ours");
    for arguments in [&["b"][..], &["--rebuild", "b"]] {
        let (code, said, _) = place.run(arguments);
        assert_eq!(code, 1, "{said}");
        assert!(said.contains("records 0 to 19 are lost; there is no second copy"), "{said}");
        assert!(said.ends_with("1 finding: 1 that stays as it is; 20 records lost\n"), "{said}");
    }
}

#[test]
fn a_backing_in_use_is_refused_with_its_mount() {
    let place = Place::new();
    place.lease(&here(), Path::new("/mnt/fast"));
    let held = fs::File::open(place.home().join("lease")).expect("ours");
    flock(&held, FlockOperation::NonBlockingLockExclusive).expect("nobody has it");
    fs::write(place.home().join("beside-17"), "in use").expect("ours");
    for arguments in [&["b"][..], &["--rebuild", "b"]] {
        place.refused(arguments, &["mounted by aimss at /mnt/fast", "process 7"]);
    }
    assert!(place.home().join("beside-17").exists());
    drop(held);
    place.lease("elsewhere", Path::new("/mnt/far"));
    for arguments in [&["b"][..], &["--rebuild", "b"]] {
        place.refused(arguments, &["elsewhere", "/mnt/far"]);
    }
    assert!(place.home().join("lease").exists());
}

#[test]
fn a_lease_that_nobody_holds_goes_if_nothing_is_in_memory() {
    let place = Place::new();
    place.lease(&here(), &place.0.path().join("was-mounted-here"));
    let (code, said, why) = place.run(&["b"]);
    assert_eq!((code, why.as_str()), (1, ""));
    assert!(
        said.starts_with(".aimss/lease: the lease of a daemon that died and left nothing in memory; "),
        "{said}"
    );
    let (code, said, _) = place.run(&["--rebuild", "b"]);
    assert!(code == 0 && !place.home().join("lease").exists(), "{said}");
    assert_eq!(place.run(&["b"]).0, 0);
}

#[test]
fn what_is_left_in_memory_comes_first() {
    let place = Place::new();
    let mountpoint = place.0.path().join("was-mounted-here");
    place.lease(&here(), &mountpoint);
    fs::write(place.home().join("unnamed-1f"), "it may be needed").expect("ours");
    let state = aimss_fs::state::StateDir::of(&mountpoint);
    fs::create_dir_all(state.arena()).expect("a state directory");
    fs::write(state.arena().join("journal"), "").expect("ours");
    let looked = place.run(&["b"]);
    let refused = place.run(&["--rebuild", "b"]);
    state.remove().expect("ours");
    assert_eq!(looked.0, 1);
    assert!(
        looked.1.starts_with(".aimss/lease: the lease of a daemon that died and left data in memory"),
        "{looked:?}"
    );
    assert!(looked.2.contains("was-mounted-here") && looked.2.contains("aimss mount"), "{looked:?}");
    assert_eq!((refused.0, refused.1.as_str()), (2, ""));
    assert!(refused.2.contains("was-mounted-here") && refused.2.contains("` first"), "{refused:?}");
    assert!(!looked.1.contains("--rebuild removes"), "that mount may need it: {looked:?}");
    assert!(place.home().join("unnamed-1f").exists() && place.home().join("lease").exists());
}

#[test]
fn what_is_no_backing_is_refused_with_a_sentence() {
    let place = Place::new();
    fs::write(place.0.path().join("file"), "").expect("ours");
    fs::create_dir(place.0.path().join("linked")).expect("ours");
    symlink(place.home(), place.0.path().join("linked/.aimss")).expect("ours");
    place.refused(&["nowhere"], &["there is no directory nowhere"]);
    place.refused(&["file"], &["file is not a directory"]);
    for arguments in [&["linked"][..], &["--rebuild", "linked"]] {
        place.refused(arguments, &["linked/.aimss is not a directory", "follows no link"]);
    }
    mknodat(CWD, place.home().join("lease"), FileType::Fifo, 0o600.into(), 0).expect("a pipe");
    for arguments in [&["b"][..], &["--rebuild", "b"]] {
        place.refused(arguments, &["is no file of its own"]);
    }
    assert_eq!(place.run(&[]).0, 2, "usage");
}

#[test]
fn names_are_escaped() {
    let place = Place::new();
    let name = std::ffi::OsStr::from_bytes(b"a\x1b[31m\n\xff");
    fs::write(place.home().join(name), "").expect("ours");
    let (code, said, _) = place.run(&["b"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with(".aimss/a\\x1b[31m\\n\\xff: nothing that aimss made\n"), "{said}");
}

#[test]
fn help_teaches_by_examples() {
    let (code, said, _) = Place::new().run(&["--help"]);
    assert!(code == 0 && said.contains("Examples:") && said.contains("Exit codes:"), "{said}");
}
