//! What reaches the backing, and when: at once by fsync, never if it was called off.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::tree::names;
use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File};
use std::io::Write;

both_modes! {
    with { drain_delay: "1h" }
    fn after_fsync_the_backing_has_the_bytes_and_the_names(mount: &Mount) {
        let bytes = pattern(1, 3_000_000);
        fs::create_dir_all(mount.at("a/b"))?;
        fs::write(mount.at("a/unrelated"), &bytes)?;
        let mut file = File::create(mount.at("a/b/file"))?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        assert!(fs::read(mount.behind("a/b/file"))? == bytes);
        file.write_all(b"more")?;
        file.sync_data()?;
        assert_eq!(fs::metadata(mount.behind("a/b/file"))?.len(), 3_000_004);
        // Ahead of what nobody asked for.
        assert!(!mount.behind("a/unrelated").exists());
    }

    with { drain_delay: "1h" }
    fn fsync_of_a_directory_carries_its_entries(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        fs::write(mount.at("dir/temporary"), "content")?;
        File::open(mount.at("dir/temporary"))?.sync_all()?;
        fs::rename(mount.at("dir/temporary"), mount.at("dir/final"))?;
        File::open(mount.at("dir"))?.sync_all()?;
        assert_eq!(fs::read(mount.behind("dir/final"))?, b"content");
        assert!(!mount.behind("dir/temporary").exists());
    }

    with { drain_delay: "1h" }
    fn work_that_was_called_off_is_never_written(mount: &Mount) {
        const FILES: u64 = 100;
        for number in 0..FILES {
            fs::write(mount.at(format!("temporary{number}")), pattern(number, 10_000))?;
        }
        for number in 0..FILES {
            fs::remove_file(mount.at(format!("temporary{number}")))?;
        }
        fs::write(mount.at("stays"), "x")?;
        mount.drain()?;
        let status = mount.status()?;
        assert!(status["drain"]["cancelled"].as_u64() >= Some(FILES), "{status}");
        assert!(status["drain"]["written"].as_u64() < Some(10_000), "{status}");
        assert_eq!(names(&mount.backing())?, [b".aimss".to_vec(), b"stays".to_vec()]);
    }

    with { drain_delay: "1h" }
    fn only_the_named_files_are_drained(mount: &Mount) {
        fs::write(mount.at("now"), "x")?;
        fs::write(mount.at("later"), "x")?;
        let output = aimss_mount_tests::binary::aimss().arg("drain").arg(mount.at("now")).output()?;
        aimss_mount_tests::mount::well(&output)?;
        assert!(mount.behind("now").exists() && !mount.behind("later").exists());
    }
}
