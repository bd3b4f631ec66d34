//! Making the mount, and taking it away: mount(2) for root, `fusermount3` for others.

use crate::config::MountConfig;
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use std::ffi::CString;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Type of the mount, as the mount table shows it.
const TYPE: &str = "fuse.aimss";

/// Mounts; the connection to the kernel.
pub(super) fn mount(config: &MountConfig) -> io::Result<OwnedFd> {
    if rustix::process::geteuid().is_root() { by_root(config) } else { by_fusermount(config) }
}

/// Unmounts: what has files open there keeps them.
pub(crate) fn unmount(mountpoint: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(rustix::mount::unmount(mountpoint, UnmountFlags::DETACH)?);
    }
    let status = Command::new("fusermount3").args(["-u", "-z"]).arg(mountpoint).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other("fusermount3 failed")) }
}

fn by_root(config: &MountConfig) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let others = if config.allow_other { ",allow_other" } else { "" };
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{others}",
        device.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw()
    );
    // As the backing itself would show them: suid files and devices count where they count there.
    let source = CString::new(config.backing.as_os_str().as_bytes())?;
    let options = CString::new(options)?;
    rustix::mount::mount(&source, &config.mountpoint, TYPE, flags_of(&config.backing)?, &*options)?;
    Ok(device)
}

/// What the file system of `backing` doesn't allow, the mount doesn't either: the kernel looks at the mount that a
/// program or a device was reached by.
fn flags_of(backing: &Path) -> io::Result<MountFlags> {
    let below = rustix::fs::statvfs(backing)?.f_flag;
    let kept = [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
    ];
    Ok(kept.into_iter().filter(|(of, _)| below.contains(*of)).map(|(_, flag)| flag).collect())
}

/// The helper is setuid, opens the device itself, and sends it over a socket whose number it finds in its environment.
fn by_fusermount(config: &MountConfig) -> io::Result<OwnedFd> {
    let (ours, theirs) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::empty(),
        None,
    )?;
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::CLOEXEC)?;
    let name = config.backing.display().to_string().replace('\\', "\\\\").replace(',', "\\,");
    let others = if config.allow_other { ",allow_other" } else { "" };
    let output = Command::new("fusermount3")
        .arg("-o")
        .arg(format!("fsname={name},subtype=aimss,default_permissions{others}"))
        .arg("--")
        .arg(&config.mountpoint)
        .env("_FUSE_COMMFD", theirs.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .output()?;
    drop(theirs);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(said.trim().replace('\n', " ")));
    }
    let (mut byte, mut space) = ([0], [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))]);
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(
        ours.as_fd(),
        &mut [IoSliceMut::new(&mut byte)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    device.ok_or_else(|| io::Error::other("fusermount3 gave no connection to the kernel"))
}
