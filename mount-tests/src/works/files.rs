//! Files that are made, written, read, changed and removed.

use super::{LASTING, Load, RECORDS_MAX};
use crate::bytes::pattern;
use anyhow::{Context as _, Result, ensure};
use rustix::fs::XattrFlags;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const RECORD_BYTES: usize = 100;

pub(super) fn appends(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn makes_and_removes(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn makes_directories(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn changes_attributes(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn reads(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn writes_in_place(dir: &Path, load: &Load) -> Result<()> {
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

pub(super) fn syncs(dir: &Path, load: &Load) -> Result<()> {
    load.each(|number| {
        let path = dir.join(format!("synced-{}", number % 10));
        let mut file = File::create(&path)?;
        file.write_all(&pattern(number, 2000))?;
        file.sync_all()?;
        ensure!(fs::read(&path)? == pattern(number, 2000), "what was synced");
        Ok(())
    })
}
