//! Disks that stall and disks that are full, under a real mount: nothing that was accepted is lost, and who does not
//! need the disk goes on. `AIMSS_STALL_SECONDS=60` for longer stalls.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::disk::on_a_disk;
use aimss_mount_tests::wait_until;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const FILE_BYTES: usize = 1 << 20;

fn stall() -> Duration {
    let seconds = std::env::var("AIMSS_STALL_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

#[test]
fn a_disk_that_stalls_holds_up_only_who_needs_it() {
    on_a_disk(256 << 20, "64M", |mount, disk| {
        fs::create_dir(mount.at("d"))?;
        for number in 0..4 {
            fs::write(mount.at(format!("d/before-{number}")), pattern(number, FILE_BYTES))?;
        }
        mount.drain()?;
        let synced = AtomicBool::new(false);
        let frozen = disk.freeze()?;
        let begun = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let written = scope.spawn(|| -> Result<()> {
                // Some of these may have to wait, for the disk or for memory; none of them fails.
                for number in 0..40 {
                    fs::write(mount.at(format!("d/during-{number}")), pattern(number, FILE_BYTES))?;
                }
                Ok(())
            });
            let durable = scope.spawn(|| -> Result<()> {
                fs::write(mount.at("d/durable"), "content")?;
                File::open(mount.at("d/durable"))?.sync_all()?;
                synced.store(true, Ordering::Relaxed);
                Ok(())
            });
            let looked = (|| -> Result<u64> {
                let mut looks = 0;
                while begun.elapsed() < stall() {
                    // Each of these ends while the disk stalls, or the test hangs until it is aborted.
                    let number = looks % 4;
                    let read = fs::read(mount.at(format!("d/before-{number}")))?;
                    assert!(read == pattern(number, FILE_BYTES), "before-{number}");
                    fs::metadata(mount.at("d"))?;
                    mount.status()?;
                    looks += 1;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Ok(looks)
            })();
            assert!(!synced.load(Ordering::Relaxed), "durable, on a disk that takes nothing");
            drop(frozen);
            written.join().expect("no panic")?;
            durable.join().expect("no panic")?;
            assert!(looked? > 0);
            Ok(())
        })?;
        assert_eq!(fs::read(mount.behind("d/durable"))?, b"content");
        mount.drain()?;
        for number in 0..40 {
            assert!(fs::read(mount.behind(format!("d/during-{number}")))? == pattern(number, FILE_BYTES));
        }
        Ok(())
    });
}

#[test]
fn a_full_disk_refuses_writers_and_loses_nothing_that_it_took() {
    on_a_disk(32 << 20, "64M", |mount, _| {
        let mut taken = Vec::new();
        let refused = (0..100).find(|number| {
            let path = mount.at(format!("file-{number}"));
            match fs::write(&path, pattern(*number, FILE_BYTES)) {
                Ok(()) => {
                    taken.push(*number);
                    false
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
                    fs::remove_file(&path).expect("what was begun can be removed");
                    true
                }
            }
        });
        // More may have been taken than the disk has room for, as long as memory keeps it.
        refused.context("100 MiB on a disk of 32")?;
        for number in &taken {
            let read = fs::read(mount.at(format!("file-{number}")))?;
            assert!(read == pattern(*number, FILE_BYTES), "file-{number}");
        }
        let failing = || mount.status().is_ok_and(|status| status["drain"]["failing"].as_u64() > Some(0));
        wait_until("status says what is not on the disk", Duration::from_secs(30), failing);
        // With room again, everything arrives by itself. Half of the disk is enough for all that stay.
        let (kept, removed) = taken.split_at(16);
        for number in removed {
            fs::remove_file(mount.at(format!("file-{number}")))?;
        }
        wait_until("all is on the disk", Duration::from_secs(60), || mount.drain().is_ok());
        for number in kept {
            let read = fs::read(mount.behind(format!("file-{number}")))?;
            assert!(read == pattern(*number, FILE_BYTES), "file-{number}");
        }
        Ok(())
    });
}
