//! Journals. What must hold is said, and checked, in `journal::journal`.

#![no_main]

#[path = "../../engine/tests/it/support/journal.rs"]
mod journal;

libfuzzer_sys::fuzz_target!(|data: &[u8]| journal::journal(data));
