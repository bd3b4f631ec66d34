//! Streams that are appended to and read by members of groups.

use super::{Load, RECORDS_MAX};
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What the only member of a group was given of records that are numbered.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The number of the first record that it has not seen.
    pub next: u64,
    /// How many it was given again.
    again: u64,
}

impl Given {
    /// Takes what one read gave, lines of `WORD NUMBER`: in order, with nothing left out. What was not acknowledged to a
    /// daemon that died may come again. Returns the word of the last line.
    pub fn take<'b>(&mut self, batch: &'b [u8]) -> Result<Option<&'b str>> {
        let (mut due, mut last) = (None, None);
        for line in std::str::from_utf8(batch)?.lines() {
            let (word, number) = line.split_once(' ').context("a record")?;
            let number: u64 = number.parse()?;
            let in_order = due.map_or(number <= self.next, |due| number == due);
            ensure!(in_order, "record {number} came where {} was due", due.unwrap_or(self.next));
            self.again += u64::from(number < self.next);
            self.next = self.next.max(number + 1);
            (due, last) = (Some(number + 1), Some(word));
        }
        Ok(last)
    }
}

pub(super) fn appends_to_streams(dir: &Path, load: &Load) -> Result<()> {
    load.again_and_again(|| appends_to_a_stream(dir, load))
}

fn appends_to_a_stream(dir: &Path, load: &Load) -> Result<()> {
    let path = dir.join("x.stream");
    let mut writer = OpenOptions::new().append(true).create(true).open(&path)?;
    let mut reader = File::open(dir.join("x.stream@group+eof"))?;
    let mut appended = 0;
    let mut given = Given::default();
    let mut consume = |at_most: u64| -> Result<bool> {
        let mut batch = vec![0; 1 << 16];
        let bytes = reader.read(&mut batch).context("a read of the group")?;
        given.take(&batch[..bytes])?;
        ensure!(given.next <= at_most, "{} records came of {at_most}", given.next);
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
    let Given { next, again } = given;
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
pub(super) fn shares_a_stream(dir: &Path, load: &Load) -> Result<()> {
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
