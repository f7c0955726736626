//! From assigned to working: open the store, ask where the input begins, read the changelog from
//! the store's offset to its end. In that order: what the committed positions stand for lies below
//! an end that is asked for after them.

use std::sync::Arc;

use super::meters;
use super::partition::{Change, Partition};
use super::worker::{Phase, Worker};
use crate::codec::CodecError;
use crate::log::{ChangelogReader, ErrorClass, LogError, Positions};
use crate::model::Timestamp;
use crate::store::memory::MemoryStore;

/// Changelog records that one step reads, so that other partitions are not kept waiting.
const RECORDS_PER_STEP: usize = 5_000;

/// A restore under way.
pub(super) struct Restoring {
    reader: Box<dyn ChangelogReader>,
    /// Where the input begins afterwards.
    positions: Positions,
}

impl Worker {
    /// Moves each partition that is not working yet on by a piece; how many pieces.
    pub(super) fn go_on_restoring(&mut self, now: Timestamp) -> Result<usize, LogError> {
        let waiting: Vec<i32> = self
            .owned
            .iter()
            .filter(|(_, owned)| !matches!(owned.phase, Phase::Working))
            .map(|(number, _)| *number)
            .collect();
        for &number in &waiting {
            let Some(owned) = self.owned.get_mut(&number) else {
                continue;
            };
            match std::mem::replace(&mut owned.phase, Phase::Opening) {
                Phase::Held | Phase::Opening => self.open(number)?,
                Phase::Restoring(restoring) => self.restore(number, restoring, now)?,
                Phase::Working => {}
            }
        }
        Ok(waiting.len())
    }

    fn open(&mut self, number: i32) -> Result<(), LogError> {
        let Some(known) = self.owned.get(&number).map(|owned| owned.partition.clone()) else {
            return Ok(());
        };
        if !self.shared.claim(number, self.config.number) {
            if let Some(owned) = self.owned.get_mut(&number) {
                owned.phase = Phase::Held;
            }
            return Ok(());
        }
        let mut partition = match known {
            Some(partition) => partition,
            None => self.open_store(number),
        };
        let positions = self.log.committed(number)?;
        let from = partition.changelog_offset();
        let reader = self.log.changelog(number, from)?;
        if reader.position() < from {
            tracing::warn!(
                partition = number,
                from,
                "the store is of another changelog; rebuilding"
            );
            partition = self.rebuild(number);
        }
        self.shared.add_partition(Arc::clone(&partition));
        if let Some(owned) = self.owned.get_mut(&number) {
            owned.partition = Some(partition);
            owned.phase = Phase::Restoring(Restoring { reader, positions });
        }
        Ok(())
    }

    fn open_store(&self, number: i32) -> Arc<Partition> {
        let opened = self
            .stores
            .open(self.log.cluster(), number)
            .and_then(|store| Partition::open(number, store, self.config.cache_bytes));
        match opened {
            Ok(partition) => Arc::new(partition),
            Err(error) => {
                tracing::warn!(%error, partition = number, "rebuilding the store from the changelog");
                self.rebuild(number)
            }
        }
    }

    /// An empty partition; where the disk does not work at all, one in memory.
    fn rebuild(&self, number: i32) -> Arc<Partition> {
        let emptied = self
            .stores
            .open(self.log.cluster(), number)
            .and_then(|store| Partition::rebuild(number, store));
        Arc::new(emptied.unwrap_or_else(|error| {
            tracing::error!(%error, partition = number, "the store does not work; going on in memory");
            let in_memory = Arc::new(MemoryStore::default());
            Partition::rebuild(number, in_memory).expect("a store in memory does not fail")
        }))
    }

    /// The partition's store does not give back what it was given: begin anew, from the changelog.
    pub(super) fn reopen_empty(&mut self, number: i32) {
        let partition = self.rebuild(number);
        if let Some(owned) = self.owned.get_mut(&number) {
            owned.partition = Some(partition);
            owned.phase = Phase::Opening;
        }
    }

    fn restore(
        &mut self,
        number: i32,
        mut restoring: Restoring,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let Some(owned) = self.owned.get_mut(&number) else {
            return Ok(());
        };
        let Some(partition) = owned.partition.clone() else {
            return Ok(());
        };
        let mut changes = Vec::new();
        let mut too_new = None;
        let progress =
            restoring
                .reader
                .read(
                    RECORDS_PER_STEP,
                    &mut |record| match Change::decode(record.key, record.value) {
                        Ok(change) => changes.push(change),
                        Err(error @ CodecError::TooNew { .. }) => too_new = Some(error),
                        Err(error) => {
                            let key = String::from_utf8_lossy(record.key);
                            tracing::error!(
                                %error, %key, partition = number, offset = record.offset,
                                "skipping a record of the changelog that is not ours"
                            );
                        }
                    },
                )?;
        if let Some(error) = too_new {
            // Going on would overwrite what a later version knows and we do not.
            let reason = format!("partition {number}: {error}");
            return Err(LogError {
                class: ErrorClass::Retriable,
                doing: "restoring",
                reason,
            });
        }
        partition.fold(changes, progress.position);
        meters::restoring(number, progress.remaining);
        if partition.cache().bytes() > self.config.cache_bytes {
            if let Err(error) = partition.write_behind() {
                tracing::warn!(%error, partition = number, "the store fails");
            }
            partition
                .cache_mut()
                .evict(self.config.cache_bytes, usize::MAX);
        }
        if !progress.done {
            owned.phase = Phase::Restoring(restoring);
            return Ok(());
        }
        self.log.start(number, restoring.positions)?;
        owned.positions = restoring.positions;
        owned.phase = Phase::Working;
        owned.sweep.begin(now);
        // Runs are pinned to definitions that other instances may have applied by now.
        self.definitions.catch_up();
        partition.set_restored(true);
        let live_runs = partition.cache().live();
        tracing::info!(partition = number, live_runs, "restored");
        Ok(())
    }
}
