//! Which records of a topic are done with: a group's offset may only move up to the first record
//! that is not, whatever order they are finished in.

use std::collections::{BTreeSet, HashMap};

#[derive(Debug, Default)]
struct Partition {
    /// Offset after the last record that was read.
    next: i64,
    /// Read and not done with.
    open: BTreeSet<i64>,
    /// As last given out by [`Positions::to_commit`].
    committed: Option<i64>,
}

/// Positions of the partitions of one topic.
#[derive(Debug, Default)]
pub struct Positions {
    partitions: HashMap<i32, Partition>,
}

impl Positions {
    /// A record was read; it is open until it is [`Positions::done`].
    pub fn read(&mut self, partition: i32, offset: i64) {
        let positions = self.partitions.entry(partition).or_default();
        positions.next = positions.next.max(offset + 1);
        positions.open.insert(offset);
    }

    /// The record is answered, cancelled or of no more use. Unknown ones (of a partition that was
    /// taken away) are ignored.
    pub fn done(&mut self, partition: i32, offset: i64) {
        if let Some(positions) = self.partitions.get_mut(&partition) {
            positions.open.remove(&offset);
        }
    }

    /// Records read and not done with, over all partitions.
    pub fn open(&self) -> usize {
        self.partitions
            .values()
            .map(|partition| partition.open.len())
            .sum()
    }

    /// Offsets to commit (of the next record to be read after a restart) that moved since the last
    /// call.
    pub fn to_commit(&mut self) -> Vec<(i32, i64)> {
        let mut moved = Vec::new();
        for (partition, positions) in &mut self.partitions {
            let safe = positions.open.first().copied().unwrap_or(positions.next);
            if positions.committed != Some(safe) {
                positions.committed = Some(safe);
                moved.push((*partition, safe));
            }
        }
        moved
    }

    /// The partition was taken away.
    pub fn forget(&mut self, partition: i32) {
        self.partitions.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_stop_at_the_first_open_record() {
        let mut positions = Positions::default();
        for offset in [5, 6, 9] {
            positions.read(0, offset);
        }
        assert_eq!(positions.to_commit(), [(0, 5)]);
        positions.done(0, 6);
        assert_eq!(positions.to_commit(), []);
        positions.done(0, 5);
        assert_eq!(positions.to_commit(), [(0, 9)]);
        positions.done(0, 9);
        assert_eq!(positions.to_commit(), [(0, 10)]);
        assert_eq!(positions.open(), 0);
        positions.forget(0);
        positions.done(0, 9);
        assert_eq!(positions.to_commit(), []);
    }
}
