//! A daemon that dies at a random point, also half way through a drain, and the next one that finds its arena and
//! journal: after it has drained, the backing is what the model says. `AIMSS_DEATHS=N` for more.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::random::Random;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, Seed, compare, first_seed, runs};
use aimss_engine::engine::PROMOTE_BYTES_MAX;
use aimss_engine::{Engine, Kind, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

const _: () = assert!(PROMOTE_BYTES_MAX > 2 << 20, "files of the tests are fetched whole");

#[test]
fn what_a_dead_daemon_left_is_drained_by_the_next() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_DEATHS", 40) {
        death(seed);
    }
}

fn death(seed: u64) {
    let _seed = Seed(seed);
    let mut random = Random::new(seed ^ 0xdead);
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let setup = Setup { drain_delay: NEVER, journal: true, ..Setup::default() };
    let mut world = World::new(&ground, &watched, setup, seed);
    world.mix.syncs = random.one_in(2);
    world.engine.start();
    for _ in 0..random.below(60) {
        world.step(&ground, &watched);
    }
    if random.one_in(2) {
        world.drain();
    }
    for _ in 0..random.below(120) {
        world.step(&ground, &watched);
    }
    if !random.one_in(3) {
        // Half way through a drain: the calls after this one are never made.
        let torn = random.below(1001);
        watched.set_fault(Fault::Cut { at: watched.calls() + random.below(120), torn });
        drain_until_cut(&world.engine, &watched);
    }
    world.engine.stop();
    for _ in 0..random.below(3) {
        dying_daemon(&ground, &mut random);
    }
    next_daemon(&world, &ground);
}

#[test]
fn a_dirty_file_that_was_removed_keeps_nobody_waiting() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { journal: true, ..Setup::default() }, 1);
    let file = world.file(ROOT, "file", b"old");
    assert!(world.sync(file, &ground, &watched));
    let handle = world.open(file, true, false, false);
    world.write(handle, 0, b"new");
    world.remove(ROOT, "file", false);
    next_daemon(&world, &ground);
}

#[test]
fn a_symbolic_link_made_just_before_the_death_is_no_conflict() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { journal: true, ..Setup::default() }, 1);
    let link = world.make(ROOT, "link", Kind::Symlink, 0o777).expect("a free name");
    watched.set_fault(Fault::Cut { at: 1, torn: 0 });
    let ino = world.ino(link);
    assert!(world.engine.make_durable(ino).is_err(), "the call behind the making is cut");
    next_daemon(&world, &ground);
}

#[test]
fn times_set_after_the_last_write_survive() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { journal: true, ..Setup::default() }, 1);
    let file = world.file(ROOT, "file", b"content");
    world.set_attr(file, None, None, Some(Timestamp { seconds: 1000, nanoseconds: 5 }));
    next_daemon(&world, &ground);
}

fn drain_until_cut(engine: &Arc<Engine>, watched: &Watched) {
    let engine = engine.clone();
    let drain = std::thread::spawn(move || drop(engine.drain_all(|_| {})));
    let until = Instant::now() + Duration::from_secs(20);
    while !drain.is_finished() && !watched.is_cut() {
        assert!(Instant::now() < until, "the drain neither ends nor is cut");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// As the daemon does it: replay, drain, clear what an interrupted copy left.
fn next_daemon(world: &World, ground: &Ground) {
    let engine = ground.next_engine(ground.local());
    let drained = engine.drain_all(|_| {});
    engine.stop();
    assert!(drained.is_ok(), "the drain of what was left: {drained:?}");
    engine.clear_leftovers().expect("leftovers are cleared");
    assert_eq!(
        engine.status().conflicts,
        0,
        "nobody else changed anything: {:?}",
        engine.status().last_error
    );
    compare::tree(world, ground, &BTreeMap::new());
}

/// A next daemon that dies as well, while it drains what was left.
fn dying_daemon(ground: &Ground, random: &mut Random) {
    let watched = Watched::new(ground.local(), Fault::None);
    let engine = ground.next_engine(watched.clone());
    watched.set_fault(Fault::Cut { at: watched.calls() + random.below(80), torn: random.below(1001) });
    drain_until_cut(&engine, &watched);
    engine.stop();
}
