//! Daemons are killed, or give way to another program, one after the other while programs work on the mount; their keeper has
//! the next one ready, or starts it. No program sees an error, nothing is lost, nothing is done twice. `AIMSS_KILLS=N` for
//! more, `AIMSS_UPGRADES=N`, `AIMSS_SEED=N` to repeat.

use aimss_mount_tests::bytes::Pattern;
use aimss_mount_tests::works::{WORKS, while_at_work};
use aimss_mount_tests::{Mount, binary, both_modes, skip_allowed, wait_until};
use anyhow::Result;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

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
            // A release has none.
            skip_allowed("this aimss has no failpoints");
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

both_modes! {
    fn who_can_not_take_over_leaves_the_daemon_where_it_is(mount: &Mount) {
        let held = File::create(mount.at("held"))?;
        let never_ready = mount.beside("never-ready");
        fs::write(&never_ready, "#!/bin/sh\nexec sleep 60\n")?;
        fs::set_permissions(&never_ready, PermissionsExt::from_mode(0o755))?;
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
