//! Who owns a backing directory: one mount at a time.
//!
//! The owner holds a lock on `.aimss/lease` in the backing and says there who it is. The lock goes with the process on
//! this node, whatever ends it. On another node the lock may not be seen (not every network file system has them), so
//! a lease that names another node counts as held until somebody says that the node is gone.

use super::private::Private;
use rustix::fs::{FlockOperation, OFlags};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// In the private directory.
const NAME: &str = "lease";
/// Read at most: a host's name and the longest path.
const TEXT_BYTES_MAX: u64 = 64 << 10;

/// The owner as the lease names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Host name.
    pub node: String,
    /// The daemon.
    pub pid: u32,
    /// Where it shows the backing.
    pub mountpoint: PathBuf,
}

/// The lease. Dropped, it says again what it said before, so that nobody forgets what a dead owner left;
/// [`Lease::give_back`] removes it.
#[derive(Debug)]
pub struct Lease {
    directory: Private,
    before: Option<Owner>,
    file: File,
}

/// A lease that is looked at; see [`Lease::look`].
#[derive(Debug)]
pub struct Looked {
    /// The owner who left it without giving it back, if it can be read.
    pub owner: Option<Owner>,
    _file: File,
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// A living mount has it.
    #[error(
        "{backing} is already mounted by aimss at {mountpoint} (process {pid} on {node}); unmount it there first"
    )]
    Held {
        /// The backing.
        backing: String,
        /// Where it is mounted.
        mountpoint: String,
        /// By whom.
        pid: u32,
        /// On which node.
        node: String,
    },
    /// Another node's lease, and no way to ask it.
    #[error(
        "{backing} is owned by node {node} (process {pid}, mounted at {mountpoint}); if that node is gone for good, mount with --take-over"
    )]
    OtherNode {
        /// The backing.
        backing: String,
        /// Where it was mounted.
        mountpoint: String,
        /// By whom.
        pid: u32,
        /// On which node.
        node: String,
    },
    /// An owner on this node died, and what it had in memory must come first.
    #[error(
        "{backing} was last mounted at {mountpoint} by a daemon that died; mount it there again first, which brings back what it had"
    )]
    Died {
        /// The backing.
        backing: String,
        /// Where it was mounted.
        mountpoint: String,
    },
    /// It is of a user whose state directories can't be seen from here: ask as that user.
    #[error(
        "the lease of {backing} is of user {uid}, and whether that has data in memory can't be seen from here; do this \
         as that user"
    )]
    OtherUser {
        /// The backing.
        backing: String,
        /// Who.
        uid: u32,
    },
    /// The backing can't hold it.
    #[error("{backing} can't be written to ({source}); aimss needs a backing that it can write")]
    Io {
        /// The backing.
        backing: String,
        /// Why.
        source: io::Error,
    },
}

impl Lease {
    /// Takes the lease of `backing` for a moment, without a name, to change what lies there while nothing is
    /// mounted. Refused also if an owner died: the backing is not up to date then.
    pub fn take_briefly(backing: &Path, node: &str) -> Result<Lease, LeaseError> {
        let (file, directory, before) = lock(backing)?;
        let Some(Owner { node: there, pid, mountpoint }) = before else {
            return Ok(Lease { directory, before: None, file });
        };
        let (backing, mountpoint) = (backing.display().to_string(), mountpoint.display().to_string());
        Err(if there == node {
            LeaseError::Died { backing, mountpoint }
        } else {
            LeaseError::OtherNode { backing, mountpoint, pid, node: there }
        })
    }

    /// Takes the lease of `backing`, whose `.aimss` is there, to repair what an owner on this node left who died. Whether
    /// that is in memory is another question: [`left_in_memory`](super::left_in_memory).
    pub fn take_to_repair(backing: &Path, node: &str) -> Result<Lease, LeaseError> {
        let (file, directory, before) = lock(backing)?;
        let shown = backing.display().to_string();
        let uid = file.metadata().map_err(|source| LeaseError::Io { backing: shown.clone(), source })?.uid();
        check_node(backing, before.as_ref(), node)?;
        if uid != rustix::process::geteuid().as_raw() {
            return Err(LeaseError::OtherUser { backing: shown, uid });
        }
        Ok(Lease { directory, before, file })
    }

    /// Keeps others from taking the lease of `backing` while the value lives, and changes nothing; also who is named in
    /// it. None if there is no lease.
    pub fn look(backing: &Path, node: &str) -> Result<Option<Looked>, LeaseError> {
        let io = |source| LeaseError::Io { backing: backing.display().to_string(), source };
        let opened = Private::open(backing).and_then(|directory| {
            match directory.file(NAME, OFlags::RDONLY | OFlags::NOATIME) {
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => directory.file(NAME, OFlags::RDONLY),
                opened => opened,
            }
        });
        let mut file = match opened {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io)?,
        };
        let mut text = String::new();
        (&mut file).take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
        let owner: Option<Owner> = serde_json::from_str(&text).ok();
        if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err() {
            return Err(held(backing, owner));
        }
        check_node(backing, owner.as_ref(), node)?;
        Ok(Some(Looked { owner, _file: file }))
    }

    /// Takes the lease of `backing` for `owner`. With `take_over`, also from another node.
    pub fn take(backing: &Path, owner: &Owner, take_over: bool) -> Result<Lease, LeaseError> {
        let (file, directory, before) = lock(backing)?;
        if !take_over {
            check_node(backing, before.as_ref(), &owner.node)?;
        }
        let backing = backing.display().to_string();
        let io = |source| LeaseError::Io { backing: backing.clone(), source };
        let text = serde_json::to_string(owner).map_err(|e| io(e.into()))?;
        write(&file, &text).map_err(io)?;
        Ok(Lease { directory, before, file })
    }

    /// The owner who left it without giving it back.
    pub fn before(&self) -> Option<&Owner> {
        self.before.as_ref()
    }
}

impl Lease {
    /// Nothing is left to be brought to the backing: the lease goes.
    pub fn give_back(mut self) {
        self.before = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(text) = self.before.as_ref().and_then(|before| serde_json::to_string(before).ok()) {
            let _ = write(&self.file, &text);
            return;
        }
        let _ = self.directory.remove(NAME);
        // Stays where something else is kept in it, or a link lies there now.
        let _ = fs::remove_dir(self.directory.path());
    }
}

/// The lease's file, locked, its directory, and who is named in it.
fn lock(backing: &Path) -> Result<(File, Private, Option<Owner>), LeaseError> {
    let io = |source| LeaseError::Io { backing: backing.display().to_string(), source };
    let directory = Private::make(backing).map_err(io)?;
    let mut file = directory.file(NAME, OFlags::CREATE | OFlags::RDWR).map_err(io)?;
    let mut text = String::new();
    (&mut file).take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(io)?;
    let named: Option<Owner> = serde_json::from_str(&text).ok();
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
        return Ok((file, directory, named));
    }
    Err(held(backing, named))
}

fn held(backing: &Path, named: Option<Owner>) -> LeaseError {
    let Owner { node, pid, mountpoint } =
        named.unwrap_or_else(|| Owner { node: "?".into(), pid: 0, mountpoint: "?".into() });
    let (backing, mountpoint) = (backing.display().to_string(), mountpoint.display().to_string());
    LeaseError::Held { backing, mountpoint, pid, node }
}

/// Refuses a lease that names another node.
fn check_node(backing: &Path, named: Option<&Owner>, node: &str) -> Result<(), LeaseError> {
    let Some(Owner { node: there, pid, mountpoint }) = named.filter(|owner| owner.node != node) else {
        return Ok(());
    };
    let (backing, mountpoint) = (backing.display().to_string(), mountpoint.display().to_string());
    Err(LeaseError::OtherNode { backing, mountpoint, pid: *pid, node: there.clone() })
}

/// The file says `text` and nothing else.
fn write(mut file: &File, text: &str) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(node: &str) -> Owner {
        Owner { node: node.into(), pid: 1, mountpoint: "/m".into() }
    }

    #[test]
    fn a_held_lease_is_refused_with_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let lease = Lease::take(dir.path(), &owner("here"), false).expect("free");
        let refused = Lease::take(dir.path(), &owner("here"), true).expect_err("held");
        assert!(refused.to_string().contains("process 1 on here"), "{refused}");
        drop(lease);
        assert!(!dir.path().join(".aimss").exists());
    }

    #[test]
    fn a_moments_lease_leaves_nothing_and_waits_for_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(Lease::take_briefly(dir.path(), "here").expect("free"));
        assert!(!dir.path().join(".aimss").exists());
        let lease = Lease::take(dir.path(), &owner("here"), false).expect("free");
        assert!(matches!(Lease::take_briefly(dir.path(), "here"), Err(LeaseError::Held { pid: 1, .. })));
        drop(lease);
        for (node, died) in [("here", true), ("far", false)] {
            fs::create_dir(dir.path().join(".aimss")).expect("mkdir");
            let text = serde_json::to_string(&owner(node)).expect("json");
            fs::write(dir.path().join(".aimss/lease"), &text).expect("write");
            let refused = Lease::take_briefly(dir.path(), "here").expect_err("named");
            assert_eq!(matches!(refused, LeaseError::Died { .. }), died, "{refused}");
            assert_eq!(fs::read_to_string(dir.path().join(".aimss/lease")).expect("kept"), text);
            fs::remove_dir_all(dir.path().join(".aimss")).expect("ours");
        }
    }

    #[test]
    fn who_looks_changes_nothing_and_keeps_mounts_away() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(Lease::look(dir.path(), "here").expect("free").is_none());
        let lease = Lease::take(dir.path(), &owner("here"), false).expect("free");
        assert!(matches!(Lease::look(dir.path(), "here"), Err(LeaseError::Held { pid: 1, .. })));
        let path = dir.path().join(".aimss/lease");
        let text = fs::read(&path).expect("there");
        drop(lease);
        fs::create_dir(dir.path().join(".aimss")).expect("mkdir");
        fs::write(&path, &text).expect("left by a dead one");
        let looked = Lease::look(dir.path(), "here").expect("nobody has it").expect("there");
        assert_eq!(looked.owner, Some(owner("here")));
        assert!(Lease::look(dir.path(), "here").is_ok(), "two may look");
        assert!(matches!(Lease::take_to_repair(dir.path(), "here"), Err(LeaseError::Held { .. })));
        assert!(matches!(Lease::look(dir.path(), "far"), Err(LeaseError::OtherNode { .. })));
        drop(looked);
        assert_eq!(fs::read(&path).expect("there"), text);
        assert!(matches!(Lease::take_to_repair(dir.path(), "far"), Err(LeaseError::OtherNode { .. })));
        assert_eq!(fs::read(&path).expect("a refusal leaves it"), text);
        Lease::take_to_repair(dir.path(), "here").expect("its owner is dead").give_back();
        assert!(!dir.path().join(".aimss").exists());
    }

    #[test]
    fn a_pipe_in_place_of_the_lease_holds_nobody_up() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(".aimss")).expect("mkdir");
        let path = dir.path().join(".aimss/lease");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a pipe");
        for refused in [
            Lease::look(dir.path(), "here").map(drop),
            Lease::take_to_repair(dir.path(), "here").map(drop),
            Lease::take(dir.path(), &owner("here"), true).map(drop),
        ] {
            let refused = refused.expect_err("no lease").to_string();
            assert!(refused.contains("no file of its own"), "{refused}");
        }
    }

    #[test]
    fn another_nodes_lease_needs_a_word() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(".aimss")).expect("mkdir");
        let text = serde_json::to_string(&owner("far")).expect("json");
        fs::write(dir.path().join(".aimss/lease"), text).expect("write");
        let refused = Lease::take(dir.path(), &owner("here"), false).expect_err("another node's");
        assert!(refused.to_string().contains("--take-over"), "{refused}");
        Lease::take(dir.path(), &owner("here"), true).expect("taken over");
    }
}
