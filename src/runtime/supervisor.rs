//! The threads of an instance: one for each worker, and one that writes the stores behind them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::handle::{DefinitionRegistry, RuntimeConfig, StartError};
use super::intake::schemas::KnownSchemas;
use super::meters;
use super::patterns::{Bounds, Patterns};
use super::shared::Shared;
use super::stage::Stage;
use super::tables::Tables;
use super::tables::followed::{FollowedTables, TableSettings};
use super::worker::{LoopConfig, Stepped, Worker, WorkerConfig};
use crate::clock::{Clock, SystemClock};
use crate::log::kafka::{KafkaLog, KafkaLogConfig};
use crate::log::{Log, StageKind, Topics};
use crate::store::Stores;
use crate::store::memory::MemoryStores;
use crate::store::sled::SledStores;

/// A worker that has nothing to do looks up so often, to see whether it is to stop.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Between two reports of how far behind a worker is.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// All runs are looked at once in such a time; one that has not moved from one look to the next is in the
/// store alone from then on. It costs a run whose next step comes later a read of the store.
pub const REST_ROUND: Duration = Duration::from_secs(15);

/// Share of the cache that a partition may have at least, in bytes.
const LEAST_PARTITION_CACHE: usize = 1 << 20;

/// Partitions that the cache is divided among, as long as nobody knows better.
const EXPECTED_PARTITIONS: usize = 8;

/// What falls due for rules in one transaction, at most: some megabytes of state and matches.
const DUE_AT_ONCE: usize = 20_000;

/// The running threads.
pub(super) struct Supervisor {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Supervisor {
    pub fn start(
        config: &RuntimeConfig,
        definitions: &Arc<dyn DefinitionRegistry>,
        shared: &Arc<Shared>,
    ) -> Result<Self, StartError> {
        let stores = open_stores(config)?;
        let mut supervisor = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..config.workers.max(1) {
            let log = KafkaLog::new(log_config(config, StageKind::Workflows, number))
                .map_err(|error| StartError::Client(error.to_string()))?;
            let worker = Worker::new(
                worker_config(config, number),
                Box::new(log),
                Arc::clone(&stores),
                Arc::clone(definitions),
                Arc::clone(shared),
            );
            let stop = Arc::clone(&supervisor.stop);
            shared.set_trouble(number, Some("joining the other workers".to_owned()));
            supervisor.spawn(format!("partita-worker-{number}"), move || {
                drive(worker, &stop)
            })?;
        }
        let patterns = KafkaLog::new(log_config(config, StageKind::Patterns, 0))
            .map_err(|error| StartError::Client(error.to_string()))?;
        let tables = tables_of(config)?;
        let patterns = pattern_worker(config, Box::new(patterns), definitions, shared, tables);
        let (stop, rules) = (Arc::clone(&supervisor.stop), Arc::clone(definitions));
        supervisor.spawn("partita-patterns".to_owned(), move || {
            drive_once_there_are_rules(patterns, rules.as_ref(), &stop);
        })?;
        let (stop, shared) = (Arc::clone(&supervisor.stop), Arc::clone(shared));
        let every = Duration::from(config.write_behind).max(Duration::from_millis(10));
        supervisor.spawn("partita-store".to_owned(), move || {
            write_behind(&shared, every, &stop)
        })?;
        Ok(supervisor)
    }

    fn spawn(
        &mut self,
        name: String,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), StartError> {
        let thread = std::thread::Builder::new().name(name).spawn(work);
        self.threads
            .push(thread.map_err(|error| StartError::Thread(error.to_string()))?);
        Ok(())
    }

    /// Asks all threads to finish.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether all threads have finished.
    pub fn is_finished(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.stop();
    }
}

fn open_stores(config: &RuntimeConfig) -> Result<Arc<dyn Stores>, StartError> {
    let Some(folder) = &config.data_dir else {
        return Ok(Arc::new(MemoryStores::default()));
    };
    let failed = |reason: String| StartError::DataDir {
        path: folder.clone(),
        reason,
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(error.to_string()))?;
    let stores = SledStores::open(&folder.join("store"), &config.prefix);
    Ok(Arc::new(stores.map_err(|error| failed(error.to_string()))?))
}

fn log_config(config: &RuntimeConfig, stage: StageKind, number: usize) -> KafkaLogConfig {
    KafkaLogConfig {
        client: config.client.clone(),
        prefix: config.prefix.clone(),
        stage,
        transactional_id: format!(
            "{}{}.{}.{number}",
            config.prefix,
            stage.name(),
            config.instance
        ),
        transaction_timeout: config.transaction_timeout,
        session_timeout: config.session_timeout,
        static_membership: config.static_membership,
    }
}

fn pattern_worker(
    config: &RuntimeConfig,
    log: Box<dyn Log>,
    definitions: &Arc<dyn DefinitionRegistry>,
    shared: &Arc<Shared>,
    tables: Arc<dyn Tables>,
) -> Worker<Patterns> {
    let number = config.workers.max(1);
    let of_loop = LoopConfig {
        number,
        batch_records: config.event_batch_records.max(1),
        batch_bytes: config.batch_bytes.max(1),
    };
    let topics = Topics::new(&config.prefix);
    let (definitions, shared) = (Arc::clone(definitions), Arc::clone(shared));
    let bounds = Bounds {
        max_depth: config.max_rule_depth,
        max_payload_bytes: config.max_payload_bytes,
        due_at_once: DUE_AT_ONCE,
    };
    let stage = Patterns::new(number, topics, definitions, shared, tables, bounds);
    Worker::of(of_loop, log, stage)
}

fn tables_of(config: &RuntimeConfig) -> Result<Arc<dyn Tables>, StartError> {
    let schemas = KnownSchemas::new(config.schemas.clone())
        .map_err(|error| StartError::Client(error.to_string()))?;
    Ok(Arc::new(FollowedTables::new(TableSettings {
        client: config.client.client_config(),
        max_bytes: config.table_bytes,
        wait: config.table_wait.into(),
        max_payload_bytes: config.max_payload_bytes,
        schemas: Arc::new(schemas),
    })))
}

fn worker_config(config: &RuntimeConfig, number: usize) -> WorkerConfig {
    WorkerConfig {
        number,
        topics: Topics::new(&config.prefix),
        batch_records: config.batch_records.max(1),
        batch_bytes: config.batch_bytes.max(1),
        max_payload_bytes: config.max_payload_bytes,
        max_concurrent_runs: config.max_concurrent_runs,
        park_for: config.park_for,
        retention: config.retention,
        cache_bytes: (config.cache_bytes / EXPECTED_PARTITIONS).max(LEAST_PARTITION_CACHE),
    }
}

fn drive<S: Stage>(mut worker: Worker<S>, stop: &AtomicBool) {
    let clock = SystemClock;
    let mut observed = Instant::now();
    while !stop.load(Ordering::Acquire) {
        let now = clock.now();
        let until_due = worker.next_due().map(|due| Duration::from(due.since(now)));
        let wait = until_due.map_or(IDLE_WAIT, |due| due.min(IDLE_WAIT));
        if let Stepped::Failed { retry_after } = worker.step(now, wait) {
            pause(retry_after, stop);
        }
        if observed.elapsed() >= OBSERVE_EVERY {
            observed = Instant::now();
            worker.observe();
        }
    }
    worker.leave();
}

/// An installation without rules reaches for no topic of the patterns.
fn drive_once_there_are_rules(
    worker: Worker<Patterns>,
    definitions: &dyn DefinitionRegistry,
    stop: &AtomicBool,
) {
    while definitions.rules().in_force.is_empty() {
        if stop.load(Ordering::Acquire) {
            return;
        }
        std::thread::sleep(IDLE_WAIT);
    }
    drive(worker, stop);
}

/// Sleeps, but not through a request to stop.
pub(super) fn pause(span: Duration, stop: &AtomicBool) {
    let until = Instant::now() + span;
    while !stop.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(IDLE_WAIT));
    }
}

fn write_behind(shared: &Shared, every: Duration, stop: &AtomicBool) {
    let mut round_began = Instant::now();
    while !stop.load(Ordering::Acquire) {
        pause(every, stop);
        let is_round_due = round_began.elapsed() >= REST_ROUND;
        if is_round_due {
            round_began = Instant::now();
        }
        let mut snapshot = meters::Snapshot::default();
        for partition in shared.partitions() {
            let began = Instant::now();
            match partition.write_behind() {
                Ok(entries) => meters::state_operation("write_behind", entries, began.elapsed()),
                Err(error) => {
                    tracing::error!(%error, partition = partition.number, "the store fails; it is left alone");
                }
            }
            if is_round_due {
                partition.rest();
            }
            let cache = partition.cache();
            snapshot.live += cache.live();
            snapshot.pending += cache.pending_count();
            snapshot.awaiting += cache.awaiting();
            snapshot.cache_bytes += cache.bytes();
        }
        snapshot.publish();
    }
}
