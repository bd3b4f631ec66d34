//! Storage on another machine, where each call is a trip: who waits for one holds up nobody else.

use aimss_mount_tests::{Mode, Mount, Setup};
use anyhow::{Context as _, Result, ensure};
use rustix::fs::{AtFlags, OFlags, StatxFlags, XattrFlags, getxattr, listxattr, setxattr};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// More than the daemon has threads that read requests.
const AT_ONCE: usize = 4;
const TRIP: Duration = Duration::from_millis(400);
/// More than what the backing said counts.
const TAKEN_FOR_GRANTED: Duration = Duration::from_millis(1200);

fn far(latency: &'static str, fill: impl Fn(&Path) -> Result<()>) -> Option<Mount> {
    Mount::start_over(&Setup { slow: Some(latency), ..Setup::new(Mode::Passthrough) }, fill)
}

/// What is done to a directory of its own, which holds what [`fill`] puts there.
type Act = fn(&Path) -> Result<()>;

/// Each needs something of storage that its lookups have not brought.
const ACTS: [(&str, Act); 7] = [
    ("getxattr", |dir| {
        let mut value = [0; 16];
        let length = getxattr(dir.join("file"), "user.of", &mut value)?;
        ensure!(value[..length] == *b"file");
        Ok(())
    }),
    ("listxattr", |dir| {
        let mut list = [0; 64];
        let length = listxattr(dir.join("file"), &mut list)?;
        ensure!(list[..length] == *b"user.of\0");
        Ok(())
    }),
    ("readlink", |dir| {
        let target = fs::read_link(dir.join("link"))?;
        ensure!(target.to_string_lossy() == "target");
        Ok(())
    }),
    ("chmod", |dir| Ok(fs::set_permissions(dir.join("file"), PermissionsExt::from_mode(0o600))?)),
    ("mkdir", |dir| Ok(fs::create_dir(dir.join("made"))?)),
    ("rmdir", |dir| Ok(fs::remove_dir(dir.join("empty"))?)),
    ("rename", |dir| Ok(fs::rename(dir.join("moved"), dir.join("empty"))?)),
];

fn fill(backing: &Path) -> Result<()> {
    for (name, _) in ACTS {
        for number in 0..AT_ONCE {
            let dir = backing.join(format!("{name}-{number}"));
            for below in ["empty", "moved"] {
                fs::create_dir_all(dir.join(below))?;
            }
            fs::write(dir.join("file"), "file")?;
            setxattr(dir.join("file"), "user.of", b"file", XattrFlags::empty())?;
            symlink("target", dir.join("link"))?;
        }
    }
    Ok(())
}

#[test]
fn who_waits_for_storage_holds_up_nobody_else() {
    let Some(mount) = far("latency=400ms", fill) else { return };
    let hot = mount.at("hot");
    fs::write(&hot, "hot").expect("a file in memory");
    let dirs =
        |name: &str| (0..AT_ONCE).map(|number| mount.at(format!("{name}-{number}"))).collect::<Vec<_>>();
    // Names are known, and nothing else.
    std::thread::scope(|scope| {
        for dir in ACTS.iter().flat_map(|(name, _)| dirs(name)) {
            scope.spawn(move || {
                for name in ["empty", "moved", "file", "link"] {
                    fs::symlink_metadata(dir.join(name)).expect("it is there");
                }
            });
        }
    });
    let statfs: Act = |dir| rustix::fs::statvfs(dir).map(drop).context("statvfs");
    let failed: Vec<String> = (ACTS.iter().map(|(name, act)| (*name, *act, dirs(name))))
        .chain([("statfs", statfs, dirs("mkdir"))])
        .filter_map(|(name, act, dirs)| Some(format!("{name}: {:#}", held_up(&hot, &dirs, act).err()?)))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // Not `finish`, which reads the whole tree, a trip a file.
    mount.umount().expect("the backing takes everything");
    let backing = |of: &str| mount.backing().join(format!("{of}-0"));
    assert_eq!(fs::metadata(backing("chmod").join("file")).expect("it is there").mode() & 0o777, 0o600);
    assert!(backing("mkdir").join("made").is_dir());
    assert!(!backing("rmdir").join("empty").exists());
    assert!(!backing("rename").join("moved").exists() && backing("rename").join("empty").is_dir());
}

#[test]
fn who_asks_for_old_attributes_holds_up_nobody_else() {
    let setup = Setup {
        slow: Some("latency=400ms"),
        revalidate: "1s",
        // What is read meanwhile is nothing to compare with.
        drain_delay: "1h",
        ..Setup::new(Mode::Passthrough)
    };
    let Some(mount) = Mount::start_over(&setup, fill) else { return };
    let hot = mount.at("hot");
    fs::write(&hot, "hot").expect("a file in memory");
    // No lookup of a name comes first, as in `ls` of a directory that a shell is in.
    let held: BTreeMap<PathBuf, OwnedFd> = (0..AT_ONCE)
        .map(|number| mount.at(format!("mkdir-{number}")))
        .map(|dir| {
            let held = rustix::fs::open(&dir, OFlags::PATH, rustix::fs::Mode::empty()).expect("it is there");
            (dir, held)
        })
        .collect();
    std::thread::sleep(TAKEN_FOR_GRANTED);
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_FORCE_SYNC;
    let fstat = |dir: &Path| {
        rustix::fs::statx(&held[dir], "", flags, StatxFlags::BASIC_STATS).map(drop).context("statx")
    };
    let dirs: Vec<PathBuf> = held.keys().cloned().collect();
    held_up(&hot, &dirs, fstat).expect("nobody waits for another");
    drop(held);
    mount.umount().expect("the backing takes everything");
}

/// Does `act` in all directories at once, and sees how long the longest read of a file in memory takes meanwhile: as long as
/// a trip, about, where the threads that read requests wait for storage.
fn held_up(hot: &Path, dirs: &[PathBuf], act: impl Fn(&Path) -> Result<()> + Sync) -> Result<()> {
    let act = &act;
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    std::thread::scope(|scope| {
        let acting: Vec<_> = dirs.iter().map(|dir| scope.spawn(move || act(dir))).collect();
        while acting.iter().any(|act| !act.is_finished()) {
            let start = Instant::now();
            ensure!(fs::read(hot)? == b"hot");
            longest = longest.max(start.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
        acting.into_iter().try_for_each(|act| act.join().expect("no panic"))
    })?;
    ensure!(begun.elapsed() >= TRIP, "it took no trip, so that it shows nothing");
    ensure!(longest < TRIP / 2, "another waited {longest:?} for a file in memory");
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
