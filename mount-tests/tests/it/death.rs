//! The daemon dies, and nothing that was written is lost: the next mount takes up what the last one held. If its keeper
//! lives, an unmount that was under way is seen through by the next daemon.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::mount::well;
use aimss_mount_tests::{Mount, both_modes, wait_until};
use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Duration;

const BLOCK_BYTES: usize = 64 << 10;

/// Files that wait when an unmount begins.
const WAITING: u64 = 300;
const WAITING_BYTES: usize = 5000;

fn make_files(mount: &Mount) -> anyhow::Result<()> {
    for number in 0..WAITING {
        fs::write(mount.at(format!("dir/file{number}")), pattern(number, WAITING_BYTES))?;
    }
    Ok(())
}

/// The unmount has left the files on the backing, and nothing else.
fn nothing_but_files_is_left(mount: &Mount) -> anyhow::Result<()> {
    assert!(!mount.is_mounted());
    assert_eq!(mount.daemon_pid(), None);
    assert_eq!(mount.arena(), None);
    assert!(!mount.behind(".aimss/lease").exists());
    for number in 0..WAITING {
        let found = fs::read(mount.behind(format!("dir/file{number}")))?;
        assert!(found == pattern(number, WAITING_BYTES), "file{number}");
    }
    Ok(())
}

/// Kills the daemon, and waits for no other: it may have ended before anybody looks.
fn kill_daemon_at_once(mount: &Mount) -> anyhow::Result<()> {
    let daemon = mount.daemon_pid().and_then(Pid::from_raw).context("the mount has a daemon")?;
    Ok(kill_process(daemon, Signal::KILL)?)
}

/// Clears the dead daemon's mount and mounts again.
fn take_up(mount: &Mount) -> anyhow::Result<()> {
    well(&mount.aimss(&["umount", "--lazy"]))?;
    mount.mount_again()
}

both_modes! {
    with { drain_delay: "1h" }
    fn what_was_written_before_the_death_is_there_after_it(mount: &Mount) {
        fs::create_dir_all(mount.at("a/b"))?;
        for number in 0..50 {
            fs::write(mount.at(format!("a/b/file{number}")), pattern(number, 1000 * number as usize))?;
        }
        mount.drain()?;
        // Some known to the backing, some not.
        for number in 25..75 {
            fs::write(mount.at(format!("a/b/file{number}")), pattern(1000 + number, 70_000))?;
        }
        fs::rename(mount.at("a/b/file0"), mount.at("a/renamed"))?;
        fs::remove_file(mount.at("a/b/file1"))?;
        fs::hard_link(mount.at("a/b/file2"), mount.at("a/linked"))?;
        let open = File::open(mount.at("a/b/file3"))?;
        mount.kill_both()?;
        drop(open);
        take_up(mount)?;
        let look = |at: fn(&Mount, String) -> std::path::PathBuf| -> anyhow::Result<()> {
            for number in 2..75_u64 {
                let (seed, length) =
                    if number < 25 { (number, 1000 * number as usize) } else { (1000 + number, 70_000) };
                let found = fs::read(at(mount, format!("a/b/file{number}")))?;
                assert!(found == pattern(seed, length), "file{number}");
            }
            assert_eq!(fs::read(at(mount, "a/renamed".into()))?, b"");
            assert!(!at(mount, "a/b/file1".into()).exists());
            assert_eq!(fs::read(at(mount, "a/linked".into()))?, pattern(2, 2000));
            Ok(())
        };
        look(Mount::at)?;
        mount.drain()?;
        look(Mount::behind)?;
    }

    /// A file that has outgrown memory, a part of it swapped out.
    with { memory: "64M", drain_delay: "1h", overflow: Some("256M") }
    fn what_was_swapped_out_is_there_after_a_death(mount: &Mount) {
        const BLOCKS: u64 = 160;
        let bytes = |block| pattern(3000 + block, 1 << 20);
        fs::write(mount.behind("grows"), pattern(1, 1 << 20))?;
        let mut file = File::options().write(true).open(mount.at("grows"))?;
        for block in 0..BLOCKS {
            file.write_all(&bytes(block))?;
        }
        let memory = mount.status()?["memory"].clone();
        let left = [&memory["overflow"]["used"], &memory["spilled_files"]];
        assert!(left.iter().any(|count| count.as_u64() > Some(0)), "all of it is in memory: {memory}");
        mount.kill_both()?;
        drop(file);
        take_up(mount)?;
        let mut file = File::open(mount.at("grows"))?;
        for block in 0..BLOCKS {
            let mut found = vec![0; 1 << 20];
            file.read_exact(&mut found)?;
            assert!(found == bytes(block), "block {block}");
        }
        drop(file);
        mount.umount()?;
        assert!(!mount.beside("overflow").exists());
        mount.mount_again()?;
    }

    fn a_death_under_writes_loses_no_write_that_returned(mount: &Mount) {
        for round in 0..3_u64 {
            let name = format!("file{round}");
            let written = std::thread::scope(|scope| {
                let writer = scope.spawn(|| -> std::io::Result<usize> {
                    let mut file = File::create(mount.at(&name))?;
                    // Ends when the daemon is gone; passthrough goes on, so it ends by itself as well.
                    for number in 0..400 {
                        if file.write_all(&pattern(number, BLOCK_BYTES)).is_err() {
                            return Ok(number as usize);
                        }
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    Ok(400)
                });
                std::thread::sleep(Duration::from_millis(60));
                mount.kill_both()?;
                well(&mount.aimss(&["umount", "--lazy"]))?;
                anyhow::Ok(writer.join().expect("it does not panic")?)
            })?;
            assert!(written > 0, "the daemon died before the first write");
            mount.mount_again()?;
            let found = fs::read(mount.at(&name))?;
            assert!(found.len() >= written * BLOCK_BYTES, "{} of {written} blocks", found.len() / BLOCK_BYTES);
            for (number, block) in found.chunks(BLOCK_BYTES).take(written).enumerate() {
                assert!(block == pattern(number as u64, BLOCK_BYTES), "block {number} of {written}");
            }
            mount.drain()?;
            assert!(fs::read(mount.behind(&name))? == found);
        }
    }

    with { drain_delay: "1h" }
    fn a_death_during_the_drain_loses_nothing(mount: &Mount) {
        for number in 0..200 {
            fs::write(mount.at(format!("file{number}")), pattern(number, 200_000))?;
        }
        std::thread::scope(|scope| {
            let drain = scope.spawn(|| mount.aimss(&["drain"]));
            std::thread::sleep(Duration::from_millis(40));
            mount.kill_both()?;
            drain.join().expect("it does not panic");
            anyhow::Ok(())
        })?;
        take_up(mount)?;
        mount.drain()?;
        for number in 0..200 {
            assert!(fs::read(mount.behind(format!("file{number}")))? == pattern(number, 200_000), "file{number}");
        }
    }

    /// Storage is so slow that the drain takes seconds.
    with { drain_delay: "1h", slow: Some("latency=5ms") }
    fn an_unmount_goes_on_with_the_next_daemon_where_one_dies_in_its_drain(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        make_files(mount)?;
        let drained = || fs::read_dir(mount.behind("dir")).map_or(0, Iterator::count) as u64;
        std::thread::scope(|scope| {
            let umount = scope.spawn(|| mount.umount());
            wait_until("the drain is under way", Duration::from_secs(60), || drained() > 0);
            kill_daemon_at_once(mount)?;
            assert!(drained() < WAITING, "the drain was over before the daemon died");
            umount.join().expect("it does not panic")
        })?;
        nothing_but_files_is_left(mount)?;
        mount.mount_again()?;
    }

    /// What the daemon was told to give up, the next one has to be told as well, or it would try for ever.
    with { drain_delay: "1h" }
    fn an_unmount_that_exports_is_seen_through_by_the_next_daemon(mount: &Mount) {
        for dir in ["dir", "stuck"] {
            fs::create_dir(mount.at(dir))?;
        }
        mount.drain()?;
        make_files(mount)?;
        fs::write(mount.at("stuck/file"), "kept")?;
        fs::rename(mount.behind("stuck"), mount.behind("away"))?;
        fs::write(mount.behind("stuck"), "in the way")?;
        let export = mount.beside("export");
        std::thread::scope(|scope| {
            let to = export.to_str().context("a path in UTF-8")?;
            let umount = scope.spawn(move || mount.aimss(&["umount", "--export", to]));
            wait_until("the mount is gone", Duration::from_secs(60), || !mount.is_mounted());
            // It tries for eight more seconds to bring the rest to the backing.
            kill_daemon_at_once(mount)?;
            well(&umount.join().expect("it does not panic"))
        })?;
        nothing_but_files_is_left(mount)?;
        assert_eq!(fs::read(export.join("stuck/file"))?, b"kept");
        fs::remove_file(mount.behind("stuck"))?;
        fs::rename(mount.behind("away"), mount.behind("stuck"))?;
        mount.mount_again()?;
    }

    /// All is on the backing, and what the daemon made is half removed.
    with { failpoints: true }
    fn an_unmount_leaves_nothing_where_the_daemon_dies_at_its_very_end(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        make_files(mount)?;
        let failpoints = mount.failpoints()?;
        failpoints.arm("after-discarded", 1)?;
        mount.umount()?;
        // A release has no failpoints.
        assert!(!failpoints.is_armed()? || failpoints.names()?.is_empty(), "no daemon died");
        nothing_but_files_is_left(mount)?;
        mount.mount_again()?;
    }
}
