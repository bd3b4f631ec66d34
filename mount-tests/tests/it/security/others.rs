//! Another user's ways to files, to the state directory and to the daemon. What that user does is done by a thread that
//! is that user; beside each refusal stands what root gets by the same way.

use aimss_mount_tests::user::{NOBODY, SOMEBODY, as_user, command_as};
use aimss_mount_tests::{Mount, both_modes};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use rustix::io::Errno;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Result, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const SECRET: &[u8] = b"what only root may know";

fn state_dir(mount: &Mount) -> PathBuf {
    mount.arena().expect("it is mounted").parent().expect("it lies in the state directory").to_owned()
}

/// Everything below `dir`, with it.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.append(&mut below(&entry.path())),
            _ => found.push(entry.path()),
        }
    }
    found
}

fn denied<T: std::fmt::Debug>(result: Result<T>, what: &str) {
    let error = result.expect_err(what);
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{what}: {error}");
}

fn write_secret(path: &Path) -> Result<()> {
    fs::write(path, SECRET)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))
}

/// What the daemon at `socket` says when it is asked for its status; an error where it says nothing.
fn ask(socket: &Path) -> Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.write_all(b"\"status\"\n")?;
    let mut said = String::new();
    match BufReader::new(stream).read_line(&mut said)? {
        0 => Err(ErrorKind::PermissionDenied.into()),
        _ => Ok(said),
    }
}

both_modes! {
    /// Arena, journal, state and control socket are open to nobody else by their own modes, not only by those of the
    /// directory above.
    with { drain_delay: "1h" }
    fn arena_state_and_socket_are_their_owners_alone(mount: &Mount) {
        write_secret(&mount.at("secret"))?;
        fs::write(mount.at("public.stream"), "")?;
        OpenOptions::new().append(true).open(mount.at("public.stream"))?.write_all(b"line\n")?;
        let all = below(&state_dir(mount));
        for wanted in ["mount.json", "journal", "journal.lookups", "files", "control.sock"] {
            assert!(all.iter().any(|path| path.ends_with(wanted)), "{wanted} is not in {all:?}");
        }
        assert!(all.iter().any(|path| path.parent().is_some_and(|dir| dir.ends_with("arena/files"))), "{all:?}");
        for path in all.iter().chain([&PathBuf::from("/run/aimss")]) {
            let found = fs::symlink_metadata(path)?;
            assert_eq!((found.uid(), found.mode() & 0o077), (0, 0), "{}", path.display());
        }
        let private = fs::metadata(mount.behind(".aimss"))?;
        assert_eq!((private.uid(), private.mode() & 0o077), (0, 0));
        as_user(NOBODY, || {
            for path in all {
                denied(fs::symlink_metadata(&path), "a look at the state directory");
                denied(File::open(&path), "a file of the state directory");
            }
            denied(fs::read_dir(mount.behind(".aimss")), "the private directory of the backing");
        });
        fs::remove_file(mount.at("public.stream"))?;
    }

    /// A file that only root may read, in memory, open and mapped: by its name, its attributes, the processes that
    /// serve it, and the memory behind it.
    with { drain_delay: "1h" }
    fn another_users_file_is_reached_by_no_way(mount: &Mount) {
        fs::create_dir(mount.at("closed"))?;
        fs::set_permissions(mount.at("closed"), Permissions::from_mode(0o700))?;
        write_secret(&mount.at("closed/inner"))?;
        write_secret(&mount.at("secret"))?;
        setxattr(mount.at("secret"), "user.note", SECRET, XattrFlags::empty())?;
        let held = File::open(mount.at("secret"))?;
        let map = aimss_mount_tests::bytes::map(&held)?;
        assert_eq!(&*map, SECRET);
        mount.wait_for_standby();
        let keeper = mount.status()?["keeper"].clone();
        let mut processes = vec![mount.daemon_pid().expect("it is served") as u64];
        processes.extend([&keeper["pid"], &keeper["standby"]["pid"]].map(|pid| pid.as_u64().expect("a process")));
        let mut value = [0_u8; 100];
        assert_eq!(getxattr(mount.at("secret"), "user.note", &mut value)?, SECRET.len());
        assert!(getxattr(mount.at("secret"), "user.aimss.state", &mut value)? > 0);
        as_user(NOBODY, || {
            let secret = mount.at("secret");
            denied(File::open(&secret), "the name");
            denied(OpenOptions::new().write(true).open(&secret), "the name, to write");
            denied(File::open(mount.at("closed/inner")), "a name in a closed directory");
            denied(fs::symlink_metadata(mount.at("closed/inner")), "a look into a closed directory");
            denied(fs::read_dir(mount.at("closed")), "the names in a closed directory");
            denied(fs::rename(&secret, mount.at("taken")), "another name");
            denied(fs::remove_file(&secret), "no name");
            denied(fs::hard_link(&secret, mount.at("link")), "a link");
            let chmod = fs::set_permissions(&secret, Permissions::from_mode(0o644)).expect_err("not his");
            assert_eq!(chmod.raw_os_error(), Some(libc::EPERM));
            let mut value = [0_u8; 100];
            for name in ["user.note", "user.aimss.state", "security.selinux.none", "trusted.note"] {
                assert!(getxattr(&secret, name, &mut value).is_err(), "{name} is told");
            }
            assert_eq!(getxattr(&secret, "user.note", &mut value), Err(Errno::ACCESS));
            assert_eq!(getxattr(&secret, "user.aimss.state", &mut value), Err(Errno::ACCESS));
            assert!(setxattr(&secret, "user.note", b"x", XattrFlags::empty()).is_err());
            for pid in processes {
                let process = PathBuf::from(format!("/proc/{pid}"));
                assert!(process.join("status").exists(), "{pid} runs");
                denied(fs::read_dir(process.join("fd")), "descriptors");
                denied(fs::read_dir(process.join("map_files")), "mappings");
                denied(fs::read_link(process.join("cwd")), "the working directory");
                for way in ["root", "cwd"] {
                    denied(fs::read_dir(process.join(way)), "a way round");
                }
                for file in ["mem", "maps", "environ"] {
                    denied(File::open(process.join(file)).and_then(std::io::read_to_string), file);
                }
                for descriptor in 0..64 {
                    denied(File::open(process.join(format!("fd/{descriptor}"))), "a descriptor");
                }
            }
        });
        assert_eq!(fs::read(mount.at("secret"))?, SECRET);
    }

    /// A group shows its stream's records: to whoever may read those.
    fn a_group_is_as_closed_as_its_stream(mount: &Mount) {
        fs::create_dir(mount.at("closed"))?;
        for (name, mode) in [("secret.stream", 0o600), ("public.stream", 0o644), ("closed/in.stream", 0o644)] {
            let mut stream = OpenOptions::new().create(true).append(true).open(mount.at(name))?;
            stream.write_all(b"line\n")?;
            fs::set_permissions(mount.at(name), Permissions::from_mode(mode))?;
        }
        fs::set_permissions(mount.at("closed"), Permissions::from_mode(0o700))?;
        let mut read = String::new();
        BufReader::new(File::open(mount.at("secret.stream@mine+eof"))?).read_line(&mut read)?;
        assert_eq!(read, "line\n");
        as_user(NOBODY, || {
            for name in ["secret.stream", "secret.stream@mine", "secret.stream@new+eof", "closed/in.stream@g+eof"] {
                denied(File::open(mount.at(name)), name);
                denied(OpenOptions::new().append(true).open(mount.at(name)), name);
            }
            let mut read = String::new();
            let group = File::open(mount.at("public.stream@theirs+eof")).expect("he may read it");
            BufReader::new(group).read_line(&mut read).expect("it can be read");
            assert_eq!(read, "line\n");
            denied(OpenOptions::new().append(true).open(mount.at("public.stream")), "an append");
            denied(OpenOptions::new().write(true).open(mount.at("public.stream@theirs")), "writing to a group");
            denied(fs::remove_file(mount.at("public.stream@theirs")), "a group in root's directory");
            denied(File::create(mount.at("new.stream")), "a stream in root's directory");
            let mut value = [0_u8; 100];
            assert_eq!(getxattr(mount.at("secret.stream"), "user.aimss.framing", &mut value), Err(Errno::ACCESS));
        });
        let groups = mount.status()?["streams"]["groups"]["number"].clone();
        assert_eq!(groups, 2, "none was made by who was refused");
        fs::remove_dir_all(mount.at("closed"))?;
        for name in ["secret.stream", "public.stream"] {
            fs::remove_file(mount.at(name))?;
        }
    }

    /// A copy of the small file that stands for a stream on the backing gives nobody the stream.
    fn a_copied_marker_is_no_stream(mount: &Mount) {
        let mut stream = OpenOptions::new().create(true).append(true).open(mount.at("s.stream"))?;
        stream.write_all(b"line\n")?;
        drop(stream);
        mount.drain()?;
        let marker = fs::read(mount.behind("s.stream"))?;
        fs::create_dir(mount.at("theirs"))?;
        chown(mount.at("theirs"), Some(NOBODY), Some(NOBODY))?;
        // A daemon that hasn't seen the stream yet.
        mount.umount()?;
        mount.mount_again()?;
        as_user(NOBODY, || {
            fs::write(mount.at("theirs/copy"), &marker).expect("his directory");
            assert_eq!(fs::read(mount.at("theirs/copy")).expect("his file"), marker);
            assert!(File::open(mount.at("theirs/copy@g+eof")).is_err());
        });
        assert_eq!(fs::read(mount.at("s.stream"))?, b"line\n");
        // A log whose last name is gone stays for seconds.
        fs::remove_file(mount.at("s.stream"))?;
        as_user(NOBODY, || assert_eq!(fs::read(mount.at("theirs/copy")).expect("his file"), marker));
    }

    /// Whoever gets as far as the socket is asked who he is.
    fn the_control_socket_asks_who_it_is(mount: &Mount) {
        // A way to it that leads through no closed directory.
        let open = tempfile::Builder::new().prefix("aimss-test-").tempdir_in("/run")?;
        fs::set_permissions(open.path(), Permissions::from_mode(0o755))?;
        let (socket, link) = (state_dir(mount).join("control.sock"), open.path().join("sock"));
        assert!(fs::symlink_metadata(&socket)?.file_type().is_socket());
        fs::hard_link(&socket, &link)?;
        fs::set_permissions(&link, Permissions::from_mode(0o777))?;
        assert!(ask(&link)?.contains("mountpoint"));
        for user in [NOBODY, SOMEBODY] {
            let said = as_user(user, || {
                UnixStream::connect(&link).expect("nothing is in his way");
                ask(&link)
            });
            assert!(said.is_err(), "{said:?}");
        }
        fs::set_permissions(&socket, Permissions::from_mode(0o600))?;
    }

    /// The program gives another user nothing that the socket and the mount don't.
    fn commands_of_another_user_change_nothing(mount: &Mount) {
        fs::write(mount.at("file"), "kept")?;
        // Where others may run it, whatever the target directory allows.
        fs::copy(aimss_mount_tests::binary::path(), mount.beside("aimss"))?;
        let point = mount.point();
        let daemon = mount.daemon_pid();
        for command in [
            &["status"][..], &["drain"], &["umount"], &["umount", "--lazy"], &["warm"], &["evict"],
            &["upgrade", "--binary", "/bin/true"],
        ] {
            let mut other = command_as(NOBODY, &mount.beside("aimss"));
            other.env_remove("XDG_RUNTIME_DIR").args(command).arg(&point).stdin(Stdio::null());
            let output = other.output()?;
            assert!(!output.status.success(), "{command:?}: {output:?}");
        }
        let mut all = command_as(NOBODY, &mount.beside("aimss"));
        let output = all.env_remove("XDG_RUNTIME_DIR").args(["status", "--json"]).output()?;
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&output.stdout)?["mounts"], serde_json::json!([]));
        assert_eq!(mount.daemon_pid(), daemon);
        assert_eq!(fs::read(mount.at("file"))?, b"kept");
    }
}
