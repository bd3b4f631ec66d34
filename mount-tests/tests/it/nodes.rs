//! Fifos, sockets and device nodes work and are the same on the backing.

use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};

both_modes! {
    fn a_fifo_carries_bytes_between_processes(mount: &Mount) {
        mknodat(CWD, mount.at("fifo"), FileType::Fifo, Mode::from(0o640), 0)?;
        let writer = std::thread::spawn({
            let path = mount.at("fifo");
            move || fs::write(path, "through the fifo")
        });
        assert_eq!(fs::read_to_string(mount.at("fifo"))?, "through the fifo");
        writer.join().expect("it does not panic")?;
        mount.drain()?;
        assert!(fs::symlink_metadata(mount.behind("fifo"))?.file_type().is_fifo());
    }

    fn a_socket_is_connected_to(mount: &Mount) {
        // A socket's address has room for 108 bytes: by a path relative to a descriptor it always fits.
        let dir = fs::File::open(mount.point())?;
        let address = format!("/proc/self/fd/{}/socket", std::os::fd::AsRawFd::as_raw_fd(&dir));
        let listener = UnixListener::bind(&address)?;
        let mut client = UnixStream::connect(&address)?;
        client.write_all(b"hello")?;
        drop(client);
        let mut said = String::new();
        listener.accept()?.0.read_to_string(&mut said)?;
        assert_eq!(said, "hello");
        mount.drain()?;
        assert!(fs::symlink_metadata(mount.behind("socket"))?.file_type().is_socket());
    }

    fn device_nodes_keep_their_numbers(mount: &Mount) {
        mknodat(CWD, mount.at("null"), FileType::CharacterDevice, Mode::from(0o666), makedev(1, 3))?;
        mknodat(CWD, mount.at("large"), FileType::BlockDevice, Mode::from(0o600), makedev(259, 70_000))?;
        mount.drain()?;
        for path in [mount.at("large"), mount.behind("large")] {
            let found = fs::symlink_metadata(path)?;
            assert!(found.file_type().is_block_device());
            assert_eq!(found.rdev(), makedev(259, 70_000));
        }
        assert!(fs::symlink_metadata(mount.behind("null"))?.file_type().is_char_device());
    }
}
