//! One worker: a log session and the partitions that it owns, moved on by [`Worker::step`]. No
//! thread and no clock of its own, so that the simulation drives this very code.
//!
//! A step polls; carries out changes of ownership; goes on with restoring; and turns what came in
//! and what fell due into one transaction (`transaction`). Errors are met here: an abortable one
//! gives up the transaction and goes back to the committed positions; a fatal one makes a new
//! session, which reads committed positions and the tail of each changelog anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::handle::{DefinitionRegistry, SubmitError};
use super::meters;
use super::partition::Partition;
use super::restore::Restoring;
use super::shared::Shared;
use super::sweep::Sweep;
use crate::engine::{Engine, EngineConfig};
use crate::log::{
    ErrorClass, Log, LogError, OwnershipChange, PollLimits, Positions, Record, Source, Topics,
};
use crate::model::{Millis, Timestamp};
use crate::store::Stores;

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

/// Longest wait between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A partition and how far it is.
pub(super) struct Owned {
    pub partition: Option<Arc<Partition>>,
    pub phase: Phase,
    /// Next offsets to read, as committed.
    pub positions: Positions,
    pub sweep: Sweep,
}

pub(super) enum Phase {
    /// Another worker of this instance has not given it up yet.
    Held,
    /// To be opened, or read again after a lost session.
    Opening,
    Restoring(Restoring),
    Working,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Something moved; so many inputs were applied.
    Worked(usize),
    /// Nothing was there to do.
    Idle,
    /// Something failed; try again after this.
    Failed { retry_after: Duration },
}

/// See the module.
pub struct Worker {
    pub(super) config: WorkerConfig,
    pub(super) log: Box<dyn Log>,
    pub(super) stores: Arc<dyn Stores>,
    pub(super) definitions: Arc<dyn DefinitionRegistry>,
    pub(super) shared: Arc<Shared>,
    pub(super) engine: Option<Engine>,
    pub(super) owned: BTreeMap<i32, Owned>,
    is_connected: bool,
    records: Vec<Record>,
    failures: u32,
}

impl Worker {
    pub fn new(
        config: WorkerConfig,
        log: Box<dyn Log>,
        stores: Arc<dyn Stores>,
        definitions: Arc<dyn DefinitionRegistry>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            config,
            log,
            stores,
            definitions,
            shared,
            engine: None,
            owned: BTreeMap::new(),
            is_connected: false,
            records: Vec::new(),
            failures: 0,
        }
    }

    /// Does what there is to do at `now`; waits at most `wait` for input where nothing else is
    /// to be done.
    pub fn step(&mut self, now: Timestamp, wait: Duration) -> Stepped {
        match self.try_step(now, wait) {
            Ok(applied) => {
                if self.failures > 0 {
                    self.failures = 0;
                    self.shared.set_trouble(self.config.number, None);
                }
                match applied {
                    0 if self.is_settled() => Stepped::Idle,
                    applied => Stepped::Worked(applied),
                }
            }
            Err(error) => self.recover(error),
        }
    }

    /// When a timer falls due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.working()
            .filter_map(|(_, partition)| partition.cache().next_due())
            .min()
    }

    /// Leaves the group and writes the store. What is not committed was never done.
    pub fn leave(&mut self) {
        self.log.leave();
        self.is_connected = false;
        let numbers: Vec<i32> = self.owned.keys().copied().collect();
        for number in numbers {
            self.give_up(number);
        }
    }

    /// Tells how far behind the partitions are, and whether the brokers are away: while there is
    /// nothing to do, no failure would.
    pub fn observe(&self) {
        if self.is_connected && self.failures == 0 {
            let outage = self.log.outage();
            self.shared.set_trouble(self.config.number, outage);
        }
        for (number, owned) in &self.owned {
            if let Some(partition) = &owned.partition {
                let behind = self.log.lag(*number, owned.positions);
                partition.set_lag(behind[0] + behind[1]);
                for source in Source::BOTH {
                    meters::lag(
                        self.config.topics.of(source),
                        *number,
                        behind[source.index()],
                    );
                }
            }
        }
    }

    fn is_settled(&self) -> bool {
        self.owned
            .values()
            .all(|owned| matches!(owned.phase, Phase::Working))
    }

    /// Whether a partition can be moved on without waiting for anybody.
    fn is_restoring(&self) -> bool {
        self.owned
            .values()
            .any(|owned| matches!(owned.phase, Phase::Opening | Phase::Restoring(_)))
    }

    /// Partitions that are restored.
    pub(super) fn working(&self) -> impl Iterator<Item = (i32, &Arc<Partition>)> {
        self.owned
            .iter()
            .filter_map(|(number, owned)| match (&owned.phase, &owned.partition) {
                (Phase::Working, Some(partition)) => Some((*number, partition)),
                _ => None,
            })
    }

    fn try_step(&mut self, now: Timestamp, wait: Duration) -> Result<usize, LogError> {
        if !self.is_connected {
            self.connect()?;
        }
        let has_due = self.next_due().is_some_and(|due| due <= now);
        let wait = if has_due || self.is_restoring() {
            Duration::ZERO
        } else {
            wait
        };
        let limits = PollLimits {
            wait,
            records: self.config.batch_records,
            bytes: self.config.batch_bytes,
        };
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let polled = self.log.poll(limits, &mut records);
        for change in polled? {
            self.change_ownership(change);
        }
        let is_working = |record: &Record| {
            let owned = self.owned.get(&record.partition);
            owned.is_some_and(|owned| matches!(owned.phase, Phase::Working))
        };
        records.retain(is_working);
        let restored = self.go_on_restoring(now)?;
        let applied = self.transact(&mut records, now)?;
        self.records = records;
        Ok(applied + restored)
    }

    fn connect(&mut self) -> Result<(), LogError> {
        self.log.connect()?;
        let partitions = self.log.partitions();
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
        self.is_connected = true;
        self.shared.set_trouble(self.config.number, None);
        tracing::info!(
            worker = self.config.number,
            partitions,
            "connected to the brokers"
        );
        Ok(())
    }

    fn change_ownership(&mut self, change: OwnershipChange) {
        meters::rebalanced();
        match change {
            // The end of a rebalance that brings nothing.
            OwnershipChange::Assigned(numbers) if numbers.is_empty() => {}
            OwnershipChange::Assigned(numbers) => {
                tracing::info!(worker = self.config.number, partitions = ?numbers, "assigned");
                for number in numbers {
                    let owned = Owned {
                        partition: None,
                        phase: Phase::Opening,
                        positions: Positions::default(),
                        sweep: Sweep::default(),
                    };
                    self.owned.insert(number, owned);
                }
            }
            OwnershipChange::Revoked(numbers) => {
                tracing::info!(worker = self.config.number, partitions = ?numbers, "revoked");
                for number in numbers {
                    self.give_up(number);
                }
            }
        }
    }

    fn give_up(&mut self, number: i32) {
        let Some(owned) = self.owned.remove(&number) else {
            return;
        };
        if !self.shared.is_held_by(number, self.config.number) {
            return;
        }
        self.shared.remove_partition(number);
        for source in Source::BOTH {
            meters::lag(self.config.topics.of(source), number, 0);
        }
        meters::restoring(number, 0);
        // Whoever opens the store next, perhaps this instance, finds it as far as it can be.
        if let Some(Err(error)) = owned.partition.map(|partition| partition.write_behind()) {
            tracing::warn!(%error, partition = number, "the store is left behind");
        }
        self.shared.release(number);
    }

    fn recover(&mut self, error: LogError) -> Stepped {
        self.failures = self.failures.saturating_add(1);
        let retry_after = Duration::from_millis(10 << self.failures.min(9)).min(MAX_BACKOFF);
        tracing::warn!(
            worker = self.config.number, %error, class = ?error.class, attempt = self.failures,
            retry_ms = retry_after.as_millis() as u64, "trying again"
        );
        self.shared
            .set_trouble(self.config.number, Some(error.to_string()));
        match error.class {
            ErrorClass::Retriable if !self.is_connected => {}
            ErrorClass::Retriable | ErrorClass::Abortable => {
                meters::aborted("abortable");
                if let Err(error) = self.go_back() {
                    tracing::warn!(%error, "cannot go back; making a new session");
                    self.lose_session();
                }
            }
            ErrorClass::Fatal => {
                meters::aborted("fatal");
                self.lose_session();
            }
        }
        Stepped::Failed { retry_after }
    }

    /// Gives up the open transaction and reads its input again.
    fn go_back(&mut self) -> Result<(), LogError> {
        self.log.abort()?;
        let working: Vec<(i32, Positions)> = self
            .owned
            .iter()
            .filter(|(_, owned)| matches!(owned.phase, Phase::Working))
            .map(|(number, owned)| (*number, owned.positions))
            .collect();
        for (number, positions) in working {
            self.log.start(number, positions)?;
        }
        Ok(())
    }

    /// Nobody knows how the last transaction ended: committed positions and the tail of each
    /// changelog will tell.
    fn lose_session(&mut self) {
        self.is_connected = false;
        for (number, owned) in &mut self.owned {
            owned.phase = Phase::Opening;
            let Some(partition) = &owned.partition else {
                continue;
            };
            partition.set_restored(false);
            let unknown = SubmitError::Broker("the session was lost; ask again".to_owned());
            self.shared.fail_requests(*number, &unknown);
        }
    }
}
