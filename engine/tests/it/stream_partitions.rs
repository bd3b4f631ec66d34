//! Groups over the partitions of a stream, against a model that is one number a partition: the first record that is
//! not acknowledged. Members come, read, are late and die, writers append by the kernel's way and through us, daemons
//! end well or die. `AIMSS_PARTITIONS=N` for more histories.
//!
//! Held against the model: a batch is of one partition that nobody else holds, and begins exactly at that number; so
//! each partition is given in its order, nothing is invented or left out, and a record comes again only if its member
//! died or was late, or the daemon died before its acknowledgement was written down.

use crate::support::random::Random;
use crate::support::{Seed, first_seed, runs};
use aimss_engine::stream::group::{Group, MemberId};
use aimss_engine::stream::live::{AtEnd, Limits, PartitionedGroup, Refusal, Start, Stream, Streams, Waiting};
use aimss_engine::stream::{LogConfig, Partition, Settings, StreamId};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Small, so that histories seal often.
const SEGMENT_BYTES: u64 = 600;
/// Between events that happen at once.
const AT_ONCE: Duration = Duration::from_secs(5);
const A_WHILE: Duration = Duration::from_millis(50);
/// What members may hold a batch for, where histories have late ones.
const LATE: Duration = Duration::from_millis(1);

#[test]
fn each_partition_is_given_in_its_order() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_PARTITIONS", 40) {
        let _seed = Seed(seed);
        let mut history = History::new(seed);
        for _ in 0..200 {
            history.step();
        }
        history.finish();
    }
}

#[test]
fn partitions_take_turns() {
    let world = World::new(3);
    for partition in 0..3 {
        world.append(partition, &b"10 bytes.\n".repeat(20));
    }
    let member = world.join("g");
    let batches: Vec<usize> = (0..6).map(|_| member.ask(50).expect("records").len()).collect();
    assert_eq!(batches, [50; 6]);
    assert_eq!(world.committed("g"), [10, 10, 5], "the last batch is not acknowledged");
}

#[test]
fn who_comes_later_gets_a_share_and_who_leaves_gives_it_back() {
    let world = World::new(4);
    (0..4).for_each(|partition| world.append(partition, b"one\n"));
    let first = world.join("g");
    let second = world.join("g");
    assert_eq!(first.ask(100), Ok(b"one\n".to_vec()));
    assert_eq!(first.group.shares(), [4, 0], "who never asks keeps nothing from others");
    for _ in 0..2 {
        assert_eq!(second.ask(100), Ok(b"one\n".to_vec()));
    }
    assert_eq!(second.ask(100), Err(Refusal::WouldBlock), "its two are done");
    assert_eq!(first.group.shares(), [2, 2]);
    first.leave();
    assert_eq!(second.ask(100), Ok(b"one\n".to_vec()), "what the first held comes again");
    assert_eq!(second.ask(100), Ok(b"one\n".to_vec()));
    assert_eq!(second.ask(100), Err(Refusal::WouldBlock));
    assert_eq!(world.committed("g"), [1; 4]);
}

#[test]
fn a_partition_stays_with_who_holds_its_batch() {
    let world = World::new(2);
    world.append(1, b"one\ntwo\n");
    let first = world.join("g");
    assert_eq!(first.ask(5), Ok(b"one\n".to_vec()));
    let second = world.join("g");
    assert_eq!(second.ask(5), Err(Refusal::WouldBlock), "it got the other one");
    assert_eq!(first.ask(5), Ok(b"two\n".to_vec()));
}

#[test]
fn surplus_members_wait_and_take_over() {
    let world = World::new(1);
    let (first, second) = (world.join("g"), world.join("g"));
    world.append(0, b"one\ntwo\n");
    assert_eq!(first.ask(4), Ok(b"one\n".to_vec()));
    let answered = second.wait(4);
    assert!(answered.recv_timeout(A_WHILE).is_err(), "there is no partition for it");
    first.leave();
    let given = answered.recv_timeout(AT_ONCE).expect("it took over");
    assert_eq!(given, Ok(b"one\n".to_vec()));
}

#[test]
fn a_question_waits_for_any_of_its_partitions() {
    let world = World::new(3);
    world.streams.start();
    let member = world.join("g");
    for partition in [2, 0, 1, 1, 2] {
        let answered = member.wait(100);
        assert!(answered.recv_timeout(A_WHILE).is_err(), "there is nothing yet");
        world.append_by_kernel(partition, b"now\n");
        assert_eq!(answered.recv_timeout(AT_ONCE).expect("woken"), Ok(b"now\n".to_vec()));
    }
}

#[test]
fn a_poll_is_told_of_each_partition() {
    let world = World::new(3);
    world.streams.start();
    let member = world.join("g");
    for partition in [2, 0, 1, 1] {
        let (told, heard) = mpsc::channel();
        let wake = Box::new(move || told.send(()).expect("listening"));
        assert!(!member.group.poll(member.id, Some(wake)));
        assert!(heard.recv_timeout(A_WHILE).is_err(), "there is nothing yet");
        world.append_by_kernel(partition, b"now\n");
        heard.recv_timeout(AT_ONCE).expect("an event of the append");
        assert!(member.group.poll(member.id, None));
        assert_eq!(member.ask(100), Ok(b"now\n".to_vec()));
        assert_eq!(member.ask(100), Err(Refusal::WouldBlock));
    }
}

#[test]
fn a_poll_is_told_of_partitions_that_come_over() {
    let world = World::new(1);
    world.append(0, b"one\n");
    let (first, second) = (world.join("g"), world.join("g"));
    assert_eq!(first.ask(100), Ok(b"one\n".to_vec()));
    let (told, heard) = mpsc::channel();
    assert!(!second.group.poll(second.id, Some(Box::new(move || told.send(()).expect("listening")))));
    first.leave();
    heard.recv_timeout(AT_ONCE).expect("it took over");
    assert_eq!(second.ask(100), Ok(b"one\n".to_vec()));
}

#[test]
fn it_ends_at_the_tail_of_all() {
    let world = World::new(3);
    (0..3).for_each(|partition| world.append(partition, b"one\n"));
    let member = world.join("g");
    for _ in 0..3 {
        assert_eq!(member.ask_until_end(100), Ok(b"one\n".to_vec()));
    }
    assert_eq!(member.ask_until_end(100), Ok(Vec::new()));
    assert_eq!(world.committed("g"), [1; 3], "reading the end acknowledges");
}

#[test]
fn a_late_member_loses_its_partitions_until_it_comes_back() {
    let world = World::new(2);
    world.change(|settings| settings.ack_timeout = Some(Duration::from_millis(400)));
    (0..2).for_each(|partition| world.append(partition, b"one\ntwo\n"));
    let (slow, quick) = (world.join("g"), world.join("g"));
    assert_eq!(slow.ask(4), Ok(b"one\n".to_vec()));
    assert_eq!(quick.ask(4), Ok(b"one\n".to_vec()));
    std::thread::sleep(Duration::from_millis(450));
    assert_eq!(quick.ask(4), Ok(b"two\n".to_vec()));
    world.take_back_late();
    assert_eq!(quick.group.shares(), [0, 2]);
    assert_eq!(quick.ask(4), Ok(b"one\n".to_vec()), "what the late one had");
    assert_eq!(slow.ask(4), Err(Refusal::WouldBlock), "its acknowledgement counts for nothing");
    assert_eq!(quick.ask(4), Ok(b"two\n".to_vec()));
    assert_eq!(quick.group.shares(), [1, 1]);
}

#[test]
fn a_long_record_comes_in_pieces_and_others_keep_out_of_it() {
    let world = World::new(2);
    let long = [vec![b'x'; 250], b"\n".to_vec()].concat();
    world.append(0, &long);
    world.append(1, b"short\n");
    let member = world.join("g");
    let mut got = Vec::new();
    for _ in 0..3 {
        got.extend(member.ask_in_pieces(99).expect("a piece"));
    }
    assert_eq!(got, long);
    assert_eq!(world.committed("g"), [0, 0], "not acknowledged by its own pieces");
    assert_eq!(member.ask_in_pieces(99), Ok(b"short\n".to_vec()));
    assert_eq!(world.committed("g"), [1, 0]);
}

#[test]
fn a_removed_group_is_told_to_its_members() {
    let world = World::new(2);
    let (member, idle) = (world.join("g"), world.join("g"));
    let (first, second) = (member.wait(100), idle.wait(100));
    assert!(world.streams.remove_partitioned_group(&world.partitions, "g").expect("removed"));
    assert_eq!(first.recv_timeout(AT_ONCE).expect("told"), Err(Refusal::NoGroup));
    assert_eq!(second.recv_timeout(AT_ONCE).expect("told"), Err(Refusal::NoGroup));
    assert!(!world.streams.remove_partitioned_group(&world.partitions, "g").expect("looked for"));
    world.append(0, b"one\n");
    let new = world.join("g");
    assert_eq!(new.ask(100), Ok(b"one\n".to_vec()), "a group of that name begins anew");
    member.leave();
    idle.leave();
    assert_eq!(new.ask(100), Err(Refusal::WouldBlock));
    assert_eq!(world.committed("g"), [1, 0]);
}

#[test]
fn a_seek_holds_for_members_that_are_there() {
    let world = World::new(2);
    (0..2).for_each(|partition| world.append(partition, b"one\ntwo\n"));
    let member = world.join("g");
    assert_eq!(member.ask(100), Ok(b"one\ntwo\n".to_vec()));
    for stream in &world.partitions {
        stream.seek("g", Start::Latest).expect("there");
    }
    assert_eq!(member.ask(100), Err(Refusal::WouldBlock));
    for stream in &world.partitions {
        stream.seek("g", Start::Earliest).expect("there");
    }
    assert_eq!(member.ask(100), Ok(b"one\ntwo\n".to_vec()));
}

/// Threads that wait, come and go while others append: each record comes, and in each partition those that come for
/// the first time come in their order.
#[test]
fn threads_share_what_is_appended_meanwhile() {
    const RECORDS: u64 = 3000;
    let world = World::new(4);
    world.streams.start();
    // Of each partition: the records that were given, in the order of their answers.
    let got: Vec<Mutex<Vec<u64>>> = (0..4).map(|_| Mutex::default()).collect();
    let done = || got.iter().all(|got| got.lock().expect("whole").iter().any(|last| last + 1 == RECORDS));
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (world, got, done) = (&world, &got, &done);
            scope.spawn(move || {
                let mut random = Random::new(thread);
                let begin = Instant::now();
                while !done() && begin.elapsed() < Duration::from_secs(60) {
                    let member = world.join("g");
                    for _ in 0..random.below(200) {
                        let answered = member.wait(2000);
                        let Ok(Ok(bytes)) = answered.recv_timeout(Duration::from_millis(200)) else { break };
                        // Nobody is given what follows before this one comes back.
                        let (partition, numbers) = parse(&bytes);
                        got[partition].lock().expect("whole").extend(numbers);
                    }
                    member.leave();
                }
            });
        }
        for partition in 0..4 {
            let world = &world;
            scope.spawn(move || {
                for number in 0..RECORDS {
                    world.append_by_kernel(partition, record(partition, number, 20).as_slice());
                }
            });
        }
    });
    for (partition, got) in got.iter().enumerate() {
        let got = got.lock().expect("whole");
        let mut seen = 0;
        for number in got.iter() {
            assert!(*number <= seen, "record {number} of partition {partition} came before {seen}");
            seen = seen.max(number + 1);
        }
        assert_eq!(seen, RECORDS, "partition {partition}");
    }
}

fn record(partition: usize, number: u64, bytes: u64) -> Vec<u8> {
    let mut record = format!("{partition} {number} ").into_bytes();
    record.resize(record.len() + bytes as usize, b'x');
    record.push(b'\n');
    record
}

/// Partition and numbers of the records in a batch; fails where they are not of one partition and in a row.
fn parse(bytes: &[u8]) -> (usize, Range<u64>) {
    let mut batch: Option<(usize, Range<u64>)> = None;
    for record in bytes.split_inclusive(|b| *b == b'\n') {
        let text = std::str::from_utf8(record).expect("text");
        let mut words = text.split(' ').map(|word| word.parse::<u64>().ok());
        let (partition, number) = (words.next().flatten(), words.next().flatten());
        let (partition, number) = (partition.expect("a partition") as usize, number.expect("a number"));
        let (of, numbers) = batch.get_or_insert((partition, number..number));
        assert_eq!((*of, numbers.end), (partition, number), "mixed, or out of order");
        numbers.end += 1;
    }
    batch.expect("a record")
}

fn limits() -> Limits {
    Limits { flush_every: Duration::from_secs(1), hot_bytes: 1500, removed_after: Duration::ZERO }
}

type Got = Result<Vec<u8>, Refusal>;

struct TestMember {
    group: Arc<PartitionedGroup>,
    id: MemberId,
}

impl TestMember {
    fn question(&self, bytes_max: usize, more: usize) -> (Waiting, Receiver<Got>) {
        let (answers, answered) = mpsc::channel();
        let answer = move |answer: Result<&[u8], Refusal>| {
            let _ = answers.send(answer.map(<[u8]>::to_vec));
        };
        let (group, room) = (self.group.name().clone(), bytes_max + more);
        let answer = Box::new(answer);
        (Waiting { group, member: self.id, bytes_max, room, thread: 0, answer }, answered)
    }

    fn ask_so(&self, bytes_max: usize, more: usize, at_end: AtEnd) -> Got {
        let (question, answered) = self.question(bytes_max, more);
        self.group.read(question, at_end);
        answered.recv().expect("an answer at once")
    }

    fn ask(&self, bytes_max: usize) -> Got {
        self.ask_so(bytes_max, 0, AtEnd::Refuse)
    }

    fn ask_until_end(&self, bytes_max: usize) -> Got {
        self.ask_so(bytes_max, 0, AtEnd::End)
    }

    fn ask_in_pieces(&self, bytes_max: usize) -> Got {
        self.ask_so(bytes_max, 1, AtEnd::Refuse)
    }

    fn wait(&self, bytes_max: usize) -> Receiver<Got> {
        let (question, answered) = self.question(bytes_max, 0);
        self.group.read(question, AtEnd::Wait);
        answered
    }

    fn leave(&self) {
        self.group.leave(self.id);
    }
}

struct World {
    backing: TempDir,
    active: TempDir,
    ids: Vec<StreamId>,
    streams: Arc<Streams>,
    partitions: Vec<Arc<Stream>>,
}

impl World {
    fn new(count: u32) -> World {
        let backing = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let active = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let streams = Streams::new(backing.path(), active.path(), limits()).expect("directories");
        let log = LogConfig { segment_bytes: SEGMENT_BYTES, ..LogConfig::default() };
        let set = StreamId::random().expect("random");
        let make = |number| {
            let partition = Some(Partition { set, number, count });
            streams.create(&Settings { log, partition, ..Settings::default() }).expect("a stream")
        };
        let partitions: Vec<Arc<Stream>> = (0..count).map(make).collect();
        let ids = partitions.iter().map(|stream| stream.id()).collect();
        World { backing, active, ids, streams, partitions }
    }

    /// A new daemon, after the old one ended well or died.
    fn restart(&mut self, well: bool) {
        if well {
            self.streams.stop().expect("durable");
        }
        self.partitions.clear();
        self.streams = Streams::new(self.backing.path(), self.active.path(), limits()).expect("directories");
        self.partitions = self.ids.iter().map(|id| self.streams.open(*id).expect("a log")).collect();
    }

    fn join(&self, name: &str) -> TestMember {
        let (group, id) = self.streams.join_partitions(&self.partitions, name).expect("a group");
        TestMember { group, id }
    }

    fn append(&self, partition: usize, bytes: &[u8]) {
        self.partitions[partition].append(bytes).expect("room");
    }

    fn append_by_kernel(&self, partition: usize, bytes: &[u8]) {
        // Its name changes with each seal.
        let active = self.partitions[partition].active_file();
        let path = format!("/proc/self/fd/{}", active.as_raw_fd());
        let mut file = OpenOptions::new().append(true).open(path).expect("it can be opened");
        file.write_all(bytes).expect("room");
    }

    fn committed(&self, name: &str) -> Vec<u64> {
        let committed = |stream: &Arc<Stream>| {
            stream.inspect(|now| now.groups.get(name).map(Group::committed)).expect("a group")
        };
        self.partitions.iter().map(committed).collect()
    }

    fn change(&self, change: impl Fn(&mut Settings)) {
        for stream in &self.partitions {
            stream.change_settings(&change).expect("written");
        }
    }

    fn take_back_late(&self) {
        self.partitions.iter().for_each(Stream::take_back_late);
        let set = self.partitions[0].settings().partition.expect("of a set").set;
        self.streams.partitioned_groups(set).iter().for_each(PartitionedGroup::take_back_late);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.streams.end_threads();
    }
}

/// What the model knows of a partition.
#[derive(Debug, Default)]
struct Expected {
    records: Vec<Vec<u8>>,
    /// The first record that is not acknowledged.
    next: u64,
    /// The same, as of when offsets were written down last.
    saved: u64,
    /// Behind the last record that was ever given.
    seen: u64,
    /// Who has a batch, and where it ends.
    held: Option<(MemberId, u64)>,
}

struct History {
    random: Random,
    world: World,
    members: BTreeMap<MemberId, TestMember>,
    partitions: Vec<Expected>,
    late: bool,
}

impl History {
    fn new(seed: u64) -> History {
        let mut random = Random::new(seed);
        let count = 1 + random.below(5);
        let world = World::new(count as u32);
        let late = seed.is_multiple_of(3);
        if late {
            world.change(|settings| settings.ack_timeout = Some(LATE));
        }
        let partitions = (0..count).map(|_| Expected::default()).collect();
        History { random, world, members: BTreeMap::new(), partitions, late }
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0..=6 => self.append(),
            7..=16 => {
                let id = self.random.below(self.members.len() as u64 + 1) as usize;
                match self.members.keys().nth(id).copied() {
                    Some(id) => self.read(id),
                    None => self.join(),
                }
            }
            17..=18 => self.leave(),
            19 => {
                self.world.partitions.iter().for_each(|stream| stream.sync().expect("durable"));
                self.partitions.iter_mut().for_each(|partition| partition.saved = partition.next);
            }
            20 => {
                let stream = self.random.below(self.partitions.len() as u64) as usize;
                self.world.partitions[stream].seal_and_cool().expect("sealed");
            }
            21 if self.random.one_in(4) => self.restart(),
            22 if self.late && !self.members.is_empty() => {
                std::thread::sleep(2 * LATE);
                self.world.take_back_late();
                self.partitions.iter_mut().for_each(|partition| partition.held = None);
            }
            _ => self.join(),
        }
    }

    fn join(&mut self) {
        if self.members.len() < 7 {
            let member = self.world.join("g");
            self.members.insert(member.id, member);
        }
    }

    fn append(&mut self) {
        let partition = self.random.below(self.partitions.len() as u64) as usize;
        let mut bytes = Vec::new();
        for _ in 0..=self.random.below(5) {
            let records = &mut self.partitions[partition].records;
            let record = record(partition, records.len() as u64, self.random.below(60));
            bytes.extend_from_slice(&record);
            records.push(record);
        }
        if self.random.one_in(2) {
            self.world.append_by_kernel(partition, &bytes);
        } else {
            self.world.append(partition, &bytes);
        }
    }

    fn read(&mut self, id: MemberId) {
        for partition in &mut self.partitions {
            if let Some((_, end)) = partition.held.take_if(|(holder, _)| *holder == id) {
                partition.next = end;
            }
        }
        let bytes_max = 100 + self.random.below(400) as usize;
        let bytes = match self.members[&id].ask(bytes_max) {
            Ok(bytes) => bytes,
            Err(Refusal::WouldBlock) if self.members.len() == 1 => {
                return assert!(self.is_done(), "the only member is told that there is nothing");
            }
            Err(Refusal::WouldBlock) => return,
            Err(refusal) => panic!("{refusal:?}"),
        };
        let (number, numbers) = parse(&bytes);
        let partition = &mut self.partitions[number];
        assert!(partition.held.is_none(), "partition {number} is given to two: {:?}", partition.held);
        assert_eq!(numbers.start, partition.next, "partition {number} goes on elsewhere");
        let wanted = partition.records.get(numbers.start as usize..numbers.end as usize);
        assert_eq!(wanted.map(<[Vec<u8>]>::concat), Some(bytes), "invented");
        partition.held = Some((id, numbers.end));
        partition.seen = partition.seen.max(numbers.end);
    }

    fn leave(&mut self) {
        let id = self.random.below(self.members.len() as u64 + 1) as usize;
        let Some(id) = self.members.keys().nth(id).copied() else { return };
        self.members.remove(&id).expect("it is there").leave();
        for partition in &mut self.partitions {
            partition.held.take_if(|(holder, _)| *holder == id);
        }
        let shares = self.members.values().next().map(|member| member.group.shares());
        let shares: BTreeSet<usize> = shares.into_iter().flatten().filter(|share| *share > 0).collect();
        assert!(shares.last().zip(shares.first()).is_none_or(|(most, least)| most - least <= 1));
    }

    fn restart(&mut self) {
        let well = self.random.one_in(2);
        self.members.clear();
        let there: Vec<bool> = (self.world.partitions.iter())
            .map(|stream| stream.inspect(|now| now.groups.contains_key("g")))
            .collect();
        self.world.restart(well);
        for (number, partition) in self.partitions.iter_mut().enumerate() {
            partition.held = None;
            if !there[number] {
                continue;
            }
            let committed = self.world.partitions[number]
                .inspect(|now| now.groups.get("g").map(Group::committed))
                .expect("its file");
            let least = if well { partition.next } else { partition.saved };
            assert!((least..=partition.next).contains(&committed), "{committed} of partition {number}");
            partition.next = committed;
            partition.saved = committed;
        }
    }

    fn is_done(&self) -> bool {
        self.partitions.iter().all(|partition| partition.next == partition.records.len() as u64)
    }

    fn finish(&mut self) {
        self.join();
        while self.members.len() > 1 {
            let (id, member) = self.members.pop_first().expect("more than one");
            member.leave();
            for partition in &mut self.partitions {
                partition.held.take_if(|(holder, _)| *holder == id);
            }
        }
        let id = *self.members.keys().next().expect("one is left");
        for _ in 0..10_000 {
            if self.is_done() {
                break;
            }
            self.read(id);
        }
        assert!(self.is_done(), "something never came: {:?}", self.partitions);
        assert!(self.partitions.iter().all(|partition| partition.seen == partition.records.len() as u64));
    }
}
