//! Settings, groups and markers. What must hold is said, and checked, in `parsers::files`.

#![no_main]

#[path = "../../engine/tests/it/support/parsers.rs"]
#[allow(dead_code)]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parsers::files(data));
