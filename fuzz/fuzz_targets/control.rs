//! The control protocol. What must hold is said, and checked, in `parsers::control`.

#![no_main]

#[path = "../../fs/tests/support/parsers.rs"]
#[allow(dead_code)]
mod parsers;

libfuzzer_sys::fuzz_target!(|data: &[u8]| parsers::control(data));
