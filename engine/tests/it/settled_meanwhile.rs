//! What is done to a file while the drain is at work on it stays done.

use crate::support::compare;
use crate::support::copies::until;
use crate::support::ground::{Ground, Setup};
use crate::support::model::{Id, ROOT};
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use aimss_engine::engine::{Reason, SetAttr, Want};
use aimss_engine::{Ino, Kind, Timestamp};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);
const EXCLUDED: Want = Want { write: true, truncate: false, passthrough: Err(Reason::Excluded), process: 7 };

fn at(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanoseconds: 5 }
}

/// A closed file that was written on the backing, where it has its name, and is not synced since; its times were set.
fn written_in_place(ground: &Ground, watched: &Arc<Watched>) -> (World, Id) {
    let mut world = World::new(ground, watched, Setup::default(), 5);
    let file = world.make(ROOT, "file", Kind::File, 0o640).expect("a free name");
    // Nothing tells how large it will be.
    let handle = world.open(file, true, false, true);
    world.write(handle, 0, &[1; 70_000]);
    assert!(world.sync(file, ground, watched));
    world.write(handle, 0, &[2; 70_000]);
    world.close(handle);
    world.set_attr(file, None, None, Some(at(1_000_000)));
    (world, file)
}

/// Does something while a sync of a file stalls.
fn while_syncing(
    world: &mut World,
    watched: &Watched,
    file: Id,
    fault: Fault,
    meanwhile: impl FnOnce(&mut World),
) {
    let (engine, ino) = (world.engine.clone(), world.ino(file));
    watched.set_fault(fault);
    let sync = std::thread::spawn(move || engine.sync(ino));
    until("it stalls", PATIENCE, || watched.stalled() > 0);
    meanwhile(world);
    watched.set_fault(Fault::None);
    sync.join().expect("no panic").expect("it is synced");
}

fn expect_all(world: &mut World, ground: &Ground) {
    world.engine.start();
    world.drain();
    compare::backing(world, ground);
    compare::namespace(world);
}

/// The sync's calls: owner and mode, times, fsync.
fn at_its_fsync(watched: &Watched) -> Fault {
    Fault::StallCalls(watched.calls() + 2)
}

#[test]
fn times_that_are_set_stay() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    for passed in 0..3 {
        let (mut world, file) = written_in_place(&ground, &watched);
        let fault = Fault::StallCalls(watched.calls() + passed);
        while_syncing(&mut world, &watched, file, fault, |world| {
            world.set_attr(file, None, None, Some(at(2_000_000)));
        });
        expect_all(&mut world, &ground);
        world.remove(ROOT, "file", false);
        world.drain();
    }
}

#[test]
fn times_stay_that_are_set_while_it_is_read_in_passthrough() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file) = written_in_place(&ground, &watched);
    let reader = world.open(file, false, false, true);
    let fault = Fault::StallCalls(watched.calls() + 1);
    while_syncing(&mut world, &watched, file, fault, |world| {
        world.set_attr(file, None, None, Some(at(2_000_000)));
        compare::namespace(world);
    });
    compare::namespace(&mut world);
    world.close(reader);
    expect_all(&mut world, &ground);
}

#[test]
fn a_file_that_is_emptied_stays_empty() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file) = written_in_place(&ground, &watched);
    let fault = at_its_fsync(&watched);
    while_syncing(&mut world, &watched, file, fault, |world| world.truncate(file, 0));
    compare::namespace(&mut world);
    expect_all(&mut world, &ground);
}

#[test]
fn what_is_written_anew_as_a_sync_begins_reaches_the_backing() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file) = written_in_place(&ground, &watched);
    // The sync looked where the content is, and opens the backing's file.
    let fault = Fault::StallRead(watched.reads());
    while_syncing(&mut world, &watched, file, fault, |world| world.rewrite(file, b"new", false));
    expect_all(&mut world, &ground);
}

#[test]
fn a_name_that_goes_makes_no_conflict() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup::default(), 5);
    let file = world.make(ROOT, "file", Kind::File, 0o640).expect("a free name");
    let handle = world.open(file, true, false, false);
    world.write(handle, 0, &[1; 7000]);
    world.close(handle);
    world.link(file, ROOT, "other");
    assert!(world.sync(file, &ground, &watched));
    let write = |world: &mut World, data| {
        let handle = world.open(file, true, false, false);
        world.write(handle, 10, data);
        world.close(handle);
    };
    write(&mut world, &[2; 10]);
    // Looks at the file before it is written, twice, and at its attributes; then the one that tells what is there now.
    let fault = Fault::StallRead(watched.reads() + 3);
    let mut removal = None;
    while_syncing(&mut world, &watched, file, fault, |world| {
        world.remove(ROOT, "file", false);
        let engine = world.engine.clone();
        let applied = std::thread::spawn(move || engine.sync(Ino::ROOT));
        // It may have to wait.
        for _ in 0..50 {
            std::thread::sleep(Duration::from_millis(if applied.is_finished() { 0 } else { 5 }));
        }
        removal = Some(applied);
    });
    removal.expect("it was begun").join().expect("no panic").expect("it is synced");
    write(&mut world, &[3; 20]);
    expect_all(&mut world, &ground);
}

#[test]
fn times_that_were_set_before_the_close_stay() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup::default(), 5);
    let file = world.make(ROOT, "file", Kind::File, 0o640).expect("a free name");
    let (engine, ino) = (world.engine.clone(), world.ino(file));
    drop(engine.open(ino, EXCLUDED).expect("it opens"));
    engine.write(ino, 0, &[1; 7000], false).expect("a write");
    let times = SetAttr { mtime: Some(at(1_000_000)), ..SetAttr::default() };
    engine.set_attr(ino, &times).expect("its times are set");
    let ended = engine.release(ino, true).last.expect("the last handle");
    engine.sync(ino).expect("a sync");
    engine.closed(ino, ended);
    assert_eq!(engine.attr(ino).expect("attributes").mtime, at(1_000_000));
    engine.sync(ino).expect("a sync");
    let there = std::fs::metadata(ground.backing().join("file")).expect("it is there");
    assert_eq!(there.mtime(), 1_000_000);
}

#[test]
fn what_was_seen_before_the_drain_is_not_taken_for_news() {
    let ground = Ground::new();
    std::fs::write(ground.backing().join("file"), [1; 1000]).expect("write");
    let watched = Watched::new(ground.local(), Fault::None);
    let revalidate = Duration::from_secs(1);
    let engine = ground.engine(watched.clone(), Setup { revalidate, ..Setup::default() });
    let ino = engine.lookup(Ino::ROOT, b"file").expect("it is there").ino;
    std::thread::sleep(revalidate);
    watched.set_fault(Fault::StallAfterRead(watched.reads()));
    let looks = std::thread::spawn({
        let engine = engine.clone();
        move || engine.attr(ino)
    });
    until("it looks", PATIENCE, || watched.stalled() > 0);
    drop(engine.open(ino, EXCLUDED).expect("it opens"));
    engine.write(ino, 1000, &[2; 500], false).expect("a write");
    let ended = engine.release(ino, true).last.expect("the last handle");
    engine.closed(ino, ended);
    engine.sync(ino).expect("a sync");
    watched.set_fault(Fault::None);
    looks.join().expect("no panic").expect("attributes");
    assert_eq!(engine.attr(ino).expect("attributes").size, 1500);
}

#[test]
fn what_is_removed_while_the_drain_is_at_work_on_it_leaves_memory() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup::default(), 5);
    let file = world.file(ROOT, "file", &[1; 7000]);
    assert!(world.sync(file, &ground, &watched));
    world.rewrite(file, &[2; 7000], false);
    while_syncing(&mut world, &watched, file, Fault::StallAfterCopy, |world| {
        world.remove(ROOT, "file", false);
        world.engine.sync(Ino::ROOT).expect("the removal is on the backing");
        assert!(!ground.backing().join("file").exists());
        world.forget_all();
        assert_eq!(world.engine.status().known, 2, "the drain has it");
    });
    assert_eq!(world.engine.status().known, 1);
    expect_all(&mut world, &ground);
}
