//! A backing that stalls at every step of a drain and of a fetch in turn, and comes back: who does not need it goes on
//! meanwhile, status names what is waited for, and afterwards everything arrives without a word from anybody.
//! `AIMSS_STALL_SECONDS=60` for longer stalls, all steps of which then wait side by side.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};
use aimss_engine::engine::Want;
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Ino, Kind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;
/// Longer than anything that doesn't wait for the backing takes on a busy machine.
const HUNG: Duration = Duration::from_secs(60);
/// Nothing changes outside while a test runs.
const SETUP: Setup = Setup {
    drain_delay: NEVER,
    budget_bytes: crate::support::ground::AMPLE_BYTES,
    journal: false,
    revalidate: NEVER,
};

fn stall() -> Duration {
    std::env::var("AIMSS_STALL_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .map_or(Duration::from_millis(50), Duration::from_secs)
}

/// Runs `case` for each step up to the first for which it says that there are no more; how many there were.
fn at_every_step(case: impl Fn(u64) -> bool + Sync) -> u64 {
    // Long stalls cost no processor.
    let together = if stall() > Duration::from_secs(1) { 64 } else { 4 };
    let mut from = 0;
    loop {
        let reached = std::thread::scope(|scope| {
            let cases: Vec<_> = (from..from + together)
                .map(|step| {
                    scope.spawn({
                        let case = &case;
                        move || case(step)
                    })
                })
                .collect();
            cases.into_iter().map(|case| case.join().expect("no panic")).filter(|&reached| reached).count()
                as u64
        });
        from += reached;
        if reached < together {
            return from;
        }
    }
}

/// Ends a stall in which the test itself hangs, so that it fails instead.
struct Watchdog(Arc<AtomicBool>);

impl Watchdog {
    fn over(watched: &Arc<Watched>) -> Watchdog {
        let went_on = Arc::new(AtomicBool::new(false));
        let (seen, watched) = (went_on.clone(), watched.clone());
        std::thread::spawn(move || {
            let start = Instant::now();
            while !seen.load(Ordering::Relaxed) {
                if start.elapsed() > HUNG {
                    watched.set_fault(Fault::None);
                    panic!("who does not need the backing waited for it");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Watchdog(went_on)
    }

    /// The stall goes on for its time, and ends.
    fn end_stall(self, watched: &Watched) {
        assert!(watched.stalled() > 0, "the stall ended by itself");
        self.0.store(true, Ordering::Relaxed);
        std::thread::sleep(stall());
        watched.set_fault(Fault::None);
    }
}

/// Waits until the backing stalls; false when `ended` comes first.
fn stalls(watched: &Watched, ended: impl Fn() -> bool) -> bool {
    loop {
        if watched.stalled() > 0 {
            return true;
        }
        if ended() {
            return watched.stalled() > 0;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn names_what_it_waits_for(engine: &Engine) {
    let outstanding = engine.outstanding().expect("a call is under way");
    assert!(!outstanding.call.is_empty());
    engine.status();
}

#[test]
fn a_drain_goes_on_after_a_stall_at_every_call() {
    let steps = at_every_step(|step| {
        let ground = Ground::new();
        let watched = Watched::new(ground.local(), Fault::None);
        let mut world = World::new(&ground, &watched, SETUP, 7);
        let old = world.file(ROOT, "old", &[1; 10_000]);
        world.file(ROOT, "gone", b"gone");
        world.engine.start();
        world.drain();
        let before = watched.calls();
        let dir = world.make(ROOT, "dir", Kind::Directory, 0o777).expect("a free name");
        world.make(dir, "link", Kind::Symlink, 0o777).expect("a free name");
        world.file(dir, "new.tmp", &[2; 20_000]);
        world.rename((dir, "new.tmp"), (ROOT, "new"), false);
        world.rewrite(old, &[3; 5000], true);
        let large = world.file(dir, "large", &[4; 300_000]);
        world.link(large, ROOT, "larger");
        world.set_xattr(large, "user.one", Some(b"value"));
        world.remove(ROOT, "gone", false);
        watched.set_fault(Fault::StallCalls(before + step));
        let engine = world.engine.clone();
        let drain = std::thread::spawn(move || engine.drain_all(|_| {}));
        let reached = stalls(&watched, || drain.is_finished());
        if reached {
            let watchdog = Watchdog::over(&watched);
            names_what_it_waits_for(&world.engine);
            // A name in a directory that was made here needs nothing of the backing.
            world.file(dir, "during", &[5; 30_000]);
            let known = world.ino(large);
            assert!(read(&world.engine, known) == [4; 300_000], "what is in memory is read");
            watchdog.end_stall(&watched);
        }
        watched.set_fault(Fault::None);
        drain.join().expect("no panic").expect("nothing failed");
        world.drain_again();
        assert_eq!(world.engine.status().last_error, None);
        compare::backing(&mut world, &ground);
        assert_eq!(watched.violations(), Vec::<String>::new());
        reached
    });
    println!("{steps} calls, each stalled once");
    assert!(steps > 20, "only {steps} calls");
}

fn content(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 + at % 251 + number * 13) as u8).collect()
}

fn ino(engine: &Engine, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |at, name| engine.lookup(at, name.as_bytes()).expect("it is there").ino)
}

/// Opens, reads and closes.
fn read(engine: &Engine, ino: Ino) -> Vec<u8> {
    let want = Want { write: false, truncate: false, passthrough: Ok(()), process: 7 };
    let opened = engine.open(ino, want).expect("it opens");
    let mut bytes = vec![0; engine.attr(ino).expect("attributes").size as usize];
    match &opened.mode {
        OpenMode::Arena(content) => {
            content.file().expect("it opens").read_exact_at(&mut bytes, 0).expect("a read");
        }
        _ => assert_eq!(engine.read(ino, 0, &mut bytes).expect("a read"), bytes.len()),
    }
    drop(opened);
    if let Some(ended) = engine.release(ino, false).last {
        engine.closed(ino, ended);
    }
    bytes
}

#[test]
fn a_fetch_goes_on_after_a_stall_at_every_read() {
    let steps = at_every_step(|step| {
        let ground = Ground::new();
        let root = ground.backing();
        for (directory, files, bytes) in [("hot", 1, MIB), ("cold", 3, 3 * MIB + 17)] {
            std::fs::create_dir(root.join(directory)).expect("mkdir");
            for number in 0..files {
                let path = root.join(directory).join(format!("part-{number}"));
                std::fs::write(path, content(number, bytes)).expect("write");
            }
        }
        let watched = Watched::remote(ground.local());
        let engine = ground.engine(watched.clone(), SETUP);
        engine.start();
        engine.warm(&[ino(&engine, "hot")], |_| {}).expect("it can be fetched");
        let (hot, cold) = (ino(&engine, "hot/part-0"), ino(&engine, "cold"));
        watched.set_fault(Fault::StallReads(watched.reads() + step));
        let reached = std::thread::scope(|scope| {
            let warm = scope.spawn(|| engine.warm(&[cold], |_| {}).expect("nothing failed"));
            let reached = stalls(&watched, || warm.is_finished());
            if reached {
                let watchdog = Watchdog::over(&watched);
                // Who needs what is on its way waits for it.
                let demand = scope.spawn(|| read(&engine, ino(&engine, "cold/part-1")));
                names_what_it_waits_for(&engine);
                assert!(read(&engine, hot) == content(0, MIB), "what is in memory is read");
                watchdog.end_stall(&watched);
                assert!(demand.join().expect("no panic") == content(1, 3 * MIB + 17));
            }
            watched.set_fault(Fault::None);
            let done = warm.join().expect("no panic");
            assert_eq!((done.files, done.there), (3, 3));
            reached
        });
        for number in 0..3 {
            let read = read(&engine, ino(&engine, &format!("cold/part-{number}")));
            assert!(read == content(number, 3 * MIB + 17), "part {number}");
        }
        assert_eq!(engine.outstanding(), None);
        engine.stop();
        reached
    });
    println!("{steps} reads, each stalled once");
    assert!(steps > 8, "only {steps} reads");
}
