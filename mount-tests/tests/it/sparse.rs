//! Holes: made, found, punched, filled, and never taken for data on the backing.

use aimss_mount_tests::bytes::pattern;
use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const MIB: u64 = 1 << 20;

fn made(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create_new(true).open(path)
}

both_modes! {
    fn punched_and_zeroed_ranges_read_as_zeros_here_and_there(mount: &Mount) {
        let file = made(&mount.at("file"))?;
        let mut bytes = pattern(1, 8 * MIB as usize);
        file.write_all_at(&bytes, 0)?;
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, punch, 2 * MIB, MIB)?;
        fallocate(&file, punch, 12_345, 678)?;
        bytes[2 << 20..3 << 20].fill(0);
        bytes[12_345..13_023].fill(0);
        match fallocate(&file, FallocateFlags::ZERO_RANGE, 5 * MIB, 1000) {
            Ok(()) => bytes[5 << 20..(5 << 20) + 1000].fill(0),
            Err(error) => assert_eq!(error, rustix::io::Errno::OPNOTSUPP),
        }
        assert!(fs::read(mount.at("file"))? == bytes);
        drop(file);
        mount.drain()?;
        assert!(fs::read(mount.behind("file"))? == bytes);
    }

    fn allocation_changes_the_size_unless_told_to_keep_it(mount: &Mount) {
        let file = made(&mount.at("file"))?;
        fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 4 * MIB)?;
        assert_eq!(file.metadata()?.len(), 0);
        fallocate(&file, FallocateFlags::empty(), MIB, MIB)?;
        assert_eq!(file.metadata()?.len(), 2 * MIB);
        assert!(fs::read(mount.at("file"))? == vec![0; 2 << 20]);
    }

    fn data_and_holes_are_found_by_seeking(mount: &Mount) {
        let file = made(&mount.at("file"))?;
        file.set_len(64 * MIB)?;
        file.write_all_at(&pattern(1, 4096), 32 * MIB)?;
        // Huge pages may make the data larger than what was written, and never smaller.
        let data = seek(&file, SeekFrom::Data(0))?;
        let hole = seek(&file, SeekFrom::Hole(32 * MIB))?;
        assert!(data > 0 && data <= 32 * MIB, "data at {data}");
        assert!((32 * MIB + 4096..64 * MIB).contains(&hole), "hole at {hole}");
        assert_eq!(seek(&file, SeekFrom::Data(hole)), Err(rustix::io::Errno::NXIO));
        assert_eq!(seek(&file, SeekFrom::Data(64 * MIB)), Err(rustix::io::Errno::NXIO));
    }

    fn a_sparse_file_beyond_4_gib_stays_sparse(mount: &Mount) {
        const FAR: u64 = (5 << 30) + 123;
        let file = made(&mount.at("file"))?;
        file.write_all_at(b"beginning", 0)?;
        file.write_all_at(b"end", FAR)?;
        drop(file);
        mount.drain()?;
        for path in [mount.at("file"), mount.behind("file")] {
            let found = fs::metadata(&path)?;
            assert_eq!(found.len(), FAR + 3);
            assert!(found.blocks() * 512 < 32 * MIB, "{} takes {} blocks", path.display(), found.blocks());
            let mut end = [0; 5];
            File::open(&path)?.read_exact_at(&mut end, FAR - 2)?;
            assert_eq!(&end, b"\0\0end");
        }
    }

    fn truncation_both_ways_leaves_zeros(mount: &Mount) {
        let file = made(&mount.at("file"))?;
        file.write_all_at(&[b'x'; 10_000], 0)?;
        file.set_len(5000)?;
        file.set_len(20_000)?;
        let mut bytes = vec![b'x'; 5000];
        bytes.resize(20_000, 0);
        assert_eq!(fs::read(mount.at("file"))?, bytes);
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("file"))?, bytes);
    }

    fn ranges_are_copied_within_the_mount(mount: &Mount) {
        let bytes = pattern(7, 3 * MIB as usize);
        fs::write(mount.at("from"), &bytes)?;
        let (from, to) = (File::open(mount.at("from"))?, made(&mount.at("to"))?);
        let (mut read_at, mut write_at) = (1000, 5000);
        let mut left = 2 << 20;
        while left > 0 {
            let copied = copy_file_range(&from, Some(&mut read_at), &to, Some(&mut write_at), left)?;
            assert!(copied > 0);
            left -= copied;
        }
        let copy = fs::read(mount.at("to"))?;
        assert!(copy[5000..] == bytes[1000..1000 + (2 << 20)]);
        assert!(copy[..5000].iter().all(|byte| *byte == 0));
    }
}
