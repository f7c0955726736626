//! What an instance keeps in memory of one partition: the encoded entry of each live run and of
//! ended ones that are not in the store yet or still fit, what is due when, and which runs wait
//! for a place. An entry is decoded when the engine asks for it: encoded, a waiting run of five
//! steps takes a few hundred bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::tags::TagIndex;
use crate::codec::state::EntryFacts;
use crate::engine::{Parked, ParkedKey};
use crate::model::{Json, RunId, RunStatus, Timestamp};

/// Bytes that a cached run takes besides its entry: its places in map, timers and indexes, and
/// its id.
const OVERHEAD_BYTES: usize = 250;

/// Something that has fallen due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Run(RunId),
    Parked(ParkedKey),
}

struct CachedRun {
    /// `None`: evicted, the store has it.
    entry: Option<Arc<[u8]>>,
    facts: EntryFacts,
    /// Its place in `timers`.
    timer: Option<Timestamp>,
    /// The store has this very entry.
    is_stored: bool,
}

/// See the module.
#[derive(Default)]
pub struct Cache {
    runs: FxHashMap<RunId, CachedRun>,
    /// Values too large for their runs' entries.
    values: FxHashMap<(RunId, u32), Json>,
    parked: BTreeMap<ParkedKey, Parked>,
    timers: BTreeSet<(Timestamp, RunId)>,
    parked_due: BTreeSet<(Timestamp, ParkedKey)>,
    pending: BTreeSet<(Reverse<i32>, Timestamp, RunId)>,
    by_creation: BTreeSet<(Timestamp, RunId)>,
    by_tag: TagIndex,
    /// Ended runs that the store has, oldest first: the first to go.
    disposable: VecDeque<RunId>,
    live: usize,
    bytes: usize,
    /// Whether the store knows ended runs that are not here.
    has_evicted: bool,
}

fn is_live(status: RunStatus) -> bool {
    matches!(status, RunStatus::Running | RunStatus::Paused)
}

impl Cache {
    /// The run's entry. `Some(None)`: it is known and evicted.
    pub fn entry(&self, id: &RunId) -> Option<Option<Arc<[u8]>>> {
        self.runs.get(id).map(|run| run.entry.clone())
    }

    pub fn facts(&self, id: &RunId) -> Option<EntryFacts> {
        self.runs.get(id).map(|run| run.facts)
    }

    pub fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    pub fn note_evicted(&mut self) {
        self.has_evicted = true;
    }

    /// Running and paused runs.
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pending runs by priority, then creation, then id.
    pub fn pending(&self, limit: usize) -> Vec<RunId> {
        self.pending
            .iter()
            .take(limit)
            .map(|(_, _, run)| run.clone())
            .collect()
    }

    pub fn value(&self, run: &RunId, slot: u32) -> Option<Json> {
        self.values.get(&(run.clone(), slot)).cloned()
    }

    pub fn parked(&self, run: &RunId) -> Vec<(ParkedKey, Parked)> {
        let from = ParkedKey {
            run: run.clone(),
            offset: i64::MIN,
        };
        let of_run = self
            .parked
            .range(from..)
            .take_while(|(key, _)| key.run == *run);
        of_run
            .map(|(key, parked)| (key.clone(), parked.clone()))
            .collect()
    }

    /// Notes the tags of a run whose entry is new here, before it is put there; forgets those of
    /// one that has ended.
    pub fn index_tags(&mut self, id: &RunId, entry: &[u8], status: RunStatus) {
        let is_indexed = self.facts(id).is_some_and(|facts| !facts.status.is_ended());
        match (is_indexed, !status.is_ended()) {
            (false, true) => self.by_tag.insert(id, entry),
            (true, false) => self.by_tag.remove(id, entry),
            _ => {}
        }
    }

    /// See [`crate::engine::StateView::tagged`].
    pub fn tagged(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId> {
        self.by_tag.find(tags, after, limit)
    }

    /// Puts a run's entry in the place of an earlier one.
    pub fn put_run(
        &mut self,
        id: &RunId,
        entry: Option<Arc<[u8]>>,
        facts: EntryFacts,
        is_stored: bool,
    ) {
        let Some(run) = self.runs.get_mut(id) else {
            return self.insert_run(id, entry, facts, is_stored);
        };
        let length = |entry: &Option<Arc<[u8]>>| entry.as_ref().map_or(0, |entry| entry.len());
        self.bytes = self.bytes - length(&run.entry) + length(&entry);
        let before = std::mem::replace(&mut run.facts, facts);
        let timer = std::mem::replace(&mut run.timer, facts.next_due);
        run.entry = entry;
        run.is_stored = is_stored;
        // Most transitions move neither of these; the trees are touched only where one does.
        self.live =
            self.live - usize::from(is_live(before.status)) + usize::from(is_live(facts.status));
        if timer != facts.next_due {
            if let Some(due) = timer {
                self.timers.remove(&(due, id.clone()));
            }
            if let Some(due) = facts.next_due {
                self.timers.insert((due, id.clone()));
            }
        }
        let place = |facts: &EntryFacts| (Reverse(facts.priority), facts.created_at, id.clone());
        let (was_pending, is_pending) = (
            before.status == RunStatus::Pending,
            facts.status == RunStatus::Pending,
        );
        if was_pending != is_pending || (is_pending && before.priority != facts.priority) {
            self.pending.remove(&place(&before));
            if is_pending {
                self.pending.insert(place(&facts));
            }
        }
        if before.created_at != facts.created_at {
            self.by_creation.remove(&(before.created_at, id.clone()));
            self.by_creation.insert((facts.created_at, id.clone()));
        }
    }

    fn insert_run(
        &mut self,
        id: &RunId,
        entry: Option<Arc<[u8]>>,
        facts: EntryFacts,
        is_stored: bool,
    ) {
        let entry_bytes = entry.as_ref().map_or(0, |entry| entry.len());
        self.bytes += OVERHEAD_BYTES + id.as_str().len() + entry_bytes;
        self.live += usize::from(is_live(facts.status));
        if facts.status == RunStatus::Pending {
            self.pending
                .insert((Reverse(facts.priority), facts.created_at, id.clone()));
        }
        if let Some(due) = facts.next_due {
            self.timers.insert((due, id.clone()));
        }
        self.by_creation.insert((facts.created_at, id.clone()));
        let timer = facts.next_due;
        self.runs.insert(
            id.clone(),
            CachedRun {
                entry,
                facts,
                timer,
                is_stored,
            },
        );
    }

    /// Takes the run out; its large values stay.
    fn forget(&mut self, id: &RunId) {
        let Some(run) = self.runs.remove(id) else {
            return;
        };
        let entry_bytes = run.entry.as_ref().map_or(0, |entry| entry.len());
        self.bytes -= OVERHEAD_BYTES + id.as_str().len() + entry_bytes;
        self.live -= usize::from(is_live(run.facts.status));
        if run.facts.status == RunStatus::Pending {
            self.pending.remove(&(
                Reverse(run.facts.priority),
                run.facts.created_at,
                id.clone(),
            ));
        }
        if let Some(due) = run.timer {
            self.timers.remove(&(due, id.clone()));
        }
        self.by_creation.remove(&(run.facts.created_at, id.clone()));
    }

    /// The run is gone for good.
    pub fn remove_run(&mut self, id: &RunId) {
        self.forget(id);
    }

    pub fn put_value(&mut self, run: &RunId, slot: u32, value: Json) {
        self.bytes += value.len();
        if let Some(before) = self.values.insert((run.clone(), slot), value) {
            self.bytes -= before.len();
        }
    }

    pub fn remove_value(&mut self, run: &RunId, slot: u32) {
        if let Some(before) = self.values.remove(&(run.clone(), slot)) {
            self.bytes -= before.len();
        }
    }

    pub fn put_parked(&mut self, key: ParkedKey, parked: Option<Parked>) {
        if let Some(before) = self.parked.remove(&key) {
            self.parked_due.remove(&(before.due, key.clone()));
        }
        if let Some(parked) = parked {
            self.parked_due.insert((parked.due, key.clone()));
            self.parked.insert(key, parked);
        }
    }

    pub fn has_parked(&self, key: &ParkedKey) -> bool {
        self.parked.contains_key(key)
    }

    /// The run's timer does not count before `until`.
    pub fn hold(&mut self, id: &RunId, until: Timestamp) {
        let Some(run) = self.runs.get_mut(id) else {
            return;
        };
        if let Some(due) = run.timer.replace(until) {
            self.timers.remove(&(due, id.clone()));
        }
        self.timers.insert((until, id.clone()));
    }

    /// Whether the run's timer is due.
    pub fn is_due(&self, id: &RunId, now: Timestamp) -> bool {
        self.runs
            .get(id)
            .and_then(|run| run.timer)
            .is_some_and(|due| due <= now)
    }

    /// What is due at `now`, earliest first.
    pub fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let runs = self.timers.iter().take_while(|(due, _)| *due <= now);
        let parked = self.parked_due.iter().take_while(|(due, _)| *due <= now);
        let runs = runs.map(|(_, run)| Due::Run(run.clone()));
        runs.chain(parked.map(|(_, key)| Due::Parked(key.clone())))
            .take(limit)
            .collect()
    }

    /// When the next thing falls due.
    pub fn next_due(&self) -> Option<Timestamp> {
        let run = self.timers.first().map(|(due, _)| *due);
        let parked = self.parked_due.first().map(|(due, _)| *due);
        run.into_iter().chain(parked).min()
    }

    /// Runs here, newest first, from the first after `before` (exclusive).
    pub fn newest<'a>(
        &'a self,
        before: Option<&(Timestamp, RunId)>,
    ) -> impl Iterator<Item = &'a (Timestamp, RunId)> + use<'a> {
        let range = match before {
            None => self.by_creation.range::<(Timestamp, RunId), _>(..),
            Some(before) => self.by_creation.range(..before.clone()),
        };
        range.rev()
    }

    /// The store has this entry of the run.
    pub fn note_stored(&mut self, id: &RunId, entry: &Arc<[u8]>) {
        let Some(run) = self.runs.get_mut(id) else {
            return;
        };
        if run
            .entry
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, entry))
        {
            run.is_stored = true;
            if run.facts.status.is_ended() {
                self.disposable.push_back(id.clone());
            }
        }
    }

    /// Makes room: ended runs that the store has go first, then entries of live runs that it has
    /// (their timers stay). Looks at no more than `at_most` runs.
    pub fn evict(&mut self, limit_bytes: usize, at_most: usize) {
        for _ in 0..at_most {
            if self.bytes <= limit_bytes {
                return;
            }
            let Some(id) = self.disposable.pop_front() else {
                break;
            };
            if self
                .runs
                .get(&id)
                .is_some_and(|run| run.is_stored && run.facts.status.is_ended())
            {
                self.forget(&id);
                self.drop_values(&id);
                self.has_evicted = true;
            }
        }
        if self.bytes <= limit_bytes {
            return;
        }
        let mut freed = 0;
        let excess = self.bytes - limit_bytes;
        for run in self
            .runs
            .values_mut()
            .filter(|run| run.is_stored && run.entry.is_some())
            .take(at_most)
        {
            freed += run.entry.take().map_or(0, |entry| entry.len());
            if freed >= excess {
                break;
            }
        }
        self.bytes -= freed;
        if freed < excess {
            let of_values: usize = self.values.values().map(Json::len).sum();
            let stored = |id: &RunId| self.runs.get(id).is_none_or(|run| run.is_stored);
            let kept: FxHashMap<_, _> = self
                .values
                .drain()
                .collect::<Vec<_>>()
                .into_iter()
                .filter(|((id, _), _)| !stored(id))
                .collect();
            self.values = kept;
            self.bytes -= of_values - self.values.values().map(Json::len).sum::<usize>();
        }
    }

    fn drop_values(&mut self, id: &RunId) {
        if self.values.is_empty() {
            return;
        }
        let slots: Vec<u32> = self
            .values
            .keys()
            .filter(|(run, _)| run == id)
            .map(|(_, slot)| *slot)
            .collect();
        for slot in slots {
            self.remove_value(id, slot);
        }
    }
}
