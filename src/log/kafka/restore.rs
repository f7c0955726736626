//! Reading a changelog. The end is the partition's high watermark, asked for after the committed
//! offsets were known to be final: a transaction that moved them has written its changelog below
//! it. As long as a transaction is open below that end (a predecessor that died, or one whose
//! markers are still under way), the last stable offset is lower, and we wait for it.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::errors;
use super::settings::{ClientSettings, READERS_GROUP, reader_config};
use crate::log::{ChangelogReader, ChangelogRecord, LogError, RestoreProgress};

const DOING: &str = "reading the changelog";
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// The end is told by a fetch that finds nothing: it is not to wait for more, which would cost half
/// a second for each partition.
const FETCH_WAIT: Duration = Duration::from_millis(10);

pub(super) struct ChangelogOfKafka {
    /// `None` only while it is dropped.
    consumer: Option<BaseConsumer>,
    topic: String,
    partition: i32,
    position: i64,
    end: i64,
    /// Everything below the end is decided, and we are reading.
    is_reading: bool,
    done: bool,
}

impl ChangelogOfKafka {
    pub(super) fn new(
        settings: &ClientSettings,
        topic: &str,
        partition: i32,
        from: i64,
        end: i64,
    ) -> Result<Self, LogError> {
        let mut client = reader_config(settings.client_config(), READERS_GROUP, FETCH_WAIT);
        client.set("enable.partition.eof", "true");
        let consumer = client
            .create()
            .map_err(|error| errors::retriable(DOING, error))?;
        Ok(Self {
            consumer: Some(consumer),
            topic: topic.to_owned(),
            partition,
            position: from,
            end,
            is_reading: false,
            done: from >= end,
        })
    }

    fn consumer(&self) -> &BaseConsumer {
        self.consumer.as_ref().expect("there until it is dropped")
    }

    fn progress(&self) -> RestoreProgress {
        RestoreProgress {
            position: self.position,
            remaining: u64::try_from(self.end - self.position).unwrap_or(0),
            done: self.done,
        }
    }

    /// Begins to read once the last stable offset has reached the end.
    fn try_begin(&mut self) -> Result<bool, LogError> {
        let ends = self
            .consumer()
            .fetch_watermarks(&self.topic, self.partition, ASK_TIMEOUT);
        let (_, last_stable) = ends.map_err(|error| errors::retriable(DOING, error))?;
        if last_stable < self.end {
            return Ok(false);
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, self.partition, Offset::Offset(self.position))
            .and_then(|()| self.consumer().assign(&list))
            .map_err(|error| errors::retriable(DOING, error))?;
        self.is_reading = true;
        Ok(true)
    }
}

/// librdkafka takes a second to take a consumer down: not on the worker's thread, where each
/// partition would wait for the one before it.
impl Drop for ChangelogOfKafka {
    fn drop(&mut self) {
        let consumer = self.consumer.take();
        std::thread::spawn(move || drop(consumer));
    }
}

impl ChangelogReader for ChangelogOfKafka {
    fn position(&self) -> i64 {
        self.position
    }

    fn read(
        &mut self,
        limit: usize,
        visit: &mut dyn FnMut(ChangelogRecord<'_>),
    ) -> Result<RestoreProgress, LogError> {
        if self.done {
            return Ok(self.progress());
        }
        if !self.is_reading && !self.try_begin()? {
            std::thread::sleep(Duration::from_millis(10));
            return Ok(self.progress());
        }
        let consumer = self.consumer.as_ref().expect("there until it is dropped");
        let mut wait = Duration::from_millis(20);
        for _ in 0..limit {
            match consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    self.position = message.offset() + 1;
                    visit(ChangelogRecord {
                        offset: message.offset(),
                        key: message.key().unwrap_or_default(),
                        value: message.payload(),
                    });
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.position = self.end.max(self.position);
                    self.done = true;
                    break;
                }
                Some(Err(error)) => {
                    tracing::debug!(%error, topic = self.topic, partition = self.partition, DOING);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        Ok(self.progress())
    }
}
