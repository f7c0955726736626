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

/// Offsets by topic name, then partition: of each partition one.
pub(crate) type Offsets = BTreeMap<String, BTreeMap<i32, Committed>>;

/// Later offsets take the place of earlier ones.
pub(super) fn put(offsets: &mut Offsets, entries: impl IntoIterator<Item = OffsetEntry>) {
    for entry in entries {
        offsets
            .entry(entry.topic)
            .or_default()
            .insert(entry.partition, entry.committed);
    }
}

fn remove(offsets: &mut Offsets, topic: &str, partition: i32) {
    if let Some(partitions) = offsets.get_mut(topic) {
        partitions.remove(&partition);
        if partitions.is_empty() {
            offsets.remove(topic);
        }
    }
}

/// The offsets one by one, in order.
pub(super) fn entries(offsets: Offsets) -> impl Iterator<Item = OffsetEntry> {
    offsets.into_iter().flat_map(|(topic, partitions)| {
        partitions
            .into_iter()
            .map(move |(partition, committed)| OffsetEntry {
                topic: topic.clone(),
                partition,
                committed,
            })
    })
}

/// The offsets of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GroupOffsets {
    pub(crate) committed: Offsets,
    /// By producer id: what its open transaction will commit.
    pub(crate) pending: BTreeMap<i64, Offsets>,
    /// When the last change happened, in milliseconds since the epoch.
    pub(crate) changed_at: i64,
}

impl GroupOffsets {
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(topic)?.get(&partition)
    }

    /// Whether an open transaction holds an offset for this partition.
    pub(crate) fn is_pending(&self, topic: &str, partition: i32) -> bool {
        let holds =
            |offsets: &Offsets| offsets.get(topic).map(|held| held.contains_key(&partition));
        self.pending
            .values()
            .any(|offsets| holds(offsets) == Some(true))
    }

    pub(super) fn commit(&mut self, offsets: impl IntoIterator<Item = OffsetEntry>, at: i64) {
        self.changed_at = at;
        put(&mut self.committed, offsets);
    }

    /// Forgets what is committed for a partition, and what open transactions would commit for it.
    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        remove(&mut self.committed, topic, partition);
        self.pending
            .values_mut()
            .for_each(|offsets| remove(offsets, topic, partition));
        self.pending.retain(|_, offsets| !offsets.is_empty());
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.committed.remove(topic);
        self.pending
            .values_mut()
            .for_each(|offsets| drop(offsets.remove(topic)));
        self.pending.retain(|_, offsets| !offsets.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }
}
