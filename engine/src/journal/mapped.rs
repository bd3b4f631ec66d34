//! A file in memory that is appended to through a mapping: a record costs its copy instead of a system call, and what was
//! stored is there after the process has died, whatever killed it.
//!
//! Its blocks are allocated before they are stored to, so that memory which ends is an error and not a signal.

use memmap2::{MmapMut, MmapOptions};
use rustix::fs::FallocateFlags;
use std::fs::File;
use std::io;

/// So much is mapped, and allocated, at once.
const WINDOW_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Mapped {
    file: File,
    window: MmapMut,
    /// Where the window begins; a multiple of its size.
    begin: u64,
    /// Behind the last byte that was appended.
    end: u64,
}

impl Mapped {
    /// Goes on at `end`; what is behind it is cut off.
    pub fn new(file: File, end: u64) -> io::Result<Mapped> {
        file.set_len(end)?;
        let begin = end / WINDOW_BYTES * WINDOW_BYTES;
        let window = window(&file, begin)?;
        Ok(Mapped { file, window, begin, end })
    }

    /// Behind the last byte that was appended.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Appends all of `bytes`, or nothing that counts: what is behind the end is overwritten by the next.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (mut rest, mut at) = (bytes, self.end);
        while !rest.is_empty() {
            if at == self.begin + WINDOW_BYTES {
                self.window = window(&self.file, at)?;
                self.begin = at;
            }
            let from = (at - self.begin) as usize;
            let (now, later) = rest.split_at(rest.len().min(WINDOW_BYTES as usize - from));
            #[cfg(any(feature = "failpoints", debug_assertions))]
            {
                let half = now.len() / 2;
                self.window[from..from + half].copy_from_slice(&now[..half]);
                crate::failpoint::pass("within", "record");
            }
            self.window[from..from + now.len()].copy_from_slice(now);
            (rest, at) = (later, at + now.len() as u64);
        }
        self.end = at;
        Ok(())
    }
}

fn window(file: &File, begin: u64) -> io::Result<MmapMut> {
    rustix::fs::fallocate(file, FallocateFlags::empty(), begin, WINDOW_BYTES)?;
    // SAFETY: the file is ours alone, is never made shorter while it is mapped, and the window was allocated just now.
    unsafe { MmapOptions::new().offset(begin).len(WINDOW_BYTES as usize).map_mut(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_in_the_file_over_windows_and_after_a_resume() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
        let path = dir.path().join("file");
        let open = || File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut expected = Vec::new();
        let mut mapped = Mapped::new(open().expect("it opens"), 0).expect("it is mapped");
        for number in 0..3000_usize {
            if number == 1500 {
                mapped = Mapped::new(open().expect("it opens"), mapped.end()).expect("it is mapped");
            }
            let record = vec![number as u8 | 1; number % 1777];
            mapped.append(&record).expect("there is room");
            expected.extend(record);
        }
        assert!(expected.len() as u64 > 2 * WINDOW_BYTES && mapped.end() == expected.len() as u64);
        let read = std::fs::read(&path).expect("it can be read");
        assert!(read[..expected.len()] == expected && read[expected.len()..].iter().all(|byte| *byte == 0));
    }
}
