//! One worker's session with a real cluster.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext, DefaultClientContext};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Timestamp as RecordTime};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::drain::drain;
use super::errors;
use super::ownership::Ownership;
use super::producer::LARGEST_RECORD;
use super::restore::ChangelogOfKafka;
use super::settings::{ClientSettings, reader_config};
use super::turns::TurnsOfProducers;
use crate::log::{
    ChangelogPositions, ChangelogReader, Log, LogError, Lost, Outgoing, OwnershipChange,
    PollLimits, Positions, Record, StageKind, Topics,
};
use crate::model::{Millis, Timestamp};

/// Timeout of questions to the cluster.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Timeout of the questions where a partition begins. There is no answer while a transaction may still
/// change it, which of an owner that died is open for as long as `transaction_timeout`; and the worker may
/// have other partitions, which wait meanwhile.
pub(super) const BEGINNING_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a broker may hold a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// How one worker presents itself.
#[derive(Clone, Debug)]
pub struct KafkaLogConfig {
    pub client: ClientSettings,
    pub prefix: String,
    pub stage: StageKind,
    /// Stable over restarts of this worker, unique among all.
    pub transactional_id: String,
    pub transaction_timeout: Millis,
    pub session_timeout: Millis,
    /// Keeps the member's place in the group over a stop: see [`Log::leave`].
    pub static_membership: bool,
}

impl KafkaLogConfig {
    /// The consumer group of a stage.
    pub fn group(prefix: &str, stage: StageKind) -> String {
        format!("{prefix}{}", stage.name())
    }

    /// Configuration of a consumer that is a member of `group`.
    pub(super) fn member(&self, group: &str) -> ClientConfig {
        let mut client = reader_config(self.client.client_config(), group, FETCH_WAIT);
        if self.static_membership {
            client.set("group.instance.id", &self.transactional_id);
        }
        client.set("partition.assignment.strategy", "cooperative-sticky");
        client.set("session.timeout.ms", self.session_timeout.0.to_string());
        // A member learns by its heartbeat that another joined or left: until then, partitions that
        // change hands stand still.
        let heartbeat = (self.session_timeout.0 / 20).clamp(100, 1_000);
        client.set("heartbeat.interval.ms", heartbeat.to_string());
        client.set("fetch.error.backoff.ms", "20");
        // A batch or two of the stage. Signals and events are small, and come in crowds.
        let at_hand = match self.stage {
            StageKind::Workflows => "4000",
            StageKind::Patterns => "40000",
        };
        client.set("queued.min.messages", at_hand);
        client.set("fetch.max.bytes", "8388608");
        client.set("statistics.interval.ms", "2000");
        client
    }
}

/// See [`crate::log::Log`].
pub struct KafkaLog {
    config: KafkaLogConfig,
    topics: Arc<Topics>,
    /// Asks for high watermarks; never fetches.
    probe: BaseConsumer,
    /// `None` before the first connection and after leaving.
    consumer: Option<BaseConsumer<Ownership>>,
    producer: Option<TurnsOfProducers>,
    partitions: i32,
    cluster: String,
    lost: Vec<Lost>,
}

impl KafkaLog {
    /// Makes the clients; reaches for no broker yet.
    pub fn new(config: KafkaLogConfig) -> Result<Self, LogError> {
        let mut probe = config.client.client_config();
        probe.set("isolation.level", "read_uncommitted");
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
            partitions: 0,
            cluster: String::new(),
            lost: Vec::new(),
        })
    }

    fn consumer(&self) -> Result<&BaseConsumer<Ownership>, LogError> {
        let consumer = self.consumer.as_ref();
        consumer.ok_or_else(|| errors::fatal("using the consumer", "the session is not connected"))
    }

    fn producer(&mut self) -> Result<&mut TurnsOfProducers, LogError> {
        let producer = self.producer.as_mut();
        producer.ok_or_else(|| errors::fatal("using the producer", "the session is not connected"))
    }

    fn join(&mut self) -> Result<(), LogError> {
        let group = KafkaLogConfig::group(&self.config.prefix, self.config.stage);
        let client = self.config.member(&group);
        let context = Ownership::new(Arc::clone(&self.topics), self.config.stage);
        let consumer: BaseConsumer<Ownership> = client
            .create_with_context(context)
            .map_err(|error| errors::fatal("making a consumer", error))?;
        consumer
            .subscribe(&[self.topics.of(self.config.stage.inputs()[0])])
            .map_err(|error| errors::retriable("subscribing", error))?;
        self.consumer = Some(consumer);
        Ok(())
    }

    /// The topics of a stage must agree on the number of partitions.
    fn learn_partitions(&self) -> Result<i32, LogError> {
        let mut agreed = None;
        for topic in self.topics.co_partitioned(self.config.stage) {
            let count = partitions_of_ours(self.probe.client(), topic)?;
            match agreed {
                None => agreed = Some((topic, count)),
                Some((_, before)) if before == count => {}
                Some((first, before)) => {
                    return Err(errors::retriable(
                        "looking up topics",
                        format!(
                            "topic `{topic}` has {count} partitions and `{first}` has {before}; \
                             they must have the same number"
                        ),
                    ));
                }
            }
        }
        Ok(agreed.map_or(0, |(_, count)| count))
    }

    fn accept(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let mut inputs = self.config.stage.inputs().iter();
        let source = *inputs.find(|source| self.topics.of(**source) == message.topic())?;
        Some(Record {
            source,
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            value: message.payload().map(<[u8]>::to_vec),
            headers: headers_of(message),
        })
    }
}

impl Log for KafkaLog {
    fn connect(&mut self) -> Result<(), LogError> {
        self.producer = None;
        self.partitions = self.learn_partitions()?;
        self.cluster = self
            .probe
            .client()
            .fetch_cluster_id(ASK_TIMEOUT)
            .unwrap_or_default();
        let producer = TurnsOfProducers::connect(&self.config, &self.topics)?;
        self.producer = Some(producer);
        if self.consumer.is_none() {
            self.join()?;
        }
        Ok(())
    }

    fn cluster(&self) -> &str {
        &self.cluster
    }

    fn partitions(&self) -> i32 {
        self.partitions
    }

    fn poll(
        &mut self,
        limits: PollLimits,
        records: &mut Vec<Record>,
    ) -> Result<Vec<OwnershipChange>, LogError> {
        let consumer = self.consumer()?;
        drain(consumer, limits, |message| {
            let record = self.accept(message)?;
            if !consumer.context().is_started(record.partition) {
                return None;
            }
            let size = record.size();
            records.push(record);
            Some(size)
        })?;
        Ok(consumer.context().take_changes())
    }

    fn committed(&mut self, partition: i32) -> Result<Positions, LogError> {
        const DOING: &str = "asking for committed offsets";
        let consumer = self.consumer()?;
        let asked = consumer.context().inputs(&[partition]);
        let answered = consumer
            .committed_offsets(asked, BEGINNING_TIMEOUT)
            .map_err(|error| errors::retriable(DOING, error))?;
        let mut positions = Positions::default();
        let failed = |error: KafkaError| errors::retriable(DOING, error);
        let mut lost = Vec::new();
        for &source in self.config.stage.inputs() {
            let topic = self.topics.of(source);
            let ends = self.probe.fetch_watermarks(topic, partition, ASK_TIMEOUT);
            let bounds = ends.map_err(failed)?;
            let found = answered.find_partition(topic, partition);
            positions[source.index()] =
                match found.map(|element| (element.error(), element.offset())) {
                    Some((Ok(()), Offset::Offset(offset))) => {
                        let (position, passed) = reachable(offset, bounds);
                        if passed > 0 {
                            lost.push(Lost {
                                topic: topic.to_owned(),
                                partition,
                                records: passed,
                            });
                        }
                        position
                    }
                    Some((Err(error), _)) => return Err(failed(error)),
                    _ => bounds.0,
                };
        }
        self.lost.append(&mut lost);
        Ok(positions)
    }

    fn take_lost(&mut self) -> Vec<Lost> {
        std::mem::take(&mut self.lost)
    }

    fn changelog(
        &mut self,
        partition: i32,
        from: i64,
    ) -> Result<Box<dyn ChangelogReader>, LogError> {
        let (low, high) = self
            .probe
            .fetch_watermarks(
                self.topics.changelog(self.config.stage),
                partition,
                ASK_TIMEOUT,
            )
            .map_err(|error| errors::retriable("asking for the end of the changelog", error))?;
        let from = if from > high { low } else { from.max(low) };
        let reader = ChangelogOfKafka::new(
            &self.config.client,
            self.topics.changelog(self.config.stage),
            partition,
            from,
            high,
        )?;
        Ok(Box::new(reader))
    }

    fn start(&mut self, partition: i32, from: Positions) -> Result<(), LogError> {
        let consumer = self.consumer()?;
        let mut list = TopicPartitionList::with_capacity(2);
        for &source in self.config.stage.inputs() {
            list.add_partition_offset(
                self.topics.of(source),
                partition,
                Offset::Offset(from[source.index()]),
            )
            .map_err(|error| errors::fatal("starting a partition", error))?;
        }
        if consumer.context().note_started(partition) {
            return seek(consumer, &list);
        }
        consumer
            .incremental_assign(&list)
            .map_err(|error| errors::fatal("starting a partition", error))
    }

    fn begin(&mut self) -> Result<(), LogError> {
        self.producer()?.begin()
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.producer()?.send(record)
    }

    fn settle(&mut self) -> Result<ChangelogPositions, LogError> {
        self.producer()?.settle()
    }

    fn send_offsets(&mut self, positions: &[(i32, Positions)]) -> Result<(), LogError> {
        let group = self.consumer()?.group_metadata();
        let group =
            group.ok_or_else(|| errors::abortable("sending offsets", "not in the group"))?;
        let mut list = TopicPartitionList::with_capacity(2 * positions.len());
        for (partition, offsets) in positions {
            for &source in self.config.stage.inputs() {
                let offset = Offset::Offset(offsets[source.index()]);
                list.add_partition_offset(self.topics.of(source), *partition, offset)
                    .map_err(|error| errors::abortable("sending offsets", error))?;
            }
        }
        self.producer()?.send_offsets(&list, &group)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.producer()?.commit()
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.producer()?.abort()
    }

    fn lag(&self, partition: i32, positions: Positions) -> [u64; 2] {
        let Some(consumer) = &self.consumer else {
            return [0; 2];
        };
        let ends = consumer.context().ends(partition);
        std::array::from_fn(|input| {
            let behind = ends[input].saturating_sub(positions[input]);
            u64::try_from(behind).unwrap_or(0)
        })
    }

    fn outage(&self) -> Option<String> {
        let reason = self.consumer.as_ref()?.context().outage()?;
        let brokers = &self.config.client.brokers;
        Some(format!("cannot reach Kafka at {brokers}: {reason}"))
    }

    fn leave(&mut self) {
        self.producer = None;
        // Dropping the consumer closes it, which leaves the group unless the member is static.
        self.consumer = None;
    }
}

/// Goes to these offsets of partitions that are fetched from.
pub(super) fn seek<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: &TopicPartitionList,
) -> Result<(), LogError> {
    // Seeking a partition whose fetcher has not begun yet is refused; it begins soon.
    let deadline = Instant::now() + ASK_TIMEOUT;
    loop {
        let result = consumer.seek_partitions(list.clone(), ASK_TIMEOUT);
        let failure = match result {
            Ok(done) => done
                .elements()
                .iter()
                .find_map(|element| element.error().err()),
            Err(error) => Some(error),
        };
        match failure {
            None => return Ok(()),
            Some(error) if Instant::now() > deadline => {
                return Err(errors::fatal("seeking", error));
            }
            Some(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Where a reader with this committed offset goes on in a partition that has records from `first` on
/// and the next of which is `end`; and how many offsets it passes over, for their records were deleted
/// before they were read. An offset behind the end is of a topic of that name that was deleted: this one
/// is read from its beginning.
pub(super) fn reachable(committed: i64, (first, end): (i64, i64)) -> (i64, u64) {
    if committed > end {
        return (first, 0);
    }
    let passed = first.saturating_sub(committed);
    (committed.max(first), u64::try_from(passed).unwrap_or(0))
}

/// A copy of the headers of a record, in their order.
pub fn headers_of(message: &BorrowedMessage<'_>) -> Vec<(String, Vec<u8>)> {
    message.headers().map_or_else(Vec::new, |headers| {
        let owned = |header: rdkafka::message::Header<'_, &[u8]>| {
            let value = header.value.unwrap_or_default().to_vec();
            (header.key.to_owned(), value)
        };
        headers.iter().map(owned).collect()
    })
}

/// The time that a record has, where it has one.
pub(super) fn time_of(message: &BorrowedMessage<'_>) -> Option<Timestamp> {
    match message.timestamp() {
        RecordTime::NotAvailable => None,
        RecordTime::CreateTime(at) | RecordTime::LogAppendTime(at) => Some(Timestamp(at)),
    }
}

/// The offsets of the first records of `time` or later in these partitions, in their order; `None`:
/// there is none. Brokers look markers of transactions up as well, by the time of the commit: an offset
/// may lie before that record.
pub(super) fn first_since<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    partitions: std::ops::Range<i32>,
    time: Timestamp,
) -> Result<Vec<Option<i64>>, LogError> {
    let failed = |error: KafkaError| errors::retriable("looking up offsets by time", error);
    let mut asked = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions.clone() {
        // Below zero, Kafka has other meanings for a time.
        asked
            .add_partition_offset(topic, partition, Offset::Offset(time.0.max(0)))
            .map_err(failed)?;
    }
    let answered = consumer
        .offsets_for_times(asked, ASK_TIMEOUT)
        .map_err(failed)?;
    let mut offsets = Vec::with_capacity(partitions.len());
    for partition in partitions {
        let found = answered.find_partition(topic, partition).ok_or_else(|| {
            errors::retriable("looking up offsets by time", "no answer for a partition")
        })?;
        found.error().map_err(failed)?;
        offsets.push(match found.offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        });
    }
    Ok(offsets)
}

/// Partitions of a topic; `None` where there is no such topic.
pub(crate) fn partition_count<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<Option<i32>, LogError> {
    let metadata = client
        .fetch_metadata(Some(topic), ASK_TIMEOUT)
        .map_err(|error| errors::retriable("looking up topics", error))?;
    let found = metadata.topics().iter().find(|known| known.name() == topic);
    let count = found
        .filter(|known| known.error().is_none())
        .map_or(0, |known| known.partitions().len());
    Ok(i32::try_from(count).ok().filter(|&count| count > 0))
}

/// Partitions of a topic of the installation, which must exist.
pub(super) fn partitions_of_ours<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
) -> Result<i32, LogError> {
    partition_count(client, topic)?.ok_or_else(|| {
        errors::retriable(
            "looking up topics",
            format!("topic `{topic}` does not exist; `partita topics create` makes it"),
        )
    })
}

/// Creates the topic with the broker's defaults where it does not exist.
pub(super) fn ensure_topic<C: ClientContext>(
    settings: &ClientSettings,
    client: &Client<C>,
    topic: &str,
) -> Result<(), LogError> {
    match partition_count(client, topic) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            tracing::warn!(topic, "creating a task topic that has disappeared");
            let created = admin(settings)
                .and_then(|admin| block_on(create_topic(&admin, topic, -1, Some(LARGEST_RECORD))));
            created.map_err(|error| errors::abortable("producing a task", error))
        }
        Err(error) => Err(errors::abortable("producing a task", error)),
    }
}

/// An administrator for the given client settings.
pub(crate) fn admin(
    settings: &ClientSettings,
) -> Result<AdminClient<DefaultClientContext>, LogError> {
    settings
        .client_config()
        .create()
        .map_err(|error| errors::fatal("making an admin client", error))
}

/// Creates one topic with the broker's default replication, and with room for records of so many bytes;
/// existing is fine.
pub(crate) async fn create_topic(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    partitions: i32,
    room: Option<usize>,
) -> Result<(), LogError> {
    const DOING: &str = "creating a topic";
    let room = room.map(|bytes| bytes.to_string());
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let new = match &room {
        Some(room) => new.set("max.message.bytes", room),
        None => new,
    };
    let results = admin
        .create_topics(
            [&new],
            &AdminOptions::new().operation_timeout(Some(ASK_TIMEOUT)),
        )
        .await
        .map_err(|error| errors::retriable(DOING, error))?;
    for result in results {
        match result {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => return Err(errors::retriable(DOING, format!("{name}: {code}"))),
        }
    }
    Ok(())
}

/// Drives a future of an admin client to its end on this thread. rdkafka completes it from a
/// thread of its own, so parking is all there is to do.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}
