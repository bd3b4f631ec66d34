//! Damaged logs: whatever byte is flipped and wherever a file is cut, no record is served that was not
//! written, what is lost is what was hit, and it is reported. Torn tails and missing segments likewise.

use crate::support::random::Random;
use aimss_engine::stream::segment::{HEADER_BYTES, Segment};
use aimss_engine::stream::{
    Compression, Damage, Error, Framing, Log, LogConfig, Micros, Offset, Position, Problem,
};
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RECORDS: u64 = 60;

/// A log with these records sealed, in one segment of several blocks.
struct Sealed {
    directory: TempDir,
    config: LogConfig,
    records: Vec<Vec<u8>>,
    file: PathBuf,
    bytes: Vec<u8>,
}

fn config(compression: Compression) -> LogConfig {
    LogConfig { framing: Framing::Line, segment_bytes: 1 << 20, compression, block_bytes: 400 }
}

fn sealed(compression: Compression) -> Sealed {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let config = config(compression);
    let mut log = Log::open(directory.path(), config).expect("an empty directory");
    let mut random = Random::new(7);
    let mut records = Vec::new();
    for i in 0..RECORDS {
        // Some alike, so that LZ4 finds something and a table that is off by one finds a neighbour that is
        // the same.
        let record = match i % 3 {
            0 => format!("record {} of many\n", random.below(1000)),
            1 => String::from("the same again and again and again\n"),
            _ => format!("{}\n", "x".repeat(random.below(40) as usize)),
        };
        log.append(record.as_bytes(), Micros(1000 + 7 * i)).expect("room");
        records.push(record.into_bytes());
    }
    log.seal(Micros(5000)).expect("room");
    let file = segment_files(directory.path()).remove(0);
    let bytes = fs::read(&file).expect("readable");
    Sealed { directory, config, records, file, bytes }
}

fn segment_files(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path());
    let mut sealed: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|e| e == "sealed")).collect();
    sealed.sort();
    sealed
}

impl Sealed {
    fn open(&self) -> Log {
        Log::open(self.directory.path(), self.config).expect("damage is no reason not to open")
    }

    fn position(&self, offset: u64) -> u64 {
        self.records[..offset as usize].iter().map(|record| record.len() as u64).sum()
    }

    /// Reads all that can be read, compares, and returns what is lost.
    fn lost(&self, log: &Log) -> BTreeSet<u64> {
        let mut buffer = vec![0; 700];
        let mut lost = BTreeSet::new();
        let mut from = Offset(0);
        let end = Offset(self.records.len() as u64);
        assert_eq!(log.end().0, end, "the log's length is known without the segment");
        while from < end {
            let batch = log.read_with(from, &mut buffer, |record| {
                let offset = record.offset.0;
                assert_eq!(record.bytes, self.records[offset as usize], "record {offset}");
                assert_eq!(record.position.0, self.position(offset), "record {offset}");
                assert_eq!(record.time.0, 1000 + 7 * offset, "record {offset}");
            });
            let batch = batch.expect("damage is no error");
            assert!(batch.next > from);
            assert_eq!(batch.first.0 - from.0, batch.lost);
            lost.extend(from.0..batch.first.0);
            from = batch.next;
        }
        self.compare_whole_blocks(log, &lost);
        for room in [333, 5000] {
            self.compare_plain_view(log, &lost, room);
        }
        lost
    }

    /// Reads with room for whole blocks, which then are unpacked to where they are wanted.
    fn compare_whole_blocks(&self, log: &Log, lost: &BTreeSet<u64>) {
        let mut buffer = vec![0; 5000];
        let (mut from, end) = (Offset(0), self.records.len() as u64);
        let mut seen = BTreeSet::new();
        while from.0 < end {
            let batch = log.read(from, &mut buffer).expect("damage is no error");
            let records = self.records[batch.first.0 as usize..batch.next.0 as usize].concat();
            assert!(buffer[..batch.bytes] == records[..], "the records from {} on", batch.first.0);
            seen.extend(batch.first.0..batch.next.0);
            from = batch.next;
        }
        // It may have more: bytes are good by their own checksum, also where the table of records is damaged.
        assert!((0..end).all(|offset| seen.contains(&offset) || lost.contains(&offset)), "others are lost");
    }

    /// The plain view has all bytes but those of lost records.
    fn compare_plain_view(&self, log: &Log, lost: &BTreeSet<u64>, room: usize) {
        let whole = self.records.concat();
        let mut covered = vec![false; whole.len()];
        let mut buffer = vec![0; room];
        let mut at = 0;
        while at < whole.len() {
            match log.read_bytes(Position(at as u64), &mut buffer) {
                Ok(bytes) => {
                    assert!(bytes > 0 && buffer[..bytes] == whole[at..at + bytes], "the bytes at {at}");
                    covered[at..at + bytes].fill(true);
                    at += bytes;
                }
                Err(Error::Lost { until }) => at = until.0 as usize,
                Err(e) => panic!("{e}"),
            }
        }
        for offset in 0..self.records.len() as u64 {
            let range = self.position(offset) as usize..self.position(offset + 1) as usize;
            // With room for whole blocks there may be more, as above.
            let more = room > 1000 && lost.contains(&offset);
            assert!(
                more || covered[range].iter().all(|covered| *covered != lost.contains(&offset)),
                "record {offset}"
            );
        }
    }
}

/// Where in a segment of plain blocks each record's bytes end, by docs/format.md.
fn ends_of_records(segment: &[u8]) -> Vec<usize> {
    let u32_at = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("four bytes")) as usize;
    let mut ends = Vec::new();
    let mut head = HEADER_BYTES;
    while ends.len() < RECORDS as usize {
        let (records, stored) = (u32_at(head + 32), u32_at(head + 40));
        let table = head + 60;
        let mut end = table + 12 * records;
        head = end + stored;
        for i in 0..records {
            end += u32_at(table + 12 * i);
            ends.push(end);
        }
    }
    ends
}

fn reported(problems: &[Problem]) -> BTreeSet<u64> {
    problems.iter().flat_map(|problem| problem.lost.clone()).collect()
}

#[test]
fn a_flipped_byte_costs_what_it_hits_and_is_reported() {
    for compression in [Compression::None, Compression::Lz4] {
        let sealed = sealed(compression);
        let log = sealed.open();
        assert_eq!(sealed.lost(&log), BTreeSet::new());
        assert_eq!(log.verify().expect("readable"), []);
        let whole = Segment::open(&sealed.file).expect("whole");
        assert!(whole.blocks() > 3);
        let mut some_lost = 0;
        for at in 0..sealed.bytes.len() {
            for flip in [1 << (at % 8), 0xff] {
                let mut bytes = sealed.bytes.clone();
                bytes[at] ^= flip;
                fs::write(&sealed.file, bytes).expect("room");
                let log = sealed.open();
                let lost = sealed.lost(&log);
                let problems = log.verify().expect("readable");
                assert!(!problems.is_empty(), "byte {at} is under no checksum");
                assert_eq!(reported(&problems), lost, "byte {at}: {problems:?}");
                some_lost += lost.len();
                match compression {
                    Compression::None => assert!(lost.len() <= 1, "byte {at} costs {lost:?}"),
                    Compression::Lz4 => {
                        let blocks: BTreeSet<_> = lost.iter().map(|o| whole.block_of_offset(*o)).collect();
                        assert!(blocks.len() <= 1, "byte {at} costs {lost:?}");
                    }
                }
                // A wrong length is known by the record's neighbours.
                let in_length = |p: &Problem| p.damage == Damage::Entries && (at - p.at as usize) % 12 < 4;
                assert!(lost.is_empty() || !problems.iter().any(in_length), "byte {at} costs {lost:?}");
                let in_block = problems.iter().any(|p| matches!(p.damage, Damage::Entries | Damage::Stored));
                assert!(in_block || lost.is_empty(), "byte {at}: {problems:?}");
            }
        }
        assert!(some_lost > 0);
    }
}

#[test]
fn a_cut_segment_has_what_is_left_of_it() {
    for compression in [Compression::None, Compression::Lz4] {
        let sealed = sealed(compression);
        let mut lost_before: BTreeSet<u64> = (0..RECORDS).collect();
        for length in 0..sealed.bytes.len() {
            fs::write(&sealed.file, &sealed.bytes[..length]).expect("room");
            let log = sealed.open();
            let lost = sealed.lost(&log);
            let problems = log.verify().expect("readable");
            assert!(!problems.is_empty(), "cut at {length}");
            assert_eq!(reported(&problems), lost, "cut at {length}: {problems:?}");
            assert!(lost.is_subset(&lost_before), "cut at {length}: a longer file has as much at least");
            assert!(length >= HEADER_BYTES || lost.len() as u64 == RECORDS);
            if compression == Compression::None && length >= HEADER_BYTES {
                let ends = ends_of_records(&sealed.bytes);
                let cut = (0..RECORDS).filter(|o| ends[*o as usize] > length).collect();
                assert_eq!(lost, cut, "cut at {length}");
            }
            lost_before = lost;
        }
        assert_eq!(lost_before, BTreeSet::new(), "the footer alone costs nothing");
    }
}

#[test]
fn a_newer_version_is_refused_with_its_number() {
    let sealed = sealed(Compression::Lz4);
    let mut bytes = sealed.bytes.clone();
    bytes[8] = 2;
    let sum = crc32c::crc32c(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&sum);
    fs::write(&sealed.file, &bytes).expect("room");
    let refused = Log::open(sealed.directory.path(), sealed.config).expect_err("a newer one");
    assert!(matches!(refused, Error::Newer { version: 2, known: 1, .. }));
    assert_eq!(
        refused.to_string(),
        "00000000000000000000-00000000000000000000.sealed has version 2 of the segment format; \
         this program reads versions up to 1"
    );
    assert!(fs::read(&sealed.file).expect("readable") == bytes, "nothing was changed");
}

#[test]
fn another_framing_is_refused() {
    let sealed = sealed(Compression::Lz4);
    let other = LogConfig { framing: Framing::Fixed(9), ..sealed.config };
    let refused = Log::open(sealed.directory.path(), other).expect_err("lines are there");
    assert!(matches!(refused, Error::FramingDiffers { has: Framing::Line, wanted: Framing::Fixed(9) }));
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let good = config(Compression::Lz4);
    for bad in [
        LogConfig { framing: Framing::Fixed(0), ..good },
        LogConfig { framing: Framing::Fixed(2 << 20), ..good },
        LogConfig { segment_bytes: 0, ..good },
        LogConfig { segment_bytes: 2 << 30, ..good },
        LogConfig { block_bytes: 0, ..good },
    ] {
        assert!(Log::open(directory.path(), bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_missing_segment_costs_its_records_and_is_named() {
    for which in 0..3 {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let config = config(Compression::Lz4);
        let mut log = Log::open(directory.path(), config).expect("an empty directory");
        for i in 0..30 {
            log.append(format!("record {i}\n").as_bytes(), Micros(i)).expect("room");
            if i % 10 == 9 && i < 29 {
                log.seal(Micros(i)).expect("room");
            }
        }
        log.seal(Micros(29)).expect("room");
        log.append(b"active\n", Micros(30)).expect("room");
        let path = segment_files(directory.path()).remove(which);
        fs::remove_file(&path).expect("ours");
        let gone = which as u64 * 10..which as u64 * 10 + 10;
        let problems = log.verify().expect("readable");
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].damage, problems[0].lost.clone()), (Damage::Missing, gone.clone()));
        assert_eq!(Some(problems[0].file.as_ref()), path.file_name().and_then(|name| name.to_str()));
        let log = Log::open(directory.path(), config).expect("what is left");
        let mut buffer = [0; 1000];
        if which == 0 {
            assert_eq!(log.first().0, Offset(10), "nothing tells it from a trimmed one");
            continue;
        }
        let before = log.read(Offset(0), &mut buffer).expect("readable");
        assert_eq!(before.next.0, gone.start);
        let behind = log.read(before.next, &mut buffer).expect("readable");
        assert_eq!((behind.lost, behind.first.0, behind.next.0), (10, gone.end, 31));
        let problems = log.verify().expect("readable");
        assert_eq!(problems.len(), 1);
        assert_eq!((problems[0].damage, problems[0].lost.clone()), (Damage::Missing, gone));
    }
}

#[test]
fn a_torn_tail_stays_pending_until_it_is_whole_or_set_aside() {
    for (framing, record, torn) in [
        (Framing::Line, &b"a whole line\n"[..], &b"a torn li"[..]),
        (Framing::Len32, b"\x04\0\0\0four", b"\x09\0\0\0torn"),
        (Framing::Len32, b"\x04\0\0\0four", b"\x09\0"),
        (Framing::Fixed(8), b"as fixed", b"torn"),
        (Framing::Write, b"whatever\n\0", b"torn"),
    ] {
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let config = LogConfig { framing, ..config(Compression::Lz4) };
        let mut log = Log::open(directory.path(), config).expect("an empty directory");
        for _ in 0..3 {
            log.append(record, Micros(1)).expect("room");
        }
        let end = log.end();
        log.close_writer();
        let mut file = OpenOptions::new().append(true).open(log.active_path()).expect("ours");
        file.write_all(torn).expect("room");
        for _ in 0..2 {
            let indexed = log.index_new_bytes(Micros(2)).expect("readable");
            assert_eq!((indexed.records, indexed.pending_bytes), (0, torn.len() as u64), "{framing}");
            assert_eq!(log.end(), end, "{framing}");
            let problems = log.verify().expect("readable");
            assert_eq!(problems.len(), 1, "{framing}");
            assert_eq!((problems[0].damage, problems[0].at), (Damage::TornTail, end.1.0), "{framing}");
            log = Log::open(directory.path(), config).expect("what we left");
        }
        log.seal(Micros(2)).expect("room");
        assert_eq!(log.append(record, Micros(3)).expect("room"), Offset(3), "{framing}");
        let mut buffer = [0; 1000];
        let batch = log.read(Offset(0), &mut buffer).expect("readable");
        assert_eq!((batch.lost, batch.records()), (0, 4));
        assert!(buffer[..batch.bytes] == record.repeat(4), "{framing}");
        let aside = directory.path().join(format!("{:020}.torn", end.1.0));
        assert!(fs::read(aside).expect("kept") == torn, "{framing}");
        let problems = log.verify().expect("readable");
        assert_eq!(problems.iter().map(|p| p.damage).collect::<Vec<_>>(), [Damage::SetAside]);
    }
}

#[test]
fn a_prefix_that_is_too_long_stops_the_indexing_and_can_be_set_aside() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let config = LogConfig { framing: Framing::Len32, ..config(Compression::Lz4) };
    let mut log = Log::open(directory.path(), config).expect("an empty directory");
    let mut file = OpenOptions::new().append(true).open(log.active_path()).expect("ours");
    file.write_all(b"\x01\0\0\0a\xff\xff\xff\xffbehind it").expect("room");
    for _ in 0..2 {
        let indexed = log.index_new_bytes(Micros(1)).expect("readable");
        assert_eq!(indexed.pending_bytes, 13);
        let refused = indexed.refused.expect("4 GiB are too long").to_string();
        assert!(refused.starts_with("the record at byte 5 would be 4294967299 bytes long"), "{refused}");
        assert_eq!(log.end().0, Offset(1));
    }
    assert_eq!(log.set_tail_aside().expect("room"), 13);
    file.write_all(b"\x01\0\0\0b").expect("room");
    let indexed = log.index_new_bytes(Micros(2)).expect("readable");
    assert_eq!((indexed.records, indexed.pending_bytes, indexed.refused), (1, 0, None));
}

#[test]
fn an_active_record_that_was_changed_is_lost_also_when_it_is_sealed() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    for compression in [Compression::None, Compression::Lz4] {
        let config = config(compression);
        let path = directory.path().join(format!("{compression:?}"));
        let mut log = Log::open(&path, config).expect("an empty directory");
        for i in 0..20 {
            log.append(format!("record {i:02}\n").as_bytes(), Micros(i)).expect("room");
        }
        let file = OpenOptions::new().write(true).open(log.active_path()).expect("ours");
        file.write_all_at(b"R", 10 * 7).expect("room");
        for sealed in [false, true] {
            let problems = log.verify().expect("readable");
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!((problems[0].damage, problems[0].lost.clone()), (Damage::Records, 7..8));
            let mut buffer = [0; 1000];
            let batch = log.read(Offset(0), &mut buffer).expect("readable");
            assert_eq!((batch.next.0, batch.bytes), (7, 70));
            let batch = log.read(Offset(7), &mut buffer).expect("readable");
            assert_eq!((batch.lost, batch.first.0, batch.next.0), (1, 8, 20));
            assert_eq!(log.read_bytes(Position(65), &mut buffer).expect("up to it"), 5);
            assert!(matches!(
                log.read_bytes(Position(70), &mut buffer),
                Err(Error::Lost { until: Position(80) })
            ));
            let part = log.read_bytes(Position(72), &mut buffer[..3]);
            assert!(matches!(part, Err(Error::Lost { until: Position(80) })), "a part of it, too");
            if !sealed {
                log.seal(Micros(30)).expect("room");
                log = Log::open(&path, config).expect("what we left");
            }
        }
    }
}

#[test]
fn a_sealed_record_that_was_changed_in_memory_is_read_from_its_segment() {
    let directory = tempfile::tempdir().expect("a scratch directory");
    let config = LogConfig { segment_bytes: 100, ..LogConfig::default() };
    let mut log = Log::open(directory.path(), config).expect("a new log");
    let records: Vec<Vec<u8>> = (0..20).map(|i| format!("record {i:02}\n").into_bytes()).collect();
    for record in &records {
        log.append(record, Micros(1)).expect("room");
    }
    assert!(log.seal_full().expect("sealed") > 0 && log.hot_bytes() > 0, "sealed, and still in memory");
    let file = OpenOptions::new().write(true).open(log.active_path()).expect("the active file");
    file.write_all_at(b"!", 25).expect("it is there");
    let mut bytes = [0; 200];
    let batch = log.read(Offset(0), &mut bytes).expect("readable");
    assert_eq!((batch.lost, batch.records()), (0, 20));
    assert!(bytes == records.concat()[..], "by offset");
    bytes.fill(0);
    assert_eq!(log.read_bytes(Position(0), &mut bytes).expect("readable"), 200);
    assert!(bytes == records.concat()[..], "by position");
}

#[test]
fn a_damaged_mark_costs_its_record_only() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let config = LogConfig { framing: Framing::Write, ..config(Compression::Lz4) };
    let mut log = Log::open(directory.path(), config).expect("an empty directory");
    for i in 0..9u64 {
        log.append(&vec![b'a' + i as u8; 5 + i as usize], Micros(100 + i)).expect("room");
    }
    drop(log);
    let marks = directory.path().join("writes.marks");
    let whole = fs::read(&marks).expect("readable");
    for at in 0..whole.len() - 36 {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(&marks, &bytes).expect("room");
        let log = Log::open(directory.path(), config).expect("what is left");
        assert_eq!(log.end().0, Offset(9));
        let hit = at as u64 / 36;
        let mut served = BTreeSet::new();
        let (mut from, mut buffer) = (Offset(0), [0; 1000]);
        while from < log.end().0 {
            let batch = log.read_with(from, &mut buffer, |record| {
                let i = record.offset.0;
                assert_eq!(record.bytes, vec![b'a' + i as u8; 5 + i as usize]);
                assert_eq!(record.time, Micros(100 + i));
                served.insert(i);
            });
            from = batch.expect("readable").next;
        }
        assert_eq!(served, (0..9).filter(|i| *i != hit).collect(), "byte {at}");
        assert_eq!(reported(&log.verify().expect("readable")), BTreeSet::from([hit]), "byte {at}");
    }
}

/// A log whose ten records are sealed.
fn ten_sealed(config: LogConfig) -> (TempDir, Log) {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let mut log = Log::open(directory.path(), config).expect("an empty directory");
    for i in 0..10 {
        log.append(format!("record {i}\n").as_bytes(), Micros(i)).expect("room");
    }
    log.seal(Micros(10)).expect("room");
    (directory, log)
}

#[test]
fn an_old_active_file_beside_the_new_one_goes() {
    let config = config(Compression::Lz4);
    let (directory, mut log) = ten_sealed(config);
    let (offset, position) = log.end();
    // What a crash just before its removal leaves.
    let old = directory.path().join(format!("{:020}-{:020}-{:020}.active", offset.0, position.0, position.0));
    fs::write(&old, vec![b'x'; position.0 as usize]).expect("room");
    log.append(b"record 10\n", Micros(11)).expect("room");
    let log = Log::open(directory.path(), config).expect("what we left");
    assert!(!old.exists());
    assert_eq!(log.end().0, Offset(11));
    assert_eq!(log.verify().expect("readable"), []);
}

#[test]
fn files_with_names_that_cannot_be_right_are_left_alone_and_listed() {
    let sealed = sealed(Compression::Lz4);
    let number = |n: u64| format!("{n:020}");
    for (offset, position) in [(5, 1 << 60), (1 << 60, 5), (u64::MAX, u64::MAX), (1 << 61, 1 << 61)] {
        for name in [
            format!("{}-{}.sealed", number(offset), number(position)),
            format!("{}-{}-{}.active", number(offset), number(position), number(7)),
        ] {
            let path = sealed.directory.path().join(&name);
            // An active file far ahead is taken at its word: the records before it are missing, then.
            if name.ends_with("active") && offset > RECORDS {
                continue;
            }
            fs::write(&path, b"something or other\n").expect("room");
            let log = sealed.open();
            assert_eq!(sealed.lost(&log), BTreeSet::new(), "{name}");
            let left: Vec<PathBuf> = fs::read_dir(sealed.directory.path())
                .expect("readable")
                .map(|entry| entry.expect("readable").path())
                .filter(|path| path.to_string_lossy().contains(&number(offset)))
                .collect();
            assert_eq!(left.len(), 1, "{name} is kept");
            if left[0] == path && offset < u64::MAX {
                let listed = log.verify().expect("readable").into_iter().any(|p| p.file == name);
                assert!(listed, "{name}");
            }
            fs::remove_file(&left[0]).expect("ours");
        }
    }
}

#[test]
fn an_active_file_that_lost_what_is_sealed_begins_anew() {
    let config = config(Compression::Lz4);
    let (directory, log) = ten_sealed(config);
    let end = log.end();
    // The active file is gone, as after a reboot if it was in memory; then an older, shorter one is there
    // instead.
    fs::remove_file(log.active_path()).expect("ours");
    let log = Log::open(directory.path(), config).expect("what is left");
    assert_eq!(log.end(), end);
    fs::remove_file(log.active_path()).expect("ours");
    let zero = "0".repeat(20);
    fs::write(directory.path().join(format!("{zero}-{zero}-{zero}.active")), b"record 0\n").expect("room");
    let mut log = Log::open(directory.path(), config).expect("what is left");
    assert_eq!(log.end(), end);
    assert_eq!(log.append(b"record 10\n", Micros(11)).expect("room"), Offset(10));
}
