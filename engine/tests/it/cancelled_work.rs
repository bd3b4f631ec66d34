//! Work that cancels out never reaches the backing.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};
use aimss_engine::Kind;

fn calls_about(watched: &Watched, name: &str) -> Vec<String> {
    watched.log().into_iter().filter(|line| line.contains(name)).collect()
}

#[test]
fn a_temporary_file_never_reaches_the_backing() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 1);
    world.file(ROOT, "kept", b"kept");
    world.file(ROOT, "temporary", &[7; 400_000]);
    world.remove(ROOT, "temporary", false);
    world.engine.start();
    world.drain();
    assert_eq!(calls_about(&watched, "temporary"), Vec::<String>::new());
    compare::backing(&mut world, &ground);
}

#[test]
fn a_name_that_is_made_and_removed_again_stays_removed() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 1);
    world.file(ROOT, "name", b"on the backing");
    world.engine.start();
    world.drain();
    world.remove(ROOT, "name", false);
    world.file(ROOT, "name", b"for a moment");
    world.remove(ROOT, "name", false);
    world.forget_all();
    compare::namespace(&mut world);
    world.make(ROOT, "name", Kind::Directory, 0o777).expect("the name is free");
    world.drain();
    compare::backing(&mut world, &ground);
}
