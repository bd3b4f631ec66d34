//! Sealed segments: their indexes are made again from what is left of them.

use super::log::Mendable;
use super::{Check, Repair, What};
use crate::stream::log::names::{self, Name};
use crate::stream::segment::Segment;
use crate::stream::{Damage, Error, Framing, Problem, Result};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

impl Check<'_> {
    /// Looks for segments that are damaged at both ends and can be found by their blocks; their paths.
    pub(super) fn damaged_at_both_ends(
        &mut self,
        directory: &Path,
        framing: Framing,
    ) -> Result<Vec<PathBuf>> {
        let mut begins: Vec<(u64, u64, Option<String>)> = Vec::new();
        for (name, file) in names::list(directory)? {
            match name {
                Name::Sealed { offset, position } => begins.push((offset, position, Some(file))),
                Name::Active { offset, position, .. } => begins.push((offset, position, None)),
                _ => {}
            }
        }
        begins.sort();
        let mut found = Vec::new();
        for (i, (offset, position, file)) in begins.iter().enumerate() {
            let Some(file) = file else { continue };
            let path = directory.join(file);
            let Err(Error::NotSegment { .. }) = Segment::open(&path) else { continue };
            let next = begins.get(i + 1).map(|(offset, position, _)| (*offset, *position));
            // The active file may have some of its records still.
            let ends = [next.filter(|next| next.0 > *offset), None];
            for end in ends {
                if let Some(segment) = Segment::open_by_blocks(&path, framing, (*offset, *position), end)? {
                    let what = What::Damage(Damage::NotSegment, 0);
                    self.repair(&path, what, Repair::Rewrite, || {
                        segment.mend(&path).map_err(io::Error::other)
                    });
                    found.push(path);
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Which of the problems of segments can be made good; with repairs, they are afterwards.
    pub(super) fn mendable(&mut self, directory: &Path, problems: &[Problem]) -> Result<Mendable> {
        let mut files: BTreeMap<&str, Vec<&Problem>> = BTreeMap::new();
        for problem in problems.iter().filter(|problem| is_of_index(problem.damage)) {
            files.entry(&problem.file).or_default().push(problem);
        }
        let mut places = Vec::new();
        for (file, problems) in files {
            let path = directory.join(file);
            let Ok(segment) = Segment::open(&path) else { continue };
            let mut good = Vec::new();
            for fault in segment.check()? {
                if problems.iter().any(|problem| (problem.at, problem.damage) == (fault.at, fault.damage))
                    && segment.is_mendable(&fault)?
                {
                    good.push((file.to_owned(), fault.at, fault.damage));
                }
            }
            if !good.is_empty()
                && self.repairs()
                && let Err(e) = segment.mend(&path)
            {
                self.failed(&path, &e);
                continue;
            }
            places.append(&mut good);
        }
        Ok(Mendable { places })
    }
}

fn is_of_index(damage: Damage) -> bool {
    matches!(damage, Damage::Header | Damage::Footer | Damage::BlockHead | Damage::Entries)
}
