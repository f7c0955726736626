//! A log that fails where the schedule says, and breaks rules where a test asks for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use partita::log::memory::{Cluster, MemoryLog, TopicKey};
use partita::log::{
    ChangelogPositions, ChangelogReader, ChangelogRecord, ErrorClass, Log, LogError, Outgoing,
    OwnershipChange, PollLimits, Positions, Record, RestoreProgress, StageKind, Target,
};
use partita::store::memory::MemoryStores;
use partita::store::{StoreChange, Stores};

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    None,
    PositionsOutside,
    ChangelogOutside,
    RestoreUncommitted,
    RestoreTooShort,
    NoWayBack,
    StoreAhead,
}

/// Where a fault may strike: before or after a call takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Point {
    /// A partition is being restored.
    BeforeCommitted,
    BeforeBegin,
    BeforeSend,
    AfterSend,
    BeforeSettle,
    AfterSettle,
    BeforeOffsets,
    AfterOffsets,
    BeforeCommit,
    AfterCommit,
    BeforeAbort,
}

impl Point {
    pub const ALL: [Point; 11] = [
        Point::BeforeCommitted,
        Point::BeforeBegin,
        Point::BeforeSend,
        Point::AfterSend,
        Point::BeforeSettle,
        Point::AfterSettle,
        Point::BeforeOffsets,
        Point::AfterOffsets,
        Point::BeforeCommit,
        Point::AfterCommit,
        Point::BeforeAbort,
    ];
}

/// What strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies there.
    Crash,
    /// The call fails.
    Error(ErrorClass),
}

/// What is to happen to one instance, shared with its log.
#[derive(Default)]
pub struct Plan {
    /// Each strikes once.
    pub armed: Vec<(Point, Fault)>,
    /// Its place in the group.
    pub member: Option<u64>,
    /// The process is dead: nothing it does has any effect.
    pub crashed: bool,
    /// Faults that struck, by place.
    pub struck: Vec<(Point, Fault)>,
    /// Records that the brokers take in one transaction, at most; beyond it fails.
    pub most: Option<usize>,
}

pub struct FaultyLog {
    inner: MemoryLog,
    cluster: Cluster,
    plan: Arc<Mutex<Plan>>,
    sabotage: Sabotage,
    /// Changelog positions that went past the transaction.
    outside: BTreeMap<i32, i64>,
    started: Vec<i32>,
    disk: Arc<MemoryStores>,
    /// What goes to the disk before its time.
    ahead: BTreeMap<i32, Vec<StoreChange>>,
    /// Records of the transaction.
    sent: usize,
}

impl FaultyLog {
    pub fn new(
        cluster: Cluster,
        id: &str,
        plan: Arc<Mutex<Plan>>,
        disk: Arc<MemoryStores>,
        sabotage: Sabotage,
    ) -> Self {
        Self::of_stage(StageKind::Workflows, cluster, id, plan, disk, sabotage)
    }

    pub fn of_stage(
        stage: StageKind,
        cluster: Cluster,
        id: &str,
        plan: Arc<Mutex<Plan>>,
        disk: Arc<MemoryStores>,
        sabotage: Sabotage,
    ) -> Self {
        let inner = MemoryLog::of_stage(stage, cluster.clone(), id);
        Self {
            inner,
            cluster,
            plan,
            sabotage,
            outside: BTreeMap::new(),
            started: Vec::new(),
            disk,
            ahead: BTreeMap::new(),
            sent: 0,
        }
    }

    fn strike(&self, point: Point) -> Result<(), LogError> {
        let mut plan = self.plan.lock().unwrap();
        let dead = LogError {
            class: ErrorClass::Fatal,
            doing: "being dead",
            reason: "crashed".into(),
        };
        if plan.crashed {
            return Err(dead);
        }
        match plan.armed.iter().position(|(armed, _)| *armed == point) {
            Some(place) => {
                let (_, fault) = plan.armed.remove(place);
                plan.struck.push((point, fault));
                match fault {
                    Fault::Crash => {
                        plan.crashed = true;
                        Err(dead)
                    }
                    Fault::Error(class) => Err(LogError {
                        class,
                        doing: "being unlucky",
                        reason: format!("{point:?}"),
                    }),
                }
            }
            None => Ok(()),
        }
    }

    fn check_alive(&self) -> Result<(), LogError> {
        let crashed = self.plan.lock().unwrap().crashed;
        match crashed {
            true => Err(LogError {
                class: ErrorClass::Fatal,
                doing: "being dead",
                reason: "crashed".into(),
            }),
            false => Ok(()),
        }
    }
}

impl FaultyLog {
    /// Writes the changelog of an open transaction to the disk.
    fn write_ahead(&mut self, positions: &ChangelogPositions) {
        for (partition, changes) in std::mem::take(&mut self.ahead) {
            let next = positions.iter().find(|(number, _)| *number == partition);
            let store = self.disk.open("memory", partition);
            if let Some((_, next)) = next {
                let written = store.and_then(|store| store.apply(&changes, *next));
                written.expect("a store in memory does not fail");
            }
        }
    }
}

impl Log for FaultyLog {
    fn connect(&mut self) -> Result<(), LogError> {
        self.check_alive()?;
        self.inner.connect()?;
        self.plan.lock().unwrap().member = self.inner.member();
        Ok(())
    }

    fn cluster(&self) -> &str {
        self.inner.cluster()
    }

    fn partitions(&self) -> i32 {
        self.inner.partitions()
    }

    fn poll(
        &mut self,
        limits: PollLimits,
        records: &mut Vec<Record>,
    ) -> Result<Vec<OwnershipChange>, LogError> {
        self.check_alive()?;
        let changes = self.inner.poll(limits, records)?;
        self.plan.lock().unwrap().member = self.inner.member();
        for change in &changes {
            if let OwnershipChange::Revoked(partitions) = change {
                self.started
                    .retain(|partition| !partitions.contains(partition));
            }
        }
        Ok(changes)
    }

    fn committed(&mut self, partition: i32) -> Result<Positions, LogError> {
        self.strike(Point::BeforeCommitted)?;
        self.inner.committed(partition)
    }

    fn changelog(
        &mut self,
        partition: i32,
        from: i64,
    ) -> Result<Box<dyn ChangelogReader>, LogError> {
        self.check_alive()?;
        let inner = self.inner.changelog(partition, from)?;
        let (cluster, sabotage) = (self.cluster.clone(), self.sabotage);
        match sabotage {
            Sabotage::RestoreUncommitted | Sabotage::RestoreTooShort => {
                Ok(Box::new(BrokenReader {
                    cluster,
                    partition,
                    position: inner.position(),
                    sabotage,
                }))
            }
            _ => Ok(inner),
        }
    }

    fn start(&mut self, partition: i32, from: Positions) -> Result<(), LogError> {
        self.check_alive()?;
        let again = self.started.contains(&partition);
        self.started.push(partition);
        if again && self.sabotage == Sabotage::NoWayBack {
            return Ok(());
        }
        self.inner.start(partition, from)
    }

    fn begin(&mut self) -> Result<(), LogError> {
        self.strike(Point::BeforeBegin)?;
        self.outside.clear();
        self.ahead.clear();
        self.sent = 0;
        self.inner.begin()
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.strike(Point::BeforeSend)?;
        self.sent += 1;
        let most = self.plan.lock().unwrap().most;
        if most.is_some_and(|most| self.sent > most) {
            return Err(LogError {
                class: ErrorClass::Abortable,
                doing: "sending",
                reason: format!("no answer to record {}", self.sent),
            });
        }
        if let Target::State(partition) = record.target
            && self.sabotage == Sabotage::StoreAhead
        {
            let key = record.key.unwrap_or_default().to_vec();
            let change = (key, record.value.map(Arc::from));
            self.ahead.entry(partition).or_default().push(change);
        }
        match record.target {
            Target::State(partition) if self.sabotage == Sabotage::ChangelogOutside => {
                let offset = self.cluster.produce(
                    TopicKey::State,
                    partition,
                    record.key,
                    record.value,
                    Vec::new(),
                );
                self.outside.insert(partition, offset + 1);
            }
            _ => self.inner.send(record)?,
        }
        self.strike(Point::AfterSend)
    }

    fn settle(&mut self) -> Result<ChangelogPositions, LogError> {
        self.strike(Point::BeforeSettle)?;
        let mut positions = self.inner.settle()?;
        positions.extend(std::mem::take(&mut self.outside));
        self.write_ahead(&positions);
        self.strike(Point::AfterSettle)?;
        Ok(positions)
    }

    fn send_offsets(&mut self, positions: &[(i32, Positions)]) -> Result<(), LogError> {
        self.strike(Point::BeforeOffsets)?;
        match self.sabotage {
            Sabotage::PositionsOutside => self.cluster.commit_outside(positions),
            _ => self.inner.send_offsets(positions)?,
        }
        self.strike(Point::AfterOffsets)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        self.strike(Point::BeforeCommit)?;
        self.inner.commit()?;
        self.strike(Point::AfterCommit)
    }

    fn abort(&mut self) -> Result<(), LogError> {
        self.strike(Point::BeforeAbort)?;
        self.inner.abort()
    }

    fn lag(&self, partition: i32, positions: Positions) -> [u64; 2] {
        self.inner.lag(partition, positions)
    }

    fn outage(&self) -> Option<String> {
        self.inner.outage()
    }

    fn leave(&mut self) {
        self.inner.leave();
    }
}

/// Reads what it must not, or not all that it must.
struct BrokenReader {
    cluster: Cluster,
    partition: i32,
    position: i64,
    sabotage: Sabotage,
}

impl ChangelogReader for BrokenReader {
    fn position(&self) -> i64 {
        self.position
    }

    fn read(
        &mut self,
        _: usize,
        visit: &mut dyn FnMut(ChangelogRecord<'_>),
    ) -> Result<RestoreProgress, LogError> {
        let mut records = match self.sabotage {
            Sabotage::RestoreUncommitted => {
                self.cluster
                    .read_uncommitted(&TopicKey::State, self.partition, self.position)
            }
            _ => self
                .cluster
                .read_committed(&TopicKey::State, self.partition, self.position),
        };
        if self.sabotage == Sabotage::RestoreTooShort {
            records.pop();
        }
        for record in &records {
            self.position = record.offset + 1;
            visit(ChangelogRecord {
                offset: record.offset,
                key: record.key.as_deref().unwrap_or_default(),
                value: record.value.as_deref(),
            });
        }
        Ok(RestoreProgress {
            position: self.position,
            remaining: 0,
            done: true,
        })
    }
}
