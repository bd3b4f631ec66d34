//! New files of unknown size: their content is on the backing before their name is, and nobody sees that.

use crate::support::ground::{Ground, Setup};
use crate::support::model::{Id, ROOT};
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};
use std::collections::BTreeMap;

/// An engine with a journal, and a file of unknown size that holds `data` and is still open: its handle.
fn open_file(ground: &Ground, watched: &std::sync::Arc<Watched>, data: &[u8]) -> (World, Id, usize) {
    let setup = Setup { drain_delay: NEVER, journal: true, ..Setup::default() };
    let mut world = World::new(ground, watched, setup, 5);
    world.engine.start();
    let file = world.make(ROOT, "file", aimss_engine::Kind::File, 0o640).expect("a free name");
    let handle = world.open(file, true, false, true);
    world.write(handle, 0, data);
    (world, file, handle)
}

fn unnamed(ground: &Ground) -> usize {
    let private = std::fs::read_dir(ground.backing().join(".aimss")).expect("ours");
    private.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("unnamed-")).count()
}

#[test]
fn it_has_no_name_until_the_drain() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, _, handle) = open_file(&ground, &watched, &[1; 70_000]);
    assert_eq!(unnamed(&ground), 1, "the content is on the backing");
    assert!(!ground.backing().join("file").exists(), "and the name isn't");
    world.close(handle);
    compare::namespace(&mut world);
    world.drain();
    compare::backing(&mut world, &ground);
}

#[test]
fn its_writer_goes_on_while_it_is_named() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file, handle) = open_file(&ground, &watched, b"first");
    assert!(world.sync(file, &ground, &watched));
    assert_eq!((unnamed(&ground), ground.backing().join("file").exists()), (0, true));
    world.write(handle, 3, b"second");
    let reader = world.open(file, false, false, true);
    world.close(reader);
    world.close(handle);
    world.drain();
    compare::backing(&mut world, &ground);
}

#[test]
fn removed_before_the_drain_it_never_was() {
    for close_first in [false, true] {
        let ground = Ground::new();
        let watched = Watched::new(ground.local(), Fault::None);
        let (mut world, _, handle) = open_file(&ground, &watched, b"passing");
        if close_first {
            world.close(handle);
        }
        world.remove(ROOT, "file", false);
        // Who has it open keeps it, over the death of this daemon, too.
        assert_eq!(unnamed(&ground), usize::from(!close_first));
        world.close_all();
        assert_eq!(unnamed(&ground), 0);
        world.drain();
        compare::backing(&mut world, &ground);
    }
}

#[test]
fn emptied_or_replaced_it_leaves_nothing_behind() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file, handle) = open_file(&ground, &watched, &[7; 5000]);
    world.close(handle);
    world.truncate(file, 0);
    assert_eq!(unnamed(&ground), 0, "an empty file needs none");
    world.rewrite(file, b"anew", true);
    world.drain();
    compare::backing(&mut world, &ground);
}

/// As a daemon does that serves already: what is in use stays, and what is nobody's goes.
#[test]
fn leftovers_of_a_dead_daemon_go_beside_what_is_in_use() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file, handle) = open_file(&ground, &watched, b"in use");
    let private = ground.backing().join(".aimss");
    let ino = world.ino(file).0;
    let leftovers =
        [format!("beside-{ino}"), "beside-xyz".into(), "unnamed-fff1".into(), "unnamed-xyz".into()];
    for name in &leftovers {
        std::fs::write(private.join(name), "left").expect("ours");
    }
    world.engine.clear_leftovers().expect("nobody has a turn");
    for name in &leftovers {
        assert!(!private.join(name).exists(), "{name}");
    }
    assert_eq!(unnamed(&ground), 1, "what is in use");
    world.close(handle);
    world.drain();
    compare::backing(&mut world, &ground);
}

/// Numbers begin anew where the memory was lost, and what was left under one is another file's.
#[test]
fn what_was_left_under_its_number_is_not_taken_for_it() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let (mut world, file, _) = open_file(&ground, &watched, b"its own");
    assert!(world.sync(file, &ground, &watched), "it has its name");
    let kept = ground.backing().join(format!(".aimss/unnamed-{:x}", world.ino(file).0));
    std::fs::write(&kept, "another's").expect("ours");
    world.remove(ROOT, "file", false);
    world.drain();
    assert_eq!(std::fs::read(&kept).expect("kept for who has it open"), b"its own");
    world.close_all();
    world.drain();
    assert_eq!(unnamed(&ground), 0);
}

/// The daemon dies before the name is made, right after, and at the calls around it.
#[test]
fn a_death_around_its_naming_loses_nothing() {
    for at in 0..6 {
        let ground = Ground::new();
        let watched = Watched::new(ground.local(), Fault::None);
        let (mut world, file, handle) = open_file(&ground, &watched, &[9; 30_000]);
        world.close(handle);
        watched.set_fault(Fault::Cut { at: watched.calls() + at, torn: 0 });
        let ino = world.ino(file);
        let _ = world.engine.make_durable(ino);
        world.engine.stop();
        let next = ground.next_engine(ground.local());
        next.drain_all(|_| {}).expect("the drain of what was left");
        next.stop();
        assert_eq!(unnamed(&ground), 0, "after a death at call {at}");
        assert_eq!(next.status().conflicts, 0, "after a death at call {at}");
        compare::tree(&world, &ground, &BTreeMap::new());
    }
}
