//! Streams of a mount against a model that is a list of records and a set for each group: appends by the kernel's
//! way and through us, members that come, read, close and are late, seeks, seals, trims by acknowledgement, daemons
//! that end well, die, or lose the node's memory. `AIMSS_LIVE=N` for more.
//!
//! Held against the model: what a member gets are whole records of the stream, in order and unchanged; in the end each
//! group got each record that was not lost; and a record comes again only if the model allows it: its batch was not
//! acknowledged when its member left, or when the daemon died, or the acknowledgement was not written down yet.

use crate::support::random::Random;
use crate::support::{Seed, first_seed, runs};
use aimss_engine::Timestamp;
use aimss_engine::stream::group::{Group, MemberId};
use aimss_engine::stream::live::{AtEnd, Limits, Refusal, Start, Stream, Streams, Summary, Waiting};
use aimss_engine::stream::{Framing, LogConfig, Offset, Position, Retention, Settings, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tempfile::TempDir;

/// Small, so that histories seal often.
const SEGMENT_BYTES: u64 = 600;
const GROUPS: [&str; 2] = ["g", "h"];

#[test]
fn each_group_gets_each_record() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_LIVE", 30) {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.finish();
    }
}

#[test]
fn a_question_that_waits_is_answered_by_the_next_append() {
    let world = World::new(1);
    world.stream.start_service();
    let (answers, answered) = mpsc::channel();
    let member = world.stream.get().join("g").expect("a group");
    let question = Waiting {
        group: "g".into(),
        member,
        bytes_max: 100,
        room: 100,
        thread: 0,
        answer: Box::new(move |answer| answers.send(answer.map(<[u8]>::to_vec)).expect("listening")),
    };
    world.stream.get().read_group(question, AtEnd::Wait);
    assert!(answered.recv_timeout(Duration::from_millis(50)).is_err(), "there is nothing yet");
    world.append_by_kernel(b"now\n");
    let answer = answered.recv_timeout(Duration::from_secs(5)).expect("an event of the append");
    assert_eq!(answer.expect("a record"), b"now\n");
}

#[test]
fn a_poll_is_told_of_the_next_append() {
    let world = World::new(1);
    world.stream.start_service();
    let member = world.stream.get().join("g").expect("a group");
    let (told, heard) = mpsc::channel();
    let ready =
        world.stream.get().poll_group("g", member, Some(Box::new(move || told.send(()).expect("listening"))));
    assert!(!ready);
    world.append_by_kernel(b"now\n");
    heard.recv_timeout(Duration::from_secs(5)).expect("an event of the append");
    assert!(world.stream.get().poll_group("g", member, None));
}

#[test]
fn what_a_dead_daemon_left_in_memory_is_brought_to_the_log() {
    let mut world = World::new(1);
    world.append_by_kernel(b"one\ntwo\nhal");
    let (backing, active) = (world.backing.path().to_owned(), world.active.path().to_owned());
    world.stream.forget();
    Streams::recover(&backing, &active).expect("recovered");
    std::fs::remove_dir_all(active.join(world.id.to_string())).expect("the memory is gone");
    world.stream = Running::start(&world.backing, &world.active, world.id);
    let mut bytes = [0; 100];
    let read = world.stream.get().read_at(Position(0), &mut bytes).expect("readable");
    assert_eq!(&bytes[..read], b"one\ntwo\nhal");
}

#[test]
fn what_is_left_of_a_stream_that_can_not_be_opened_is_an_error_that_names_it() {
    let mut world = World::new(1);
    world.append_by_kernel(b"one\n");
    world.stream.get().change_settings(|settings| settings.path = "a/b.stream".into()).expect("written");
    let other = world.stream.streams().create(&Settings::default()).expect("a second one").id();
    world.stream.streams().open(other).expect("it is open").append(b"other\n").expect("room");
    world.stream.forget();
    let log = Streams::home(world.backing.path()).join(world.id.to_string());
    let memory = world.active.path().join(world.id.to_string());
    let again = || Streams::new(world.backing.path(), world.active.path(), limits()).expect("directories");
    // Settings that are none, a file in place of the log's directory, no settings.
    let settings = std::fs::read(log.join("settings")).expect("settings");
    let spoil: [&dyn Fn(); 3] = [
        &|| std::fs::write(log.join("settings"), "framing = line\n").expect("ours"),
        &|| {
            std::fs::rename(&log, log.with_extension("away")).expect("ours");
            std::fs::write(&log, "").expect("ours");
        },
        &|| std::fs::remove_file(log.join("settings")).expect("ours"),
    ];
    for (number, spoil) in spoil.iter().enumerate() {
        spoil();
        let streams = again();
        let refused = streams.open_left(false).expect_err("one can't be opened").to_string();
        assert!(refused.contains(&world.id.to_string()), "{number}: {refused}");
        let open: Vec<StreamId> = streams.all().iter().map(|stream| stream.id()).collect();
        assert_eq!(open, [other], "{number}: the other one is");
        streams.sync_all().expect("and durable");
        assert_eq!(streams.left_in_memory().expect("listed"), std::slice::from_ref(&memory), "{number}");
        // The way out.
        let target = tempfile::tempdir().expect("a scratch directory");
        Streams::save(&memory, world.backing.path(), target.path()).expect("saved");
        let saved = Streams::home(target.path()).join(world.id.to_string());
        let saved = std::fs::read_dir(saved).expect("there").flatten().map(|entry| entry.path());
        let saved: Vec<PathBuf> =
            saved.filter(|path| path.extension().is_some_and(|e| e == "active")).collect();
        assert_eq!(std::fs::read(&saved[0]).expect("the records"), b"one\n", "{number}");
        if number == 1 {
            std::fs::remove_file(&log).expect("ours");
            std::fs::rename(log.with_extension("away"), &log).expect("ours");
        }
        std::fs::write(log.join("settings"), &settings).expect("ours");
    }
    let streams = again();
    streams.open_left(false).expect("all can be opened");
    assert_eq!(streams.left_in_memory().expect("listed"), [] as [PathBuf; 0], "and are durable");
    drop(streams);
    world.stream = Running::start(&world.backing, &world.active, world.id);
    assert_eq!(world.view(), b"one\n");
}

#[test]
fn what_was_being_removed_goes_or_waits_for_whoever_looks_for_its_names() {
    let mut world = World::new(1);
    world.append_by_kernel(b"one\n");
    let stream = world.stream.get().clone();
    stream.change_settings(|settings| settings.doomed = true).expect("written");
    drop(stream);
    world.stream.forget();
    let memory = world.active.path().join(world.id.to_string());
    let log = Streams::home(world.backing.path()).join(world.id.to_string());
    let again = || Streams::new(world.backing.path(), world.active.path(), limits()).expect("directories");
    let streams = again();
    streams.open_left(true).expect("it is passed over");
    assert!(streams.all().is_empty() && memory.exists());
    assert_eq!(Streams::doomed(world.backing.path()).expect("listed"), [world.id]);
    // A name is there after all.
    streams.settle_doomed(world.id, true).expect("it lives");
    streams.open_left(true).expect("and is opened");
    streams.settle_doomed(world.id, false).expect("open, it is nobody's to remove");
    assert_eq!(streams.open(world.id).expect("it is open").view().expect("its size").bytes, 4);
    // The name goes again, and the daemon dies.
    streams
        .open(world.id)
        .expect("open")
        .change_settings(|settings| settings.doomed = true)
        .expect("written");
    drop(streams);
    let streams = again();
    streams.settle_doomed(world.id, false).expect("it goes");
    assert!(!memory.exists() && !log.exists(), "and leaves nothing that nobody would ever remove");
    streams.open_left(false).expect("there is nothing");
}

#[test]
fn a_stream_that_can_not_be_made_durable_is_named_and_the_others_are() {
    let mut world = World::new(1);
    let other = world.stream.streams().create(&Settings::default()).expect("a second one");
    world.append_by_kernel(b"one\n");
    other.append(b"other\n").expect("room");
    let member = other.join("g").expect("a group");
    assert_eq!(ask(&other, "g", member, 100), Ok(b"other\n".to_vec()));
    assert_eq!(ask(&other, "g", member, 100), Err(Refusal::WouldBlock), "and acknowledges");
    let file = Group::path(&Streams::home(world.backing.path()).join(other.id().to_string()), "g");
    std::fs::remove_file(&file).expect("ours");
    std::fs::create_dir(&file).expect("ours");
    let failed = world.stream.streams().sync_all().expect_err("an offset can't be written down").to_string();
    assert!(failed.contains(&other.id().to_string()), "{failed}");
    drop(other);
    world.restart(End::Memory);
    assert_eq!(world.view(), b"one\n", "the other one is durable");
}

#[test]
fn the_time_is_of_the_last_append_or_what_was_set_since() {
    let mut world = World::new(1);
    let mtime = |world: &World| world.stream.get().view().expect("its time").mtime;
    world.append_by_kernel(&b"10 bytes.\n".repeat(1000));
    let appended = mtime(&world);
    std::thread::sleep(Duration::from_millis(30));
    world.stream.get().index_news();
    world.stream.get().seal_and_cool().expect("sealed");
    assert!(world.stream.get().inspect(|now| now.log.sealed_segments()) > 0);
    assert_eq!(mtime(&world), appended, "giving memory back is no change");
    let set = Timestamp { seconds: 1_580_000_000, nanoseconds: 123_456_789 };
    world.stream.get().set_mtime(set).expect("set");
    assert_eq!(mtime(&world), set);
    for end in [End::Well, End::Death, End::Memory] {
        world.restart(end);
        assert_eq!(mtime(&world), set, "kept");
    }
    world.append_by_kernel(b"later\n");
    let appended_later = mtime(&world);
    assert!(appended_later > appended);
    world.stream.get().sync().expect("durable");
    world.restart(End::Memory);
    assert_eq!(mtime(&world), appended_later, "the copy has it");
}

#[test]
fn an_append_says_where_it_is_whoever_was_faster() {
    let mut world = World::new(1);
    let append = |world: &World, data: &[u8]| {
        // Nobody has looked at this one yet.
        world.append_by_kernel(b"faster\n");
        let (at, bytes) = world.stream.get().append_at(data).expect("room");
        let mut read = vec![0; bytes];
        assert_eq!(world.stream.get().read_at(at, &mut read).expect("readable"), data.len());
        assert_eq!(read, data);
        at.0
    };
    assert_eq!(append(&world, b"one\n"), 7);
    let long = b"10 bytes.\n".repeat(100);
    assert_eq!(append(&world, &long), 18);
    world.stream.get().seal_and_cool().expect("sealed");
    assert!(world.stream.get().inspect(|now| now.log.sealed_segments()) > 0);
    assert_eq!(append(&world, b"two\n"), 1025);
    world.restart(End::Death);
    assert_eq!(append(&world, b"three\n"), 1036);
    world.stream.get().sync().expect("durable");
    world.restart(End::Memory);
    assert_eq!(append(&world, b"four\n"), 1049);
    let world = World::of(1, Framing::Write);
    for (record, at) in [(b"a", 0), (b"b", 1)] {
        let appended = world.stream.get().append_at(record).expect("room");
        assert_eq!(appended, (Position(at), 1));
    }
}

#[test]
fn a_late_member_loses_its_batch_to_another() {
    let world = World::new(1);
    world.append_by_kernel(b"one\n");
    let stream = world.stream.get();
    stream
        .change_settings(|settings| settings.ack_timeout = Some(Duration::from_millis(50)))
        .expect("written");
    let (slow, other) = (stream.join("g").expect("a member"), stream.join("g").expect("a member"));
    assert_eq!(ask(stream, "g", slow, 100), Ok(b"one\n".to_vec()));
    assert_eq!(ask(stream, "g", other, 100), Err(Refusal::WouldBlock));
    std::thread::sleep(Duration::from_millis(60));
    stream.take_back_late();
    assert_eq!(ask(stream, "g", other, 100), Ok(b"one\n".to_vec()));
}

#[test]
fn a_record_longer_than_a_request_comes_in_pieces() {
    let world = World::new(1);
    let mut long = vec![b'x'; 250];
    long.push(b'\n');
    world.append_by_kernel(&long);
    world.append_by_kernel(b"short\n");
    let stream = world.stream.get();
    let member = stream.join("g").expect("a member");
    assert_eq!(ask(stream, "g", member, 99), Err(Refusal::TooSmall { needed_bytes: 251 }), "nothing is torn");
    let mut got = Vec::new();
    let mut sizes = Vec::new();
    for _ in 0..3 {
        let piece = ask_in_pieces(stream, "g", member, 99).expect("a piece");
        sizes.push(piece.len());
        got.extend(piece);
    }
    assert_eq!(sizes, [100, 100, 51], "whole requests, and a short one");
    assert_eq!(got, long);
    assert_eq!(stream.inspect(|now| now.groups["g"].committed()), 0, "not acknowledged by its own pieces");
    assert_eq!(ask_in_pieces(stream, "g", member, 99), Ok(b"short\n".to_vec()));
    assert_eq!(stream.inspect(|now| now.groups["g"].committed()), 1);
}

#[test]
fn the_summary_adds_up_what_all_streams_are() {
    let world = World::new(1);
    let stream = world.stream.get();
    assert_eq!(world.stream.summary().worst, None);
    world.append_by_kernel(&b"10 bytes.\n".repeat(200));
    let (member, other) = (stream.join("g").expect("a member"), stream.join("h").expect("a member"));
    assert_eq!(ask(stream, "g", member, 100).map(|batch| batch.len()), Ok(100));
    assert_eq!(ask(stream, "g", member, 100).map(|batch| batch.len()), Ok(100));
    stream.leave("h", other);
    let before = world.stream.summary();
    assert_eq!((before.logs, before.open, before.records, before.bytes), (1, 1, 200, 2000));
    assert_eq!((before.groups, before.members, before.unattended), (2, 1, 1));
    assert_eq!((before.lag, before.delivered, before.redelivered, before.lost), (390, 20, 0, 0));
    let worst = before.worst.expect("a group is behind");
    assert_eq!((&worst.group[..], worst.lag, worst.members), ("h", 200, 0));
    assert_eq!(before.unflushed_bytes, 2000);
    stream.sync().expect("durable");
    stream.seal_and_cool().expect("sealed");
    let after = world.stream.summary();
    assert_eq!(after.unflushed_bytes, 0);
    assert!(after.memory_bytes < before.memory_bytes, "{after:?}");
    let (sealed, left) = (stream.inspect(|now| now.log.sealed_paths()), after.memory_bytes);
    let files: u64 = sealed.iter().map(|path| path.metadata().expect("there").len()).sum();
    assert_eq!(after.stored_bytes, files + left);
    stream.trim_before(Offset(100)).expect("trimmed");
    assert!(world.stream.summary().stored_bytes < after.stored_bytes, "looked at again");
}

#[test]
fn a_long_record_that_was_changed_in_memory_is_lost_unless_it_is_sealed() {
    let world = World::new(1);
    let stream = world.stream.get();
    let member = stream.join("g").expect("a member");
    let long = |byte| [vec![byte; 600 - 1], vec![b'\n']].concat();
    world.append_by_kernel(&long(b'x'));
    stream.index_news();
    stream.seal_full().expect("sealed");
    world.append_by_kernel(&long(b'y'));
    stream.index_news();
    world.change_byte_of_memory(5);
    world.change_byte_of_memory(605);
    world.append_by_kernel(b"short\n");
    let got: Vec<u8> =
        (0..7).flat_map(|_| ask_in_pieces(stream, "g", member, 99).expect("a piece")).collect();
    assert_eq!(got, long(b'x'), "from its segment");
    assert_eq!(ask_in_pieces(stream, "g", member, 99), Ok(b"short\n".to_vec()), "nothing of the other one");
    assert_eq!(stream.inspect(|now| now.groups["g"].counts().lost), 1);
}

#[test]
fn a_long_record_that_is_changed_while_it_is_given_has_no_end() {
    let world = World::new(1);
    let stream = world.stream.get();
    let member = stream.join("g").expect("a member");
    world.append_by_kernel(&[vec![b'x'; 150], vec![b'\n']].concat());
    assert_eq!(ask_in_pieces(stream, "g", member, 99).map(|piece| piece.len()), Ok(100));
    world.change_byte_of_memory(120);
    assert!(matches!(ask_in_pieces(stream, "g", member, 99), Err(Refusal::Failed(_))));
}

#[test]
fn what_is_no_record_is_copied_to_the_backing_too() {
    let mut world = World::of(1, Framing::Len32);
    world.stream.start_service();
    assert!(world.stream.get().writer_opened(true));
    world.append_by_kernel(b"\x02\0\0\0ab\xff\xff\xff\xff");
    std::thread::sleep(Duration::from_secs(2));
    world.append_by_kernel(b"and more");
    std::thread::sleep(Duration::from_secs(2));
    world.restart(End::Memory);
    assert_eq!(world.view(), b"\x02\0\0\0ab\xff\xff\xff\xffand more");
}

#[test]
fn what_was_read_ahead_for_less_room_is_not_given_for_more() {
    let world = World::new(1);
    world.stream.start_service();
    world.append_by_kernel(&b"10 bytes.\n".repeat(10));
    let stream = world.stream.get();
    let member = stream.join("g").expect("a member");
    for room in [10, 19, 20, 10, 40] {
        let got = ask(stream, "g", member, room).expect("records");
        assert_eq!(got.len(), room / 10 * 10, "as many as fit");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_torn_tail_is_set_aside_when_the_last_writer_closes() {
    let mut world = World::of(1, Framing::Len32);
    let stream = world.stream.get().clone();
    assert!(stream.writer_opened(true));
    assert!(!stream.writer_opened(true), "a second one would tear the first one's records");
    world.append_by_kernel(b"\x02\0\0\0ab\x05\0\0\0c");
    stream.writer_closed(true);
    stream.append(b"\x01\0\0\0d").expect("room");
    stream.sync().expect("durable");
    drop(stream);
    world.restart(End::Memory);
    let mut bytes = [0; 100];
    let read = world.stream.get().read_at(Position(0), &mut bytes).expect("readable");
    assert_eq!(&bytes[..read], b"\x02\0\0\0ab\x01\0\0\0d");
}

/// What is in a directory, by names.
fn files_of(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(directory).expect("there").map(|entry| entry.expect("there").path());
    entries.map(|path| (path.clone(), std::fs::read(path).expect("a file"))).collect()
}

#[test]
fn no_link_in_place_of_a_logs_file_is_followed() {
    for (ending, memory) in
        ["settings", "marks", "group", "sealed", "active"].into_iter().flat_map(|e| [(e, true), (e, false)])
    {
        let mut world = World::of(1, Framing::Write);
        let stream = world.stream.get().clone();
        for _ in 0..70 {
            stream.append(b"10 bytes.\n").expect("room");
        }
        stream.seal_and_cool().expect("sealed");
        stream.join("g").expect("a group");
        stream.sync().expect("durable");
        drop(stream);
        world.stream.forget();
        let log = Streams::home(world.backing.path()).join(world.id.to_string());
        let file = files_of(&log).into_keys().find(|path| path.to_string_lossy().ends_with(ending));
        let file = file.unwrap_or_else(|| panic!("no file of {ending}"));
        let outside = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        std::fs::rename(&file, outside.path().join("victim")).expect("ours");
        symlink(outside.path().join("victim"), &file).expect("ours");
        let before = files_of(outside.path());
        if !memory {
            std::fs::remove_dir_all(world.active.path().join(world.id.to_string())).expect("it was there");
        }
        let streams = Streams::new(world.backing.path(), world.active.path(), limits()).expect("directories");
        // What can be done without the file is done.
        if let Ok(stream) = streams.open(world.id) {
            let _ = stream.append(b"more\n");
            let _ = stream.change_settings(|settings| settings.owner = Some(7));
            let _ = stream.join("g");
            let _ = stream.seek("g", Start::Latest);
            let _ = stream.sync();
            let _ = stream.seal_and_cool();
        }
        assert_eq!(files_of(outside.path()), before, "{ending}");
    }
}

#[test]
fn no_link_is_written_through_on_the_way_to_a_name() {
    let world = World::new(1);
    let stream = world.stream.get();
    let log = Streams::home(world.backing.path()).join(world.id.to_string());
    let outside = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let victim = outside.path().join("victim");
    std::fs::write(&victim, "outside").expect("ours");
    let sealed = format!("{:020}-{:020}.sealed.new", 0, 0);
    for name in ["settings.new", "g.group.new", sealed.as_str()] {
        symlink(&victim, log.join(name)).expect("ours");
    }
    world.append_by_kernel(&b"10 bytes.\n".repeat(100));
    stream.index_news();
    assert!(stream.change_settings(|settings| settings.owner = Some(7)).is_err());
    assert!(stream.join("g").is_err());
    assert!(stream.seal_full().is_err());
    assert_eq!(std::fs::read(&victim).expect("ours"), b"outside");
}

#[test]
fn a_link_in_place_of_a_log_or_of_all_leads_nowhere() {
    for all in [false, true] {
        let mut world = World::new(1);
        world.append_by_kernel(b"one\n");
        world.stream.get().sync().expect("durable");
        world.stream.forget();
        let home = Streams::home(world.backing.path());
        let log = home.join(world.id.to_string());
        let outside = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let moved = outside.path().join("moved");
        let (planted, there) =
            if all { (&home, moved.join(world.id.to_string())) } else { (&log, moved.clone()) };
        std::fs::rename(planted, &moved).expect("ours");
        symlink(&moved, planted).expect("ours");
        let before = files_of(&there);
        let streams = Streams::new(world.backing.path(), world.active.path(), limits()).expect("directories");
        let refused = streams.open(world.id).expect_err("it is elsewhere").to_string();
        assert!(refused.contains("no link is followed"), "{refused}");
        assert!(streams.open_left(false).is_err(), "what memory has of it is not given up");
        assert_eq!(streams.create(&Settings::default()).is_ok(), !all);
        assert_eq!(Streams::doomed(world.backing.path()).is_ok(), !all);
        assert!(streams.settle_doomed(world.id, false).is_err(), "nor is it removed");
        assert_eq!(files_of(&there), before);
        assert_eq!(std::fs::read_dir(&moved).expect("there").count(), if all { 1 } else { before.len() });
    }
}

type Got = Result<Vec<u8>, Refusal>;

#[test]
fn a_group_does_not_skip_what_follows_a_lost_tail() {
    let mut world = World::new(1);
    world.append_by_kernel(b"one\n");
    world.stream.get().sync().expect("durable");
    world.append_by_kernel(b"two\nthree\n");
    let stream = world.stream.get().clone();
    let member = stream.join("g").expect("a member");
    assert_eq!(ask(&stream, "g", member, 100), Ok(b"one\ntwo\nthree\n".to_vec()));
    assert_eq!(ask(&stream, "g", member, 100), Err(Refusal::WouldBlock), "and acknowledges");
    stream.save_offsets().expect("written");
    drop(stream);
    world.restart(End::Memory);
    world.append_by_kernel(b"four\n");
    let stream = world.stream.get();
    let member = stream.join("g").expect("a member");
    assert_eq!(ask(stream, "g", member, 100), Ok(b"four\n".to_vec()));
}

#[test]
fn a_tail_that_a_dead_daemon_left_is_not_spread_over_the_next_records() {
    let mut world = World::of(1, Framing::Len32);
    assert!(world.stream.get().writer_opened(true));
    world.append_by_kernel(b"\x02\0\0\0ab\x05\0\0\0c");
    world.restart(End::Death);
    assert!(world.stream.get().writer_opened(true));
    world.append_by_kernel(b"\x01\0\0\0d");
    assert_eq!(world.view(), b"\x02\0\0\0ab\x01\0\0\0d");
}

#[test]
fn what_was_set_aside_does_not_come_back_by_the_copy() {
    let mut world = World::of(1, Framing::Len32);
    let stream = world.stream.get().clone();
    assert!(stream.writer_opened(true));
    world.append_by_kernel(b"\x02\0\0\0ab\x05\0\0\0c");
    stream.sync().expect("the torn tail is copied, too");
    stream.writer_closed(true);
    assert!(stream.writer_opened(true));
    for _ in 0..20 {
        world.append_by_kernel(b"\x01\0\0\0d");
    }
    drop(stream);
    let (backing, active) = (world.backing.path().to_owned(), world.active.path().to_owned());
    world.stream.forget();
    Streams::recover(&backing, &active).expect("recovered");
    std::fs::remove_dir_all(active.join(world.id.to_string())).expect("the memory is gone");
    world.stream = Running::start(&world.backing, &world.active, world.id);
    assert_eq!(world.view(), [&b"\x02\0\0\0ab"[..], &b"\x01\0\0\0d".repeat(20)].concat());
}

/// What a member gets now.
fn ask(stream: &Arc<Stream>, group: &str, member: MemberId, bytes_max: usize) -> Got {
    ask_for(stream, group, member, bytes_max, false)
}

/// The same of a member whose requests are as long as they can be.
fn ask_in_pieces(stream: &Arc<Stream>, group: &str, member: MemberId, bytes_max: usize) -> Got {
    ask_for(stream, group, member, bytes_max, true)
}

fn ask_for(stream: &Arc<Stream>, group: &str, member: MemberId, bytes_max: usize, pieces: bool) -> Got {
    let (answers, answered) = mpsc::channel();
    let question = Waiting {
        group: group.into(),
        member,
        bytes_max,
        room: bytes_max + usize::from(pieces),
        thread: 0,
        answer: Box::new(move |answer| answers.send(answer.map(<[u8]>::to_vec)).expect("listening")),
    };
    stream.read_group(question, AtEnd::Refuse);
    answered.recv().expect("an answer at once")
}

/// How a daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Everything is durable.
    Well,
    /// Its memory is left.
    Death,
    /// Its memory is gone, too.
    Memory,
}

/// A daemon's streams, and the one of them that is tested.
struct Running(Option<(Arc<Streams>, Arc<Stream>)>);

impl Running {
    fn start(backing: &TempDir, active: &TempDir, id: StreamId) -> Running {
        let streams = Streams::new(backing.path(), active.path(), limits()).expect("directories");
        let stream = streams.open(id).expect("a log");
        Running(Some((streams, stream)))
    }

    fn get(&self) -> &Arc<Stream> {
        &self.0.as_ref().expect("it runs").1
    }

    fn streams(&self) -> &Arc<Streams> {
        &self.0.as_ref().expect("it runs").0
    }

    fn summary(&self) -> Summary {
        self.streams().summary()
    }

    fn start_service(&self) {
        self.streams().start();
    }

    fn stop(&self) {
        self.0.as_ref().expect("it runs").0.stop().expect("durable");
    }

    fn forget(&mut self) {
        self.0 = None;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some((streams, _)) = &self.0 {
            streams.end_threads();
        }
    }
}

fn limits() -> Limits {
    Limits { flush_every: Duration::from_secs(1), hot_bytes: 1500, removed_after: Duration::ZERO }
}

/// What the model knows of a group.
#[derive(Debug, Default)]
struct Expected {
    got: BTreeSet<u64>,
    /// May come again.
    again: BTreeSet<u64>,
    /// Acknowledged, but perhaps not written down.
    unsaved: BTreeSet<u64>,
    members: BTreeMap<MemberId, Vec<u64>>,
}

impl Expected {
    /// A member that did not acknowledge them is gone: they must come again.
    fn took_in_vain(&mut self, held: &[u64]) {
        for offset in held {
            self.got.remove(offset);
        }
    }
}

struct World {
    random: Random,
    backing: TempDir,
    active: TempDir,
    id: StreamId,
    stream: Running,
    records: Vec<Vec<u8>>,
    /// Records that would survive the loss of memory.
    durable: usize,
    first: u64,
    groups: BTreeMap<&'static str, Expected>,
}

impl World {
    fn new(seed: u64) -> World {
        World::of(seed, Framing::Line)
    }

    fn of(seed: u64, framing: Framing) -> World {
        let backing = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let active = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let streams = Streams::new(backing.path(), active.path(), limits()).expect("directories");
        let log = LogConfig { framing, segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
        let retention = Retention { acknowledged: seed.is_multiple_of(3), ..Retention::default() };
        let settings = Settings { log, retention, ..Settings::default() };
        let stream = streams.create(&settings).expect("a stream");
        let id = stream.id();
        World {
            random: Random::new(seed),
            backing,
            active,
            id,
            stream: Running(Some((streams, stream))),
            records: Vec::new(),
            durable: 0,
            first: 0,
            groups: BTreeMap::new(),
        }
    }

    fn view(&self) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        let read = self.stream.get().read_at(Position(0), &mut bytes).expect("readable");
        bytes.truncate(read);
        bytes
    }

    fn append_by_kernel(&self, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(self.active_file()).expect("it can be opened");
        file.write_all(bytes).expect("room");
    }

    /// As an appender can that clears O_APPEND and has AIO write.
    fn change_byte_of_memory(&self, at: u64) {
        let file = OpenOptions::new().write(true).open(self.active_file()).expect("it can be opened");
        file.write_all_at(b"!", at).expect("it is there");
    }

    fn active_file(&self) -> PathBuf {
        let directory = self.active.path().join(self.id.to_string());
        let active = std::fs::read_dir(directory).expect("it is there").flatten();
        let mut active = active.map(|entry| entry.path());
        active.find(|path| path.extension().is_some_and(|e| e == "active")).expect("one")
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0..=6 => self.append(),
            7..=13 => self.read(),
            14 => self.leave(),
            15 => {
                self.stream.get().sync().expect("durable");
                self.durable = self.records.len();
                self.groups.values_mut().for_each(|group| group.unsaved.clear());
            }
            16 => self.stream.get().seal_and_cool().expect("sealed"),
            17 if self.random.below(4) == 0 => self.seek(),
            18 if self.random.below(3) == 0 => {
                let end = [End::Well, End::Death, End::Memory][self.random.below(3) as usize];
                self.restart(end);
            }
            _ => self.compare_view(),
        }
    }

    fn append(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..=self.random.below(5) {
            let mut record = format!("{} ", self.records.len()).into_bytes();
            record.resize(record.len() + self.random.below(60) as usize, b'x');
            record.push(b'\n');
            bytes.extend_from_slice(&record);
            self.records.push(record);
        }
        if self.random.below(2) == 0 {
            self.append_by_kernel(&bytes);
        } else {
            self.stream.get().append(&bytes).expect("room");
        }
    }

    fn read(&mut self) {
        let name = GROUPS[self.random.below(2) as usize];
        let stream = self.stream.get().clone();
        let first = stream.inspect(|now| now.log.first().0.0);
        // A new group begins at the first record that is retained.
        let new = || Expected { got: (0..first).collect(), ..Expected::default() };
        let group = self.groups.entry(name).or_insert_with(new);
        let member = match group.members.keys().nth(self.random.below(3) as usize) {
            Some(member) => *member,
            None => stream.join(name).expect("a group"),
        };
        let held = group.members.insert(member, Vec::new()).unwrap_or_default();
        group.unsaved.extend(held.iter().copied());
        for offset in &held {
            group.again.remove(offset);
        }
        let bytes_max = 100 + self.random.below(400) as usize;
        let bytes = match ask(&stream, name, member, bytes_max) {
            Ok(bytes) => bytes,
            Err(Refusal::WouldBlock) => return,
            Err(refusal) => panic!("{refusal:?}"),
        };
        let mut next = None;
        for record in bytes.split_inclusive(|b| *b == b'\n') {
            let text = std::str::from_utf8(record).expect("text");
            let offset: u64 = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            assert_eq!(self.records.get(offset as usize).map(Vec::as_slice), Some(record), "invented");
            assert!(next.is_none_or(|next| next == offset), "out of order");
            next = Some(offset + 1);
            let new = group.got.insert(offset);
            assert!(
                new || group.again.remove(&offset),
                "record {offset} comes to {name} again without a reason"
            );
            group.members.get_mut(&member).expect("it reads").push(offset);
        }
    }

    fn leave(&mut self) {
        let name = GROUPS[self.random.below(2) as usize];
        let Some(group) = self.groups.get_mut(name) else { return };
        if let Some((member, held)) = group.members.pop_first() {
            group.took_in_vain(&held);
            self.stream.get().leave(name, member);
        }
    }

    fn seek(&mut self) {
        let name = GROUPS[self.random.below(2) as usize];
        let Some(group) = self.groups.get_mut(name) else { return };
        let first = self.stream.get().inspect(|now| now.log.first().0.0);
        let to = first + self.random.below(self.records.len() as u64 + 1 - first);
        self.stream.get().seek(name, Start::Offset(Offset(to))).expect("it is there");
        // Those before count as got; those behind come (again).
        group.got = (0..to).collect();
        group.again.clear();
        group.unsaved.clear();
        group.members.values_mut().for_each(Vec::clear);
    }

    fn restart(&mut self, end: End) {
        if end == End::Well {
            self.stream.stop();
            self.durable = self.records.len();
            self.groups.values_mut().for_each(|group| group.unsaved.clear());
        }
        self.stream.forget();
        if end == End::Memory {
            std::fs::remove_dir_all(self.active.path().join(self.id.to_string())).expect("it was there");
            let sealed =
                Streams::new(self.backing.path(), self.active.path(), limits()).expect("directories");
            let there = sealed.open(self.id).expect("a log").inspect(|now| now.log.end().0.0) as usize;
            assert!(there >= self.durable, "{there} records left of {} durable ones", self.durable);
            self.records.truncate(there);
        }
        for group in self.groups.values_mut() {
            let held: Vec<u64> = std::mem::take(&mut group.members).into_values().flatten().collect();
            group.took_in_vain(&held);
            let unsaved = std::mem::take(&mut group.unsaved);
            group.again.extend(unsaved);
            // What was given of records that no longer are was of a log that no longer is.
            let end = self.records.len() as u64;
            group.got.retain(|offset| *offset < end);
            group.again.retain(|offset| *offset < end);
        }
        self.stream = Running::start(&self.backing, &self.active, self.id);
        // A group that is behind what was acknowledged last is so for one of the reasons above.
        for (name, group) in &mut self.groups {
            let committed = self.stream.get().inspect(|now| now.groups.get(*name).map(Group::committed));
            let committed = committed.expect("its file");
            let mut reason = false;
            for offset in committed..self.records.len() as u64 {
                // Offsets are written down up to the first record that somebody still held: all behind come again.
                reason |= !group.got.contains(&offset) || group.again.contains(&offset);
                assert!(reason, "{name} would get record {offset} again without a reason");
                if group.got.contains(&offset) {
                    group.again.insert(offset);
                }
            }
        }
    }

    fn compare_view(&mut self) {
        let stream = self.stream.get();
        stream.trim().expect("trimmed");
        let (first, begin) = stream.inspect(|now| now.log.first());
        self.first = first.0;
        let whole: Vec<u8> = self.records[first.0 as usize..].concat();
        let view = stream.view().expect("its size");
        assert_eq!((view.begin, view.bytes), (begin, whole.len() as u64));
        let mut bytes = vec![0; whole.len() + 10];
        let mut read = 0;
        while read < bytes.len() {
            match stream.read_at(Position(begin.0 + read as u64), &mut bytes[read..]).expect("readable") {
                0 => break,
                n => read += n,
            }
        }
        assert!(bytes[..read] == whole[..], "the plain view differs");
        for (name, group) in &self.groups {
            let missing = (0..self.first).find(|offset| !group.got.contains(offset));
            assert_eq!(missing, None, "{name} still needs what was trimmed");
        }
    }

    fn finish(&mut self) {
        self.compare_view();
        let names: Vec<&str> = self.groups.keys().copied().collect();
        for name in names {
            while self.groups[name].members.len() > 1 {
                let group = self.groups.get_mut(name).expect("it is there");
                let (member, held) = group.members.pop_first().expect("more than one");
                group.took_in_vain(&held);
                self.stream.get().leave(name, member);
            }
            let got = |world: &World| world.groups[name].got.len();
            for _ in 0..10_000 {
                if got(self) == self.records.len() {
                    break;
                }
                self.read();
            }
            let missing =
                (0..self.records.len() as u64).find(|offset| !self.groups[name].got.contains(offset));
            assert_eq!(missing, None, "{name} never got it");
        }
    }
}
