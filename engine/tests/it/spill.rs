//! Files that the daemon serves move from memory to the backing while they are written, cut and read; nothing of what
//! was written is lost, whatever the backing does.

use crate::support::ground::{Ground, Setup};
use crate::support::random::Random;
use crate::support::watched::{Fault, Watched};
use aimss_engine::backing::{Backing, LocalBacking, SlowBacking, SlowModel};
use aimss_engine::engine::{Held, Reason, SetAttr, Want};
use aimss_engine::namespace::OpenMode;
use aimss_engine::{Engine, Ino};
use std::sync::Arc;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const BUDGET_BYTES: u64 = 16 * MIB;
const WANT: Want = Want { write: true, truncate: false, passthrough: Err(Reason::Excluded), process: 7 };

fn engine(ground: &Ground, backing: Arc<dyn Backing>) -> Arc<Engine> {
    let drain_delay = Duration::from_millis(20);
    let engine = ground.engine(
        backing,
        Setup { drain_delay, budget_bytes: BUDGET_BYTES, journal: true, ..Setup::default() },
    );
    engine.start();
    engine
}

fn make(engine: &Engine, name: &str) -> Ino {
    let ino =
        engine.make(Ino::ROOT, name.as_bytes(), &crate::support::plain_file()).expect("a free name").ino;
    let opened = engine.open(ino, WANT).expect("it opens");
    assert!(matches!(opened.mode, OpenMode::Daemon(_)));
    ino
}

fn close(engine: &Engine, ino: Ino) {
    if let Some(ended) = engine.release(ino, true).last {
        engine.closed(ino, ended);
    }
}

fn content(engine: &Engine, ino: Ino) -> Vec<u8> {
    let mut bytes = vec![0; engine.attr(ino).expect("attributes").size as usize];
    assert_eq!(engine.read(ino, 0, &mut bytes).expect("a read"), bytes.len());
    bytes
}

fn held(engine: &Engine, ino: Ino) -> Held {
    engine.file_state(ino).expect("a file").held
}

/// Writes blocks of odd sizes all over a file that grows beyond the budget, cutting it now and then, until it moved and
/// some time after; returns what it should hold.
fn write_all_over(engine: &Engine, ino: Ino, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut expected: Vec<u8> = Vec::new();
    let (start, mut after) = (Instant::now(), 0);
    while after < 200 {
        assert!(start.elapsed() < Duration::from_secs(60), "seed {seed}: it did not move within a minute");
        after += u64::from(held(engine, ino) == Held::Backing);
        if random.below(60) == 0 {
            let size = random.below(24 * MIB);
            let change = SetAttr { size: Some(size), ..SetAttr::default() };
            engine.set_attr(ino, &change).expect("a new size");
            expected.resize(size as usize, 0);
            continue;
        }
        let offset = random.below(20 * MIB);
        let data = vec![random.below(256) as u8; 1 + random.below(300_000) as usize];
        engine.write(ino, offset, &data, false).unwrap_or_else(|e| panic!("seed {seed}: a write: {e}"));
        let end = offset as usize + data.len();
        expected.resize(expected.len().max(end), 0);
        expected[offset as usize..end].copy_from_slice(&data);
    }
    expected
}

/// Where two contents begin and end to differ, and what is there.
fn difference(shown: &[u8], expected: &[u8]) -> String {
    let differs: Vec<usize> =
        (0..shown.len().min(expected.len())).filter(|&at| shown[at] != expected[at]).collect();
    let (first, last) = (differs.first().copied().unwrap_or(0), differs.last().copied().unwrap_or(0));
    format!(
        "{first}..={last}, {} bytes, {:?} instead of {:?}; {} and {} long",
        differs.len(),
        shown.get(first),
        expected.get(first),
        shown.len(),
        expected.len()
    )
}

#[test]
fn a_file_moves_under_its_writers() {
    for seed in 1..=6 {
        println!("seed {seed}");
        let ground = Ground::new();
        // So slow that much is written while it moves.
        let model = SlowModel { bandwidth: 60 * MIB, ..SlowModel::default() };
        let below = LocalBacking::open(&ground.backing()).expect("open");
        let engine = engine(&ground, Arc::new(SlowBacking::new(below, model)));
        let file = make(&engine, "file");
        let expected = write_all_over(&engine, file, seed);
        let shown = content(&engine, file);
        assert!(shown == expected, "seed {seed}: the open file differs at {}", difference(&shown, &expected));
        assert_eq!(engine.status().spilled, 1, "seed {seed}");
        close(&engine, file);
        engine.drain_all(|_| {}).expect("the backing takes it");
        assert!(
            std::fs::read(ground.backing().join("file")).expect("read") == expected,
            "seed {seed}: behind"
        );
        engine.stop();
    }
}

#[test]
fn what_is_cut_and_grows_again_while_it_moves_is_zeros() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    // Nothing is drained by itself: only who moves the file copies it.
    let setup = Setup { drain_delay: crate::support::NEVER, budget_bytes: BUDGET_BYTES, ..Setup::default() };
    let engine = ground.engine(watched.clone(), setup);
    engine.start();
    let file = make(&engine, "file");
    let block = vec![5; MIB as usize];
    let write = |at: u64, data: &[u8]| engine.write(file, at, data, false).expect("a write");
    let before = watched.calls();
    watched.set_fault(Fault::StallAfterCopy);
    for at in (0..13).chain([12; 100]) {
        write(at * MIB, &block);
        // Memory is counted ten times a second here.
        std::thread::sleep(Duration::from_millis(25));
        if watched.calls() > before {
            break;
        }
    }
    assert!(watched.calls() > before && engine.status().spilled == 0, "it moves");
    // Its content is on the backing, and who moves it waits there.
    std::thread::sleep(Duration::from_millis(300));
    let cut = |size| {
        let change = SetAttr { size: Some(size), ..SetAttr::default() };
        engine.set_attr(file, &change).expect("a new size");
    };
    cut(2 * MIB);
    cut(6 * MIB);
    cut(4 * MIB);
    write(8 * MIB, &block);
    watched.set_fault(Fault::None);
    let start = Instant::now();
    while held(&engine, file) != Held::Backing {
        assert!(start.elapsed() < Duration::from_secs(30), "it did not move within 30 s");
        std::thread::sleep(Duration::from_millis(5));
    }
    let bytes = content(&engine, file);
    let mib = |from: u64, to: u64| &bytes[(from * MIB) as usize..(to * MIB) as usize];
    assert_eq!(bytes.len() as u64, 9 * MIB);
    assert!(mib(0, 2).iter().all(|byte| *byte == 5) && mib(8, 9).iter().all(|byte| *byte == 5));
    assert!(mib(2, 8).iter().all(|byte| *byte == 0), "what was cut is zeros");
    close(&engine, file);
    engine.stop();
}

#[test]
fn two_files_move_at_once() {
    let ground = Ground::new();
    let engine = engine(&ground, ground.local());
    let files = [make(&engine, "one"), make(&engine, "two")];
    let expected: Vec<Vec<u8>> = std::thread::scope(|scope| {
        let work = files.map(|file| {
            let engine = &engine;
            scope.spawn(move || write_all_over(engine, file, file.0))
        });
        work.into_iter().map(|work| work.join().expect("a writer")).collect()
    });
    for (file, expected) in files.iter().zip(&expected) {
        assert!(content(&engine, *file) == *expected, "inode {}", file.0);
        close(&engine, *file);
    }
    engine.stop();
}

#[test]
fn a_backing_that_is_full_for_a_while_costs_nothing() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let engine = engine(&ground, watched.clone());
    let file = make(&engine, "file");
    watched.set_fault(Fault::Span { from: 0, until: u64::MAX, errno: libc::ENOSPC });
    let block = vec![7; MIB as usize];
    let mut accepted = 0;
    // Memory takes what it can; then the writer hears of it.
    let failed = (0..64).any(|at| {
        // Memory is counted ten times a second here.
        std::thread::sleep(Duration::from_millis(20));
        let written = engine.write(file, at * MIB, &block, false);
        accepted += u64::from(written.is_ok());
        written.is_err()
    });
    assert!(failed && accepted >= 12, "{accepted} MiB were accepted");
    assert!(content(&engine, file)[..(accepted * MIB) as usize].iter().all(|byte| *byte == 7));
    watched.set_fault(Fault::None);
    let start = Instant::now();
    while held(&engine, file) != Held::Backing {
        assert!(start.elapsed() < Duration::from_secs(30), "it did not move within 30 s");
        std::thread::sleep(Duration::from_millis(20));
        engine.write(file, 0, &block, false).expect("the backing has room again");
    }
    close(&engine, file);
    engine.drain_all(|_| {}).expect("the backing takes it");
    let behind = std::fs::read(ground.backing().join("file")).expect("read");
    assert!(
        behind.len() as u64 >= accepted * MIB && behind[..(accepted * MIB) as usize].iter().all(|b| *b == 7)
    );
    engine.stop();
}

#[test]
fn a_file_without_a_name_stays() {
    let ground = Ground::new();
    let engine = engine(&ground, ground.local());
    let file = make(&engine, "file");
    engine.unlink(Ino::ROOT, b"file").expect("it is there");
    let block = vec![9; MIB as usize];
    for at in 0..20 {
        std::thread::sleep(Duration::from_millis(10));
        engine.write(file, at * MIB, &block, false).expect("a write");
    }
    assert_eq!(held(&engine, file), Held::Memory);
    assert!(content(&engine, file).iter().all(|byte| *byte == 9));
    close(&engine, file);
    engine.stop();
}
