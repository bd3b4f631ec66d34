//! What a mount allows that its backing doesn't: nothing. And mounts of users other than root.

use aimss_mount_tests::mount::place;
use aimss_mount_tests::user::{NOBODY, SOMEBODY, as_user, command_as};
use aimss_mount_tests::{binary, skip, skip_allowed};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// In a mount namespace of its own: a backing without set-user-id programs, devices or programs at all, and what its
/// mount makes of them.
const CLOSED_BACKING: &str = r#"
set -eu
mount -t tmpfs -o nosuid,nodev,noexec,mode=0755 none backing
cp /usr/bin/id backing/id
chown 12345 backing/id
chmod 4755 backing/id
mknod -m 666 backing/zero c 1 5
./aimss mount --allow-other backing mnt
trap "./aimss umount mnt" EXIT
grep " $PWD/mnt " /proc/self/mountinfo
as_nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
if $as_nobody mnt/id -u; then echo "a program ran"; fi
if $as_nobody head -c 1 mnt/zero >/dev/null; then echo "a device was read"; fi
"#;

/// The same with a backing that allows them, which the mount does then.
const OPEN_BACKING: &str = r#"
set -eu
mount -t tmpfs -o mode=0755 none backing
cp /usr/bin/id backing/id
chown 12345 backing/id
chmod 4755 backing/id
./aimss mount --allow-other backing mnt
trap "./aimss umount mnt" EXIT
setpriv --reuid=65534 --regid=65534 --clear-groups mnt/id -u
"#;

/// A /dev/fuse that everybody may open, as distributions have it.
const OPEN_DEVICE: &str = r"
set -eu
[ -e fuse ] || mknod -m 666 fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
: <>/dev/fuse
";

/// A mount by `nobody` in `$PWD`, looked at by root and by somebody else.
const BY_NOBODY: &str = r#"
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=$PWD XDG_RUNTIME_DIR=$PWD/run"
somebody="setpriv --reuid=54321 --regid=54321 --clear-groups"
$nobody ./aimss mount backing mnt --memory 256M
trap "$nobody ./aimss umount --lazy mnt" EXIT
grep " $PWD/mnt " /proc/self/mountinfo
$nobody sh -c 'echo secret >mnt/file'
find run -type d -perm /077
find run -type f -perm /077
chmod 755 run
for way in mnt/file run/aimss run/aimss/*/control.sock run/aimss/*/arena backing/.aimss; do
    if $somebody head -c 1 "$way" >/dev/null 2>&1; then echo "somebody read $way"; fi
    if $somebody ls "$way"/ >/dev/null 2>&1; then echo "somebody listed $way"; fi
done
chmod 700 run
if $somebody ls mnt 2>/dev/null; then echo "somebody saw the mount"; fi
for process in $(pgrep -u 65534 -f "$PWD" || true) $(cat run/aimss/*/mount.json | grep -o '"pid":[0-9]*' | cut -d: -f2); do
    if $somebody ls /proc/$process/fd 2>/dev/null; then echo "somebody saw descriptors of $process"; fi
    if $somebody ls /proc/$process/root/ 2>/dev/null; then echo "somebody went through $process"; fi
done
"#;

fn apart(place: &Path, script: &str) -> std::io::Result<Output> {
    let mut command = Command::new("timeout");
    command
        .args(["60", "unshare", "--mount", "sh", "-c", script])
        .current_dir(place)
        .stdin(Stdio::null())
        .output()
}

/// The place for a script, with the program in it; `None` where there can be none, which has been said.
fn place_apart() -> anyhow::Result<Option<tempfile::TempDir>> {
    if !rustix::process::geteuid().is_root() {
        skip_allowed("becoming another user needs root");
        return Ok(None);
    }
    let place = place()?;
    let tried = apart(place.path(), "mount -t tmpfs none backing")?;
    if !tried.status.success() {
        skip_allowed(&format!("no mounts apart: {}", String::from_utf8_lossy(&tried.stderr).trim()));
        return Ok(None);
    }
    // Where others may run it, whatever the target directory allows.
    fs::copy(binary::path(), place.path().join("aimss"))?;
    Ok(Some(place))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], b"\n", &output.stderr[..]].concat()).into_owned()
}

#[test]
fn what_the_backings_file_system_forbids_the_mount_forbids() -> anyhow::Result<()> {
    let Some(place) = place_apart()? else { return Ok(()) };
    let output = apart(place.path(), CLOSED_BACKING)?;
    assert!(output.status.success(), "{}", said(&output));
    let (table, rest) =
        std::str::from_utf8(&output.stdout)?.split_once('\n').expect("a line of the mount table");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(table.split([' ', ',']).any(|given| given == option), "{option}: {table}");
    }
    assert_eq!(rest, "");
    let open = apart(place.path(), OPEN_BACKING)?;
    assert_eq!(std::str::from_utf8(&open.stdout)?, "12345\n", "{}", said(&open));
    Ok(())
}

#[test]
fn mounts_of_other_users_are_nosuid_and_nodev_and_theirs_alone() -> anyhow::Result<()> {
    let Some(place) = place_apart()? else { return Ok(()) };
    if Command::new("fusermount3").arg("--version").output().is_err() {
        skip("fusermount3 is missing (the package fuse3 brings it)");
        return Ok(());
    }
    let device = apart(place.path(), OPEN_DEVICE)?;
    if !device.status.success() {
        skip_allowed(&format!("no /dev/fuse for others: {}", said(&device)));
        return Ok(());
    }
    fs::create_dir(place.path().join("run"))?;
    fs::set_permissions(place.path().join("run"), Permissions::from_mode(0o700))?;
    for name in ["", "run", "backing", "mnt"] {
        chown(place.path().join(name), Some(NOBODY), Some(NOBODY))?;
    }
    let output = apart(place.path(), &format!("{OPEN_DEVICE}{BY_NOBODY}"))?;
    assert!(output.status.success(), "{}", said(&output));
    let (table, rest) =
        std::str::from_utf8(&output.stdout)?.split_once('\n').expect("a line of the mount table");
    for option in ["nosuid", "nodev"] {
        assert!(table.split([' ', ',']).any(|given| given == option), "{option}: {table}");
    }
    assert!(table.contains("user_id=65534") && !table.contains("allow_other"), "{table}");
    assert_eq!(rest, "", "{}", said(&output));
    Ok(())
}

/// A state directory that somebody else made beforehand, with a mount in it that he made up: nothing of it is believed,
/// nothing is put into it, and nobody is asked.
#[test]
fn a_state_directory_of_somebody_else_is_not_believed() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip_allowed("becoming another user needs root");
        return Ok(());
    }
    let place = place()?;
    let aimss = place.path().join("aimss");
    fs::copy(binary::path(), &aimss)?;
    let run = place.path().join("run");
    fs::create_dir(&run)?;
    let point = place.path().join("mnt");
    // What ends by a name that somebody else gives, in a directory that somebody else owns, or that others may write.
    let mut sleeper = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn()?;
    let state = as_user(SOMEBODY, || fs::read_to_string(format!("/proc/{}/stat", sleeper.id())))?;
    let started: u64 =
        state.rsplit_once(") ").expect("a name").1.split(' ').nth(19).expect("its start").parse()?;
    let record = serde_json::json!({
        "mountpoint": point, "backing": place.path().join("backing"), "pid": sleeper.id(), "started": started,
    });
    for (owner, mode) in [(SOMEBODY, 0o777), (SOMEBODY, 0o700), (NOBODY, 0o777)] {
        let root = run.join("aimss");
        fs::create_dir_all(root.join("0123456789abcdef"))?;
        fs::write(root.join("0123456789abcdef/mount.json"), record.to_string())?;
        // Theirs to read, as an attacker would have it.
        for path in [root.join("0123456789abcdef"), root.clone()] {
            chown(&path, Some(owner), Some(owner))?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        for command in [&["status", "--json"][..], &["umount"], &["umount", "--lazy"], &["drain"]] {
            let mut asked = command_as(NOBODY, Path::new("timeout"));
            asked.arg("20").arg(&aimss).args(command).env("XDG_RUNTIME_DIR", &run).stdin(Stdio::null());
            if command[0] != "status" {
                asked.arg(&point);
            }
            let output = asked.output()?;
            if command[0] == "status" {
                let all: serde_json::Value = serde_json::from_slice(&output.stdout)?;
                assert_eq!(all["mounts"], serde_json::json!([]), "{owner} {mode:o}");
            } else {
                assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
                let said = said(&output);
                assert!(said.contains("not mounted") || said.contains("no aimss mount"), "{said}");
            }
        }
        assert!(sleeper.try_wait()?.is_none(), "it was ended");
        fs::remove_dir_all(root)?;
    }
    sleeper.kill()?;
    sleeper.wait()?;
    Ok(())
}

/// The same for a mount: in a directory of somebody else, or behind a link, it doesn't come about, and nothing is made.
#[test]
fn a_mount_keeps_nothing_in_a_directory_of_somebody_else() -> anyhow::Result<()> {
    let Some(place) = place_apart()? else { return Ok(()) };
    let script = r"
        set -u
        mount -t tmpfs -o mode=0755 none /run
        mkdir elsewhere
        for make in 'mkdir -m 777 /run/aimss' 'mkdir -m 700 /run/aimss; chown 65534 /run/aimss' \
            'ln -s $PWD/elsewhere /run/aimss' 'ln -s /nowhere /run/aimss'; do
            eval $make
            if timeout 30 ./aimss mount backing mnt; then echo mounted; timeout 30 ./aimss umount mnt; fi
            ls -A /run/aimss/ elsewhere backing 2>/dev/null | grep -v :$ | grep .
            rm -rf /run/aimss
        done
        rmdir elsewhere
    ";
    let output = apart(place.path(), script)?;
    assert_eq!(std::str::from_utf8(&output.stdout)?, "", "{}", said(&output));
    assert!(output.status.success(), "{}", said(&output));
    let refusals = String::from_utf8_lossy(&output.stderr).matches("state directory").count();
    assert_eq!(refusals, 4, "{}", said(&output));
    Ok(())
}
