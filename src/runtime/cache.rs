//! What an instance keeps in memory of one partition: the encoded entry of each run that moved lately
//! or that the store does not have yet, what is due when, and which runs wait for a place. The entry of
//! a run that rests is in the store alone. An entry is decoded when the engine asks for it: encoded, a
//! waiting run of five steps takes a few hundred bytes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::slots::{Place, Slots};
use super::tags::TagIndex;
use crate::codec::awaiting::Awaiting;
use crate::codec::state::EntryFacts;
use crate::engine::{Parked, ParkedKey};
use crate::model::{Json, RunId, RunStatus, Timestamp};

/// Bytes that a cached run takes besides its entry and the text of its id: its slot, and its
/// places in map, timers and indexes.
const OVERHEAD_BYTES: usize = 228;

/// Runs that one look for those at rest goes through at most, so that nobody waits for it.
const MOST_LOOKED_AT: Place = 16_384;

/// Something that has fallen due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    Run(RunId),
    Parked(ParkedKey),
}

/// What is kept of a run's facts is what the indexes need: the rest is in its entry.
struct CachedRun {
    id: RunId,
    /// `None`: evicted, the store has it.
    entry: Option<Arc<[u8]>>,
    created_at: Timestamp,
    /// When it stands in `timers`.
    timer: Option<Timestamp>,
    priority: i32,
    status: RunStatus,
    awaiting: Awaiting,
    /// The store has this very entry.
    is_stored: bool,
    /// It has not moved since it was looked at last for that.
    is_at_rest: bool,
}

impl CachedRun {
    fn entry_bytes(&self) -> usize {
        self.entry.as_ref().map_or(0, |entry| entry.len())
    }

    /// Leaves the entry to the store, where the store has it; how many bytes that frees.
    fn evict_entry(&mut self) -> usize {
        let entry = self.entry.take_if(|_| self.is_stored);
        entry.map_or(0, |entry| entry.len())
    }

    /// Where it stands among the pending ones, if it is one.
    fn among_pending(&self) -> Option<(Reverse<i32>, Timestamp, RunId)> {
        let place = || (Reverse(self.priority), self.created_at, self.id.clone());
        (self.status == RunStatus::Pending).then(place)
    }
}

/// A run as lists need it.
pub struct Listed {
    pub created_at: Timestamp,
    pub id: RunId,
    pub status: RunStatus,
}

/// See the module.
#[derive(Default)]
pub struct Cache {
    runs: Slots<CachedRun>,
    /// Values too large for their runs' entries.
    values: FxHashMap<(RunId, u32), Json>,
    parked: BTreeMap<ParkedKey, Parked>,
    timers: BTreeSet<(Timestamp, Place)>,
    parked_due: BTreeSet<(Timestamp, ParkedKey)>,
    pending: BTreeSet<(Reverse<i32>, Timestamp, RunId)>,
    by_creation: BTreeSet<(Timestamp, Place)>,
    by_tag: TagIndex,
    /// Ended runs that the store has, oldest first: the first to go.
    disposable: VecDeque<RunId>,
    /// The place that the next look for entries to evict begins at.
    hand: Place,
    live: usize,
    awaiting: Awaiting,
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

    /// `None`: the run is not here, though the store may have it.
    pub fn status(&self, id: &RunId) -> Option<RunStatus> {
        self.runs.get(id).map(|run| run.status)
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

    /// Steps of these runs that wait for something from outside.
    pub fn awaiting(&self) -> Awaiting {
        self.awaiting
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
        let is_indexed = self.status(id).is_some_and(|status| !status.is_ended());
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
        let Some(place) = self.runs.place(id) else {
            return self.insert_run(id, entry, facts, is_stored);
        };
        let Some(run) = self.runs.at_mut(place) else {
            return;
        };
        let pending_before = run.among_pending();
        let (bytes, status) = (run.entry_bytes(), run.status);
        let (created_at, timer) = (run.created_at, run.timer);
        run.entry = entry;
        run.created_at = facts.created_at;
        run.timer = facts.next_due;
        run.priority = facts.priority;
        run.status = facts.status;
        self.awaiting -= run.awaiting;
        run.awaiting = facts.awaiting;
        self.awaiting += run.awaiting;
        run.is_stored = is_stored;
        run.is_at_rest = false;
        let pending = run.among_pending();
        self.bytes = self.bytes - bytes + run.entry_bytes();
        self.live = self.live - usize::from(is_live(status)) + usize::from(is_live(facts.status));
        // Most transitions move none of these; the trees are touched only where one does.
        if timer != facts.next_due {
            self.move_timer(place, timer, facts.next_due);
        }
        if pending_before != pending {
            if let Some(before) = pending_before {
                self.pending.remove(&before);
            }
            self.pending.extend(pending);
        }
        if created_at != facts.created_at {
            self.by_creation.remove(&(created_at, place));
            self.by_creation.insert((facts.created_at, place));
        }
    }

    fn insert_run(
        &mut self,
        id: &RunId,
        entry: Option<Arc<[u8]>>,
        facts: EntryFacts,
        is_stored: bool,
    ) {
        let run = CachedRun {
            id: id.clone(),
            entry,
            created_at: facts.created_at,
            timer: facts.next_due,
            priority: facts.priority,
            status: facts.status,
            awaiting: facts.awaiting,
            is_stored,
            is_at_rest: false,
        };
        self.bytes += OVERHEAD_BYTES + id.as_str().len() + run.entry_bytes();
        self.live += usize::from(is_live(run.status));
        self.awaiting += run.awaiting;
        self.pending.extend(run.among_pending());
        let place = self.runs.insert(id.clone(), run);
        self.move_timer(place, None, facts.next_due);
        self.by_creation.insert((facts.created_at, place));
    }

    fn move_timer(&mut self, place: Place, from: Option<Timestamp>, to: Option<Timestamp>) {
        if let Some(due) = from {
            self.timers.remove(&(due, place));
        }
        if let Some(due) = to {
            self.timers.insert((due, place));
        }
    }

    /// Takes the run out; its large values stay.
    fn forget(&mut self, id: &RunId) {
        let Some((place, run)) = self.runs.remove(id) else {
            return;
        };
        self.bytes -= OVERHEAD_BYTES + id.as_str().len() + run.entry_bytes();
        self.live -= usize::from(is_live(run.status));
        self.awaiting -= run.awaiting;
        if let Some(pending) = run.among_pending() {
            self.pending.remove(&pending);
        }
        self.move_timer(place, run.timer, None);
        self.by_creation.remove(&(run.created_at, place));
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
        let Some(place) = self.runs.place(id) else {
            return;
        };
        let before = self
            .runs
            .at_mut(place)
            .and_then(|run| run.timer.replace(until));
        self.move_timer(place, before, Some(until));
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
        let runs = runs.filter_map(|(_, place)| self.runs.at(*place));
        let runs = runs.map(|run| Due::Run(run.id.clone()));
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

    /// Runs here, newest first (of one moment: the last by id), from the first after `before`
    /// (exclusive): `at_least` of them where there are as many, and those of the last one's moment.
    pub fn newest(&self, before: Option<&(Timestamp, RunId)>, at_least: usize) -> Vec<Listed> {
        let range = match before {
            None => self.by_creation.range::<(Timestamp, Place), _>(..),
            Some((moment, _)) => self.by_creation.range(..=(*moment, Place::MAX)),
        };
        let mut found: Vec<Listed> = Vec::new();
        for (created_at, place) in range.rev() {
            let is_enough = found.len() >= at_least;
            if is_enough
                && found
                    .last()
                    .is_some_and(|last| last.created_at != *created_at)
            {
                break;
            }
            let Some(run) = self.runs.at(*place) else {
                continue;
            };
            if before.is_none_or(|(moment, id)| (created_at, &run.id) < (moment, id)) {
                found.push(Listed {
                    created_at: *created_at,
                    id: run.id.clone(),
                    status: run.status,
                });
            }
        }
        found.sort_unstable_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        found
    }

    /// The store has this entry of the run.
    pub fn note_stored(&mut self, id: &RunId, entry: &Arc<[u8]>) {
        let place = self.runs.place(id);
        let Some(run) = place.and_then(|place| self.runs.at_mut(place)) else {
            return;
        };
        let is_this = |current: &Arc<[u8]>| Arc::ptr_eq(current, entry);
        if run.entry.as_ref().is_some_and(is_this) {
            run.is_stored = true;
            if run.status.is_ended() {
                self.note_disposable(id.clone());
            }
        }
    }

    /// Those whose retention is over are not taken out one by one: now and then all are.
    fn note_disposable(&mut self, id: RunId) {
        if self.disposable.len() >= 2 * self.runs.len() + 1_000 {
            let runs = &self.runs;
            self.disposable.retain(|id| runs.get(id).is_some());
        }
        self.disposable.push_back(id);
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
                .is_some_and(|run| run.is_stored && run.status.is_ended())
            {
                self.forget(&id);
                self.drop_values(&id);
                self.has_evicted = true;
            }
        }
        if self.bytes <= limit_bytes {
            return;
        }
        let excess = self.bytes - limit_bytes;
        let freed = self.evict_entries(excess, at_most);
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

    /// Leaves to the store the entries of runs that rest: that have not moved since they were looked at in the
    /// round before. Looks at a bounded number of runs from `first` on; where the next look of this round
    /// begins, if it is not over.
    pub fn rest(&mut self, first: Place) -> Option<Place> {
        let next = first.saturating_add(MOST_LOOKED_AT);
        for place in first..next {
            if let Some(run) = self.runs.at_mut(place) {
                match run.is_at_rest {
                    true => self.bytes -= run.evict_entry(),
                    false => run.is_at_rest = true,
                }
            }
        }
        ((next as usize) < self.runs.len()).then_some(next)
    }

    /// Goes on around the runs from where it stopped the last time; bytes of the entries evicted.
    fn evict_entries(&mut self, excess: usize, at_most: usize) -> usize {
        let mut freed = 0;
        for _ in 0..at_most.min(self.runs.len()) {
            if freed >= excess {
                break;
            }
            let run = self.runs.at_mut(self.hand);
            freed += run.map_or(0, CachedRun::evict_entry);
            self.hand = match self.hand as usize + 1 < self.runs.len() {
                true => self.hand + 1,
                false => 0,
            };
        }
        freed
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

#[cfg(test)]
mod tests;
