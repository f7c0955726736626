//! What a partition remembers of a producer: its epoch, its last batches, and the transaction it has open there.

use std::collections::VecDeque;

use crate::batch::{BatchHeader, add_sequence};

/// Batches remembered to recognise a repetition; as many as clients keep in flight.
const REMEMBERED: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WrittenBatch {
    pub(crate) base_sequence: i32,
    pub(crate) last_sequence: i32,
    pub(crate) base_offset: i64,
    pub(crate) timestamp: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// Oldest first; of this epoch only.
    pub(crate) batches: VecDeque<WrittenBatch>,
    /// First offset of the transaction it has open in this partition.
    pub(crate) transaction_start: Option<i64>,
    /// Milliseconds since the epoch of the last write or marker.
    pub(crate) seen_at: i64,
}

/// What to do with a batch of an idempotent producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Append,
    /// It is there already, since the given offset.
    Duplicate {
        base_offset: i64,
        timestamp: i64,
    },
    OutOfOrder,
    /// The producer's epoch is older than one seen before.
    Fenced,
}

impl Producer {
    pub(crate) fn new(epoch: i16, seen_at: i64) -> Producer {
        Producer {
            epoch,
            batches: VecDeque::new(),
            transaction_start: None,
            seen_at,
        }
    }

    pub(crate) fn judge(&self, header: &BatchHeader) -> Verdict {
        if header.producer_epoch < self.epoch {
            return Verdict::Fenced;
        }
        if header.producer_epoch > self.epoch {
            return if header.base_sequence == 0 {
                Verdict::Append
            } else {
                Verdict::OutOfOrder
            };
        }
        let last = header.last_sequence();
        let same = |batch: &&WrittenBatch| {
            batch.base_sequence == header.base_sequence && batch.last_sequence == last
        };
        if let Some(batch) = self.batches.iter().find(same) {
            return Verdict::Duplicate {
                base_offset: batch.base_offset,
                timestamp: batch.timestamp,
            };
        }
        match self.batches.back() {
            // Nothing of this epoch was written, or all of it is forgotten: any start is believed.
            None => Verdict::Append,
            Some(batch) if add_sequence(batch.last_sequence, 1) == header.base_sequence => {
                Verdict::Append
            }
            Some(_) => Verdict::OutOfOrder,
        }
    }

    pub(super) fn written(&mut self, header: &BatchHeader, base_offset: i64, at: i64) {
        if header.producer_epoch != self.epoch {
            self.epoch = header.producer_epoch;
            self.batches.clear();
        }
        if self.batches.len() == REMEMBERED {
            self.batches.pop_front();
        }
        let timestamp = if header.uses_append_time() {
            header.max_timestamp
        } else {
            -1
        };
        self.batches.push_back(WrittenBatch {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
            timestamp,
        });
        self.seen_at = at;
        if header.is_transactional() {
            self.transaction_start.get_or_insert(base_offset);
        }
    }

    /// A marker ended its transaction here; returns where that had begun.
    pub(super) fn ended(&mut self, epoch: i16, at: i64) -> Option<i64> {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
        self.seen_at = at;
        self.transaction_start.take()
    }
}
