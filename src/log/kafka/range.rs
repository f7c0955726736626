//! Ranges of topics of others, read once from end to end: no group is joined and nothing is committed.
//! Each partition has a queue of its own, so that a caller may take from whichever it wants to go on
//! with while the others hold no more than their share of memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, DefaultConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::errors;
use super::session::{ASK_TIMEOUT, first_since, headers_of, partition_count, time_of};
use super::settings::{ClientSettings, READERS_GROUP, reader_config};
use super::sources::SourcePartition;
use crate::log::LogError;
use crate::model::Timestamp;

const DOING: &str = "reading a range of records";

/// The end of a partition is told by a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(10);

/// A partition that has records to come and gives none for so long: its broker is away.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// Between two looks at what the client itself has to say: so long, or so many records.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_AFTER: u32 = 4_096;

/// Fetched records that wait in memory, over all partitions and at most of one, in KiB.
const QUEUED_KIB: usize = 64 << 10;
const QUEUED_KIB_OF_ONE: usize = 8 << 10;
const LEAST_QUEUED_KIB: usize = 256;

/// Where a range begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first record that is still there.
    Earliest,
    /// The first record with this timestamp or a later one.
    At(Timestamp),
    /// Behind the last record that is committed by now.
    Latest,
}

/// The range of one partition: offsets from `from`, up to and without `end`, and of those the records
/// before the first that has the timestamp `until` or a later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub at: SourcePartition,
    /// How many partitions the topic has.
    pub partitions: i32,
    pub from: i64,
    pub end: i64,
    pub until: Option<Timestamp>,
}

/// A record, as it lies in the client's memory.
#[derive(Debug)]
pub struct RangeRecord<'m> {
    pub offset: i64,
    pub timestamp: Option<Timestamp>,
    pub key: Option<&'m [u8]>,
    pub value: Option<&'m [u8]>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Finds the ranges of topics.
pub struct RangeFinder {
    settings: ClientSettings,
    probe: BaseConsumer,
}

impl RangeFinder {
    /// Makes the client; reaches for no broker yet.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn new(settings: ClientSettings) -> Result<Self, LogError> {
        let probe = reader_config(settings.client_config(), READERS_GROUP, FETCH_WAIT)
            .create()
            .map_err(|error| errors::fatal("making a client", error))?;
        Ok(Self { settings, probe })
    }

    /// The ranges of a topic's partitions, each at most up to its last committed record as of now;
    /// `None`: there is no such topic, or none that we may see.
    ///
    /// Brokers look markers of transactions up by their time as well, which is that of the commit: a
    /// range may begin before the record that it asks for. The end by time is found while reading.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn spans(
        &self,
        topic: &Arc<str>,
        from: Edge,
        to: Edge,
    ) -> Result<Option<Vec<Span>>, LogError> {
        let Some(partitions) = partition_count(self.probe.client(), topic)? else {
            return Ok(None);
        };
        let from = self.offsets(topic, partitions, from)?;
        let mut spans = Vec::new();
        for (partition, from) in (0..).zip(from) {
            let (first, end) = self
                .probe
                .fetch_watermarks(topic, partition, ASK_TIMEOUT)
                .map_err(|error| errors::retriable(DOING, error))?;
            let end = if to == Edge::Earliest { first } else { end };
            spans.push(Span {
                at: SourcePartition {
                    topic: topic.clone(),
                    partition,
                },
                partitions,
                from: from.unwrap_or(end).max(first).min(end),
                end,
                until: match to {
                    Edge::At(time) => Some(time),
                    Edge::Earliest | Edge::Latest => None,
                },
            });
        }
        Ok(Some(spans))
    }

    /// By partition; `None`: at the end.
    fn offsets(
        &self,
        topic: &str,
        partitions: i32,
        edge: Edge,
    ) -> Result<Vec<Option<i64>>, LogError> {
        let time = match edge {
            Edge::Earliest => return Ok(vec![Some(0); partitions as usize]),
            Edge::Latest => return Ok(vec![None; partitions as usize]),
            Edge::At(time) => time,
        };
        first_since(&self.probe, topic, 0..partitions, time)
    }

    /// Begins to read these ranges.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn read(&self, spans: &[Span]) -> Result<RangeReader, LogError> {
        let kib = QUEUED_KIB / spans.len().max(1);
        let kib = kib.clamp(LEAST_QUEUED_KIB, QUEUED_KIB_OF_ONE);
        let mut client = reader_config(self.settings.client_config(), READERS_GROUP, FETCH_WAIT);
        client
            .set("enable.partition.eof", "true")
            .set("queued.max.messages.kbytes", kib.to_string())
            .set("fetch.message.max.bytes", (kib << 10).to_string());
        let consumer: BaseConsumer = client
            .create()
            .map_err(|error| errors::fatal("making a client", error))?;
        let consumer = Arc::new(consumer);
        let failed = |error: KafkaError| errors::fatal(DOING, error);
        let mut list = TopicPartitionList::new();
        for span in spans.iter().filter(|span| span.from < span.end) {
            let (topic, partition) = (&*span.at.topic, span.at.partition);
            list.add_partition_offset(topic, partition, Offset::Offset(span.from))
                .map_err(failed)?;
        }
        consumer.assign(&list).map_err(failed)?;
        let queues = spans.iter().map(|span| {
            let has_records = span.from < span.end;
            let (topic, partition) = (&span.at.topic, span.at.partition);
            let queue = has_records.then(|| consumer.split_partition_queue(topic, partition));
            (span.clone(), queue.flatten())
        });
        Ok(RangeReader {
            queues: queues.collect(),
            consumer: Some(consumer),
            taken: 0,
        })
    }
}

/// The ranges while they are read.
pub struct RangeReader {
    /// A queue goes when its range has been read.
    queues: Vec<(Span, Option<PartitionQueue<DefaultConsumerContext>>)>,
    /// `None` only while it is dropped.
    consumer: Option<Arc<BaseConsumer>>,
    taken: u32,
}

impl RangeReader {
    /// Hands the next record of the range at `place` to `take`; waits for it. `None`: that range has
    /// been read.
    ///
    /// # Errors
    /// The broker gives neither records nor the end for half a minute, or refuses to.
    pub fn next<T>(
        &mut self,
        place: usize,
        take: impl FnOnce(&SourcePartition, RangeRecord<'_>) -> T,
    ) -> Result<Option<T>, LogError> {
        // Once for many records: the clock costs as much as a record does.
        self.taken = self.taken.wrapping_add(1);
        if self.taken.is_multiple_of(LOOK_AFTER) {
            self.look();
        }
        let (span, Some(queue)) = &self.queues[place] else {
            return Ok(None);
        };
        let mut end = span.end;
        let since = Instant::now();
        loop {
            match queue.poll(LOOK_EVERY) {
                Some(Ok(message)) => {
                    let record = record(&message);
                    let is_over = |until: Timestamp| record.timestamp.is_some_and(|at| at >= until);
                    if record.offset < span.end && !span.until.is_some_and(is_over) {
                        return Ok(Some(take(&span.at, record)));
                    }
                    end = record.offset.min(end);
                    break;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                    return Err(errors::fatal(DOING, code));
                }
                Some(Err(error)) => tracing::debug!(%error, topic = %span.at.topic, DOING),
                None => {}
            }
            if since.elapsed() >= SILENT_FOR {
                return Err(errors::retriable(
                    DOING,
                    format!(
                        "{}/{} gives no records, though there are some up to offset {}",
                        span.at.topic, span.at.partition, span.end
                    ),
                ));
            }
            self.look();
        }
        let (span, queue) = &mut self.queues[place];
        span.end = end;
        *queue = None;
        Ok(None)
    }

    /// The end of the range at `place`: once it has been read, that which was found.
    pub fn end(&self, place: usize) -> i64 {
        self.queues[place].0.end
    }

    /// Lets the client tell what it has to tell beside records.
    fn look(&self) {
        if let Some(consumer) = &self.consumer
            && let Some(Err(error)) = consumer.poll(Duration::ZERO)
        {
            tracing::debug!(%error, DOING);
        }
    }
}

/// librdkafka takes a second to take a consumer down: whoever has read everything is not kept waiting.
impl Drop for RangeReader {
    fn drop(&mut self) {
        let (queues, consumer) = (std::mem::take(&mut self.queues), self.consumer.take());
        std::thread::spawn(move || drop((queues, consumer)));
    }
}

fn record<'m>(message: &'m BorrowedMessage<'_>) -> RangeRecord<'m> {
    RangeRecord {
        offset: message.offset(),
        timestamp: time_of(message),
        key: message.key(),
        value: message.payload(),
        headers: headers_of(message),
    }
}
