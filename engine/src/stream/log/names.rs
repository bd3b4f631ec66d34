//! Names of a log's files, which say where in the stream a file begins, so that opening a log needs no more
//! than its directory's listing.
//!
//! ```text
//! OFFSET-POSITION.sealed         a sealed segment
//! OFFSET-POSITION-SKIP.active    the active file; its byte SKIP is the stream's byte POSITION
//! POSITION.torn                  bytes that were no record, found behind byte POSITION
//! writes.marks                   lengths of records framed as `write`
//! *.new                          not finished; removed when the log is opened
//! ```
//!
//! Numbers are decimal, with 20 digits, so that names sort as numbers do.

use crate::stream::group::Group;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The file of lengths.
pub(crate) const MARKS: &str = "writes.marks";

/// No stream gets there, and sums of a few such numbers don't overflow.
pub(super) const NUMBER_MAX: u64 = 1 << 61;

/// A file of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Sealed { offset: u64, position: u64 },
    Active { offset: u64, position: u64, skip: u64 },
    Torn { position: u64 },
    Unfinished,
}

impl Name {
    pub fn parse(name: &str) -> Option<Name> {
        let (stem, ending) = name.rsplit_once('.')?;
        if ending == "new" {
            return Some(Name::Unfinished);
        }
        let numbers: Vec<u64> = stem.split('-').map(number).collect::<Option<_>>()?;
        match (ending, &numbers[..]) {
            ("sealed", &[offset, position]) => Some(Name::Sealed { offset, position }),
            ("active", &[offset, position, skip]) => Some(Name::Active { offset, position, skip }),
            ("torn", &[position]) => Some(Name::Torn { position }),
            _ => None,
        }
    }

    pub fn text(self) -> String {
        match self {
            Name::Sealed { offset, position } => format!("{offset:020}-{position:020}.sealed"),
            Name::Active { offset, position, skip } => {
                format!("{offset:020}-{position:020}-{skip:020}.active")
            }
            Name::Torn { position } => format!("{position:020}.torn"),
            Name::Unfinished => String::from(".new"),
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = if digits { text.parse().ok()? } else { return None };
    (number <= NUMBER_MAX).then_some(number)
}

/// What a log's directory has: listed once, for all who open something of it.
#[derive(Debug)]
pub struct Listing {
    pub(super) directory: PathBuf,
    /// The files with their names, in order.
    pub(super) files: Vec<(Name, String)>,
    groups: Vec<String>,
}

impl Listing {
    /// Lists it. What is neither the log's nor a group's is not ours, and left out.
    pub fn of(directory: &Path) -> io::Result<Listing> {
        let (mut files, mut groups) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(directory)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            if let Some(name) = Name::parse(&file) {
                files.push((name, file));
            } else if let Some(group) = Group::name_of(&file) {
                groups.push(group.to_string());
            }
        }
        files.sort();
        groups.sort();
        Ok(Listing { directory: directory.into(), files, groups })
    }

    /// Names of the groups that have a file, in order.
    pub fn groups(&self) -> &[String] {
        &self.groups
    }
}

/// A name that nothing has: what was set aside is not replaced by what is set aside later.
pub(crate) fn unused(wanted: &Path) -> PathBuf {
    let mut to = wanted.to_owned();
    let mut number = 1;
    while fs::symlink_metadata(&to).is_ok() {
        number += 1;
        let mut name = wanted.as_os_str().to_owned();
        name.push(format!("-{number}"));
        to = PathBuf::from(name);
    }
    to
}

/// The files of a log with their names, in order.
pub(crate) fn list(directory: &Path) -> io::Result<Vec<(Name, String)>> {
    Listing::of(directory).map(|listing| listing.files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_each_others_inverse() {
        let names = [
            Name::Sealed { offset: 1, position: 1 << 61 },
            Name::Active { offset: 0, position: 2, skip: 3 },
            Name::Torn { position: 4 },
        ];
        for name in names {
            assert_eq!(Name::parse(&name.text()), Some(name));
        }
        for other in
            ["1-2.sealed", "sealed", "a.b", "00000000000000000001.sealed", "+0000000000000000001.torn"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
