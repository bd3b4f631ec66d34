//! NATS JetStream in the sweep: a stream in memory a partition, a connection a producer and a consumer.

use super::flow::{Flow, REST};
use super::{Cell, KEPT_BYTES, PARTITIONS, Side};
use crate::peers::nats::{Server, runtime};
use crate::records;
use anyhow::{Context as _, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use async_nats::jetstream::{self, Context};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use std::time::Duration;

const GROUP: &str = "sweep";
/// Batches that a consumer asks for ahead: its client then asks again while it still has some.
const AHEAD: usize = 4;
/// A consumer that waits looks so often whether the run ended.
const LOOK: Duration = Duration::from_millis(100);

/// See the module.
pub struct JetStream<'a> {
    pub server: &'a Server,
}

fn name(partition: usize) -> String {
    format!("bench-{partition}")
}

impl JetStream<'_> {
    async fn context(&self) -> Result<Context> {
        Ok(jetstream::new(self.server.connect().await?))
    }
}

impl Side for JetStream<'_> {
    fn name(&self) -> &'static str {
        "NATS"
    }

    fn prepare(&self, _cell: &Cell) -> Result<()> {
        self.clean()?;
        runtime()?.block_on(async {
            let context = self.context().await?;
            for partition in 0..PARTITIONS {
                let stream = context.create_stream(Config {
                    name: name(partition),
                    subjects: vec![name(partition)],
                    storage: StorageType::Memory,
                    max_bytes: KEPT_BYTES as i64,
                    discard: DiscardPolicy::Old,
                    ..Config::default()
                });
                let group = pull::Config {
                    durable_name: Some(GROUP.into()),
                    ack_policy: AckPolicy::All,
                    max_ack_pending: -1,
                    ..pull::Config::default()
                };
                stream.await?.create_consumer(group).await?;
            }
            Ok(())
        })
    }

    fn produce(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        let record = bytes::Bytes::from(records::line(cell.record));
        let count = cell.records_a_chunk();
        runtime()?.block_on(async {
            let context = self.context().await?;
            let subjects: Vec<String> = (0..PARTITIONS).map(name).collect();
            let mut next = number;
            let mut acknowledgements = Vec::with_capacity(count);
            while !flow.ended() {
                if flow.full() {
                    tokio::time::sleep(REST).await;
                    continue;
                }
                let subject = &subjects[next % PARTITIONS];
                for _ in 0..count {
                    acknowledgements.push(context.publish(subject.clone(), record.clone()).await?);
                }
                for acknowledgement in acknowledgements.drain(..) {
                    acknowledgement.await?;
                }
                flow.produce(count);
                next += 1;
            }
            Ok(())
        })
    }

    fn consume(&self, cell: &Cell, number: usize, flow: &Flow) -> Result<()> {
        runtime()?.block_on(async {
            let context = self.context().await?;
            let feeds = cell.partitions(number).map(|partition| feed(&context, partition, cell, flow));
            try_join_all(feeds).await?;
            Ok(())
        })
    }

    fn clean(&self) -> Result<()> {
        runtime()?.block_on(async {
            let context = self.context().await?;
            for partition in 0..PARTITIONS {
                // Fails where there is none.
                let _ = context.delete_stream(name(partition)).await;
            }
            Ok(())
        })
    }

    fn server(&self) -> Result<Option<i32>> {
        Ok(self.server.pid())
    }
}

/// One partition's messages; the last of each batch acknowledges all before it.
async fn feed(context: &Context, partition: usize, cell: &Cell, flow: &Flow) -> Result<()> {
    let stream = context.get_stream(name(partition)).await?;
    let group: PullConsumer = stream.get_consumer(GROUP).await.map_err(anyhow::Error::from_boxed)?;
    let batch = cell.records_a_chunk();
    let mut messages = group.stream().max_messages_per_batch(batch * AHEAD).messages().await?;
    let mut had = 0;
    while !flow.ended() {
        let Ok(next) = tokio::time::timeout(LOOK, messages.next()).await else { continue };
        let message = next.context("the messages ended")??;
        let whole = message.payload.len() == cell.record && records::are_whole(&message.payload, cell.record);
        ensure!(whole, "a torn record");
        had += 1;
        if had == batch {
            message.ack().await.map_err(anyhow::Error::from_boxed)?;
            flow.consume(had);
            had = 0;
        }
    }
    Ok(())
}
