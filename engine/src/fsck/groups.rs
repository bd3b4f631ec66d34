//! Where groups go on.
//!
//! A group whose file can't be read, or that is ahead of its log, begins again at the first record that is kept: so no
//! record is passed over, whatever has been appended since the log lost its end. Its old file is set aside.

use super::{Check, Repair, What, keep_aside};
use crate::stream::group::{Counts, Group};
use crate::stream::log::Listing;
use crate::stream::{Log, Result};
use std::io;

impl Check<'_> {
    /// Checks the groups of `log`; whether they are ahead of it, only if its end is known.
    pub(super) fn groups(&mut self, log: &Log, end_known: bool) -> Result<()> {
        let (first, end) = (log.first().0.0, log.end().0.0);
        for name in Listing::of(log.directory())?.groups() {
            let (what, counts) = match Group::read(log.directory(), name) {
                Ok(group) if group.committed() > end && end_known => {
                    (What::GroupBeyond(group.committed()), group.counts())
                }
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => (What::Group, Counts::default()),
                Err(e) => return Err(e.into()),
            };
            let path = Group::path(log.directory(), name);
            self.repair(&path, what, Repair::Group(first), || {
                keep_aside(&path)?;
                Group::write_new(log.directory(), name, first, counts)
            });
        }
        Ok(())
    }
}
