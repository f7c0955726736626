//! One worker: a log session and the partitions that it owns, moved on by [`Worker::step`]. No
//! thread and no clock of its own, so that the simulation drives this very code. What its partitions
//! hold, and what a batch does to them, is its [`Stage`]'s.
//!
//! A step polls; carries out changes of ownership; goes on with restoring; and turns what came in
//! and what fell due into one transaction ([`Stage::transact`]). Errors are met here: an abortable
//! one gives up the transaction and goes back to the committed positions; a fatal one makes a new
//! session, which reads committed positions and the tail of each changelog anew. What keeps a partition
//! from being restored is tried again, and holds up no other.
//!
//! From assigned to working: open what is kept of the partition, ask where the input begins, read the
//! changelog from there to its end. In that order: what the committed positions stand for lies below
//! an end that is asked for after them.

use std::collections::VecDeque;
use std::time::Duration;

use super::meters;
use super::recovery::{MAX_BACKOFF, Pace, Recover, TRY_AGAIN_AFTER, backoff, recover};
use super::stage::{Owned, OwnedPartition, Phase, Restoring, Stage};
use super::workflows::Workflows;
use crate::log::{ErrorClass, Log, LogError, OwnershipChange, PollLimits, Record};
use crate::model::Timestamp;

pub use super::stage::Stepped;
pub use super::workflows::WorkerConfig;

/// Bounds of one worker's loop.
#[derive(Clone, Copy, Debug)]
pub struct LoopConfig {
    /// Its place among the workers of the stage, for logs.
    pub number: usize,
    /// Records and bytes of one batch; the first record is always taken.
    pub batch_records: usize,
    pub batch_bytes: usize,
}

/// See the module.
pub struct Worker<S: Stage = Workflows> {
    config: LoopConfig,
    log: Box<dyn Log>,
    stage: S,
    owned: Owned<S::Partition>,
    is_connected: bool,
    /// Whether the group has given this member its share since it joined, be it nothing.
    has_share: bool,
    records: Vec<Record>,
    failures: u32,
    pace: Pace,
    /// Another took its place: it does nothing any more.
    is_retired: bool,
    put_off: PutOff,
}

/// Partitions that could not be moved on, as where a transaction of a predecessor that died is still open:
/// that holds up no other partition.
#[derive(Default)]
struct PutOff {
    /// The next to be tried first.
    numbers: VecDeque<i32>,
    /// `None`: not said yet since one was put off.
    until: Option<Timestamp>,
}

impl PutOff {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// A step begins: time counts from the end of the one before, which may have taken long.
    fn note_step(&mut self, now: Timestamp) {
        self.until.get_or_insert(now + TRY_AGAIN_AFTER);
    }

    /// Whether they are to be tried. A clock that was set back is not to make it last.
    fn is_over(&self, now: Timestamp) -> bool {
        let is_waiting = |until: Timestamp| now < until && until <= now + TRY_AGAIN_AFTER;
        !self.until.is_some_and(is_waiting)
    }

    fn add(&mut self, number: i32) {
        self.remove(number);
        self.numbers.push_back(number);
        self.until = None;
    }

    fn remove(&mut self, number: i32) {
        self.numbers.retain(|known| *known != number);
    }
}

impl<S: Stage> Worker<S> {
    pub fn of(config: LoopConfig, log: Box<dyn Log>, stage: S) -> Self {
        Self {
            config,
            log,
            stage,
            owned: Owned::new(),
            is_connected: false,
            has_share: false,
            records: Vec::new(),
            failures: 0,
            pace: Pace::default(),
            is_retired: false,
            put_off: PutOff::default(),
        }
    }

    /// Does what there is to do at `now`; waits at most `wait` for input where nothing else is
    /// to be done.
    pub fn step(&mut self, now: Timestamp, wait: Duration) -> Stepped {
        if self.is_retired {
            return Stepped::Failed {
                retry_after: MAX_BACKOFF,
            };
        }
        match self.try_step(now, wait) {
            Ok(applied) => {
                if std::mem::take(&mut self.failures) > 0 && self.put_off.is_empty() {
                    let waiting = "waiting for a share of the partitions".to_owned();
                    self.stage.set_trouble((!self.has_share).then_some(waiting));
                }
                match applied {
                    0 if self.is_settled() => Stepped::Idle,
                    applied => Stepped::Worked(applied),
                }
            }
            Err(error) => self.recover(error),
        }
    }

    /// When there is something to do though no record comes.
    pub fn next_due(&self) -> Option<Timestamp> {
        let working = self.owned.values().filter_map(OwnedPartition::working);
        working
            .filter_map(|partition| self.stage.next_due(partition))
            .min()
    }

    /// Leaves the group and gives up its partitions. What is not committed was never done.
    pub fn leave(&mut self) {
        self.log.leave();
        self.is_connected = false;
        self.has_share = false;
        for (number, owned) in std::mem::take(&mut self.owned) {
            self.stage.give_up(number, owned.partition);
        }
    }

    /// Ends a worker that panicked. What it holds may be half-changed, so nothing of it is written or told:
    /// its partitions are let go, and dropping the session leaves the group.
    pub fn forsake(mut self, reason: String) {
        self.stage.set_trouble(Some(reason));
        for number in std::mem::take(&mut self.owned).into_keys() {
            self.stage.forsake(number);
        }
    }

    /// Tells how far behind the partitions are, and whether the brokers are away: while there is
    /// nothing to do, no failure would.
    pub fn observe(&self) {
        let outage = self.is_connected.then(|| self.log.outage()).flatten();
        if self.failures == 0 && self.put_off.is_empty() && (self.has_share || outage.is_some()) {
            self.stage.set_trouble(outage);
        }
        for (number, owned) in &self.owned {
            if let Some(partition) = &owned.partition {
                let behind = self.log.lag(*number, owned.positions);
                self.stage.observe(*number, partition, behind);
            }
        }
    }

    fn is_settled(&self) -> bool {
        let mut owned = self.owned.values();
        owned.all(|owned| matches!(owned.phase, Phase::Working))
    }

    /// Whether a partition can be moved on without waiting for anybody.
    fn is_restoring(&self, now: Timestamp) -> bool {
        let numbers = self.to_move_on(now).into_iter();
        let mut owned = numbers.filter_map(|number| self.owned.get(&number));
        owned.any(|owned| matches!(owned.phase, Phase::Opening | Phase::Restoring(_)))
    }

    /// The partitions that do not work yet; behind the others those that were put off, once it is time.
    fn to_move_on(&self, now: Timestamp) -> Vec<i32> {
        let is_put_off = |number: &i32| self.put_off.numbers.contains(number);
        let waiting = self.owned.iter().filter(|(number, owned)| {
            !matches!(owned.phase, Phase::Working) && !is_put_off(number)
        });
        let mut numbers: Vec<i32> = waiting.map(|(number, _)| *number).collect();
        if self.put_off.is_over(now) {
            numbers.extend(&self.put_off.numbers);
        }
        numbers
    }

    fn try_step(&mut self, now: Timestamp, wait: Duration) -> Result<usize, LogError> {
        self.put_off.note_step(now);
        if !self.is_connected {
            self.connect()?;
        }
        let has_due = self.next_due().is_some_and(|due| due <= now);
        let wait = if has_due || self.is_restoring(now) {
            Duration::ZERO
        } else {
            wait
        };
        let limits = PollLimits {
            wait,
            records: self.pace.of(self.config.batch_records),
            bytes: self.pace.of(self.config.batch_bytes),
        };
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        let changes = self.log.poll(limits, &mut records)?;
        let had_share = self.has_share;
        for change in changes {
            self.change_ownership(change);
        }
        let is_working = |record: &Record| {
            let owned = self.owned.get(&record.partition);
            owned.is_some_and(|owned| owned.working().is_some())
        };
        records.retain(is_working);
        let restored = self.go_on_restoring(now)?;
        if self.has_share && !had_share && self.put_off.is_empty() {
            self.stage.set_trouble(None);
        }
        records.sort_by_key(|record| record.partition);
        let (log, owned) = (self.log.as_mut(), &mut self.owned);
        let transacted = (self.stage).transact(log, owned, &records, now, &mut self.pace);
        let applied = transacted.inspect_err(|_| self.pace.note_failure())?;
        self.records = records;
        Ok(applied + restored)
    }

    fn connect(&mut self) -> Result<(), LogError> {
        self.log.connect()?;
        let partitions = self.log.partitions();
        self.stage.connected(partitions);
        self.is_connected = true;
        tracing::info!(
            worker = self.config.number,
            partitions,
            "connected to the brokers"
        );
        Ok(())
    }

    fn change_ownership(&mut self, change: OwnershipChange) {
        meters::rebalanced();
        self.has_share |= matches!(change, OwnershipChange::Assigned(_));
        match change {
            // The end of a rebalance that brings nothing.
            OwnershipChange::Assigned(numbers) if numbers.is_empty() => {}
            OwnershipChange::Assigned(numbers) => {
                tracing::info!(worker = self.config.number, partitions = ?numbers, "assigned");
                for number in numbers {
                    self.owned.insert(number, OwnedPartition::default());
                }
            }
            OwnershipChange::Revoked(numbers) => {
                tracing::info!(worker = self.config.number, partitions = ?numbers, "revoked");
                for number in numbers {
                    if let Some(owned) = self.owned.remove(&number) {
                        self.stage.give_up(number, owned.partition);
                    }
                }
            }
        }
    }

    /// Moves each partition that is not working yet on by a piece; how many pieces.
    fn go_on_restoring(&mut self, now: Timestamp) -> Result<usize, LogError> {
        let had_trouble = !self.put_off.is_empty();
        let owned = &self.owned;
        self.put_off.numbers.retain(|number| {
            let owned = owned.get(number);
            owned.is_some_and(|owned| !matches!(owned.phase, Phase::Working))
        });
        let waiting = self.to_move_on(now);
        for &number in &waiting {
            match self.move_on(number, now) {
                Err(error) if error.class == ErrorClass::Retriable => {
                    tracing::warn!(
                        worker = self.config.number, partition = number, %error,
                        "cannot take a partition up yet"
                    );
                    self.stage.set_trouble(Some(error.to_string()));
                    self.put_off.add(number);
                    break;
                }
                moved => moved?,
            }
            self.put_off.remove(number);
        }
        if had_trouble && self.put_off.is_empty() {
            self.stage.set_trouble(None);
        }
        Ok(waiting.len())
    }

    fn move_on(&mut self, number: i32, now: Timestamp) -> Result<(), LogError> {
        let Some(owned) = self.owned.get_mut(&number) else {
            return Ok(());
        };
        match std::mem::replace(&mut owned.phase, Phase::Opening) {
            Phase::Held | Phase::Opening => self.open(number),
            Phase::Restoring(restoring) => self.restore(number, restoring, now),
            // Those that are to be moved on do not work.
            Phase::Working => Ok(()),
        }
    }

    fn open(&mut self, number: i32) -> Result<(), LogError> {
        let Some(owned) = self.owned.get_mut(&number) else {
            return Ok(());
        };
        let known = owned.partition.take();
        let cluster = self.log.cluster();
        let Some(mut partition) = self.stage.open(number, cluster, known) else {
            owned.phase = Phase::Held;
            return Ok(());
        };
        let from = self.stage.changelog_offset(&partition);
        let began = self.log.committed(number).and_then(|positions| {
            let reader = self.log.changelog(number, from)?;
            Ok(Restoring { reader, positions })
        });
        meters::records_lost(&self.log.take_lost());
        if let Ok(restoring) = &began {
            if restoring.reader.position() < from {
                tracing::warn!(
                    partition = number,
                    from,
                    "the store is of another changelog; rebuilding"
                );
                partition = self.stage.open_empty(number, self.log.cluster(), partition);
            }
            self.stage.restoring(number, &partition);
        }
        owned.partition = Some(partition);
        owned.phase = Phase::Restoring(began?);
        Ok(())
    }

    fn restore(
        &mut self,
        number: i32,
        mut restoring: Restoring,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let Some(owned) = self.owned.get_mut(&number) else {
            return Ok(());
        };
        let Some(partition) = &mut owned.partition else {
            return Ok(());
        };
        let progress = self
            .stage
            .replay(number, partition, restoring.reader.as_mut())?;
        meters::restoring(number, progress.remaining);
        if !progress.done {
            owned.phase = Phase::Restoring(restoring);
            return Ok(());
        }
        self.stage.restored(number, partition, now)?;
        self.log.start(number, restoring.positions)?;
        owned.positions = restoring.positions;
        owned.phase = Phase::Working;
        Ok(())
    }

    fn recover(&mut self, error: LogError) -> Stepped {
        self.failures = self.failures.saturating_add(1);
        let retry_after = backoff(self.failures);
        match error.class {
            ErrorClass::Replaced => {
                tracing::error!(worker = self.config.number, %error, "giving up for good");
            }
            class => tracing::warn!(
                worker = self.config.number, %error, ?class, attempt = self.failures,
                retry_ms = retry_after.as_millis() as u64, "trying again"
            ),
        }
        self.stage.set_trouble(Some(error.to_string()));
        recover(self, error.class);
        Stepped::Failed { retry_after }
    }
}

impl<S: Stage> Recover for Worker<S> {
    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn go_back(&mut self) -> Result<(), LogError> {
        self.log.abort()?;
        for (number, owned) in &mut self.owned {
            let Some(partition) = owned.working() else {
                continue;
            };
            if self.stage.survives_abort(partition) {
                self.log.start(*number, owned.positions)?;
            } else {
                owned.phase = Phase::Opening;
            }
        }
        Ok(())
    }

    fn lose_session(&mut self) {
        self.is_connected = false;
        for (number, owned) in &mut self.owned {
            owned.phase = Phase::Opening;
            if let Some(partition) = &owned.partition {
                self.stage.session_lost(*number, partition);
            }
        }
    }

    fn retire(&mut self) {
        self.leave();
        self.is_retired = true;
    }
}
