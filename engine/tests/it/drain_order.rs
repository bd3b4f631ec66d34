//! Random histories whose drain is cut at a random call: what then lies on the backing keeps the order that the design
//! promises. `AIMSS_CUTS=N` for more cuts, `AIMSS_SEED=N` for one of them.
//!
//! Identities are told by owners, so that this needs root.

use crate::support::ground::{Ground, Setup};
use crate::support::random::Random;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, Seed, first_seed, is_root, order, runs};
use std::time::{Duration, Instant};

#[test]
fn a_cut_at_any_call_leaves_what_the_order_allows() {
    if !is_root() {
        assert!(std::env::var_os("AIMSS_NO_SKIPS").is_none(), "skipped layers count as failures here");
        println!("skipped: objects on the backing are told apart by their owners, which only root can give");
        return;
    }
    let first = first_seed();
    for seed in first..first + runs("AIMSS_CUTS", 50) {
        cut(seed);
    }
}

fn cut(seed: u64) {
    let _seed = Seed(seed);
    let mut random = Random::new(seed ^ 0x5eed);
    let beside = random.one_in(3);
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let setup =
        Setup { drain_delay: if beside { Duration::from_millis(1) } else { NEVER }, ..Setup::default() };
    let mut world = World::new(&ground, &watched, setup, seed);
    world.mix.syncs = random.one_in(2);
    world.mix.hard_links = random.one_in(2);
    if !beside {
        world.engine.start();
    }
    // Something that the backing has whole, for the later operations to change.
    for _ in 0..40 {
        world.step(&ground, &watched);
    }
    world.close_all();
    if beside {
        world.engine.start();
    }
    world.drain();
    world.model.drained();
    let calls = watched.calls();
    watched.set_fault(Fault::Cut { at: calls + random.below(250), torn: random.below(1001) });
    for _ in 0..100 {
        if !world.step(&ground, &watched) || watched.is_cut() {
            break;
        }
    }
    if beside {
        // Bytes that are drained while their file is open have no order.
        world.model.objects.iter_mut().for_each(|object| object.only_replaced = false);
    }
    finish(&world, &watched);
    world.engine.stop();
    order::check(&world.model, &ground);
    assert_eq!(watched.violations(), Vec::<String>::new());
}

/// Lets the drain run into the cut, or to its end.
fn finish(world: &World, watched: &Watched) {
    let engine = world.engine.clone();
    // It would notice that nothing moves any more, but seconds later: nobody waits for it.
    let drain = std::thread::spawn(move || drop(engine.drain_all(|_| {})));
    let until = Instant::now() + Duration::from_secs(20);
    while !drain.is_finished() && !watched.is_cut() {
        assert!(Instant::now() < until, "the drain neither ends nor is cut");
        std::thread::sleep(Duration::from_millis(2));
    }
}
