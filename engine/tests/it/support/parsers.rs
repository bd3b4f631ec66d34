//! What reads bytes that anybody may have changed, each as one function of bytes, with what must hold of it
//! whatever they are: no panic, no memory out of proportion to them, and what is said below. `stream_parsers`
//! feeds them random bytes; the targets in `fuzz/` feed them what libFuzzer thinks of.
//!
//! Checksums would refuse nearly all of what a fuzzer invents. So the first byte says what the rest is: a
//! file as it is, changes of a good file, or the same with all checksums made right again, as docs/format.md
//! draws them.

use aimss_engine::stream::framing::{Framing, Splitter};
use aimss_engine::stream::group::Group;
use aimss_engine::stream::segment::{HEADER_BYTES, Segment, Writer};
use aimss_engine::stream::{Compression, Log, LogConfig, Marker, Micros, Offset, Settings};
use crc32c::crc32c;
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const HEAD_BYTES: usize = 60;
const ENTRY_BYTES: usize = 12;
const TAIL_BYTES: usize = 24;
const MARK_BYTES: usize = 36;

/// Bytes to be read as choices; at their end all are 0.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    fn short(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Puts what is left over `bytes`, a place and a few bytes at a time.
    fn change(&mut self, bytes: &mut [u8]) {
        while !self.0.is_empty() && !bytes.is_empty() {
            let at = self.short() % bytes.len();
            let count = usize::from(self.byte() % 8) + 1;
            for (byte, new) in bytes[at..].iter_mut().zip(self.bytes(count)) {
                *byte = *new;
            }
        }
    }
}

fn scratch() -> TempDir {
    tempfile::tempdir_in("/dev/shm").expect("a scratch directory")
}

fn framing_of(choice: u8) -> Framing {
    match choice % 4 {
        0 => Framing::Line,
        1 => Framing::Len32,
        2 => Framing::Fixed(u32::from(choice / 4) + 1),
        _ => Framing::Write,
    }
}

/// Where records end: the same in whatever pieces the bytes come, and as a plain search says.
pub fn framing(data: &[u8]) {
    let mut input = Input(data);
    let word = String::from_utf8_lossy(input.bytes(12)).into_owned();
    if let Ok(framing) = word.parse::<Framing>() {
        assert_eq!(framing.to_string().parse(), Ok(framing), "{word}");
    }
    let framing = framing_of(input.byte());
    let bytes_max = input.short() as u64 + 1;
    if framing == Framing::Write || framing.check(bytes_max).is_err() {
        return;
    }
    let (pieces, bytes) = (input.bytes(8).to_vec(), input.0);
    let whole = split(framing, bytes_max, bytes, &[]);
    assert_eq!(split(framing, bytes_max, bytes, &pieces), whole, "{framing} in pieces of {pieces:?}");
    assert_eq!(whole, found_plainly(framing, bytes_max, bytes), "{framing}, {bytes_max} at most");
    let mut at = 0;
    for end in whole.0 {
        assert_eq!(framing.check_record(&bytes[at..end], bytes_max), Ok(()));
        assert!(framing.check_record(&bytes[at..end - 1], bytes_max).is_err(), "not a whole one");
        at = end;
    }
}

/// The ends of records, and whether the bytes behind them are refused.
fn split(framing: Framing, bytes_max: u64, bytes: &[u8], pieces: &[u8]) -> (Vec<usize>, bool) {
    let mut splitter = Splitter::new(framing, bytes_max, 0);
    let (mut at, mut piece_end, mut pieces, mut ends) = (0, 0, pieces.iter().cycle(), Vec::new());
    while at < bytes.len() {
        if at >= piece_end {
            piece_end = pieces.next().map_or(bytes.len(), |n| at + usize::from(*n) + 1).min(bytes.len());
        }
        match splitter.next(&bytes[at..piece_end]) {
            Ok(Some(taken)) => {
                at += taken;
                ends.push(at);
            }
            Ok(None) => at = piece_end,
            Err(_) => return (ends, true),
        }
    }
    let begin = ends.last().copied().unwrap_or(0);
    assert_eq!(splitter.pending_bytes(), (bytes.len() - begin) as u64);
    (ends, false)
}

fn found_plainly(framing: Framing, bytes_max: u64, bytes: &[u8]) -> (Vec<usize>, bool) {
    let (mut at, mut ends) = (0, Vec::new());
    loop {
        let rest = &bytes[at..];
        let length = match framing {
            Framing::Line => match rest.iter().position(|b| *b == b'\n') {
                Some(newline) => newline as u64 + 1,
                // One more byte, be it the newline, fits if there is room for it.
                None => return (ends, rest.len() as u64 >= bytes_max && !rest.is_empty()),
            },
            Framing::Len32 => match rest.first_chunk() {
                Some(prefix) => 4 + u64::from(u32::from_le_bytes(*prefix)),
                None => return (ends, false),
            },
            Framing::Fixed(n) => u64::from(n),
            Framing::Write => unreachable!("nothing is split"),
        };
        if length > bytes_max {
            return (ends, true);
        }
        if length > rest.len() as u64 {
            return (ends, false);
        }
        at += length as usize;
        ends.push(at);
    }
}

/// A segment: every record that it serves is there whole; where checksums were left alone, it is as it was
/// written.
pub fn segment(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let directory = scratch();
    let path = directory.path().join("segment");
    let mut written = None;
    let bytes = if choice % 4 == 0 {
        input.0.to_vec()
    } else {
        let records = write_segment(&path, choice & 4 != 0);
        let mut bytes = fs::read(&path).expect("readable");
        bytes.truncate(bytes.len() - input.short() % bytes.len() / 8);
        input.change(&mut bytes);
        written = (choice % 4 == 1).then_some(records);
        if choice % 4 == 2 {
            mend_checksums(&mut bytes, true);
        } else if choice % 4 == 3 {
            mend_checksums(&mut bytes, false);
        }
        bytes
    };
    fs::write(&path, &bytes).expect("room");
    let Ok(segment) = Segment::open(&path) else { return };
    segment.check().expect("readable");
    let header = *segment.header();
    for i in 0..segment.blocks() {
        let block = segment.read_block(i).expect("readable");
        let (records, raw_bytes) = segment.block_extent(i);
        assert_eq!((block.records(), block.offset()), (records, segment.block_offset(i)));
        assert!(block.offset() + records as u64 <= header.end_offset());
        assert!(block.bytes().len() <= bytes.len() * 255, "memory goes by what is there");
        for r in 0..records {
            assert!(block.run_end(r) > r && block.run_end(r) <= records);
            let _ = block.time(r);
            if block.is_lost(r) {
                continue;
            }
            let record = &block.bytes()[block.range(r)];
            if let Some(written) = &written {
                assert_eq!(
                    record,
                    written[block.offset() as usize - 100 + r],
                    "another record than was written"
                );
            }
        }
        for at in [0, block.bytes().len() / 2, block.bytes().len().saturating_sub(1)] {
            assert!(block.record_at(at) < records);
        }
        assert_eq!(
            segment.block_of_offset(block.offset()).map(|at| segment.block_offset(at)),
            Some(block.offset())
        );
        if raw_bytes > bytes.len() * 255 {
            // Of a file that was cut.
            continue;
        }
        let mut into = vec![0; raw_bytes];
        if segment.unpack(i, &mut into, &mut Vec::new()).expect("readable") {
            assert_eq!(into, block.bytes(), "two ways of unpacking");
        }
    }
    for wanted in [0, header.first_time, header.last_time, u64::MAX] {
        let _ = segment.block_before_time(wanted);
        let _ = segment.block_of_position(wanted);
    }
}

/// Four blocks of records from offset 100 on.
fn write_segment(path: &Path, packed: bool) -> Vec<Vec<u8>> {
    let compression = if packed { Compression::Lz4 } else { Compression::None };
    let mut writer = Writer::create(path, Framing::Line, (100, 5000), compression, 120).expect("room");
    let mut records = Vec::new();
    for i in 0..24_u64 {
        let record = format!("{}{i}\n", "ab".repeat(i as usize % 9)).into_bytes();
        writer.push(&record, 1000 + i * 7, crc32c(&record)).expect("room");
        records.push(record);
    }
    writer.finish().expect("room");
    records
}

/// Makes the checksums of header, heads, tables, stored bytes and footer right. `lists_too`: the footer's
/// copies become what the blocks say.
fn mend_checksums(bytes: &mut [u8], lists_too: bool) {
    if bytes.len() < HEADER_BYTES + TAIL_BYTES {
        return;
    }
    seal(&mut bytes[..16]);
    seal(&mut bytes[..HEADER_BYTES]);
    let mut at = HEADER_BYTES;
    let mut heads = Vec::new();
    while let Some(head) = bytes.get(at..at + HEAD_BYTES)
        && &head[..4] == b"ablk"
    {
        let (records, stored) = (u32_at(head, 32), u32_at(head, 40));
        let table = at + HEAD_BYTES;
        let behind = table.saturating_add(records.saturating_mul(ENTRY_BYTES));
        let end = behind.saturating_add(stored);
        if let Some(body) = bytes.get(table..end) {
            let (table_crc, stored_crc) = (crc32c(&body[..behind - table]), crc32c(&body[behind - table..]));
            bytes[at + 48..at + 52].copy_from_slice(&stored_crc.to_le_bytes());
            bytes[at + 52..at + 56].copy_from_slice(&table_crc.to_le_bytes());
        }
        seal(&mut bytes[at..at + HEAD_BYTES]);
        heads.extend_from_slice(&bytes[at..at + HEAD_BYTES]);
        at = end;
    }
    let tail_at = bytes.len() - TAIL_BYTES;
    let footer_at = u64_at(&bytes[tail_at..]) as usize;
    if footer_at > tail_at {
        return;
    }
    let copy_at = tail_at.saturating_sub(HEADER_BYTES).max(footer_at);
    if lists_too {
        for (to, from) in bytes[footer_at..copy_at].iter_mut().zip(heads) {
            *to = from;
        }
        bytes.copy_within(..tail_at - copy_at, copy_at);
    } else {
        for head in bytes[footer_at..copy_at].chunks_exact_mut(HEAD_BYTES) {
            seal(head);
        }
        if tail_at - copy_at == HEADER_BYTES {
            seal(&mut bytes[copy_at..copy_at + 16]);
            seal(&mut bytes[copy_at..tail_at]);
        }
    }
    let footer_crc = crc32c(&bytes[footer_at..tail_at]).to_le_bytes();
    bytes[tail_at + 12..tail_at + 16].copy_from_slice(&footer_crc);
    seal(&mut bytes[tail_at..]);
}

/// The last four bytes become the checksum of those before.
fn seal(bytes: &mut [u8]) {
    let at = bytes.len() - 4;
    let sum = crc32c(&bytes[..at]).to_le_bytes();
    bytes[at..].copy_from_slice(&sum);
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")) as usize
}

fn u64_at(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// What a log is found by: names of its files, marks, and the bytes of its active file. However they are, it
/// is opened or refused; what it serves is there; and what is appended is there after it is opened again.
pub fn index(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let framing = framing_of(input.byte());
    let segment_bytes = u64::from(input.byte()) + 300;
    let config = LogConfig { framing, segment_bytes, block_bytes: 64, ..LogConfig::default() };
    let directory = scratch();
    let path = directory.path();
    if choice & 1 != 0 {
        for (name, bytes) in good_log(framing) {
            fs::write(path.join(name), bytes).expect("room");
        }
    }
    for _ in 0..choice >> 1 & 3 {
        let (number, kind) = ([input.byte(), input.byte(), input.byte()], input.byte());
        let [a, b, c] = number.map(|n| if n > 250 { 1_u64 << 61 } else { u64::from(n) });
        let name = match kind % 4 {
            0 => format!("{a:020}-{b:020}.sealed"),
            1 => format!("{a:020}.torn"),
            _ => format!("{a:020}-{b:020}-{c:020}.active"),
        };
        let length = input.short() % 400;
        fs::write(path.join(name), input.bytes(length)).expect("room");
    }
    if choice & 8 != 0 {
        let mut marks = fs::read(path.join("writes.marks")).unwrap_or_default();
        let count = usize::from(input.byte() % 8);
        marks.extend_from_slice(input.bytes(count * MARK_BYTES));
        for mark in marks.chunks_exact_mut(MARK_BYTES) {
            seal(mark);
        }
        fs::write(path.join("writes.marks"), marks).expect("room");
    }
    // Bytes without marks make it wait for them, a fifth of a second.
    let waits = framing == Framing::Write && choice & 16 == 0;
    if !waits && let Ok(log) = Log::open_read_only(path, config) {
        read_all(&log);
        let _ = log.verify();
    }
    let Ok(mut log) = Log::open(path, config) else { return };
    read_all(&log);
    let _ = log.verify();
    let _ = log.statistics();
    let record = record_of(framing, 77);
    if log.append(&record, Micros::now()).is_err() {
        return;
    }
    let end = log.end();
    drop(log);
    let log = Log::open(path, config).expect("it could be opened before");
    assert_eq!(log.end(), end, "what was appended stays where it was");
    let mut bytes = [0; 300];
    let batch = log.read(Offset(end.0.0 - 1), &mut bytes).expect("readable");
    assert_eq!(&bytes[..batch.bytes], record);
}

/// Names and bytes.
type Files = Vec<(String, Vec<u8>)>;

/// The files of a log: three segments and an active file. Made once for each framing, since it takes longer
/// than what is tested.
fn good_log(framing: Framing) -> Files {
    thread_local! {
        static MADE: RefCell<HashMap<Framing, Files>> = RefCell::default();
    }
    let make = || {
        let directory = scratch();
        let config = LogConfig { framing, segment_bytes: 300, block_bytes: 64, ..LogConfig::default() };
        let mut log = Log::open(directory.path(), config).expect("an empty directory");
        for i in 0..12 {
            log.append(&record_of(framing, i), Micros(i * 10)).expect("room");
            if i % 4 == 3 {
                log.seal(Micros(i * 10)).expect("room");
            }
        }
        log.append(&record_of(framing, 12), Micros(500)).expect("room");
        let files = fs::read_dir(directory.path()).expect("readable").map(|entry| {
            let entry = entry.expect("readable");
            let name = entry.file_name().into_string().expect("one of ours");
            (name, fs::read(entry.path()).expect("readable"))
        });
        files.collect()
    };
    MADE.with_borrow_mut(|made| made.entry(framing).or_insert_with(make).clone())
}

/// A record of this framing.
fn record_of(framing: Framing, i: u64) -> Vec<u8> {
    match framing {
        Framing::Line | Framing::Write => format!("record {i}\n").into_bytes(),
        Framing::Len32 => [&5_u32.to_le_bytes()[..], b"5byte"].concat(),
        Framing::Fixed(n) => vec![i as u8; n as usize],
    }
}

fn read_all(log: &Log) {
    let (first, end) = (log.first(), log.end());
    assert!(first.0 <= end.0 && first.1 <= end.1);
    let mut buffer = [0; 1000];
    let (mut from, mut steps) = (first.0, 0);
    while from < end.0 && steps < 1000 {
        let Ok(batch) = log.read(from, &mut buffer) else { break };
        assert!(batch.next > from && batch.next <= end.0, "it goes on");
        from = batch.next;
        steps += 1;
    }
    let _ = log.read_bytes(first.1, &mut buffer);
    for time in [0, 50, u64::MAX] {
        let _ = log.offset_at_time(Micros(time));
    }
}

/// Settings, groups and markers: what is read is written and read again as the same.
pub fn files(data: &[u8]) {
    let directory = scratch();
    let (choice, text) = data.split_first().unwrap_or((&0, &[]));
    let head =
        ["aimss-stream-settings 1\n", "aimss-group 1\n", "aimss-stream 1 ", ""][usize::from(choice % 4)];
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(text);
    fs::write(directory.path().join("settings"), &bytes).expect("room");
    if let Ok(settings) = Settings::read(directory.path()) {
        settings.write(directory.path()).expect("room");
        assert_eq!(Settings::read(directory.path()).expect("as it was written"), settings);
    }
    fs::write(Group::path(directory.path(), "g"), &bytes).expect("room");
    if let Ok(group) = Group::read(directory.path(), "g") {
        Group::write(directory.path(), "g", group.committed(), group.counts()).expect("room");
        let again = Group::read(directory.path(), "g").expect("as it was written");
        assert_eq!((again.committed(), again.counts()), (group.committed(), group.counts()));
    }
    bytes.resize(512, b' ');
    if let Some(marker) = Marker::decode(&bytes) {
        assert_eq!(Marker::decode(&marker.encode()), Some(marker));
    }
}
