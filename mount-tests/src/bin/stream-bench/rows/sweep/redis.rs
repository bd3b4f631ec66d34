//! Redis in the sweep: a stream a partition, a connection a producer and a consumer.

use super::flow::{Flow, REST};
use super::{Cell, PARTITIONS, Side};
use crate::peers::redis::{Server, send, xadd};
use crate::records;
use anyhow::{Context as _, Result, ensure};
use redis::{ConnectionLike, Value};

const GROUP: &str = "sweep";
/// A consumer that waits looks so often whether the run ended.
const BLOCK_MS: usize = 100;

/// See the module.
pub struct Streams<'a> {
    pub server: &'a Server,
}

fn key(partition: usize) -> String {
    format!("bench-sweep-{partition}")
}

impl Side for Streams<'_> {
    fn name(&self) -> &'static str {
        "Redis"
    }

    fn prepare(&self, _cell: &Cell) -> Result<()> {
        self.clean()?;
        let mut connection = self.server.connect()?;
        for partition in 0..PARTITIONS {
            let mut create = redis::cmd("XGROUP");
            create
                .arg("CREATE")
                .arg(key(partition))
                .arg(GROUP)
                .arg("0")
                .arg("MKSTREAM")
                .exec(&mut connection)?;
        }
        Ok(())
    }

    fn produce(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        let mut connection = self.server.connect()?;
        let record = records::line(cell.record);
        let count = cell.records_a_chunk();
        let chunks: Vec<Vec<u8>> = (0..PARTITIONS)
            .map(|partition| {
                xadd(&key(partition), Some(cell.kept()), &record).get_packed_command().repeat(count)
            })
            .collect();
        let mut next = number;
        while !flow.ended() {
            if flow.full() {
                std::thread::sleep(REST);
                continue;
            }
            send(&mut connection, &chunks[next % PARTITIONS], count)?;
            flow.produce(count);
            next += 1;
        }
        Ok(())
    }

    /// One round trip a batch: the acknowledgement of the last one and the wait for the next go together.
    fn consume(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        let mut connection = self.server.connect()?;
        let keys: Vec<String> = cell.partitions(number).map(key).collect();
        let mut wait = redis::cmd("XREADGROUP");
        wait.arg("GROUP").arg(GROUP).arg(format!("member-{number}")).arg("COUNT").arg(cell.records_a_chunk());
        wait.arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg(&keys).arg(vec![">"; keys.len()]);
        let wait = wait.get_packed_command();
        let (mut request, mut acknowledgements) = (Vec::new(), 0);
        while !flow.ended() {
            request.extend_from_slice(&wait);
            let answers = connection.req_packed_commands(&request, 0, acknowledgements + 1)?;
            (request, acknowledgements) = (Vec::new(), 0);
            let batches = answers.into_iter().next_back().context("there is no answer")?.extract_error()?;
            let Value::Array(batches) = batches else { continue };
            for batch in &batches {
                let (key, entries) = pair(batch)?;
                let mut acknowledge = redis::cmd("XACK");
                acknowledge.arg(bytes(key)?).arg(GROUP);
                let Value::Array(entries) = entries else { continue };
                for entry in entries {
                    let (id, fields) = pair(entry)?;
                    let record = bytes(pair(fields)?.1)?;
                    ensure!(
                        record.len() == cell.record && records::are_whole(record, cell.record),
                        "a torn record"
                    );
                    acknowledge.arg(bytes(id)?);
                }
                flow.consume(entries.len());
                request.append(&mut acknowledge.get_packed_command());
                acknowledgements += 1;
            }
        }
        Ok(())
    }

    fn clean(&self) -> Result<()> {
        (0..PARTITIONS).try_for_each(|partition| self.server.forget(&key(partition)))
    }

    fn server(&self) -> Result<Option<i32>> {
        self.server.pid().map(Some)
    }
}

fn pair(value: &Value) -> Result<(&Value, &Value)> {
    match value {
        Value::Array(two) if two.len() == 2 => Ok((&two[0], &two[1])),
        other => anyhow::bail!("{other:?} is not a pair"),
    }
}

fn bytes(value: &Value) -> Result<&[u8]> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => anyhow::bail!("{other:?} are no bytes"),
    }
}
