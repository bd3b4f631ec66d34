//! The rows: what aimss promises, and the function that measures each.

mod ahead;
mod append;
mod bytes;
mod daemon;
mod drain;
mod gpu;
mod journal;
mod names;
mod pressure;
mod takeover;
mod trees;

use super::Context;
use super::report::Outcome;
use crate::commands::Usage;
use crate::scratch::Mounted;
use anyhow::Result;

/// Bytes in the unit of rates: a GB is 10^9 bytes, as disks and papers count.
pub const GB: f64 = 1e9;

/// One row of the table.
pub struct Row {
    /// What `--only` calls it.
    pub name: &'static str,
    /// What it measures, and against what.
    pub what: &'static str,
    /// Measures it.
    pub run: fn(&Context, &Mounted) -> Result<Vec<Outcome>>,
}

/// All rows, in the order of the table in the README.
pub const ROWS: &[Row] = &[
    Row {
        name: "write-1m",
        what: "write 1 GiB in 1 MiB blocks, size known, against /dev/shm",
        run: bytes::write_known,
    },
    Row {
        name: "write-sizes",
        what: "write 1 GiB in 4 KiB, 64 KiB and 1 MiB blocks, against a bare tmpfs with the arena's options (root)",
        run: bytes::write_sizes,
    },
    Row {
        name: "write-unknown",
        what: "write 1 GiB to a new name in a new directory, against /dev/shm",
        run: bytes::write_unknown,
    },
    Row { name: "read", what: "read 1 GiB again, against /dev/shm", run: bytes::read },
    Row { name: "mmap-sum", what: "map 1 GiB and sum it, against /dev/shm", run: bytes::mmap_sum },
    Row {
        name: "append-200",
        what: "append 200 B records, one writer, against /dev/shm and each --peer",
        run: append::run,
    },
    Row { name: "create-4k", what: "create + write 4 KiB + close, against mergerfs", run: names::create },
    Row {
        name: "open-read-4k",
        what: "open + read 4 KiB + close, against mergerfs",
        run: names::open_and_read,
    },
    Row { name: "stat", what: "stat of files looked at before, against /dev/shm", run: names::stat },
    Row {
        name: "readdir-100k",
        what: "list a directory of 100,000 entries, against mergerfs",
        run: names::readdir,
    },
    Row { name: "find", what: "find in an unpacked source tree, against mergerfs", run: trees::find },
    Row { name: "rm-rf", what: "rm -rf of an unpacked source tree, against mergerfs", run: trees::remove },
    Row {
        name: "drain-4g",
        what: "drain 4 GiB of dirty data, against fio's direct sequential write to the same disk",
        run: drain::run,
    },
    Row {
        name: "daemon-cpu",
        what: "the daemon's processor time while a client writes and reads 10 GiB, in percent of the client's",
        run: daemon::processor,
    },
    Row {
        name: "heap-100k",
        what: "the daemon's heap and journal a file, with 100,000 files known",
        run: daemon::heap,
    },
    Row {
        name: "restore",
        what: "read a checkpoint of 4 GiB in 16 shards from a slow backing (--backing), against prefetch off",
        run: ahead::restore,
    },
    Row {
        name: "epochs",
        what: "read 20,000 files of 100 KiB in shuffled epochs from a slow backing, against prefetch off and /dev/shm",
        run: ahead::epochs,
    },
    Row {
        name: "random-reads",
        what: "read files of a slow backing that nothing predicts, against prefetch off",
        run: ahead::random,
    },
    Row {
        name: "larger",
        what: "write and read a file of 4 times the budget, opened in 3 ways, in a cgroup of 256 MiB, against fio (root)",
        run: pressure::larger,
    },
    Row {
        name: "zipf",
        what: "hit rate of 4 processes that open files of 1.5 GiB by Zipf's law through a budget of 1 GiB (root)",
        run: pressure::zipf,
    },
    Row {
        name: "foreground",
        what: "write 1 GiB that fits while another program streams 8 GiB through a budget of 2 GiB, against alone (root)",
        run: pressure::foreground,
    },
    Row {
        name: "takeover",
        what: "how long operations wait when the daemon is killed, with 100,000 files known and 10,000 open",
        run: takeover::pause,
    },
    Row {
        name: "remount",
        what: "mount and first read after daemon and keeper were killed with 8 GiB and 100,000 files in memory",
        run: takeover::remount,
    },
    Row {
        name: "journal-cost",
        what: "names, attributes and 4 KiB through the daemon, with all that survives its death, against without",
        run: journal::cost,
    },
    Row {
        name: "gpu-copy",
        what: "copy 4 GiB of memory to a GPU (--gpu) as the tier does, and back, against plain copies of pinned memory",
        run: gpu::copy,
    },
    Row {
        name: "gpu-checksum",
        what: "checksums of 8 GiB in a GPU's memory (--gpu), taken by the GPU, against the bandwidth of that memory",
        run: gpu::checksum,
    },
    Row {
        name: "cgroup-128m",
        what: "a program in a memory cgroup of 128 MiB writes and reads 2 GiB (root)",
        run: super::cgroup::run,
    },
];

/// The rows with these `names`; all if there are none.
pub fn chosen(names: &[String]) -> Result<Vec<&'static Row>> {
    if names.is_empty() {
        return Ok(ROWS.iter().collect());
    }
    let find = |name: &String| {
        ROWS.iter().find(|row| row.name == name.trim()).ok_or_else(|| {
            Usage(format!("there is no row '{}'; `aimss bench --list` shows them", crate::escape::text(name)))
                .into()
        })
    };
    names.iter().map(find).collect()
}

/// A rate in GB/s.
fn rate(bytes: u64, time: std::time::Duration) -> f64 {
    bytes as f64 / GB / time.as_secs_f64()
}

/// A rate a second.
fn per_second(count: u64, time: std::time::Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_chosen_by_name() {
        assert_eq!(chosen(&[]).expect("all").len(), ROWS.len());
        let two = chosen(&["stat".into(), " read ".into()]).expect("both are there");
        assert_eq!(two.iter().map(|row| row.name).collect::<Vec<_>>(), ["stat", "read"]);
        assert!(chosen(&["speed".into()]).is_err_and(|error| error.is::<Usage>()));
    }
}
