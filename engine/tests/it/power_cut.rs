//! Random histories on a disk that loses its power at a random call of the drain or of an fsync: what was not synced is
//! dropped or torn, and what is found afterwards keeps the order that the design promises, with all that was synced.
//! Then it is mounted again.
//!
//! `AIMSS_CUTS=N` for more cuts, `AIMSS_SEED=N` for one of them. Each is looked at in several outcomes, under both
//! [`Order`]s. Identities are told by owners, so that this needs root.

use crate::support::compare::read_all;
use crate::support::disk::{Cut, Disk, Order};
use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::order::Left;
use crate::support::random::Random;
use crate::support::world::{Durability, World};
use crate::support::{NEVER, first_seed, is_root, order, runs};
use aimss_engine::engine::{Reason, Want};
use aimss_engine::{Engine, Ino, Kind};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Outcomes of one cut that are looked at, under each order.
const OUTCOMES: u64 = 2;
/// Calls of the backing shown with a failure.
const CALLS_SHOWN: usize = 80;

#[test]
fn what_was_synced_survives_and_the_order_holds() {
    cuts(|world, ground, disk| world.step(ground, disk));
}

#[test]
fn a_renamed_directory_has_whole_files() {
    cuts(checkpoints);
}

#[test]
fn fsync_carries_the_ways_to_all_names_of_a_file() {
    if !is_root() {
        assert!(std::env::var_os("AIMSS_NO_SKIPS").is_none(), "skipped layers count as failures here");
        println!("skipped: objects on the backing are told apart by their owners, which only root can give");
        return;
    }
    let ground = Ground::new();
    let disk = Disk::new(ground.local());
    let mut world = World::new(&ground, &disk, Setup { drain_delay: NEVER, ..Setup::default() }, 1);
    world.engine.start();
    let dirs = ["a", "b"].map(|name| world.make(ROOT, name, Kind::Directory, 0o777).expect("a free name"));
    let file = world.file(dirs[0], "one", b"content");
    world.link(file, dirs[1], "other");
    world.drain();
    world.model.drained();
    world.rename((ROOT, "a"), (ROOT, "c"), false);
    world.rename((ROOT, "b"), (ROOT, "d"), false);
    assert!(world.sync(file, &ground, &*disk));
    disk.cut_now();
    world.engine.stop();
    let after = Ground::new();
    std::fs::remove_dir(after.backing().join(".aimss")).expect("rmdir");
    let _scene = Scene(disk.clone(), "both directories renamed".into());
    disk.after(Order::Log, &mut Random::new(1), &after.backing());
    order::check_at(&world.model, &after.backing(), Left::PowerCut(Order::Log));
}

/// One operation of a history. False where an fsync failed.
type Step = fn(&mut World, &Ground, &Disk) -> bool;

fn cuts(step: Step) {
    if !is_root() {
        assert!(std::env::var_os("AIMSS_NO_SKIPS").is_none(), "skipped layers count as failures here");
        println!("skipped: objects on the backing are told apart by their owners, which only root can give");
        return;
    }
    let first = first_seed();
    let seeds = first..first + runs("AIMSS_CUTS", 30);
    println!("seeds {seeds:?}");
    for seed in seeds {
        cut(seed, step);
    }
}

/// Says where a failure was.
struct Scene(Arc<Disk>, String);

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last calls of the backing:\n{}", self.0.trace(CALLS_SHOWN));
            eprintln!("failed with {}", self.1);
        }
    }
}

impl Durability for Disk {
    /// Told by the outcomes.
    fn is_unsynced(&self, _: u64, _: u64) -> bool {
        false
    }
}

/// Directories are filled and renamed; what is in them is moved out, removed and replaced.
fn checkpoints(world: &mut World, ground: &Ground, disk: &Disk) -> bool {
    const TEMPORARY: &str = "checkpoint.tmp";
    let dirs = world.model.live_of(Kind::Directory);
    let dir = dirs[world.random.below(dirs.len() as u64) as usize];
    let files = world.model.live_of(Kind::File);
    let file = world.random.pick(&files).copied();
    let number = world.random.below(3);
    match (world.random.below(12), file) {
        (0..6, Some(file)) if files.len() > 20 => {
            let link = world.model.get(file).links[0].clone();
            world.remove(link.dir, &link.name, false);
        }
        (0..4, _) => {
            let made = world.make(dir, TEMPORARY, Kind::Directory, 0o777);
            let Ok(temporary) = made else { return true };
            for part in 0..=number {
                let data = world.random.bytes(1 + number as usize * 4000);
                world.file(temporary, &format!("part.{part}"), &data);
            }
            world.rename((dir, TEMPORARY), (dir, &format!("checkpoint.{number}")), false);
        }
        (4..6, Some(file)) => {
            let link = world.model.get(file).links[0].clone();
            world.remove(link.dir, &link.name, false);
        }
        (6..8, Some(file)) => {
            let link = world.model.get(file).links[0].clone();
            world.rename((link.dir, &link.name), (dir, &format!("moved.{number}")), false);
        }
        (8..10, Some(file)) => {
            let data = world.random.bytes(1 + number as usize * 3000);
            world.rewrite(file, &data, number == 0);
        }
        (10, Some(file)) => return world.sync(file, ground, disk),
        _ if dir != ROOT => {
            let link = world.model.get(dir).links[0].clone();
            world.rename((link.dir, &link.name), (ROOT, &format!("checkpoint.{number}")), false);
        }
        _ => {}
    }
    true
}

fn cut(seed: u64, step: Step) {
    let mut random = Random::new(seed ^ 0xd15c);
    let beside = random.one_in(2);
    let ground = Ground::new();
    let disk = Disk::new(ground.local());
    let mut scene = Scene(disk.clone(), format!("AIMSS_SEED={seed}, before the cut"));
    let drain_delay = if beside { Duration::from_millis(1 + random.below(4)) } else { NEVER };
    let mut world = World::new(&ground, &disk, Setup { drain_delay, ..Setup::default() }, seed);
    world.mix.syncs = !random.one_in(4);
    world.mix.hard_links = random.one_in(2);
    world.mix.large_files = random.one_in(4);
    world.engine.start();
    // Something that is durable, for the later operations to change.
    for _ in 0..40 {
        step(&mut world, &ground, &disk);
    }
    world.close_all();
    world.drain();
    world.model.drained();
    let cut = Cut { at: disk.calls() + random.below(250), torn: random.below(1000) };
    disk.cut_at(cut);
    for _ in 0..100 {
        if !step(&mut world, &ground, &disk) || disk.is_cut() {
            break;
        }
        if beside && random.one_in(10) {
            std::thread::sleep(Duration::from_millis(random.below(4)));
        }
    }
    if beside {
        // Bytes that are drained while their file is open have no order.
        world.model.objects.iter_mut().for_each(|object| object.only_replaced = false);
    }
    finish(&world, &disk);
    world.engine.stop();
    disk.cut_now();
    for outcome in 0..2 * OUTCOMES {
        let order = if outcome % 2 == 0 { Order::Log } else { Order::Directory };
        let after = Ground::new();
        std::fs::remove_dir(after.backing().join(".aimss")).expect("rmdir");
        let survivors = disk.after(order, &mut random, &after.backing());
        scene.1 = format!(
            "AIMSS_SEED={seed}, {cut:?}, drains beside {beside}, outcome {outcome}, {survivors:?}, in {}",
            after.backing().display()
        );
        ours(&after.backing());
        order::check_at(&world.model, &after.backing(), Left::PowerCut(order));
        mounted_again(&after);
    }
}

/// Lets the drain run into the cut, or to its end.
fn finish(world: &World, disk: &Disk) {
    let engine = world.engine.clone();
    // It would notice that nothing moves any more, but seconds later: nobody waits for it.
    let drain = std::thread::spawn(move || drop(engine.drain_all(|_| {})));
    let until = Instant::now() + Duration::from_secs(20);
    while !drain.is_finished() && !disk.is_cut() {
        assert!(Instant::now() < until, "the drain neither ends nor is cut");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Our private directory holds what the next mount removes, and nothing else.
fn ours(backing: &Path) {
    for entry in std::fs::read_dir(backing.join(".aimss")).expect("our private directory") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name of ours");
        assert!(name.starts_with("beside-") || name.starts_with("unnamed-"), "left in .aimss: {name}");
    }
}

/// A new engine removes the leftovers and shows what is there.
fn mounted_again(after: &Ground) {
    let engine = after.engine(after.local(), Setup::default());
    engine.clear_leftovers().expect("leftovers are cleared");
    let left: Vec<PathBuf> = std::fs::read_dir(after.backing().join(".aimss"))
        .expect("our private directory")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    assert!(left.is_empty(), "the next mount leaves {left:?}");
    shows(&engine, Ino::ROOT, &after.backing());
}

fn shows(engine: &Engine, dir: Ino, path: &Path) {
    engine.load_directory(dir).expect("a listing");
    let mut listed = BTreeMap::new();
    let entry = |entry: &aimss_engine::engine::DirEntry| {
        listed.insert(String::from_utf8(entry.name.to_vec()).expect("names of the tests"), entry.kind);
        true
    };
    engine.read_directory(dir, 0, entry).expect("a listing");
    let mut expected = BTreeMap::new();
    for entry in std::fs::read_dir(path).expect("a listing") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("names of the tests");
        let mode = std::os::unix::fs::MetadataExt::mode(&entry.metadata().expect("an object"));
        if name != ".aimss" {
            expected.insert(name, Kind::from_mode(mode).expect("a kind"));
        }
    }
    assert_eq!(listed, expected, "the next mount shows other entries of {}", path.display());
    for (name, kind) in listed {
        let found = engine.lookup(dir, name.as_bytes()).expect("a lookup");
        let path = path.join(&name);
        match kind {
            Kind::Directory => shows(engine, found.ino, &path),
            Kind::File => {
                let passthrough = Err(Reason::Excluded);
                let want = Want { write: false, truncate: false, passthrough, process: 0 };
                let opened = engine.open(found.ino, want).expect("an open");
                let content = read_all(engine, found.ino, found.attr.size);
                drop(opened);
                if let Some(ended) = engine.release(found.ino, false).last {
                    engine.closed(found.ino, ended);
                }
                let expected = std::fs::read(&path).expect("a content");
                assert!(content == expected, "the next mount shows another {}", path.display());
            }
            _ => {}
        }
    }
}
