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

/// The offsets of one group.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct GroupOffsets {
    /// By topic name, then partition.
    pub(crate) committed: BTreeMap<String, BTreeMap<i32, Committed>>,
    /// By producer id: what its open transaction will commit.
    pub(crate) pending: BTreeMap<i64, Vec<OffsetEntry>>,
    /// When the last change happened, in milliseconds since the epoch.
    pub(crate) changed_at: i64,
}

impl GroupOffsets {
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.committed.get(topic)?.get(&partition)
    }

    /// Whether an open transaction holds an offset for this partition.
    pub(crate) fn is_pending(&self, topic: &str, partition: i32) -> bool {
        self.pending
            .values()
            .flatten()
            .any(|entry| entry.partition == partition && entry.topic == topic)
    }

    pub(super) fn commit(&mut self, offsets: impl IntoIterator<Item = OffsetEntry>, at: i64) {
        self.changed_at = at;
        for entry in offsets {
            self.committed
                .entry(entry.topic)
                .or_default()
                .insert(entry.partition, entry.committed);
        }
    }

    pub(super) fn remove(&mut self, topic: &str, partition: i32) {
        if let Some(partitions) = self.committed.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.committed.remove(topic);
            }
        }
    }

    pub(super) fn forget_topic(&mut self, topic: &str) {
        self.committed.remove(topic);
        self.pending
            .values_mut()
            .for_each(|entries| entries.retain(|entry| entry.topic != topic));
        self.pending.retain(|_, entries| !entries.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }
}
