//! The event-sourced machine: pure, without I/O and without a clock.
//!
//! [`event`] is the closed list of what can happen; [`State::apply`] is the only thing that changes the state, and it
//! gives the same result when events are applied live and when they are replayed at a restart. Whether an event is
//! *allowed* is decided before it is emitted, by questions to the same state; `apply` itself never refuses, and an
//! event about something that is not there does nothing.
//!
//! [`topic`], [`partition`] (with its [`index`] of batches and its [`producer`]s), [`transaction`] and [`offsets`] are
//! the parts; [`codec`] is how events and [`checkpoint`]s become bytes.

mod checkpoint;
pub(crate) mod codec;
pub(crate) mod event;
pub(crate) mod index;
pub(crate) mod offsets;
pub(crate) mod partition;
pub(crate) mod producer;
pub(crate) mod settings;
pub(crate) mod topic;
pub(crate) mod transaction;

use std::collections::BTreeMap;

use rustc_hash::{FxHashMap, FxHashSet};
use uuid::Uuid;

pub(crate) use event::{Event, PartitionId};
use index::{Content, Marker};
use offsets::GroupOffsets;
pub(crate) use partition::Partition;
use settings::TopicSettings;
pub(crate) use topic::Topic;
use transaction::{Phase, Transaction, Transactions};

use crate::wal::SegmentId;

/// All that the broker knows, but for group membership (which is of the moment) and the records themselves.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// By name, so that listings come out in a stable order.
    topics: BTreeMap<String, Topic>,
    names_by_id: FxHashMap<Uuid, String>,
    partitions: FxHashMap<PartitionId, Partition>,
    next_partition: PartitionId,
    next_producer_id: i64,
    transactions: Transactions,
    transactional_ids: FxHashMap<i64, String>,
    groups: BTreeMap<String, GroupOffsets>,
    /// Partitions whose ends moved since the store last asked.
    touched: Vec<PartitionId>,
}

impl State {
    pub(crate) fn topic(&self, name: &str) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: Uuid) -> Option<&Topic> {
        self.topics.get(self.names_by_id.get(&id)?)
    }

    /// All topics in the order of their names.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Topic> {
        self.topics.values()
    }

    /// Partitions of all topics together.
    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    /// The partition `index` of the topic of that name.
    pub(crate) fn partition(&self, topic: &str, index: i32) -> Option<&Partition> {
        self.partition_of(self.topics.get(topic)?, index)
    }

    pub(crate) fn partition_of(&self, topic: &Topic, index: i32) -> Option<&Partition> {
        let id = topic.partitions.get(usize::try_from(index).ok()?)?;
        self.partitions.get(id)
    }

    pub(crate) fn partition_mut(&mut self, id: PartitionId) -> Option<&mut Partition> {
        self.partitions.get_mut(&id)
    }

    pub(crate) fn partition_by_id(&self, id: PartitionId) -> Option<&Partition> {
        self.partitions.get(&id)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values()
    }

    /// The segments in which some partition has a batch.
    pub(crate) fn segments_in_use(&self) -> FxHashSet<SegmentId> {
        let mut used = FxHashSet::default();
        let mut last = None;
        for entry in self
            .partitions
            .values()
            .flat_map(|partition| &partition.entries)
        {
            if let Content::Stored { place, .. } = entry.content()
                && last != Some(place.segment)
            {
                used.insert(place.segment);
                last = Some(place.segment);
            }
        }
        used
    }

    /// The id that the next new producer gets.
    pub(crate) fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    pub(crate) fn transaction(&self, transactional_id: &str) -> Option<&Transaction> {
        self.transactions.get(transactional_id)
    }

    /// The transactional id whose producer has this id, and where it stands.
    pub(crate) fn transaction_of(&self, producer_id: i64) -> Option<(&str, &Transaction)> {
        let name = self.transactional_ids.get(&producer_id)?;
        self.transactions
            .get(name)
            .map(|transaction| (name.as_str(), transaction))
    }

    /// All transactional ids in the order of their names.
    pub(crate) fn transactions(&self) -> impl Iterator<Item = (&str, &Transaction)> {
        self.transactions
            .iter()
            .map(|(name, transaction)| (name.as_str(), transaction))
    }

    /// The offsets of a group that has any.
    pub(crate) fn group(&self, name: &str) -> Option<&GroupOffsets> {
        self.groups.get(name)
    }

    /// All groups with offsets, in the order of their names.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &GroupOffsets)> {
        self.groups
            .iter()
            .map(|(name, group)| (name.as_str(), group))
    }

    /// Partitions whose ends moved since the last call.
    pub(crate) fn take_touched(&mut self) -> Vec<PartitionId> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Has the next [`State::take_touched`] name these again.
    pub(crate) fn touch(&mut self, partitions: Vec<PartitionId>) {
        self.touched.extend(partitions);
    }

    /// Lets an event, which happened at `at` (milliseconds since the epoch), take effect.
    pub(crate) fn apply(&mut self, at: i64, event: &Event) {
        match event {
            Event::BatchAppended {
                partition,
                header,
                place,
            } => {
                if let Some(found) = self.partitions.get_mut(partition) {
                    found.append(header, *place, at);
                    self.touched.push(*partition);
                }
            }
            Event::TopicCreated {
                name,
                id,
                partitions,
                configs,
            } => {
                let topic = Topic {
                    name: name.as_str().into(),
                    id: *id,
                    partitions: Vec::new(),
                    configs: configs.clone(),
                    settings: TopicSettings::from_configs(configs),
                };
                self.names_by_id.insert(*id, name.clone());
                self.topics.insert(name.clone(), topic);
                self.add_partitions(name, *partitions);
            }
            Event::PartitionsAdded { name, total } => self.add_partitions(name, *total),
            Event::TopicDeleted { name } => self.delete_topic(name),
            Event::TopicConfigured { name, configs } => {
                if let Some(topic) = self.topics.get_mut(name) {
                    topic.configs = configs.clone();
                    topic.settings = TopicSettings::from_configs(configs);
                }
            }
            Event::LogStartMoved { partition, offset } => {
                if let Some(found) = self.partitions.get_mut(partition) {
                    found.move_start(*offset);
                    self.touched.push(*partition);
                }
            }
            Event::ProducersForgotten {
                partition,
                producers,
            } => {
                if let Some(found) = self.partitions.get_mut(partition) {
                    producers
                        .iter()
                        .for_each(|producer| drop(found.producers.remove(producer)));
                }
            }
            Event::ProducerIdAllotted { .. }
            | Event::TransactionalProducer { .. }
            | Event::PartitionsJoined { .. }
            | Event::GroupJoined { .. }
            | Event::OffsetsPending { .. }
            | Event::TransactionEnded { .. }
            | Event::TransactionalIdForgotten { .. } => self.apply_to_transactions(at, event),
            Event::OffsetsCommitted { group, offsets } => {
                self.groups
                    .entry(group.clone())
                    .or_default()
                    .commit(offsets.iter().cloned(), at);
            }
            Event::OffsetsDeleted { group, partitions } => {
                if let Some(offsets) = self.groups.get_mut(group) {
                    partitions
                        .iter()
                        .for_each(|(topic, partition)| offsets.remove(topic, *partition));
                    self.drop_group_if_empty(group);
                }
            }
            Event::GroupDeleted { group } => drop(self.groups.remove(group)),
        }
    }

    fn apply_to_transactions(&mut self, at: i64, event: &Event) {
        match event {
            Event::ProducerIdAllotted { producer_id } => {
                self.next_producer_id = self.next_producer_id.max(producer_id + 1);
            }
            Event::TransactionalProducer {
                transactional_id,
                producer_id,
                epoch,
                timeout_ms,
                renews,
            } => {
                self.next_producer_id = self.next_producer_id.max(producer_id + 1);
                let fresh = Transaction {
                    producer_id: *producer_id,
                    epoch: *epoch,
                    timed_out_epoch: None,
                    timeout_ms: *timeout_ms,
                    phase: Phase::Empty { renews: *renews },
                    changed_at: at,
                };
                if let Some(before) = self.transactions.insert(transactional_id.clone(), fresh) {
                    self.transactional_ids.remove(&before.producer_id);
                }
                self.transactional_ids
                    .insert(*producer_id, transactional_id.clone());
            }
            Event::PartitionsJoined {
                transactional_id,
                partitions,
            } => {
                if let Some(transaction) = self.transactions.get_mut(transactional_id) {
                    transaction.open(at).0.extend(partitions);
                }
            }
            Event::GroupJoined {
                transactional_id,
                group,
            } => {
                if let Some(transaction) = self.transactions.get_mut(transactional_id) {
                    transaction.open(at).1.insert(group.clone());
                }
            }
            Event::OffsetsPending {
                transactional_id,
                group,
                offsets,
            } => {
                if let Some(transaction) = self.transactions.get_mut(transactional_id) {
                    transaction.open(at).1.insert(group.clone());
                    let producer_id = transaction.producer_id;
                    let group = self.groups.entry(group.clone()).or_default();
                    group.keep(producer_id, offsets.iter().cloned());
                }
            }
            Event::TransactionEnded {
                transactional_id,
                committed,
                epoch,
            } => {
                self.end_transaction(transactional_id, *committed, *epoch, at);
            }
            Event::TransactionalIdForgotten { transactional_id } => {
                if let Some(transaction) = self.transactions.remove(transactional_id) {
                    self.transactional_ids.remove(&transaction.producer_id);
                }
            }
            _ => unreachable!("only events of transactions come here"),
        }
    }

    /// Brings a topic up to `total` partitions.
    fn add_partitions(&mut self, name: &str, total: i32) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        for index in topic.partitions.len() as i32..total {
            let id = self.next_partition;
            self.next_partition += 1;
            topic.partitions.push(id);
            self.partitions
                .insert(id, Partition::new(id, topic.name.clone(), index));
        }
    }

    fn delete_topic(&mut self, name: &str) {
        let Some(topic) = self.topics.remove(name) else {
            return;
        };
        self.names_by_id.remove(&topic.id);
        for id in topic.partitions {
            if let Some(partition) = self.partitions.remove(&id) {
                partition.view.close();
            }
        }
        self.groups
            .values_mut()
            .for_each(|group| group.forget_topic(name));
        self.groups.retain(|_, group| !group.is_empty());
    }

    fn end_transaction(&mut self, transactional_id: &str, committed: bool, epoch: i16, at: i64) {
        let Some(transaction) = self.transactions.get_mut(transactional_id) else {
            return;
        };
        let ended = std::mem::replace(&mut transaction.phase, Phase::Ended { committed });
        transaction.timed_out_epoch = (epoch > transaction.epoch).then_some(transaction.epoch);
        transaction.epoch = epoch;
        transaction.changed_at = at;
        let producer_id = transaction.producer_id;
        let Phase::Open {
            partitions, groups, ..
        } = ended
        else {
            return;
        };
        for id in partitions {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.end_transaction(
                    Marker {
                        producer_id,
                        epoch,
                        committed,
                    },
                    at,
                );
                self.touched.push(id);
            }
        }
        for name in groups {
            let Some(group) = self.groups.get_mut(&name) else {
                continue;
            };
            group.end(producer_id, committed, at);
            self.drop_group_if_empty(&name);
        }
    }

    fn drop_group_if_empty(&mut self, name: &str) {
        if self.groups.get(name).is_some_and(GroupOffsets::is_empty) {
            self.groups.remove(name);
        }
    }
}

#[cfg(test)]
mod tests;
