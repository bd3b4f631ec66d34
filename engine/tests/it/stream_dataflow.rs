//! Dataflows: streams by name without a mount. What is lent is the memory itself and stays as it is while it
//! is borrowed; a finished stream comes to an end; a shuffle brings each record to its output exactly once;
//! and what a process that was killed had appended is there.

use crate::support::random::Random;
use crate::support::{Seed, first_seed, runs};
use aimss_engine::stream::dataflow::{Dataflow, Error, Got, output_of};
use aimss_engine::stream::live::Limits;
use aimss_engine::stream::{Compression, Framing, Log, LogConfig, Settings};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

struct World {
    directory: TempDir,
    arena: TempDir,
}

impl World {
    fn new() -> World {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        World { directory, arena: tempfile::tempdir_in("/dev/shm").expect("a scratch directory") }
    }

    fn open(&self) -> Dataflow {
        Dataflow::open(self.directory.path(), self.arena.path()).expect("opened")
    }

    /// One that keeps nothing of what is sealed in memory.
    fn open_cold(&self) -> Dataflow {
        let limits =
            Limits { flush_every: Duration::from_millis(50), hot_bytes: 0, removed_after: Duration::ZERO };
        Dataflow::open_with(self.directory.path(), self.arena.path(), limits).expect("opened")
    }

    /// The only active file in the arena.
    fn active_file(&self) -> PathBuf {
        let mut found = Vec::new();
        let mut directories = vec![self.arena.path().to_owned()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).expect("readable") {
                let path = entry.expect("readable").path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|ending| ending == "active") {
                    found.push(path);
                }
            }
        }
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }
}

fn small_segments() -> Settings {
    let log = LogConfig { segment_bytes: 100_000, block_bytes: 10_000, ..LogConfig::default() };
    Settings { log, ..Settings::default() }
}

fn lines(from: u64, count: u64) -> Vec<u8> {
    (from..from + count).flat_map(|i| format!("record number {i}\n").into_bytes()).collect()
}

fn all_of(dataflow: &Dataflow, name: &str, group: &str) -> Vec<u8> {
    let mut reader = dataflow.read_from(name, group).expect("a member");
    let mut all = Vec::new();
    loop {
        match reader.read_within(Duration::ZERO).expect("readable") {
            Got::Records(lent) => all.extend_from_slice(lent.bytes()),
            Got::Nothing | Got::End => return all,
        }
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn records_are_lent_where_they_are_in_the_arena() {
    let world = World::new();
    let dataflow = world.open();
    dataflow.create_stream("s", &Settings::default()).expect("created");
    dataflow.write_to("s").expect("a writer").append(b"one\ntwo\n").expect("appended");
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    let lent = reader.read().expect("readable").expect("records");
    let got: Vec<_> = lent.iter().map(|record| (record.offset.0, record.position.0, record.bytes)).collect();
    assert_eq!(got, [(0, 0, &b"one\n"[..]), (1, 4, b"two\n")]);
    let at = got[0].2.as_ptr() as usize;
    let maps = fs::read_to_string("/proc/self/maps").expect("readable");
    let mapping = maps.lines().find(|line| {
        let (begin, end) = line.split_once(' ').expect("a range").0.split_once('-').expect("a range");
        let number = |text| usize::from_str_radix(text, 16).expect("an address");
        (number(begin)..number(end)).contains(&at)
    });
    let mapping = mapping.expect("it is mapped");
    assert!(mapping.ends_with(world.active_file().to_str().expect("a path")), "{mapping}");
}

#[test]
fn what_is_borrowed_stays_as_it_is_while_its_memory_is_wanted_back() {
    let world = World::new();
    let dataflow = world.open_cold();
    dataflow.create_stream("s", &small_segments()).expect("created");
    let mut writer = dataflow.write_to("s").expect("a writer");
    writer.append(&lines(0, 2000)).expect("appended");
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    let lent = reader.read().expect("readable").expect("records");
    let before = lent.bytes().to_vec();
    assert!(before.len() > 20_000);
    writer.append(&lines(2000, 40_000)).expect("appended");
    let sealed = || world.directory.path().join(".aimss/streams");
    let segments = || {
        let streams = fs::read_dir(sealed()).expect("there").map(|entry| entry.expect("readable").path());
        let files = streams.flat_map(|path| fs::read_dir(path).expect("there"));
        files
            .filter(|file| file.as_ref().is_ok_and(|f| f.path().extension().is_some_and(|e| e == "sealed")))
            .count()
    };
    eventually("sealed", || segments() >= 5);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(lent.bytes(), before, "nothing of it was given back");
    for (i, record) in lent.iter().enumerate() {
        assert_eq!((record.offset.0, record.bytes), (i as u64, &lines(i as u64, 1)[..]));
    }
    drop(reader);
    let blocks = || fs::metadata(world.active_file()).map_or(u64::MAX, |metadata| metadata.blocks() * 512);
    eventually("given back", || blocks() < 250_000);
    drop(writer);
    assert_eq!(all_of(&dataflow, "s", "h"), lines(0, 42_000), "from segments");
}

#[test]
fn a_record_that_was_changed_in_memory_is_lost_and_the_others_are_not() {
    let world = World::new();
    let dataflow = world.open();
    dataflow.create_stream("s", &Settings::default()).expect("created");
    dataflow.write_to("s").expect("a writer").append(b"one\ntwo\nthree\n").expect("appended");
    assert_eq!(all_of(&dataflow, "s", "before"), b"one\ntwo\nthree\n");
    let file = OpenOptions::new().write(true).open(world.active_file()).expect("there");
    file.write_at(b"X", 5).expect("written");
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    assert_eq!(reader.read().expect("readable").expect("records").bytes(), b"one\n");
    let lent = reader.read().expect("readable").expect("records");
    assert_eq!((lent.lost(), lent.bytes()), (1, &b"three\n"[..]));
    assert_eq!(lent.iter().next().map(|record| (record.offset.0, record.position.0)), Some((2, 8)));
}

#[test]
fn members_share_the_records_and_what_one_leaves_another_gets() {
    let world = World::new();
    let dataflow = world.open();
    dataflow.create_stream("s", &Settings::default()).expect("created");
    dataflow.write_to("s").expect("a writer").append(&lines(0, 100)).expect("appended");
    dataflow.finish("s").expect("durable");
    let mut first = dataflow.read_from("s", "g").expect("a member");
    let mut second = dataflow.read_from("s", "g").expect("a member");
    assert_eq!(first.read().expect("readable").expect("records").len(), 100);
    let waits = second.read_within(Duration::from_millis(50)).expect("readable");
    assert!(matches!(waits, Got::Nothing), "they may be given again: {waits:?}");
    std::thread::scope(|scope| {
        let second = scope.spawn(move || second.read().expect("readable").map(|lent| lent.bytes().to_vec()));
        std::thread::sleep(Duration::from_millis(50));
        drop(first);
        assert_eq!(second.join().expect("no panic"), Some(lines(0, 100)));
    });
    // The second was dropped with what it had.
    let mut third = dataflow.read_from("s", "g").expect("a member");
    let mut fourth = dataflow.read_from("s", "g").expect("a member");
    assert_eq!(third.read().expect("readable").expect("records").len(), 100);
    std::thread::scope(|scope| {
        let fourth = scope.spawn(move || fourth.read().expect("readable").is_none());
        std::thread::sleep(Duration::from_millis(50));
        assert!(third.read().expect("readable").is_none(), "all is acknowledged");
        assert!(fourth.join().expect("no panic"), "for the other, too");
    });
    assert_eq!(third.committed().0, 100);
}

#[test]
fn a_reader_that_waits_gets_what_is_appended_and_the_end() {
    let world = World::new();
    let dataflow = world.open();
    dataflow.create_stream("s", &Settings::default()).expect("created");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut reader = dataflow.read_from("s", "g").expect("a member");
            let mut got = Vec::new();
            while let Some(lent) = reader.read().expect("readable") {
                got.extend_from_slice(lent.bytes());
            }
            got
        });
        for i in 0..20 {
            dataflow.write_to("s").expect("a writer").append(&lines(i, 1)).expect("appended");
            std::thread::sleep(Duration::from_millis(3));
        }
        dataflow.finish("s").expect("durable");
        assert_eq!(reader.join().expect("no panic"), lines(0, 20));
    });
}

#[test]
fn only_whole_records_are_appended_and_nothing_behind_the_end() {
    let world = World::new();
    let dataflow = world.open();
    for (framing, torn) in
        [(Framing::Line, &b"a\nb"[..]), (Framing::Len32, b"\x02\0\0\0a"), (Framing::Fixed(2), b"abc")]
    {
        let name = framing.to_string().replace(':', "-");
        let log = LogConfig { framing, ..LogConfig::default() };
        dataflow.create_stream(&name, &Settings { log, ..Settings::default() }).expect("created");
        let mut writer = dataflow.write_to(&name).expect("a writer");
        for bytes in [torn, b""] {
            assert!(matches!(writer.append(bytes), Err(Error::NotRecords { .. })), "{framing}");
        }
        assert!(matches!(dataflow.finish(&name), Err(Error::HasWriters { .. })));
        drop(writer);
        dataflow.finish(&name).expect("durable");
        dataflow.finish(&name).expect("it is already");
        assert!(matches!(dataflow.write_to(&name), Err(Error::Finished { .. })));
        assert_eq!(all_of(&dataflow, &name, "g"), b"");
    }
}

#[test]
fn a_shuffle_waits_for_its_inputs_and_brings_equal_keys_together_in_order() {
    let world = World::new();
    let dataflow = world.open();
    let outputs = ["out-0", "out-1", "out-2"];
    for name in ["a", "b"].iter().chain(&outputs) {
        dataflow.create_stream(name, &small_segments()).expect("created");
    }
    let line = |i: u64| format!("{} {i}\n", i % 50).into_bytes();
    std::thread::scope(|scope| {
        let shuffle = scope.spawn(|| dataflow.shuffle(&["a", "b"], key, &outputs));
        for (name, from) in [("a", 0), ("b", 10_000)] {
            let mut writer = dataflow.write_to(name).expect("a writer");
            writer.append(&(from..from + 10_000).flat_map(line).collect::<Vec<_>>()).expect("appended");
            drop(writer);
            std::thread::sleep(Duration::from_millis(50));
            assert!(outputs.iter().all(|name| !dataflow.is_finished(name).expect("there")), "not yet");
            assert!(!shuffle.is_finished());
            dataflow.finish(name).expect("durable");
        }
        let shuffled = shuffle.join().expect("no panic").expect("shuffled");
        assert_eq!((shuffled.records, shuffled.before, shuffled.lost), (20_000, 0, 0));
    });
    for (i, name) in outputs.iter().enumerate() {
        assert!(dataflow.is_finished(name).expect("there"));
        let wanted: Vec<u8> =
            (0..20_000).map(line).filter(|line| output_of(key(line), 3) == i).flatten().collect();
        assert_eq!(all_of(&dataflow, name, "g"), wanted, "{name}");
    }
    let again = dataflow.shuffle(&["a", "b"], key, &outputs).expect("nothing to do");
    assert_eq!((again.records, again.before), (0, 20_000));
}

fn key(line: &[u8]) -> &[u8] {
    line.split(|b| *b == b' ').next().unwrap_or_default()
}

#[test]
fn a_shuffle_goes_on_behind_what_another_had_moved() {
    let world = World::new();
    let dataflow = world.open();
    for name in ["in", "out-0", "out-1"] {
        dataflow.create_stream(name, &Settings::default()).expect("created");
    }
    let line = |i: u64| format!("{} {i}\n", i % 10).into_bytes();
    dataflow
        .write_to("in")
        .expect("a writer")
        .append(&(0..1000).flat_map(line).collect::<Vec<_>>())
        .expect("room");
    dataflow.finish("in").expect("durable");
    let of = |output| (0..1000).map(line).filter(move |line| output_of(key(line), 2) == output);
    // As of a shuffle that died.
    let begun: Vec<u8> = of(1).take(123).flatten().collect();
    dataflow.write_to("out-1").expect("a writer").append(&begun).expect("room");
    let shuffled = dataflow.shuffle(&["in"], key, &["out-0", "out-1"]).expect("shuffled");
    assert_eq!((shuffled.records, shuffled.before), (877, 123));
    for (i, name) in ["out-0", "out-1"].iter().enumerate() {
        assert_eq!(all_of(&dataflow, name, "g"), of(i).flatten().collect::<Vec<u8>>());
    }
    dataflow.create_stream("other", &Settings::default()).expect("created");
    dataflow.write_to("other").expect("a writer").append(&lines(0, 1001)).expect("room");
    let refused = dataflow.shuffle(&["in"], key, &["other"]);
    assert!(matches!(refused, Err(Error::OtherRecords { .. })), "{refused:?}");
}

#[test]
fn a_destroyed_stream_ends_for_those_who_use_it() {
    let world = World::new();
    let dataflow = world.open();
    dataflow.create_stream("s", &Settings::default()).expect("created");
    dataflow.write_to("s").expect("a writer").append(b"one\n").expect("appended");
    let mut writer = dataflow.write_to("s").expect("a writer");
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    let mut waiting = dataflow.read_from("s", "g").expect("a member");
    let lent = reader.read().expect("readable").expect("records");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || waiting.read().map(|lent| lent.is_some()));
        std::thread::sleep(Duration::from_millis(50));
        dataflow.destroy("s").expect("removed");
        let ended = waiting.join().expect("no panic");
        assert!(matches!(ended, Err(Error::Destroyed { .. })), "{ended:?}");
    });
    assert!(matches!(writer.append(b"two\n"), Err(Error::Destroyed { .. })));
    drop(writer);
    let logs = || fs::read_dir(world.directory.path().join(".aimss/streams")).map_or(0, Iterator::count);
    eventually("the log is gone", || logs() == 0);
    assert_eq!(lent.bytes(), b"one\n", "what is borrowed stays");
    assert!(matches!(reader.read(), Err(Error::Destroyed { .. })));
    assert!(matches!(dataflow.write_to("s"), Err(Error::NoStream { .. })));
    dataflow.create_stream("s", &Settings::default()).expect("the name is free");
    assert_eq!(dataflow.streams().expect("readable"), ["s"]);
}

#[test]
fn names_are_files_and_copies_of_them_are_no_streams() {
    let world = World::new();
    let dataflow = world.open();
    for name in ["", ".", "..", ".aimss", "a/b", "a@b", "a\nb"] {
        let refused = dataflow.create_stream(name, &Settings::default());
        assert!(matches!(refused, Err(Error::StreamName { .. })), "{name:?}");
    }
    fs::write(world.directory.path().join("file"), "of somebody").expect("written");
    assert!(matches!(dataflow.create_stream("file", &Settings::default()), Err(Error::Exists { .. })));
    assert!(matches!(dataflow.write_to("file"), Err(Error::NoStream { .. })));
    dataflow.create_stream("s", &Settings::default()).expect("created");
    assert!(matches!(dataflow.create_stream("s", &Settings::default()), Err(Error::Exists { .. })));
    assert!(matches!(dataflow.read_from("s", "a/b"), Err(Error::GroupName { .. })));
    let file = |name| world.directory.path().join(name);
    fs::copy(file("s"), file("copy")).expect("copied");
    assert_eq!(dataflow.streams().expect("readable"), ["s"]);
    dataflow.close().expect("durable");
    fs::remove_file(file("copy")).expect("there");
    fs::rename(file("s"), file("t")).expect("renamed");
    assert_eq!(world.open().streams().expect("readable"), ["t"], "a renamed stream is one");
}

#[test]
fn a_directory_has_one_user() {
    let world = World::new();
    let dataflow = world.open();
    let refused = Dataflow::open(world.directory.path(), world.arena.path());
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    dataflow.close().expect("durable");
    let lease = world.directory.path().join(".aimss/lease");
    fs::create_dir(lease.parent().expect("a directory")).expect("gone with the dataflow");
    fs::write(&lease, "{\"node\":\"n\",\"pid\":1,\"mountpoint\":\"/m\"}").expect("written");
    let refused = Dataflow::open(world.directory.path(), world.arena.path());
    assert!(matches!(refused, Err(Error::MountDied { .. })), "{refused:?}");
}

#[test]
fn a_closed_dataflow_is_whole_in_its_directory() {
    let world = World::new();
    let dataflow = world.open_cold();
    dataflow.create_stream("s", &small_segments()).expect("created");
    dataflow.write_to("s").expect("a writer").append(&lines(0, 200_000)).expect("appended");
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    let first = reader.read().expect("readable").expect("records").offsets().end.0;
    reader.read().expect("readable");
    drop(reader);
    dataflow.close().expect("durable");
    assert_eq!(fs::read_dir(world.arena.path()).expect("there").count(), 0, "nothing is left in memory");
    let logs = world.directory.path().join(".aimss/streams");
    let log = fs::read_dir(logs).expect("there").next().expect("a log").expect("readable").path();
    let settings = Settings::read(&log).expect("readable");
    let log = Log::open_read_only(&log, settings.log).expect("a log");
    assert_eq!(log.end().0.0, 200_000);
    drop(log);
    let dataflow = world.open();
    let mut reader = dataflow.read_from("s", "g").expect("a member");
    let lent = reader.read().expect("readable").expect("records");
    assert_eq!(lent.offsets().start.0, first, "the group goes on");
    assert_eq!(lent.iter().next().map(|record| record.bytes.to_vec()), Some(lines(first, 1)));
}

/// Appends and dies, in a process of its own; see the test below.
#[test]
#[ignore = "a part of another test"]
fn appends_and_dies() {
    let directory = std::env::var("AIMSS_DATAFLOW").expect("set by the test below");
    let arena = std::env::var("AIMSS_DATAFLOW_ARENA").expect("set by the test below");
    let dataflow = Dataflow::open(Path::new(&directory), Path::new(&arena)).expect("opened");
    dataflow.create_stream("s", &small_segments()).expect("created");
    dataflow.create_stream("done", &small_segments()).expect("created");
    dataflow.write_to("done").expect("a writer").append(&lines(0, 10)).expect("appended");
    dataflow.finish("done").expect("durable");
    dataflow.write_to("s").expect("a writer").append(&lines(0, 30_000)).expect("appended");
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("dead");
}

#[test]
fn what_a_killed_process_had_appended_is_there_whatever_arena_comes_next() {
    for same in [true, false] {
        let mut world = World::new();
        let status = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "stream_dataflow::appends_and_dies", "--ignored"])
            .env("AIMSS_DATAFLOW", world.directory.path())
            .env("AIMSS_DATAFLOW_ARENA", world.arena.path())
            .status()
            .expect("started");
        assert!(!status.success(), "it dies");
        let old = world.arena.path().to_owned();
        if !same {
            let new = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
            let _ = std::mem::replace(&mut world.arena, new).keep();
        }
        let dataflow = world.open();
        assert_eq!(all_of(&dataflow, "s", "g"), lines(0, 30_000));
        assert!(!dataflow.is_finished("s").expect("there"));
        assert!(dataflow.is_finished("done").expect("there"));
        dataflow.close().expect("durable");
        assert_eq!(fs::read_dir(&old).expect("there").count(), 0, "the memory is given back");
        if !same {
            fs::remove_dir(old).expect("empty");
        }
    }
}

/// Streams of all framings that seal, cool, end and are opened again at random, read by several groups with
/// holding members, against a list of records.
#[test]
fn each_group_gets_each_record_and_what_is_held_stays() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_LIVE", 10) {
        let _seed = Seed(seed);
        let mut random = Random::new(seed);
        let world = World::new();
        let framings = [Framing::Line, Framing::Len32, Framing::Fixed(23), Framing::Write];
        let framing = framings[random.below(4) as usize];
        let compression = if random.one_in(2) { Compression::Lz4 } else { Compression::None };
        let log = LogConfig { framing, segment_bytes: 3000, compression, block_bytes: 700 };
        let mut dataflow = world.open_cold();
        dataflow.create_stream("s", &Settings { log, ..Settings::default() }).expect("created");
        let mut records: Vec<Vec<u8>> = Vec::new();
        let mut got = 0;
        for _ in 0..5 {
            {
                let mut writer = dataflow.write_to("s").expect("a writer");
                let mut reader = dataflow.read_from("s", "g").expect("a member");
                for _ in 0..40 {
                    for _ in 0..random.below(12) {
                        let record = record_of(framing, &mut random);
                        writer.append(&record).expect("appended");
                        records.push(record);
                    }
                    let mut keeper = dataflow.read_from("s", "keeper").expect("a member");
                    let kept = match keeper.read_within(Duration::ZERO).expect("readable") {
                        Got::Records(lent) => Some(lent),
                        _ => None,
                    };
                    while let Got::Records(lent) = reader.read_within(Duration::ZERO).expect("readable") {
                        for record in lent {
                            assert_eq!((record.offset.0, record.bytes), (got, &records[got as usize][..]));
                            got += 1;
                        }
                    }
                    for record in kept.into_iter().flatten() {
                        assert_eq!(record.bytes, records[record.offset.0 as usize]);
                    }
                    if random.one_in(10) {
                        std::thread::sleep(Duration::from_millis(random.below(150)));
                    }
                }
            }
            dataflow.close().expect("durable");
            dataflow = world.open_cold();
        }
        assert_eq!(got, records.len() as u64);
        assert_eq!(all_of(&dataflow, "s", "late"), records.concat());
    }
}

fn record_of(framing: Framing, random: &mut Random) -> Vec<u8> {
    let length = random.below(90) as usize;
    let body: Vec<u8> = random.bytes(length).iter().map(|b| b % 26 + b'a').collect();
    match framing {
        Framing::Line => [&body[..], b"\n"].concat(),
        Framing::Len32 => [&(length as u32).to_le_bytes()[..], &body].concat(),
        Framing::Fixed(n) => (0..n).map(|i| body.get(i as usize).copied().unwrap_or(b'.')).collect(),
        Framing::Write => [&body[..], b"!"].concat(),
    }
}
