//! A worker's session with the cluster in memory.

use std::collections::BTreeMap;

use super::cluster::{Cluster, ProducerId, Refused, TopicKey};
use crate::log::{
    ChangelogPositions, ChangelogReader, ChangelogRecord, ErrorClass, Log, LogError, Outgoing,
    OwnershipChange, PollLimits, Positions, Record, RestoreProgress, StageKind, Target,
};

/// See [`super`].
pub struct MemoryLog {
    cluster: Cluster,
    transactional_id: String,
    stage: StageKind,
    member: Option<u64>,
    producer: Option<ProducerId>,
    /// Next offsets to deliver of the partitions that were started.
    started: BTreeMap<i32, Positions>,
    changelog: BTreeMap<i32, i64>,
}

fn error(class: ErrorClass, doing: &'static str, reason: &str) -> LogError {
    LogError {
        class,
        doing,
        reason: reason.to_owned(),
    }
}

fn refused(doing: &'static str, why: Refused) -> LogError {
    match why {
        Refused::Fenced => error(ErrorClass::Fatal, doing, "fenced by a younger session"),
        Refused::NotOwner => error(ErrorClass::Abortable, doing, "the partition is another's"),
    }
}

impl MemoryLog {
    /// A session of the workflows' stage.
    pub fn new(cluster: Cluster, transactional_id: &str) -> Self {
        Self::of_stage(StageKind::Workflows, cluster, transactional_id)
    }

    /// A session of any stage. A cluster has one group, and so serves one stage.
    pub fn of_stage(stage: StageKind, cluster: Cluster, transactional_id: &str) -> Self {
        Self {
            cluster,
            transactional_id: transactional_id.to_owned(),
            stage,
            member: None,
            producer: None,
            started: BTreeMap::new(),
            changelog: BTreeMap::new(),
        }
    }

    /// Its place in the group, for tests that expire it.
    pub fn member(&self) -> Option<u64> {
        self.member
    }

    fn producer(&self, doing: &'static str) -> Result<ProducerId, LogError> {
        self.producer
            .ok_or_else(|| error(ErrorClass::Fatal, doing, "not connected"))
    }

    fn take(&mut self, limits: PollLimits, records: &mut Vec<Record>) {
        let mut taken = 0;
        let mut bytes = 0;
        for (partition, positions) in &mut self.started {
            for &source in self.stage.inputs() {
                let position = &mut positions[source.index()];
                let topic = TopicKey::Input(source);
                for stored in self.cluster.read_committed(&topic, *partition, *position) {
                    if taken >= limits.records || bytes >= limits.bytes {
                        return;
                    }
                    *position = stored.offset + 1;
                    let record = Record {
                        source,
                        partition: *partition,
                        offset: stored.offset,
                        key: stored.key,
                        value: stored.value,
                        headers: stored.headers,
                    };
                    taken += 1;
                    bytes += record.size();
                    records.push(record);
                }
            }
        }
    }
}

impl Log for MemoryLog {
    fn connect(&mut self) -> Result<(), LogError> {
        self.producer = Some(self.cluster.init_producer(&self.transactional_id));
        if self.member.is_none() {
            self.member = Some(self.cluster.join());
        }
        Ok(())
    }

    fn cluster(&self) -> &str {
        "memory"
    }

    fn partitions(&self) -> i32 {
        self.cluster.partitions()
    }

    fn poll(
        &mut self,
        limits: PollLimits,
        records: &mut Vec<Record>,
    ) -> Result<Vec<OwnershipChange>, LogError> {
        let member = self
            .member
            .ok_or_else(|| error(ErrorClass::Fatal, "polling", "not connected"))?;
        let changes = match self.cluster.take_changes(member) {
            Some(changes) => changes,
            None => {
                // The group took us for dead: all is lost, and we are a new member.
                self.member = Some(self.cluster.join());
                vec![OwnershipChange::Revoked(
                    (0..self.cluster.partitions()).collect(),
                )]
            }
        };
        for change in &changes {
            if let OwnershipChange::Revoked(partitions) = change {
                self.started
                    .retain(|partition, _| !partitions.contains(partition));
            }
        }
        if changes.is_empty() {
            self.take(limits, records);
        }
        Ok(changes)
    }

    fn committed(&mut self, partition: i32) -> Result<Positions, LogError> {
        const DOING: &str = "asking for committed offsets";
        match self.cluster.has_unstable_offsets(partition) {
            true => Err(error(
                ErrorClass::Retriable,
                DOING,
                "a transaction is still open",
            )),
            false => Ok(self.cluster.committed(partition)),
        }
    }

    fn changelog(
        &mut self,
        partition: i32,
        from: i64,
    ) -> Result<Box<dyn ChangelogReader>, LogError> {
        let end = self.cluster.end(&TopicKey::State, partition);
        let position = if from > end { 0 } else { from };
        let cluster = self.cluster.clone();
        Ok(Box::new(MemoryChangelog {
            cluster,
            partition,
            position,
            end,
        }))
    }

    fn start(&mut self, partition: i32, from: Positions) -> Result<(), LogError> {
        self.started.insert(partition, from);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        self.changelog.clear();
        self.producer("beginning a transaction").map(|_| ())
    }

    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        const DOING: &str = "producing a record";
        let producer = self.producer(DOING)?;
        let owned = |bytes: &[u8]| bytes.to_vec();
        let headers = record
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let content = (
            record.key.map(owned),
            record.value.map(owned),
            headers.collect(),
        );
        let offset = self
            .cluster
            .append(
                producer,
                TopicKey::of(&record, self.cluster.partitions()),
                content,
            )
            .map_err(|why| refused(DOING, why))?;
        if let Target::State(partition) = record.target {
            self.changelog.insert(partition, offset + 1);
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<ChangelogPositions, LogError> {
        Ok(std::mem::take(&mut self.changelog).into_iter().collect())
    }

    fn send_offsets(&mut self, positions: &[(i32, Positions)]) -> Result<(), LogError> {
        const DOING: &str = "sending offsets to the transaction";
        let producer = self.producer(DOING)?;
        let sent = self
            .cluster
            .send_offsets(producer, self.member.unwrap_or_default(), positions);
        sent.map_err(|why| refused(DOING, why))
    }

    fn commit(&mut self) -> Result<(), LogError> {
        const DOING: &str = "committing the transaction";
        let producer = self.producer(DOING)?;
        self.cluster
            .end_transaction(producer, true)
            .map_err(|why| refused(DOING, why))
    }

    fn abort(&mut self) -> Result<(), LogError> {
        const DOING: &str = "aborting the transaction";
        let producer = self.producer(DOING)?;
        self.cluster
            .end_transaction(producer, false)
            .map_err(|why| refused(DOING, why))
    }

    fn lag(&self, partition: i32, positions: Positions) -> [u64; 2] {
        let mut behind = [0; 2];
        for &source in self.stage.inputs() {
            let end = self.cluster.end(&TopicKey::Input(source), partition);
            behind[source.index()] = u64::try_from(end - positions[source.index()]).unwrap_or(0);
        }
        behind
    }

    fn outage(&self) -> Option<String> {
        None
    }

    fn leave(&mut self) {
        if let Some(member) = self.member.take() {
            self.cluster.expire_member(member);
        }
        self.producer = None;
        self.started.clear();
    }
}

struct MemoryChangelog {
    cluster: Cluster,
    partition: i32,
    position: i64,
    end: i64,
}

impl ChangelogReader for MemoryChangelog {
    fn position(&self) -> i64 {
        self.position
    }

    fn read(
        &mut self,
        limit: usize,
        visit: &mut dyn FnMut(ChangelogRecord<'_>),
    ) -> Result<RestoreProgress, LogError> {
        let stable = self.cluster.last_stable(&TopicKey::State, self.partition);
        let mut done = false;
        if stable >= self.end {
            let records =
                self.cluster
                    .read_committed(&TopicKey::State, self.partition, self.position);
            let rest: Vec<_> = records
                .into_iter()
                .filter(|record| record.offset < self.end)
                .collect();
            done = rest.len() <= limit;
            for record in rest.iter().take(limit) {
                self.position = record.offset + 1;
                visit(ChangelogRecord {
                    offset: record.offset,
                    key: record.key.as_deref().unwrap_or_default(),
                    value: record.value.as_deref(),
                });
            }
            if done {
                self.position = self.end;
            }
        }
        let remaining = u64::try_from(self.end - self.position).unwrap_or(0);
        Ok(RestoreProgress {
            position: self.position,
            remaining,
            done,
        })
    }
}
