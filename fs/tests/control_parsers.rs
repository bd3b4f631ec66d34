//! Bytes on the control socket that anybody may have sent: thousands of random inputs to what `support/parsers.rs`
//! checks. `fuzz/` does the same with libFuzzer. `AIMSS_BYTES=N` for more.

#[path = "support/parsers.rs"]
mod parsers;
#[allow(dead_code)]
#[path = "../../engine/tests/it/support/random.rs"]
mod random;

use random::Random;
use std::panic::catch_unwind;

fn from_environment(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// What JSON is made of, and words of the protocol: random bytes alone are hardly ever a value.
const WORDS: [&str; 16] = [
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\n",
    "null",
    "-1e999",
    "\\u0000",
    "\"status\"",
    "\"path\":",
    "255",
    "18446744073709551616",
    "[[[[[[[[",
];

#[test]
fn requests_and_replies_are_read_or_refused_and_written_as_they_were_read() {
    let first = from_environment("AIMSS_SEED", 1);
    for seed in first..first + from_environment("AIMSS_BYTES", 6000) {
        let mut random = Random::new(seed);
        let length = random.below(60) as usize;
        let mut data = random.bytes(length);
        for _ in 0..random.below(6) {
            let at = random.below(data.len() as u64 + 1) as usize;
            data.splice(at..at, WORDS[random.below(16) as usize].bytes());
        }
        assert!(
            catch_unwind(|| parsers::control(&data)).is_ok(),
            "failed with AIMSS_SEED={seed}, on {data:?}"
        );
    }
}

#[test]
fn good_lines_are_all_read_whatever_their_paths() {
    parsers::good_lines();
}

#[test]
fn a_line_that_is_too_long_is_refused_and_its_rest_too() {
    parsers::endless_line();
}

#[test]
fn a_thousand_brackets_are_an_error() {
    parsers::control(&[&[0], "[".repeat(100_000).as_bytes(), b"\n"].concat());
}
