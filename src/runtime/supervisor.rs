//! The threads of an instance: one for each worker, and one that writes the stores behind them.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::handle::{DefinitionRegistry, RuntimeConfig, StartError};
use super::intake::schemas::KnownSchemas;
use super::meters;
use super::partition::Partition;
use super::patterns::{Bounds, Patterns};
use super::recovery::backoff;
use super::shared::Shared;
use super::stage::Stage;
use super::tables::Tables;
use super::tables::followed::{FollowedTables, TableSettings};
use super::worker::{LoopConfig, Stepped, Worker, WorkerConfig};
use crate::clock::{Clock, SystemClock};
use crate::log::kafka::places::PlaceReader;
use crate::log::kafka::{KafkaLog, KafkaLogConfig};
use crate::log::{StageKind, Topics};
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

/// What falls due for rules in one transaction, at most, or comes of events: some megabytes of state and
/// matches.
const AT_ONCE: usize = 20_000;

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
            let make = {
                let (config, stores) = (config.clone(), Arc::clone(&stores));
                let (definitions, shared) = (Arc::clone(definitions), Arc::clone(shared));
                move || workflow_worker(&config, number, &stores, &definitions, &shared)
            };
            let worker = make()?;
            let stop = Arc::clone(&supervisor.stop);
            shared.set_trouble(number, Some("joining the other workers".to_owned()));
            supervisor.spawn(format!("partita-worker-{number}"), move || {
                keep_driving(worker, make, &stop);
            })?;
        }
        let make = {
            let config = config.clone();
            let (definitions, shared) = (Arc::clone(definitions), Arc::clone(shared));
            move || pattern_worker(&config, &definitions, &shared)
        };
        let patterns = make()?;
        let (stop, rules) = (Arc::clone(&supervisor.stop), Arc::clone(definitions));
        supervisor.spawn("partita-patterns".to_owned(), move || {
            if wait_for_rules(rules.as_ref(), &stop) {
                keep_driving(patterns, make, &stop);
            }
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

fn workflow_worker(
    config: &RuntimeConfig,
    number: usize,
    stores: &Arc<dyn Stores>,
    definitions: &Arc<dyn DefinitionRegistry>,
    shared: &Arc<Shared>,
) -> Result<Worker, StartError> {
    let log = KafkaLog::new(log_config(config, StageKind::Workflows, number))
        .map_err(|error| StartError::Client(error.to_string()))?;
    Ok(Worker::new(
        worker_config(config, number),
        Box::new(log),
        Arc::clone(stores),
        Arc::clone(definitions),
        Arc::clone(shared),
    ))
}

fn pattern_worker(
    config: &RuntimeConfig,
    definitions: &Arc<dyn DefinitionRegistry>,
    shared: &Arc<Shared>,
) -> Result<Worker<Patterns>, StartError> {
    let log = KafkaLog::new(log_config(config, StageKind::Patterns, 0))
        .map_err(|error| StartError::Client(error.to_string()))?;
    let tables = tables_of(config)?;
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
        at_once: AT_ONCE,
    };
    let originals = Box::new(PlaceReader::new(config.client.clone()));
    let stage = Patterns::new(
        number,
        topics,
        definitions,
        shared,
        tables,
        originals,
        bounds,
    );
    Ok(Worker::of(of_loop, Box::new(log), stage))
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

/// A worker with a thread to itself.
pub(super) trait Driven {
    /// Works until it is to stop, and leaves.
    fn drive(&mut self, stop: &AtomicBool);
    /// Ends one that panicked: nothing of what it holds is used again.
    fn forsake(self, reason: String);
}

impl<S: Stage> Driven for Worker<S> {
    fn drive(&mut self, stop: &AtomicBool) {
        drive(self, stop);
    }

    fn forsake(self, reason: String) {
        self.forsake(reason);
    }
}

/// Drives a worker until it is to stop. What a panic left half-changed is not used again: the worker goes,
/// with its session and its partitions, and another takes its place after a pause, which grows with every
/// panic.
pub(super) fn keep_driving<W: Driven, E: Display>(
    mut worker: W,
    make: impl Fn() -> Result<W, E>,
    stop: &AtomicBool,
) {
    let mut panics = 0;
    while let Err(panic) = catch_unwind(AssertUnwindSafe(|| worker.drive(stop))) {
        panics += 1;
        let retry_after = backoff(panics);
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let said = words_of(panic.as_ref());
        tracing::error!(
            worker = name,
            reason = said,
            panics,
            retry_ms = retry_after.as_millis() as u64,
            "a worker panicked; another takes its place"
        );
        meters::aborted("panic");
        let reason = format!("{name} panicked and is started again: {said}");
        if catch_unwind(AssertUnwindSafe(|| worker.forsake(reason))).is_err() {
            tracing::error!(worker = name, "giving up its partitions panicked as well");
        }
        worker = loop {
            pause(retry_after, stop);
            match make() {
                Ok(successor) => break successor,
                Err(_) if stop.load(Ordering::Acquire) => return,
                Err(error) => tracing::error!(worker = name, %error, "no worker can be made"),
            }
        };
    }
}

/// What a panic says for people.
pub(super) fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("it says nothing")
}

fn drive<S: Stage>(worker: &mut Worker<S>, stop: &AtomicBool) {
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

/// An installation without rules reaches for no topic of the patterns; `false`: it is to stop.
fn wait_for_rules(definitions: &dyn DefinitionRegistry, stop: &AtomicBool) -> bool {
    while !definitions.has_rules() {
        if stop.load(Ordering::Acquire) {
            return false;
        }
        std::thread::sleep(IDLE_WAIT);
    }
    true
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
            let tended = AssertUnwindSafe(|| tend_store(&partition, is_round_due));
            if let Err(panic) = catch_unwind(tended) {
                tracing::error!(
                    reason = words_of(panic.as_ref()),
                    partition = partition.number,
                    "writing the store panicked; the partition is read again from its changelog"
                );
                partition.abandon();
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

/// Writes what is new to the store, and lets runs rest where that is due.
fn tend_store(partition: &Partition, is_round_due: bool) {
    let began = Instant::now();
    match partition.write_behind() {
        Ok(entries) => meters::state_operation("write_behind", entries, began.elapsed()),
        Err(error) => {
            tracing::error!(
                %error, partition = partition.number,
                "the store fails; the partition is read again from its changelog"
            );
        }
    }
    if is_round_due {
        partition.rest();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::keys::EntryKey;
    use crate::model::RunId;
    use crate::runtime::partition::Change;
    use crate::store::{Store, StoreChange, StoreError};

    struct Panicking;

    impl Store for Panicking {
        fn get(&self, _: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
            Ok(None)
        }

        fn offset(&self) -> Result<i64, StoreError> {
            Ok(0)
        }

        fn apply(&self, _: &[StoreChange], _: i64) -> Result<(), StoreError> {
            panic!("a bug of the store")
        }

        fn scan(
            &self,
            _: Option<&[u8]>,
            _: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), StoreError> {
            Ok(())
        }

        fn clear(&self) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[test]
    fn a_panic_over_a_store_costs_its_partition_alone() {
        let shared = Shared::new("test");
        let stores: [Arc<dyn Store>; 2] = [
            Arc::new(Panicking),
            Arc::new(crate::store::memory::MemoryStore::default()),
        ];
        for (number, store) in stores.into_iter().enumerate() {
            let partition = Partition::open(number as i32, store, 1 << 20).unwrap();
            let gone = EntryKey::Run(RunId::parse("run").unwrap());
            partition.fold(vec![Change::Gone(gone)], 7);
            shared.add_partition(Arc::new(partition));
        }
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| write_behind(&shared, Duration::from_millis(1), &stop));
            let [broken, sound] = [0, 1].map(|number| shared.partition(number).unwrap());
            while !broken.is_abandoned() || sound.store().offset().unwrap() < 7 {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!broken.is_restored() && !sound.is_abandoned());
            stop.store(true, Ordering::Release);
        });
    }
}
