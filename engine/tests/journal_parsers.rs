//! Journals that anybody may have changed: thousands of random inputs to what `it/support/journal.rs` checks. `fuzz/` does
//! the same with libFuzzer. `AIMSS_BYTES=N` for more.

#[path = "it/support/journal.rs"]
mod journal;
#[allow(dead_code)]
#[path = "it/support/random.rs"]
mod random;

use aimss_engine::Ino;
use aimss_engine::journal::{Follower, Record};
use random::Random;
use std::panic::catch_unwind;

fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[test]
fn a_changed_journal_is_read_as_far_as_it_is_whole_and_says_only_what_is_in_it() {
    let first = from_environment("AIMSS_SEED", 1);
    for seed in first..first + from_environment("AIMSS_BYTES", 4000) {
        let mut random = Random::new(seed);
        let length = random.below(300) as usize;
        let data = random.bytes(length);
        assert!(
            catch_unwind(|| journal::journal(&data)).is_ok(),
            "failed with AIMSS_SEED={seed}, on {data:?}"
        );
    }
}

/// A record of four gigabytes, one that holds as many names, and one that holds as many bytes: nothing is allocated for
/// what is not there.
#[test]
fn lengths_that_promise_more_than_is_there_are_not_believed() {
    let directory = tempfile::tempdir_in("/dev/shm").expect("a scratch directory");
    let path = directory.path().join("journal");
    let huge = [0xff, 0xff, 0xff, 0xff, 0x0f];
    // Of a note (16): a key, then bytes; of an object (0): number, type, attributes, then names.
    let note = [&[16, 1][..], &huge].concat();
    let node = [&[0, 1][..], &[0; 15], &huge].concat();
    // The same without names is one.
    let whole = [&[0, 1][..], &[0; 16]].concat();
    assert!(matches!(postcard::from_bytes(&whole), Ok(Record::Node { ino: Ino(1), .. })));
    for body in [&note[..], &node, &[]] {
        let sum = xxhash_rust::xxh3::xxh3_64(body) as u32;
        let length = if body.is_empty() { u32::MAX } else { body.len() as u32 };
        let bytes = [&length.to_le_bytes()[..], &sum.to_le_bytes(), body].concat();
        std::fs::write(&path, bytes).expect("room");
        let before = peak_bytes();
        let left = Follower::begin(&path).expect("it can be read").left;
        assert_eq!((left.bytes, left.nodes.len(), left.notes.len()), (0, 0, 0), "{body:?}");
        let grown = peak_bytes() - before;
        assert!(grown < 256 << 20, "{grown} bytes for {body:?}");
    }
}

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}
