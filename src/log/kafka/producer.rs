//! One transactional producer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{Message, TopicPartitionList};

use super::errors;
use super::letters::LetterBound;
use super::session::KafkaLogConfig;
use super::settings::ClientSettings;
use crate::log::{ChangelogPositions, ErrorClass, LogError, Outgoing, StageKind, Target, Topics};

/// How long one call may take before it counts as failed. Longer than any election of a leader.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at deliveries. A transaction settles within a millisecond or so; rdkafka's
/// own waiting goes in slices of 100 ms.
const DELIVERY_POLL: Duration = Duration::from_micros(60);

/// What deliveries say, collected until the batch is settled.
#[derive(Default)]
pub(super) struct Deliveries(Mutex<Delivered>);

#[derive(Default)]
struct Delivered {
    failed: Option<KafkaError>,
    /// Next changelog offset by partition.
    changelog: BTreeMap<i32, i64>,
    /// Bytes of the largest dead letter that was too large for its topic.
    refused_letter: Option<usize>,
}

impl Deliveries {
    fn take(&self) -> Delivered {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the producer reports");
    }
}

/// Opaque value of a record of the changelog, whose offset we want to know.
const OF_CHANGELOG: usize = 1;

/// Opaque value of a dead letter, of which we want to know whether it was too large.
const OF_LETTER: usize = 2;

/// What a producer takes, in bytes: `max.message.bytes` of the topics that it writes to, as `topics.yaml` has
/// them.
pub(super) const LARGEST_RECORD: usize = 8 << 20;

/// The same for dead letters.
pub(super) const LARGEST_LETTER: usize = 2 << 20;

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        match result {
            Ok(message) if opaque == OF_CHANGELOG => {
                let mut delivered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let next = message.offset() + 1;
                let known = delivered
                    .changelog
                    .entry(message.partition())
                    .or_insert(next);
                *known = next.max(*known);
            }
            Ok(_) => {}
            Err((error, message)) => {
                let mut delivered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                if opaque == OF_LETTER && is_too_large(error) {
                    let bytes = message.key_len() + message.payload_len();
                    delivered.refused_letter = delivered.refused_letter.max(Some(bytes));
                }
                delivered.failed.get_or_insert_with(|| error.clone());
            }
        }
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge)
}

/// A transactional producer that has its session.
pub(super) struct TransactionalProducer {
    producer: BaseProducer<Deliveries>,
    topics: Arc<Topics>,
    stage: StageKind,
    settings: ClientSettings,
    task_topics: HashMap<String, Arc<str>>,
    letters: Arc<LetterBound>,
    is_open: bool,
}

impl TransactionalProducer {
    /// Creates the producer and initialises its session under `id`, which ends what a predecessor
    /// left open.
    pub(super) fn connect(
        config: &KafkaLogConfig,
        id: &str,
        topics: Arc<Topics>,
        letters: Arc<LetterBound>,
    ) -> Result<Self, LogError> {
        let timeout = config.transaction_timeout.0.to_string();
        let mut client = config.client.client_config();
        client.set("linger.ms", "0");
        client.set("batch.num.messages", "100000");
        client.set("queue.buffering.max.messages", "1000000");
        client.set("partitioner", "murmur2_random");
        client.set("message.max.bytes", LARGEST_RECORD.to_string());
        client.set("message.timeout.ms", &timeout);
        client.set("transaction.timeout.ms", &timeout);
        client.set("transactional.id", id);
        let producer: BaseProducer<Deliveries> = client
            .create_with_context(Deliveries::default())
            .map_err(|error| errors::fatal("making a producer", error))?;
        let connected = Self {
            producer,
            topics,
            stage: config.stage,
            settings: config.client.clone(),
            task_topics: HashMap::new(),
            letters,
            is_open: false,
        };
        connected.repeat("initialising transactions", |producer| {
            producer.init_transactions(CALL_TIMEOUT)
        })?;
        Ok(connected)
    }

    pub(super) fn begin(&mut self) -> Result<(), LogError> {
        self.producer.context().take();
        self.producer
            .begin_transaction()
            .map_err(|error| errors::of_transaction("beginning a transaction", &error))?;
        self.is_open = true;
        Ok(())
    }

    pub(super) fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        match record.target {
            Target::DeadLetter => self.send_letter(record),
            _ => self.enqueue(record),
        }
    }

    /// Sends what fits of a dead letter.
    fn send_letter(&mut self, letter: Outgoing<'_>) -> Result<(), LogError> {
        match self.letters.shorten(&letter) {
            None => self.enqueue(letter)?,
            Some(short) => {
                let headers: Vec<(&str, &[u8])> = short
                    .headers
                    .iter()
                    .map(|(name, value)| (*name, value.as_slice()))
                    .collect();
                self.enqueue(Outgoing {
                    key: short.key,
                    value: short.value,
                    headers: &headers,
                    ..letter
                })?;
            }
        }
        match self.letters.is_alone() {
            true => self.await_deliveries(CALL_TIMEOUT),
            false => Ok(()),
        }
    }

    fn enqueue(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        let topics = Arc::clone(&self.topics);
        let task_topic;
        let (topic, partition, opaque) = match record.target {
            Target::Input(source, partition) => (topics.of(source), Some(partition), 0),
            Target::Command => (topics.commands.as_str(), None, 0),
            Target::State(partition) => {
                (topics.changelog(self.stage), Some(partition), OF_CHANGELOG)
            }
            Target::Events(partition) => (topics.events.as_str(), Some(partition), 0),
            Target::Signals(partition) => (topics.signals.as_str(), Some(partition), 0),
            Target::Signal => (topics.signals.as_str(), None, 0),
            Target::DeadLetter => (topics.dead_letter.as_str(), None, OF_LETTER),
            Target::Tasks(agent) => {
                task_topic = self.task_topic(agent)?;
                (&*task_topic, None, 0)
            }
        };
        let headers = (!record.headers.is_empty()).then(|| {
            let empty = OwnedHeaders::new_with_capacity(record.headers.len());
            record.headers.iter().fold(empty, |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(*value),
                })
            })
        });
        let mut message = BaseRecord {
            topic,
            partition,
            payload: record.value,
            key: record.key,
            timestamp: None,
            headers,
            delivery_opaque: opaque,
        };
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                    self.producer.poll(Duration::ZERO);
                    std::thread::sleep(DELIVERY_POLL);
                    message = again;
                }
                Err((error, _)) => {
                    let fatal = error
                        .rdkafka_error_code()
                        .is_some_and(errors::is_fatal_code);
                    let class = if fatal {
                        ErrorClass::Fatal
                    } else {
                        ErrorClass::Abortable
                    };
                    let reason = format!("{topic}: {error}");
                    return Err(LogError {
                        class,
                        doing: "producing a record",
                        reason,
                    });
                }
            }
        }
    }

    /// A task topic that was deleted (or never created) would make every transaction of this
    /// worker fail; so each is looked up once, and created where it is missing.
    fn task_topic(&mut self, agent: &str) -> Result<Arc<str>, LogError> {
        if let Some(topic) = self.task_topics.get(agent) {
            return Ok(Arc::clone(topic));
        }
        let topic: Arc<str> = Arc::from(self.topics.tasks(agent));
        super::session::ensure_topic(&self.settings, self.producer.client(), &topic)?;
        self.task_topics
            .insert(agent.to_owned(), Arc::clone(&topic));
        Ok(topic)
    }

    /// Awaits every delivery without librdkafka's slices of 100 ms.
    pub(super) fn settle(&mut self) -> Result<ChangelogPositions, LogError> {
        self.await_deliveries(CALL_TIMEOUT)?;
        let delivered = self.take_delivered();
        match delivered.failed {
            Some(error) => Err(errors::of_delivery(&error)),
            None => Ok(delivered.changelog.into_iter().collect()),
        }
    }

    /// What deliveries have said so far; a dead letter that was refused is a lesson for the next.
    fn take_delivered(&self) -> Delivered {
        let delivered = self.producer.context().take();
        if let Some(bytes) = delivered.refused_letter {
            tracing::warn!(
                topic = self.topics.dead_letter,
                bytes,
                "a dead letter is too large for its topic (max.message.bytes); sending less of it"
            );
            self.letters.refused(bytes);
        }
        delivered
    }

    fn await_deliveries(&self, at_most: Duration) -> Result<(), LogError> {
        let deadline = Instant::now() + at_most;
        loop {
            self.producer.poll(Duration::ZERO);
            if self.producer.in_flight_count() == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(errors::abortable(
                    "awaiting deliveries",
                    "no acknowledgement in time",
                ));
            }
            std::thread::sleep(DELIVERY_POLL);
        }
    }

    /// `positions` are the next offsets to read of the group's inputs.
    pub(super) fn send_offsets(
        &mut self,
        positions: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), LogError> {
        self.repeat("sending offsets to the transaction", |producer| {
            producer.send_offsets_to_transaction(positions, group, CALL_TIMEOUT)
        })
    }

    pub(super) fn commit(&mut self) -> Result<(), LogError> {
        self.repeat("committing the transaction", |producer| {
            producer.commit_transaction(CALL_TIMEOUT)
        })?;
        self.is_open = false;
        Ok(())
    }

    /// Ends the open transaction, if there is one, without effect. The first delivery is awaited
    /// before: an abort while the first produce is under way breaks the session
    /// (librdkafka issue 4849).
    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        if !self.is_open {
            return Ok(());
        }
        if self.await_deliveries(Duration::from_secs(5)).is_err() {
            return Err(errors::fatal(
                "aborting the transaction",
                "deliveries do not end",
            ));
        }
        // A record that was refused makes the next send fail, before anybody settles.
        self.take_delivered();
        self.repeat("aborting the transaction", |producer| {
            producer.abort_transaction(CALL_TIMEOUT)
        })?;
        self.is_open = false;
        Ok(())
    }

    /// Repeats a call as long as its error says so, within the bounds of [`CALL_TIMEOUT`] twice
    /// over; what is still retriable then is fatal, for nobody knows how it will end.
    fn repeat(
        &self,
        doing: &'static str,
        call: impl Fn(&BaseProducer<Deliveries>) -> Result<(), KafkaError>,
    ) -> Result<(), LogError> {
        let deadline = Instant::now() + 2 * CALL_TIMEOUT;
        loop {
            let Err(error) = call(&self.producer) else {
                return Ok(());
            };
            let classed = errors::of_transaction(doing, &error);
            if classed.class != ErrorClass::Retriable {
                return Err(classed);
            }
            if Instant::now() > deadline {
                return Err(LogError {
                    class: ErrorClass::Fatal,
                    ..classed
                });
            }
            tracing::debug!(error = %classed, "repeating");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
