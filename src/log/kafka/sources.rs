//! The intake's session with a cluster: a consumer of users' event topics and the producers that
//! write what becomes of their records. What [`session`](super::session) is for topics of ours, with
//! these differences: the topics are many, others make them, and which they are changes while we
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message, Offset, Statistics, TopicPartitionList};

use super::drain::{Notes, Signs, drain, end_of};
use super::errors;
use super::session::{
    BEGINNING_TIMEOUT, KafkaLogConfig, first_since, headers_of, partition_count,
    partitions_of_ours, reachable, seek, time_of,
};
use super::turns::TurnsOfProducers;
use crate::log::{LogError, Lost, Outgoing, PollLimits, Topics};
use crate::model::{Origin, Timestamp};

/// A partition of a topic of others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// A record of such a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceRecord {
    pub from: SourcePartition,
    pub offset: i64,
    pub timestamp: Option<Timestamp>,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl SourceRecord {
    /// A copy of what lies in the client's memory.
    pub(super) fn read(from: SourcePartition, message: &BorrowedMessage<'_>) -> Self {
        Self {
            from,
            offset: message.offset(),
            timestamp: time_of(message),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers_of(message),
        }
    }

    /// The record as a dead letter needs it.
    pub fn origin(&self) -> Origin {
        Origin {
            topic: self.from.topic.to_string(),
            partition: self.from.partition,
            offset: self.offset,
            key: self.key.clone(),
            value: self.value.clone(),
            headers: self.headers.clone(),
        }
    }
}

/// Partitions came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceChange {
    /// To be started.
    Assigned(Vec<SourcePartition>),
    /// Not ours any more: what is not committed of them never will be.
    Revoked(Vec<SourcePartition>),
}

/// Where an owner of a partition begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The next offset to read.
    pub offset: i64,
    /// Whether that is what the group committed.
    pub is_committed: bool,
    /// What was committed with it.
    pub note: String,
}

/// How far an owner of a partition has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub at: SourcePartition,
    /// The next offset to read.
    pub next: i64,
    /// For who begins there (the offset's metadata): at most 1,000 bytes.
    pub note: String,
}

/// Where to begin with a partition of which the group has committed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// With its first record.
    Beginning,
    /// With the first record of that time or later, by the records' own timestamps.
    Time(Timestamp),
    /// Behind the last committed record.
    Now,
}

/// See the module.
pub struct SourceLog {
    config: KafkaLogConfig,
    topics: Arc<Topics>,
    /// Asks for partitions and for the ends of committed records; never fetches.
    probe: BaseConsumer,
    /// `None` before the first subscription and after leaving.
    consumer: Option<BaseConsumer<Assignment>>,
    producer: Option<TurnsOfProducers>,
    signal_partitions: i32,
    lost: Vec<Lost>,
}

impl SourceLog {
    /// The consumer group of the intake.
    pub fn group(prefix: &str) -> String {
        format!("{prefix}intake")
    }

    /// Makes the clients; reaches for no broker yet.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn new(config: KafkaLogConfig) -> Result<Self, LogError> {
        let mut probe = config.client.client_config();
        probe.set("isolation.level", "read_committed");
        let probe = probe
            .create()
            .map_err(|error| errors::fatal("making a client", error))?;
        let topics = Arc::new(Topics::new(&config.prefix));
        Ok(Self {
            config,
            topics,
            probe,
            consumer: None,
            producer: None,
            signal_partitions: 0,
            lost: Vec::new(),
        })
    }

    /// Initialises the producers' sessions, which ends what a predecessor left open. Keeps the
    /// consumer.
    ///
    /// # Errors
    /// The cluster is away, or the topic `signals` is not there.
    pub fn connect(&mut self) -> Result<(), LogError> {
        self.producer = None;
        self.signal_partitions = partitions_of_ours(self.probe.client(), &self.topics.signals)?;
        self.producer = Some(TurnsOfProducers::connect(&self.config, &self.topics)?);
        Ok(())
    }

    /// Partitions of `signals`. Known once connected.
    pub fn signal_partitions(&self) -> i32 {
        self.signal_partitions
    }

    /// Partitions of a topic; `None` where there is none, or none that we may see.
    ///
    /// # Errors
    /// The cluster is away.
    pub fn partition_count(&self, topic: &str) -> Result<Option<i32>, LogError> {
        partition_count(self.probe.client(), topic)
    }

    /// Reads these topics from now on, and no others; joins the group where that has not been done.
    ///
    /// # Errors
    /// Settings that librdkafka refuses.
    pub fn subscribe(&mut self, topics: &[Arc<str>]) -> Result<(), LogError> {
        const DOING: &str = "subscribing";
        if self.consumer.is_none() {
            let client = self.config.member(&Self::group(&self.config.prefix));
            let consumer = client.create_with_context(Assignment::default());
            self.consumer =
                Some(consumer.map_err(|error| errors::fatal("making a consumer", error))?);
        }
        let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
        self.consumer()?
            .subscribe(&names)
            .map_err(|error| errors::retriable(DOING, error))
    }

    /// Appends what is ready to `records`, waiting at most `limits.wait` for the first; returns
    /// changes of ownership, which came before every record appended.
    ///
    /// # Errors
    /// The session is lost.
    pub fn poll(
        &mut self,
        limits: PollLimits,
        records: &mut Vec<SourceRecord>,
    ) -> Result<Vec<SourceChange>, LogError> {
        let consumer = self.consumer()?;
        // Records come in runs of one partition, and a change ends the batch.
        let mut last: Option<SourcePartition> = None;
        drain(consumer, limits, |message| {
            let is_it = |last: &SourcePartition| {
                last.partition == message.partition() && *last.topic == *message.topic()
            };
            if !last.as_ref().is_some_and(is_it) {
                let context = consumer.context();
                last = context.started(message.topic(), message.partition());
            }
            records.push(SourceRecord::read(last.clone()?, message));
            Some(message.key_len() + message.payload_len())
        })?;
        Ok(consumer.context().take_changes())
    }

    /// Where owners of these partitions begin: at the committed offset, which no open transaction
    /// can change any more, or where that is not there any more, at the first record; without one,
    /// where `since` says.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn beginnings(
        &mut self,
        partitions: &[SourcePartition],
        since: &dyn Fn(&SourcePartition) -> Since,
    ) -> Result<Vec<Beginning>, LogError> {
        const DOING: &str = "asking for committed offsets";
        let failed = |error: KafkaError| errors::retriable(DOING, error);
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            asked.add_partition(&at.topic, at.partition);
        }
        let answered = self
            .consumer()?
            .committed_offsets(asked, BEGINNING_TIMEOUT)
            .map_err(failed)?;
        let mut beginnings = Vec::with_capacity(partitions.len());
        let mut lost = Vec::new();
        for at in partitions {
            let bounds = self.bounds(at)?;
            let found = answered.find_partition(&at.topic, at.partition);
            if let Some(element) = found {
                element.error().map_err(failed)?;
                if let Offset::Offset(committed) = element.offset() {
                    let (offset, records) = reachable(committed, bounds);
                    if records > 0 {
                        lost.push(Lost {
                            topic: at.topic.to_string(),
                            partition: at.partition,
                            records,
                        });
                    }
                    beginnings.push(Beginning {
                        offset,
                        is_committed: offset == committed,
                        // Of a topic that was made anew it says nothing.
                        note: match offset < committed {
                            true => String::new(),
                            false => element.metadata().to_owned(),
                        },
                    });
                    continue;
                }
            }
            let (first, end) = bounds;
            beginnings.push(Beginning {
                offset: match since(at) {
                    Since::Beginning => first,
                    Since::Time(time) => {
                        let only = at.partition..at.partition + 1;
                        let found = first_since(&self.probe, &at.topic, only, time)?;
                        found[0].unwrap_or(end)
                    }
                    Since::Now => end,
                },
                is_committed: false,
                note: String::new(),
            });
        }
        self.lost.append(&mut lost);
        Ok(beginnings)
    }

    /// What [`SourceLog::beginnings`] passed over since this was asked last: committed offsets whose
    /// records are not there any more.
    pub fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    /// The first offset that the cluster still has.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub fn first_offset(&self, at: &SourcePartition) -> Result<i64, LogError> {
        self.bounds(at).map(|(first, _)| first)
    }

    /// The first offset and the next after the last committed record.
    fn bounds(&self, at: &SourcePartition) -> Result<(i64, i64), LogError> {
        self.probe
            .fetch_watermarks(&at.topic, at.partition, BEGINNING_TIMEOUT)
            .map_err(|error| errors::retriable("asking for the ends of a partition", error))
    }

    /// Fetches nothing of these partitions until they are started again.
    ///
    /// # Errors
    /// A partition that is not ours.
    pub fn pause(&mut self, partitions: &[SourcePartition]) -> Result<(), LogError> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for at in partitions {
            list.add_partition(&at.topic, at.partition);
        }
        self.consumer()?
            .pause(&list)
            .map_err(|error| errors::fatal("pausing partitions", error))
    }

    /// Delivers the partitions' records from these offsets on. Those that are delivered already go
    /// back (or forth) to them.
    ///
    /// # Errors
    /// A partition that is not ours, or the cluster does not answer.
    pub fn start(&mut self, partitions: &[(SourcePartition, i64)]) -> Result<(), LogError> {
        const DOING: &str = "starting partitions";
        let consumer = self.consumer()?;
        let mut fresh = TopicPartitionList::new();
        let mut known = TopicPartitionList::new();
        for (at, offset) in partitions {
            let is_known = consumer.context().started(&at.topic, at.partition);
            let list = match is_known {
                Some(_) => &mut known,
                None => &mut fresh,
            };
            list.add_partition_offset(&at.topic, at.partition, Offset::Offset(*offset))
                .map_err(|error| errors::fatal(DOING, error))?;
        }
        if fresh.count() > 0 {
            consumer
                .incremental_assign(&fresh)
                .map_err(|error| errors::fatal(DOING, error))?;
            consumer
                .context()
                .note_started(partitions.iter().map(|(at, _)| at));
        }
        if known.count() > 0 {
            consumer
                .resume(&known)
                .map_err(|error| errors::fatal(DOING, error))?;
            seek(consumer, &known)?;
        }
        Ok(())
    }

    pub fn begin(&mut self) -> Result<(), LogError> {
        self.producer()?.begin()
    }

    pub fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.producer()?.send(record)
    }

    /// Waits until every record sent is acknowledged.
    pub fn settle(&mut self) -> Result<(), LogError> {
        self.producer()?.settle().map(drop)
    }

    /// The next offsets to read become part of the transaction.
    pub fn send_offsets(&mut self, positions: &[Position]) -> Result<(), LogError> {
        const DOING: &str = "sending offsets";
        let group = self.consumer()?.group_metadata();
        let group = group.ok_or_else(|| errors::abortable(DOING, "not in the group"))?;
        let mut list = TopicPartitionList::with_capacity(positions.len());
        for Position { at, next, note } in positions {
            let mut element = list.add_partition(&at.topic, at.partition);
            element
                .set_offset(Offset::Offset(*next))
                .map_err(|error| errors::abortable(DOING, error))?;
            element.set_metadata(note);
        }
        self.producer()?.send_offsets(&list, &group)
    }

    pub fn commit(&mut self) -> Result<(), LogError> {
        self.producer()?.commit()
    }

    pub fn abort(&mut self) -> Result<(), LogError> {
        match &mut self.producer {
            Some(producer) => producer.abort(),
            None => Ok(()),
        }
    }

    /// Records of the partition that are known to wait from this offset on.
    pub fn lag(&self, at: &SourcePartition, position: i64) -> u64 {
        let end = self
            .consumer
            .as_ref()
            .map_or(0, |consumer| consumer.context().end(at));
        u64::try_from(end.saturating_sub(position)).unwrap_or(0)
    }

    /// Ends the session and leaves the group (a static member keeps its place for a while).
    pub fn leave(&mut self) {
        self.producer = None;
        self.consumer = None;
    }

    fn consumer(&self) -> Result<&BaseConsumer<Assignment>, LogError> {
        let consumer = self.consumer.as_ref();
        consumer.ok_or_else(|| errors::fatal("using the consumer", "nothing is subscribed"))
    }

    fn producer(&mut self) -> Result<&mut TurnsOfProducers, LogError> {
        let producer = self.producer.as_mut();
        producer.ok_or_else(|| errors::fatal("using the producer", "the session is not connected"))
    }
}

/// The consumer's context. Callbacks run within `poll`; they assign nothing, for a partition is
/// fetched from once its beginning is known.
#[derive(Default)]
struct Assignment {
    inner: Mutex<Inner>,
    signs: Signs,
}

#[derive(Default)]
struct Inner {
    changes: Vec<SourceChange>,
    /// Partitions that are fetched from.
    started: BTreeMap<Arc<str>, BTreeSet<i32>>,
    /// Up to where committed records may wait, as of librdkafka's last statistics.
    ends: BTreeMap<SourcePartition, i64>,
}

impl Notes for Assignment {
    fn signs(&self) -> &Signs {
        &self.signs
    }
}

impl Assignment {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_change(&self, change: SourceChange) {
        self.lock().changes.push(change);
        self.signs.note_changes(true);
    }

    fn take_changes(&self) -> Vec<SourceChange> {
        self.signs.note_changes(false);
        std::mem::take(&mut self.lock().changes)
    }

    /// Notes that the partitions are fetched from.
    fn note_started<'a>(&self, partitions: impl Iterator<Item = &'a SourcePartition>) {
        let mut inner = self.lock();
        for at in partitions {
            let of_topic = inner.started.entry(at.topic.clone()).or_default();
            of_topic.insert(at.partition);
        }
    }

    /// The partition, where it is fetched from.
    fn started(&self, topic: &str, partition: i32) -> Option<SourcePartition> {
        let inner = self.lock();
        let (topic, partitions) = inner.started.get_key_value(topic)?;
        partitions.contains(&partition).then(|| SourcePartition {
            topic: topic.clone(),
            partition,
        })
    }

    fn end(&self, at: &SourcePartition) -> i64 {
        self.lock().ends.get(at).copied().unwrap_or_default()
    }
}

impl ClientContext for Assignment {
    fn stats(&self, statistics: Statistics) {
        self.signs.note_report();
        let mut inner = self.lock();
        for (name, topic) in &statistics.topics {
            let name: Arc<str> = Arc::from(name.as_str());
            for (&partition, known) in &topic.partitions {
                if let Some(end) = end_of(known).filter(|_| partition >= 0) {
                    let at = SourcePartition {
                        topic: name.clone(),
                        partition,
                    };
                    inner.ends.insert(at, end);
                }
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, line, "librdkafka");
        self.signs.note_report();
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the consumer reports");
    }
}

impl ConsumerContext for Assignment {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<SourcePartition> = list
            .elements()
            .iter()
            .map(|element| SourcePartition {
                topic: Arc::from(element.topic()),
                partition: element.partition(),
            })
            .collect();
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                tracing::warn!(%error, "cannot acknowledge an assignment");
            }
            self.note_change(SourceChange::Assigned(partitions));
            return;
        }
        let mut inner = self.lock();
        let mut started = TopicPartitionList::new();
        for at in &partitions {
            let of_topic = inner.started.get_mut(&at.topic);
            if of_topic.is_some_and(|known| known.remove(&at.partition)) {
                started.add_partition(&at.topic, at.partition);
            }
            inner.ends.remove(at);
        }
        drop(inner);
        self.note_change(SourceChange::Revoked(partitions));
        if let Err(error) = consumer.incremental_unassign(&started) {
            tracing::warn!(%error, "cannot give up partitions");
        }
    }
}
