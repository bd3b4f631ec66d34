//! A backing that somebody else prepared, or changes while it is mounted: nothing outside of it is read or changed for
//! him, and nothing hangs.

use aimss_mount_tests::mount::place;
use aimss_mount_tests::tree::{Tree, names};
use aimss_mount_tests::user::{NOBODY, as_user};
use aimss_mount_tests::{Mode, Mount, Setup, binary, both_modes, mount, skip, wait_until};
use rustix::fs::{CWD, FileType, RenameFlags, XattrFlags, makedev, mknodat, renameat_with, setxattr};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longer than what the backing once said is taken for granted.
const STALE: Duration = Duration::from_millis(2500);
/// Directories that are swapped, and rounds of changes in each.
const SWAPPED: usize = 4;
const ROUNDS: usize = 60;

/// Puts a fifo in a file's place on the backing, under the file's inode number if the file system gives it again.
fn swap_fifo(path: &Path) -> anyhow::Result<()> {
    let number = fs::metadata(path)?.ino();
    fs::remove_file(path)?;
    let beside = tempfile::tempdir_in(path.parent().expect("a file lies in a directory"))?;
    let mut fifo = beside.path().join("0");
    for name in 1..100 {
        mknodat(CWD, &fifo, FileType::Fifo, rustix::fs::Mode::from(0o666), 0)?;
        if fs::symlink_metadata(&fifo)?.ino() == number || name == 99 {
            break;
        }
        fifo = beside.path().join(name.to_string());
    }
    Ok(fs::rename(&fifo, path)?)
}

/// A directory outside, with the names that the tests use inside, as nobody may change it.
fn outside(at: &Path) -> anyhow::Result<Tree> {
    fs::create_dir(at)?;
    for name in ["file", "removed", "moved", "given"] {
        fs::write(at.join(name), "outside")?;
        fs::set_permissions(at.join(name), Permissions::from_mode(0o640))?;
    }
    fs::create_dir(at.join("dir"))?;
    Tree::read(at)
}

/// Everything that a drain does below a directory.
fn change_all(dir: &Path, round: usize) -> std::io::Result<()> {
    fs::write(dir.join("file"), format!("inside, {round}"))?;
    fs::write(dir.join(format!("new{round}")), "inside")?;
    fs::set_permissions(dir.join("file"), Permissions::from_mode(0o666 - (round as u32 & 1)))?;
    chown(dir.join("given"), Some(NOBODY), Some(round as u32))?;
    let _ = setxattr(dir.join("file"), "user.note", b"inside", XattrFlags::empty());
    fs::write(dir.join("removed"), "inside")?;
    fs::remove_file(dir.join("removed"))?;
    fs::write(dir.join("moved.new"), "inside")?;
    fs::rename(dir.join("moved.new"), dir.join("moved"))?;
    let _ = fs::remove_dir(dir.join("dir"));
    fs::create_dir(dir.join("dir"))?;
    symlink("inside", dir.join(format!("link{round}")))?;
    fs::hard_link(dir.join("file"), dir.join(format!("hard{round}")))
}

fn directory_of(dir: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(dir)?;
    for name in ["file", "removed", "moved", "given"] {
        fs::write(dir.join(name), "inside")?;
    }
    Ok(fs::create_dir(dir.join("dir"))?)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// `aimss mount` of a place, given a while.
fn try_mount(place: &Path, options: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new("timeout");
    command.arg("30").arg(binary::path()).arg("mount").args(options);
    command.arg("--log").arg(place.join("log")).arg(place.join("backing")).arg(place.join("mnt"));
    Ok(command.stdin(Stdio::null()).output()?)
}

fn umount(place: &Path) -> anyhow::Result<()> {
    let mut command = Command::new("timeout");
    command.arg("60").arg(binary::path()).arg("umount").arg(place.join("mnt"));
    mount::well(&command.stdin(Stdio::null()).output()?)
}

both_modes! {
    /// Somebody swaps directories for links that lead out, again and again, while the drain works in them.
    with { drain_delay: "0s" }
    fn a_link_swapped_in_while_draining_leads_nowhere(mount: &Mount) {
        let outer = mount.beside("outside");
        let before = outside(&outer)?;
        for number in 0..SWAPPED {
            directory_of(&mount.behind(format!("d{number}")))?;
            symlink(&outer, mount.behind(format!("out{number}")))?;
        }
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swaps = scope.spawn(|| {
                let mut swaps = 0_usize;
                while !ended.load(Ordering::Relaxed) {
                    let (dir, out) = (mount.behind(format!("d{}", swaps % SWAPPED)),
                        mount.behind(format!("out{}", swaps % SWAPPED)));
                    // There and back: mostly it is a directory, so that the drain has something to do.
                    for _ in 0..2 {
                        let _ = renameat_with(CWD, &dir, CWD, &out, RenameFlags::EXCHANGE);
                        std::thread::sleep(Duration::from_micros(300));
                    }
                    std::thread::sleep(Duration::from_millis(1));
                    swaps += 1;
                }
                swaps
            });
            for round in 0..ROUNDS {
                for number in 0..SWAPPED {
                    // What a swap makes of it is an error at most. Nothing goes by a link that the client follows.
                    let dir = mount.at(format!("d{number}"));
                    if fs::symlink_metadata(&dir).is_ok_and(|found| found.is_dir()) {
                        let Ok(open) = rustix::fs::open(&dir, rustix::fs::OFlags::CLOEXEC
                                | rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW
                            | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()) else { continue };
                        let by = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&open));
                        let _ = change_all(Path::new(&by), round);
                    }
                }
            }
            ended.store(true, Ordering::Relaxed);
            assert!(swaps.join().expect("it does not panic") > 20);
        });
        // What was swapped may have left conflicts, and the drain waits for what is not there: give it a way.
        for number in 0..SWAPPED {
            let dir = mount.behind(format!("d{number}"));
            if dir.is_symlink() {
                renameat_with(CWD, &dir, CWD, mount.behind(format!("out{number}")), RenameFlags::EXCHANGE)?;
            }
        }
        let _ = mount.aimss(&["drain"]);
        Tree::read(&outer)?.assert_same(&before, "outside now", "outside before");
        // What is left differs from what the mount shows, for now: others changed it.
        for number in 0..SWAPPED {
            fs::remove_file(mount.behind(format!("out{number}")))?;
        }
        std::thread::sleep(STALE);
        give_up(mount)?;
    }

    /// The same with a link that stays: what was to be drained there is kept, and nothing outside changes.
    with { drain_delay: "1h" }
    fn a_link_in_a_directorys_place_is_not_followed(mount: &Mount) {
        let outer = mount.beside("outside");
        let before = outside(&outer)?;
        directory_of(&mount.at("d"))?;
        mount.drain()?;
        change_all(&mount.at("d"), 1)?;
        fs::rename(mount.behind("d"), mount.behind("away"))?;
        symlink(&outer, mount.behind("d"))?;
        let output = mount.aimss(&["drain"]);
        assert!(!output.status.success(), "{output:?}");
        Tree::read(&outer)?.assert_same(&before, "outside now", "outside before");
        // Reads that need the backing don't go there either.
        assert_eq!(fs::read(mount.at("d/file"))?, b"inside, 1");
        fs::remove_file(mount.behind("d"))?;
        fs::rename(mount.behind("away"), mount.behind("d"))?;
        mount.drain()?;
        assert_eq!(fs::read(mount.behind("d/file"))?, b"inside, 1");
    }

    /// A name of a dirty file that is another file's by now, a fifo's, or a link's.
    with { drain_delay: "1h" }
    fn what_took_a_dirty_files_name_is_kept_and_not_written(mount: &Mount) {
        fs::write(mount.beside("victim"), "outside")?;
        for name in ["hard", "soft", "fifo", "device"] {
            fs::write(mount.at(name), "first")?;
        }
        mount.drain()?;
        for name in ["hard", "soft", "fifo", "device"] {
            fs::write(mount.at(name), "second")?;
            fs::remove_file(mount.behind(name))?;
        }
        fs::hard_link(mount.beside("victim"), mount.behind("hard"))?;
        symlink(mount.beside("victim"), mount.behind("soft"))?;
        mknodat(CWD, mount.behind("fifo"), FileType::Fifo, rustix::fs::Mode::from(0o666), 0)?;
        // The one that rewinds and makes a core dump of what is read is out of reach; zero is as good.
        mknodat(CWD, mount.behind("device"), FileType::CharacterDevice, rustix::fs::Mode::from(0o666), makedev(1, 3))?;
        mount.drain()?;
        assert_eq!(fs::read(mount.beside("victim"))?, b"outside");
        assert_eq!(fs::metadata(mount.beside("victim"))?.mode() & 0o777, 0o644);
        for name in ["hard", "soft", "fifo", "device"] {
            assert_eq!(fs::read(mount.behind(name))?, b"second", "{name}");
        }
        let aside = names(&mount.backing())?;
        assert_eq!(aside.iter().filter(|name| name.windows(15).any(|w| w == b".aimss-conflict")).count(), 4, "{aside:?}");
        std::thread::sleep(STALE);
    }

    /// A fifo where a cold file was holds up whoever opens it, as it would without us, and nobody else.
    fn a_fifo_in_a_cold_files_place_holds_up_nobody_else(mount: &Mount) {
        fs::write(mount.at("file"), vec![7; 100_000])?;
        fs::write(mount.at("other"), "x")?;
        mount.drain()?;
        mount.aimss(&["evict"]);
        swap_fifo(&mount.behind("file"))?;
        // At once, while the old file is taken for granted: it is refused, or what was read before is shown.
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(libc::O_NONBLOCK);
        if let Ok(mut file) = open.open(mount.at("file")) {
            let _ = file.read(&mut [0; 10]);
        }
        assert_eq!(fs::read(mount.at("other"))?, b"x");
        std::thread::sleep(STALE);
        assert!(open.open(mount.at("file"))?.metadata()?.file_type().is_fifo());
        assert!(fs::symlink_metadata(mount.at("file"))?.file_type().is_fifo());
        assert_eq!(mount.status()?["alive"], true);
    }

    /// `..` and `.aimss` lead nowhere, whoever asks.
    fn the_private_directory_and_what_is_above_are_not_shown(mount: &Mount) {
        fs::write(mount.beside("above"), "outside")?;
        fs::write(mount.behind(".aimss/planted"), "ours")?;
        for name in [".aimss", ".aimss/lease", ".aimss/planted", "./.aimss/../.aimss"] {
            let error = fs::symlink_metadata(mount.at(name)).expect_err(name);
            assert_eq!(error.kind(), ErrorKind::NotFound, "{name}");
        }
        fs::write(mount.at("file"), "x")?;
        fs::create_dir(mount.at("dir"))?;
        assert!(File::create(mount.at(".aimss")).is_err() && fs::create_dir(mount.at(".aimss")).is_err());
        assert!(fs::rename(mount.at("dir"), mount.at(".aimss")).is_err());
        assert!(fs::hard_link(mount.at("file"), mount.at(".aimss")).is_err());
        assert!(symlink("dir", mount.at(".aimss")).is_err());
        assert!(!names(&mount.point())?.contains(&b".aimss".to_vec()));
        // By the command line, whose paths the daemon resolves itself.
        for path in ["dir/../../above", ".aimss", "../above"] {
            let mut warm = binary::aimss();
            let output = warm.arg("warm").arg(mount.at(path)).stdin(Stdio::null()).output()?;
            assert!(!output.status.success(), "{path}: {output:?}");
        }
        // Below the root it is a name like any other.
        fs::create_dir(mount.at("dir/.aimss"))?;
        fs::remove_file(mount.behind(".aimss/planted"))?;
    }
}

/// Ends a mount whose backing is not to be compared with it: what is left of it goes.
fn give_up(mount: &Mount) -> anyhow::Result<()> {
    fs::create_dir(mount.beside("export"))?;
    let mut command = binary::aimss();
    command.args(["umount", "--export"]).arg(mount.beside("export")).arg(mount.point()).stdin(Stdio::null());
    mount::well(&command.output()?)?;
    for entry in fs::read_dir(mount.backing())? {
        let path = entry?.path();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    mount.mount_again()
}

/// Loops of links, fifos, devices, a set-user-id program, and names of all kinds: shown as they are, on the way in and
/// on the way out.
#[test]
fn a_hostile_tree_is_shown_as_it_is() {
    for mode in [Mode::Passthrough, Mode::Daemon] {
        let fill = |backing: &Path| -> anyhow::Result<()> {
            symlink("loop2", backing.join("loop1"))?;
            symlink("loop1", backing.join("loop2"))?;
            symlink(".", backing.join("self"))?;
            symlink("/etc/shadow", backing.join("shadow"))?;
            symlink("../../../../../../../../etc/passwd", backing.join("up"))?;
            symlink("x".repeat(4095), backing.join("long"))?;
            symlink("a\n\x1b[2J", backing.join("name\n\x1b[31m"))?;
            mknodat(CWD, backing.join("fifo"), FileType::Fifo, rustix::fs::Mode::from(0o666), 0)?;
            mknodat(
                CWD,
                backing.join("zero"),
                FileType::CharacterDevice,
                rustix::fs::Mode::from(0o600),
                makedev(1, 5),
            )?;
            fs::write(backing.join("suid"), "#!/bin/true\n")?;
            fs::set_permissions(backing.join("suid"), Permissions::from_mode(0o6755))?;
            fs::write(backing.join("\u{202e}txt.exe"), "x")?;
            // As the directory that we keep things in, but elsewhere.
            fs::create_dir_all(backing.join("dir/.aimss"))?;
            Ok(())
        };
        let Some(mount) = Mount::start_over(&Setup::new(mode), fill) else { return };
        assert_eq!(fs::read(mount.at("loop1")).expect_err("a loop").raw_os_error(), Some(libc::ELOOP));
        assert_eq!(fs::read_link(mount.at("shadow")).expect("a link"), Path::new("/etc/shadow"));
        let shadow = as_user(NOBODY, || fs::read(mount.at("shadow")).expect_err("his right, not ours"));
        assert!(matches!(shadow.kind(), ErrorKind::PermissionDenied | ErrorKind::NotFound), "{shadow}");
        assert!(fs::symlink_metadata(mount.at("fifo")).expect("it is shown").file_type().is_fifo());
        assert!(as_user(NOBODY, || File::open(mount.at("zero"))).is_err());
        assert!(mount.aimss(&["warm"]).status.success());
        mount.finish();
    }
}

/// What lies where the lease and its directory are to be: nothing is written through it, nothing waits for it.
#[test]
fn what_lies_in_the_leases_place_is_refused_and_not_written_through() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return Ok(());
    }
    type Planted = fn(&Path, &Path) -> anyhow::Result<()>;
    let make = |private: &Path| -> anyhow::Result<()> {
        fs::create_dir(private)?;
        Ok(fs::set_permissions(private, Permissions::from_mode(0o700))?)
    };
    let planted: [(&str, Planted); 7] = [
        ("a link for the directory", |private, victim| Ok(symlink(victim.with_file_name("dir"), private)?)),
        ("a fifo for the directory", |private, _| {
            Ok(mknodat(CWD, private, FileType::Fifo, rustix::fs::Mode::from(0o666), 0)?)
        }),
        ("another's directory", |private, _| Ok(chown(private, Some(NOBODY), Some(NOBODY))?)),
        ("a directory for all", |private, _| {
            Ok(fs::set_permissions(private, Permissions::from_mode(0o777))?)
        }),
        ("a link for the lease", |private, victim| Ok(symlink(victim, private.join("lease"))?)),
        ("another's name for the lease", |private, victim| Ok(fs::hard_link(victim, private.join("lease"))?)),
        ("a fifo for the lease", |private, _| {
            Ok(mknodat(CWD, private.join("lease"), FileType::Fifo, rustix::fs::Mode::from(0o666), 0)?)
        }),
    ];
    for (number, (what, plant)) in planted.into_iter().enumerate() {
        let place = place()?;
        let (private, victim) = (place.path().join("backing/.aimss"), place.path().join("victim"));
        fs::write(&victim, "outside")?;
        fs::create_dir(place.path().join("dir"))?;
        if number > 1 {
            make(&private)?;
        }
        plant(&private, &victim)?;
        let output = try_mount(place.path(), &[])?;
        if output.status.success() {
            umount(place.path())?;
            panic!("{what}: mounted");
        }
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        assert!(said(&output).contains("can't be written to"), "{what}: {}", said(&output));
        assert_eq!(fs::read(&victim)?, b"outside", "{what}");
        assert_eq!(fs::metadata(&victim)?.nlink(), if what.starts_with("another's name") { 2 } else { 1 });
        assert!(fs::read_dir(place.path().join("dir"))?.next().is_none(), "{what}");
    }
    Ok(())
}

/// The logs of all streams, or that of one, are elsewhere by a link: nothing is read or written there, and everything else
/// goes on.
#[test]
fn a_link_in_the_place_of_logs_leads_nowhere() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return Ok(());
    }
    for all in [false, true] {
        let place = place()?;
        let at = |name: &str| place.path().join(name);
        mount::well(&try_mount(place.path(), &[])?)?;
        fs::write(at("mnt/x.stream"), "a record\n")?;
        umount(place.path())?;
        let logs = at("backing/.aimss/streams");
        let log = fs::read_dir(&logs)?.next().expect("a log")?.path();
        let planted = if all { &logs } else { &log };
        fs::rename(planted, at("outside"))?;
        symlink(at("outside"), planted)?;
        let before = Tree::read(&at("outside"))?;
        let refused = |command: &[&str]| -> anyhow::Result<()> {
            let output =
                binary::aimss().args(command).arg(at("backing/x.stream")).stdin(Stdio::null()).output()?;
            assert!(!output.status.success() && said(&output).contains("follows no link"), "{output:?}");
            Ok(())
        };
        refused(&["stream", "cat"])?;
        refused(&["stream", "rm"])?;
        mount::well(&try_mount(place.path(), &[])?)?;
        assert_ne!(fs::read(at("mnt/x.stream"))?, b"a record\n");
        assert!(OpenOptions::new().append(true).open(at("mnt/x.stream")).is_err());
        assert_eq!(fs::write(at("mnt/y.stream"), "another\n").is_ok(), !all);
        fs::write(at("mnt/plain"), "x")?;
        fs::remove_file(at("mnt/x.stream"))?;
        umount(place.path())?;
        Tree::read(&at("outside"))?.assert_same(&before, "outside now", "outside before");
        assert_eq!(fs::read(at("backing/plain"))?, b"x");
    }
    Ok(())
}

/// What is kept of one mount for the next is written to a file of its own, whatever its name leads to by then.
#[test]
fn what_is_kept_for_the_next_mount_is_written_through_no_link() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return Ok(());
    }
    let place = place()?;
    let victim = place.path().join("victim");
    fs::write(&victim, "outside")?;
    for number in 0..8 {
        fs::write(place.path().join(format!("backing/f{number}")), "x")?;
    }
    mount::well(&try_mount(place.path(), &["--prefetch", "all"])?)?;
    for _ in 0..5 {
        for number in [0, 5, 2, 7, 1] {
            fs::read(place.path().join(format!("mnt/f{number}")))?;
        }
    }
    for name in ["transitions", "transitions.new"] {
        symlink(&victim, place.path().join("backing/.aimss").join(name))?;
    }
    umount(place.path())?;
    assert_eq!(fs::read(&victim)?, b"outside");
    let kept = place.path().join("backing/.aimss/transitions");
    assert!(fs::symlink_metadata(&kept)?.is_file(), "something was learned");
    assert_eq!(fs::metadata(&kept)?.mode() & 0o077, 0);
    // And read from none: a fifo would be waited for.
    swap_fifo(&kept)?;
    mount::well(&try_mount(place.path(), &["--prefetch", "all"])?)?;
    umount(place.path())?;
    Ok(())
}

/// The directory itself swapped for a link while it is mounted: the lease is given back where it was taken.
#[test]
fn a_link_in_the_private_directorys_place_is_not_written_through() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip("mounting needs root");
        return Ok(());
    }
    let place = place()?;
    let (private, away) = (place.path().join("backing/.aimss"), place.path().join("backing/away"));
    let outer = place.path().join("outside");
    fs::create_dir(&outer)?;
    fs::write(outer.join("lease"), "outside")?;
    fs::write(outer.join("unnamed-7"), "outside")?;
    let before = Tree::read(&outer)?;
    mount::well(&try_mount(place.path(), &["--prefetch", "all"])?)?;
    fs::rename(&private, &away)?;
    symlink(&outer, &private)?;
    fs::write(place.path().join("mnt/file"), vec![1; 100_000])?;
    let _ = umount(place.path()).map_err(|_| {
        fs::remove_file(&private).and_then(|()| fs::rename(&away, &private)).expect("it is ours");
        umount(place.path())
    });
    wait_until("the mount's end", Duration::from_secs(30), || {
        !fs::read_to_string("/proc/self/mountinfo")
            .unwrap_or_default()
            .contains(&*place.path().to_string_lossy())
    });
    Tree::read(&outer)?.assert_same(&before, "outside now", "outside before");
    Ok(())
}
