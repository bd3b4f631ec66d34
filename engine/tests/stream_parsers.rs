//! Bytes that anybody may have changed: thousands of random inputs to what `it/support/parsers.rs` checks of
//! each reader of them. `fuzz/` does the same with libFuzzer. `AIMSS_BYTES=N` for more of each.

#[path = "it/support/parsers.rs"]
mod parsers;
#[allow(dead_code)]
#[path = "it/support/random.rs"]
mod random;

use aimss_engine::stream::segment::{Segment, Writer};
use aimss_engine::stream::{Compression, Framing};
use random::Random;
use std::panic::catch_unwind;

fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Feeds `check` inputs of up to `bytes_max` bytes; one that fails is printed with its seed.
fn feed(bytes_max: u64, inputs: u64, check: fn(&[u8])) {
    let first = from_environment("AIMSS_SEED", 1);
    for seed in first..first + from_environment("AIMSS_BYTES", inputs) {
        let mut random = Random::new(seed);
        let length = random.below(bytes_max) as usize;
        // Small numbers often: lengths and counts are.
        let small = random.one_in(2);
        let data: Vec<u8> = random
            .bytes(length)
            .into_iter()
            .map(|byte| if small && byte & 0x80 == 0 { byte % 16 } else { byte })
            .collect();
        assert!(catch_unwind(|| check(&data)).is_ok(), "failed with AIMSS_SEED={seed}, on {data:?}");
    }
}

#[test]
fn framing_finds_the_same_records_in_whatever_pieces() {
    feed(200, 20_000, parsers::framing);
}

#[test]
fn a_changed_segment_serves_only_what_is_there() {
    feed(60, 6000, parsers::segment);
}

#[test]
fn a_log_of_changed_files_is_opened_or_refused_and_goes_on() {
    feed(120, 3000, parsers::index);
}

#[test]
fn settings_groups_and_markers_are_read_as_they_are_written() {
    feed(80, 3000, parsers::files);
}

/// Inputs that failed once.
#[test]
fn inputs_that_failed_once_do_not_any_more() {
    // A mark of a record before the active file, behind whose position no other mark counted.
    parsers::index(&[0xff, 0xff, 0x8c, 0x7a, 0x04, 0x00, 0x2b]);
    // A head that promises more than is there: gigabytes were allocated for it.
    parsers::segment(&[0x6f, 0x6e, 0x91, 0x7f, 0xff, 0xff, 0xb2, 0x0a]);
}

/// A head may not promise more than LZ4 can make of the stored bytes; what packs best is within that.
#[test]
fn what_packs_best_is_no_lie() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let path = directory.path().join("segment");
    let mut writer = Writer::create(&path, Framing::Write, (0, 0), Compression::Lz4, 1 << 30).expect("room");
    let record = vec![0; 64 << 20];
    writer.push(&record, 1, crc32c::crc32c(&record)).expect("room");
    let written = writer.finish().expect("room");
    assert!(written.file_bytes < record.len() as u64 / 250, "{} bytes", written.file_bytes);
    let segment = Segment::open(&path).expect("a segment");
    assert_eq!(segment.check().expect("readable"), []);
    assert!(segment.read_block(0).expect("readable").bytes() == record);
}
