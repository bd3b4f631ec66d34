//! Operators: a definition and a place each.

use super::top::list;
use super::{Check, Error, Repair, What};
use crate::operator;
use std::fs;
use std::path::Path;

impl Check<'_> {
    /// Checks what is in `.aimss/operators`.
    pub(super) fn operators(&mut self, home: &Path) -> Result<(), Error> {
        for entry in list(home)? {
            let (path, name) = (entry.path(), entry.file_name());
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match name.to_str() {
                Some(name) if super::is_aside(name) => self.note(&path, What::SetAside),
                // Nobody has such a name but while it is made or removed.
                Some(name) if name.starts_with('.') && is_directory => {
                    self.repair(&path, What::OperatorUnderWay, Repair::Remove, || fs::remove_dir_all(&path));
                }
                Some(_) if is_directory => {
                    if let Err(why) = operator::check(&path) {
                        self.set_aside(&path, What::Operator(why));
                    }
                }
                _ => self.note(&path, What::Unknown),
            }
        }
        Ok(())
    }
}
