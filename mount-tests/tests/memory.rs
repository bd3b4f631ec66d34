//! Little memory: of the program, and of the mount. Nothing fails for lack of it.

use aimss_measure::cgroup::Group;
use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, both_modes, program, skip};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

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
