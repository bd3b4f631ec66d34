//! Daemons are killed, or give way to another program, one after the other while programs work on the mount; their keeper has
//! the next one ready, or starts it. No program sees an error, nothing is lost, nothing is done twice. `AIMSS_KILLS=N` for
//! more, `AIMSS_UPGRADES=N`, `AIMSS_SEED=N` to repeat.

use aimss_mount_tests::bytes::{Pattern, pattern};
use aimss_mount_tests::mount::well;
use aimss_mount_tests::works::{WORKS, while_at_work};
use aimss_mount_tests::{Mount, binary, both_modes, skip, wait_until};
use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// More than a daemon takes to begin or to end, on a machine that does other things.
const SOON: Duration = Duration::from_secs(20);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Does `what` so many times while all work; it is given a number at random each time.
fn while_they_work(mount: &Mount, times: u64, what: impl Fn(u64) -> Result<()>) -> Result<()> {
    let seed = number("AIMSS_SEED", 1);
    println!("AIMSS_SEED={seed}, {times} times");
    let mut random = Pattern::new(seed);
    while_at_work(mount, WORKS, |under_way| {
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(50 + random.next_number() % 250));
            if under_way.has_failed() {
                break;
            }
            what(random.next_number())?;
        }
        Ok(())
    })
}

both_modes! {
    /// Each was removed in the time of one daemon, and its log is to go when its name is gone from the backing.
    fn removed_streams_go_although_the_daemon_dies(mount: &Mount) {
        for number in 0..3 {
            fs::write(mount.at(format!("{number}.stream")), "a record\n")?;
        }
        mount.drain()?;
        let logs = || fs::read_dir(mount.behind(".aimss/streams")).map_or(0, Iterator::count);
        assert_eq!(logs(), 3);
        for number in 0..2 {
            fs::remove_file(mount.at(format!("{number}.stream")))?;
        }
        mount.kill_daemon()?;
        wait_until("the logs of what was removed go", Duration::from_secs(60), || logs() == 1);
        assert_eq!(mount.status()?["streams"]["open"], 1);
        assert_eq!(fs::read(mount.at("2.stream"))?, b"a record\n");
        // Shown as what it holds, it is something else on the backing.
        fs::remove_file(mount.at("2.stream"))?;
    }

    /// The change is in the journal, and its daemon did not live to see to the log.
    with { failpoints: true }
    fn a_stream_that_lost_its_name_in_the_moment_of_a_death_goes(mount: &Mount) {
        let failpoints = mount.failpoints()?;
        fs::write(mount.at("plain"), "")?;
        if failpoints.names()?.is_empty() {
            skip("the binary has no failpoints");
            return Ok(());
        }
        for name in ["mover", "replaced", "removed"] {
            fs::write(mount.at(format!("{name}.stream")), format!("{name}\n"))?;
        }
        mount.drain()?;
        let logs = || fs::read_dir(mount.behind(".aimss/streams")).map_or(0, Iterator::count);
        assert_eq!(logs(), 3);
        let through_a_death = |change: &dyn Fn() -> std::io::Result<()>| -> Result<()> {
            let before = mount.daemon_pid();
            failpoints.arm("after-committed", 1)?;
            change()?;
            assert_ne!(mount.daemon_pid(), before, "the daemon died over it");
            Ok(())
        };
        through_a_death(&|| fs::rename(mount.at("mover.stream"), mount.at("replaced.stream")))?;
        assert_eq!(fs::read(mount.at("replaced.stream"))?, b"mover\n");
        wait_until("the log of what was replaced goes", Duration::from_secs(60), || logs() == 2);
        through_a_death(&|| fs::remove_file(mount.at("removed.stream")))?;
        wait_until("the log of what was removed goes", Duration::from_secs(60), || logs() == 1);
        assert_eq!(fs::read(mount.at("replaced.stream"))?, b"mover\n");
        fs::remove_file(mount.at("replaced.stream"))?;
    }

    with { drain_delay: "100ms" }
    fn programs_do_not_notice_that_daemons_give_way_to_others(mount: &Mount) {
        let upgrades = number("AIMSS_UPGRADES", 6);
        let other = mount.beside("another-aimss");
        fs::copy(binary::path(), &other)?;
        while_they_work(mount, upgrades, |random| {
            mount.upgrade(if random % 2 == 0 { &other } else { binary::path() })
        })?;
        let status = mount.status()?;
        assert_eq!(status["daemon"]["upgrades"].as_u64(), Some(upgrades));
        assert_eq!(status["daemon"]["restarts"].as_u64(), Some(0));
        assert_eq!(status["files"]["open"].as_u64(), Some(0));
    }
}

fn script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, format!("#!/bin/sh\n{text}\n"))?;
    Ok(fs::set_permissions(path, PermissionsExt::from_mode(0o755))?)
}

both_modes! {
    fn a_program_serves_on_though_its_file_is_removed_or_replaced(mount: &Mount) {
        let held = File::create(mount.at("held"))?;
        let other = mount.beside("another-aimss");
        fs::copy(binary::path(), &other)?;
        mount.upgrade(&other)?;
        fs::remove_file(&other)?;
        for replaced in [false, true] {
            if replaced {
                script(&other, "exit 1")?;
            }
            // It is of the program that is gone, too.
            mount.wait_for_standby();
            mount.kill_daemon()?;
            let program = mount.program()?;
            assert!(program.to_string_lossy().ends_with("/another-aimss (deleted)"), "{}", program.display());
            let pid = mount.daemon_pid().context("a daemon")?;
            assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm"))?, "aimss\n");
            held.write_all_at(b"goes on", 0)?;
        }
        let status = mount.status()?;
        assert_eq!(status["daemon"]["restarts"].as_u64(), Some(2));
        assert_eq!(status["daemon"]["upgrades"].as_u64(), Some(1));
    }

    fn a_program_that_crashes_soon_after_an_upgrade_gives_way_to_the_one_before(mount: &Mount) {
        let held = File::create(mount.at("held"))?;
        let before = mount.program()?;
        let (other, crashes, now) =
            (mount.beside("another-aimss"), mount.beside("crashes"), mount.beside("now"));
        fs::copy(binary::path(), &other)?;
        // Each daemon of it has a process that waits for the moment.
        let wait = format!("while kill -0 $$ && [ ! -e '{}' ]; do sleep 0.05; done", now.display());
        let text = format!(
            "({wait}; kill -ABRT $$) </dev/null >/dev/null 2>&1 &\nexec '{}' \"$@\"",
            other.display()
        );
        script(&crashes, &text)?;
        well(&mount.aimss(&["upgrade", "--binary", crashes.to_str().context("a path in UTF-8")?]))?;
        assert_eq!(mount.program()?, fs::canonicalize(&other)?);
        assert_eq!(mount.status()?["daemon"]["upgrades"].as_u64(), Some(1));
        std::thread::sleep(Duration::from_secs(1));
        fs::write(&now, "")?;
        let serves_again = || mount.program().is_ok_and(|program| program == before);
        wait_until("the program before serves again", Duration::from_secs(20), serves_again);
        held.write_all_at(b"goes on", 0)?;
        let daemon = mount.status()?["daemon"].clone();
        assert_eq!(daemon["restarts"].as_u64(), Some(1));
        assert_eq!(daemon["upgrades"].as_u64(), Some(0));
        let death = daemon["last_death"].as_str().context("it says how it died")?;
        assert_eq!(death, "signal 6 (ABORT); the program before the upgrade serves again");
        // Who stands ready is of that program, too.
        mount.wait_for_standby();
        mount.kill_daemon()?;
        assert_eq!(mount.program()?, before);
    }

    /// Programs get an error, and do not wait for ever.
    fn daemons_that_crash_again_and_again_are_given_up(mount: &Mount) {
        fs::write(mount.at("kept"), "kept")?;
        for _ in 0..7 {
            wait_until("a daemon", Duration::from_secs(20), || mount.daemon_pid().is_some());
            mount.crash_daemon()?;
        }
        let mut looked = 0;
        let is_dead = || {
            // A name that was looked for before might be known to the kernel.
            looked += 1;
            let found = fs::metadata(mount.at(format!("unknown{looked}")));
            found.is_err_and(|error| error.raw_os_error() == Some(libc::ENOTCONN))
        };
        wait_until("the end of the mount", Duration::from_secs(20), is_dead);
        well(&mount.aimss(&["umount", "--lazy"]))?;
        mount.mount_again()?;
        assert_eq!(fs::read(mount.at("kept"))?, b"kept");
    }
}

both_modes! {
    fn who_can_not_take_over_leaves_the_daemon_where_it_is(mount: &Mount) {
        let held = File::create(mount.at("held"))?;
        let never_ready = mount.beside("never-ready");
        script(&never_ready, "exec sleep 60")?;
        let no_program = mount.beside("no-program");
        fs::write(&no_program, "nothing")?;
        let before = mount.daemon_pid();
        for (binary, says) in [
            (Path::new("/bin/false"), "ended with code 1"),
            (never_ready.as_path(), "not ready in the time given"),
            (no_program.as_path(), "can't be executed"),
            (Path::new("/nowhere/aimss"), "no such file"),
        ] {
            let output = binary::aimss()
                .args(["upgrade", "--within", "1s", "--binary"])
                .arg(binary)
                .arg(mount.point())
                .output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.code() == Some(1) && said.contains(says), "{}: {said}", binary.display());
            assert!(said.lines().count() == 1, "one sentence: {said}");
            assert_eq!(mount.daemon_pid(), before);
            held.write_all_at(b"goes on", 0)?;
        }
        // Who stands ready is there again.
        mount.wait_for_standby();
    }
}

both_modes! {
    with { drain_delay: "100ms" }
    fn programs_do_not_notice_that_daemons_are_killed(mount: &Mount) {
        let kills = number("AIMSS_KILLS", 20);
        while_they_work(mount, kills, |random| {
            // Of three one has had the time to stand ready.
            if random.is_multiple_of(3) {
                mount.wait_for_standby();
            }
            mount.kill_daemon()
        })?;
        let status = mount.status()?;
        assert_eq!(status["daemon"]["restarts"].as_u64(), Some(kills));
        assert!(status["daemon"]["last_death"].as_str().is_some_and(|reason| reason.contains("KILL")));
        // Whatever was open is closed.
        assert_eq!(status["files"]["open"].as_u64(), Some(0));
    }
}

both_modes! {
    /// A death between counting a reference and the kernel's hearing of it, or while the kernel gives some back, leaves counts
    /// too high; what they are of must not stay in memory for ever.
    with { drain_delay: "100ms" }
    fn what_is_removed_leaves_memory_although_daemons_died(mount: &Mount) {
        let mut random = Pattern::new(number("AIMSS_SEED", 1));
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let churn: Vec<_> = ["a", "b", "c"]
                .into_iter()
                .map(|name| (mount.at(name), &stop))
                .map(|(dir, stop)| scope.spawn(move || makes_lists_and_removes(&dir, stop)))
                .collect();
            let killed = (0..15).try_for_each(|_| {
                std::thread::sleep(Duration::from_millis(30 + random.next_number() % 150));
                mount.kill_daemon()
            });
            stop.store(true, Ordering::Relaxed);
            churn.into_iter().try_for_each(|thread| thread.join().expect("no panic"))?;
            killed
        })?;
        let held = || {
            let known = mount.status().ok()?["files"]["known"].as_u64()?;
            Some((known, fs::read_dir(mount.arena()?.join("files")).ok()?.count()))
        };
        println!("{:?} right after it", held());
        wait_until("what was removed leaves memory", Duration::from_secs(60), || held() == Some((1, 0)));
    }
}

fn makes_lists_and_removes(dir: &Path, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        fs::create_dir(dir)?;
        for number in 0..50 {
            fs::write(dir.join(format!("file-{number}")), "content")?;
        }
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            anyhow::ensure!(entry.metadata()?.len() == 7, "{}", entry.path().display());
        }
        fs::remove_dir_all(dir)?;
    }
    Ok(())
}

/// Mounts again once the last daemon has ended by itself, with nothing left.
fn mount_after_the_end(mount: &Mount) {
    wait_until("the last daemon drains what is left, and ends", SOON, || mount.arena().is_none());
    assert!(!mount.behind(".aimss").exists());
    wait_until("a mount after it", SOON, || mount.mount_again().is_ok());
}

both_modes! {
    /// Whoever unmounted it. What is left is drained by the daemon, and where that dies over it, by the next one.
    with { drain_delay: "1h", failpoints: true }
    fn a_daemon_that_dies_after_the_unmount_is_followed_by_one_that_drains(mount: &Mount) {
        let failpoints = mount.failpoints()?;
        if failpoints.names()?.is_empty() {
            skip("the binary has no failpoints");
            return Ok(());
        }
        let content = pattern(1, 100_000);
        // On the backing nobody but the drain makes directories.
        for (deaths, point) in [(1, "before-make"), (2, "after-make")] {
            fs::create_dir(mount.at(point))?;
            fs::write(mount.at(point).join("file"), &content)?;
            failpoints.arm(point, 1)?;
            wait_until("it is unmounted", SOON, || unmount(mount.point(), UnmountFlags::empty()).is_ok());
            wait_until("its daemon dies", SOON, || failpoints.is_armed().is_ok_and(|armed| !armed));
            mount_after_the_end(mount);
            assert!(fs::read(mount.behind(point).join("file"))? == content, "what {point} left");
            let log = fs::read_to_string(mount.beside("log"))?;
            assert_eq!(log.matches("died: signal 9").count(), deaths, "{log}");
        }
    }

    /// The name is gone; who has a file open does not notice.
    fn a_file_that_is_open_outlives_the_mount_and_its_daemon(mount: &Mount) {
        let held = File::create_new(mount.at("held"))?;
        well(&mount.aimss(&["umount", "--lazy"]))?;
        assert!(!mount.is_mounted());
        held.write_all_at(b"before", 0)?;
        mount.kill_daemon()?;
        held.write_all_at(b" and after", 6)?;
        drop(held);
        mount_after_the_end(mount);
        assert_eq!(fs::read(mount.behind("held"))?, b"before and after");
    }
}
