//! Daemons that die one after the other under random operations, also half way through a drain, each followed by one that
//! takes over with all handles open, and which may have followed it while it lived: what is shown is what the model says,
//! inode numbers included, and in the end the backing holds it. `AIMSS_SEEDS=N` for more histories, `AIMSS_SEED=N` for one of them.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::random::Random;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, Seed, compare, first_seed, runs};
use aimss_engine::engine::Successor;
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Ino, Kind, Timestamp};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LIVES: u64 = 6;

#[test]
fn whoever_takes_over_goes_on_where_the_last_one_ended() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_SEEDS", 40) {
        lives(seed);
    }
}

fn setup() -> Setup {
    Setup { journal: true, ..Setup::default() }
}

/// An engine with a journal that drains when it is told to.
fn begun(ground: &Ground, seed: u64) -> (Arc<Watched>, World) {
    let watched = Watched::new(ground.local(), Fault::None);
    let world = World::new(ground, &watched, setup(), seed);
    world.engine.start();
    (watched, world)
}

#[test]
fn what_began_without_a_name_and_was_fetched_later_is_read_from_memory() {
    let ground = Ground::new();
    let (watched, mut world) = begun(&ground, 5);
    let file = world.make(ROOT, "file", Kind::File, 0o640).expect("a free name");
    let (ino, handle) = (world.ino(file), world.open(file, true, false, true));
    assert!(matches!(world.engine.served(ino), Some(OpenMode::Backing(_))));
    world.write(handle, 0, &[3; 70_000]);
    world.close(handle);
    world.drain();
    world.engine.warm(&[ino], |_| {}).expect("it comes in");
    world.taken_over(&ground, &watched, setup());
    compare::namespace(&mut world);
    assert!(world.engine.file_state(ino).expect("it is known").to_string().contains("both"));
}

#[test]
fn what_a_daemon_did_last_and_nobody_heard_of_is_found_where_it_is() {
    for call in 0..24 {
        let ground = Ground::new();
        let (watched, mut world) = begun(&ground, 7);
        let mut inos = Vec::new();
        for name in ["a", "b", "c", "d", "e.tmp"] {
            let file = world.make(ROOT, name, Kind::File, 0o640).expect("a free name");
            let handle = world.open(file, true, false, false);
            world.write(handle, 0, name.as_bytes());
            world.close(handle);
            inos.push(world.ino(file));
        }
        world.engine.evict_files(&inos).expect("they leave");
        let held = world.open(4, false, false, true);
        world.rename((ROOT, "a"), (ROOT, "f.0001"), false);
        world.exchange((ROOT, "b"), (ROOT, "c"));
        world.rename((ROOT, "d"), (ROOT, "b"), false);
        world.remove(ROOT, "f.0001", false);
        watched.set_fault(Fault::Cut { at: watched.calls() + call, torn: 1000 });
        drain_until_cut(&world, &watched);
        let watched = Watched::new(ground.local(), Fault::None);
        world.taken_over(&ground, &watched, setup());
        compare::namespace(&mut world);
        world.close(held);
        world.drain();
        compare::backing(&mut world, &ground);
    }
}

#[test]
fn a_rename_right_behind_a_write_keeps_its_time() {
    let ground = Ground::new();
    let (watched, mut world) = begun(&ground, 6);
    let file = world.make(ROOT, "file", Kind::File, 0o640).expect("a free name");
    let (ino, handle) = (world.ino(file), world.open(file, true, false, true));
    let made = world.engine.attr(ino).expect("attributes").mtime;
    let pause = Duration::from_millis(10);
    std::thread::sleep(pause);
    world.write(handle, 0, b"written behind our back");
    std::thread::sleep(pause);
    world.rename((ROOT, "file"), (ROOT, "other"), false);
    world.taken_over(&ground, &watched, setup());
    let attr = world.engine.attr(ino).expect("attributes");
    assert!(made < attr.mtime && attr.mtime < attr.ctime, "made {made:?}, now {attr:?}");
}

#[test]
fn numbers_of_the_backing_go_with_its_objects() {
    let ground = Ground::new();
    let (watched, mut world) = begun(&ground, 8);
    let before = world.engine.status().numbers;
    for life in 0..3 {
        let names = ["dated", "written", "replaced", "left"];
        let files = names.map(|name| world.file(ROOT, name, &[1; 5000]));
        world.drain();
        assert_eq!(world.engine.status().numbers, before + 4, "life {life}");
        // The next daemon can't know how much of this the backing has.
        world.set_attr(files[0], None, None, Some(Timestamp { seconds: 1_000_000, nanoseconds: 0 }));
        let handle = world.open(files[1], true, false, false);
        world.write(handle, 100, &[2; 100]);
        world.close(handle);
        world.rewrite(files[2], &[3; 6000], true);
        for name in &names[..3] {
            world.remove(ROOT, name, false);
        }
        if life > 0 {
            world.engine.rewrite_journal();
        }
        world.taken_over(&ground, &watched, setup());
        world.remove(ROOT, names[3], false);
        world.drain();
        assert_eq!(world.engine.status().numbers, before, "life {life}");
    }
}

#[test]
fn what_the_kernel_knows_nothing_of_is_let_go() {
    let ground = Ground::new();
    let (watched, mut world) = begun(&ground, 9);
    let file = world.file(ROOT, "file", &[1; 5000]);
    let ino = world.ino(file);
    // Counted, and its daemon dies before the kernel hears of it.
    world.engine.lookup(Ino::ROOT, b"file").expect("it is there");
    world.taken_over(&ground, &watched, setup());
    world.engine.note_unforgotten();
    let known = world.engine.status().known;
    assert!(world.engine.unforgotten(Duration::ZERO, 10).is_empty(), "it has a name");
    world.remove(ROOT, "file", false);
    world.forget_all();
    world.drain();
    assert_eq!(world.engine.status().known, known, "it is held still");
    assert!(world.engine.unforgotten(Duration::from_secs(60), 10).is_empty());
    assert_eq!(world.engine.unforgotten(Duration::ZERO, 10), [ino]);
    world.engine.forget(ino, u64::MAX);
    assert_eq!(world.engine.status().known, known - 1);
    assert!(world.engine.unforgotten(Duration::ZERO, 10).is_empty());
}

fn lives(seed: u64) {
    let _seed = Seed(seed);
    let mut random = Random::new(seed ^ 0x7a4e);
    let ground = Ground::new();
    let drain_delay = if seed.is_multiple_of(2) { Duration::from_millis(1) } else { NEVER };
    let setup = Setup { drain_delay, journal: true, ..Setup::default() };
    let follows = random.one_in(2);
    let mut watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, setup, seed);
    world.engine.start();
    for _ in 0..LIVES {
        let mut next = Next::default();
        for _ in 0..random.below(80) {
            world.step(&ground, &watched);
            if follows && random.one_in(6) {
                next.follow(&ground, setup);
            }
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
        world.engine.stop();
        if follows {
            next.follow(&ground, setup);
            next.compare(&ground);
        }
        if random.one_in(3) {
            world.engine.rewrite_journal();
        }
        let (its, successor) = next.take_over(&ground, setup);
        watched = its;
        world.taken_over_by(successor);
        compare::namespace(&mut world);
    }
    world.close_all();
    world.drain();
    compare::backing(&mut world, &ground);
    world.forget_all();
    compare::namespace(&mut world);
}

/// Who is ready to take over, if somebody is.
#[derive(Default)]
struct Next(Option<(Arc<Watched>, Successor)>);

impl Next {
    fn follow(&mut self, ground: &Ground, setup: Setup) {
        // One that can't go on is followed by another, as in a mount.
        self.0 = self
            .0
            .take()
            .and_then(|(watched, mut successor)| successor.follow().is_ok().then_some((watched, successor)));
        self.0.get_or_insert_with(|| begin(ground, setup));
    }

    fn compare(&self, ground: &Ground) {
        if let Some((_, successor)) = &self.0 {
            ground.compare_with_another(successor);
        }
    }

    fn take_over(mut self, ground: &Ground, setup: Setup) -> (Arc<Watched>, Successor) {
        self.follow(ground, setup);
        self.0.expect("just begun")
    }
}

fn begin(ground: &Ground, setup: Setup) -> (Arc<Watched>, Successor) {
    let watched = Watched::new(ground.local(), Fault::None);
    let (_, mut successor) = ground.successor(watched.clone(), setup);
    successor.follow().expect("the journal can be read");
    (watched, successor)
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
