//! A backing that answers as slowly as storage far away does: to measure what fetching ahead is worth on machines that
//! have none. Never what a mount gets by itself.
//!
//! The model: each call takes `latency`; bytes move at `bandwidth` a stream, on `streams` at once (who comes later waits
//! for a stream); both times are drawn within `jitter` of themselves, by a generator with a seed. What the directory
//! below really took is part of it: only the rest is waited for. Its files can't be passed through to, since the
//! kernel would read them at their own speed.
//!
//! Not slowed down: writes of the daemon to a file that it moved to the backing under its writers, chunks that the drain
//! compares, and streams, which have the directory for themselves.

use super::{AttrChange, Backing, Listed, LocalBacking, Make, Owner, RenameMode, Room, Stat, Way};
use crate::dice::Dice;
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What is modelled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SlowModel {
    /// Of each call.
    pub latency: Duration,
    /// Bytes a second and stream; 0: as fast as it is.
    pub bandwidth: u64,
    /// Transfers at once.
    pub streams: u32,
    /// Share of each time by which it is drawn shorter or longer, 0 to 1.
    pub jitter: f64,
    /// Of the generator.
    pub seed: u64,
}

impl Default for SlowModel {
    fn default() -> SlowModel {
        SlowModel { latency: Duration::ZERO, bandwidth: 0, streams: 8, jitter: 0.0, seed: 1 }
    }
}

/// See the module.
#[derive(Debug)]
pub struct SlowBacking {
    below: LocalBacking,
    model: SlowModel,
    /// Streams that are free.
    free: Mutex<u32>,
    freed: Condvar,
    dice: Dice,
}

impl SlowBacking {
    /// `below`, as slow as `model` says.
    pub fn new(below: LocalBacking, model: SlowModel) -> SlowBacking {
        let free = Mutex::new(model.streams.max(1));
        SlowBacking { below, model, free, freed: Condvar::new(), dice: Dice::new(model.seed) }
    }

    /// A call without content.
    fn call<T>(&self, run: impl FnOnce(&LocalBacking) -> T) -> T {
        let start = Instant::now();
        let result = run(&self.below);
        self.wait_until(start, self.model.latency);
        result
    }

    /// A call that moves as many bytes as `run` returns beside its result; it has a stream for itself.
    fn transfer<T>(&self, run: impl FnOnce(&LocalBacking) -> (T, u64)) -> T {
        {
            let mut free = self.free.lock();
            while *free == 0 {
                self.freed.wait(&mut free);
            }
            *free -= 1;
        }
        let start = Instant::now();
        let (result, bytes) = run(&self.below);
        let moved = if self.model.bandwidth == 0 {
            Duration::ZERO
        } else {
            Duration::from_secs_f64(bytes as f64 / self.model.bandwidth as f64)
        };
        self.wait_until(start, self.model.latency + moved);
        *self.free.lock() += 1;
        self.freed.notify_one();
        result
    }

    fn wait_until(&self, start: Instant, takes: Duration) {
        let takes = takes.mul_f64(1.0 + self.model.jitter.clamp(0.0, 1.0) * self.draw());
        std::thread::sleep(takes.saturating_sub(start.elapsed()));
    }

    /// From -1 to 1.
    fn draw(&self) -> f64 {
        self.dice.share() * 2.0 - 1.0
    }
}

impl Backing for SlowBacking {
    fn is_remote(&self) -> bool {
        true
    }

    fn can_be_passed_through(&self) -> bool {
        false
    }

    fn stat(&self, path: &[u8]) -> io::Result<Stat> {
        self.call(|below| below.stat(path))
    }

    fn list(&self, path: &[u8]) -> io::Result<Vec<Listed>> {
        self.call(|below| below.list(path))
    }

    fn read_link(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.call(|below| below.read_link(path))
    }

    fn open_read(&self, path: &[u8]) -> io::Result<File> {
        self.call(|below| below.open_read(path))
    }

    fn open_write(&self, path: &[u8], owner: Owner) -> io::Result<File> {
        self.call(|below| below.open_write(path, owner))
    }

    fn create(&self, path: &[u8], mode: u32, owner: Owner) -> io::Result<File> {
        self.call(|below| below.create(path, mode, owner))
    }

    fn make(&self, path: &[u8], make: &Make<'_>, mode: u32, owner: Owner) -> io::Result<()> {
        self.call(|below| below.make(path, make, mode, owner))
    }

    fn unlink(&self, path: &[u8]) -> io::Result<()> {
        self.call(|below| below.unlink(path))
    }

    fn rmdir(&self, path: &[u8]) -> io::Result<()> {
        self.call(|below| below.rmdir(path))
    }

    fn rename(&self, from: &[u8], to: &[u8], mode: RenameMode) -> io::Result<()> {
        self.call(|below| below.rename(from, to, mode))
    }

    fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        self.call(|below| below.link(from, to))
    }

    fn set_attr(&self, path: &[u8], change: &AttrChange) -> io::Result<()> {
        self.call(|below| below.set_attr(path, change))
    }

    fn set_file_attr(&self, file: &File, change: &AttrChange) -> io::Result<()> {
        self.call(|below| below.set_file_attr(file, change))
    }

    fn xattrs(&self, path: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        self.call(|below| below.xattrs(path))
    }

    fn set_xattr(&self, path: &[u8], name: &[u8], value: Option<&[u8]>) -> io::Result<()> {
        self.call(|below| below.set_xattr(path, name, value))
    }

    fn read_at(&self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.transfer(|below| {
            let read = below.read_at(file, buffer, offset);
            let bytes = read.as_ref().map_or(0, |&n| n as u64);
            (read, bytes)
        })
    }

    fn forget_pages(&self, _file: &File, _range: Range<u64>) {
        // They are the storage that is modelled.
    }

    fn copy_in(
        &self,
        to: &File,
        from: &[u8],
        ranges: &[Range<u64>],
        size: u64,
        written: &dyn Fn(Way, u64),
    ) -> io::Result<()> {
        let bytes = ranges.iter().map(|r| r.end - r.start).sum();
        self.transfer(|below| (below.copy_in(to, from, ranges, size, written), bytes))
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        self.call(|below| below.sync_file(file))
    }

    fn sync_dir(&self, path: &[u8]) -> io::Result<()> {
        self.call(|below| below.sync_dir(path))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.call(LocalBacking::sync_all)
    }

    fn room(&self) -> io::Result<Room> {
        self.call(LocalBacking::room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_and_bytes_take_the_time_of_the_model() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), vec![7; 1 << 20]).expect("write");
        let model =
            SlowModel { latency: Duration::from_millis(20), bandwidth: 10 << 20, ..SlowModel::default() };
        let slow = SlowBacking::new(LocalBacking::open(dir.path()).expect("open"), model);
        let start = Instant::now();
        let file = slow.open_read(b"file").expect("it is there");
        assert!(start.elapsed() >= Duration::from_millis(20));
        let start = Instant::now();
        let mut buffer = vec![0; 1 << 20];
        assert_eq!(slow.read_at(&file, &mut buffer, 0).expect("read"), 1 << 20);
        assert!(start.elapsed() >= Duration::from_millis(120) && buffer[99] == 7);
    }

    #[test]
    fn who_finds_no_free_stream_waits() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("file"), b"x").expect("write");
        let model = SlowModel { latency: Duration::from_millis(50), streams: 1, ..SlowModel::default() };
        let slow = SlowBacking::new(LocalBacking::open(dir.path()).expect("open"), model);
        let file = slow.below.open_read(b"file").expect("it is there");
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| slow.read_at(&file, &mut [0], 0).expect("read"));
            }
        });
        assert!(start.elapsed() >= Duration::from_millis(150));
    }
}
