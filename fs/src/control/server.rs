//! The answering side: tokio, beside the file system, never between the kernel and a read.
//!
//! Whoever may connect may ask for everything, so the socket lies in a directory that is its owner's alone, and the
//! peer's uid is checked besides.

use super::protocol::{Progress, Reply, Request};
use crate::daemon::Daemon;
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Longest request line: a list of paths from a shell.
#[doc(hidden)]
pub const LINE_BYTES_MAX: u64 = 4 << 20;

/// Listens on `path`.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    UnixListener::bind(path)
}

/// Serves clients for as long as the daemon lives.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let daemon = daemon.clone();
                tokio::spawn(async move {
                    if let Err(e) = serve_client(stream, daemon).await {
                        log::debug!("a control client left: {e}");
                    }
                });
            }
            Err(e) => {
                log::warn!("the control socket failed to accept: {e}");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_client(stream: UnixStream, daemon: Arc<Daemon>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    while let Some(request) = read_request(&mut lines).await? {
        let (replies, mut received) = mpsc::unbounded_channel();
        match request {
            Ok(request) => {
                // A thread of its own: those that requests of programs wait on may all wait for a backing that hangs.
                let (daemon, refused) = (daemon.clone(), replies.clone());
                let run = move || answer(&daemon, request, &replies);
                if let Err(e) = std::thread::Builder::new().name("answer".into()).spawn(run) {
                    let _ =
                        refused.send(Reply::Error(format!("the daemon has no thread to answer with: {e}")));
                }
            }
            Err(e) => {
                let _ = replies.send(Reply::Error(format!("the request can't be read: {e}")));
                drop(replies);
            }
        }
        while let Some(reply) = received.recv().await {
            let mut out = serde_json::to_vec(&reply)?;
            out.push(b'\n');
            write.write_all(&out).await?;
        }
    }
    Ok(())
}

/// The next line as a request, or why it is none; `None` at the end. An error at bytes that are no text, and at a line
/// that is too long: its rest must not be taken for another one.
#[doc(hidden)]
pub async fn read_request(
    lines: &mut (impl AsyncBufRead + Unpin),
) -> io::Result<Option<serde_json::Result<Request>>> {
    let mut line = String::new();
    if lines.take(LINE_BYTES_MAX).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    if line.len() as u64 == LINE_BYTES_MAX && !line.ends_with('\n') {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(Some(serde_json::from_str(&line)))
}

fn answer(daemon: &Arc<Daemon>, request: Request, replies: &mpsc::UnboundedSender<Reply>) {
    let progress = |progress: Progress| {
        let _ = replies.send(Reply::Progress(progress));
    };
    let reply = match request {
        Request::Status => Reply::Status(Box::new(daemon.status())),
        Request::Drain { paths } => match daemon.drain(&paths, progress) {
            Ok(()) => Reply::Done,
            Err(sentence) => Reply::Error(sentence),
        },
        Request::Busy => Reply::Busy(daemon.busy()),
        Request::Pending => Reply::Pending(daemon.pending()),
        Request::StreamsInMemory => match daemon.streams_in_memory() {
            Ok(directories) => Reply::StreamsInMemory(directories),
            Err(e) => Reply::Error(format!("what memory has of streams can't be looked for: {e}")),
        },
        Request::Finish { discard } => {
            daemon.finish(discard);
            Reply::Done
        }
        Request::Residence { action, paths } => match daemon.move_files(action, &paths, progress) {
            Ok(moved) => Reply::Moved(moved),
            Err(sentence) => Reply::Error(sentence),
        },
        Request::Stream(request) => daemon.stream(request),
        Request::Upgrade { binary, within } => Reply::Error(daemon.upgrade(binary, within)),
    };
    let _ = replies.send(reply);
}
