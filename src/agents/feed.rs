//! A consumer of `tasks.<agent>` on a thread of its own: reads tasks and cancellations, gives them
//! to a [`Sink`], pauses while the sink has enough, and commits what is done with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::Offset;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::TopicPartitionList;

use super::positions::Positions;
use crate::log::kafka::reader_config;
use crate::model::{CancelTask, Task};

/// Between two commits of what is done with.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// The longest the thread sleeps in a poll: bounds how late it sees a stop or a pause's end.
const POLL: Duration = Duration::from_millis(50);
/// How long a broker may hold a fetch that finds nothing.
const FETCH_WAIT: Duration = Duration::from_millis(100);

/// What a feed reads and how.
#[derive(Clone, Debug)]
pub struct FeedSettings {
    /// Brokers and security.
    pub client: ClientConfig,
    /// Prefix of all topics and groups, such as `partita.`.
    pub prefix: String,
    pub agent: String,
    /// The consumer group; all members of it share the agent's tasks.
    pub group: String,
    /// Reads tasks before their transaction is committed: a millisecond or two earlier, and after
    /// a crash perhaps twice.
    pub read_uncommitted: bool,
    /// Reading pauses while so many tasks are open; at least 1.
    pub max_open: usize,
}

/// The group that the agents of one name share unless told otherwise.
pub fn group_of(prefix: &str, agent: &str) -> String {
    format!("{prefix}agent.{agent}")
}

/// Where a task came from and where its answer goes.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub task: Task,
    /// The task as it is on the topic.
    pub json: Arc<str>,
    pub reply_topic: Option<String>,
    pub reply_partition: Option<i32>,
    pub traceparent: Option<String>,
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
}

/// Takes what a feed reads. Called from the feed's thread alone; must not block.
pub trait Sink: Send + Sync + 'static {
    fn task(&self, delivery: Delivery);
    /// The attempt was given up: nobody waits for its answer.
    fn cancel(&self, cancel: &CancelTask);
    /// The partition belongs to another member now.
    fn revoked(&self, partition: i32);
    /// Called about twenty times a second; `false` ends the feed.
    fn tick(&self, now: Instant) -> bool;
}

/// A running feed. Dropping it stops the thread without waiting for it; [`Feed::close`] waits.
pub struct Feed {
    shared: Arc<Shared>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

struct Shared {
    topic: String,
    positions: Mutex<Positions>,
    stop: AtomicBool,
}

/// Marks records as done with; cheap to clone.
#[derive(Clone)]
pub struct Done(Arc<Shared>);

impl Done {
    pub fn done(&self, partition: i32, offset: i64) {
        lock(&self.0.positions).done(partition, offset);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a feed does not start.
#[derive(Debug, thiserror::Error)]
pub enum FeedError {
    #[error("cannot make a Kafka consumer for agent `{agent}`: {source}")]
    Client {
        agent: String,
        #[source]
        source: KafkaError,
    },
    #[error("cannot start a thread for agent `{agent}`: {source}")]
    Thread {
        agent: String,
        #[source]
        source: std::io::Error,
    },
}

impl Feed {
    /// Joins the group and begins to read. `make_sink` gets the means to mark records as done.
    pub fn start<S: Sink>(
        settings: &FeedSettings,
        make_sink: impl FnOnce(Done) -> Arc<S>,
    ) -> Result<(Self, Arc<S>), FeedError> {
        let agent = settings.agent.clone();
        let topic = format!("{}tasks.{agent}", settings.prefix);
        let shared = Arc::new(Shared {
            topic,
            positions: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let sink = make_sink(Done(Arc::clone(&shared)));
        let context = Watch {
            shared: Arc::clone(&shared),
            sink: Arc::clone(&sink) as Arc<dyn Sink>,
        };
        let consumer = consumer(settings, context).map_err(|source| FeedError::Client {
            agent: agent.clone(),
            source,
        })?;
        let reader = Reader {
            consumer,
            shared: Arc::clone(&shared),
            max_open: settings.max_open,
        };
        let thread = std::thread::Builder::new()
            .name(format!("tasks {agent}"))
            .spawn(move || reader.run())
            .map_err(|source| FeedError::Thread { agent, source })?;
        Ok((
            Self {
                shared,
                thread: Mutex::new(Some(thread)),
            },
            sink,
        ))
    }

    /// Whether the thread has ended, by a sink's wish or a fatal error.
    pub fn ended(&self) -> bool {
        lock(&self.thread)
            .as_ref()
            .is_none_or(std::thread::JoinHandle::is_finished)
    }

    /// Stops reading, commits what is done with and leaves the group. Blocks until then.
    pub fn close(&self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = lock(&self.thread).take() {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn consumer(settings: &FeedSettings, context: Watch) -> Result<BaseConsumer<Watch>, KafkaError> {
    let mut config = reader_config(settings.client.clone(), &settings.group, FETCH_WAIT);
    if settings.read_uncommitted {
        config.set("isolation.level", "read_uncommitted");
    }
    config
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", "10000")
        // The topic of a new agent is noticed this soon.
        .set("topic.metadata.refresh.interval.ms", "3000")
        .set("allow.auto.create.topics", "false");
    config.create_with_context(context)
}

/// Sees partitions come and go.
struct Watch {
    shared: Arc<Shared>,
    sink: Arc<dyn Sink>,
}

impl ClientContext for Watch {}

impl ConsumerContext for Watch {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(revoked) = rebalance {
            commit(consumer, &self.shared, CommitMode::Sync);
            for element in revoked.elements() {
                lock(&self.shared.positions).forget(element.partition());
                self.sink.revoked(element.partition());
            }
        }
    }
}

fn commit(consumer: &BaseConsumer<Watch>, shared: &Shared, mode: CommitMode) {
    let moved = lock(&shared.positions).to_commit();
    let topic = &shared.topic;
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in moved {
        // Adding fails for negative offsets alone, and ours are read from records.
        let _ = offsets.add_partition_offset(topic, partition, Offset::Offset(offset));
    }
    if offsets.count() == 0 {
        return;
    }
    if let Err(error) = consumer.commit(&offsets, mode) {
        tracing::info!(topic, %error, "offsets of tasks were not committed: some may be handed out again");
    }
}

struct Reader {
    consumer: BaseConsumer<Watch>,
    shared: Arc<Shared>,
    max_open: usize,
}

impl Reader {
    fn run(self) {
        if let Err(error) = self.consumer.subscribe(&[&self.shared.topic]) {
            tracing::error!(topic = self.shared.topic, %error, "cannot subscribe");
            return;
        }
        let sink = Arc::clone(&self.consumer.context().sink);
        let mut commit_at = Instant::now() + COMMIT_EVERY;
        let mut tick_at = Instant::now();
        let mut paused: Option<TopicPartitionList> = None;
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            if now >= tick_at {
                tick_at = now + POLL;
                if !sink.tick(now) {
                    break;
                }
            }
            if now >= commit_at {
                commit_at = now + COMMIT_EVERY;
                commit(&self.consumer, &self.shared, CommitMode::Async);
            }
            self.pace(&mut paused);
            match self.consumer.poll(POLL) {
                None => {}
                Some(Ok(message)) => self.take(&message, sink.as_ref()),
                Some(Err(error)) => {
                    tracing::debug!(topic = self.shared.topic, %error, "reading tasks met an error");
                    if let Some((_, reason)) = self.consumer.client().fatal_error() {
                        tracing::error!(
                            topic = self.shared.topic,
                            reason,
                            "the consumer of tasks is beyond repair"
                        );
                        break;
                    }
                    // An unknown topic is told again and again; do not spin on it.
                    std::thread::sleep(POLL);
                }
            }
        }
        commit(&self.consumer, &self.shared, CommitMode::Sync);
    }

    /// Pauses reading while enough is open, and takes it up again at half of that.
    fn pace(&self, paused: &mut Option<TopicPartitionList>) {
        let open = lock(&self.shared.positions).open();
        if paused.is_none() && open >= self.max_open {
            if let Ok(assigned) = self.consumer.assignment()
                && self.consumer.pause(&assigned).is_ok()
            {
                *paused = Some(assigned);
            }
        } else if open <= self.max_open / 2
            && let Some(partitions) = paused.take()
            && let Err(error) = self.consumer.resume(&partitions)
        {
            tracing::warn!(topic = self.shared.topic, %error, "could not take up reading again, trying on");
            *paused = Some(partitions);
        } else if let Some(known) = paused
            && let Ok(assigned) = self.consumer.assignment()
            && assigned != *known
            && self.consumer.pause(&assigned).is_ok()
        {
            // A rebalance has brought some since, and they are read unless they are told not to be.
            *known = assigned;
        }
    }

    fn take(&self, message: &BorrowedMessage<'_>, sink: &dyn Sink) {
        let (partition, offset) = (message.partition(), message.offset());
        lock(&self.shared.positions).read(partition, offset);
        let payload = message.payload().unwrap_or_default();
        let skip = |reason: &str| {
            tracing::warn!(
                topic = self.shared.topic,
                partition,
                offset,
                reason,
                "skipped a record that is no task"
            );
            lock(&self.shared.positions).done(partition, offset);
        };
        let Ok(text) = std::str::from_utf8(payload) else {
            return skip("the value is not UTF-8");
        };
        match serde_json::from_str::<Task>(text) {
            Ok(task) => sink.task(Delivery {
                task,
                json: Arc::from(text),
                reply_topic: header(message, "partita-reply-topic"),
                reply_partition: header(message, "partita-reply-partition")
                    .and_then(|text| text.parse().ok()),
                traceparent: header(message, "traceparent"),
                partition,
                offset,
                timestamp: message.timestamp().to_millis().unwrap_or(0),
            }),
            Err(not_a_task) => match serde_json::from_str::<CancelTask>(text) {
                Ok(cancel) => {
                    sink.cancel(&cancel);
                    lock(&self.shared.positions).done(partition, offset);
                }
                Err(_) => skip(&not_a_task.to_string()),
            },
        }
    }
}

fn header(message: &BorrowedMessage<'_>, name: &str) -> Option<String> {
    let found = message
        .headers()?
        .iter()
        .find(|header| header.key == name)?;
    Some(String::from_utf8_lossy(found.value?).into_owned())
}

#[cfg(test)]
impl Done {
    /// Of a topic that no thread reads.
    pub fn detached() -> Self {
        Self(Arc::new(Shared {
            topic: "tasks.test".to_owned(),
            positions: Mutex::default(),
            stop: AtomicBool::new(false),
        }))
    }

    pub fn positions(&self) -> MutexGuard<'_, Positions> {
        lock(&self.0.positions)
    }
}

/// A delivery of task `id`, as tests want one.
#[cfg(test)]
pub fn delivery(id: &str, offset: i64) -> Delivery {
    let json = format!(
        r#"{{"task_id":"{id}","run_id":"r","workflow":"w","version":1,"step_id":"s","agent":"test","attempt":1,"epoch":0,"task":{{}},"inputs":{{}},"deadline":null}}"#
    );
    Delivery {
        task: serde_json::from_str(&json).expect("a task"),
        json: json.into(),
        reply_topic: None,
        reply_partition: None,
        traceparent: None,
        partition: 0,
        offset,
        timestamp: 0,
    }
}
