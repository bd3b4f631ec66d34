//! Who changes names faster than the backing takes it is slowed to its pace, so that what waits in memory is bounded; and
//! nobody else is.

use crate::support::ground::{Ground, Setup};
use aimss_engine::backing::{LocalBacking, SlowBacking, SlowModel};
use aimss_engine::{Engine, Ino};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MAKERS: u64 = 6;
/// Memory for 128 changes that wait.
const BUDGET_BYTES: u64 = 2 << 20;
const WAITING_MAX: u64 = 128;

fn make(engine: &Engine, name: &str) -> Ino {
    engine.make(Ino::ROOT, name.as_bytes(), &crate::support::plain_file()).expect("a free name").ino
}

#[test]
fn makers_of_names_keep_the_pace_of_a_slow_backing() {
    crate::support::log_if_wanted();
    let ground = Ground::new();
    std::fs::write(ground.backing().join("lasting"), "content").expect("write");
    let model = SlowModel { latency: Duration::from_millis(1), ..SlowModel::default() };
    let backing = SlowBacking::new(LocalBacking::open(&ground.backing()).expect("open"), model);
    // What waits doesn't rest for an hour: too much of it is there.
    let setup = Setup { budget_bytes: BUDGET_BYTES, revalidate: crate::support::NEVER, ..Setup::default() };
    let engine = ground.engine(Arc::new(backing), setup);
    engine.start();
    engine.lookup(Ino::ROOT, b"lasting").expect("it is there");
    let (over, most) = (AtomicBool::new(false), AtomicU64::new(0));
    let made: u64 = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..MAKERS)
            .map(|maker| {
                let (engine, over, most) = (&engine, &over, &most);
                scope.spawn(move || {
                    let mut number = 0;
                    while !over.load(Ordering::Relaxed) {
                        let ino = make(engine, &format!("{maker}-{number}"));
                        engine.forget(ino, 1);
                        most.fetch_max(engine.backlog().operations, Ordering::Relaxed);
                        number += 1;
                    }
                    number
                })
            })
            .collect();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            engine.lookup(Ino::ROOT, b"lasting").expect("it is there");
            assert!(
                asked.elapsed() < Duration::from_millis(500),
                "who only looks waited {:?}",
                asked.elapsed()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(engine.is_behind() || engine.backlog().operations > WAITING_MAX / 2, "the backing was fast");
        over.store(true, Ordering::Relaxed);
        makers.into_iter().map(|maker| maker.join().expect("no panic")).sum()
    });
    let most = most.into_inner();
    // Nobody waits for ever, so now and then one more gets in.
    assert!(most <= WAITING_MAX + MAKERS * 30, "{most} changes waited");
    assert!(made > WAITING_MAX * 2, "only {made} files were made");
    engine.drain_all(|_| {}).expect("it drains");
    let there = std::fs::read_dir(ground.backing()).expect("a directory").count() as u64;
    assert_eq!(there, made + 2, "with what was there, and our private directory");
    engine.stop();
}
