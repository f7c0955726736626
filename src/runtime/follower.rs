//! Follows a small compacted topic from its first record, on a thread of its own: what the
//! definitions registry and membership have in common. Each instance reads all of it, in no group
//! and committing nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use super::supervisor::words_of;
use crate::log::kafka::{READERS_GROUP, headers_of, reader_config};

/// How long one call for metadata or watermarks may take.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// The end of a topic is told by a fetch that waited so long for more.
const FETCH_WAIT: Duration = Duration::from_millis(100);
/// Pause before the topic is opened again after a failure.
const REOPEN_AFTER: Duration = Duration::from_millis(500);
/// Between two looks for partitions that were added to the topic.
const LOOK_FOR_PARTITIONS: Duration = Duration::from_secs(5);
/// How long such a look may take: the reader reads nothing meanwhile.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the loop looks whether it should stop.
const POLL: Duration = Duration::from_millis(100);

/// One record, as the reader of the topic sees it.
pub struct Entry<'a> {
    pub key: &'a [u8],
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    /// Milliseconds since the epoch, as the broker or the producer set it.
    pub timestamp: i64,
    pub partition: i32,
    pub offset: i64,
    /// Whether it was read on the way to the end of the topic as it stood at the start.
    pub restoring: bool,
    /// Copies the headers.
    pub headers: &'a dyn Fn() -> Vec<(String, Vec<u8>)>,
}

/// Why a topic cannot be read at the moment.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// There is no such topic, or none that we may see.
    pub is_missing: bool,
    pub reason: String,
}

/// Why the end of the topic was not reached.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    #[error("the end of topic `{topic}` could not be asked for: {source}")]
    Ask {
        topic: String,
        #[source]
        source: KafkaError,
    },
    #[error("topic `{topic}` was not read to its end within {} ms", within.as_millis())]
    Behind { topic: String, within: Duration },
}

/// How far each partition has been applied: the offset after the last applied record.
#[derive(Default)]
struct Progress {
    reached: BTreeMap<i32, i64>,
    /// Every partition has reached the end it had when it was opened.
    restored: bool,
    stopped: bool,
    trouble: Option<Trouble>,
    /// When it was opened, or when the last record came.
    moved: Option<Instant>,
}

struct Shared {
    topic: String,
    config: ClientConfig,
    progress: Mutex<Progress>,
    moved: Condvar,
    /// A client for questions, which reads nothing: a broker answers the requests of a connection in
    /// order, and behind the fetch of a reader a question waits until that has something to tell.
    /// `None` while there is none.
    client: Mutex<Option<Arc<BaseConsumer>>>,
    stop: AtomicBool,
}

/// A running follower. Dropping it stops its thread.
pub struct Follower {
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Follower {
    /// Starts reading `topic` (its full name). `apply` sees every record of every partition, in
    /// the order of each partition. A broker or a topic that is not there yet is waited for; a
    /// partition that is added is read, from its first record on, within some seconds.
    pub fn start(
        base: &ClientConfig,
        topic: String,
        apply: impl FnMut(Entry<'_>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let mut config = reader_config(base.clone(), READERS_GROUP, FETCH_WAIT);
        config.set("enable.partition.eof", "true");
        let name = format!("follow {topic}");
        let shared = Arc::new(Shared {
            topic,
            config,
            progress: Mutex::new(Progress {
                moved: Some(Instant::now()),
                ..Progress::default()
            }),
            moved: Condvar::new(),
            client: Mutex::new(None),
            stop: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || of_thread.run(apply))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Whether everything that the topic held when it was opened has been applied.
    pub fn restored(&self) -> bool {
        self.shared.lock().restored
    }

    /// Why the topic cannot be opened; `None` while it can.
    pub fn trouble(&self) -> Option<Trouble> {
        self.shared.lock().trouble.clone()
    }

    /// How long ago the last record came, or the topic was opened, or it was first asked for.
    pub fn still_for(&self) -> Duration {
        let moved = self.shared.lock().moved;
        moved.map_or(Duration::ZERO, |moved| moved.elapsed())
    }

    /// Blocks until everything that the topic holds now has been applied, at most `within`.
    pub fn catch_up(&self, within: Duration) -> Result<(), FollowError> {
        self.shared.catch_up(within)
    }

    /// [`Follower::catch_up`] for callers on tokio.
    pub async fn caught_up(&self, within: Duration) -> Result<(), FollowError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || shared.catch_up(within))
            .await
            .unwrap_or_else(|_| {
                Err(FollowError::Behind {
                    topic: self.shared.topic.clone(),
                    within,
                })
            })
    }

    /// Waits until the record at `offset` of `partition` has been applied.
    pub async fn applied(
        &self,
        partition: i32,
        offset: i64,
        within: Duration,
    ) -> Result<(), FollowError> {
        let shared = Arc::clone(&self.shared);
        let targets = BTreeMap::from([(partition, offset + 1)]);
        tokio::task::spawn_blocking(move || {
            shared.wait_for(&targets, Instant::now() + within, within)
        })
        .await
        .unwrap_or_else(|_| {
            Err(FollowError::Behind {
                topic: self.shared.topic.clone(),
                within,
            })
        })
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

fn is_missing(error: &KafkaError) -> bool {
    matches!(
        error,
        KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition)
    )
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    fn run(&self, mut apply: impl FnMut(Entry<'_>)) {
        let mut failures = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            match self.open() {
                Ok((consumer, asker, ends)) => {
                    failures = 0;
                    let asker = Arc::new(asker);
                    *lock(&self.client) = Some(Arc::clone(&asker));
                    {
                        let mut progress = self.lock();
                        progress.trouble = None;
                        progress.moved = Some(Instant::now());
                    }
                    self.moved.notify_all();
                    self.follow(&consumer, &asker, ends, &mut apply);
                    *lock(&self.client) = None;
                }
                Err(error) => {
                    if failures.is_multiple_of(20) {
                        tracing::warn!(topic = self.topic, %error, "cannot read the topic yet, trying again");
                    }
                    failures += 1;
                    self.lock().trouble = Some(Trouble {
                        is_missing: is_missing(&error),
                        reason: error.to_string(),
                    });
                    std::thread::sleep(REOPEN_AFTER);
                }
            }
        }
        self.lock().stopped = true;
        self.moved.notify_all();
    }

    /// Assigns every partition from its beginning; returns the reader, the client for questions,
    /// and the ends that the partitions have now.
    fn open(&self) -> Result<(BaseConsumer, BaseConsumer, BTreeMap<i32, i64>), KafkaError> {
        let consumer: BaseConsumer = self.config.create()?;
        let asker: BaseConsumer = self.config.create()?;
        let ends = self.ends(&asker)?;
        let mut assignment = TopicPartitionList::new();
        for partition in ends.keys() {
            assignment.add_partition_offset(&self.topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        Ok((consumer, asker, ends))
    }

    /// The ends of all partitions.
    fn ends(&self, consumer: &BaseConsumer) -> Result<BTreeMap<i32, i64>, KafkaError> {
        let partitions = self.partitions(consumer, ASK_TIMEOUT)?;
        let end = |partition| Ok((partition, self.end(consumer, partition, ASK_TIMEOUT)?));
        partitions.into_iter().map(end).collect()
    }

    fn end(
        &self,
        consumer: &BaseConsumer,
        partition: i32,
        within: Duration,
    ) -> Result<i64, KafkaError> {
        let (_, high) = consumer.fetch_watermarks(&self.topic, partition, within)?;
        Ok(high)
    }

    fn partitions(
        &self,
        consumer: &BaseConsumer,
        within: Duration,
    ) -> Result<Vec<i32>, KafkaError> {
        let metadata = consumer.fetch_metadata(Some(&self.topic), within)?;
        let unknown =
            || KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopicOrPartition);
        let topic = metadata
            .topics()
            .iter()
            .find(|topic| topic.name() == self.topic)
            .ok_or_else(unknown)?;
        if let Some(error) = topic.error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        if topic.partitions().is_empty() {
            return Err(unknown());
        }
        Ok(topic.partitions().iter().map(|it| it.id()).collect())
    }

    /// Reads partitions that have been added, from their beginning; `ends` knows those that are read.
    fn look_for_partitions(
        &self,
        consumer: &BaseConsumer,
        asker: &BaseConsumer,
        ends: &mut BTreeMap<i32, i64>,
    ) -> Result<(), KafkaError> {
        let mut partitions = self.partitions(asker, LOOK_TIMEOUT)?;
        partitions.retain(|partition| !ends.contains_key(partition));
        for partition in partitions {
            let end = self.end(asker, partition, LOOK_TIMEOUT)?;
            let mut added = TopicPartitionList::new();
            added.add_partition_offset(&self.topic, partition, Offset::Beginning)?;
            consumer.incremental_assign(&added)?;
            ends.insert(partition, end);
            tracing::info!(topic = self.topic, partition, "a partition was added");
        }
        Ok(())
    }

    /// Applies records until told to stop, or until the client is beyond repair.
    fn follow(
        &self,
        consumer: &BaseConsumer,
        asker: &BaseConsumer,
        mut ends: BTreeMap<i32, i64>,
        apply: &mut impl FnMut(Entry<'_>),
    ) {
        let mut restoring: BTreeMap<i32, i64> = ends.clone();
        restoring.retain(|partition, end| {
            *end > self.lock().reached.get(partition).copied().unwrap_or(0)
        });
        if restoring.is_empty() {
            self.reached(None, true);
        }
        let mut looked = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            if looked.elapsed() >= LOOK_FOR_PARTITIONS {
                if let Err(error) = self.look_for_partitions(consumer, asker, &mut ends) {
                    tracing::debug!(topic = self.topic, %error, "no look for added partitions");
                }
                looked = Instant::now();
            }
            match consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => {
                    let partition = message.partition();
                    let entry = Entry {
                        key: message.key().unwrap_or_default(),
                        value: message.payload(),
                        timestamp: message.timestamp().to_millis().unwrap_or(0),
                        partition,
                        offset: message.offset(),
                        restoring: restoring.contains_key(&partition),
                        headers: &|| headers_of(&message),
                    };
                    self.hand_over(entry, apply);
                    let next = message.offset() + 1;
                    if restoring.get(&partition).is_some_and(|end| next >= *end) {
                        restoring.remove(&partition);
                    }
                    self.reached(Some((partition, next)), restoring.is_empty());
                }
                // The last records of a partition may have been compacted away: its end then
                // arrives without a record, and counts as the end it had when it was opened.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    restoring.remove(&partition);
                    let end = ends.get(&partition).copied().unwrap_or(0);
                    self.reached(Some((partition, end)), restoring.is_empty());
                }
                Some(Err(error)) => {
                    tracing::warn!(topic = self.topic, %error, "reading the topic met an error");
                    if consumer.client().fatal_error().is_some() {
                        return;
                    }
                }
            }
        }
    }

    /// A record that makes its reader panic is passed over: else nothing behind it would ever be known.
    fn hand_over(&self, entry: Entry<'_>, apply: &mut impl FnMut(Entry<'_>)) {
        let (key, partition, offset) = (entry.key, entry.partition, entry.offset);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| apply(entry))) {
            let reason = words_of(panic.as_ref());
            tracing::error!(
                topic = self.topic,
                partition,
                offset,
                key = %String::from_utf8_lossy(key),
                reason,
                "reading a record panicked; going on behind it"
            );
        }
    }

    fn reached(&self, position: Option<(i32, i64)>, restored: bool) {
        let mut progress = self.lock();
        if let Some((partition, next)) = position {
            let reached = progress.reached.entry(partition).or_insert(0);
            *reached = (*reached).max(next);
        }
        progress.moved = Some(Instant::now());
        progress.restored |= restored;
        drop(progress);
        self.moved.notify_all();
    }

    fn catch_up(&self, within: Duration) -> Result<(), FollowError> {
        let deadline = Instant::now() + within;
        let ask = |source| FollowError::Ask {
            topic: self.topic.clone(),
            source,
        };
        let client = self
            .client_by(deadline)
            .ok_or_else(|| FollowError::Behind {
                topic: self.topic.clone(),
                within,
            })?;
        let ends = self.ends(&client).map_err(ask)?;
        self.wait_for(&ends, deadline, within)
    }

    /// The client for questions: it is there as soon as the topic was opened.
    fn client_by(&self, deadline: Instant) -> Option<Arc<BaseConsumer>> {
        let mut progress = self.lock();
        loop {
            let client = lock(&self.client).clone();
            let left = deadline.saturating_duration_since(Instant::now());
            if client.is_some() || left.is_zero() || progress.stopped {
                return client;
            }
            let waited = self.moved.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn wait_for(
        &self,
        ends: &BTreeMap<i32, i64>,
        deadline: Instant,
        within: Duration,
    ) -> Result<(), FollowError> {
        let behind = |progress: &Progress| {
            let reached = |partition: &i32| progress.reached.get(partition).copied().unwrap_or(0);
            ends.iter()
                .any(|(partition, end)| reached(partition) < *end)
                || !progress.restored
        };
        let mut progress = self.lock();
        while behind(&progress) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || progress.stopped {
                return Err(FollowError::Behind {
                    topic: self.topic.clone(),
                    within,
                });
            }
            progress = self
                .moved
                .wait_timeout(progress, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        Ok(())
    }
}
