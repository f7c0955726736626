//! Retention: ended runs are removed some time after their end, a few at a time.

use super::partition::Partition;
use crate::codec::keys::EntryKey;
use crate::codec::state;
use crate::model::{Millis, RunId, Timestamp};
use crate::store::StoreError;

/// Entries of the store that one pass looks at.
const ENTRIES_PER_PASS: usize = 2_000;

/// Runs that one pass removes.
const RUNS_PER_PASS: usize = 500;

/// Between two passes while there is more to look at, and between two rounds.
const BETWEEN_PASSES: Millis = Millis(1_000);
const BETWEEN_ROUNDS: Millis = Millis(60_000);

/// Where the sweep of a partition stands.
#[derive(Default)]
pub(super) struct Sweep {
    after: Option<Vec<u8>>,
    next: Timestamp,
}

impl Sweep {
    pub fn begin(&mut self, now: Timestamp) {
        self.after = None;
        self.next = now + BETWEEN_ROUNDS;
    }

    /// The entries of runs that ended longer ago than `retention`, where it is time to look. Only
    /// what the store has is looked at; the rest gets there first.
    pub fn pass(
        &mut self,
        partition: &Partition,
        retention: Millis,
        now: Timestamp,
    ) -> Result<Vec<EntryKey>, StoreError> {
        if now < self.next {
            return Ok(Vec::new());
        }
        let mut expired = Vec::new();
        let mut runs = 0;
        let mut seen = 0;
        let mut last = None;
        partition
            .store()
            .scan(self.after.as_deref(), &mut |key, value| {
                seen += 1;
                last = Some(key.to_vec());
                if let Some(EntryKey::Run(id)) = EntryKey::parse(key)
                    && is_over(&id, value, retention, now)
                    && is_current(partition, &id, value)
                {
                    runs += 1;
                    let slots = state::large_slots(&id, value).unwrap_or_default();
                    expired.extend(
                        slots
                            .into_iter()
                            .map(|slot| EntryKey::Value(id.clone(), slot)),
                    );
                    expired.push(EntryKey::Run(id));
                }
                seen < ENTRIES_PER_PASS && runs < RUNS_PER_PASS
            })?;
        let is_round_over = seen < ENTRIES_PER_PASS && runs < RUNS_PER_PASS;
        self.after = last.filter(|_| !is_round_over);
        self.next = now
            + if is_round_over {
                BETWEEN_ROUNDS
            } else {
                BETWEEN_PASSES
            };
        Ok(expired)
    }
}

fn is_over(id: &RunId, entry: &[u8], retention: Millis, now: Timestamp) -> bool {
    let ended = state::facts(id, entry)
        .ok()
        .and_then(|facts| facts.ended_at);
    ended.is_some_and(|ended| ended + retention <= now)
}

/// The store may lag: what is in the cache is younger.
fn is_current(partition: &Partition, id: &RunId, entry: &[u8]) -> bool {
    match partition.cache().entry(id) {
        None => true,
        Some(cached) => cached.is_none_or(|cached| *cached == *entry),
    }
}
