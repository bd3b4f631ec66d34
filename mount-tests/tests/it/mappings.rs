//! Stores through a shared mapping reach the backing, whatever has happened to the descriptor and the name since.

use aimss_mount_tests::bytes::{map_shared, pattern};
use aimss_mount_tests::{Mount, both_modes};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

const BYTES: usize = 3 << 20;

fn opened(mount: &Mount, name: &str) -> anyhow::Result<File> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(mount.at(name))?;
    file.write_all(&vec![0; BYTES])?;
    Ok(file)
}

both_modes! {
    fn stores_after_close_arrive(mount: &Mount) {
        let file = opened(mount, "file")?;
        let mut map = map_shared(&file)?;
        drop(file);
        // Drained once while mapped: what is stored now must be seen as new.
        mount.drain()?;
        let bytes = pattern(1, BYTES);
        map.copy_from_slice(&bytes);
        drop(map);
        mount.drain()?;
        assert!(fs::read(mount.behind("file"))? == bytes);
    }

    fn stores_into_a_live_mapping_are_drained(mount: &Mount) {
        let mut map = map_shared(&opened(mount, "file")?)?;
        for round in 0..3 {
            let bytes = pattern(round, BYTES);
            map.copy_from_slice(&bytes);
            map.flush()?;
            mount.drain()?;
            assert!(fs::read(mount.behind("file"))? == bytes, "round {round}");
        }
        drop(map);
    }

    fn stores_after_rename_arrive_under_the_new_name(mount: &Mount) {
        fs::create_dir(mount.at("dir"))?;
        let mut map = map_shared(&opened(mount, "file")?)?;
        fs::rename(mount.at("file"), mount.at("dir/renamed"))?;
        let bytes = pattern(2, BYTES);
        map.copy_from_slice(&bytes);
        drop(map);
        mount.drain()?;
        assert!(fs::read(mount.behind("dir/renamed"))? == bytes);
        assert!(!mount.behind("file").exists());
    }

    fn stores_after_unlink_arrive_under_the_other_name(mount: &Mount) {
        let mut map = map_shared(&opened(mount, "file")?)?;
        fs::hard_link(mount.at("file"), mount.at("other"))?;
        fs::remove_file(mount.at("file"))?;
        let bytes = pattern(3, BYTES);
        map.copy_from_slice(&bytes);
        drop(map);
        mount.drain()?;
        assert!(fs::read(mount.behind("other"))? == bytes);
    }

    fn a_mapping_of_an_unlinked_file_lives_on(mount: &Mount) {
        let file = opened(mount, "file")?;
        let mut map = map_shared(&file)?;
        fs::remove_file(mount.at("file"))?;
        drop(file);
        mount.drain()?;
        let bytes = pattern(4, BYTES);
        map.copy_from_slice(&bytes);
        assert!(map[..] == bytes[..]);
    }

    fn mappings_read_and_write_see_one_file(mount: &Mount) {
        let mut file = opened(mount, "file")?;
        let mut map = map_shared(&file)?;
        map[5000..5005].copy_from_slice(b"store");
        let mut read = [0; 5];
        file.read_exact_at(&mut read, 5000)?;
        assert_eq!(&read, b"store");
        file.write_all_at(b"write", 5002)?;
        assert_eq!(&map[5000..5007], b"stwrite");
        let mut end = Vec::new();
        file.read_to_end(&mut end)?;
        assert!(end.is_empty());
    }
}
