//! Files leave memory by way of a device and come back from there, whatever that does: simulated, on command.

use crate::support::copies::{Bench, FILE_BYTES, FILES, content, name, tier, until};
use crate::support::ground::{Ground, Setup};
use crate::support::random::Random;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{Seed, compare, first_seed, runs};
use aimss_engine::device::{Faults, Simulated};
use aimss_engine::engine::SetAttr;
use aimss_engine::tier::{PAGE_BYTES, TierConfig};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn what_leaves_memory_comes_back_from_the_device() {
    let bench = Bench::new(tier(1 << 30), Faults::default());
    bench.pass_all_through_memory();
    let status = bench.status();
    assert!(status.in_files >= FILES as u64 / 2, "{status:?}");
    assert!(status.taken >= status.bytes && status.limit == 1 << 30 && status.lost.is_none(), "{status:?}");
    // Those that memory doesn't hold now.
    bench
        .engine
        .evict_files(&(0..FILES).map(|number| bench.ino(number)).collect::<Vec<_>>())
        .expect("they leave");
    let (copied, reads) = (bench.status().files, bench.watched.reads());
    bench.expect_contents();
    let after = bench.status();
    // One that is copied just now stays in memory.
    assert!(after.out_files + 1 >= copied, "{} of {copied} came back", after.out_files);
    assert_eq!(after.out_bytes, after.out_files * FILE_BYTES as u64);
    // The others were read by the daemon, and then fetched.
    let of_backing = FILES as u64 - after.out_files;
    let reads = bench.watched.reads() - reads;
    assert!(reads <= of_backing * 16, "{reads} reads of the backing for {of_backing} files");
    assert_eq!((after.failures, after.damaged), (0, 0));
}

#[test]
fn a_copy_of_what_a_file_was_is_not_used() {
    let bench = Bench::new(tier(1 << 30), Faults::default());
    bench.pass_all_through_memory();
    let copied = bench.status().files;
    assert!(copied >= 4, "{copied} copies");
    // Written, and its times set back: size and time on the backing are what they were.
    let before: Vec<_> =
        (0..FILES).map(|n| bench.engine.attr(bench.ino(n)).expect("attributes").mtime).collect();
    for (number, mtime) in before.into_iter().enumerate() {
        bench.write(number, 100, b"changed");
        let times = SetAttr { mtime: Some(mtime), ..SetAttr::default() };
        bench.engine.set_attr(bench.ino(number), &times).expect("its times are set");
    }
    bench.engine.drain_all(|_| {}).expect("it drains");
    bench.pass_all_through_memory();
    for number in 0..FILES {
        let mut expected = content(number);
        expected[100..107].copy_from_slice(b"changed");
        assert!(bench.read(number) == expected, "the content of {}", name(number));
        assert!(std::fs::read(bench.ground.backing().join(name(number))).expect("read") == expected);
    }
    // Changed by somebody else.
    bench.pass_all_through_memory();
    for number in 0..FILES {
        std::fs::write(bench.ground.backing().join(name(number)), content(number + 1)).expect("write");
    }
    for number in 0..FILES {
        assert!(bench.read(number) == content(number + 1), "the content of {}", name(number));
    }
}

#[test]
fn a_device_that_damages_or_fails_costs_nothing_but_time() {
    let faults = [
        Faults { corrupt: 0.5, ..Faults::default() },
        Faults { get: 0.5, ..Faults::default() },
        Faults { put: 0.3, allocate: 0.3, ..Faults::default() },
        Faults { corrupt: 0.2, get: 0.2, put: 0.2, delay: Duration::from_millis(1), ..Faults::default() },
    ];
    for faults in faults {
        let bench = Bench::new(tier(1 << 30), faults);
        for _ in 0..2 {
            bench.pass_all_through_memory();
            bench.expect_contents();
        }
        let status = bench.status();
        assert!(status.lost.is_some() || status.failures > 0, "{faults:?}: {status:?}");
        assert!(faults.corrupt == 0.0 || status.damaged > 0, "{faults:?}: {status:?}");
    }
}

#[test]
fn a_device_that_falls_off_is_used_no_more() {
    let bench = Bench::new(tier(1 << 30), Faults::default());
    bench.pass_all_through_memory();
    bench.device.set_faults(Faults { gone: true, ..Faults::default() });
    bench.expect_contents();
    until("it is given up", Duration::from_secs(5), || bench.status().lost.is_some());
    until("its copies go", Duration::from_secs(5), || bench.status().files == 0);
    bench.pass_all_through_memory();
    bench.expect_contents();
}

#[test]
fn a_device_that_hangs_holds_nobody_and_is_used_no_more() {
    let config = TierConfig { patience: Duration::from_millis(200), ..tier(1 << 30) };
    let bench = Bench::new(config, Faults::default());
    bench.pass_all_through_memory();
    bench.device.set_faults(Faults { hang: 1.0, ..Faults::default() });
    let begun = Instant::now();
    bench.expect_contents();
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let lost = || bench.status().lost.is_some_and(|why| why.contains("has not answered"));
    until("it is given up", Duration::from_secs(5), lost);
    until("its copies go", Duration::from_secs(5), || bench.status().files == 0);
    bench.pass_all_through_memory();
    bench.expect_contents();
}

#[test]
fn memory_that_its_owner_needs_is_given_back_within_a_second() {
    let config = TierConfig { reserve_bytes: 8 * PAGE_BYTES, ..tier(32 * PAGE_BYTES) };
    let bench = Bench::new(config, Faults::default());
    bench.pass_all_through_memory();
    let taken = bench.device.allocated();
    assert!(taken >= 16 * PAGE_BYTES, "{taken}");
    // All but eight pages, of which the reserve is eight.
    bench.device.set_faults(Faults { taken: 32 * PAGE_BYTES, ..Faults::default() });
    until("it gives way", Duration::from_secs(1), || bench.device.allocated() == 0);
    until("it says so", Duration::from_secs(1), || bench.status().given_back >= taken);
    bench.expect_contents();
    bench.pass_all_through_memory();
    assert_eq!(bench.device.allocated(), 0, "there is no room for it");
    // A part of it comes back.
    bench.device.set_faults(Faults { taken: 16 * PAGE_BYTES, ..Faults::default() });
    bench.pass_all_through_memory();
    bench.pass_all_through_memory();
    let taken = bench.device.allocated();
    assert!(taken > 0 && taken <= 16 * PAGE_BYTES, "{taken}");
    bench.expect_contents();
}

#[test]
fn a_small_tier_keeps_what_is_useful() {
    // Four files' worth.
    let bench = Bench::new(tier(12 * PAGE_BYTES), Faults::default());
    for _ in 0..3 {
        bench.pass_all_through_memory();
        bench.expect_contents();
    }
    let status = bench.status();
    assert!(status.files >= 2 && status.files <= 4 && status.taken <= status.limit, "{status:?}");
    drop(bench);
    // None that fits.
    let bench = Bench::new(tier(PAGE_BYTES), Faults::default());
    bench.pass_all_through_memory();
    bench.expect_contents();
    assert_eq!(bench.status().in_files, 0);
}

#[test]
fn random_histories_with_a_device_that_misbehaves_come_out_as_the_model_says() {
    let first = first_seed();
    for seed in first..first + runs("AIMSS_SEEDS", 12) {
        history(seed);
    }
}

fn history(seed: u64) {
    let _seed = Seed(seed);
    let mut random = Random::new(seed);
    let mut share = |most: u64| random.below(most + 1) as f64 / 100.0;
    let faults = match seed % 3 {
        0 => Faults::default(),
        _ => {
            let (put, get, corrupt) = (share(20), share(20), share(30));
            Faults { put, get, corrupt, rot: share(20), busy: share(50), ..Faults::default() }
        }
    };
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let setup = Setup {
        drain_delay: Duration::from_millis(1),
        budget_bytes: 40_000,
        journal: true,
        ..Setup::default()
    };
    let mut world = World::new(&ground, &watched, setup, seed);
    world.engine.start();
    let device = Arc::new(Simulated::new(64 * PAGE_BYTES, faults, seed));
    let config = TierConfig { scrub_every: Duration::from_millis(1), ..tier(16 * PAGE_BYTES) };
    world.engine.use_device(device.clone(), config);
    for _ in 0..400 {
        world.step(&ground, &watched);
        match world.random.below(60) {
            0 => compare::namespace(&mut world),
            1 => {
                world.drain();
                compare::backing(&mut world, &ground);
            }
            2 => world.forget_all(),
            3 => {
                let taken = world.random.below(64) * PAGE_BYTES;
                device.set_faults(Faults { taken, ..faults });
            }
            _ => {}
        }
    }
    compare::namespace(&mut world);
    world.close_all();
    world.drain();
    compare::backing(&mut world, &ground);
    compare::namespace(&mut world);
    assert_eq!(watched.violations(), Vec::<String>::new());
}
