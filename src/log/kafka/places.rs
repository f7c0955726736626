//! Records of topics of others, read again by where they lie: no group is joined and nothing is committed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Message, Offset, TopicPartitionList};

use super::errors;
use super::settings::{ClientSettings, READERS_GROUP, reader_config};
use super::sources::{SourcePartition, SourceRecord};
use crate::log::LogError;

const DOING: &str = "reading records again";

/// The end of a partition is told by a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(10);

/// All that is asked for at one time is read within this, or not at all.
const READ_WITHIN: Duration = Duration::from_secs(5);

/// After that was in vain nothing is tried for so long: who asks is kept waiting meanwhile.
const REST_FOR: Duration = Duration::from_secs(60);

/// Where the next record lies no further on than this, those between are read and passed over.
const PASSED_OVER: i64 = 1_000;

/// Where a record lies.
pub type Place = (SourcePartition, i64);

/// See the module.
pub struct PlaceReader {
    settings: ClientSettings,
    /// `None` before anything was asked for.
    consumer: Option<BaseConsumer>,
    rests_until: Option<Instant>,
}

impl PlaceReader {
    /// Reaches for no broker yet.
    pub fn new(settings: ClientSettings) -> Self {
        Self {
            settings,
            consumer: None,
            rests_until: None,
        }
    }

    /// Hands what still lies at these places to `take`, in their order.
    ///
    /// # Errors
    /// The cluster does not give them within five seconds, or did not less than a minute ago. Some may
    /// have been handed over.
    pub fn read(
        &mut self,
        places: &BTreeSet<Place>,
        take: &mut dyn FnMut(SourceRecord),
    ) -> Result<(), LogError> {
        let now = Instant::now();
        if self.rests_until.is_some_and(|until| now < until) {
            return Err(errors::retriable(DOING, "that was in vain a moment ago"));
        }
        let places: Vec<&Place> = places.iter().collect();
        let read = self.read_by(now + READ_WITHIN, &places, take);
        self.rests_until = read.is_err().then(|| Instant::now() + REST_FOR);
        read
    }

    fn read_by(
        &mut self,
        deadline: Instant,
        places: &[&Place],
        take: &mut dyn FnMut(SourceRecord),
    ) -> Result<(), LogError> {
        let consumer = match &mut self.consumer {
            Some(consumer) => consumer,
            none => {
                let mut client =
                    reader_config(self.settings.client_config(), READERS_GROUP, FETCH_WAIT);
                client
                    .set("enable.partition.eof", "true")
                    // The topics are not new: one that is not there is gone.
                    .set("topic.metadata.propagation.max.ms", "0")
                    .set("queued.min.messages", "1000")
                    .set("queued.max.messages.kbytes", "4096");
                let made = client.create();
                none.insert(made.map_err(|error| errors::fatal("making a client", error))?)
            }
        };
        let mut partitions = places.chunk_by(|(one, _), (next, _)| one == next);
        let read =
            partitions.try_for_each(|of_one| read_partition(consumer, of_one, deadline, take));
        // Nothing is fetched while nobody asks.
        let stopped = consumer.unassign();
        read.and(stopped.map_err(|error| errors::fatal(DOING, error)))
    }
}

/// Reads records of one partition.
fn read_partition(
    consumer: &BaseConsumer,
    places: &[&Place],
    deadline: Instant,
    take: &mut dyn FnMut(SourceRecord),
) -> Result<(), LogError> {
    let mut left = places;
    if let Some((at, first)) = left.first() {
        go_to(consumer, at, *first)?;
    }
    while let Some((at, wanted)) = left.first() {
        let patience = deadline.saturating_duration_since(Instant::now());
        if patience.is_zero() {
            let SourcePartition { topic, partition } = at;
            let reason = format!("{topic}/{partition} gave no record at offset {wanted} in time");
            return Err(errors::retriable(DOING, reason));
        }
        let message = match consumer.poll(patience) {
            None => continue,
            Some(Ok(message)) => message,
            // What is left lay behind the last record, or the topic is gone.
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownPartition,
            ))) => return Ok(()),
            Some(Err(
                KafkaError::MessageConsumption(
                    code @ (RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::GroupAuthorizationFailed),
                )
                | KafkaError::MessageConsumptionFatal(code),
            )) => return Err(errors::fatal(DOING, code)),
            Some(Err(error)) => {
                tracing::debug!(%error, topic = %at.topic, DOING);
                continue;
            }
        };
        // Where a record was deleted this is one that lies behind it.
        let come_to = message.offset();
        while let Some((at, wanted)) = left.first().filter(|(_, wanted)| *wanted <= come_to) {
            if *wanted == come_to {
                take(SourceRecord::read(at.clone(), &message));
            }
            left = &left[1..];
        }
        if let Some((at, next)) = left
            .first()
            .filter(|(_, next)| *next - come_to > PASSED_OVER)
        {
            go_to(consumer, at, *next)?;
        }
    }
    Ok(())
}

fn go_to(consumer: &BaseConsumer, at: &SourcePartition, offset: i64) -> Result<(), LogError> {
    let failed = |error: KafkaError| errors::fatal(DOING, error);
    let mut list = TopicPartitionList::with_capacity(1);
    list.add_partition_offset(&at.topic, at.partition, Offset::Offset(offset))
        .map_err(failed)?;
    consumer.assign(&list).map_err(failed)
}
