//! A backing that fails for a while, at every call of a small drain in turn: nothing is lost, nothing is left behind,
//! no version is taken for somebody else's, and fsync says so.

use crate::support::ground::{Ground, Setup};
use crate::support::model::ROOT;
use crate::support::watched::{Fault, Watched};
use crate::support::world::World;
use crate::support::{NEVER, compare};
use aimss_engine::Kind;

/// Calls that fail in a row: more than one retry.
const FAILING: u64 = 3;

#[test]
fn a_drain_survives_io_errors_at_every_call() {
    at_every_call(libc::EIO);
}

#[test]
fn a_drain_survives_a_full_backing_at_every_call() {
    at_every_call(libc::ENOSPC);
}

#[test]
fn a_drain_survives_an_exceeded_quota_at_every_call() {
    at_every_call(libc::EDQUOT);
}

fn at_every_call(errno: i32) {
    let mut at = 0;
    while small_drain(Fault::Span { from: at, until: at + FAILING, errno }) {
        // The spans touch, so that each call fails once.
        at += FAILING;
    }
}

/// False when no call failed: the drain is shorter than that.
fn small_drain(fault: Fault) -> bool {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 7);
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
    watched.set_fault(match fault {
        Fault::Span { from, until, errno } => {
            Fault::Span { from: from + before, until: until + before, errno }
        }
        other => other,
    });
    world.drain_again();
    let failed = watched.failed() > 0;
    compare::backing(&mut world, &ground);
    assert_eq!(watched.violations(), Vec::<String>::new());
    failed
}

#[test]
fn fsync_reports_a_failure_and_the_next_one_succeeds() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 7);
    let file = world.file(ROOT, "file", &[1; 10_000]);
    watched.set_fault(Fault::Span { from: 0, until: u64::MAX, errno: libc::EIO });
    assert!(!world.sync(file, &ground, &watched), "an fsync that did not reach the backing says so");
    assert!(world.engine.status().last_error.is_some(), "and so does status");
    watched.set_fault(Fault::None);
    assert!(world.sync(file, &ground, &watched));
    world.engine.start();
    world.drain();
    compare::backing(&mut world, &ground);
}

#[test]
fn a_file_half_written_when_the_backing_was_full_is_no_conflict() {
    let ground = Ground::new();
    let watched = Watched::new(ground.local(), Fault::None);
    let mut world = World::new(&ground, &watched, Setup { drain_delay: NEVER, ..Setup::default() }, 7);
    let file = world.file(ROOT, "file", &[1; 50_000]);
    assert!(world.sync(file, &ground, &watched));
    let handle = world.open(file, true, false, false);
    world.write(handle, 100, &[2; 60_000]);
    world.close(handle);
    watched.set_fault(Fault::Cut { at: watched.calls(), torn: 500 });
    assert!(!world.sync(file, &ground, &watched));
    watched.set_fault(Fault::None);
    world.engine.start();
    world.drain();
    compare::backing(&mut world, &ground);
}
