//! A log against a model that is a list of records: random appends by us and by a foreign writer, in whole
//! records and in parts, seals, crashes, reopenings, trims, and reads by offset, position and time.
//! `AIMSS_LOGS=N` for more.

use crate::support::random::Random;
use crate::support::{Seed, first_seed, runs};
use aimss_engine::stream::{
    Compression, Error, Framing, Log, LogConfig, Micros, Offset, Position, Retention,
};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

#[test]
fn a_log_is_what_was_appended() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_LOGS", 40) {
        let _seed = Seed(seed);
        let mut world = World::new(seed);
        for _ in 0..300 {
            world.step();
        }
        world.compare_all();
    }
}

#[test]
fn retention_is_exact_within_a_segment() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let fill = |path: &std::path::Path| {
        let mut log = Log::open(path, LogConfig::default()).expect("an empty directory");
        for i in 0..100 {
            log.append(b"10 bytes.\n", Micros(i)).expect("room");
            if i % 10 == 9 {
                log.seal(Micros(i)).expect("room");
            }
        }
        log
    };
    // What is kept, and the first record that then is left.
    let keep = Retention::default();
    let some = Duration::from_micros;
    for (i, (retention, acknowledged, first)) in [
        (keep, Some(100), 0),
        (Retention { bytes: Some(1000), ..keep }, None, 0),
        (Retention { bytes: Some(901), ..keep }, None, 0),
        (Retention { bytes: Some(900), ..keep }, None, 10),
        (Retention { bytes: Some(0), ..keep }, None, 100),
        (Retention { age: Some(some(191)), ..keep }, None, 0),
        (Retention { age: Some(some(190)), ..keep }, None, 10),
        (Retention { age: Some(some(0)), ..keep }, None, 100),
        (Retention { acknowledged: true, ..keep }, None, 0),
        (Retention { acknowledged: true, ..keep }, Some(29), 20),
        (Retention { acknowledged: true, ..keep }, Some(30), 30),
        (Retention { bytes: Some(900), acknowledged: true, ..keep }, Some(30), 30),
        (Retention { bytes: Some(300), acknowledged: true, ..keep }, Some(30), 70),
    ]
    .into_iter()
    .enumerate()
    {
        let path = directory.path().join(i.to_string());
        let mut log = fill(&path);
        let trimmed = log.trim(&retention, Micros(200), acknowledged.map(Offset)).expect("removable");
        assert_eq!((trimmed.segments, trimmed.records, trimmed.bytes), (first / 10, first, first * 10));
        assert_eq!(log.first(), (Offset(first), Position(first * 10)), "{retention:?}");
        let reopened = Log::open(&path, LogConfig::default()).expect("what is left");
        assert_eq!(reopened.first(), log.first());
        assert_eq!(reopened.end(), (Offset(100), Position(1000)));
    }
}

/// A record as the model has it.
#[derive(Debug, Clone)]
struct Known {
    bytes: Vec<u8>,
    position: u64,
    time: u64,
}

struct World {
    random: Random,
    directory: TempDir,
    config: LogConfig,
    /// Taken out while it is reopened.
    log: Option<Log>,
    records: Vec<Known>,
    /// The record that a foreign writer is in the middle of, and how much of it is written.
    unfinished: Option<(Vec<u8>, usize)>,
    /// Whole records that a foreign writer wrote and nobody has indexed.
    unindexed: Vec<Vec<u8>>,
    first: u64,
    now: u64,
    /// Times are not before the file's last change when it was reopened.
    reopened: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random::new(seed ^ 0x106);
        let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
        let framing = match random.below(4) {
            0 => Framing::Line,
            1 => Framing::Len32,
            2 => Framing::Fixed(1 + random.below(90) as u32),
            _ => Framing::Write,
        };
        let config = LogConfig {
            framing,
            segment_bytes: 1000 + random.below(9000),
            compression: if random.one_in(2) { Compression::Lz4 } else { Compression::None },
            block_bytes: 1 + random.below(2000) as u32,
        };
        let log = Some(Log::open(directory.path(), config).expect("an empty directory"));
        let (records, unindexed) = (Vec::new(), Vec::new());
        World {
            random,
            directory,
            config,
            log,
            records,
            unfinished: None,
            unindexed,
            first: 0,
            now: 1000,
            reopened: 0,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("it is open")
    }

    fn step(&mut self) {
        // An hour or two now and then: more than a block's times can span. And a clock that jumps back.
        match self.random.below(30) {
            0 => self.now += self.random.below(8_000_000_000),
            1 => self.now = self.now.saturating_sub(self.random.below(5_000)),
            _ => self.now += self.random.below(3),
        }
        match self.random.below(20) {
            0..6 => self.append(),
            6..10 => self.append_foreign(),
            10..12 => self.index(),
            12 => self.seal(),
            13 => self.seal_full(),
            14 => self.reopen(),
            15 => self.trim(),
            _ => self.compare_some(),
        }
    }

    fn record(&mut self) -> Vec<u8> {
        let length = match self.random.below(20) {
            0 => self.random.below(900),
            1 => 0,
            _ => self.random.below(60),
        } as usize;
        let random = &mut self.random;
        let words: [&[u8]; 4] = [b"alpha ", b"beta ", b"\0\0\0\0", b"gamma gamma "];
        let mut bytes = Vec::new();
        while bytes.len() < length {
            if random.one_in(3) {
                bytes.extend(random.bytes(3));
            } else {
                bytes.extend_from_slice(random.pick(&words).expect("some"));
            }
        }
        match self.config.framing {
            Framing::Line => {
                bytes.iter_mut().filter(|b| **b == b'\n').for_each(|b| *b = b' ');
                bytes.push(b'\n');
                bytes
            }
            Framing::Len32 => [&(bytes.len() as u32).to_le_bytes()[..], &bytes].concat(),
            Framing::Fixed(n) => {
                bytes.resize(n as usize, b'x');
                bytes
            }
            Framing::Write => {
                bytes.push(1);
                bytes
            }
        }
    }

    /// The model's part of indexing.
    fn know(&mut self, bytes: Vec<u8>) {
        let position = self.end_position();
        let time = self.records.last().map_or(0, |last| last.time).max(self.now).max(self.reopened);
        self.records.push(Known { bytes, position, time });
    }

    fn end_position(&self) -> u64 {
        self.records.last().map_or(0, |last| last.position + last.bytes.len() as u64)
    }

    fn know_foreign(&mut self) {
        for bytes in std::mem::take(&mut self.unindexed) {
            self.know(bytes);
        }
    }

    fn append(&mut self) {
        let (record, now) = (self.record(), Micros(self.now));
        let offset = self.log().append(&record, now).expect("a good record");
        self.know_foreign();
        self.unfinished = None;
        assert_eq!(offset.0, self.records.len() as u64);
        self.know(record);
    }

    fn write_raw(&mut self, bytes: &[u8]) {
        let path = self.log().active_path();
        let mut file = OpenOptions::new().append(true).open(path).expect("the active file");
        file.write_all(bytes).expect("room");
    }

    fn append_foreign(&mut self) {
        if self.config.framing == Framing::Write {
            // Part of a record whose writer died: it never becomes one.
            if self.random.one_in(4) {
                self.write_raw(b"torn");
            }
            return;
        }
        for _ in 0..=self.random.below(8) {
            let (record, done) = match self.unfinished.take() {
                Some(unfinished) => unfinished,
                None => (self.record(), 0),
            };
            let upto = if self.random.one_in(3) {
                done + self.random.below((record.len() - done) as u64 + 1) as usize
            } else {
                record.len()
            };
            self.write_raw(&record[done..upto]);
            if upto < record.len() {
                self.unfinished = Some((record, upto));
            } else {
                self.unindexed.push(record);
            }
        }
    }

    fn index(&mut self) {
        let now = Micros(self.now);
        let indexed = self.log().index_new_bytes(now).expect("readable");
        assert_eq!(indexed.records, self.unindexed.len() as u64);
        assert_eq!(indexed.refused, None);
        if self.config.framing != Framing::Write {
            let pending = self.unfinished.as_ref().map_or(0, |(_, done)| *done as u64);
            assert_eq!(indexed.pending_bytes, pending);
        }
        self.know_foreign();
    }

    fn seal(&mut self) {
        let now = Micros(self.now);
        self.log().seal(now).expect("room");
        self.know_foreign();
        self.unfinished = None;
        assert_eq!(self.log().active_bytes(), 0);
    }

    fn seal_full(&mut self) {
        if self.random.one_in(2) {
            self.log().seal_full().expect("room");
            assert!(self.log().active_bytes() < self.config.segment_bytes);
        } else if let Some(piece) = self.log().full_piece() {
            // The writers go on meanwhile.
            let written = piece.write().expect("room");
            self.append_foreign();
            self.index();
            self.log().install(&written).expect("the next piece");
        }
    }

    fn reopen(&mut self) {
        match self.random.below(4) {
            0 => {
                // A crash between a segment's being there and the log's noting it.
                if let Some(piece) = self.log().full_piece() {
                    piece.write().expect("room");
                }
            }
            1 => {
                let left = self.directory.path().join("left.sealed.new");
                std::fs::write(left, b"half a segment").expect("room");
            }
            _ => {}
        }
        // Records that are indexed anew get the time of the file's last change: make that one the model
        // knows.
        self.now = self.now.max(self.records.last().map_or(0, |last| last.time)).max(self.reopened);
        self.reopened = self.now;
        let file = File::open(self.log().active_path()).expect("the active file");
        file.set_modified(UNIX_EPOCH + Duration::from_micros(self.now)).expect("our file");
        drop(self.log.take());
        self.log = Some(Log::open(self.directory.path(), self.config).expect("what we left"));
        self.know_foreign();
        if self.config.framing != Framing::Write {
            self.learn_times();
        }
        assert_eq!(std::fs::exists(self.directory.path().join("left.sealed.new")).ok(), Some(false));
        self.compare_end();
    }

    /// Active records have new times now: those that they had, or the file's.
    fn learn_times(&mut self) {
        let now = self.now;
        let mut buffer = vec![0; 1 << 20];
        let log = self.log.as_ref().expect("it is open");
        let mut from = log.first().0;
        while from < log.end().0 {
            let records = &mut self.records;
            let batch = log.read_with(from, &mut buffer, |record| {
                let known = &mut records[record.offset.0 as usize];
                assert!(record.time.0 == known.time || record.time.0 == now, "{record:?}");
                known.time = record.time.0;
            });
            from = batch.expect("readable").next;
        }
        assert!(self.records.is_sorted_by_key(|known| known.time), "times never go back");
    }

    fn trim(&mut self) {
        let end = self.end_position();
        let any = Offset(self.random.below(self.records.len() as u64 + 1));
        let (kind, bytes, now) = (self.random.below(4), self.random.below(20_000), Micros(self.now));
        let age = Duration::from_micros(self.random.below(self.now + 1));
        let before = self.first;
        let mut retention = Retention::default();
        let trimmed = match kind {
            0 => self.log().trim_before(any),
            1 => {
                retention.acknowledged = true;
                self.log().trim(&retention, now, Some(any))
            }
            2 => {
                retention.bytes = Some(bytes);
                self.log().trim(&retention, now, None)
            }
            _ => {
                retention.age = Some(age);
                self.log().trim(&retention, now, None)
            }
        };
        let trimmed = trimmed.expect("removable");
        self.first = self.log().first().0.0;
        assert_eq!(trimmed.records, self.first - before);
        let gone = &self.records[before as usize..self.first as usize];
        assert_eq!(trimmed.bytes, gone.iter().map(|known| known.bytes.len() as u64).sum::<u64>());
        let Some(last) = gone.last() else { return };
        match kind {
            0 | 1 => assert!(self.first <= any.0, "what is needed stays"),
            2 => assert!(end - (last.position + last.bytes.len() as u64) >= bytes, "the limit is left"),
            _ => assert!(last.time < now.before(age).0, "young records stay"),
        }
    }

    fn compare_end(&mut self) {
        let (records, bytes) = (self.records.len() as u64, self.end_position());
        assert_eq!(self.log().end(), (Offset(records), Position(bytes)));
    }

    fn compare_some(&mut self) {
        self.compare_end();
        let end = self.records.len() as u64;
        let from = self.random.below(end + 1);
        let room = self.random.below(3000) as usize;
        self.compare_batch(from, room);
        let from = self.random.below(self.end_position() + 1);
        let room = self.random.below(3000) as usize;
        self.compare_bytes(from, room);
        if let Some(known) = self.random.pick(&self.records) {
            let time = known.time - self.random.below(2).min(known.time);
            self.compare_time(time);
        }
        let past = self.now + 9_000_000_000;
        self.compare_time(past);
    }

    fn compare_batch(&mut self, from: u64, room: usize) {
        let mut buffer = vec![0; room];
        let mut told = Vec::new();
        let log = self.log.as_ref().expect("it is open");
        let batch = log.read_with(Offset(from), &mut buffer, |record| {
            told.push((record.offset.0, record.position.0, record.time.0, record.bytes.to_vec()));
        });
        if from < self.first {
            assert!(matches!(batch, Err(Error::Trimmed { first, .. }) if first.0 == self.first));
            return;
        }
        let mut fits = 0;
        let wanted: Vec<&Known> = self.records[from as usize..]
            .iter()
            .take_while(|known| {
                fits += known.bytes.len();
                fits <= room
            })
            .collect();
        if wanted.is_empty() && (from as usize) < self.records.len() {
            let needed = self.records[from as usize].bytes.len();
            assert!(matches!(batch, Err(Error::BufferTooSmall { needed_bytes }) if needed_bytes == needed));
            return;
        }
        let batch = batch.expect("readable");
        assert_eq!((batch.lost, batch.first.0, batch.records()), (0, from, wanted.len() as u64));
        let bytes: Vec<u8> = wanted.iter().flat_map(|known| known.bytes.clone()).collect();
        assert!(buffer[..batch.bytes] == bytes, "the bytes of records {from} and on");
        for (i, (told, known)) in told.iter().zip(&wanted).enumerate() {
            let wanted = (from + i as u64, known.position, known.time, known.bytes.clone());
            assert_eq!(*told, wanted);
        }
        assert_eq!(told.len(), wanted.len());
    }

    fn compare_bytes(&mut self, from: u64, room: usize) {
        let mut buffer = vec![0; room];
        let end = self.end_position();
        let first = self.log().first().1.0;
        let read = self.log().read_bytes(Position(from), &mut buffer);
        if from < first {
            assert!(matches!(read, Err(Error::Trimmed { position, .. }) if position.0 == first));
            return;
        }
        let wanted: Vec<u8> = self
            .records
            .iter()
            .skip_while(|known| known.position + (known.bytes.len() as u64) <= from)
            .take_while(|known| known.position < from + room as u64)
            .flat_map(|known| {
                let skip = from.saturating_sub(known.position) as usize;
                known.bytes[skip..].to_vec()
            })
            .take(room)
            .collect();
        let read = read.expect("readable");
        assert_eq!(read as u64, (end - from).min(room as u64));
        assert!(buffer[..read] == wanted, "the bytes at {from} and on");
    }

    fn compare_time(&mut self, time: u64) {
        let first = self.first;
        let before = self.records.partition_point(|known| known.time < time) as u64;
        assert_eq!(self.log().offset_at_time(Micros(time)).expect("readable").0, before.max(first));
    }

    /// All of it, by each way, and nothing is found wrong but what a foreign writer left half.
    fn compare_all(&mut self) {
        self.index();
        self.compare_end();
        let mut from = self.first;
        while (from as usize) < self.records.len() {
            self.compare_batch(from, 5000);
            from += 1 + self.random.below(20);
        }
        let (begin, end) = (self.log().first().1.0, self.end_position());
        let mut from = begin;
        while from < end {
            self.compare_bytes(from, 5000);
            from += 1 + self.random.below(2000);
        }
        for problem in self.log().verify().expect("readable") {
            assert!(problem.lost.is_empty(), "{problem}");
        }
    }
}
