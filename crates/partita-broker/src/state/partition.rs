//! One partition: the index of its batches, its producers, its open and its aborted transactions.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::event::PartitionId;
use super::index::{Entry, Marker};
use super::producer::{Producer, Verdict};
use crate::batch::BatchHeader;
use crate::view::View;
use crate::wal::Place;

/// A transaction that ended badly: readers of committed data drop its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first_offset: i64,
    /// The offset of the marker.
    pub(crate) last_offset: i64,
    /// No transaction that ended after this one began below this offset: who looks for those that began below some
    /// offset need not look further.
    pub(crate) later_begin_at: i64,
}

#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    /// The first offset that readers may have.
    pub(crate) log_start: i64,
    /// The offset of the next record.
    pub(crate) log_end: i64,
    /// In the order of their offsets, without overlap; gaps where compaction took records away.
    pub(crate) entries: Vec<Entry>,
    /// Bytes of all entries.
    pub(crate) bytes: u64,
    pub(crate) producers: FxHashMap<i64, Producer>,
    /// Open transactions: first offset → producer id.
    pub(crate) open: BTreeMap<i64, i64>,
    /// In the order of their markers.
    pub(crate) aborted: Vec<Aborted>,
    /// Below this offset compaction has been; nothing in the log says so, only checkpoints do.
    pub(crate) compacted_to: i64,
    /// When the next tombstone may go that compaction has kept, in milliseconds since the epoch; `i64::MAX` for never.
    pub(crate) tombstones_until: i64,
    /// What readers may see by now; the store advances it when the log is durable.
    pub(crate) view: Arc<View>,
}

impl Partition {
    pub(crate) fn new(id: PartitionId, topic: Arc<str>, index: i32) -> Partition {
        Partition {
            id,
            topic,
            index,
            log_start: 0,
            log_end: 0,
            entries: Vec::new(),
            bytes: 0,
            producers: FxHashMap::default(),
            open: BTreeMap::new(),
            aborted: Vec::new(),
            compacted_to: 0,
            tombstones_until: i64::MAX,
            view: Arc::default(),
        }
    }

    /// The offset below which every transaction is decided. Records of an open transaction may have been deleted:
    /// then it is the start, since readers are sent nowhere below that.
    pub(crate) fn last_stable(&self) -> i64 {
        self.first_open().max(self.log_start)
    }

    /// Where the first open transaction begins, or the next one would.
    pub(super) fn first_open(&self) -> i64 {
        let first = self.open.first_key_value();
        first.map_or(self.log_end, |(first, _)| *first)
    }

    /// What to do with a batch that a client sent.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Verdict {
        if header.producer_id < 0 {
            return Verdict::Append;
        }
        self.producers
            .get(&header.producer_id)
            .map_or(Verdict::Append, |producer| producer.judge(header))
    }

    /// The position in `entries` of the first that holds `offset` or something later.
    pub(crate) fn position(&self, offset: i64) -> usize {
        self.entries
            .partition_point(|entry| entry.last_offset() < offset)
    }

    /// Aborted transactions that a reader of `from..below` must know.
    pub(crate) fn aborted_between(&self, from: i64, below: i64) -> impl Iterator<Item = &Aborted> {
        let begin = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < from);
        let rest = &self.aborted[begin..];
        let last = rest
            .iter()
            .position(|aborted| aborted.later_begin_at >= below);
        rest[..last.map_or(rest.len(), |last| last + 1)]
            .iter()
            .filter(move |aborted| aborted.first_offset < below)
    }

    pub(super) fn append(&mut self, header: &BatchHeader, place: Place, at: i64) {
        let base_offset = self.log_end;
        self.push(Entry::batch(header, base_offset, place, at));
        if header.producer_id >= 0 {
            let producer = self
                .producers
                .entry(header.producer_id)
                .or_insert_with(|| Producer::new(header.producer_epoch, at));
            producer.written(header, base_offset, at);
            if let Some(start) = producer.transaction_start {
                self.open.insert(start, header.producer_id);
            }
        }
    }

    /// Ends the transaction of a producer here, when it wrote anything.
    pub(super) fn end_transaction(&mut self, marker: Marker, at: i64) {
        let Some(producer) = self.producers.get_mut(&marker.producer_id) else {
            return;
        };
        let Some(first_offset) = producer.ended(marker.epoch, at) else {
            return;
        };
        self.open.remove(&first_offset);
        let offset = self.log_end;
        self.push(Entry::marker(offset, at, marker));
        if !marker.committed {
            let later_begin_at = self.first_open();
            self.aborted.push(Aborted {
                producer_id: marker.producer_id,
                first_offset,
                last_offset: offset,
                later_begin_at,
            });
        }
    }

    fn push(&mut self, entry: Entry) {
        self.log_end = entry.last_offset() + 1;
        self.bytes += entry.read_bytes() as u64;
        self.entries.push(entry);
    }

    /// Lets go of everything that ends below `offset`.
    pub(super) fn move_start(&mut self, offset: i64) {
        if offset <= self.log_start {
            return;
        }
        self.log_start = offset;
        let gone = self.position(offset);
        self.bytes -= self
            .entries
            .drain(..gone)
            .map(|entry| entry.read_bytes() as u64)
            .sum::<u64>();
        let forgotten = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < offset);
        self.aborted.drain(..forgotten);
    }

    /// Puts `fresh` in the place of all entries from `from` to `to` (inclusive), which hold the same records or what
    /// compaction left of them. What was let go of meanwhile stays gone.
    pub(crate) fn relocate(&mut self, from: i64, to: i64, fresh: &[Entry]) {
        let begin = self
            .entries
            .partition_point(|entry| entry.base_offset < from);
        let end = self
            .entries
            .partition_point(|entry| entry.base_offset <= to);
        let kept = fresh
            .iter()
            .filter(|entry| entry.last_offset() >= self.log_start)
            .copied();
        self.entries.splice(begin..end, kept);
        self.bytes = self
            .entries
            .iter()
            .map(|entry| entry.read_bytes() as u64)
            .sum();
    }

    /// Works [`Aborted::later_begin_at`] out anew, which checkpoints leave out.
    pub(super) fn bound_aborted(&mut self) {
        let mut later_begin_at = self.first_open();
        for aborted in self.aborted.iter_mut().rev() {
            aborted.later_begin_at = later_begin_at;
            later_begin_at = later_begin_at.min(aborted.first_offset);
        }
    }

    /// Forgets aborted transactions whose records and marker compaction has removed.
    pub(crate) fn forget_aborted(&mut self, markers_below: i64) {
        let forgotten = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < markers_below);
        self.aborted.drain(..forgotten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sample, batch};

    const PRODUCERS: i64 = 4;

    /// A partition with many transactions of a few producers, that begin and end across one another.
    fn busy() -> Partition {
        let mut partition = Partition::new(0, "t".into(), 0);
        let mut random = 1u64;
        for _ in 0..300 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
            let choice = (random >> 33) as i64;
            let producer_id = choice % PRODUCERS;
            if choice % 3 == 0 {
                let marker = Marker {
                    producer_id,
                    epoch: 0,
                    committed: choice % 2 == 0,
                };
                partition.end_transaction(marker, 0);
                continue;
            }
            let (header, _) = batch(Sample {
                producer_id,
                epoch: 0,
                sequence: 0,
                records: 2,
                transactional: true,
            });
            let place = Place {
                segment: 1,
                position: 16,
            };
            partition.append(&header, place, 0);
        }
        partition
    }

    #[test]
    fn the_aborted_transactions_of_a_stretch_are_found_without_looking_at_all() {
        let mut partition = busy();
        assert!(partition.aborted.len() > 20 && !partition.open.is_empty());
        for restored in [false, true] {
            if restored {
                partition
                    .aborted
                    .iter_mut()
                    .for_each(|a| a.later_begin_at = 0);
                partition.bound_aborted();
            }
            for from in 0..partition.log_end {
                for below in from..partition.log_end {
                    let found: Vec<_> = partition.aborted_between(from, below).collect();
                    let all = partition.aborted.iter();
                    let expected: Vec<_> = all
                        .filter(|a| a.last_offset >= from && a.first_offset < below)
                        .collect();
                    assert_eq!(found, expected, "{from} to {below}");
                }
            }
            let near = partition.aborted[0].later_begin_at;
            assert!(near < partition.aborted[partition.aborted.len() / 2].first_offset);
        }
    }
}
