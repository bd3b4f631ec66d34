//! Our side of the sweep: a stream a partition, appended to and read as files.

use super::flow::{Flow, REST};
use super::{Cell, PARTITIONS, Side};
use crate::bench::remove;
use crate::ours::{Ours, open_append};
use crate::records;
use anyhow::{Context as _, Result, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// A consumer that waits looks so often whether the run ended.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const GROUP: &str = "sweep";

/// See the module.
pub struct Files<'a> {
    pub ours: &'a Ours,
    /// For `aimss stream create`.
    pub options: &'a str,
}

impl Files<'_> {
    fn stream(&self, partition: usize) -> PathBuf {
        self.ours.at(&format!("sweep-{partition}.stream"))
    }
}

impl Side for Files<'_> {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn prepare(&self, _cell: &Cell) -> Result<()> {
        self.clean()?;
        (0..PARTITIONS).try_for_each(|partition| self.ours.create(&self.stream(partition), self.options))
    }

    fn produce(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        let mut files = (0..PARTITIONS)
            .map(|partition| open_append(&self.stream(partition)))
            .collect::<Result<Vec<_>>>()?;
        let chunk = records::lines(cell.record, cell.chunk);
        let mut next = number;
        while !flow.ended() {
            if flow.full() {
                std::thread::sleep(REST);
                continue;
            }
            files[next % PARTITIONS].write_all(&chunk)?;
            flow.produce(cell.records_a_chunk());
            next += 1;
        }
        Ok(())
    }

    fn consume(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        let files = cell.partitions(number).map(|partition| {
            let path = self.ours.group(&self.stream(partition), GROUP, false);
            let opened =
                OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(&path);
            opened.with_context(|| format!("{} can't be opened", path.display()))
        });
        let mut files = files.collect::<Result<Vec<File>>>()?;
        // A stand-in can tear records: a read there sees part of a write that is being done.
        let mut buffer = vec![0; cell.records_a_chunk() * cell.record];
        let mounted = self.ours.is_mount();
        while !flow.ended() {
            let mut waiting: Vec<PollFd> =
                files.iter().map(|file| PollFd::new(file, PollFlags::IN)).collect();
            poll(&mut waiting, Some(&LOOK))?;
            let ready: Vec<bool> = waiting.iter().map(|file| !file.revents().is_empty()).collect();
            let mut got_any = false;
            for (file, _) in files.iter_mut().zip(&ready).filter(|(_, ready)| **ready) {
                let got = match file.read(&mut buffer) {
                    Ok(got) => got,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                let whole = !mounted || records::are_whole(&buffer[..got], cell.record);
                ensure!(whole, "a read of {got} bytes is no whole records");
                flow.consume(got.div_ceil(cell.record));
                got_any |= got > 0;
            }
            if !got_any {
                // The end of a stand-in, which is always ready; a mount's group would not have been.
                std::thread::sleep(REST);
            }
        }
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        (0..PARTITIONS).try_for_each(|partition| remove(&self.stream(partition)))
    }

    fn server(&self) -> Result<Option<i32>> {
        self.ours.daemon()
    }
}
