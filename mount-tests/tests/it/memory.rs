//! Little memory: of the program, and of the mount. Nothing fails for lack of it.

use aimss_measure::cgroup::Group;
use aimss_mount_tests::bytes::{Pattern, pattern};
use aimss_mount_tests::{Mount, both_modes, program, skip, wait_until};
use anyhow::Result;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

both_modes! {
    fn a_program_limited_to_128_mib_writes_512(mount: &Mount) {
        let group = match Group::new(&format!("aimss-test-{:?}", std::thread::current().id()), Some(128 << 20)) {
            Ok(group) => group,
            Err(error) => {
                skip(&format!("{error:#}"));
                return Ok(());
            }
        };
        let output = Command::new("sh")
            .args(["-c", "echo $$ >\"$1\" && exec dd if=/dev/zero of=\"$2\" bs=1M count=512", "sh"])
            .arg(group.entrance())
            .arg(mount.at("file"))
            .output()?;
        assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        assert_eq!(fs::metadata(mount.at("file"))?.size(), 512 << 20);
    }

    /// A file of twice the memory: it moves to the backing under fsx.
    with { memory: "16M" }
    fn fsx_on_a_file_larger_than_memory(mount: &Mount) {
        program::run(mount, "fsx.sh", &["3000", "5", "flen=33554432", "opsize.max=2097152"])?;
    }

    with { memory: "16M" }
    fn fsx_while_others_fill_memory(mount: &Mount) {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let others = scope.spawn(|| -> std::io::Result<()> {
                for number in (0..).take_while(|_| !over.load(Ordering::Relaxed)) {
                    let path = mount.at(format!("other{}", number % 5));
                    fs::write(&path, pattern(number, 5 << 20))?;
                    assert!(fs::read(&path)? == pattern(number, 5 << 20), "{number}");
                }
                Ok(())
            });
            let result = program::run(mount, "fsx.sh", &["8000", "6", "sibling=true"]);
            over.store(true, Ordering::Relaxed);
            others.join().expect("others don't panic")?;
            result
        })?;
    }

    /// In place, by a program that has had it open since it was small; then read, changed at random, and read again. Memory
    /// is kept to, and what was swapped out is the file's all the same.
    with { memory: "64M", overflow: Some("512M") }
    fn a_file_outgrows_memory_while_it_is_open(mount: &Mount) {
        const BLOCKS: u64 = 384;
        const BLOCK_BYTES: u64 = 1 << 20;
        let path = mount.at("grows");
        fs::write(mount.behind("grows"), pattern(1, 1 << 20))?;
        let file = File::options().read(true).write(true).open(&path)?;
        let mut seeds: Vec<u64> = (1000..1000 + BLOCKS).collect();
        let write = |block: u64, seed| file.write_all_at(&pattern(seed, BLOCK_BYTES as usize), block * BLOCK_BYTES);
        let check = |seeds: &[u64]| -> std::io::Result<()> {
            let mut bytes = vec![0; BLOCK_BYTES as usize];
            for (block, seed) in (0..).zip(seeds) {
                file.read_exact_at(&mut bytes, block * BLOCK_BYTES)?;
                assert!(bytes == pattern(*seed, BLOCK_BYTES as usize), "block {block}");
            }
            Ok(())
        };
        let used = || -> Result<u64> { Ok(mount.status()?["memory"]["used"].as_u64().unwrap_or(0)) };
        let mut most = 0;
        for block in 0..BLOCKS {
            write(block, seeds[block as usize])?;
            if block % 16 == 0 {
                most = most.max(used()?);
            }
        }
        // A burst fits between two looks, on a busy machine several: but for them all of it would be there.
        let written = BLOCKS * BLOCK_BYTES;
        assert!(most <= written / 4 * 3, "{} MiB in memory of 64, {} written", most >> 20, written >> 20);
        check(&seeds)?;
        let mut random = Pattern::new(7);
        for seed in 2000..2100 {
            let block = random.next_number() % BLOCKS;
            write(block, seed)?;
            seeds[block as usize] = seed;
        }
        check(&seeds)?;
        // Nothing holds readers: what they brought back goes again.
        wait_until("memory is kept to", Duration::from_secs(30), || used().is_ok_and(|used| used <= 64 << 20));
        check(&seeds)?;
        drop(file);
        mount.drain()?;
    }

    with { memory: "64M" }
    fn many_processes_use_more_than_memory(mount: &Mount) {
        let output = Command::new(env!("CARGO_BIN_EXE_pressure"))
            .arg(mount.point())
            .args(["--processes", "20", "--seconds", "8"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        print!("{said}");
    }

    with { memory: "64M" }
    fn more_than_the_budget_is_written_read_and_drained(mount: &Mount) {
        const FILES: u64 = 10;
        const BYTES: usize = 30 << 20;
        for number in 0..FILES {
            fs::write(mount.at(format!("file{number}")), pattern(number, BYTES))?;
        }
        for number in 0..FILES {
            assert!(fs::read(mount.at(format!("file{number}")))? == pattern(number, BYTES), "file{number}");
        }
        mount.drain()?;
        for number in 0..FILES {
            assert!(fs::read(mount.behind(format!("file{number}")))? == pattern(number, BYTES), "file{number}");
        }
        let status = mount.status()?;
        let (used, budget) = (status["memory"]["used"].as_u64(), status["memory"]["budget"].as_u64());
        assert!(used <= budget, "{used:?} of {budget:?}");
    }
}
