//! The loop under test: consume a batch, transform it, produce it, all in one transaction.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::client::{Sender, Target, seconds, send, settle};

/// A consume-transform-produce loop.
pub struct Transform<'a> {
    pub target: &'a Target,
    pub source: String,
    pub sink: String,
    /// A second output, as a changelog would be.
    pub changelog: Option<String>,
    pub group: String,
    pub transactional_id: String,
    pub batch: usize,
}

/// What a loop did.
#[derive(Default)]
pub struct Done {
    /// Records whose transaction committed.
    pub committed: usize,
    /// Milliseconds from the begin to the end of each committed transaction.
    pub latencies: Vec<f64>,
    /// The producer of a loop that was told to crash, its last transaction still open.
    pub zombie: Option<Sender>,
}

/// Which batches, counted from 1, are to go wrong.
#[derive(Default)]
pub struct Mishaps<'a> {
    pub abort: &'a [usize],
    pub crash: Option<usize>,
}

struct Input {
    partition: i32,
    offset: i64,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Transform<'_> {
    /// Runs until `wanted` records are committed, a crash was due, or `limit` is over.
    pub fn run(&self, wanted: usize, mishaps: &Mishaps<'_>, limit: Duration) -> Result<Done> {
        let producer = self.target.transactional_producer(&self.transactional_id)?;
        producer
            .init_transactions(seconds(30))
            .map_err(|error| anyhow!("init_transactions: {error}"))?;
        let consumer = self.target.subscriber(&self.group, &self.source)?;
        let mut done = Done::default();
        let mut batches = 0;
        let deadline = Instant::now() + limit;
        while done.committed < wanted {
            if Instant::now() > deadline {
                println!("  loop TIMEOUT after {}", done.committed);
                break;
            }
            let batch = self.collect(&consumer, wanted - done.committed, deadline)?;
            if batch.is_empty() {
                continue;
            }
            batches += 1;
            let began = Instant::now();
            producer.begin_transaction()?;
            self.produce(&producer, &batch)?;
            if mishaps.crash == Some(batches) {
                producer.flush(seconds(10))?;
                println!(
                    "  'crash': producer+consumer dropped mid-transaction, {} committed",
                    done.committed
                );
                done.zombie = Some(producer);
                return Ok(done);
            }
            self.add_offsets(&producer, &consumer, &batch)?;
            if mishaps.abort.contains(&batches) {
                self.abort_and_rewind(&producer, &consumer, &batch)?;
                println!("  aborted batch {batches} ({} msgs), rewound", batch.len());
                continue;
            }
            producer
                .commit_transaction(seconds(30))
                .map_err(|error| anyhow!("commit: {error}"))?;
            done.committed += batch.len();
            done.latencies.push(began.elapsed().as_secs_f64() * 1e3);
        }
        Ok(done)
    }

    /// Fills a batch, waiting at most half a second for it to become full.
    fn collect(
        &self,
        consumer: &BaseConsumer,
        remaining: usize,
        deadline: Instant,
    ) -> Result<Vec<Input>> {
        let mut batch: Vec<Input> = vec![];
        let full = self.batch.min(remaining);
        let began = Instant::now();
        while batch.len() < full
            && (batch.is_empty() || began.elapsed() < Duration::from_millis(500))
            && Instant::now() < deadline
        {
            let Some(polled) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let message = polled?;
            batch.push(Input {
                partition: message.partition(),
                offset: message.offset(),
                key: message.key().unwrap_or_default().to_vec(),
                payload: message
                    .payload()
                    .context("a record without a value")?
                    .to_vec(),
            });
        }
        Ok(batch)
    }

    fn produce(&self, producer: &Sender, batch: &[Input]) -> Result<()> {
        for input in batch {
            for topic in [Some(&self.sink), self.changelog.as_ref()]
                .into_iter()
                .flatten()
            {
                send(
                    producer,
                    BaseRecord::to(topic)
                        .key(&input.key)
                        .payload(&input.payload),
                )?;
            }
        }
        Ok(())
    }

    fn add_offsets(
        &self,
        producer: &Sender,
        consumer: &BaseConsumer,
        batch: &[Input],
    ) -> Result<()> {
        let next: BTreeMap<i32, i64> = batch
            .iter()
            .map(|input| (input.partition, input.offset + 1))
            .collect();
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets.add_partition_offset(&self.source, partition, Offset::Offset(offset))?;
        }
        settle(producer);
        let membership = consumer.group_metadata().context("no group metadata")?;
        producer
            .send_offsets_to_transaction(&offsets, &membership, seconds(30))
            .map_err(|error| anyhow!("send_offsets: {error}"))
    }

    fn abort_and_rewind(
        &self,
        producer: &Sender,
        consumer: &BaseConsumer,
        batch: &[Input],
    ) -> Result<()> {
        producer.flush(seconds(10))?;
        producer
            .abort_transaction(seconds(30))
            .map_err(|error| anyhow!("abort: {error}"))?;
        let mut first: BTreeMap<i32, i64> = BTreeMap::new();
        for input in batch {
            first.entry(input.partition).or_insert(input.offset);
        }
        for (partition, offset) in first {
            consumer.seek(&self.source, partition, Offset::Offset(offset), seconds(10))?;
        }
        Ok(())
    }
}
