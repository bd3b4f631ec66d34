//! One log's directory, in the order in which each step needs the one before: what is no file, what is not
//! finished, settings, segments, what opening would put right, records, groups.

use super::{Check, Fate, Repair, What, aside, rename_to_new};
use crate::stream::log::names::Name;
use crate::stream::log::recover::{Change, left_undone};
use crate::stream::segment::sync_directory;
use crate::stream::{Damage, Framing, Log, LogConfig, Result, Settings, StreamId, settings};
use std::fs::{self, FileTimes};
use std::io;
use std::path::{Path, PathBuf};

impl Check<'_> {
    /// Checks the log in `directory`.
    pub(super) fn log(&mut self, id: StreamId, directory: &Path) -> Result<()> {
        let plain = fs::symlink_metadata(directory.join(settings::FILE)).is_ok_and(|file| file.is_file());
        let named = if plain { Settings::read(directory).ok() } else { None };
        self.stream = named.map(|settings| settings.path.into());
        let Some(names) = self.files(directory)? else { return Ok(()) };
        let Some(config) = self.settings(id, directory, &names)? else { return Ok(()) };
        let mended = self.damaged_at_both_ends(directory, config.framing)?;
        self.undone(directory, &config, &mended)?;
        let log = Log::open_read_only(directory, config)?;
        self.records(&log)?;
        let log = if self.repairs() { Log::open_read_only(directory, config)? } else { log };
        self.report.records += log.end().0.0 - log.first().0.0;
        self.report.segments += log.sealed_segments() as u64;
        // Where a segment is to be mended first, the log's end is not known yet.
        let end_known = self.repairs() || mended.is_empty();
        self.groups(&log, end_known)
    }

    /// Names of the log's plain files. None if there are others, which could lead elsewhere or hold up who opens
    /// them: then nothing is opened.
    fn files(&mut self, directory: &Path) -> Result<Option<Vec<String>>> {
        let mut entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        let (mut names, mut clear) = (Vec::new(), true);
        for entry in entries {
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                self.note(&path, What::Unknown);
                continue;
            };
            if super::is_aside(&name) {
                self.note(&path, What::SetAside);
            } else if !is_known(&name) {
                self.note(&path, What::Unknown);
            } else if !entry.file_type()?.is_file() {
                clear &= self.set_aside(&path, What::NoFile);
            } else if Name::parse(&name) == Some(Name::Unfinished) {
                self.repair(&path, What::Unfinished, Repair::Remove, || fs::remove_file(&path));
            } else {
                names.push(name);
            }
        }
        Ok(clear.then_some(names))
    }

    /// What [`Log::open`] would do before anything else; but nothing is renamed over what is there.
    fn undone(&mut self, directory: &Path, config: &LogConfig, mended: &[PathBuf]) -> Result<()> {
        for change in left_undone(directory, config)? {
            match change {
                // Unfinished files were looked at.
                Change::Remove(path) if path.extension().is_some_and(|ending| ending == "new") => {}
                Change::Remove(path) => {
                    self.repair(&path, What::Empty, Repair::Remove, || fs::remove_file(&path));
                }
                Change::Rename(from, _) if mended.contains(&from) => {}
                Change::Rename(from, to) => {
                    let ending = |path: &Path, is: &str| path.extension().is_some_and(|ending| ending == is);
                    if ending(&to, "active") {
                        self.repair(&from, What::OldName, Repair::Rename, || {
                            fs::rename(&from, &to)?;
                            sync_directory(directory)
                        });
                    } else if ending(&to, "torn") {
                        let what = What::Damage(Damage::Leftover, 0);
                        self.repair(&from, what, Repair::SetAside, || rename_to_new(&from, &to));
                    } else {
                        self.set_aside(&from, What::Damage(Damage::NotSegment, 0));
                        let name = from.file_name().and_then(|name| Name::parse(name.to_str()?));
                        if let Some(Name::Sealed { offset, .. }) = name.filter(|_| !has_active(directory)) {
                            self.stays(&from, What::LostFrom(offset));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads everything.
    fn records(&mut self, log: &Log) -> Result<()> {
        let problems = log.verify_seen(&mut |bytes| self.seen(bytes))?;
        let mut mendable = self.mendable(log.directory(), &problems)?;
        let mut tail = None;
        for problem in &problems {
            let path = log.directory().join(&problem.file);
            let what = What::Damage(problem.damage, problem.at);
            let hit = |other: &crate::stream::Problem| {
                other.damage == Damage::Records && (&other.file, other.at) == (&problem.file, problem.at)
            };
            match problem.damage {
                // What is said of the records says it.
                Damage::Stored if problems.iter().any(hit) => {}
                // Listed before.
                Damage::SetAside => {}
                Damage::Leftover | Damage::NotSegment if self.is_found(&path) => {}
                Damage::TornTail => tail = Some(problem.at),
                Damage::Leftover => drop(self.set_aside(&path, What::Damage(Damage::Leftover, 0))),
                _ => {
                    let fate = mendable.fate(problem, self.mode);
                    self.enter(&path, what, problem.lost.clone(), fate);
                }
            }
        }
        self.active(log, tail)
    }

    /// The active file's tail, and its marks.
    fn active(&mut self, log: &Log, tail: Option<u64>) -> Result<()> {
        let path = log.active_path();
        if let Some(at) = tail {
            let what = What::Damage(Damage::TornTail, at);
            self.repair(&path, what, Repair::TailAside, || set_tail_aside(log).map_err(io::Error::other));
        } else if !log.marks_agree()? {
            let marks = log.directory().join(crate::stream::log::names::MARKS);
            self.repair(&marks, What::Marks, Repair::Rewrite, || {
                Log::open(log.directory(), *log.config()).map(drop).map_err(io::Error::other)
            });
        }
        Ok(())
    }
}

/// The last segment's records are in the active file, if there is one: else it would begin behind them.
fn has_active(directory: &Path) -> bool {
    let files = crate::stream::log::names::list(directory).unwrap_or_default();
    files.iter().any(|(name, _)| matches!(name, Name::Active { .. }))
}

/// A name that the log, or a group, has a meaning for.
fn is_known(name: &str) -> bool {
    Name::parse(name).is_some()
        || crate::stream::group::Group::name_of(name).is_some()
        || [settings::FILE, crate::stream::log::names::MARKS, "finished"].contains(&name)
}

/// The time of the active file's last change is its records', and stays.
fn set_tail_aside(log: &Log) -> Result<()> {
    let path = log.active_path();
    let modified = fs::metadata(&path)?.modified()?;
    let (directory, position) = (log.directory(), log.end().1.0);
    let torn = directory.join(Name::Torn { position }.text());
    if fs::symlink_metadata(&torn).is_ok() {
        // Of an earlier tail at this place, which another would be appended to.
        aside(&torn)?;
    }
    let mut log = Log::open(directory, *log.config())?;
    log.set_tail_aside()?;
    if log.config().framing == Framing::Write {
        // Marks beyond the tail's begin go with it.
        drop(Log::open(directory, *log.config())?);
    }
    let file = fs::OpenOptions::new().write(true).open(log.active_path())?;
    file.set_times(FileTimes::new().set_modified(modified))?;
    Ok(file.sync_all()?)
}

/// What becomes of a damaged segment.
pub(super) struct Mendable {
    /// Files that were, or could be, written anew, and the places in them that this makes good.
    pub places: Vec<(String, u64, Damage)>,
}

impl Mendable {
    fn fate(&mut self, problem: &crate::stream::Problem, mode: super::Mode) -> Fate {
        let good = self
            .places
            .iter()
            .any(|(file, at, damage)| (file, *at, *damage) == (&problem.file, problem.at, problem.damage));
        match (good, mode) {
            (false, _) => Fate::Stays,
            (true, super::Mode::Look) => Fate::Would(Repair::Rewrite),
            (true, super::Mode::Repair) => Fate::Did(Repair::Rewrite),
        }
    }
}
