//! Rebalances. The group's subscription is to the stage's first input alone (`commands`, of the
//! workflows), because no cooperative assignor keeps the partitions of two topics together; whoever
//! owns partition p of it owns p of the other (`replies`) as well. The callbacks assign nothing: a partition is fetched from once it has been
//! restored, from offsets that we know. So all that a callback does is note what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Statistics, TopicPartitionList};

use super::drain::{Notes, Signs, end_of};
use super::errors;
use crate::log::{OwnershipChange, Positions, StageKind, Topics};

/// A broker that is restarted, or a connection that is replaced, is no outage.
const OUTAGE_AFTER: Duration = Duration::from_secs(3);

/// The consumer's context. Callbacks run within `poll`, on the worker's thread.
pub struct Ownership {
    pub(super) topics: Arc<Topics>,
    stage: StageKind,
    inner: Mutex<Inner>,
    signs: Signs,
}

#[derive(Default)]
struct Inner {
    changes: Vec<OwnershipChange>,
    /// Partitions that are fetched from.
    started: BTreeSet<i32>,
    /// Up to where records of the inputs may wait, as of librdkafka's last statistics.
    ends: BTreeMap<i32, Positions>,
    /// Since when statistics have shown no connection.
    away_since: Option<Instant>,
    /// Why a connection last failed.
    complaint: String,
}

impl Notes for Ownership {
    fn signs(&self) -> &Signs {
        &self.signs
    }
}

impl Ownership {
    pub(super) fn new(topics: Arc<Topics>, stage: StageKind) -> Self {
        Self {
            topics,
            stage,
            inner: Mutex::default(),
            signs: Signs::default(),
        }
    }

    fn note_change(&self, change: OwnershipChange) {
        self.lock().changes.push(change);
        self.signs.note_changes(true);
    }

    pub(super) fn take_changes(&self) -> Vec<OwnershipChange> {
        self.signs.note_changes(false);
        std::mem::take(&mut self.lock().changes)
    }

    /// Notes that the partition is fetched from; whether it was before.
    pub(super) fn note_started(&self, partition: i32) -> bool {
        !self.lock().started.insert(partition)
    }

    pub(super) fn is_started(&self, partition: i32) -> bool {
        self.lock().started.contains(&partition)
    }

    pub(super) fn ends(&self, partition: i32) -> Positions {
        self.lock()
            .ends
            .get(&partition)
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn outage(&self) -> Option<String> {
        let inner = self.lock();
        let away = inner.away_since?.elapsed() >= OUTAGE_AFTER;
        away.then(|| inner.complaint.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All inputs of these partitions.
    pub(super) fn inputs(&self, partitions: &[i32]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(2 * partitions.len());
        for &partition in partitions {
            for &source in self.stage.inputs() {
                list.add_partition(self.topics.of(source), partition);
            }
        }
        list
    }
}

fn partitions_in(list: &TopicPartitionList) -> Vec<i32> {
    list.elements()
        .iter()
        .map(|element| element.partition())
        .collect()
}

impl ClientContext for Ownership {
    fn stats(&self, statistics: Statistics) {
        self.signs.note_report();
        let mut inner = self.lock();
        let mut brokers = statistics.brokers.values();
        // A worker's consumer always keeps a connection, that to its coordinator.
        if brokers.any(|broker| matches!(broker.state.as_str(), "UP" | "UPDATE")) {
            inner.away_since = None;
        } else {
            inner.away_since.get_or_insert_with(Instant::now);
        }
        for &source in self.stage.inputs() {
            let Some(topic) = statistics.topics.get(self.topics.of(source)) else {
                continue;
            };
            for (&partition, known) in &topic.partitions {
                if let Some(end) = end_of(known).filter(|_| partition >= 0) {
                    inner.ends.entry(partition).or_default()[source.index()] = end;
                }
            }
        }
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, line, "librdkafka");
        self.signs.note_report();
        let mut inner = self.lock();
        if let Some(reason) = errors::failed_connection(facility, line) {
            reason.clone_into(&mut inner.complaint);
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the consumer reports");
    }
}

impl ConsumerContext for Ownership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions = partitions_in(list);
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                tracing::warn!(%error, "cannot acknowledge an assignment");
            }
            self.note_change(OwnershipChange::Assigned(partitions));
            return;
        }
        let mut inner = self.lock();
        let started: Vec<i32> = partitions
            .iter()
            .copied()
            .filter(|partition| inner.started.remove(partition))
            .collect();
        drop(inner);
        self.note_change(OwnershipChange::Revoked(partitions));
        if let Err(error) = consumer.incremental_unassign(&self.inputs(&started)) {
            tracing::warn!(%error, "cannot give up partitions");
        }
    }
}
