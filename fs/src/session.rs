//! Serving a connection to the kernel that a keeper holds, from its first daemon or from a later one.
//!
//! `fuser` begins a session by answering the kernel's INIT, which comes once in the life of a connection. So a session is
//! begun on a socket: the first daemon reads the kernel's INIT itself, keeps it for those who come later, shows it to
//! `fuser`, and passes the answer on; a later one shows what was kept. Then the connection takes the socket's place, under
//! the same number. What the last daemon had read and not answered the kernel sends again when it is asked to
//! (FUSE_NOTIFY_RESEND, Linux 6.9), with the highest bit set in the number of the request, which fuser echoes.

use aimss_engine::journal::AGAIN;
use fuser::{Filesystem, Session, SessionACL};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The kernel refuses reads into less.
const READ_BYTES_MIN: usize = 1 << 20;
/// A fuse_out_header.
const HEADER_BYTES: u32 = 16;
/// FUSE_NOTIFY_INVAL_INODE and FUSE_NOTIFY_RESEND, as the kernel's `linux/fuse.h` has them.
const NOTIFY_INVAL_INODE: i32 = 2;
const NOTIFY_RESEND: i32 = 7;

/// The number that a request had when it came first, if it comes again.
pub fn first_number(request: u64) -> Option<u64> {
    (request & AGAIN != 0).then_some(request & !AGAIN)
}

/// Begins a session of the connection `device`. The kernel's INIT is kept at `init`; `takes_over`: it is there.
pub fn begin<F: Filesystem>(
    filesystem: F,
    device: BorrowedFd<'_>,
    acl: SessionACL,
    config: fuser::Config,
    init: &Path,
    takes_over: bool,
) -> io::Result<Session<F>> {
    let request = if takes_over { fs::read(init)? } else { read_init(device, init)? };
    let (ours, shown) = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::io::write(&ours, &request)?;
    let number = shown.as_raw_fd();
    let session = Session::from_fd(filesystem, shown, acl, config)?;
    let mut answer = vec![0; READ_BYTES_MIN];
    let bytes = rustix::io::read(&ours, &mut answer)?;
    if !takes_over {
        rustix::io::write(device, &answer[..bytes])?;
    }
    // SAFETY: the number is the session's, which keeps it open for as long as it lives; it is not closed here.
    let mut place = std::mem::ManuallyDrop::new(unsafe { OwnedFd::from_raw_fd(number) });
    rustix::io::dup3(device, &mut place, rustix::io::DupFlags::CLOEXEC)?;
    Ok(session)
}

/// Asks the kernel for what the last daemon had read and not answered. Nothing may have been read before.
pub fn ask_again(device: BorrowedFd<'_>) -> io::Result<()> {
    let mut notification = Vec::with_capacity(HEADER_BYTES as usize);
    notification.extend(HEADER_BYTES.to_ne_bytes());
    notification.extend(NOTIFY_RESEND.to_ne_bytes());
    notification.extend(0_u64.to_ne_bytes());
    rustix::io::write(device, &notification)?;
    Ok(())
}

/// Whether the kernel knows an inode by this number. It is told that the inode's attributes are stale, and says if there is none.
pub fn is_known(device: BorrowedFd<'_>, number: u64) -> bool {
    // Of its content nothing is stale: that is what an offset below zero says.
    let (offset, bytes) = (-1_i64, 0_i64);
    let mut notification = Vec::with_capacity(HEADER_BYTES as usize + 24);
    notification.extend((HEADER_BYTES + 24).to_ne_bytes());
    notification.extend(NOTIFY_INVAL_INODE.to_ne_bytes());
    notification.extend(0_u64.to_ne_bytes());
    notification.extend(number.to_ne_bytes());
    notification.extend(offset.to_ne_bytes());
    notification.extend(bytes.to_ne_bytes());
    !matches!(rustix::io::write(device, &notification), Err(rustix::io::Errno::NOENT))
}

fn read_init(device: BorrowedFd<'_>, keep: &Path) -> io::Result<Vec<u8>> {
    let mut request = vec![0; READ_BYTES_MIN];
    let bytes = rustix::io::retry_on_intr(|| rustix::io::read(device.as_fd(), &mut request))?;
    request.truncate(bytes);
    fs::write(keep, &request)?;
    Ok(request)
}
