//! Directories that are listed, at once and in parts.
//!
//! In parts, as readdir(3), telldir(3) and seekdir(3) do it: by one descriptor that stays open while daemons come and go,
//! with getdents64(2) into a small buffer and lseek(2). Meanwhile other names come and go.

use super::{LASTING, Load};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{RawDir, SeekFrom, seek};
use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// Names that stay in the directory that is listed in parts.
const NAMES: u64 = 2000;
/// Made in one step.
const MADE_TOGETHER: u64 = 50;
/// So many others are there at a time.
const OTHERS: usize = 8;
/// Some thirty names: a listing takes seventy parts.
const PART_BYTES: usize = 1024;
/// After each part, so that a listing takes longer than many a daemon lives.
const PAUSE: Duration = Duration::from_millis(2);
/// Of so many parts one goes back, and on from where it was.
const BACK_EVERY: u64 = 5;
/// Of so many listings one is left in peace, so that the kernel may keep it for the next one.
const PEACE_EVERY: u64 = 3;

pub(super) fn lists(dir: &Path, load: &Load) -> Result<()> {
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

/// By one descriptor for many steps, with a part of the listing in each.
pub(super) fn lists_in_parts(dir: &Path, load: &Load) -> Result<()> {
    let many = dir.join("many");
    fs::create_dir(&many)?;
    let mut made = 0;
    load.each_below(NAMES / MADE_TOGETHER, |number| {
        for name in number * MADE_TOGETHER..(number + 1) * MADE_TOGETHER {
            symlink("nowhere", many.join(format!("stays-{name}")))?;
            made = name + 1;
        }
        Ok(())
    })?;
    let (mut listing, mut listings) = (Listing::open(&many)?, 0_u64);
    let mut others = VecDeque::new();
    load.each(|number| {
        if listings % PEACE_EVERY != PEACE_EVERY - 1 {
            let name = many.join(format!("comes-{number}"));
            symlink("nowhere", &name)?;
            others.push_back(name);
            if others.len() > OTHERS
                && let Some(name) = others.pop_front()
            {
                fs::remove_file(name)?;
            }
        }
        if number.is_multiple_of(BACK_EVERY) {
            listing.go_back(number * 7)?;
        }
        if !listing.read_on()? {
            listing.has(made)?;
            listings += 1;
            if listings.is_multiple_of(2) {
                listing = Listing::open(&many)?;
            } else {
                listing.rewind()?;
            }
        }
        std::thread::sleep(PAUSE);
        Ok(())
    })?;
    while listing.read_on()? {}
    listing.has(made)?;
    drop(listing);
    fs::remove_dir_all(many)?;
    Ok(())
}

/// A listing as far as it was read.
struct Listing {
    dir: File,
    /// All names so far.
    shown: BTreeSet<String>,
    /// Those of them that stay, in the order in which they came.
    staying: Vec<String>,
    /// Behind each entry: the position, and how many of `staying` came before.
    told: Vec<(u64, usize)>,
}

impl Listing {
    fn open(dir: &Path) -> Result<Listing> {
        let dir = File::open(dir)?;
        Ok(Listing { dir, shown: BTreeSet::new(), staying: Vec::new(), told: Vec::new() })
    }

    /// Begins anew, as rewinddir(3) does.
    fn rewind(&mut self) -> Result<()> {
        seek(&self.dir, SeekFrom::Start(0)).context("rewinddir")?;
        self.shown.clear();
        self.staying.clear();
        self.told.clear();
        Ok(())
    }

    /// Reads a part; false at the end.
    fn read_on(&mut self) -> Result<bool> {
        let part = part(&self.dir)?;
        let is_end = part.is_empty();
        for (name, behind) in part {
            ensure!(self.shown.insert(name.clone()), "{name} was shown twice");
            if stays(&name) {
                self.staying.push(name);
            }
            self.told.push((behind, self.staying.len()));
        }
        Ok(!is_end)
    }

    /// Reads a part from behind one of the entries, by its number, and goes on where it was: what stays must follow as it
    /// did before.
    fn go_back(&self, entry: u64) -> Result<()> {
        let Some((end, _)) = self.told.last() else { return Ok(()) };
        let (position, before) = self.told[entry as usize % self.told.len()];
        seek(&self.dir, SeekFrom::Start(position)).context("seekdir")?;
        let names: Vec<String> = part(&self.dir)?.into_iter().map(|(name, _)| name).collect();
        let first = &self.staying[before..];
        // More may follow than was shown the first time.
        let again = names.iter().filter(|name| stays(name));
        for (first, again) in first.iter().zip(again) {
            ensure!(first == again, "{again} followed at {position}, and the first time {first} had");
        }
        let nothing = names.is_empty() && !first.is_empty();
        ensure!(!nothing, "nothing followed at {position}, and the first time {} names had", first.len());
        seek(&self.dir, SeekFrom::Start(*end)).context("seekdir")?;
        Ok(())
    }

    /// That it has all names that stay, of which there are so many; none is there twice.
    fn has(&self, names: u64) -> Result<()> {
        for name in (0..names).map(|name| format!("stays-{name}")) {
            ensure!(self.shown.contains(&name), "{name} was not shown, {} others were", self.staying.len());
        }
        ensure!(self.staying.len() as u64 == names, "{} names were shown of {names}", self.staying.len());
        Ok(())
    }
}

fn stays(name: &str) -> bool {
    name.starts_with("stays-")
}

/// What one getdents64(2) gives: names, each with the position behind it; none at the end.
fn part(dir: &File) -> Result<Vec<(String, u64)>> {
    let mut room = [MaybeUninit::uninit(); PART_BYTES];
    let (mut entries, mut part) = (RawDir::new(dir, &mut room), Vec::new());
    while let Some(entry) = entries.next() {
        let entry = entry.context("getdents64")?;
        part.push((entry.file_name().to_str()?.to_owned(), entry.next_entry_cookie()));
        if entries.is_buffer_empty() {
            break;
        }
    }
    Ok(part)
}
