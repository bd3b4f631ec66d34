//! Files come into memory whole, and leave it, by command, by need and by prediction.

use crate::support::ground::{Ground, Setup};
use crate::support::watched::{Fault, Watched};
use aimss_engine::backing::{Backing, LocalBacking, SlowBacking, SlowModel};
use aimss_engine::engine::{Held, Reason, Want};
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Ino, Transition, predict};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn content(number: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at / 7 + at % 251 + number * 13) as u8).collect()
}

/// Waits for what happens in the background.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file, looked up as the kernel does.
fn ino(engine: &Engine, path: &str) -> Ino {
    path.split('/').fold(Ino::ROOT, |at, name| engine.lookup(at, name.as_bytes()).expect("it is there").ino)
}

fn held(engine: &Engine, path: &str) -> Held {
    engine.file_state(ino(engine, path)).expect("a file").held
}

const READ: Want = Want { write: false, truncate: false, passthrough: Ok(()), process: 7 };

/// Opens, reads and closes; returns the content, and whether it was served from the arena.
fn read(engine: &Engine, path: &str, want: Want) -> (Vec<u8>, bool) {
    let ino = ino(engine, path);
    let opened = engine.open(ino, want).expect("it opens");
    let size = engine.attr(ino).expect("attributes").size as usize;
    let mut bytes = vec![0; size];
    let from_arena = match &opened.mode {
        OpenMode::Arena(content) => {
            content.file().expect("it opens").read_exact_at(&mut bytes, 0).expect("a read in passthrough");
            true
        }
        OpenMode::Backing(_) | OpenMode::Daemon(_) => {
            assert_eq!(engine.read(ino, 0, &mut bytes).expect("a read"), size);
            false
        }
    };
    drop(opened);
    if let Some(ended) = engine.release(ino, want.write).last {
        engine.closed(ino, ended);
    }
    (bytes, from_arena)
}

fn fill(root: &Path, directory: &str, files: usize, bytes: usize) {
    std::fs::create_dir_all(root.join(directory)).expect("mkdir");
    for number in 0..files {
        std::fs::write(root.join(directory).join(format!("part-{number}.bin")), content(number, bytes))
            .expect("write");
    }
}

fn slow(ground: &Ground, latency: u64) -> Arc<dyn Backing> {
    let model = SlowModel { latency: Duration::from_millis(latency), ..SlowModel::default() };
    Arc::new(SlowBacking::new(LocalBacking::open(&ground.backing()).expect("open"), model))
}

#[test]
fn what_is_warmed_is_read_from_memory() {
    let ground = Ground::new();
    fill(&ground.backing(), "d/e", 3, 9 * MIB + 17);
    fill(&ground.backing(), "d", 20, 1000);
    std::fs::write(ground.backing().join("d/empty"), b"").expect("write");
    let engine = ground.engine(ground.local(), Setup::default());
    engine.start();
    let done = engine.warm(&[ino(&engine, "d")], |_| {}).expect("it can be fetched");
    assert_eq!((done.files, done.there), (24, 24));
    for number in 0..3 {
        let (bytes, from_arena) = read(&engine, &format!("d/e/part-{number}.bin"), READ);
        assert!(from_arena && bytes == content(number, 9 * MIB + 17), "part {number}");
    }
    assert_eq!(read(&engine, "d/part-19.bin", READ), (content(19, 1000), true));
    assert_eq!(held(&engine, "d/part-19.bin"), Held::Both);
    engine.stop();
}

#[test]
fn what_is_evicted_is_read_from_the_backing_and_comes_back() {
    let ground = Ground::new();
    fill(&ground.backing(), "d", 4, MIB);
    let engine = ground.engine(ground.local(), Setup { drain_delay: Duration::ZERO, ..Setup::default() });
    engine.start();
    let dir = ino(&engine, "d");
    engine.warm(&[dir], |_| {}).expect("it can be fetched");
    // A dirty file goes to the backing first.
    let dirty = ino(&engine, "d/part-1.bin");
    let want = Want { write: true, ..READ };
    let opened = engine.open(dirty, want).expect("it opens");
    engine.release(dirty, true);
    drop(opened);
    let changed = engine.open(dirty, Want { passthrough: Err(Reason::Excluded), ..want }).expect("it opens");
    engine.write(dirty, 0, b"changed", false).expect("a write");
    drop(changed);
    if let Some(ended) = engine.release(dirty, true).last {
        engine.closed(dirty, ended);
    }
    // One that is open stays.
    let open = ino(&engine, "d/part-2.bin");
    let opened = engine.open(open, READ).expect("it opens");
    let done = engine.evict_files(&[dir]).expect("it can be drained");
    assert_eq!((done.files, done.there), (4, 3));
    assert_eq!(held(&engine, "d/part-1.bin"), Held::Backing);
    assert_eq!(held(&engine, "d/part-2.bin"), Held::Both);
    drop(opened);
    if let Some(ended) = engine.release(open, false).last {
        engine.closed(open, ended);
    }
    let (bytes, from_arena) = read(&engine, "d/part-1.bin", READ);
    assert!(!from_arena && bytes.starts_with(b"changed") && bytes.len() == MIB);
    assert_eq!(std::fs::read(ground.backing().join("d/part-1.bin")).expect("read"), bytes);
    engine.stop();
}

#[test]
fn pinned_files_stay_while_others_come_and_go() {
    let ground = Ground::new();
    fill(&ground.backing(), "kept", 4, MIB);
    fill(&ground.backing(), "passing", 40, MIB);
    let budget_bytes = 12 << 20;
    let engine = ground.engine(ground.local(), Setup { budget_bytes, ..Setup::default() });
    engine.start();
    let kept = ino(&engine, "kept");
    assert_eq!(engine.pin(&[kept], |_| {}).expect("there is room").there, 4);
    let done = engine.warm(&[ino(&engine, "passing")], |_| {}).expect("as many as fit");
    assert!(done.there > 0 && done.there < 40, "{done:?}");
    assert!(engine.status().used <= budget_bytes);
    for number in 0..4 {
        assert_eq!(held(&engine, &format!("kept/part-{number}.bin")), Held::Both);
    }
    assert_eq!(engine.evict_files(&[kept]).expect("nothing to drain").there, 0);
    engine.unpin(&[kept]).expect("it is there");
    assert_eq!(engine.evict_files(&[kept]).expect("nothing to drain").there, 4);
    engine.stop();
}

#[test]
fn a_file_that_changes_while_it_is_fetched_is_not_taken() {
    let ground = Ground::new();
    fill(&ground.backing(), "d", 1, 3000);
    let engine = ground.engine(slow(&ground, 100), Setup::default());
    engine.start();
    let file = ino(&engine, "d/part-0.bin");
    std::thread::scope(|scope| {
        let warmed = scope.spawn(|| engine.warm(&[file], |_| {}).expect("it was tried"));
        std::thread::sleep(Duration::from_millis(150));
        // Replaced here, while its old content is on its way.
        let want = Want { write: true, truncate: true, passthrough: Err(Reason::Excluded), process: 0 };
        let opened = engine.open(file, want).expect("it opens");
        engine.write(file, 0, b"new", false).expect("a write");
        drop(opened);
        if let Some(ended) = engine.release(file, true).last {
            engine.closed(file, ended);
        }
        warmed.join().expect("no panic");
    });
    assert_eq!(read(&engine, "d/part-0.bin", READ).0, b"new");
    engine.stop();
}

#[test]
fn opens_of_one_file_fetch_it_once() {
    let ground = Ground::new();
    fill(&ground.backing(), "d", 1, 1000);
    let engine = ground.engine(slow(&ground, 20), Setup::default());
    let path = "d/part-0.bin";
    ino(&engine, path);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(read(&engine, path, READ), (content(0, 1000), true)));
        }
    });
    let fetched: u64 = engine.fetched().iter().map(|(_, fetched)| fetched.files).sum();
    assert_eq!(fetched, 1);
}

fn predicting(ground: &Ground, budget_bytes: u64) -> Arc<Engine> {
    let config = predict::Config { ahead_bytes_max: budget_bytes / 2, ..predict::Config::default() };
    let engine = ground.predicting_engine(slow(ground, 2), budget_bytes, config);
    engine.start();
    engine
}

#[test]
fn the_first_shard_of_a_checkpoint_brings_the_others() {
    let ground = Ground::new();
    fill(&ground.backing(), "step-7", 8, 2 * MIB);
    let engine = predicting(&ground, 256 << 20);
    assert_eq!(read(&engine, "step-7/part-0.bin", READ).0, content(0, 2 * MIB));
    until("the other shards come", || {
        (1..8).all(|number| held(&engine, &format!("step-7/part-{number}.bin")) == Held::Both)
    });
    for number in 1..8 {
        let (bytes, from_arena) = read(&engine, &format!("step-7/part-{number}.bin"), READ);
        assert!(from_arena && bytes == content(number, 2 * MIB));
    }
    until("all are accounted for", || {
        engine.predictions().iter().map(|(_, account)| account.used_bytes).sum::<u64>() == 14 << 20
    });
    engine.stop();
}

#[test]
fn files_read_in_order_are_fetched_ahead() {
    let ground = Ground::new();
    fill(&ground.backing(), "set", 60, 5000);
    let engine = predicting(&ground, 64 << 20);
    for number in 0..6 {
        read(&engine, &format!("set/part-{number}.bin"), READ);
        std::thread::sleep(Duration::from_millis(20));
    }
    until("the next one comes", || held(&engine, "set/part-6.bin") == Held::Both);
    engine.stop();
}

#[test]
fn with_nobody_predicting_nothing_is_fetched_ahead() {
    let ground = Ground::new();
    fill(&ground.backing(), "step-7", 8, 2 * MIB);
    let engine = ground.engine(slow(&ground, 1), Setup::default());
    engine.start();
    for number in 0..4 {
        read(&engine, &format!("step-7/part-{number}.bin"), READ);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(engine.predictions().is_empty());
    assert_eq!(held(&engine, "step-7/part-4.bin"), Held::Backing);
    engine.stop();
}

#[test]
fn a_file_that_is_scanned_comes_into_memory_under_its_reader() {
    let ground = Ground::new();
    let bytes = 40 * MIB + 123;
    fill(&ground.backing(), "d", 1, bytes);
    let engine = predicting(&ground, 256 << 20);
    let file = ino(&engine, "d/part-0.bin");
    let expected = content(0, bytes);
    let opened = engine.open(file, READ).expect("it opens");
    assert!(matches!(opened.mode, OpenMode::Daemon(_)));
    drop(opened);
    let mut buffer = vec![0; 256 << 10];
    let mut at = 0;
    while at < bytes {
        let read = engine.read(file, at as u64, &mut buffer).expect("a read");
        assert!(read > 0 && buffer[..read] == expected[at..at + read], "at {at}");
        at += read;
    }
    until("it is in memory", || held(&engine, "d/part-0.bin") == Held::Both);
    // Its handle goes on, and a write through another one is seen.
    let want = Want { write: true, ..READ };
    engine.open(file, want).expect("it opens");
    engine.write(file, 5, b"new", false).expect("a write");
    assert_eq!(engine.read(file, 4, &mut buffer[..5]).expect("a read"), 5);
    assert_eq!(&buffer[1..4], b"new");
    engine.release(file, true);
    if let Some(ended) = engine.release(file, false).last {
        engine.closed(file, ended);
    }
    engine.drain_all(|_| {}).expect("it can be written");
    let now = std::fs::read(ground.backing().join("d/part-0.bin")).expect("read");
    assert!(now[..5] == expected[..5] && &now[5..8] == b"new" && now[8..] == expected[8..]);
    let fetched = engine.fetched();
    assert!(fetched.iter().any(|(cause, came)| *cause == "scan" && came.files == 1), "{fetched:?}");
    engine.stop();
}

#[test]
fn random_reads_of_a_file_fetch_nothing() {
    let ground = Ground::new();
    fill(&ground.backing(), "d", 1, 20 * MIB);
    let engine = predicting(&ground, 256 << 20);
    let file = ino(&engine, "d/part-0.bin");
    engine.open(file, READ).expect("it opens");
    let mut buffer = vec![0; 4096];
    for i in 1..200_u64 {
        engine.read(file, i * 7919 % 5003 * 4096, &mut buffer).expect("a read");
    }
    assert_eq!(engine.fetching().0, 0);
    assert_eq!(held(&engine, "d/part-0.bin"), Held::Backing);
    if let Some(ended) = engine.release(file, false).last {
        engine.closed(file, ended);
    }
    engine.stop();
}

#[test]
fn what_is_written_while_its_file_is_fetched_is_read_back() {
    let ground = Ground::new();
    let bytes = 24 * MIB;
    fill(&ground.backing(), "d", 1, bytes);
    let config = predict::Config::default();
    let engine = ground.predicting_engine(slow(&ground, 150), 256 << 20, config);
    engine.start();
    let file = ino(&engine, "d/part-0.bin");
    engine.open(file, READ).expect("it opens");
    let mut buffer = vec![0; MIB];
    for at in 0..4 {
        engine.read(file, at * MIB as u64, &mut buffer).expect("a read");
    }
    until("it takes off", || engine.fetching().1 > 0);
    // The model reads at once, and gives what it read 150 ms later.
    std::thread::sleep(Duration::from_millis(50));
    engine.open(file, Want { write: true, ..READ }).expect("it opens");
    engine.write(file, 3, b"written", false).expect("a write");
    for _ in 0..4 {
        engine.read(file, 0, &mut buffer).expect("a read");
        assert_eq!(&buffer[3..10], b"written");
    }
    engine.release(file, true);
    until("nothing is on its way", || engine.fetching().0 == 0);
    engine.read(file, 0, &mut buffer).expect("a read");
    assert_eq!(&buffer[3..10], b"written");
    if let Some(ended) = engine.release(file, false).last {
        engine.closed(file, ended);
    }
    engine.drain_all(|_| {}).expect("it can be written");
    assert_eq!(&std::fs::read(ground.backing().join("d/part-0.bin")).expect("read")[3..10], b"written");
    engine.stop();
}

/// Opens and reads a file of some pieces while reads of a span fail; false when none did: it takes fewer.
fn fetch_with_failing_reads(from: u64, errno: i32) -> bool {
    const FAILING: u64 = 2;
    let ground = Ground::new();
    fill(&ground.backing(), "d", 3, 3 * MIB + 5);
    let watched = Watched::remote(ground.local());
    let engine = ground.engine(watched.clone(), Setup::default());
    engine.start();
    let before = watched.reads();
    watched.set_fault(Fault::Reads { from: before + from, until: before + from + FAILING, errno });
    let tried = (0..3).map(|number| try_to_read(&engine, &format!("d/part-{number}.bin")));
    for (number, bytes) in tried.enumerate() {
        // An error, or all of it; never a part, or something else.
        assert!(
            bytes.is_none_or(|bytes| bytes == content(number, 3 * MIB + 5)),
            "part {number}, read {from}"
        );
    }
    let dir = engine.lookup(Ino::ROOT, b"d");
    let warmed = dir.is_ok_and(|dir| engine.warm(&[dir.ino], |_| {}).is_ok());
    let failed = watched.failed() > 0;
    watched.set_fault(Fault::None);
    if !warmed {
        engine.warm(&[ino(&engine, "d")], |_| {}).expect("the backing is back");
    }
    for number in 0..3 {
        let (bytes, _) = read(&engine, &format!("d/part-{number}.bin"), READ);
        assert!(bytes == content(number, 3 * MIB + 5), "part {number} afterwards, read {from}");
    }
    assert_eq!(engine.fetching(), (0, 0), "read {from}: nothing is left behind");
    engine.stop();
    failed
}

/// A read by path as a program makes it; `None`: it got an error.
fn try_to_read(engine: &Engine, path: &str) -> Option<Vec<u8>> {
    let found =
        path.split('/').try_fold(Ino::ROOT, |at, name| engine.lookup(at, name.as_bytes()).map(|f| f.ino));
    let ino = found.ok()?;
    let opened = engine.open(ino, READ).ok()?;
    let size = engine.attr(ino).map_or(0, |attr| attr.size as usize);
    let mut bytes = vec![0; size];
    let read = match &opened.mode {
        OpenMode::Arena(content) => content.file().expect("it opens").read_exact_at(&mut bytes, 0).is_ok(),
        OpenMode::Backing(_) | OpenMode::Daemon(_) => {
            engine.read(ino, 0, &mut bytes).is_ok_and(|n| n == size)
        }
    };
    drop(opened);
    if let Some(ended) = engine.release(ino, false).last {
        engine.closed(ino, ended);
    }
    read.then_some(bytes)
}

#[test]
fn a_fetch_survives_errors_at_every_read() {
    for errno in [libc::EIO, libc::ESTALE] {
        let mut from = 0;
        while fetch_with_failing_reads(from, errno) {
            from += 1;
        }
        assert!(from > 5, "only {from} reads could fail");
    }
}

#[test]
fn a_backing_that_stalls_holds_up_only_who_needs_it() {
    let ground = Ground::new();
    fill(&ground.backing(), "d", 4, 2 * MIB);
    let watched = Watched::remote(ground.local());
    let setup = Setup { drain_delay: Duration::ZERO, ..Setup::default() };
    let engine = ground.engine(watched.clone(), setup);
    engine.start();
    let (cold, warm) = (ino(&engine, "d/part-0.bin"), ino(&engine, "d/part-1.bin"));
    engine.warm(&[warm], |_| {}).expect("it can be fetched");
    watched.set_fault(Fault::Stall);
    let reader = std::thread::spawn({
        let engine = engine.clone();
        move || try_to_read(&engine, "d/part-0.bin")
    });
    std::thread::sleep(Duration::from_millis(300));
    assert!(!reader.is_finished(), "what is on the backing alone waits");
    let start = Instant::now();
    let opened = engine.open(warm, READ).expect("it opens");
    assert!(matches!(opened.mode, OpenMode::Arena(_)));
    drop(opened);
    if let Some(ended) = engine.release(warm, false).last {
        engine.closed(warm, ended);
    }
    assert_eq!(engine.attr(cold).expect("attributes").size as usize, 2 * MIB);
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "what is in memory does not wait: {:?}",
        start.elapsed()
    );
    watched.set_fault(Fault::None);
    assert_eq!(reader.join().expect("a reader"), Some(content(0, 2 * MIB)));
    engine.stop();
}

#[test]
fn what_was_opened_behind_a_file_is_known_after_a_restart() {
    let ground = Ground::new();
    fill(&ground.backing(), "models", 2, 5000);
    fill(&ground.backing(), "tables", 2, 5000);
    let engine = predicting(&ground, 64 << 20);
    let files = ["models/part-0.bin", "tables/part-1.bin"];
    for _ in 0..2 {
        for path in files {
            read(&engine, path, READ);
        }
        engine.evict_files(&files.map(|path| ino(&engine, path))).expect("evicted");
    }
    let behind = Transition { from: files[0].into(), to: files[1].into(), count: 2 };
    until("it is learned", || engine.transitions().contains(&behind));
    let known = engine.transitions();
    engine.stop();
    drop(engine);

    let engine = predicting(&ground, 64 << 20);
    engine.take_over_transitions(known.clone());
    assert!(known.iter().all(|transition| engine.transitions().contains(transition)), "kept as it is");
    read(&engine, files[0], READ);
    until("the other comes", || held(&engine, files[1]) == Held::Both);
    engine.stop();
}
