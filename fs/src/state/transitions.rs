//! Which file is opened behind which, kept on the backing from one mount to the next: `.aimss/transitions`.
//!
//! A guess that is lost or damaged costs nothing but a guess: whatever can't be read is left out.

use super::private::Private;
use aimss_engine::Transition;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::path::Path;

/// In the private directory.
const NAME: &str = "transitions";
const BESIDE: &str = "transitions.new";
const VERSION: u32 = 1;
/// Read at most: a table full of long names.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    transitions: Vec<Transition>,
}

/// What the last mount of a backing knew.
pub fn load(backing: &Path) -> Vec<Transition> {
    match read(backing) {
        Ok(Some(Kept { version: VERSION, transitions })) => transitions,
        Ok(None) => Vec::new(),
        _ => {
            log::warn!(
                "{}/.aimss/{NAME} can't be read: what was learned of files opened behind others is lost",
                backing.display()
            );
            Vec::new()
        }
    }
}

fn read(backing: &Path) -> io::Result<Option<Kept>> {
    let file = Private::open(backing).and_then(|private| private.file(NAME, OFlags::RDONLY));
    let file = match file {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    if file.metadata()?.len() > BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Keeps it for the next mount; nothing is kept of nothing.
pub fn save(backing: &Path, transitions: Vec<Transition>) -> io::Result<()> {
    let private = Private::open(backing)?;
    if transitions.is_empty() {
        return match private.remove(NAME) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    // Of a daemon that died meanwhile.
    let _ = private.remove(BESIDE);
    let mut file = private.file(BESIDE, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
    file.write_all(&serde_json::to_vec(&Kept { version: VERSION, transitions })?)?;
    file.sync_all()?;
    private.rename(BESIDE, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::DirBuilderExt;

    #[test]
    fn what_is_saved_is_loaded_and_damage_costs_only_it() {
        let backing = tempfile::tempdir().expect("a directory");
        let private = backing.path().join(".aimss");
        fs::DirBuilder::new().mode(0o700).create(&private).expect("made");
        assert!(load(backing.path()).is_empty());
        let known = vec![Transition { from: "a/b".into(), to: "c".into(), count: 3 }];
        save(backing.path(), known.clone()).expect("saved");
        assert_eq!(load(backing.path()), known);
        fs::write(private.join(NAME), b"{\"version\":1,").expect("written");
        assert!(load(backing.path()).is_empty());
        save(backing.path(), Vec::new()).expect("removed");
        assert!(!private.join(NAME).exists());
    }
}
