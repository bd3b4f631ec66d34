//! A stream whose memory is full: its writers are told how much of a write is there, and the log is that. Needs root,
//! for a small tmpfs.

use aimss_engine::stream::live::{Limits, Streams};
use aimss_engine::stream::{Framing, LogConfig, Position, Settings};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

const MEMORY_BYTES: usize = 1 << 20;
const WRITE_BYTES: usize = 300_000;

/// A tmpfs of [`MEMORY_BYTES`], for as long as it is in scope.
struct Memory(tempfile::TempDir);

impl Memory {
    fn new() -> Option<Memory> {
        let place = tempfile::tempdir().expect("a scratch directory");
        let size = CString::new(format!("size={MEMORY_BYTES}")).expect("no zeros");
        match mount("tmpfs", place.path(), "tmpfs", MountFlags::empty(), size.as_c_str()) {
            Ok(()) => Some(Memory(place)),
            Err(e) => {
                eprintln!("skipped: no tmpfs can be mounted: {e}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("streams")
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

fn streams(backing: &Path, memory: &Path) -> std::sync::Arc<Streams> {
    let limits = Limits { flush_every: Duration::from_secs(1), hot_bytes: 0, removed_after: Duration::ZERO };
    Streams::new(backing, memory, limits).expect("directories")
}

/// Writes of lines, until one is refused; returns what the stream must hold.
fn fill(framing: Framing) -> Option<(Vec<u8>, Vec<u8>)> {
    let memory = Memory::new()?;
    let backing = tempfile::tempdir().expect("a scratch directory");
    let streams = streams(backing.path(), &memory.path());
    let log = LogConfig { framing, ..LogConfig::default() };
    let stream = streams.create(&Settings { log, ..Settings::default() }).expect("a stream");
    let mut expected = Vec::new();
    for i in 0..100 {
        let mut data = vec![b'a' + i % 26; WRITE_BYTES];
        data[WRITE_BYTES - 1] = b'\n';
        match stream.append(&data) {
            Ok(appended) => expected.extend_from_slice(&data[..appended]),
            Err(e) => {
                assert!(e.to_string().contains("No space"), "{e}");
                break;
            }
        }
    }
    assert!(expected.len() > MEMORY_BYTES / 2 && expected.len() <= MEMORY_BYTES, "it fills up");
    let mut shown = vec![0; 2 * MEMORY_BYTES];
    let read = stream.read_at(Position(0), &mut shown).expect("readable");
    shown.truncate(read);
    Some((expected, shown))
}

#[test]
fn lines_are_there_as_far_as_their_writer_was_told() {
    let Some((expected, shown)) = fill(Framing::Line) else { return };
    assert!(expected == shown);
    assert!(!expected.len().is_multiple_of(WRITE_BYTES), "the last write was cut short");
}

#[test]
fn a_write_that_is_a_record_is_there_whole_or_not_at_all() {
    let Some((expected, shown)) = fill(Framing::Write) else { return };
    assert!(expected == shown);
    assert!(expected.len().is_multiple_of(WRITE_BYTES));
}
