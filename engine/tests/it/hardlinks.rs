//! Files with several names: one object here and on the backing, whichever name is changed or removed.

use crate::support::ground::{Ground, Setup};
use crate::support::model::{Id, ROOT};
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};

/// Runs `check` on a file with two names, once before the backing has them and once after.
fn linked(check: impl Fn(&mut World, Id)) {
    for drained_before in [false, true] {
        let ground = Ground::new();
        let watched = Watched::new(ground.local(), Fault::None);
        let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 3);
        world.engine.start();
        let file = world.file(ROOT, "one", &[1; 9000]);
        world.link(file, ROOT, "two");
        if drained_before {
            world.drain();
            world.forget_all();
        }
        check(&mut world, file);
        compare::namespace(&mut world);
        world.drain();
        compare::backing(&mut world, &ground);
    }
}

#[test]
fn a_rewrite_keeps_both_names_one_file() {
    linked(|world, file| world.rewrite(file, &[2; 5000], true));
}

#[test]
fn the_second_name_lives_on_when_the_first_is_removed() {
    linked(|world, _| world.remove(ROOT, "one", false));
}

#[test]
fn a_rename_over_one_name_leaves_the_other() {
    linked(|world, _| {
        world.file(ROOT, "new", b"new");
        world.rename((ROOT, "new"), (ROOT, "one"), false);
    });
}

#[test]
fn a_file_with_one_name_left_is_replaced_whole_again() {
    linked(|world, file| {
        world.remove(ROOT, "two", false);
        world.drain();
        world.rewrite(file, &[3; 100], false);
    });
}
