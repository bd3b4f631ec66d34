//! The control protocol, in both directions, as a function of bytes, with what must hold of it whatever they are: no
//! panic, no more memory than the longest line, a line an answer, and what was read is read again as the same.
//! `control_parsers` feeds it random bytes; the target `control` in `fuzz/` what libFuzzer thinks of.
//!
//! JSON would refuse nearly all of what a fuzzer invents. So the first byte says what the rest is: lines as they are,
//! or changes of good lines, requests or replies.

use aimss_engine::engine::Residence;
use aimss_fs::control::client::read_reply;
use aimss_fs::control::partitions::{PartitionInfo, PartitionsInfo, SharesInfo};
use aimss_fs::control::protocol::{Action, BusyFile, Progress, Reply, Request};
use aimss_fs::control::server::{LINE_BYTES_MAX, read_request};
use aimss_fs::control::status::{MountStatus, OutstandingStatus, WorstGroup};
use aimss_fs::control::stream::{GroupInfo, SeekTo, StreamInfo, StreamRequest};
use serde::Serialize;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// What a reader makes of bytes: each line, or `None` for one that can't be read, then whether the end was reached.
type Outcome<T> = (Vec<Option<T>>, bool);

/// Requests and replies from these bytes.
pub fn control(data: &[u8]) {
    let (choice, rest) = data.split_first().unwrap_or((&0, &[]));
    let bytes = match choice % 4 {
        0 => rest.to_vec(),
        1 => changed(&lines(&requests()), rest),
        2 => changed(&lines(&replies()), rest),
        // Both ways on one line are none.
        _ => changed(&[lines(&requests()), lines(&replies())].concat(), rest),
    };
    let (requests, whole) = read_requests(&bytes);
    // Every line is answered, up to bytes that are no text.
    assert!(!whole || requests.len() == bytes.split_inclusive(|b| *b == b'\n').count());
    for request in requests.into_iter().flatten() {
        assert_same(&request, &read_requests(&line(&request)).0);
    }
    for reply in read_replies(&bytes).0.into_iter().flatten() {
        assert_same(&reply, &read_replies(&line(&reply)).0);
    }
}

/// What is sent is what is read.
pub fn good_lines() {
    let (read, whole) = read_requests(&lines(&requests()));
    assert!(whole && read.iter().all(Option::is_some) && read.len() == requests().len());
    assert_eq!(lines(&read.into_iter().flatten().collect::<Vec<_>>()), lines(&requests()));
    let (read, whole) = read_replies(&lines(&replies()));
    assert!(whole && read.iter().all(Option::is_some) && read.len() == replies().len());
    assert_eq!(lines(&read.into_iter().flatten().collect::<Vec<_>>()), lines(&replies()));
}

/// A line that never ends is refused when it is too long, and its rest is not taken for another one.
pub fn endless_line() {
    let mut bytes = vec![b' '; LINE_BYTES_MAX as usize];
    bytes.extend_from_slice(b"\"status\"\n");
    let (requests, whole) = read_requests(&bytes);
    assert!(requests.is_empty() && !whole, "{} requests", requests.len());
    // The longest that is read.
    let status = "\"status\"\n".as_bytes();
    let fits = [&bytes[..LINE_BYTES_MAX as usize - status.len()], status, status].concat();
    let (requests, whole) = read_requests(&fits);
    assert!(whole && requests.iter().filter(|request| request.is_some()).count() == 2);
}

/// All requests that `bytes` hold.
fn read_requests(bytes: &[u8]) -> Outcome<Request> {
    let (mut left, mut read) = (bytes, Vec::new());
    loop {
        // What is in memory never waits.
        let mut reading = pin!(read_request(&mut left));
        let Poll::Ready(request) = reading.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("bytes in memory are there")
        };
        match request {
            Ok(Some(request)) => read.push(request.ok()),
            Ok(None) => return (read, true),
            Err(_) => return (read, false),
        }
    }
}

fn read_replies(bytes: &[u8]) -> Outcome<Reply> {
    let (mut left, mut read) = (bytes, Vec::new());
    loop {
        match read_reply(&mut left) {
            Ok(reply) => read.push(Some(reply)),
            Err(e) if e.kind() == ErrorKind::UnexpectedEof && left.is_empty() => return (read, true),
            Err(_) if left.is_empty() => return (read, false),
            Err(_) => read.push(None),
        }
    }
}

/// As JSON, since not all of it can be compared.
fn assert_same<T: Serialize>(value: &T, again: &[Option<T>]) {
    let [Some(again)] = again else { panic!("one line is one value") };
    assert_eq!(line(value), line(again), "read again");
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(value).expect("whatever was read can be written");
    line.push(b'\n');
    line
}

fn lines(values: &[impl Serialize]) -> Vec<u8> {
    values.iter().flat_map(line).collect()
}

/// Puts `changes` over `good`, a place and a few bytes at a time.
fn changed(good: &[u8], mut changes: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    while let [low, high, count, rest @ ..] = changes {
        let at = (usize::from(*low) | usize::from(*high) << 8) % bytes.len();
        let (new, rest) = rest.split_at(usize::from(count % 8).min(rest.len()));
        if count & 8 != 0 {
            bytes.splice(at..at, new.iter().copied());
        } else {
            for (byte, new) in bytes[at..].iter_mut().zip(new) {
                *byte = *new;
            }
        }
        changes = rest;
    }
    bytes
}

/// One of each kind; a path that is no text among them.
fn requests() -> Vec<Request> {
    let path = || PathBuf::from(OsString::from_vec(b"a\n\xff".to_vec()));
    let settings = vec![("framing".to_owned(), "line".to_owned())];
    let group = || "g".to_owned();
    let mut all = vec![
        Request::Status,
        Request::Drain { paths: vec![path(), "b".into()] },
        Request::Busy,
        Request::Pending,
        Request::StreamsInMemory,
        Request::Finish { discard: true },
        Request::Upgrade { binary: path(), within: Duration::new(u64::MAX, 999_999_999) },
    ];
    for action in [Action::Warm, Action::Pin, Action::Unpin, Action::Evict] {
        all.push(Request::Residence { action, paths: vec![path()] });
    }
    for to in [SeekTo::Earliest, SeekTo::Latest, SeekTo::Offset(u64::MAX), SeekTo::Time(0)] {
        all.push(Request::Stream(StreamRequest::Seek { path: path(), group: group(), to }));
    }
    let streams = [
        StreamRequest::Create { path: path(), settings: settings.clone() },
        StreamRequest::CreatePartitions { path: path(), partitions: u32::MAX, settings: settings.clone() },
        StreamRequest::Partitions { path: path() },
        StreamRequest::Settings { path: path(), settings },
        StreamRequest::Flush { path: path() },
        StreamRequest::List,
        StreamRequest::Trim { path: path(), before: 7 },
        StreamRequest::RemoveGroup { path: path(), group: group() },
    ];
    all.extend(streams.map(Request::Stream));
    all
}

fn replies() -> Vec<Reply> {
    let path = || PathBuf::from(OsString::from_vec(b"\x1b[2J\xfe".to_vec()));
    let mut status = MountStatus { mountpoint: path(), backing: path(), ..MountStatus::default() };
    status.outstanding = Some(OutstandingStatus { call: "open".into(), path: path(), age: 1.5 });
    status.drain.last_error = Some("no\nroom".into());
    let worst = WorstGroup { stream: path(), group: "g".into(), lag: 1, members: 0 };
    status.streams.groups.worst = Some(worst);
    let stream = StreamInfo {
        path: path(),
        directory: path(),
        groups: vec![GroupInfo::default()],
        partition: Some(PartitionInfo { number: 1, count: 2, set: "0".repeat(32) }),
        ..StreamInfo::default()
    };
    let partitions = PartitionsInfo {
        path: path(),
        count: 2,
        missing: vec![0],
        partitions: vec![stream.clone()],
        groups: vec![SharesInfo { name: "g".into(), shares: vec![2] }],
    };
    vec![
        Reply::Status(Box::new(status)),
        Reply::Progress(Progress { bytes_left: 1, items_left: 2, bytes_done: 3 }),
        Reply::Busy(vec![BusyFile { path: path(), handles: 1, mapped: true, arena: Some((1, 2)) }]),
        Reply::Pending(vec![path(), "b".into()]),
        Reply::StreamsInMemory(vec![path()]),
        Reply::Moved(Residence::default()),
        Reply::Stream(Box::new(stream.clone())),
        Reply::Streams(vec![stream]),
        Reply::Partitions(Some(Box::new(partitions))),
        Reply::Partitions(None),
        Reply::Done,
        Reply::Error("a sentence\n".into()),
    ]
}
