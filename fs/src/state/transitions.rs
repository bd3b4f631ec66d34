//! Which file is opened behind which, kept on the backing from one mount to the next: `.aimss/transitions`.
//!
//! A guess that is lost or damaged costs nothing but a guess: whatever can't be read is left out.

use aimss_engine::Transition;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const VERSION: u32 = 1;
/// Read at most: a table full of long names.
const BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    transitions: Vec<Transition>,
}

fn path(backing: &Path) -> PathBuf {
    backing.join(".aimss/transitions")
}

/// What the last mount of a backing knew.
pub fn load(backing: &Path) -> Vec<Transition> {
    let path = path(backing);
    match fs::metadata(&path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= BYTES_MAX => {}
        _ => return Vec::new(),
    }
    let kept = fs::read(&path).map(|bytes| serde_json::from_slice::<Kept>(&bytes));
    match kept {
        Ok(Ok(kept)) if kept.version == VERSION => kept.transitions,
        _ => {
            log::warn!(
                "{} can't be read: what was learned of files opened behind others is lost",
                path.display()
            );
            Vec::new()
        }
    }
}

/// Keeps it for the next mount; nothing is kept of nothing.
pub fn save(backing: &Path, transitions: Vec<Transition>) -> io::Result<()> {
    let path = path(backing);
    if transitions.is_empty() {
        return match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(&Kept { version: VERSION, transitions })?)?;
    file.sync_all()?;
    fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_damage_costs_only_it() {
        let backing = tempfile::tempdir().expect("a directory");
        fs::create_dir(backing.path().join(".aimss")).expect("made");
        assert!(load(backing.path()).is_empty());
        let known = vec![Transition { from: "a/b".into(), to: "c".into(), count: 3 }];
        save(backing.path(), known.clone()).expect("saved");
        assert_eq!(load(backing.path()), known);
        fs::write(path(backing.path()), b"{\"version\":1,").expect("written");
        assert!(load(backing.path()).is_empty());
        save(backing.path(), Vec::new()).expect("removed");
        assert!(!path(backing.path()).exists());
    }
}
