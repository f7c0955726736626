//! The stage of the workflows: commands and replies through the engine. `transaction` has the batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::handle::{DefinitionRegistry, SubmitError};
use super::meters;
use super::partition::{Change, Partition};
use super::recovery::Pace;
use super::shared::Shared;
use super::stage::{Owned, RECORDS_PER_STEP, Stage};
use super::sweep::Sweep;
use super::worker::{LoopConfig, Worker};
use crate::codec::CodecError;
use crate::engine::{Engine, EngineConfig};
use crate::log::{
    ChangelogReader, ErrorClass, Log, LogError, Record, RestoreProgress, Source, Topics,
};
use crate::model::{Millis, Timestamp};
use crate::store::memory::MemoryStore;
use crate::store::{StoreError, Stores};

/// Bounds of one worker, from configuration.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its place among the workers of the instance.
    pub number: usize,
    pub topics: Topics,
    pub batch_records: usize,
    pub batch_bytes: usize,
    pub max_payload_bytes: usize,
    /// Of the installation; a partition has an equal share.
    pub max_concurrent_runs: usize,
    pub park_for: Millis,
    pub retention: Millis,
    /// Of one partition's cache.
    pub cache_bytes: usize,
}

/// Replies of one run that wait for it, at most.
const MAX_PARKED_PER_RUN: usize = 100;

/// Signals of one run that no step has taken, at most.
const MAX_SIGNALS_PER_RUN: usize = 100;

/// Runs of one partition that one order by tags is carried out for in one transaction: some
/// milliseconds of work.
const MAX_SELECTED: usize = 500;

/// See the module.
pub struct Workflows {
    pub(super) config: WorkerConfig,
    pub(super) stores: Arc<dyn Stores>,
    pub(super) definitions: Arc<dyn DefinitionRegistry>,
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Option<Engine>,
    /// How often the store of a partition failed.
    pub(super) store_failures: BTreeMap<i32, u32>,
}

/// A partition of the workflows' stage.
pub struct RunsPartition {
    pub(super) partition: Arc<Partition>,
    pub(super) sweep: Sweep,
}

impl RunsPartition {
    fn new(partition: Arc<Partition>) -> Self {
        Self {
            partition,
            sweep: Sweep::default(),
        }
    }
}

impl Worker<Workflows> {
    /// A worker of the workflows' stage.
    pub fn new(
        config: WorkerConfig,
        log: Box<dyn Log>,
        stores: Arc<dyn Stores>,
        definitions: Arc<dyn DefinitionRegistry>,
        shared: Arc<Shared>,
    ) -> Self {
        let of_loop = LoopConfig {
            number: config.number,
            batch_records: config.batch_records,
            batch_bytes: config.batch_bytes,
        };
        let stage = Workflows {
            config,
            stores,
            definitions,
            shared,
            engine: None,
            store_failures: BTreeMap::new(),
        };
        Worker::of(of_loop, log, stage)
    }
}

impl Workflows {
    /// An empty partition; where the disk does not work at all, or an emptied store failed again, one in
    /// memory.
    fn rebuild(&self, number: i32, cluster: &str) -> Arc<Partition> {
        let opened = self.stores.open(cluster, number);
        let emptied = opened.and_then(|store| match self.store_failures.get(&number) {
            Some(2..) => {
                // What is in it would be out of date when it is opened next.
                store.clear()?;
                Err(StoreError::new("writing the store", "it failed again"))
            }
            _ => Partition::rebuild(number, store),
        });
        Arc::new(emptied.unwrap_or_else(|error| {
            tracing::error!(%error, partition = number, "the store does not work; going on in memory");
            let in_memory = Arc::new(MemoryStore::default());
            Partition::rebuild(number, in_memory).expect("a store in memory does not fail")
        }))
    }
}

impl Stage for Workflows {
    type Partition = RunsPartition;

    fn connected(&mut self, partitions: i32) {
        self.shared.set_partition_count(partitions);
        let share =
            self.config.max_concurrent_runs / usize::try_from(partitions).unwrap_or(1).max(1);
        let config = EngineConfig {
            max_payload_bytes: self.config.max_payload_bytes,
            max_live_runs: share.max(1),
            park_for: self.config.park_for,
            max_parked_per_run: MAX_PARKED_PER_RUN,
            max_signals_per_run: MAX_SIGNALS_PER_RUN,
            max_selected: self.config.batch_records.min(MAX_SELECTED),
        };
        self.engine = Some(Engine::new(config, Arc::clone(&self.definitions) as _));
    }

    fn set_trouble(&self, trouble: Option<String>) {
        self.shared.set_trouble(self.config.number, trouble);
    }

    fn open(
        &mut self,
        number: i32,
        cluster: &str,
        known: Option<RunsPartition>,
    ) -> Option<RunsPartition> {
        if !self.shared.claim(number, self.config.number) {
            return None;
        }
        if let Some(known) = known {
            if !known.partition.is_abandoned() {
                return Some(known);
            }
            tracing::error!(partition = number, "its store failed; rebuilding it");
            *self.store_failures.entry(number).or_default() += 1;
            return Some(self.open_empty(number, cluster, known));
        }
        let opened = self
            .stores
            .open(cluster, number)
            .and_then(|store| Partition::open(number, store, self.config.cache_bytes));
        Some(RunsPartition::new(match opened {
            Ok(partition) => Arc::new(partition),
            Err(error) => {
                tracing::warn!(%error, partition = number, "rebuilding the store from the changelog");
                self.rebuild(number, cluster)
            }
        }))
    }

    fn open_empty(&mut self, number: i32, cluster: &str, old: RunsPartition) -> RunsPartition {
        old.partition.abandon();
        RunsPartition::new(self.rebuild(number, cluster))
    }

    fn changelog_offset(&self, partition: &RunsPartition) -> i64 {
        partition.partition.changelog_offset()
    }

    fn restoring(&mut self, _: i32, partition: &RunsPartition) {
        self.shared.add_partition(Arc::clone(&partition.partition));
    }

    fn replay(
        &mut self,
        number: i32,
        partition: &mut RunsPartition,
        changelog: &mut dyn ChangelogReader,
    ) -> Result<RestoreProgress, LogError> {
        let partition = &partition.partition;
        if partition.is_abandoned() {
            return Err(LogError {
                class: ErrorClass::Retriable,
                doing: "restoring",
                reason: format!("the store of partition {number} failed"),
            });
        }
        let mut changes = Vec::new();
        let mut too_new = None;
        let progress = changelog.read(RECORDS_PER_STEP, &mut |record| match Change::decode(
            record.key,
            record.value,
        ) {
            Ok(change) => changes.push(change),
            Err(error @ CodecError::TooNew { .. }) => too_new = Some(error),
            Err(error) => {
                let key = String::from_utf8_lossy(record.key);
                tracing::error!(
                    %error, %key, partition = number, offset = record.offset,
                    "skipping a record of the changelog that is not ours"
                );
            }
        })?;
        if let Some(error) = too_new {
            // Going on would overwrite what a later version knows and we do not.
            let reason = format!("partition {number}: {error}");
            return Err(LogError {
                class: ErrorClass::Retriable,
                doing: "restoring",
                reason,
            });
        }
        partition.fold(changes, progress.position);
        if partition.cache().bytes() > self.config.cache_bytes {
            if let Err(error) = partition.write_behind() {
                tracing::warn!(%error, partition = number, "the store fails");
            }
            partition
                .cache_mut()
                .evict(self.config.cache_bytes, usize::MAX);
        }
        Ok(progress)
    }

    fn restored(
        &mut self,
        number: i32,
        partition: &mut RunsPartition,
        now: Timestamp,
    ) -> Result<(), LogError> {
        // Runs are pinned to definitions that other instances may have applied by now.
        self.definitions.catch_up()?;
        partition.sweep.begin(now);
        partition.partition.set_restored(true);
        let live_runs = partition.partition.cache().live();
        tracing::info!(partition = number, live_runs, "restored");
        Ok(())
    }

    fn next_due(&self, partition: &RunsPartition) -> Option<Timestamp> {
        partition.partition.cache().next_due()
    }

    fn transact(
        &mut self,
        log: &mut dyn Log,
        owned: &mut Owned<RunsPartition>,
        records: &[Record],
        now: Timestamp,
        pace: &mut Pace,
    ) -> Result<usize, LogError> {
        self.commit_batch(log, owned, records, now, pace)
    }

    /// What a batch changes is folded in only after its commit.
    fn survives_abort(&self, _: &RunsPartition) -> bool {
        true
    }

    fn session_lost(&mut self, number: i32, partition: &RunsPartition) {
        partition.partition.set_restored(false);
        let unknown = SubmitError::Broker("the session was lost; ask again".to_owned());
        self.shared.fail_requests(number, &unknown);
    }

    fn give_up(&mut self, number: i32, partition: Option<RunsPartition>) {
        if !self.shared.is_held_by(number, self.config.number) {
            return;
        }
        self.shared.remove_partition(number);
        for source in Source::BOTH {
            meters::lag(self.config.topics.of(source), number, 0);
        }
        meters::restoring(number, 0);
        // Whoever opens the store next, perhaps this instance, finds it as far as it can be.
        if let Some(Err(error)) = partition.map(|known| known.partition.write_behind()) {
            tracing::warn!(%error, partition = number, "the store is left behind");
        }
        self.shared.release(number);
    }

    fn forsake(&mut self, number: i32) {
        let is_held = self.shared.is_held_by(number, self.config.number);
        if let Some(partition) = self.shared.partition(number).filter(|_| is_held) {
            partition.abandon();
        }
        self.give_up(number, None);
    }

    fn observe(&self, number: i32, partition: &RunsPartition, behind: [u64; 2]) {
        partition.partition.set_lag(behind[0] + behind[1]);
        for source in Source::BOTH {
            let topic = self.config.topics.of(source);
            meters::lag(topic, number, behind[source.index()]);
        }
    }
}
