//! The runtime's door: start it, submit commands and replies, ask for runs, follow events.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::history::{Events, EventsTail, History, HistoryEvent};
use super::intake::schemas::SchemaSettings;
use super::list;
use super::partition::Partition;
use super::patterns::stats::RuleStats;
use super::rules::RuleSet;
use super::shared::Shared;
use super::submit::Submitter;
use super::supervisor::Supervisor;
use crate::engine::{Definitions, Outcome};
use crate::log::kafka::ClientSettings;
use crate::log::{LogError, Source, Topics};
use crate::model::{Command, Millis, RecordPlace, Reply, RunId, RunState, RunStatus, Timestamp};
use crate::pattern::Rule;

/// Settings of the runtime of one instance.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    pub client: ClientSettings,
    /// Prefix of all topics, group ids and transactional ids, such as `partita.`.
    pub prefix: String,
    /// Names this instance for as long as its data folder lives; two running instances of one
    /// prefix never share it (it fences: the younger one wins).
    pub instance: String,
    /// Worker threads; each has its own consumer, producer and partitions. At least 1.
    pub workers: usize,
    /// Records of one transaction, at most; the first record is always accepted.
    pub batch_records: usize,
    /// The same, of the patterns' stage.
    pub event_batch_records: usize,
    /// Bytes of the input of one transaction, at most; the first record is always accepted.
    pub batch_bytes: usize,
    /// Of the JSON of an input or an output, in bytes.
    pub max_payload_bytes: usize,
    /// Running and paused runs of the whole installation; each partition has an equal share
    /// (at least 1), further runs are pending.
    pub max_concurrent_runs: usize,
    /// Pending runs of the whole installation, an equal share for each partition; further starts
    /// over this handle are [`SubmitError::Overloaded`].
    pub max_pending_runs: usize,
    /// How long an ended run is kept.
    pub retention: Millis,
    /// Encoded runs in memory, over all partitions of this instance.
    pub cache_bytes: usize,
    /// Between two writes to the store.
    pub write_behind: Millis,
    /// How long a reply waits for its run to become known before it is a dead letter.
    pub park_for: Millis,
    /// A match that stems from more rules one after the other acts not.
    pub max_rule_depth: u32,
    pub transaction_timeout: Millis,
    pub session_timeout: Millis,
    /// Whether a worker's place in the group outlives it for `session_timeout`: a restart then goes
    /// on at once even after a kill, but after a graceful stop, too, the others wait that long.
    pub static_membership: bool,
    /// Memory of all topics that rules join, about, in bytes.
    pub table_bytes: usize,
    /// How long such a topic may stand still before it is read to its end; matches wait so long.
    pub table_wait: Millis,
    /// Where the schemas of values in Avro come from.
    pub schemas: SchemaSettings,
    /// Folder of the store; `None`: a store in memory, rebuilt from the changelog at each start.
    pub data_dir: Option<PathBuf>,
}

impl RuntimeConfig {
    /// The documented defaults, for `instance` on the cluster behind `client`.
    pub fn new(client: ClientSettings, instance: impl Into<String>) -> Self {
        Self {
            client,
            prefix: "partita.".to_owned(),
            instance: instance.into(),
            workers: 1,
            batch_records: 2_000,
            event_batch_records: 20_000,
            batch_bytes: 4 << 20,
            max_payload_bytes: 256 << 10,
            max_concurrent_runs: 1_000_000,
            max_pending_runs: 1_000_000,
            retention: Millis(7 * 24 * 3_600 * 1_000),
            cache_bytes: 256 << 20,
            write_behind: Millis(1_000),
            park_for: Millis(5_000),
            max_rule_depth: 8,
            transaction_timeout: Millis(10_000),
            session_timeout: Millis(10_000),
            static_membership: false,
            table_bytes: 256 << 20,
            table_wait: Millis(60_000),
            schemas: SchemaSettings::default(),
            data_dir: None,
        }
    }
}

/// Definitions as the runtime asks for them.
pub trait DefinitionRegistry: Definitions + Send + Sync {
    /// Blocks (a few seconds at most) until everything is read that was applied anywhere before
    /// the call. Only then is what is unknown here unknown to all: a worker calls it before it refuses
    /// a start of an unknown workflow or passes over events of an unknown rule, and before a partition
    /// that it has restored begins to work.
    ///
    /// # Errors
    /// The definitions could not be read to their end; to be tried again.
    fn catch_up(&self) -> Result<(), LogError>;

    /// The rules as they stand. None until all that was applied before has been read; a registry of
    /// workflows alone has none.
    fn rules(&self) -> RuleSet {
        RuleSet::empty()
    }

    /// Whether there is any rule, in force or not: one that is disabled may yet wait for a deadline.
    fn has_rules(&self) -> bool {
        !self.rules().in_force.is_empty()
    }

    /// A version of a rule that is applied or implied, in force or not: what drains after an update is found
    /// here.
    fn rule(&self, _name: &str, _version: u32) -> Option<Arc<Rule>> {
        None
    }

    /// When that version of a rule was applied: its events begin then.
    fn rule_applied_at(&self, _name: &str, _version: u32) -> Option<Timestamp> {
        None
    }
}

/// Why the runtime does not start. A broker that is away is no reason: workers wait for it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot make a Kafka client: {0}")]
    Client(String),
    #[error("cannot use the data folder {path}: {reason}")]
    DataDir { path: PathBuf, reason: String },
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// Why a submission has no answer. The record may still be applied after `Timeout` and `Broker`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SubmitError {
    #[error("partition {partition} is not owned by this instance")]
    NotOwner { partition: i32 },
    #[error("partition {partition} is being restored")]
    NotReady { partition: i32 },
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("too much is waiting already: {what}")]
    Overloaded { what: &'static str },
    /// In bytes; the limit where it is known, with the record's headers in it.
    #[error("the record for topic `{topic}` has {bytes} bytes, {}", at_most(.limit))]
    TooLarge {
        topic: String,
        bytes: usize,
        limit: Option<usize>,
    },
    #[error("the broker does not answer: {0}")]
    Broker(String),
}

fn at_most(limit: &Option<usize>) -> String {
    match limit {
        Some(limit) => format!("and at most {limit} are allowed with its headers"),
        None => "more than its `max.message.bytes` allows".to_owned(),
    }
}

/// The answer to a command or a reply, given after the transaction that applied it has committed.
#[derive(Clone, Debug, PartialEq)]
pub struct Answered {
    pub outcome: Outcome,
    /// The run as it stands after that transaction, where there is one.
    pub run: Option<RunState>,
}

/// Which runs to list. Empty: all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunFilter {
    pub workflow: Option<String>,
    pub status: Option<RunStatus>,
    /// All of them must match.
    pub tags: BTreeMap<String, String>,
    /// Started by a match whose provenance names this record.
    pub record: Option<RecordPlace>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}

/// The last run of a page; the next page begins after it. Order: newest first, then by id
/// descending, over all instances.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListCursor {
    pub created_at: Timestamp,
    pub run: RunId,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunPage {
    /// Newest first.
    pub runs: Vec<RunState>,
    /// `None`: there are no more.
    pub next: Option<ListCursor>,
}

/// A partition that this instance owns.
#[derive(Clone, Debug, PartialEq)]
pub struct PartitionInfo {
    pub partition: i32,
    /// Records of `commands` and `replies` that are not applied yet, as far as is known.
    pub lag: u64,
    /// Whether its state is complete, so that it works.
    pub restored: bool,
    /// Running and paused.
    pub live_runs: usize,
    pub pending: usize,
}

/// Whether this instance can do its work.
#[derive(Clone, Debug, PartialEq)]
pub enum Readiness {
    Ready,
    /// Reasons for people, at least one.
    NotReady {
        reasons: Vec<String>,
    },
}

/// Longest list that [`Handle::list`] gives.
const MAX_LIST: usize = 1_000;

/// How long a caller waits for the transaction that applies its record.
const SUBMIT_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at a run whose end is awaited: its partition may have moved.
const END_CHECK: Duration = Duration::from_secs(1);

/// Starts the workers of this instance; returns before they own anything. Brokers that are away
/// are waited for. Must be called within a tokio runtime.
pub fn start(
    config: RuntimeConfig,
    definitions: Arc<dyn DefinitionRegistry>,
) -> Result<Handle, StartError> {
    let shared = Arc::new(Shared::new(format!(
        "{}-{}",
        config.instance,
        uuid::Uuid::now_v7().simple()
    )));
    let topics = Topics::new(&config.prefix);
    let submitter = Submitter::new(&config.client, Arc::clone(&shared));
    let submitter = submitter.map_err(|error| StartError::Client(error.to_string()))?;
    let events = Events::new(config.client.clone(), &topics.events);
    let supervisor = Supervisor::start(&config, &definitions, &shared)?;
    Ok(Handle(Arc::new(Inner {
        config,
        topics,
        shared,
        submitter,
        events,
        supervisor,
    })))
}

/// The door to a running runtime. Cloning is cheap; dropping the last clone stops the workers.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    config: RuntimeConfig,
    topics: Topics,
    shared: Arc<Shared>,
    submitter: Submitter,
    events: Events,
    supervisor: Supervisor,
}

impl Handle {
    /// Produces the command and answers once the transaction that applied it has committed.
    /// Waits at most 30 s.
    pub async fn submit(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> Result<Answered, SubmitError> {
        let partition = self.restored(command.run_id())?;
        if matches!(command, Command::Start(_)) {
            let count = usize::try_from(self.partitions()).unwrap_or(1).max(1);
            let share = (self.0.config.max_pending_runs / count).max(1);
            // A start that is known already adds nothing.
            let is_full = partition.cache().pending_count() >= share;
            let is_known = || matches!(partition.run(command.run_id()), Ok(Some(_)));
            if is_full && !is_known() {
                return Err(SubmitError::Overloaded {
                    what: "runs that wait for a place",
                });
            }
        }
        let value =
            serde_json::to_vec(&command).map_err(|error| SubmitError::Broker(error.to_string()))?;
        let id = command.run_id();
        self.ask(
            Source::Commands,
            id,
            partition.number,
            &value,
            traceparent.as_deref(),
        )
        .await
    }

    /// The same for an agent's reply.
    pub async fn answer(
        &self,
        reply: Reply,
        traceparent: Option<String>,
    ) -> Result<Answered, SubmitError> {
        let partition = self.restored(&reply.run_id)?;
        let value =
            serde_json::to_vec(&reply).map_err(|error| SubmitError::Broker(error.to_string()))?;
        self.ask(
            Source::Replies,
            &reply.run_id,
            partition.number,
            &value,
            traceparent.as_deref(),
        )
        .await
    }

    async fn ask(
        &self,
        source: Source,
        id: &RunId,
        partition: i32,
        value: &[u8],
        traceparent: Option<&str>,
    ) -> Result<Answered, SubmitError> {
        let shared = &self.0.shared;
        let (request, answer) = shared.expect_answer(partition)?;
        let topic = self.0.topics.of(source);
        let sent =
            self.0
                .submitter
                .produce(topic, partition, id.as_str(), value, request, traceparent);
        if let Err(error) = sent {
            shared.forget_request(request);
            return Err(error);
        }
        match tokio::time::timeout(SUBMIT_TIMEOUT, answer).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(_)) => Err(SubmitError::Broker("the runtime has stopped".to_owned())),
            Err(_) => {
                shared.forget_request(request);
                Err(SubmitError::Timeout(SUBMIT_TIMEOUT))
            }
        }
    }

    /// The run's partition, where it is owned here and ready.
    fn restored(&self, id: &RunId) -> Result<Arc<Partition>, SubmitError> {
        let number = self.partition_of(id);
        let partition = self.0.shared.partition(number);
        let partition = partition.ok_or(SubmitError::NotOwner { partition: number })?;
        match partition.is_restored() {
            true => Ok(partition),
            false => Err(SubmitError::NotReady { partition: number }),
        }
    }

    /// The run as last committed; `None` where its partition, owned here, does not know it.
    /// From any thread; may read the store's disk.
    pub fn run(&self, id: &RunId) -> Result<Option<RunState>, SubmitError> {
        let partition = self.restored(id)?;
        let not_ready = SubmitError::NotReady {
            partition: partition.number,
        };
        match partition.run(id) {
            // Its store may have been emptied meanwhile.
            Ok(_) if partition.is_abandoned() => Err(not_ready),
            Ok(run) => Ok(run),
            Err(error) => {
                tracing::warn!(%error, run = %id, "the store fails");
                Err(not_ready)
            }
        }
    }

    /// Waits until the run has ended or the time is over, and says how it stands then.
    pub async fn wait_for_end(
        &self,
        id: &RunId,
        at_most: Duration,
    ) -> Result<Option<RunState>, SubmitError> {
        let deadline = tokio::time::Instant::now() + at_most;
        loop {
            let end = self.0.shared.expect_end(id);
            let run = self.run(id)?;
            let is_over = tokio::time::Instant::now() >= deadline;
            if is_over || run.as_ref().is_none_or(|run| run.status.is_ended()) {
                return Ok(run);
            }
            let check = deadline.min(tokio::time::Instant::now() + END_CHECK);
            // Fired, dropped or over: each time the run says how it stands.
            let _ = tokio::time::timeout_at(check, end).await;
        }
    }

    /// Runs of the partitions owned here, newest first; `limit` is cut to 1,000.
    pub fn list(
        &self,
        filter: &RunFilter,
        limit: usize,
        after: Option<&ListCursor>,
    ) -> Result<RunPage, SubmitError> {
        let limit = limit.clamp(1, MAX_LIST);
        let mut runs = Vec::new();
        for partition in self.0.shared.partitions() {
            if !partition.is_restored() {
                return Err(SubmitError::NotReady {
                    partition: partition.number,
                });
            }
            let not_ready = SubmitError::NotReady {
                partition: partition.number,
            };
            match list::of_partition(&partition, filter, limit + 1, after) {
                // Its store may have been emptied meanwhile.
                Ok(_) if partition.is_abandoned() => return Err(not_ready),
                Ok(found) => runs.extend(found),
                Err(error) => {
                    tracing::warn!(%error, partition = partition.number, "the store fails");
                    return Err(not_ready);
                }
            }
        }
        runs.sort_by(|a, b| list::place(b).cmp(&list::place(a)));
        let has_more = runs.len() > limit;
        runs.truncate(limit);
        let last = runs.last().filter(|_| has_more);
        let next = last.map(|run| ListCursor {
            created_at: run.created_at,
            run: run.id.clone(),
        });
        Ok(RunPage { runs, next })
    }

    /// The run's events from `from_sequence` (1: all) up to its last committed one. Reads the
    /// `events` topic; for runs whose partition is owned here. An unknown run has none.
    pub async fn history(&self, id: &RunId, from_sequence: u64) -> Result<History, SubmitError> {
        let Some(run) = self.run(id)? else {
            return Ok(History::of(Vec::new(), 0));
        };
        let partition = self.partition_of(id);
        let events = self.0.events.clone();
        blocking(move || events.history(&run, partition, from_sequence)).await
    }

    /// Follows the run's events from `from_sequence`; the channel closes after its last event.
    /// Dropping the receiver ends it.
    pub async fn follow(
        &self,
        id: &RunId,
        from_sequence: u64,
    ) -> Result<mpsc::Receiver<HistoryEvent>, SubmitError> {
        let Some(run) = self.run(id)? else {
            return Ok(mpsc::channel(1).1);
        };
        let partition = self.partition_of(id);
        let events = self.0.events.clone();
        blocking(move || events.follow(&run, partition, from_sequence)).await
    }

    /// Follows the events of all runs and rules of the installation, from these next offsets, or from now on
    /// for the partitions not named. Dropping the receiver ends it.
    pub async fn events_tail(
        &self,
        positions: BTreeMap<i32, i64>,
    ) -> Result<EventsTail, SubmitError> {
        let partitions = self.partitions();
        let events = self.0.events.clone();
        blocking(move || events.tail(partitions, &positions)).await
    }

    /// The partition of `commands`, `replies` and `state` that the run lives in.
    pub fn partition_of(&self, id: &RunId) -> i32 {
        self.0.shared.partition_of(id)
    }

    /// What the rules have done here, and what they hold.
    pub fn rule_stats(&self) -> Vec<RuleStats> {
        self.0.shared.rules().rules()
    }

    /// Partitions of the installation; 0 as long as no broker has told.
    pub fn partitions(&self) -> i32 {
        self.0.shared.partition_count()
    }

    /// Whether the partition is owned here (restored or not).
    pub fn owns(&self, partition: i32) -> bool {
        self.0.shared.partition(partition).is_some()
    }

    /// What is owned here, by partition.
    pub fn owned(&self) -> Vec<PartitionInfo> {
        let info = |partition: &Arc<Partition>| {
            let cache = partition.cache();
            PartitionInfo {
                partition: partition.number,
                lag: partition.lag(),
                restored: partition.is_restored(),
                live_runs: cache.live(),
                pending: cache.pending_count(),
            }
        };
        self.0.shared.partitions().iter().map(info).collect()
    }

    /// Tells of each change of the partitions owned (sorted).
    pub fn watch_owned(&self) -> watch::Receiver<Vec<i32>> {
        self.0.shared.watch_owned()
    }

    /// Ready: every worker is connected and has its share, and every partition owned is restored. An
    /// instance that owns nothing, because there are more workers than partitions, is ready as well.
    pub fn readiness(&self) -> Readiness {
        let mut reasons = self.0.shared.troubles();
        for partition in self.0.shared.partitions() {
            if !partition.is_restored() {
                reasons.push(format!("partition {} is being restored", partition.number));
            }
        }
        match reasons.is_empty() {
            true => Readiness::Ready,
            false => Readiness::NotReady { reasons },
        }
    }

    /// Finishes open transactions, leaves the group and writes the store; gives up after `at_most`
    /// and says whether all workers were done. Idempotent.
    pub async fn shutdown(&self, at_most: Duration) -> bool {
        self.0.supervisor.stop();
        let deadline = tokio::time::Instant::now() + at_most;
        while !self.0.supervisor.is_finished() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SubmitError> + Send + 'static,
) -> Result<T, SubmitError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(SubmitError::Broker(error.to_string())))
}
