//! Agents written in Rust, over Kafka: public as `partita::agent`.
//!
//! ```no_run
//! use partita::agent::{Agent, Settings};
//! use partita::model::{Failure, Json};
//!
//! # async fn example() -> Result<(), partita::agent::Error> {
//! Agent::new(Settings::new("127.0.0.1:9092"), "cfo_agent")
//!     .handler(|task, context| async move {
//!         context.progress(Some(0.5), Some("half way")).await;
//!         match task.inputs.parse::<serde_json::Value>() {
//!             Ok(inputs) => Ok(Json::from(serde_json::json!({"forecast": inputs["market"]}))),
//!             Err(error) => Err(Failure::new("validation_error", error.to_string())),
//!         }
//!     })
//!     .concurrency(8)
//!     .run()
//!     .await
//! # }
//! ```
//!
//! A handler runs at least once for each task: after a crash the same task comes again under the
//! same `task_id`, which is the key to be idempotent by. A task is committed once its reply is
//! delivered. What the handler returns for a task that was cancelled meanwhile is dropped.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::feed::{Delivery, Done, Feed, FeedError, FeedSettings, Sink, group_of};
use super::replies::{Replies, Said};
use crate::model::{CancelTask, Failure, Json, Task, class};

/// How long handlers under way may take, and replies to be delivered, once the agent stops.
const GRACE: Duration = Duration::from_secs(10);
/// Tasks read ahead for each handler that may run at one time.
const READ_AHEAD: usize = 4;

/// How an agent reaches Kafka.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Brokers and security, as librdkafka names them.
    pub client: ClientConfig,
    /// Prefix of all topics and groups; `partita.` by default.
    pub prefix: String,
    /// The consumer group; all instances of an agent share one. By default `<prefix>agent.<name>`.
    pub group: Option<String>,
    /// Reads tasks before their transaction is committed: a millisecond or two earlier, and after
    /// a crash perhaps twice with the same `task_id`. Off by default.
    pub read_uncommitted: bool,
}

impl Settings {
    /// The defaults, on these brokers (`host:port`, joined by commas).
    pub fn new(brokers: &str) -> Self {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", brokers);
        Self {
            client,
            prefix: "partita.".to_owned(),
            group: None,
            read_uncommitted: false,
        }
    }
}

/// Why an agent stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a Kafka producer: {0}")]
    Producer(#[source] KafkaError),
    #[error(transparent)]
    Feed(#[from] FeedError),
    #[error("reading tasks ended by an error, which the log tells")]
    Ended,
    #[error("the reply to a task was not delivered; run the agent again to have its task again")]
    ReplyLost,
}

type Handler =
    Arc<dyn Fn(Task, Context) -> BoxFuture<'static, Result<Json, Failure>> + Send + Sync>;

/// An agent without a handler yet; see the module.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    name: String,
}

impl Agent {
    /// The agent that definitions name `name`.
    pub fn new(settings: Settings, name: impl Into<String>) -> Self {
        Self {
            settings,
            name: name.into(),
        }
    }

    /// What it does with a task: the output, or a failure with a class that retries go by. A
    /// handler that panics fails the task with class `error`.
    pub fn handler<F, Fut>(self, handler: F) -> Ready
    where
        F: Fn(Task, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Json, Failure>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |task, context| handler(task, context).boxed());
        Ready {
            settings: self.settings,
            name: self.name,
            handler,
            concurrency: 16,
        }
    }
}

/// An agent that can run.
pub struct Ready {
    settings: Settings,
    name: String,
    handler: Handler,
    concurrency: usize,
}

impl Ready {
    /// Tasks worked on at one time; 16 by default, at least 1.
    pub fn concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// Runs until it fails.
    pub async fn run(self) -> Result<(), Error> {
        self.run_until(CancellationToken::new()).await
    }

    /// Runs until `stop` is cancelled; then finishes what is under way, for at most ten seconds.
    pub async fn run_until(self, stop: CancellationToken) -> Result<(), Error> {
        let Self {
            settings,
            name,
            handler,
            concurrency,
        } = self;
        let replies =
            Arc::new(Replies::new(&settings.client, &settings.prefix).map_err(Error::Producer)?);
        let feed_settings = FeedSettings {
            group: settings
                .group
                .unwrap_or_else(|| group_of(&settings.prefix, &name)),
            client: settings.client,
            prefix: settings.prefix,
            agent: name,
            read_uncommitted: settings.read_uncommitted,
            max_open: concurrency * READ_AHEAD,
        };
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (feed, inbox) = Feed::start(&feed_settings, |done| {
            replies.marks(done.clone());
            Arc::new(Inbox {
                sender,
                under_way: Mutex::default(),
                done,
            })
        })?;
        let feed = Arc::new(feed);
        let work = Work {
            handler,
            replies: Arc::clone(&replies),
            inbox,
            slots: Arc::new(Semaphore::new(concurrency)),
        };
        let ended = work.until(deliveries, &stop, concurrency).await;
        replies.answer_refused().await;
        tokio::task::spawn_blocking(move || {
            // Replies first: what they end is committed by the close.
            let flushed = replies.flush(GRACE);
            feed.close();
            if flushed.is_err() || replies.failed() {
                Err(Error::ReplyLost)
            } else {
                ended
            }
        })
        .await
        .unwrap_or(Err(Error::Ended))
    }
}

/// What a handler may ask and say while it works.
#[derive(Clone)]
pub struct Context {
    delivery: Arc<Delivery>,
    replies: Arc<Replies>,
    cancelled: CancellationToken,
}

impl Context {
    /// Tells how far the work is (a fraction of 1) and renews the heartbeat timeout.
    pub async fn progress(&self, progress: Option<f64>, note: Option<&str>) {
        self.replies
            .send(&self.delivery, Said::Progress { progress, note })
            .await;
    }

    /// Renews the heartbeat timeout and says nothing more.
    pub async fn heartbeat(&self) {
        self.replies.send(&self.delivery, Said::Heartbeat).await;
    }

    /// Is cancelled when the attempt was given up (timed out, or its run was cancelled) or the
    /// agent stops for good.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// W3C `traceparent` of the run's start, where it had one.
    pub fn traceparent(&self) -> Option<&str> {
        self.delivery.traceparent.as_deref()
    }
}

/// Takes what the feed reads. The channel is bounded by the feed's own limit on open tasks.
struct Inbox {
    sender: mpsc::UnboundedSender<Arc<Delivery>>,
    /// Tasks received and not answered, by task id.
    under_way: Mutex<HashMap<String, UnderWay>>,
    done: Done,
}

/// A task that is worked on, or will be.
struct UnderWay {
    cancelled: CancellationToken,
    partition: i32,
    offset: i64,
}

impl Inbox {
    fn under_way(&self) -> MutexGuard<'_, HashMap<String, UnderWay>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for Inbox {
    fn task(&self, delivery: Delivery) {
        let (partition, offset) = (delivery.partition, delivery.offset);
        match self.under_way().entry(delivery.task.task_id.clone()) {
            std::collections::hash_map::Entry::Occupied(known) => {
                // The same attempt once more while it is worked on: one answer serves both. The
                // record itself, read again because its partition was away, is not done with
                // before that answer: a crash until then must bring it back.
                let known = known.get();
                if (known.partition, known.offset) != (partition, offset) {
                    self.done.done(partition, offset);
                }
            }
            std::collections::hash_map::Entry::Vacant(place) => {
                place.insert(UnderWay {
                    cancelled: CancellationToken::new(),
                    partition,
                    offset,
                });
                // Nobody listens any more only when the agent is stopping.
                let _ = self.sender.send(Arc::new(delivery));
            }
        }
    }

    fn cancel(&self, cancel: &CancelTask) {
        if let Some(task) = self.under_way().get(&cancel.task_id) {
            task.cancelled.cancel();
        }
    }

    fn revoked(&self, _partition: i32) {
        // What is under way is finished and answered all the same: its next owner's answer would
        // be ignored as a duplicate.
    }

    fn tick(&self, _now: Instant) -> bool {
        !self.sender.is_closed()
    }
}

struct Work {
    handler: Handler,
    replies: Arc<Replies>,
    inbox: Arc<Inbox>,
    slots: Arc<Semaphore>,
}

impl Work {
    async fn until(
        self,
        mut deliveries: mpsc::UnboundedReceiver<Arc<Delivery>>,
        stop: &CancellationToken,
        concurrency: usize,
    ) -> Result<(), Error> {
        let mut watch = tokio::time::interval(Duration::from_secs(1));
        let work = Arc::new(self);
        let ended = loop {
            let slot = tokio::select! {
                slot = Arc::clone(&work.slots).acquire_owned() => slot.expect("the semaphore is never closed"),
                () = stop.cancelled() => break Ok(()),
            };
            let delivery = loop {
                tokio::select! {
                    delivery = deliveries.recv() => break delivery,
                    () = stop.cancelled() => break None,
                    _ = watch.tick() => {
                        work.replies.answer_refused().await;
                        if work.replies.failed() {
                            break None;
                        }
                    }
                }
            };
            let Some(delivery) = delivery else {
                break if stop.is_cancelled() || work.replies.failed() {
                    Ok(())
                } else {
                    Err(Error::Ended)
                };
            };
            let one = Arc::clone(&work);
            tokio::spawn(async move {
                one.work_on(delivery).await;
                drop(slot);
            });
        };
        deliveries.close();
        let all = u32::try_from(concurrency).unwrap_or(u32::MAX);
        if tokio::time::timeout(GRACE, work.slots.acquire_many(all))
            .await
            .is_err()
        {
            tracing::warn!(
                "handlers were still at work when the agent stopped; their tasks come again"
            );
            work.inbox
                .under_way()
                .values()
                .for_each(|task| task.cancelled.cancel());
        }
        ended
    }

    async fn work_on(&self, delivery: Arc<Delivery>) {
        let id = delivery.task.task_id.clone();
        let cancelled = self
            .inbox
            .under_way()
            .get(&id)
            .map(|task| task.cancelled.clone())
            .unwrap_or_default();
        let context = Context {
            delivery: Arc::clone(&delivery),
            replies: Arc::clone(&self.replies),
            cancelled: cancelled.clone(),
        };
        let result = if cancelled.is_cancelled() {
            Err(Failure::new(class::CANCELLED, "cancelled before it began"))
        } else {
            let working =
                AssertUnwindSafe((self.handler)(delivery.task.clone(), context)).catch_unwind();
            working
                .await
                .unwrap_or_else(|_| Err(Failure::new(class::ERROR, "the agent's handler panicked")))
        };
        self.inbox.under_way().remove(&id);
        if cancelled.is_cancelled() {
            self.inbox.done.done(delivery.partition, delivery.offset);
            return;
        }
        match &result {
            Ok(output) => {
                self.replies
                    .send(&delivery, Said::Completed { output })
                    .await
            }
            Err(error) => self.replies.send(&delivery, Said::Failed { error }).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::feed::delivery;

    #[test]
    fn a_record_that_is_read_again_is_not_done_with_before_its_answer() {
        let (sender, mut deliveries) = mpsc::unbounded_channel();
        let done = Done::detached();
        let inbox = Inbox {
            sender,
            under_way: Mutex::default(),
            done: done.clone(),
        };
        for offset in [4, 4, 7] {
            done.positions().read(0, offset);
            inbox.task(delivery("r.s.0.1", offset));
        }
        assert!(deliveries.try_recv().is_ok());
        assert!(deliveries.try_recv().is_err(), "it is worked on once");
        // The record at 7 says nothing new; the one at 4 waits for the answer.
        assert_eq!(done.positions().open(), 1);
        done.done(0, 4);
        assert_eq!(done.positions().open(), 0);
    }
}
