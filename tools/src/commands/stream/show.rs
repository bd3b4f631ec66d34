//! `aimss stream info` and `groups`: one stream in numbers.

use super::{counted, opened, partitions, print};
use crate::size::human;
use crate::{cli, duration, escape, timestamp};
use aimss_engine::stream::Micros;
use aimss_fs::control::stream::{RetentionInfo, StreamInfo};
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

/// Shows all of a stream.
pub fn info(asked: &cli::stream::Look) -> Result<()> {
    if let Some(set) = partitions::find(&asked.path)? {
        return set.print_info(asked.json);
    }
    let info = opened::look(&asked.path)?;
    if asked.json {
        return print(&format!("{}\n", serde_json::to_string_pretty(&info)?));
    }
    print(&block(&asked.path, &info))
}

/// Shows a stream's groups.
pub fn groups(asked: &cli::stream::Look) -> Result<()> {
    if let Some(set) = partitions::find(&asked.path)? {
        return set.print_groups(asked.json);
    }
    let info = opened::look(&asked.path)?;
    if asked.json {
        let groups = serde_json::json!({ "groups": info.groups });
        return print(&format!("{}\n", serde_json::to_string_pretty(&groups)?));
    }
    if info.groups.is_empty() {
        return print(&format!("{} has no groups\n", escape::path(&asked.path)));
    }
    print(&group_lines(&info))
}

fn group_lines(info: &StreamInfo) -> String {
    let head = ["GROUP", "COMMITTED", "LAG", "RECORDS/S", "MEMBERS", "DELIVERED", "REDELIVERED", "LOST"];
    let mut rows = vec![head.map(String::from).to_vec()];
    for group in &info.groups {
        let mut row = vec![escape::text(&group.name), group.committed.to_string(), group.lag.to_string()];
        row.push(format!("{:.0}", group.records_per_second));
        row.extend([group.members, group.delivered, group.redelivered, group.lost].map(|n| n.to_string()));
        rows.push(row);
    }
    table(&rows)
}

fn block(path: &Path, info: &StreamInfo) -> String {
    let records = info.end_offset - info.first_offset;
    let mut out = format!("{}\n", escape::path(path));
    let mut line =
        |label: &str, text: String| writeln!(out, "  {label:<11}{text}").expect("a String takes all");
    line("records", format!("{records}, offsets {} to before {}", info.first_offset, info.end_offset));
    if let (Some(first), Some(last)) = (info.first_time, info.last_time) {
        line("times", format!("{} to {}", timestamp::text(Micros(first)), timestamp::text(Micros(last))));
    }
    line("bytes", format!("{}, {} stored", human(info.bytes), human(info.stored_bytes)));
    line(
        "log",
        format!(
            "framing {}, {} of {}, compression {}",
            info.framing,
            counted(info.segments, "sealed segment"),
            human(info.segment_bytes),
            info.compression
        ),
    );
    line("keeps", retention(&info.retention));
    if let Some(timeout) = info.ack_timeout {
        line("ack timeout", format!(" {}", span(timeout)));
    }
    if info.pending_bytes > 0 {
        line("pending", format!("{} behind the last whole record", human(info.pending_bytes)));
    }
    if info.torn_bytes > 0 {
        line("torn", format!("{} that were no record, set aside in *.torn", human(info.torn_bytes)));
    }
    if info.writers > 0 || info.records_per_second > 0.0 {
        line("writers", format!("{}, {:.0} records/s", info.writers, info.records_per_second));
    }
    let lag = info.groups.iter().map(|group| group.lag).max();
    let behind = lag.map_or(String::new(), |lag| format!(", the last one {} behind", counted(lag, "record")));
    line("groups", format!("{}{behind}", info.groups.len()));
    if let Some(partition) = &info.partition {
        line("partition", format!("{} of {}", partition.number, partition.count));
    }
    line("directory", escape::path(&info.directory));
    out
}

/// What is kept, in words.
pub fn retention(retention: &RetentionInfo) -> String {
    let mut limits = Vec::new();
    if let Some(bytes) = retention.bytes {
        limits.push(format!("the last {}", human(bytes)));
    }
    if let Some(age) = retention.age {
        limits.push(format!("the last {}", span(age)));
    }
    if retention.acked {
        limits.push("what is not acked by every group".into());
    }
    if limits.is_empty() { "everything".into() } else { limits.join(", of that ") }
}

fn span(seconds: f64) -> String {
    duration::human(Duration::try_from_secs_f64(seconds).unwrap_or_default())
}

/// Rows below each other: the first column to the left, the others to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = format!("{:<1$}", row[0], widths[0]);
        for (cell, width) in row.iter().zip(&widths).skip(1) {
            write!(line, "  {cell:>width$}").expect("a String takes all");
        }
        writeln!(text, "{line}").expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["NAME", "N"], ["a", "10000"]].map(|row| row.map(String::from).to_vec());
        assert_eq!(table(&rows), "NAME      N\na     10000\n");
    }
}
