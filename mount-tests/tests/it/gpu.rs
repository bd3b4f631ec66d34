//! Copies of files on a GPU, which is simulated here: programs see nothing of it, whatever it does and whoever dies.

use aimss_mount_tests::binary::aimss;
use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, both_modes, wait_until};
use anyhow::Result;
use std::fs;
use std::time::Duration;

/// More than there is memory.
const FILES: u64 = 12;
const BYTES: usize = 12 << 20;

fn fill(mount: &Mount, seed: u64) -> Result<()> {
    for number in 0..FILES {
        fs::write(mount.at(format!("file-{number}")), pattern(seed + number, BYTES))?;
    }
    mount.drain()
}

/// One after the other comes into memory; twice, since what comes in pushes out what comes next.
fn check(mount: &Mount, seed: u64) -> Result<()> {
    for number in (0..FILES).chain((0..FILES).rev()) {
        let path = mount.at(format!("file-{number}"));
        // It may have no room.
        aimss().arg("warm").arg(&path).output()?;
        assert!(fs::read(path)? == pattern(seed + number, BYTES), "file {number}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn count(mount: &Mount, what: &str) -> Result<u64> {
    Ok(mount.status()?["gpu"][what].as_u64().unwrap_or(0))
}

both_modes! {
    with { memory: "96M", gpu: Some("simulated") }
    fn files_come_back_from_the_gpu(mount: &Mount) {
        fill(mount, 0)?;
        check(mount, 0)?;
        wait_until("copies", Duration::from_secs(10), || count(mount, "in_files").is_ok_and(|files| files > 2));
        check(mount, 0)?;
        let status = mount.status()?;
        assert_eq!((&status["gpu"]["simulated"], &status["gpu"]["lost"]), (&true.into(), &serde_json::Value::Null));
        assert!(count(mount, "out_files")? > 0, "{}", status["gpu"]);
        let shown = mount.aimss(&["status"]);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("simulated GPU"), "{shown}");
        // Written anew, the copies are of no use.
        fill(mount, 100)?;
        check(mount, 100)?;
    }

    with { memory: "96M", gpu: Some("simulated") }
    fn a_daemon_takes_its_copies_along_when_it_dies(mount: &Mount) {
        fill(mount, 0)?;
        check(mount, 0)?;
        mount.kill_daemon()?;
        check(mount, 0)?;
        // The next one begins with none, and makes its own.
        wait_until("copies", Duration::from_secs(10), || count(mount, "in_files").is_ok_and(|files| files > 0));
        check(mount, 0)?;
    }

    with { memory: "96M", gpu: Some("simulated:corrupt=20%,get=10%,put=10%,delay=1ms,seed=3") }
    fn a_gpu_that_misbehaves_shows_in_status_alone(mount: &Mount) {
        fill(mount, 0)?;
        for _ in 0..3 {
            check(mount, 0)?;
        }
        let status = mount.status()?;
        assert!(count(mount, "failures")? > 0 || count(mount, "in_files")? == 0, "{}", status["gpu"]);
    }
}

#[test]
fn what_can_not_be_is_refused_with_the_way_out() {
    let place = aimss_mount_tests::mount::place().expect("a directory");
    let (backing, point) = (place.path().join("backing"), place.path().join("mnt"));
    let refused = |arguments: &[&str]| {
        let output =
            aimss().arg("mount").arg(&backing).arg(&point).args(arguments).output().expect("it runs");
        assert!(!output.status.success(), "{arguments:?} is refused");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let cases: [(&[&str], &str); 6] = [
        (&["--gpu-memory", "1M", "--gpu", "simulated"], "give 64 MiB or more"),
        (&["--gpu-memory", "lots"], "--gpu-memory: "),
        (&["--gpu-memory", "1G", "--gpu", "simulated:speed=9"], "'speed' is no fault of a simulated GPU"),
        (&["--gpu-memory", "1G", "--gpu", "fast"], "there is no GPU 'fast'"),
        (&["--gpu-memory", "1G", "--gpu", "simulated", "--gpu-reserve", "x"], "--gpu-reserve: "),
        (&["--gpu-memory", "50%", "--gpu", "simulated"], "in bytes"),
    ];
    for (arguments, sentence) in cases {
        let said = refused(arguments);
        assert!(said.contains(sentence) && said.lines().count() == 1, "{arguments:?}: {said}");
    }
    let said = refused(&["--gpu-memory", "1G", "--gpu", "4000000000"]);
    assert!(said.contains("mount without --gpu-memory"), "{said}");
    assert!(refused(&["--gpu", "0"]).contains("--gpu-memory"), "it is asked for without its size");
}
