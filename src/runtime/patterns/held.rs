//! Matches that wait for the tables which their rule joins: in the order in which they were found, and
//! in the changelog, so that none is lost with its owner.

use std::collections::BTreeMap;

use super::batch::Batch;
use super::partition::RuleId;
use super::running::{joined, pieces};
use crate::codec::pattern_state::PatternKey;
use crate::pattern::Match;

/// Matches of one rule that wait in one partition, at most.
const MAX_HELD: usize = 10_000;

#[derive(Default)]
pub(super) struct Held {
    /// The matches by number, and the pieces in which each is saved.
    matches: BTreeMap<u64, (Match, u32)>,
}

/// Too many wait already.
pub(super) struct TooMany;

impl Held {
    /// What was saved of them: pieces by number.
    pub(super) fn restore(id: &RuleId, saved: BTreeMap<u64, BTreeMap<u32, Vec<u8>>>) -> Self {
        let mut matches = BTreeMap::new();
        for (number, parts) in saved {
            let read = joined(&parts).and_then(|(count, bytes)| {
                let found = Match::from_bytes(&bytes)?;
                Ok((found, count))
            });
            match read {
                Ok(held) => drop(matches.insert(number, held)),
                Err(error) => tracing::error!(rule = id, number, error, "a match is lost"),
            }
        }
        Self { matches }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }

    /// The keys under which they are saved.
    pub(super) fn keys(&self, id: &RuleId) -> impl Iterator<Item = PatternKey> {
        let matches = self.matches.iter();
        matches.flat_map(move |(number, (_, count))| {
            (0..*count).map(move |part| entry(id, *number, part))
        })
    }

    /// The one that was found first.
    pub(super) fn first(&self) -> Option<&Match> {
        let (_, (found, _)) = self.matches.first_key_value()?;
        Some(found)
    }

    /// # Errors
    /// There are so many that this one finds no room.
    pub(super) fn push(
        &mut self,
        id: &RuleId,
        found: &Match,
        batch: &mut Batch,
    ) -> Result<(), TooMany> {
        if self.matches.len() >= MAX_HELD {
            return Err(TooMany);
        }
        let last = self.matches.last_key_value();
        let number = last.map_or(0, |(number, _)| number + 1);
        let mut count = 0;
        for (part, value) in (0..).zip(pieces(&found.to_bytes())) {
            batch.entries.push((entry(id, number, part), Some(value)));
            count += 1;
        }
        self.matches.insert(number, (found.clone(), count));
        Ok(())
    }

    /// Takes the one that was found first.
    pub(super) fn pop(&mut self, id: &RuleId, batch: &mut Batch) -> Option<Match> {
        let (number, (found, count)) = self.matches.pop_first()?;
        let parts = (0..count).map(|part| (entry(id, number, part), None));
        batch.entries.extend(parts);
        Some(found)
    }
}

fn entry(id: &RuleId, number: u64, part: u32) -> PatternKey {
    PatternKey::Held {
        rule: id.clone(),
        number,
        part,
    }
}
