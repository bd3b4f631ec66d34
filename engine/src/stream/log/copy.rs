//! A copy of the active file in the log's directory, where the active file itself is on faster storage.
//!
//! With it, the log's directory is a whole log by itself, as of the last [`Copied::bring_up_to_date`]; and the
//! active file's directory may be lost with no more than what came since.
//!
//! 1. [`Log::news`] says, with the log borrowed for a moment, where the copy has to get to.
//! 2. [`Copied::bring_up_to_date`] copies what is missing, and syncs, with nothing borrowed. What was sealed
//!    since leaves the copy's front: its name says how much, and the blocks are given back.
//!
//! Invariants: the copy's byte `skip` is the stream's byte `position`, as its name says, and from there on it
//! holds what the active file holds, up to `end`.

use super::Log;
use super::active::length_of;
use super::marks::{self, Mark};
use super::names::{self, Listing, Name};
use super::recover::{Begin, path_of};
use crate::stream::segment::{open_to_read, read_there, sync_directory};
use crate::stream::{Framing, Result, plain};
use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// Bytes copied at a time.
const CHUNK_BYTES: usize = 1 << 20;

/// What the copy has to know of the log; see the module.
#[derive(Debug)]
pub struct News {
    file: Arc<File>,
    /// First record that is not sealed, and its first byte, which is at this place in the file.
    offset: u64,
    position: u64,
    file_at: u64,
    /// Behind the last byte, of records or not.
    end: u64,
    /// Bytes from here on were taken out of the stream since.
    cut: Option<u64>,
    /// Framed as `write`: all active records.
    marks: Option<Vec<Mark>>,
    /// When the active file was written last.
    modified: SystemTime,
}

impl News {
    /// Behind the last byte that will be durable.
    pub fn end(&self) -> u64 {
        self.end
    }
}

/// The copy; see the module.
#[derive(Debug)]
pub struct Copied {
    directory: PathBuf,
    begin: Begin,
    file: File,
    end: u64,
    marked: u64,
    /// Both, as of the last success: after a failure the kernel takes pages for written that are not, so that all since
    /// is written again.
    durable: (u64, u64),
}

impl Log {
    /// Where the copy in the log's directory has to get to.
    pub fn news(&mut self) -> Result<News> {
        let active = &mut self.active;
        active.changeable()?;
        let index = &active.index;
        let file_at = active.file_at(index.position);
        let metadata = active.file.metadata()?;
        let length = metadata.len();
        let marks = (active.framing() == Framing::Write)
            .then(|| (0..index.len()).map(|i| Mark::of(index, i)).collect());
        Ok(News {
            file: Arc::clone(&active.file),
            offset: index.offset,
            position: index.position,
            file_at,
            end: index.position + length.saturating_sub(file_at),
            cut: active.cut.take(),
            marks,
            modified: metadata.modified()?,
        })
    }

    /// Saves in `to`, which is made if it is missing, what the active file in the directory `from` has that is in no
    /// segment, durably. Nobody appends meanwhile. Nothing is saved where there is no active file.
    pub fn save_active(from: &Path, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        fetch(&Listing::of(from)?, to)?;
        Ok(sync_directory(to)?)
    }

    /// The copy did not get there.
    pub fn news_failed(&mut self, news: &News) {
        self.active.cut = [self.active.cut, news.cut].into_iter().flatten().min();
    }
}

impl Copied {
    /// The copy that a log's directory, as it was `listed` when the log was opened, has of the active file elsewhere;
    /// made if it is missing.
    pub fn open(log: &Log, listed: &Listing) -> Result<Copied> {
        log.active.changeable()?;
        let directory = log.directory.clone();
        let index = &log.active.index;
        let begin = newest(&listed.files).unwrap_or((index.offset, index.position, 0));
        let path = path_of(&directory, begin);
        let file = plain::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let mut end = begin.1 + length_of(&path)?.saturating_sub(begin.2);
        // From where bytes were set aside on, the copy may have them still: that is copied again.
        for (name, _) in &listed.files {
            if let Name::Torn { position } = *name
                && position >= begin.1
            {
                end = end.min(position);
            }
        }
        let marked = marks::read_and_mend(&directory)?.last().map_or(0, |mark| mark.offset + 1);
        Ok(Copied { directory, begin, file, end, marked, durable: (end, marked) })
    }

    /// Behind the last byte that the copy has.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Copies what is missing and makes it durable.
    pub fn bring_up_to_date(&mut self, news: &News) -> Result<()> {
        let done = self.copy(news);
        if done.is_ok() {
            self.durable = (self.end, self.marked);
        } else {
            (self.end, self.marked) = self.durable;
            self.end = self.end.max(self.begin.1);
        }
        done
    }

    fn copy(&mut self, news: &News) -> Result<()> {
        if let Some(cut) = news.cut.filter(|cut| *cut < self.end) {
            self.end = cut.max(self.begin.1);
        }
        if news.position > self.begin.1 {
            self.forget_front(news)?;
        }
        let mut chunk = vec![0; CHUNK_BYTES.min(news.end.saturating_sub(self.end) as usize)];
        while self.end < news.end {
            let wanted = chunk.len().min((news.end - self.end) as usize);
            let from = news.file_at + (self.end - news.position);
            let there = read_there(&news.file, &mut chunk[..wanted], from)?;
            if there == 0 {
                break;
            }
            self.file.write_all_at(&chunk[..there], self.file_at(self.end))?;
            self.end += there as u64;
        }
        if self.file.metadata()?.len() > self.file_at(self.end) {
            // What was set aside.
            self.file.set_len(self.file_at(self.end))?;
        }
        // Both have the same time, which comes back with the copy ([`fetch`]).
        self.file.set_modified(news.modified)?;
        self.file.sync_data()?;
        self.mark(news)
    }

    fn file_at(&self, position: u64) -> u64 {
        position - self.begin.1 + self.begin.2
    }

    /// What was sealed since is not needed in the copy any more.
    fn forget_front(&mut self, news: &News) -> Result<()> {
        let old = path_of(&self.directory, self.begin);
        if self.end >= news.position {
            let skip = self.file_at(news.position);
            let begin = (news.offset, news.position, skip);
            fs::rename(old, path_of(&self.directory, begin))?;
            self.begin = begin;
            // Where the file system can't, the blocks stay until the file goes.
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            let _ = rustix::fs::fallocate(&self.file, flags, 0, skip);
        } else {
            self.begin = (news.offset, news.position, 0);
            self.end = news.position;
            self.file = plain::options()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(path_of(&self.directory, self.begin))?;
            fs::remove_file(old)?;
        }
        sync_directory(&self.directory)?;
        Ok(())
    }

    fn mark(&mut self, news: &News) -> Result<()> {
        let Some(all) = &news.marks else { return Ok(()) };
        let new = all.partition_point(|mark| mark.offset < self.marked);
        if new == all.len() {
            return Ok(());
        }
        let mut file = marks::open(&self.directory)?;
        if all.first().is_some_and(|first| first.offset > 0) && new == 0 {
            // None of those that are there is needed any more.
            file.set_len(0)?;
        }
        marks::add_all(&mut file, &all[new..])?;
        file.sync_data()?;
        self.marked = all[all.len() - 1].offset + 1;
        Ok(())
    }
}

/// Of the files of a directory, the active one that is last in the stream.
fn newest(files: &[(Name, String)]) -> Option<Begin> {
    let actives = files.iter().filter_map(|(name, _)| match name {
        Name::Active { offset, position, skip } => Some((*offset, *position, *skip)),
        _ => None,
    });
    actives.max()
}

/// Where `to` has no active file, it gets what the copy in `from` has.
pub(super) fn fetch(from: &Listing, to: &Path) -> Result<()> {
    if newest(&names::list(to)?).is_some() {
        return Ok(());
    }
    let Some(begin) = newest(&from.files) else { return Ok(()) };
    let from = &from.directory;
    let source = open_to_read(&path_of(from, begin))?;
    let beside = to.join("fetched.new");
    let mut target = plain::create(&beside)?;
    // Without the front, which was given back.
    let mut at = begin.2;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let there = read_there(&source, &mut chunk, at)?;
        if there == 0 {
            break;
        }
        io::Write::write_all(&mut target, &chunk[..there])?;
        at += there as u64;
    }
    // The marks first: an active file without them would lose its records.
    match open_to_read(&from.join(names::MARKS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        marks => {
            io::copy(&mut marks?, &mut plain::create(&to.join(names::MARKS))?)?;
        }
    }
    let changed = source.metadata()?.modified()?;
    target.set_modified(changed)?;
    target.sync_all()?;
    fs::rename(beside, path_of(to, (begin.0, begin.1, 0)))?;
    Ok(())
}
