//! What programs do on a mount while its daemons are killed or replaced: each looks at what it reads and lists, fails with
//! what it was doing, and checks at its end that nothing is lost and nothing was done twice.

use crate::bytes::pattern;
use crate::{Mount, program};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::XattrFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Files that stay where they are, for those who list and read.
const LASTING: u64 = 300;
const RECORD_BYTES: usize = 100;
/// A file or stream that grows is looked at and begun anew with so many records.
const RECORDS_MAX: u64 = 1_000_000;

/// Whoever works, until the load is to stop.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// In the third person.
    pub name: &'static str,
    run: Run,
}

#[derive(Debug, Clone, Copy)]
enum Run {
    /// In a directory of its own.
    Here(fn(&Path, &Load) -> Result<()>),
    /// A script of `programs/`, again and again, with what follows its directories for the number of each time.
    Script(&'static str, fn(u64) -> Vec<String>),
}

/// What one work has come to.
#[derive(Debug, Default)]
pub struct Load {
    stop: AtomicBool,
    done: AtomicU64,
    /// In microseconds.
    longest: AtomicU64,
}

/// All that is under way.
#[derive(Debug)]
pub struct UnderWay<'w> {
    works: Vec<(&'w Work, Load)>,
    failed: AtomicBool,
}

impl UnderWay<'_> {
    /// Whether somebody has failed, which is said when all have stopped.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Steps that each has done, by its name.
    pub fn steps(&self) -> BTreeMap<&'static str, u64> {
        self.works.iter().map(|(work, load)| (work.name, load.done.load(Ordering::Relaxed))).collect()
    }

    /// The longest step of each, in milliseconds.
    pub fn longest(&self) -> BTreeMap<&'static str, u64> {
        self.works
            .iter()
            .map(|(work, load)| (work.name, load.longest.load(Ordering::Relaxed) / 1000))
            .collect()
    }
}

impl Load {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Runs `life` again and again, once at least.
    fn again_and_again(&self, mut life: impl FnMut() -> Result<()>) -> Result<()> {
        loop {
            life()?;
            if self.is_over() {
                return Ok(());
            }
        }
    }

    /// Runs `step` with a number that grows, until it is to stop.
    fn each(&self, step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        self.each_below(u64::MAX, step)
    }

    /// The same, with numbers below `end`.
    fn each_below(&self, end: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
        let mut number = 0;
        while number < end && !self.is_over() {
            let begun = Instant::now();
            step(number).with_context(|| format!("step {number}"))?;
            self.longest.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
            self.done.fetch_add(1, Ordering::Relaxed);
            number += 1;
        }
        Ok(())
    }
}

fn appends(dir: &Path, load: &Load) -> Result<()> {
    load.again_and_again(|| appends_to_a_file(dir, load))
}

fn appends_to_a_file(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("appended");
    let mut file = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut records = 0;
    load.each_below(RECORDS_MAX, |number| {
        file.write_all(&pattern(number, RECORD_BYTES))?;
        records = number + 1;
        if number.is_multiple_of(64) {
            ensure!(file.metadata()?.len() == records * RECORD_BYTES as u64, "the size after an append");
        }
        Ok(())
    })?;
    let content = fs::read(&path)?;
    ensure!(content.len() as u64 == records * RECORD_BYTES as u64, "{} bytes of {records}", content.len());
    for (number, record) in content.chunks(RECORD_BYTES).enumerate() {
        ensure!(record == pattern(number as u64, RECORD_BYTES), "record {number}");
    }
    fs::remove_file(path)?;
    Ok(())
}

fn makes_and_removes(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let (old, new) = (dir.join(format!("made-{number}")), dir.join(format!("moved-{number}")));
        let content = pattern(number, 5000);
        OpenOptions::new().write(true).create_new(true).open(&old)?.write_all(&content)?;
        ensure!(fs::metadata(&old)?.len() == 5000, "the size of what was made");
        fs::rename(&old, &new)?;
        ensure!(fs::metadata(&old).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound), "the old name");
        ensure!(fs::read(&new)? == content, "the content under the new name");
        fs::remove_file(&new)?;
        Ok(())
    })
}

fn makes_directories(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let made = dir.join(format!("dir-{number}"));
        fs::create_dir(&made)?;
        std::os::unix::fs::symlink("somewhere", made.join("symlink"))?;
        fs::write(made.join("file"), "content")?;
        fs::hard_link(made.join("file"), made.join("link"))?;
        ensure!(fs::metadata(made.join("link"))?.nlink() == 2, "links");
        ensure!(fs::read_link(made.join("symlink"))? == Path::new("somewhere"), "a target");
        fs::remove_file(made.join("file"))?;
        ensure!(fs::metadata(made.join("link"))?.nlink() == 1, "links, of two names one went");
        ensure!(fs::read(made.join("link"))? == b"content", "the content under the other name");
        fs::remove_file(made.join("link"))?;
        fs::remove_file(made.join("symlink"))?;
        fs::remove_dir(&made)?;
        Ok(())
    })
}

fn changes_attributes(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("attributes");
    fs::write(&path, [7; 1000])?;
    load.each(|number| {
        // Of these each fails when it is done twice.
        rustix::fs::setxattr(&path, "user.once", b"value", XattrFlags::CREATE).context("setxattr")?;
        rustix::fs::removexattr(&path, "user.once").context("removexattr")?;
        let size = 100 + number % 1000;
        OpenOptions::new().write(true).open(&path)?.set_len(size)?;
        ensure!(fs::metadata(&path)?.len() == size, "the size that was set");
        Ok(())
    })
}

fn lists(dir: &Path, load: &Load) -> Result<()> {
    let lasting = dir.parent().context("a parent")?.join("lasting");
    load.each(|_| {
        let mut names: Vec<_> =
            fs::read_dir(&lasting)?.map(|entry| Ok(entry?.file_name())).collect::<Result<_>>()?;
        let listed = names.len();
        names.sort();
        names.dedup();
        ensure!(
            names.len() as u64 == LASTING && listed == names.len(),
            "{listed} names, {} of them",
            names.len()
        );
        Ok(())
    })
}

fn reads(dir: &Path, load: &Load) -> Result<()> {
    let lasting = dir.parent().context("a parent")?.join("lasting");
    let mut held = File::open(lasting.join("file-0"))?;
    load.each(|number| {
        let which = number * 7 % LASTING;
        ensure!(fs::read(lasting.join(format!("file-{which}")))? == pattern(which, 3000), "file {which}");
        // One that stays open over all of it.
        let mut content = Vec::new();
        held.seek(SeekFrom::Start(0))?;
        held.read_to_end(&mut content)?;
        ensure!(content == pattern(0, 3000), "the file that is held open");
        Ok(())
    })
}

fn writes_in_place(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("in-place");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
    // Nameless, so that nothing but its handle leads to it.
    fs::remove_file(&path)?;
    load.each(|number| {
        let (block, at) = (pattern(number, 4096), number % 64 * 4096);
        file.write_all_at(&block, at)?;
        let mut read = vec![0; 4096];
        file.read_exact_at(&mut read, at)?;
        ensure!(read == block, "a block that was just written");
        Ok(())
    })
}

fn syncs(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let path = dir.join(format!("synced-{}", number % 10));
        let mut file = File::create(&path)?;
        file.write_all(&pattern(number, 2000))?;
        file.sync_all()?;
        ensure!(fs::read(&path)? == pattern(number, 2000), "what was synced");
        Ok(())
    })
}

fn appends_to_streams(dir: &Path, load: &Load) -> Result<()> {
    load.again_and_again(|| appends_to_a_stream(dir, load))
}

fn appends_to_a_stream(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("x.stream");
    let mut writer = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut reader = File::open(dir.join("x.stream@group+eof"))?;
    let mut appended = 0;
    // The number of the next record that the reader has not seen, and how many it was given again.
    let (mut next, mut again) = (0, 0);
    let mut consume = |at_most: u64| -> Result<bool> {
        let mut batch = vec![0; 1 << 16];
        let bytes = reader.read(&mut batch).context("a read of the group")?;
        for line in std::str::from_utf8(&batch[..bytes])?.lines() {
            let number: u64 = line.strip_prefix("record ").context("a record")?.parse()?;
            ensure!(number <= next && number < at_most, "record {number} came where {next} was due");
            again += u64::from(number < next);
            next = next.max(number + 1);
        }
        Ok(bytes > 0)
    };
    load.each_below(RECORDS_MAX, |number| {
        writer.write_all(format!("record {number}\n").as_bytes()).context("an append")?;
        appended = number + 1;
        if number.is_multiple_of(16) {
            consume(appended)?;
        }
        Ok(())
    })?;
    while consume(appended)? {}
    ensure!(next == appended, "{next} of {appended} records were delivered");
    println!("appends-to-a-stream: {appended} records, of which {again} were delivered again");
    let whole = fs::read_to_string(&path)?;
    for (number, line) in whole.lines().enumerate() {
        ensure!(line == format!("record {number}"), "{line} stands where record {number} should");
    }
    ensure!(whole.lines().count() as u64 == appended, "{} of {appended} records", whole.lines().count());
    fs::remove_file(path)?;
    Ok(())
}

/// Two threads append to a stream that three members of a group share.
fn shares_a_stream(dir: &Path, load: &Load) -> Result<()> {
    const WRITERS: u64 = 2;
    let path = dir.join("shared.stream");
    File::create(&path)?;
    let member = dir.join("shared.stream@members+eof");
    let appended = Mutex::new([0; WRITERS as usize]);
    let seen = Mutex::new(BTreeSet::new());
    let ended = AtomicBool::new(false);
    // What one read gave, each writer's records in their order.
    let consume = |file: &mut File| -> Result<bool> {
        let mut batch = vec![0; 1 << 15];
        let bytes = file.read(&mut batch).context("a read of a member")?;
        let mut last = [None; WRITERS as usize];
        for line in std::str::from_utf8(&batch[..bytes])?.lines() {
            let (writer, number) = line.split_once(' ').context("a record")?;
            let (writer, number): (u64, u64) = (writer.parse()?, number.parse()?);
            let before = last.get_mut(writer as usize).context("a writer")?.replace(number);
            ensure!(
                before.is_none_or(|before| before < number),
                "{number} behind {before:?} of writer {writer}"
            );
            seen.lock().expect("no panic").insert((writer, number));
        }
        Ok(bytes > 0)
    };
    let open = |_| OpenOptions::new().append(true).open(&path);
    let mut files = (0..WRITERS).map(open).collect::<std::io::Result<Vec<File>>>()?;
    std::thread::scope(|scope| {
        let members: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    let mut file = File::open(&member).context("a member")?;
                    loop {
                        let was_last = ended.load(Ordering::SeqCst);
                        if !consume(&mut file)? {
                            if was_last {
                                return Ok(());
                            }
                            std::thread::sleep(Duration::from_millis(5));
                        }
                    }
                })
            })
            .collect();
        let written = load.each(|number| {
            let writer = number % WRITERS;
            files[writer as usize].write_all(format!("{writer} {number}\n").as_bytes())?;
            appended.lock().expect("no panic")[writer as usize] = number + 1;
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        });
        ended.store(true, Ordering::SeqCst);
        for member in members {
            member.join().expect("no panic")?;
        }
        written
    })?;
    // What a member was given and did not come back for, it gave back when it was closed.
    let mut last = File::open(&member)?;
    while consume(&mut last)? {}
    let (seen, appended) = (seen.into_inner().expect("no panic"), appended.into_inner().expect("no panic"));
    for (writer, end) in (0..WRITERS).zip(appended) {
        for number in (writer..end).step_by(WRITERS as usize) {
            ensure!(
                seen.contains(&(writer, number)),
                "record {number} of writer {writer} of {end} was given to nobody"
            );
        }
    }
    let lines = fs::read_to_string(&path)?.lines().count() as u64;
    let records = appended.iter().copied().max().unwrap_or(0);
    ensure!(lines == records, "{lines} lines of {records} records");
    fs::remove_file(path)?;
    Ok(())
}

const fn here(name: &'static str, run: fn(&Path, &Load) -> Result<()>) -> Work {
    Work { name, run: Run::Here(run) }
}

const fn script(name: &'static str, script: &'static str, arguments: fn(u64) -> Vec<String>) -> Work {
    Work { name, run: Run::Script(script, arguments) }
}

/// Those of this file, which can stop at any time.
pub const WORKS: &[Work] = &[
    here("appends", appends),
    here("makes-and-removes", makes_and_removes),
    here("makes-directories", makes_directories),
    here("changes-attributes", changes_attributes),
    here("lists", lists),
    here("reads", reads),
    here("writes-in-place", writes_in_place),
    here("syncs", syncs),
    here("appends-to-a-stream", appends_to_streams),
    here("shares-a-stream", shares_a_stream),
];

/// Programs of others, each of which stops when it has come to its end.
pub const PROGRAMS: &[Work] = &[
    script("fsx", "fsx.sh", |number| vec!["3000".into(), (number + 1).to_string()]),
    script("fsx-in-memory", "fsx.sh", |number| {
        vec!["3000".into(), (number + 1001).to_string(), "sibling=true".into()]
    }),
    script("fio-verify", "fio_verify.sh", |number| vec![FIO_CASES[number as usize % FIO_CASES.len()].into()]),
    script("sqlite", "sqlite_wal.py", |_| vec!["1".into()]),
    script("dir-churn", "dir_churn.py", |_| vec!["1000".into()]),
    script("concurrent-append", "concurrent_append.py", |_| vec!["200".into()]),
];

/// Of `fio_verify.sh`, those that take a second or two.
const FIO_CASES: [&str; 12] = [
    "small",
    "odd",
    "overwrite",
    "mapped_fsync",
    "synced",
    "osync",
    "direct_random",
    "libaio",
    "jobs",
    "many_files",
    "preallocated",
    "append",
];

/// Has all stop when it is dropped, also by a panic.
struct Stops<'w>(&'w UnderWay<'w>);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        for (_, load) in &self.0.works {
            load.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Runs `meanwhile` while all `works` are under way on the mount, each in a directory of its own; then stops them. Fails with
/// what the first one said that did.
pub fn while_at_work<T>(
    mount: &Mount,
    works: &[Work],
    meanwhile: impl FnOnce(&UnderWay<'_>) -> Result<T>,
) -> Result<T> {
    let (lasting, reference) = (mount.at("lasting"), mount.beside("reference"));
    fs::create_dir(&lasting)?;
    fs::create_dir_all(&reference)?;
    for number in 0..LASTING {
        fs::write(lasting.join(format!("file-{number}")), pattern(number, 3000))?;
    }
    let under_way = UnderWay {
        works: works.iter().map(|work| (work, Load::default())).collect(),
        failed: AtomicBool::new(false),
    };
    let (came, ended) = std::thread::scope(|scope| {
        let workers: Vec<_> = under_way
            .works
            .iter()
            .map(|(work, load)| {
                let (dir, reference, failed) = (mount.at(work.name), &reference, &under_way.failed);
                scope.spawn(move || -> Result<()> {
                    let worked = fs::create_dir(&dir).map_err(Into::into).and_then(|()| match work.run {
                        Run::Here(run) => run(&dir, load),
                        Run::Script(script, arguments) => {
                            load.each(|number| program::run_in(&dir, reference, script, &arguments(number)))
                        }
                    });
                    failed.fetch_or(worked.is_err(), Ordering::Relaxed);
                    worked.with_context(|| format!("whoever {}", work.name))
                })
            })
            .collect();
        let stops = Stops(&under_way);
        let came = meanwhile(&under_way);
        drop(stops);
        let ended: Vec<_> = workers.into_iter().map(|worker| worker.join().expect("no panic")).collect();
        (came, ended)
    });
    ended.into_iter().collect::<Result<()>>()?;
    let came = came?;
    let longest = under_way.longest();
    for (name, done) in under_way.steps() {
        println!("{name}: {done} steps, the longest {} ms", longest[name]);
        ensure!(done > 0, "{name} did nothing");
    }
    Ok(came)
}
