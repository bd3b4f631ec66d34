//! Whether a path can be mounted at: an empty directory where nothing is mounted, also nothing dead.

use crate::{control, escape, mountinfo};
use anyhow::{Result, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// `mountpoint` absolute and without symbolic links, or a sentence that says what is wrong with it.
pub fn check(mountpoint: &Path) -> Result<PathBuf> {
    let shown = escape::path(mountpoint);
    // The kernel may remember the attributes of a dead daemon's mount, but asks for this anew.
    let answers = rustix::fs::statfs(mountpoint).map_err(std::io::Error::from);
    let metadata = match answers.and_then(|_| fs::metadata(mountpoint)) {
        Ok(metadata) => metadata,
        Err(error) if control::is_dead(&error) => bail!(
            "a dead daemon's mount is still at {shown}; clear it with `aimss umount --lazy {shown}`, then mount again"
        ),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("the mount point {shown} doesn't exist; make it with `mkdir -p {shown}`")
        }
        Err(error) => {
            bail!(
                "the mount point {shown} can't be reached ({}); check its path",
                crate::commands::why(&error)
            )
        }
    };
    if !metadata.is_dir() {
        bail!("the mount point {shown} is not a directory; give an empty directory");
    }
    let resolved = control::resolve(mountpoint)?;
    if let Some(known) = control::known_at(&resolved).filter(|known| known.alive) {
        bail!(
            "{shown} is busy: aimss has mounted {} there (process {}); use that, or `aimss umount {shown}` first",
            escape::path(&known.backing),
            known.pid
        );
    }
    if let Some(mount) = mountinfo::at(&resolved) {
        bail!(
            "{shown} is busy: a file system of type {} is mounted there; give another directory",
            mount.kind
        );
    }
    match fs::read_dir(&resolved).map(|mut entries| entries.next()) {
        Ok(None) => Ok(resolved),
        Ok(Some(_)) => bail!(
            "the mount point {shown} isn't empty, and what is in it would be hidden; give an empty directory"
        ),
        Err(error) => {
            bail!(
                "the mount point {shown} can't be read ({}); give another directory",
                crate::commands::why(&error)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        check(path).expect_err("it is refused").to_string()
    }

    #[test]
    fn an_empty_directory_is_taken_and_resolved() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let real = fs::canonicalize(dir.path()).expect("it is there");
        fs::create_dir(real.join("m")).expect("it is ours");
        std::os::unix::fs::symlink("m", real.join("l")).expect("it is ours");
        assert_eq!(check(&real.join("l")).expect("it is empty"), real.join("m"));
    }

    #[test]
    fn what_is_missing_full_or_no_directory_is_refused_by_name() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("f");
        fs::write(&file, "").expect("it is ours");
        assert!(refusal(&dir.path().join("no")).contains("doesn't exist; make it with `mkdir -p"));
        assert!(refusal(&file).contains("is not a directory"));
        assert!(refusal(dir.path()).contains("isn't empty"));
    }

    #[test]
    fn where_something_is_mounted_is_busy() {
        assert!(refusal(Path::new("/proc")).contains("is busy: a file system of type proc"));
    }
}
