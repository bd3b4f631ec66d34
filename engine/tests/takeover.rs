//! Daemons that die one after the other under random operations, also half way through a drain, each followed by one that
//! takes over with all handles open: what is shown is what the model says, inode numbers included, and in the end the
//! backing holds it. `AIMSS_SEEDS=N` for more histories, `AIMSS_SEED=N` for one of them.

mod support;

use std::time::{Duration, Instant};
use support::ground::{Ground, Setup};
use support::random::Random;
use support::watched::{Fault, Watched};
use support::world::World;
use support::{NEVER, Seed, compare, first_seed, runs};

const LIVES: u64 = 6;

#[test]
fn whoever_takes_over_goes_on_where_the_last_one_ended() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_SEEDS", 40) {
        lives(seed);
    }
}

fn lives(seed: u64) {
    let _seed = Seed(seed);
    let mut random = Random::new(seed ^ 0x7a4e);
    let ground = Ground::new();
    let drain_delay = if seed.is_multiple_of(2) { Duration::from_millis(1) } else { NEVER };
    let setup = Setup { drain_delay, journal: true, ..Setup::default() };
    let mut watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, setup, seed);
    world.engine.start();
    for _ in 0..LIVES {
        for _ in 0..random.below(80) {
            world.step(&ground, &watched);
        }
        match random.below(4) {
            0 => world.drain(),
            1 => {
                // Half way through a drain: the calls after this one are never made.
                let torn = random.below(1001);
                watched.set_fault(Fault::Cut { at: watched.calls() + random.below(80), torn });
                drain_until_cut(&world, &watched);
            }
            _ => {}
        }
        watched = Watched::new(ground.local(), Fault::None);
        world.taken_over(&ground, &watched, setup);
        compare::namespace(&mut world);
    }
    world.close_all();
    world.drain();
    compare::backing(&mut world, &ground);
    world.forget_all();
    compare::namespace(&mut world);
}

fn drain_until_cut(world: &World, watched: &Watched) {
    let engine = world.engine.clone();
    let drain = std::thread::spawn(move || drop(engine.drain_all(|_| {})));
    let until = Instant::now() + Duration::from_secs(20);
    while !drain.is_finished() && !watched.is_cut() {
        assert!(Instant::now() < until, "the drain neither ends nor is cut");
        std::thread::sleep(Duration::from_millis(2));
    }
}
