//! A transactional id: who its producer is, and the transaction that is open.

use std::collections::{BTreeMap, BTreeSet};

use super::event::PartitionId;

/// Where a transactional id stands. There is no state between open and ended: one record ends a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Initialised; nothing was begun since.
    Empty {
        /// The id and the epoch under which the present producer asked for its present ones. It asks once more where
        /// it heard no answer, and must not be taken for one that was replaced.
        renews: Option<(i64, i16)>,
    },
    Open {
        /// Milliseconds since the epoch.
        since: i64,
        partitions: BTreeSet<PartitionId>,
        groups: BTreeSet<String>,
    },
    Ended {
        committed: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    /// The epoch before the broker itself raised it by aborting a transaction that took too long: its owner may still
    /// come back with this one and ask for a new.
    pub(crate) timed_out_epoch: Option<i16>,
    pub(crate) timeout_ms: i32,
    pub(crate) phase: Phase,
    /// Milliseconds since the epoch.
    pub(crate) changed_at: i64,
}

impl Transaction {
    /// When the open transaction has taken too long, in milliseconds since the epoch.
    pub(crate) fn deadline(&self) -> Option<i64> {
        match self.phase {
            Phase::Open { since, .. } => Some(since.saturating_add(i64::from(self.timeout_ms))),
            _ => None,
        }
    }

    /// Whether the producer, which says that it has this id and epoch, was given others and has yet to use them.
    pub(crate) fn was_renewed_from(&self, said: (i64, i16)) -> bool {
        matches!(self.phase, Phase::Empty { renews } if renews == Some(said))
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open { .. })
    }

    pub(crate) fn holds(&self, partition: PartitionId) -> bool {
        matches!(&self.phase, Phase::Open { partitions, .. } if partitions.contains(&partition))
    }

    pub(crate) fn holds_group(&self, group: &str) -> bool {
        matches!(&self.phase, Phase::Open { groups, .. } if groups.contains(group))
    }

    /// Groups of the open transaction.
    pub(crate) fn group_count(&self) -> usize {
        match &self.phase {
            Phase::Open { groups, .. } => groups.len(),
            _ => 0,
        }
    }

    /// The partitions and groups of the open transaction, which is opened if need be.
    pub(super) fn open(&mut self, at: i64) -> (&mut BTreeSet<PartitionId>, &mut BTreeSet<String>) {
        if !self.is_open() {
            self.phase = Phase::Open {
                since: at,
                partitions: BTreeSet::new(),
                groups: BTreeSet::new(),
            };
        }
        self.changed_at = at;
        match &mut self.phase {
            Phase::Open {
                partitions, groups, ..
            } => (partitions, groups),
            _ => unreachable!("it was opened above"),
        }
    }
}

/// All transactional ids, by name.
pub(crate) type Transactions = BTreeMap<String, Transaction>;
