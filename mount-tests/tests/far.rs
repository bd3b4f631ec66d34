//! Storage on another machine, where each call is a trip: who waits for one holds up nobody else.

use aimss_mount_tests::{Mode, Mount, Setup};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{XattrFlags, getxattr, listxattr, setxattr};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// More than the daemon has threads that read requests.
const AT_ONCE: usize = 4;
/// What somebody else gets done meanwhile, at least: thousands where nothing is in his way, one or two where he waits.
const OTHERS_MIN: usize = 20;
const TRIP: Duration = Duration::from_millis(400);

fn far(latency: &'static str, fill: impl Fn(&Path) -> Result<()>) -> Option<Mount> {
    Mount::start_over(&Setup { slow: Some(latency), ..Setup::new(Mode::Passthrough) }, fill)
}

fn fill(backing: &Path) -> Result<()> {
    for number in 0..AT_ONCE {
        let dir = backing.join(format!("d{number}"));
        fs::create_dir(&dir)?;
        for name in ["unlinked", "renamed", "marked", "moded", "listed"] {
            fs::write(dir.join(name), name)?;
            setxattr(dir.join(name), "user.of", name.as_bytes(), XattrFlags::empty())?;
        }
        symlink(format!("target-{number}"), dir.join("link"))?;
    }
    Ok(())
}

#[test]
fn who_waits_for_storage_holds_up_nobody_else() {
    let Some(mount) = far("latency=400ms", fill) else { return };
    let hot = mount.at("hot");
    File::create(&hot).and_then(|_| fs::write(&hot, "hot")).expect("a file in memory");
    // Names are known, and nothing else.
    let dirs: Vec<_> = (0..AT_ONCE).map(|number| mount.at(format!("d{number}"))).collect();
    std::thread::scope(|scope| {
        for dir in &dirs {
            scope.spawn(|| {
                let names = ["unlinked", "renamed", "marked", "moded", "listed", "link"];
                for name in names {
                    fs::symlink_metadata(dir.join(name)).expect("it is there");
                }
            });
        }
    });
    type Act = fn(&Path) -> Result<()>;
    let acts: [(&str, Act); 7] = [
        ("getxattr", |dir| {
            let mut value = [0; 16];
            let length = getxattr(dir.join("marked"), "user.of", &mut value)?;
            ensure!(value[..length] == *b"marked");
            Ok(())
        }),
        ("listxattr", |dir| {
            let mut list = [0; 64];
            let length = listxattr(dir.join("listed"), &mut list)?;
            ensure!(list[..length] == *b"user.of\0");
            Ok(())
        }),
        ("readlink", |dir| {
            let target = fs::read_link(dir.join("link"))?;
            ensure!(target.to_string_lossy().starts_with("target-"));
            Ok(())
        }),
        ("mkdir", |dir| Ok(fs::create_dir(dir.join("made"))?)),
        ("rename", |dir| Ok(fs::rename(dir.join("renamed"), dir.join("made/moved"))?)),
        ("unlink", |dir| Ok(fs::remove_file(dir.join("unlinked"))?)),
        ("chmod", |dir| Ok(fs::set_permissions(dir.join("moded"), PermissionsExt::from_mode(0o600))?)),
    ];
    for (name, act) in acts {
        held_up(&hot, &dirs, act).with_context(|| name).unwrap_or_else(|e| panic!("{e:?}"));
    }
    held_up(&hot, &dirs, |dir| rustix::fs::statvfs(dir).map(drop).context("statvfs"))
        .unwrap_or_else(|e| panic!("statfs: {e:?}"));
    mount.finish();
}

/// Does `act` in all directories at once, and sees what another can do meanwhile.
fn held_up(hot: &Path, dirs: &[std::path::PathBuf], act: impl Fn(&Path) -> Result<()> + Sync) -> Result<()> {
    let (left, mut others) = (AtomicUsize::new(dirs.len()), 0);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let acting: Vec<_> = (dirs.iter())
            .map(|dir| {
                scope.spawn(|| {
                    let done = act(dir);
                    left.fetch_sub(1, Ordering::SeqCst);
                    done
                })
            })
            .collect();
        while left.load(Ordering::SeqCst) > 0 {
            let read = fs::read(hot)?;
            ensure!(read == b"hot");
            others += usize::from(left.load(Ordering::SeqCst) > 0);
            std::thread::sleep(Duration::from_millis(1));
        }
        acting.into_iter().try_for_each(|act| act.join().expect("no panic"))
    })?;
    // What took no trip, because others had brought what it needs, leaves no time.
    let waited = begun.elapsed() > TRIP;
    ensure!(!waited || others >= OTHERS_MIN, "others did {others} things meanwhile");
    Ok(())
}

#[test]
fn a_listing_with_attributes_shows_what_is_there() {
    let files: BTreeSet<String> = (0..300).map(|number| format!("file-{number}")).collect();
    let fill = |backing: &Path| -> Result<()> {
        for name in &files {
            fs::write(backing.join(name), name)?;
            setxattr(backing.join(name), "user.of", name.as_bytes(), XattrFlags::empty())?;
        }
        Ok(())
    };
    let Some(mount) = far("latency=2ms", fill) else { return };
    let shown: BTreeSet<String> = fs::read_dir(mount.point())
        .expect("a listing")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a name of ours");
            assert_eq!(entry.metadata().expect("attributes").len(), name.len() as u64);
            let mut value = [0; 32];
            let length = getxattr(entry.path(), "user.of", &mut value).expect("an extended attribute");
            assert_eq!(&value[..length], name.as_bytes());
            name
        })
        .collect();
    assert_eq!(shown, files);
    mount.finish();
}
