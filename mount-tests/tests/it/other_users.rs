//! Users other than root mount, by fusermount3, and are served by the daemon.

use aimss_mount_tests::{binary, mount, skip, skip_allowed};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output};

const NOBODY: u32 = 65_534;

/// In a mount namespace of its own: a /dev/fuse that everybody may open, as distributions have it.
const OPEN_DEVICE: &str = r"
set -eu
[ -e fuse ] || mknod -m 666 fuse c 10 229
chmod 666 fuse
mount --bind fuse /dev/fuse
: <>/dev/fuse
";

/// The whole life of a mount, as `nobody`, in `$PWD`.
const LIFE: &str = r#"
exec setpriv --reuid=65534 --regid=65534 --clear-groups env HOME="$PWD" XDG_RUNTIME_DIR="$PWD/run" sh -euc '
    ./aimss mount backing mnt --memory 256M --drain-delay 1h
    trap "./aimss umount --lazy mnt || true" EXIT
    echo "by nobody" >mnt/file
    mkdir mnt/dir
    mv mnt/file mnt/dir/renamed
    head -c 5000000 /dev/zero >mnt/dir/zeros
    ./aimss status mnt --json
    ./aimss drain mnt
    cmp mnt/dir/renamed backing/dir/renamed
    echo late >mnt/late
    ./aimss umount mnt
    trap - EXIT
'"#;

/// Runs shell in `place`, in a mount namespace of its own.
fn apart(place: &Path, script: &str) -> std::io::Result<Output> {
    Command::new("unshare").args(["--mount", "sh", "-c", script]).current_dir(place).output()
}

#[test]
fn nobody_mounts_writes_and_unmounts() -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        skip_allowed("becoming another user needs root");
        return Ok(());
    }
    if Command::new("fusermount3").arg("--version").output().is_err() {
        skip("fusermount3 is missing (the package fuse3 brings it)");
        return Ok(());
    }
    let place = mount::place()?;
    let device = apart(place.path(), OPEN_DEVICE)?;
    if !device.status.success() {
        // Containers may refuse namespaces and devices, whatever else works in them.
        skip_allowed(&format!("no /dev/fuse for others: {}", String::from_utf8_lossy(&device.stderr).trim()));
        return Ok(());
    }
    fs::create_dir(place.path().join("run"))?;
    fs::set_permissions(place.path().join("run"), Permissions::from_mode(0o700))?;
    for name in ["", "run", "backing", "mnt"] {
        chown(place.path().join(name), Some(NOBODY), Some(NOBODY))?;
    }
    // Where others may run it, whatever the target directory allows.
    fs::copy(binary::path(), place.path().join("aimss"))?;
    let output = apart(place.path(), &format!("{OPEN_DEVICE}{LIFE}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let status: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert!(status["mounts"][0]["modes"]["passthrough-arena"].is_null(), "{status}");
    assert_eq!(fs::read(place.path().join("backing/dir/renamed"))?, b"by nobody\n");
    assert_eq!(fs::read(place.path().join("backing/late"))?, b"late\n");
    assert_eq!(fs::metadata(place.path().join("backing/dir/zeros"))?.len(), 5_000_000);
    Ok(())
}
