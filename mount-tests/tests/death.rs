//! The daemon dies, and nothing that was written is lost: the next mount takes up what the last one held.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::mount::well;
use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Duration;

const BLOCK_BYTES: usize = 64 << 10;

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
}
