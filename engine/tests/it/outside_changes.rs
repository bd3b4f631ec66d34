//! Changes made on the backing without the engine: seen at the next open, and never overwritten unseen.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};
use aimss_engine::engine::{New, Reason, Want};
use aimss_engine::{Engine, Error, Ino, Kind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than what the backing said is taken for granted.
const STALE: Duration = Duration::from_millis(1100);

fn content(engine: &Arc<Engine>, name: &str) -> Vec<u8> {
    let found = engine.lookup(Ino::ROOT, name.as_bytes()).expect("a file");
    engine
        .open(
            found.ino,
            Want { write: false, truncate: false, passthrough: Err(Reason::Excluded), process: 0 },
        )
        .expect("open");
    let size = engine.attr(found.ino).expect("attributes").size;
    let content = compare::read_all(engine, found.ino, size);
    if let Some(ended) = engine.release(found.ino, false).last {
        engine.closed(found.ino, ended);
    }
    content
}

#[test]
fn a_file_changed_outside_is_seen_at_the_next_open() {
    let ground = Ground::new();
    let engine = ground.engine(ground.local(), Setup::default());
    let path = ground.backing().join("file");
    std::fs::write(&path, b"first").expect("write");
    assert_eq!(content(&engine, "file"), b"first");
    std::thread::sleep(STALE);
    std::fs::write(&path, b"second, and longer").expect("write");
    assert_eq!(content(&engine, "file"), b"second, and longer");
}

#[test]
fn a_file_that_was_written_here_and_then_changed_outside_is_seen() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 1);
    world.engine.start();
    world.file(ROOT, "file", b"ours");
    world.drain();
    std::fs::write(ground.backing().join("file"), b"theirs, written later").expect("write");
    std::thread::sleep(STALE);
    assert_eq!(content(&world.engine, "file"), b"theirs, written later");
}

#[test]
fn a_file_made_and_one_removed_outside_show() {
    let ground = Ground::new();
    let engine = ground.engine(ground.local(), Setup::default());
    std::fs::write(ground.backing().join("gone"), b"x").expect("write");
    assert_eq!(content(&engine, "gone"), b"x");
    assert!(matches!(engine.lookup(Ino::ROOT, b"new"), Err(Error::NotFound)));
    std::fs::remove_file(ground.backing().join("gone")).expect("remove");
    std::fs::write(ground.backing().join("new"), b"new").expect("write");
    std::thread::sleep(STALE);
    assert!(matches!(engine.lookup(Ino::ROOT, b"gone"), Err(Error::NotFound)));
    assert_eq!(content(&engine, "new"), b"new");
    let mut names = Vec::new();
    engine.load_directory(Ino::ROOT).expect("a listing");
    engine
        .read_directory(Ino::ROOT, 0, |entry| {
            names.push(entry.name.to_vec());
            true
        })
        .expect("a listing");
    assert_eq!(names, vec![b"new".to_vec()]);
}

#[test]
fn dirty_here_and_changed_outside_keeps_both() {
    for truncate in [false, true] {
        let ground = Ground::new();
        let watched = Watched::new(ground.local(), Fault::None);
        let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 1);
        world.engine.start();
        let file = world.file(ROOT, "file", b"first");
        world.drain();
        let handle = world.open(file, true, truncate, false);
        world.write(handle, 0, b"ours");
        world.close(handle);
        std::fs::write(ground.backing().join("file"), b"theirs, of another length").expect("write");
        world.engine.drain_all(|_| {}).expect("a drain");
        let ours: &[u8] = if truncate { b"ours" } else { b"ourst" };
        assert_eq!(std::fs::read(ground.backing().join("file")).expect("read"), ours);
        let theirs =
            std::fs::read(ground.backing().join("file.aimss-conflict-here")).expect("the other version");
        assert_eq!(theirs, b"theirs, of another length");
        assert_eq!(world.engine.status().conflicts, 1, "status tells");
    }
}

/// Each change of another name may overtake a look at the backing, and thousands do.
#[test]
fn names_are_found_while_others_of_their_directory_come_and_go() {
    const NAMES: usize = 3000;
    let ground = Ground::new();
    for i in 0..NAMES {
        std::fs::write(ground.backing().join(format!("file{i}")), b"x").expect("write");
    }
    let engine = ground.engine(ground.local(), Setup { drain_delay: NEVER, ..Setup::default() });
    let done = AtomicBool::new(false);
    let missed: Vec<_> = std::thread::scope(|scope| {
        for thread in 0..2 {
            let (engine, done) = (&engine, &done);
            scope.spawn(move || {
                let name = format!("passing{thread}");
                let (kind, xattrs) = (Kind::File, Vec::new());
                let file = New { kind, mode: 0o644, uid: 0, gid: 0, rdev: 0, target: None, xattrs };
                while !done.load(Ordering::Relaxed) {
                    let made = engine.make(Ino::ROOT, name.as_bytes(), &file).expect("made");
                    engine.unlink(Ino::ROOT, name.as_bytes()).expect("removed");
                    engine.forget(made.ino, 1);
                }
            });
        }
        let find =
            |i| engine.resolve(Ino::ROOT, format!("file{i}").as_bytes()).err().map(|e| (i, e.to_string()));
        let missed = (0..NAMES).filter_map(find).collect();
        done.store(true, Ordering::Relaxed);
        missed
    });
    assert!(missed.is_empty(), "{} of {NAMES} were not found, the first: {:?}", missed.len(), missed.first());
}
