//! `aimss stream` on a backing directory that is not mounted: a stream that the engine makes here is listed,
//! read, exported, verified, trimmed and removed by the binary.

mod support;

use aimss_engine::stream::group::{Counts, Group};
use aimss_engine::stream::log::Listing;
use aimss_engine::stream::{
    Compression, Framing, Log, LogConfig, Marker, Micros, Partition, Retention, Settings, StreamId,
};
use serde_json::Value;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use support::aimss;
use tempfile::TempDir;

/// 2025-11-24T12:00:00Z.
const NOON: u64 = 1_763_985_600_000_000;
const ID: StreamId = StreamId(0xabc);

/// A backing `b` with the stream `b/d/events`: 100 lines, one a second from noon on, of 10 bytes; ten
/// segments of ten lines, the last five lines not sealed.
struct Place(TempDir);

impl Place {
    fn new() -> Place {
        let place = Place::empty();
        let mut log = place.stream("d/events", ID, Framing::Line);
        for i in 0..95_u64 {
            log.append(format!("line {i:04}\n").as_bytes(), Micros(NOON + i * 1_000_000)).expect("room");
            if i % 10 == 9 {
                log.seal(Micros(NOON + i * 1_000_000)).expect("room");
            }
        }
        place
    }

    fn empty() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir_all(dir.path().join("b/d")).expect("it is ours");
        fs::write(dir.path().join("b/d/plain"), "bytes").expect("it is ours");
        Place(dir)
    }

    /// Makes a stream at `path` in the backing.
    fn stream(&self, path: &str, id: StreamId, framing: Framing) -> Log {
        self.part(path, id, framing, None)
    }

    /// The stream `p` of three partitions, each with two lines that the group `g` has one of.
    fn partitions() -> Place {
        let place = Place::empty();
        fs::create_dir(place.path().join("b/p")).expect("it is ours");
        for number in 0..3 {
            let (id, name) = (StreamId(1 + u128::from(number)), format!("p/{number}"));
            let part = Some(Partition { set: ID, number, count: 3 });
            let mut log = place.part(&name, id, Framing::Line, part);
            for word in ["one", "two"] {
                log.append(format!("{number} {word}\n").as_bytes(), Micros(NOON)).expect("room");
            }
            Group::write(&place.log(id), "g", 1, Counts { delivered: 1, ..Counts::default() }).expect("room");
        }
        place
    }

    fn part(&self, path: &str, id: StreamId, framing: Framing, partition: Option<Partition>) -> Log {
        let name = self.path().join("b").join(path);
        fs::write(name, Marker(id).encode()).expect("it is ours");
        let directory = self.log(id);
        fs::create_dir_all(&directory).expect("it is ours");
        let log = LogConfig { framing, compression: Compression::None, ..LogConfig::default() };
        let retention = Retention { bytes: Some(1 << 30), ..Retention::default() };
        let timeout = Some(Duration::from_secs(30));
        let settings = Settings {
            log,
            retention,
            ack_timeout: timeout,
            path: path.into(),
            owner: None,
            partition,
            mtime: None,
            doomed: false,
        };
        settings.write(&directory).expect("it is ours");
        Log::open(&directory, log).expect("an empty directory")
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn log(&self, id: StreamId) -> PathBuf {
        self.path().join("b/.aimss/streams").join(id.to_string())
    }

    /// Runs, and checks that it succeeds and says nothing on stderr; what is on stdout.
    fn says(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("it is text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.says(arguments)).expect("it is JSON")
    }

    /// Runs, and checks that it is refused with `code`, in one sentence that has all of `words`.
    fn refused(&self, code: i32, arguments: &[&str], words: &[&str]) {
        let output = self.run(arguments);
        let said = String::from_utf8(output.stderr).expect("it is text");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.starts_with("aimss: ") && said.lines().count() == 1, "{arguments:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{arguments:?}: '{word}' is not in: {said}");
        }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut all = vec!["stream"];
        all.extend(arguments);
        aimss(&all, self.path())
    }

    /// All files of the log with size and time.
    fn files(&self) -> Vec<(PathBuf, u64, i64)> {
        let mut files: Vec<_> = fs::read_dir(self.log(ID))
            .expect("there")
            .flatten()
            .map(|entry| (entry.path(), entry.metadata().expect("there")))
            .map(|(path, metadata)| (path, metadata.size(), metadata.mtime_nsec()))
            .collect();
        files.sort();
        files
    }
}

fn groups(log: &Path) -> Vec<String> {
    Listing::of(log).expect("listed").groups().to_vec()
}

fn lines(range: std::ops::Range<u64>) -> String {
    range.map(|i| format!("line {i:04}\n")).collect::<Vec<_>>().concat()
}

#[test]
fn records_are_written_as_they_are() {
    let place = Place::new();
    let before = place.files();
    assert_eq!(place.says(&["cat", "b/d/events"]), lines(0..95));
    assert_eq!(place.says(&["cat", "b/d/events", "--from", "12", "--to", "33"]), lines(12..33));
    assert_eq!(place.says(&["cat", "b/d/events", "--from", "earliest", "--to", "1"]), lines(0..1));
    assert_eq!(place.says(&["cat", "b/d/events", "--from", "latest"]), "");
    assert_eq!(
        place.says(&["cat", "b/d/events", "--from", "time:2025-11-24T12:00:42Z", "--to", "50"]),
        lines(42..50)
    );
    assert_eq!(place.says(&["cat", "b/d/events", "--from", "time:1763985642", "--to", "50"]), lines(42..50));
    assert_eq!(place.files(), before, "reading changes nothing");
}

#[test]
fn json_has_text_or_base64() {
    let place = Place::empty();
    let mut log = place.stream("s", ID, Framing::Write);
    for (i, record) in [&b"one\n"[..], b"\xff\xfe", "\u{e4}\"".as_bytes()].into_iter().enumerate() {
        log.append(record, Micros(NOON + i as u64)).expect("room");
    }
    let said = place.says(&["cat", "--json", "b/s"]);
    let records: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records[0]["text"], "one\n");
    assert_eq!(records[0]["time"], "2025-11-24T12:00:00.000000Z");
    assert_eq!((&records[1]["base64"], &records[1]["text"]), (&Value::from("//4="), &Value::Null));
    assert_eq!((&records[2]["text"], &records[2]["offset"]), (&Value::from("\u{e4}\""), &Value::from(2)));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let place = Place::empty();
    let mut log = place.stream("s", ID, Framing::Line);
    let line = [b"x".repeat(1023), b"\n".to_vec()].concat();
    for i in 0..2000 {
        log.append(&line, Micros(i)).expect("room");
    }
    let mut cat = Command::new(env!("CARGO_BIN_EXE_aimss"))
        .args(["stream", "cat", "b/s"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut first = [0; 1024];
    cat.stdout.take().expect("piped").read_exact(&mut first).expect("a line");
    let output = cat.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn streams_are_listed_by_their_names_wherever_those_are_now() {
    let place = Place::new();
    place.stream("other", StreamId(2), Framing::Fixed(8));
    let logless = place.log(StreamId(3));
    drop(place.stream("gone", StreamId(3), Framing::Line));
    fs::rename(place.path().join("b/d/events"), place.path().join("b/moved")).expect("ours");
    fs::remove_file(place.path().join("b/gone")).expect("ours");
    Group::write(&place.log(ID), "g", 90, Counts::default()).expect("ours");
    let report = place.json(&["ls", "--json", "b"]);
    let streams = report["streams"].as_array().expect("a list");
    let paths: Vec<&str> = streams.iter().map(|info| info["path"].as_str().expect("text")).collect();
    assert_eq!(paths, ["", "moved", "other"]);
    assert_eq!(streams[0]["directory"], logless.to_str().expect("text"));
    assert_eq!(streams[1]["end_offset"], 95);
    assert_eq!(streams[1]["groups"][0]["lag"], 5);
    assert_eq!(streams[2]["framing"], "fixed:8");
    let text = place.says(&["ls", "b"]);
    assert!(text.contains("b/moved") && text.contains("(no name: "), "{text}");
    assert_eq!(place.json(&["ls", "--json", "b/d"])["streams"], Value::from(Vec::<Value>::new()));
    assert!(place.says(&["ls", "b/d"]).starts_with("no streams in b/d"));
}

#[test]
fn info_and_groups_say_what_there_is() {
    let place = Place::new();
    let counts = Counts { delivered: 7, redelivered: 2, lost: 1 };
    Group::write(&place.log(ID), "trainer", 40, counts).expect("ours");
    let info = place.json(&["info", "--json", "b/d/events"]);
    for (key, value) in
        [("first_offset", 0), ("end_offset", 95), ("bytes", 950), ("segments", 9), ("pending_bytes", 0)]
    {
        assert_eq!(info[key], value, "{key}");
    }
    assert_eq!((&info["path"], &info["first_time"]), (&Value::from("d/events"), &Value::from(NOON)));
    let text = place.says(&["info", "b/d/events"]);
    assert!(text.contains("95, offsets 0 to before 95") && text.contains("the last 1 GiB"), "{text}");
    let group = &place.json(&["groups", "--json", "b/d/events"])["groups"][0];
    assert_eq!((&group["lag"], &group["redelivered"], &group["lost"]), (&55.into(), &2.into(), &1.into()));
    let text = place.says(&["groups", "b/d/events"]);
    assert!(text.starts_with("GROUP") && text.contains("trainer"), "{text}");
}

#[test]
fn an_export_has_the_bytes_and_the_last_records_time() {
    let place = Place::new();
    assert_eq!(place.says(&["export", "b/d/events", "out"]), "950 bytes in out\n");
    assert_eq!(fs::read_to_string(place.path().join("out")).expect("there"), lines(0..95));
    let metadata = fs::metadata(place.path().join("out")).expect("there");
    // The last five records were indexed anew, and have the time that the last sealed one has, or the file's.
    assert!(metadata.mtime() as u64 >= (NOON + 89_000_000) / 1_000_000);
    place.refused(1, &["export", "b/d/events", "out"], &["out is there already"]);
    place.refused(1, &["export", "b/d/events", "no/where"], &["no/where can't be made"]);
}

#[test]
fn a_group_goes_on_where_it_is_told_and_keeps_its_counts() {
    let place = Place::new();
    let counts = Counts { delivered: 7, redelivered: 2, lost: 1 };
    Group::write(&place.log(ID), "g", 40, counts).expect("ours");
    let cases = [
        ("earliest", 0),
        ("latest", 95),
        ("offset:17", 17),
        ("time:2025-11-24T12:00:42Z", 42),
        ("time:-0s", 95),
    ];
    for (to, offset) in cases {
        let said = place.says(&["seek", "b/d/events", "g", "--to", to]);
        assert_eq!(said, format!("group g of b/d/events goes on at record {offset}\n"));
        let group = Group::read(&place.log(ID), "g").expect("there");
        assert_eq!((group.committed(), group.counts()), (offset, counts), "{to}");
    }
    place.says(&["seek", "b/d/events", "new", "--to", "3"]);
    assert_eq!(groups(&place.log(ID)), ["g", "new"]);
    place.refused(1, &["seek", "b/d/events", "g", "--to", "offset:96"], &["no record 96", "offset 95"]);
    place.refused(2, &["seek", "b/d/events", "g", "--to", "soon"], &["--to soon", "earliest"]);
    place.refused(2, &["seek", "b/d/events", "g h", "--to", "latest"], &["'g h'", "letters"]);
    assert!(!place.path().join("b/.aimss/lease").exists(), "the lease is given back");
}

#[test]
fn a_trim_removes_whole_segments() {
    let place = Place::new();
    let said = place.says(&["trim", "b/d/events", "--before", "25"]);
    assert_eq!(said, "20 records in 2 segments removed; b/d/events begins with record 20\n");
    assert_eq!(place.says(&["cat", "b/d/events"]), lines(20..95));
    place.refused(1, &["cat", "b/d/events", "--from", "3"], &["record 3 is not kept", "offset 20"]);
}

#[test]
fn settings_are_changed_and_taken_away() {
    let place = Place::new();
    place.says(&["set", "b/d/events", "--retention", "7d", "--retention", "acked", "--ack-timeout", "1m"]);
    let info = place.json(&["info", "--json", "b/d/events"]);
    assert_eq!(info["retention"], serde_json::json!({ "bytes": null, "age": 604_800.0, "acked": true }));
    assert_eq!(info["ack_timeout"], 60.0);
    place.says(&["set", "b/d/events", "--retention", "none", "--ack-timeout", "none"]);
    let info = place.json(&["info", "--json", "b/d/events"]);
    assert_eq!(info["retention"], serde_json::json!({ "bytes": null, "age": null, "acked": false }));
    assert_eq!(info["ack_timeout"], Value::Null);
    place.refused(2, &["set", "b/d/events"], &["nothing to set"]);
}

#[test]
fn removing_takes_a_group_or_name_and_log() {
    let place = Place::new();
    for group in ["a", "b"] {
        Group::write(&place.log(ID), group, 1, Counts::default()).expect("ours");
    }
    place.says(&["rm", "b/d/events@a"]);
    place.says(&["rm", "b/d/events", "--group", "b"]);
    assert_eq!(groups(&place.log(ID)), Vec::<String>::new());
    place.refused(1, &["rm", "b/d/events@a"], &["no group a"]);
    place.refused(2, &["rm", "b/d/events@"], &["''", "letters"]);
    fs::write(place.path().join("b/d/x@y"), Marker(ID).encode()).expect("ours");
    place.says(&["rm", "b/d/x@y"]);
    assert!(!place.path().join("b/d/x@y").exists() && !place.path().join("b/.aimss").exists());
    place.refused(1, &["rm", "b/d/events"], &["b/d/events", ".aimss/streams"]);
}

#[test]
fn verify_names_every_problem_with_its_place() {
    let place = Place::new();
    assert_eq!(place.says(&["verify", "b/d/events"]), "95 records, 9 segments, nothing wrong\n");
    let files: Vec<PathBuf> = place.files().into_iter().map(|(path, ..)| path).collect();
    let ending = |ending: &str| files.iter().find(|path| path.extension().is_some_and(|e| e == ending));
    let (segment, active) = (ending("sealed").expect("there"), ending("active").expect("there"));
    let mut bytes = fs::read(segment).expect("ours");
    let at = bytes.windows(9).position(|window| window == b"line 0003").expect("stored plainly");
    bytes[at] ^= 1;
    fs::write(segment, bytes).expect("ours");
    OpenOptions::new().append(true).open(active).and_then(|mut f| f.write_all(b"torn")).expect("ours");
    let output = place.run(&["verify", "b/d/events"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stdout).expect("text");
    let name = segment.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(said.lines().any(|line| line.starts_with(&format!("{name}: at byte "))), "{said}");
    assert!(
        said.contains("lost are records 3 to 3") && said.contains("last record is not complete"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 record of 95 are lost"));
    let output = place.run(&["cat", "b/d/events"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).expect("text"), lines(0..3) + &lines(4..95));
    assert!(String::from_utf8_lossy(&output.stderr).contains("aimss stream verify"));
}

#[test]
fn what_is_no_stream_is_refused_by_name() {
    let place = Place::new();
    place.refused(1, &["cat", "b/nothing"], &["no stream b/nothing", "aimss stream ls"]);
    place.refused(1, &["cat", "b/d/plain"], &["b/d/plain is a plain file"]);
    place.refused(1, &["info", "b/d"], &["b/d is a directory", "aimss stream ls b/d"]);
    fs::copy(place.path().join("b/d/events"), place.path().join("copy")).expect("ours");
    place.refused(1, &["cat", "copy"], &["copy", "moved or copied"]);
    fs::write(place.log(ID).join("settings"), "aimss-stream-settings 9\n").expect("ours");
    place.refused(1, &["cat", "b/d/events"], &["b/d/events", "another version"]);
    fs::remove_file(place.log(ID).join("settings")).expect("ours");
    place.refused(1, &["cat", "b/d/events"], &["b/d/events", "no settings"]);
}

#[test]
fn streams_are_made_in_mounts_only_and_of_sense_only() {
    let place = Place::new();
    place.refused(1, &["create", "b/new"], &["b/new is on no aimss mount", "aimss mount"]);
    let cases: [(&[&str], &[&str]); 10] = [
        (&["--framing", "fixed:0"], &["fixed:0", "no bytes"]),
        (&["--framing", "words"], &["words", "len32"]),
        (&["--framing", "fixed:2000000", "--segment", "1MiB"], &["longer than a segment"]),
        (&["--segment", "2GiB"], &["2GiB", "1GiB"]),
        (&["--compress", "zip"], &["zip", "lz4"]),
        (&["--retention", "soon"], &["soon", "10GiB", "7d", "acked"]),
        (&["--retention", "10"], &["10 has no unit"]),
        (&["--retention", "1GiB", "--retention", "2GiB"], &["2GiB", "second"]),
        (&["--ack-timeout", "0"], &["--ack-timeout"]),
        (&["--ack-timeout", "x"], &["--ack-timeout", "'x'"]),
    ];
    for (options, words) in cases {
        let mut arguments = vec!["create", "b/new"];
        arguments.extend(options);
        place.refused(2, &arguments, words);
    }
}

#[test]
fn changes_wait_for_an_owner_and_readers_are_told_of_it() {
    let place = Place::new();
    let owner = "{\"node\":\"elsewhere\",\"pid\":7,\"mountpoint\":\"/mnt/far\"}";
    fs::write(place.path().join("b/.aimss/lease"), owner).expect("ours");
    for change in [
        &["trim", "b/d/events", "--before", "9"][..],
        &["rm", "b/d/events"],
        &["seek", "b/d/events", "g", "--to", "0"],
    ] {
        place.refused(1, change, &["elsewhere"]);
    }
    let output = place.run(&["cat", "b/d/events"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).expect("text"), lines(0..95));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/mnt/far"));
}

#[test]
fn of_partitions_sums_are_shown() {
    let place = Place::partitions();
    let all = place.json(&["info", "--json", "b/p"]);
    assert_eq!(
        (&all["count"], &all["records"], &all["missing"]),
        (&3.into(), &6.into(), &Value::Array(vec![]))
    );
    let groups = place.json(&["groups", "--json", "b/p"]);
    assert_eq!((&groups["groups"][0]["name"], &groups["groups"][0]["lag"]), (&"g".into(), &3.into()));
    assert_eq!(groups["groups"][0]["partitions"][2]["committed"], 1);
    assert!(place.says(&["ls", "b"]).contains("p/ (3 partitions)"));
    assert_eq!(place.says(&["cat", "b/p"]), "0 one\n0 two\n1 one\n1 two\n2 one\n2 two\n");
    let last = place.says(&["cat", "--json", "b/p"]);
    assert_eq!(
        serde_json::from_str::<Value>(last.lines().last().expect("six")).expect("JSON")["partition"],
        2
    );
    assert_eq!(place.says(&["verify", "b/p"]).lines().count(), 3);
}

#[test]
fn what_is_done_to_partitions_is_done_to_all() {
    let place = Place::partitions();
    place.says(&["seek", "b/p", "g", "--to", "latest"]);
    assert_eq!(place.json(&["groups", "--json", "b/p"])["groups"][0]["lag"], 0);
    place.refused(2, &["seek", "b/p", "g", "--to", "offset:1"], &["one partition", "b/p/0"]);
    place.refused(2, &["cat", "--from", "1", "b/p"], &["one partition", "b/p/0"]);
    place.refused(1, &["export", "b/p", "all"], &["export each one", "b/p/0"]);
    place.says(&["set", "--retention", "7d", "b/p"]);
    for partition in ["b/p/0", "b/p/1", "b/p/2"] {
        assert_eq!(place.json(&["info", "--json", partition])["retention"]["age"], 604_800.0);
    }
    place.says(&["trim", "b/p", "--before", "1"]);
    place.refused(1, &["rm", "b/p@other"], &["no group other"]);
    place.says(&["rm", "b/p@g"]);
    assert!(place.says(&["groups", "b/p"]).contains("has no groups"));
    place.says(&["rm", "b/p"]);
    assert!(!place.path().join("b/p").exists() && !place.log(StreamId(1)).exists());
}

#[test]
fn partitions_that_are_missing_are_named() {
    let place = Place::partitions();
    let (first, away) = (place.path().join("b/p/0"), place.path().join("b/away"));
    fs::rename(&first, &away).expect("it is ours");
    place.refused(1, &["info", "b/p"], &["partition 0 of 3 is not in b/p"]);
    place.refused(1, &["cat", "b/p"], &["partition 0 of 3 is not in b/p"]);
    assert!(place.says(&["ls", "b"]).contains("p/ (2 of 3 partitions)"));
    fs::rename(place.path().join("b/p/2"), &first).expect("it is ours");
    place.refused(1, &["groups", "b/p"], &["partitions 0, 2 of 3 are not in b/p"]);
    place.refused(1, &["info", "b/d"], &["is a directory"]);
}

#[test]
fn every_subcommand_teaches_by_examples() {
    let place = Place::empty();
    for command in ["create", "set", "ls", "info", "groups", "cat", "export", "seek", "trim", "rm", "verify"]
    {
        let text = place.says(&[command, "--help"]);
        assert!(text.contains("Exit codes:"), "{command}: {text}");
        assert!(text.contains("Examples:"), "{command}: {text}");
    }
    let text = place.says(&["--help"]);
    assert!(text.contains("Examples:"), "{text}");
}
