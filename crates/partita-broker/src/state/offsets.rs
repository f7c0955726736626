//! Committed offsets of groups, and those that wait for a transaction to commit.

use std::collections::BTreeMap;

use super::codec::{CodecError, Decoder, Encoder};
use super::event::OffsetEntry;

/// What a group has committed for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset to read.
    pub(crate) offset: i64,
    /// -1 when the client gave none.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

impl Committed {
    pub(super) fn encode(&self, to: &mut Encoder<'_>) {
        to.i64(self.offset);
        to.i32(self.leader_epoch);
        to.text(&self.metadata);
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Committed, CodecError> {
        Ok(Committed {
            offset: from.i64()?,
            leader_epoch: from.i32()?,
            metadata: from.text()?,
        })
    }
}

/// Something for each partition, by topic name and then partition.
type ByPartition<T> = BTreeMap<String, BTreeMap<i32, T>>;

fn remove<T>(from: &mut ByPartition<T>, topic: &str, partition: i32) {
    if let Some(partitions) = from.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            from.remove(topic);
        }
    }
}

/// The offsets of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GroupOffsets {
    pub(crate) committed: ByPartition<Committed>,
    /// What open transactions will commit, by producer id: of each partition and producer one, in the order in which
    /// they came. None is older than what is committed.
    pub(crate) pending: ByPartition<Vec<(i64, Committed)>>,
    /// When the last change happened, in milliseconds since the epoch.
    pub(crate) changed_at: i64,
}

impl GroupOffsets {
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(topic)?.get(&partition)
    }

    /// All that open transactions hold, with their producers' ids; of each partition in the order in which it came.
    pub(super) fn pending(&self) -> impl Iterator<Item = (i64, OffsetEntry)> {
        let partitions = self.pending.iter().flat_map(|(topic, partitions)| {
            let partitions = partitions.iter();
            partitions.map(move |(partition, held)| (topic, *partition, held))
        });
        partitions.flat_map(|(topic, partition, held)| {
            held.iter().map(move |(producer_id, committed)| {
                let entry = OffsetEntry {
                    topic: topic.clone(),
                    partition,
                    committed: committed.clone(),
                };
                (*producer_id, entry)
            })
        })
    }

    /// Whether an open transaction holds an offset for this partition.
    pub(crate) fn is_pending(&self, topic: &str, partition: i32) -> bool {
        let held = self.pending.get(topic);
        held.is_some_and(|held| held.contains_key(&partition))
    }

    /// What open transactions hold for these partitions is older, and will not be committed any more.
    pub(super) fn commit(&mut self, offsets: impl IntoIterator<Item = OffsetEntry>, at: i64) {
        self.changed_at = at;
        for entry in offsets {
            remove(&mut self.pending, &entry.topic, entry.partition);
            self.committed
                .entry(entry.topic)
                .or_default()
                .insert(entry.partition, entry.committed);
        }
    }

    /// Keeps offsets until the transaction of the producer ends.
    pub(super) fn keep(
        &mut self,
        producer_id: i64,
        offsets: impl IntoIterator<Item = OffsetEntry>,
    ) {
        for entry in offsets {
            let partitions = self.pending.entry(entry.topic).or_default();
            let held = partitions.entry(entry.partition).or_default();
            held.retain(|(owner, _)| *owner != producer_id);
            held.push((producer_id, entry.committed));
        }
    }

    /// The transaction of the producer has ended: what it holds is committed, or forgotten.
    pub(super) fn end(&mut self, producer_id: i64, committed: bool, at: i64) {
        if committed {
            self.changed_at = at;
        }
        for (topic, partitions) in &mut self.pending {
            for (partition, held) in partitions.iter_mut() {
                let owned = held.iter().position(|(owner, _)| *owner == producer_id);
                let Some(position) = owned else {
                    continue;
                };
                let (_, offset) = held.remove(position);
                if committed {
                    // Those that came before it are older than what is committed now.
                    held.drain(..position);
                    self.committed
                        .entry(topic.clone())
                        .or_default()
                        .insert(*partition, offset);
                }
            }
            partitions.retain(|_, held| !held.is_empty());
        }
        self.pending.retain(|_, partitions| !partitions.is_empty());
    }

    /// Forgets what is committed for a partition, and what open transactions would commit for it.
    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        remove(&mut self.committed, topic, partition);
        remove(&mut self.pending, topic, partition);
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.committed.remove(topic);
        self.pending.remove(topic);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }
}
