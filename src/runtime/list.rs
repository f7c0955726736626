//! Listing runs, newest first: what is in memory, and ended runs that only the store has.

use std::collections::BinaryHeap;

use super::handle::{ListCursor, RunFilter};
use super::partition::Partition;
use crate::codec::keys::EntryKey;
use crate::codec::state;
use crate::model::{RunId, RunState, RunStatus, Timestamp};
use crate::store::StoreError;

/// Runs taken from memory under one lock, and as many as came in the last one's moment.
const CHUNK: usize = 256;

/// Up to `limit` runs of the partition that match, newest first.
pub(super) fn of_partition(
    partition: &Partition,
    filter: &RunFilter,
    limit: usize,
    after: Option<&ListCursor>,
) -> Result<Vec<RunState>, StoreError> {
    let mut runs = in_memory(partition, filter, limit, after)?;
    if partition.cache().has_evicted() {
        runs.extend(in_store(partition, filter, limit, after)?);
        runs.sort_by(|a, b| place(b).cmp(&place(a)));
        runs.dedup_by(|a, b| a.id == b.id);
        runs.truncate(limit);
    }
    Ok(runs)
}

/// What runs are ordered by.
pub(super) fn place(run: &RunState) -> (Timestamp, &str) {
    (run.created_at, run.id.as_str())
}

fn in_memory(
    partition: &Partition,
    filter: &RunFilter,
    limit: usize,
    after: Option<&ListCursor>,
) -> Result<Vec<RunState>, StoreError> {
    let mut runs = Vec::new();
    let mut before = after.map(|cursor| (cursor.created_at, cursor.run.clone()));
    while runs.len() < limit {
        let chunk = partition.cache().newest(before.as_ref(), CHUNK);
        let Some(last) = chunk.last() else {
            break;
        };
        before = Some((last.created_at, last.id.clone()));
        let is_older = filter.since.is_some_and(|since| last.created_at < since);
        for listed in chunk {
            if runs.len() == limit || !may_match(filter, listed.status, listed.created_at) {
                continue;
            }
            runs.extend(
                partition
                    .run(&listed.id)?
                    .filter(|run| matches(filter, run)),
            );
        }
        if is_older {
            break;
        }
    }
    Ok(runs)
}

/// An entry of the store, ordered so that a heap gives up the oldest first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Found {
    place: std::cmp::Reverse<(Timestamp, RunId)>,
    entry: Vec<u8>,
}

fn in_store(
    partition: &Partition,
    filter: &RunFilter,
    limit: usize,
    after: Option<&ListCursor>,
) -> Result<Vec<RunState>, StoreError> {
    let mut newest: BinaryHeap<Found> = BinaryHeap::new();
    let mut failure = None;
    partition.store().scan(None, &mut |key, entry| {
        let Some(EntryKey::Run(id)) = EntryKey::parse(key) else {
            return true;
        };
        let Ok(facts) = state::facts(&id, entry) else {
            return true;
        };
        let place = (facts.created_at, id);
        let is_after =
            after.is_none_or(|cursor| (place.0, &place.1) < (cursor.created_at, &cursor.run));
        let is_full = newest.len() >= limit;
        let is_too_old = is_full && newest.peek().is_some_and(|oldest| place <= oldest.place.0);
        if !facts.status.is_ended()
            || !is_after
            || is_too_old
            || !may_match(filter, facts.status, facts.created_at)
        {
            return true;
        }
        if !filter.tags.is_empty() || filter.workflow.is_some() || filter.record.is_some() {
            match partition.decode(&place.1, entry) {
                Ok(run) if !matches(filter, &run) => return true,
                Ok(_) => {}
                Err(error) => {
                    failure = Some(error);
                    return false;
                }
            }
        }
        newest.push(Found {
            place: std::cmp::Reverse(place),
            entry: entry.to_vec(),
        });
        if newest.len() > limit {
            newest.pop();
        }
        true
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    newest
        .into_iter()
        .map(|found| partition.decode(&found.place.0.1, &found.entry))
        .collect()
}

fn may_match(filter: &RunFilter, status: RunStatus, created_at: Timestamp) -> bool {
    filter.status.is_none_or(|wanted| wanted == status)
        && filter.since.is_none_or(|since| created_at >= since)
        && filter.until.is_none_or(|until| created_at < until)
}

fn matches(filter: &RunFilter, run: &RunState) -> bool {
    may_match(filter, run.status, run.created_at)
        && filter
            .workflow
            .as_ref()
            .is_none_or(|workflow| **workflow == *run.workflow)
        && filter.record.as_ref().is_none_or(|record| {
            let provenance = run.provenance.as_deref();
            provenance.is_some_and(|provenance| provenance.names(record))
        })
        && filter
            .tags
            .iter()
            .all(|(name, value)| run.tags.get(name) == Some(value))
}
