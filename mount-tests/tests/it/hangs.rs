//! What hangs can be named, killed and taken away: requests that a stalled disk holds, programs that wait for them,
//! and a mount whose daemon does nothing any more.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::disk::on_a_disk;
use aimss_mount_tests::{Mode, Mount, Setup, wait_until};
use anyhow::{Result, ensure};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 1 << 20;
/// What a killed program may take to be gone; a look at who waits comes every second.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A program that does not end before the disk goes on, if nobody kills it.
struct Waiting(Child);

impl Waiting {
    fn start(script: &str, argument: &Path) -> Result<Waiting> {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(argument).stdin(Stdio::null());
        Ok(Waiting(command.spawn()?))
    }

    fn waits(&mut self) -> Result<()> {
        ensure!(self.0.try_wait()?.is_none(), "it has ended");
        Ok(())
    }

    fn kill(mut self) -> Result<()> {
        self.waits()?;
        self.0.kill()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.signal() == Some(libc::SIGKILL), "{status}");
                return Ok(());
            }
            ensure!(begun.elapsed() < GONE_WITHIN, "a killed program waits on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn requests(mount: &Mount) -> Result<Vec<(String, String)>> {
    let status = mount.status()?;
    let oldest = status["requests"]["oldest"].as_array().cloned().unwrap_or_default();
    let word = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    Ok(oldest.iter().map(|request| (word(&request["operation"]), word(&request["path"]))).collect())
}

#[test]
fn programs_that_wait_for_a_stalled_disk_are_named_and_can_be_killed() {
    on_a_disk(256 << 20, "64M", |mount, disk| {
        fs::create_dir(mount.at("d"))?;
        fs::write(mount.at("d/kept"), pattern(1, FILE_BYTES))?;
        mount.drain()?;
        let frozen = disk.freeze()?;
        // Under `exec` there is one process: who is killed is who waits.
        let mut syncs = Waiting::start("echo more >>\"$1\" && exec sync \"$1\"", &mount.at("d/kept"))?;
        let mut makes = Waiting::start("mkdir \"$1\" && exec sync \"$1\"", &mount.at("d/new"))?;
        let named = || {
            let requests = requests(mount).unwrap_or_default();
            requests.iter().any(|(operation, path)| operation == "fsync" && path == "d/kept")
        };
        wait_until("status names the fsync", Duration::from_secs(30), named);
        let text = String::from_utf8(mount.aimss(&["status"]).stdout)?;
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(text.contains("fsync of d/kept by thread"), "{text}");
        syncs.waits()?;
        makes.waits()?;
        syncs.kill()?;
        makes.kill()?;
        ensure!(fs::metadata(mount.at("d/kept"))?.len() == FILE_BYTES as u64 + 5, "others go on");
        drop(frozen);
        // What was let go is done all the same, and leaves no handle behind.
        let nothing_waits = || {
            let Ok(status) = mount.status() else { return false };
            let (files, requests) = (&status["files"]["open"], &status["requests"]["too_long"]);
            files.as_u64() == Some(0) && requests.as_u64() == Some(0)
        };
        wait_until("nothing is open and nothing waits", Duration::from_secs(60), nothing_waits);
        ensure!(mount.at("d/new").exists(), "what was made stays");
        Ok(())
    });
}

#[test]
fn programs_killed_while_they_open_or_list_leave_no_handle_behind() {
    // Each call on the backing takes longer than anybody waits.
    let setup = Setup { slow: Some("latency=4s"), ..Setup::new(Mode::Passthrough) };
    let fill = |backing: &Path| {
        fs::create_dir(backing.join("d"))?;
        fs::write(backing.join("d/file"), pattern(3, FILE_BYTES))?;
        Ok(())
    };
    let Some(mount) = Mount::start_over(&setup, fill) else { return };
    let body = || -> Result<()> {
        // Known from here on: what waits below is the open, the listing, the lookup.
        fs::metadata(mount.at("d/file"))?;
        let scripts = ["exec cat \"$1/d/file\"", "exec ls \"$1/d\"", "exec stat \"$1/e\""];
        let waiting: Vec<Waiting> =
            scripts.iter().map(|script| Waiting::start(script, &mount.point())).collect::<Result<_>>()?;
        std::thread::sleep(Duration::from_secs(1));
        // All at once: the first ones must not wait until the last ones have their answers.
        std::thread::scope(|scope| {
            let killed: Vec<_> = waiting.into_iter().map(|program| scope.spawn(|| program.kill())).collect();
            killed.into_iter().try_for_each(|killed| killed.join().expect("no panic"))
        })?;
        let nothing_is_open = || {
            let status = mount.status().unwrap_or_default();
            status["files"]["open"].as_u64() == Some(0)
        };
        // Answers that nobody waits for are still on their way.
        std::thread::sleep(Duration::from_secs(9));
        wait_until("nothing is open", Duration::from_secs(20), nothing_is_open);
        ensure!(fs::read(mount.at("d/file"))? == pattern(3, FILE_BYTES), "others go on");
        Ok(())
    };
    body().unwrap_or_else(|error| panic!("{error:?}"));
    mount.umount().expect("nothing is in use");
}

#[test]
fn force_takes_away_a_mount_that_hangs_and_nothing_is_lost() {
    let setup = Setup { drain_delay: "1h", ..Setup::new(Mode::Passthrough) };
    let Some(mount) = Mount::start(&setup) else { return };
    let body = || -> Result<()> {
        fs::create_dir(mount.at("d"))?;
        fs::write(mount.at("d/file"), pattern(2, FILE_BYTES))?;
        mount.wait_for_standby();
        mount.stop_both()?;
        let mut stuck = Waiting::start("mkdir \"$1/stuck\"", &mount.point())?;
        std::thread::sleep(Duration::from_millis(300));
        stuck.waits()?;
        let begun = Instant::now();
        let output = mount.aimss(&["umount", "--force"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{said}");
        ensure!(begun.elapsed() < GONE_WITHIN, "it took {:?}", begun.elapsed());
        ensure!(said.contains("takes it up"), "{said}");
        ensure!(!mount.is_mounted(), "it is gone");
        ensure!(mount.daemon_pid().is_none(), "its daemon is gone");
        ensure!(!stuck.0.wait()?.success(), "who waited got an error");
        ensure!(!mount.behind("d").exists(), "nothing was drained");
        mount.mount_again()?;
        ensure!(fs::read(mount.at("d/file"))? == pattern(2, FILE_BYTES), "it has what was left");
        Ok(())
    };
    body().unwrap_or_else(|error| panic!("{error:?}"));
    mount.finish();
    let Some(mount) = Mount::start(&setup) else { return };
    mount.umount().expect("it is unmounted");
    let output = mount.aimss(&["umount", "--force"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("is not mounted"), "{said}");
}
