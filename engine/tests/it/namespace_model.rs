//! Random operations on names, contents and attributes, against a model: what the engine shows at any time, and what
//! the backing holds after a drain. `AIMSS_SEEDS=N` for more histories, `AIMSS_SEED=N` for one of them.

use crate::support::ground::{AMPLE_BYTES, Ground, Setup};
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, Seed, compare, first_seed, runs};
use std::time::Duration;

const OPERATIONS: usize = 400;

#[test]
fn random_histories_come_out_as_the_model_says() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_SEEDS", 20) {
        history(seed);
    }
}

fn history(seed: u64) {
    let _seed = Seed(seed);
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let setup = Setup {
        // With and without a drain that runs beside the operations.
        drain_delay: if seed.is_multiple_of(2) { Duration::from_millis(1) } else { NEVER },
        // With and without room for all files in memory.
        budget_bytes: if seed.is_multiple_of(5) { 6000 } else { AMPLE_BYTES },
        journal: seed.is_multiple_of(3),
        ..Setup::default()
    };
    let mut world = World::new(&ground, &watched, setup, seed);
    world.engine.start();
    for _ in 0..OPERATIONS {
        world.step(&ground, &watched);
        match world.random.below(60) {
            0 => compare::namespace(&mut world),
            1 => {
                world.drain();
                compare::backing(&mut world, &ground);
            }
            _ => {}
        }
    }
    compare::namespace(&mut world);
    world.close_all();
    world.drain();
    compare::backing(&mut world, &ground);
    world.forget_all();
    compare::namespace(&mut world);
    assert_eq!(watched.violations(), Vec::<String>::new());
}
