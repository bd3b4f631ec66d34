//! A mount's status as text: a heading, then labelled lines, broken at 80 columns, control characters
//! escaped.

use crate::duration::human as time;
use crate::escape;
use crate::size::human as bytes;
use aimss_engine::tier::TierStatus;
use aimss_fs::control::status::{
    CacheStatus, DrainStatus, FetchStatus, FileStatus, GroupsStatus, MemoryStatus, MountStatus,
    RequestsStatus, StreamsStatus,
};
use std::fmt::{Arguments, Write as _};
use std::time::Duration;

/// What a terminal shows at least.
const COLUMNS: usize = 80;
/// Labels stand in the first columns, text behind them.
const INDENT: usize = 13;

/// The text for one mount, with a newline at its end.
pub fn block(status: &MountStatus, alive: bool) -> String {
    let mut out = format!("{} over {}\n", escape::path(&status.mountpoint), escape::path(&status.backing));
    if !alive {
        line(&mut out, "daemon", &format!("process {}: dead", status.daemon.pid));
        line(&mut out, "way out", status.drain.last_error.as_deref().unwrap_or("unknown"));
        return out;
    }
    line(&mut out, "memory", &memory(&status.memory));
    line(&mut out, "drain", &drain(&status.drain));
    line(&mut out, "files", &files(&status.files));
    let seen = CacheStatus { policy: status.cache.policy.clone(), ..CacheStatus::default() };
    if status.cache != seen {
        line(&mut out, "cache", &cache(&status.cache));
    }
    if status.fetch != FetchStatus::default() {
        line(&mut out, "fetch", &fetch(&status.fetch));
    }
    if let Some(used) = &status.gpu {
        line(&mut out, "gpu", &gpu(used));
    }
    if status.streams.logs + status.streams.open > 0 {
        line(&mut out, "streams", &streams(&status.streams));
    }
    if status.streams.groups.number > 0 {
        line(&mut out, "groups", &groups(&status.streams.groups));
    }
    for (mode, reasons) in &status.modes {
        let total: u64 = reasons.values().sum();
        let reasons: Vec<String> =
            reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        line(&mut out, "opens", &format!("{total} {mode}: {}", reasons.join(", ")));
    }
    let daemon = &status.daemon;
    let text = format!(
        "process {}, version {}, up {}, {:.1} s of processor time, {} resident ({} heap), journal {}; fsync {}",
        daemon.pid,
        status.version,
        time(seconds(daemon.uptime)),
        daemon.cpu,
        bytes(daemon.resident),
        bytes(daemon.heap),
        bytes(daemon.journal),
        status.fsync,
    );
    line(&mut out, "daemon", &text);
    let keeper = match (status.keeper.pid, &daemon.last_death) {
        (0, _) => "none: a death of the daemon ends the mount".into(),
        (pid, None) => format!("process {pid}"),
        (pid, Some(reason)) => {
            let reason = crate::escape::text(reason);
            format!("process {pid}; the daemon died {} times, last of: {reason}", daemon.restarts)
        }
    };
    line(&mut out, "keeper", &keeper);
    if let Some(standby) = &status.keeper.standby {
        let held = bytes(standby.resident);
        let text = format!("process {}, ready to take over, {held} resident", standby.pid);
        line(&mut out, "standby", &text);
    }
    if status.requests.too_long > 0 {
        line(&mut out, "waiting", &requests(&status.requests));
    }
    for limit in &status.limits {
        line(&mut out, "limit", limit);
    }
    if let Some(error) = &status.drain.last_error {
        line(&mut out, "last error", error);
    }
    out
}

fn memory(memory: &MemoryStatus) -> String {
    let mut text = format!(
        "{} of {} used (peak {}, the daemon's own {}): {} dirty, {} clean",
        bytes(memory.used),
        bytes(memory.budget),
        bytes(memory.peak),
        bytes(memory.peak_process),
        bytes(memory.dirty),
        bytes(memory.clean),
    );
    if let Some(share) = memory.huge_share {
        put(&mut text, format_args!(", {:.0}% on huge pages", share * 100.0));
    }
    if let Some(overflow) = &memory.overflow {
        let (used, size) = (bytes(overflow.used), bytes(overflow.size));
        put(&mut text, format_args!("; {used} of {size} in {}", escape::path(&overflow.path)));
    }
    let own = memory.peak_process.min(memory.budget);
    if memory.ceiling > 0 && memory.ceiling < (memory.budget - own) / 10 * 9 {
        put(&mut text, format_args!("; at most {} now, for the machine is short", bytes(memory.ceiling)));
    }
    text
}

fn gpu(gpu: &TierStatus) -> String {
    let mut text = format!(
        "{}: {} of {} taken; {} in {} files there; {} files copied to it, {} came back",
        escape::text(&gpu.device),
        bytes(gpu.taken),
        bytes(gpu.limit),
        bytes(gpu.bytes),
        gpu.files,
        gpu.in_files,
        gpu.out_files,
    );
    if gpu.given_back > 0 {
        put(&mut text, format_args!("; {} given back to others", bytes(gpu.given_back)));
    }
    if gpu.failures > 0 {
        let damaged = gpu.damaged;
        put(&mut text, format_args!("; {} copies failed, {damaged} of them damaged", gpu.failures));
    }
    let checks = &gpu.scrub;
    if let Some(last) = checks.last {
        let (checked, ago) = (bytes(checks.bytes), time(seconds(last)));
        put(&mut text, format_args!("; {checked} checked while it was idle, all of it {ago} ago"));
    }
    if let Some(why) = &checks.off {
        put(&mut text, format_args!("; not checked: {}", escape::text(why)));
    }
    text
}

fn drain(drain: &DrainStatus) -> String {
    let mut text = if drain.files + drain.operations + drain.bytes == 0 {
        "nothing waits".to_owned()
    } else {
        format!(
            "{} in {} files and {} changes of names wait, the oldest for {}; {}/s",
            bytes(drain.bytes),
            drain.files,
            drain.operations,
            time(seconds(drain.backlog_age)),
            bytes(drain.rate as u64),
        )
    };
    put(&mut text, format_args!("; {} written", bytes(drain.written)));
    if drain.written_direct > 0 {
        put(&mut text, format_args!(" ({} past the page cache)", bytes(drain.written_direct)));
    }
    for (count, what) in [
        (drain.cancelled, "cancelled out"),
        (drain.conflicts, "conflicts"),
        (drain.failing, "failing and retried"),
    ] {
        if count > 0 {
            put(&mut text, format_args!(", {count} {what}"));
        }
    }
    text
}

fn cache(cache: &CacheStatus) -> String {
    let mut text = format!(
        "{} in {} clean files could leave; {} opens found their file in memory, {} did not; {} files left ({})",
        bytes(cache.bytes),
        cache.files,
        cache.hits,
        cache.misses,
        cache.evicted_files,
        bytes(cache.evicted),
    );
    if cache.pinned_files > 0 {
        put(&mut text, format_args!(", {} are pinned ({})", cache.pinned_files, bytes(cache.pinned)));
    }
    text
}

fn fetch(fetch: &FetchStatus) -> String {
    let causes = fetch.causes.iter().map(|(cause, came)| {
        let mut text = format!("{} files for {cause} ({})", came.files, bytes(came.bytes));
        if let Some(predictor) = fetch.predictors.get(cause)
            && predictor.wasted > 0
        {
            put(&mut text, format_args!(", {} of them wasted", bytes(predictor.wasted)));
        }
        text
    });
    let mut parts: Vec<String> = causes.collect();
    if fetch.waiting > 0 {
        parts.push(format!("{} files wait", fetch.waiting));
    }
    let off = fetch.predictors.iter().filter(|(_, p)| p.window == 0 && p.turned_down > 0);
    parts.extend(off.map(|(by, _)| format!("{by} is turned down, since it wasted")));
    if let (Some(latency), Some(rate)) = (fetch.latency, fetch.rate) {
        parts.push(format!(
            "the backing answers in {:.1} ms, {}/s a stream",
            latency * 1e3,
            bytes(rate as u64)
        ));
    }
    if parts.is_empty() { "nothing yet".into() } else { parts.join("; ") }
}

fn files(files: &FileStatus) -> String {
    format!(
        "{} known, {} open, {} still mapped or written after close",
        files.known, files.open, files.lingering
    )
}

fn streams(streams: &StreamsStatus) -> String {
    format!(
        "{}, {} in use, {} writers: {:.0} records/s ({}/s), {} in memory, {} stored, {} not flushed yet",
        streams.logs,
        streams.open,
        streams.writers,
        streams.record_rate,
        bytes(streams.rate as u64),
        bytes(streams.memory),
        bytes(streams.stored),
        bytes(streams.unflushed),
    )
}

fn groups(groups: &GroupsStatus) -> String {
    let mut text = format!("{}, {} members", groups.number, groups.members);
    match &groups.worst {
        None => text.push_str(": none lags"),
        Some(worst) => put(
            &mut text,
            format_args!(
                ": {} records behind, {} of them {}@{}",
                groups.lag,
                worst.lag,
                escape::path(&worst.stream),
                worst.group,
            ),
        ),
    }
    for (count, what) in [
        (groups.unattended, "of them lag without a member"),
        (groups.lost, "records lost"),
        (groups.redelivered, "given again"),
    ] {
        if count > 0 {
            put(&mut text, format_args!(", {count} {what}"));
        }
    }
    text
}

fn requests(requests: &RequestsStatus) -> String {
    let named = requests.oldest.iter().map(|request| {
        let (path, age) = (escape::path(&request.path), time(seconds(request.age)));
        format!("{} of {path} by thread {} for {age}", request.operation, request.thread)
    });
    let mut parts: Vec<String> = named.collect();
    let more = requests.too_long.saturating_sub(parts.len() as u64);
    if more > 0 {
        parts.push(format!("{more} more"));
    }
    parts.join("; ")
}

/// Ages come from the daemon as numbers; one that is no age must not end `status`.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn put(text: &mut String, more: Arguments<'_>) {
    text.write_fmt(more).expect("a String takes all");
}

/// Appends `text` behind `label`, broken between words.
fn line(out: &mut String, label: &str, text: &str) {
    let mut current = format!("  {label:<width$}", width = INDENT - 2);
    let text = escape::text(text);
    let mut fresh = true;
    for word in text.split_whitespace() {
        if !fresh && current.chars().count() + 1 + word.chars().count() > COLUMNS {
            out.push_str(&current);
            out.push('\n');
            current = " ".repeat(INDENT);
            fresh = true;
        }
        if !fresh {
            current.push(' ');
        }
        current.push_str(word);
        fresh = false;
    }
    out.push_str(current.trim_end());
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use aimss_fs::control::status::{RequestStatus, WorstGroup};
    use std::collections::BTreeMap;

    fn status() -> MountStatus {
        let mut status = MountStatus {
            mountpoint: "/mnt/fast".into(),
            backing: "/data/ckpt\n".into(),
            version: "0.1.0".into(),
            fsync: "durable".into(),
            ..MountStatus::default()
        };
        status.memory = MemoryStatus {
            budget: 6 << 30,
            ceiling: 6 << 30,
            used: 3 << 29,
            peak: 2 << 30,
            peak_process: 60 << 20,
            peak_together: (2 << 30) + (50 << 20),
            dirty: 1 << 30,
            clean: 1 << 29,
            spilled_files: 0,
            overflow: None,
            huge_share: Some(0.99),
        };
        status.drain = DrainStatus {
            files: 12,
            operations: 3,
            bytes: 1 << 30,
            rate: 8e8,
            written: 5 << 30,
            written_direct: 4 << 30,
            backlog_age: 1.25,
            failing: 1,
            last_error: Some("Writing model.bin to /data/ckpt failed: no space left on device.".into()),
            ..DrainStatus::default()
        };
        status.files = FileStatus { known: 1203, numbers: 1500, open: 4, lingering: 1 };
        status.daemon.pid = 77;
        status.keeper.pid = 76;
        status.daemon.uptime = 180.0;
        status.daemon.heap = 1 << 20;
        let reasons = BTreeMap::from([("known size".to_owned(), 100), ("new name".to_owned(), 20)]);
        status.modes.insert("passthrough".into(), reasons);
        status
    }

    #[test]
    fn a_mount_is_shown_in_80_columns() {
        let text = block(&status(), true);
        assert_eq!(
            text,
            "\
/mnt/fast over /data/ckpt\\n
  memory     1.5 GiB of 6 GiB used (peak 2 GiB, the daemon's own 60 MiB): 1 GiB
             dirty, 512 MiB clean, 99% on huge pages
  drain      1 GiB in 12 files and 3 changes of names wait, the oldest for 1.2
             s; 763 MiB/s; 5 GiB written (4 GiB past the page cache), 1 failing
             and retried
  files      1203 known, 4 open, 1 still mapped or written after close
  opens      120 passthrough: 100 known size, 20 new name
  daemon     process 77, version 0.1.0, up 3 min, 0.0 s of processor time, 0 B
             resident (1 MiB heap), journal 0 B; fsync durable
  keeper     process 76
  last error Writing model.bin to /data/ckpt failed: no space left on device.
"
        );
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
    }

    #[test]
    fn streams_and_groups_are_shown_where_there_are_any() {
        let mut status = status();
        status.streams = StreamsStatus {
            logs: 12,
            open: 3,
            writers: 2,
            record_rate: 1203.7,
            rate: 120_370.0,
            memory: 64 << 20,
            stored: 3 << 30,
            unflushed: 4096,
            ..StreamsStatus::default()
        };
        let text = block(&status, true);
        assert!(
            text.contains(
                "\
  streams    12, 3 in use, 2 writers: 1204 records/s (118 KiB/s), 64 MiB in
             memory, 3 GiB stored, 4 KiB not flushed yet
"
            ),
            "{text}"
        );
        assert!(!text.contains("groups"), "{text}");
        status.streams.groups = GroupsStatus { number: 2, members: 1, ..GroupsStatus::default() };
        assert!(block(&status, true).contains("  groups     2, 1 members: none lags\n"));
        status.streams.groups = GroupsStatus {
            lag: 1300,
            unattended: 1,
            lost: 7,
            worst: Some(WorstGroup { stream: "a/x.stream".into(), group: "g".into(), lag: 1200, members: 0 }),
            ..status.streams.groups
        };
        let text = block(&status, true);
        assert!(
            text.contains(
                "\
  groups     2, 1 members: 1300 records behind, 1200 of them a/x.stream@g, 1 of
             them lag without a member, 7 records lost
"
            ),
            "{text}"
        );
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS));
    }

    #[test]
    fn requests_that_take_too_long_are_named() {
        let mut status = status();
        let request = |operation: &str, path: &str, age| RequestStatus {
            operation: operation.into(),
            path: path.into(),
            thread: 4711,
            age,
        };
        let oldest = vec![request("fsync", "ckpt/model.bin", 12.3), request("lookup", "da\nta", 6.0)];
        status.requests = RequestsStatus { too_long: 5, oldest };
        let text = block(&status, true);
        assert!(
            text.contains(
                "\
  waiting    fsync of ckpt/model.bin by thread 4711 for 12 s; lookup of da\\nta
             by thread 4711 for 6.0 s; 3 more
"
            ),
            "{text}"
        );
    }

    #[test]
    fn a_dead_daemon_is_shown_with_the_way_out() {
        let mut dead =
            MountStatus { mountpoint: "/m".into(), backing: "/b".into(), ..MountStatus::default() };
        dead.drain.last_error =
            Some("The daemon is dead; `aimss umount --lazy /m` clears what it left.".into());
        let text = block(&dead, false);
        assert!(text.contains("process 0: dead"), "{text}");
        assert!(text.contains("umount --lazy /m"), "{text}");
    }

    #[test]
    fn an_idle_mount_says_that_nothing_waits() {
        assert!(block(&MountStatus::default(), true).contains("nothing waits"));
    }
}
