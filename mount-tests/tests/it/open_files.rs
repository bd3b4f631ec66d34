//! Files that are open while their name or their content goes away.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, both_modes, wait_until};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

both_modes! {
    fn an_unlinked_file_is_read_and_written_until_it_is_closed(mount: &Mount) {
        let bytes = pattern(1, 1 << 20);
        let mut file = File::options().read(true).write(true).create(true).truncate(true).open(mount.at("file"))?;
        file.write_all(&bytes)?;
        // Gone on the backing as well, under our feet.
        mount.drain()?;
        fs::remove_file(mount.at("file"))?;
        mount.drain()?;
        assert!(!mount.behind("file").exists());
        file.write_all(b"more")?;
        file.rewind()?;
        let mut read = Vec::new();
        file.read_to_end(&mut read)?;
        assert!(read[..bytes.len()] == bytes && &read[bytes.len()..] == b"more");
        assert_eq!(file.metadata()?.nlink(), 0);
        file.set_len(10)?;
        assert_eq!(file.metadata()?.len(), 10);
        fs::write(mount.at("file"), "a new one under the name")?;
        assert_eq!(file.metadata()?.len(), 10);
    }

    fn a_reader_sees_a_file_being_rewritten(mount: &Mount) {
        fs::write(mount.at("file"), pattern(1, 100_000))?;
        mount.drain()?;
        let mut reader = File::open(mount.at("file"))?;
        let mut beginning = [0; 10];
        reader.read_exact(&mut beginning)?;
        for round in 2..5 {
            let bytes = pattern(round, 50_000 * round as usize);
            // O_TRUNC beside the open reader, which holds the same file, now empty.
            let mut writer = File::create(mount.at("file"))?;
            assert_eq!(reader.metadata()?.len(), 0);
            assert_eq!(reader.read_at(&mut beginning, 0)?, 0);
            writer.write_all(&bytes)?;
            reader.seek(SeekFrom::Start(0))?;
            let mut read = Vec::new();
            reader.read_to_end(&mut read)?;
            assert!(read == bytes, "round {round}");
            drop(writer);
            mount.drain()?;
            assert!(fs::read(mount.behind("file"))? == bytes, "round {round} on the backing");
        }
    }

    fn a_directory_that_is_removed_while_open_is_empty(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        let mut open = fs::read_dir(mount.at("dir"))?;
        fs::remove_dir(mount.at("dir"))?;
        assert!(open.next().is_none());
        assert!(fs::write(mount.at("dir/file"), "x").is_err());
    }

    fn a_file_that_is_executed_is_not_cut(mount: &Mount) {
        fs::copy("/usr/bin/sleep", mount.at("sleep"))?;
        let bytes = fs::metadata(mount.at("sleep"))?.len();
        let mut running = Command::new(mount.at("sleep")).arg("60").spawn()?;
        // The second one would cut it without being a writer.
        let refused = [(true, 0), (false, libc::O_TRUNC), (true, libc::O_TRUNC)]
            .map(|(write, flags)| open_error(&mount.at("sleep"), write, flags));
        let left = (fs::metadata(mount.at("sleep"))?.len(), running.try_wait()?.is_none());
        running.kill()?;
        running.wait()?;
        assert_eq!(refused, [Some(libc::ETXTBSY); 3]);
        assert_eq!(left, (bytes, true), "its size, and whether it still runs");
        wait_until("the program is closed", Duration::from_secs(10), || {
            open_error(&mount.at("sleep"), false, libc::O_TRUNC).is_none()
        });
        assert_eq!(fs::metadata(mount.at("sleep"))?.len(), 0);
    }
}

/// The number of the error of an open for reading or writing, with these flags besides.
fn open_error(path: &Path, write: bool, flags: i32) -> Option<i32> {
    let opened = File::options().read(!write).write(write).custom_flags(flags).open(path);
    opened.err().and_then(|e| e.raw_os_error())
}
