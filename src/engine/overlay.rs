//! The runs that a batch has touched, over committed state, and how many of all are live.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Definitions, StateView};
use crate::model::{RunId, RunState, RunStatus};
use crate::workflow::Workflow;

/// A run's place in the overlay.
pub(super) type Place = usize;

pub(super) struct Overlay<'a> {
    view: &'a dyn StateView,
    definitions: &'a dyn Definitions,
    slots: Vec<Slot>,
    places: FxHashMap<RunId, Place>,
    /// Runs that are running or paused, the batch's changes included.
    live: usize,
    /// Touched runs that are pending in committed state.
    touched_pending: usize,
}

pub(super) struct Slot {
    pub run: RunState,
    /// The pinned version, once it was asked for and found.
    workflow: Option<Arc<Workflow>>,
    /// Revision in committed state; 0: not there.
    committed_revision: u64,
    is_live: bool,
}

fn is_live(status: RunStatus) -> bool {
    matches!(status, RunStatus::Running | RunStatus::Paused)
}

fn is_tagged(run: &RunState, tags: &BTreeMap<String, String>) -> bool {
    let has = |(key, value): (&String, &String)| run.tags.get(key) == Some(value);
    !run.status.is_ended() && tags.iter().all(has)
}

impl<'a> Overlay<'a> {
    pub fn new(view: &'a dyn StateView, definitions: &'a dyn Definitions) -> Self {
        Self {
            view,
            definitions,
            slots: Vec::new(),
            places: FxHashMap::default(),
            live: view.live_runs(),
            touched_pending: 0,
        }
    }

    /// The run, read from committed state at the first touch.
    pub fn find(&mut self, id: &RunId) -> Option<Place> {
        if let Some(&place) = self.places.get(id) {
            return Some(place);
        }
        let run = self.view.run(id)?;
        if run.status == RunStatus::Pending {
            self.touched_pending += 1;
        }
        let revision = run.revision;
        Some(self.push(run, None, revision))
    }

    /// A run that is not in committed state.
    pub fn insert(&mut self, run: RunState, workflow: Arc<Workflow>) -> Place {
        let place = self.push(run, Some(workflow), 0);
        self.settle(place);
        place
    }

    fn push(
        &mut self,
        run: RunState,
        workflow: Option<Arc<Workflow>>,
        committed_revision: u64,
    ) -> Place {
        let place = self.slots.len();
        self.places.insert(run.id.clone(), place);
        self.slots.push(Slot {
            // What is committed is in the view's count already.
            is_live: committed_revision > 0 && is_live(run.status),
            run,
            workflow,
            committed_revision,
        });
        place
    }

    pub fn run(&self, place: Place) -> &RunState {
        &self.slots[place].run
    }

    pub fn run_mut(&mut self, place: Place) -> &mut RunState {
        &mut self.slots[place].run
    }

    /// The version that the run is pinned to; `None` where it is not to be found. A version never
    /// changes once applied, so one with other steps is not it.
    pub fn workflow(&mut self, place: Place) -> Option<Arc<Workflow>> {
        let slot = &mut self.slots[place];
        if slot.workflow.is_none() {
            let (name, version) = (&slot.run.workflow, slot.run.version);
            let found = self.definitions.workflow(name, Some(version));
            slot.workflow = found.filter(|workflow| workflow.steps.len() == slot.run.steps.len());
        }
        slot.workflow.clone()
    }

    /// Keeps the count of live runs; to be called after each transition of the run.
    pub fn settle(&mut self, place: Place) {
        let slot = &mut self.slots[place];
        let live_now = is_live(slot.run.status);
        match (slot.is_live, live_now) {
            (false, true) => self.live += 1,
            (true, false) => self.live = self.live.saturating_sub(1),
            _ => {}
        }
        slot.is_live = live_now;
    }

    pub fn live(&self) -> usize {
        self.live
    }

    pub fn touched_pending(&self) -> usize {
        self.touched_pending
    }

    pub fn contains(&self, id: &RunId) -> bool {
        self.places.contains_key(id)
    }

    /// Touched runs that are pending now.
    pub fn pending(&self) -> impl Iterator<Item = Place> + '_ {
        let is_pending = |place: &Place| self.slots[*place].run.status == RunStatus::Pending;
        (0..self.slots.len()).filter(is_pending)
    }

    /// The first `limit` runs, by id and after `after`, that have not ended and have all of these
    /// tags. By chance there may be one among them that has not: see [`Overlay::is_meant`].
    pub fn tagged(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId> {
        let is_after = |slot: &&Slot| after.is_none_or(|after| slot.run.id > *after);
        let touched = self.slots.iter().filter(is_after);
        // Of those found in committed state as many may have been touched.
        let mut runs = self.view.tagged(tags, after, limit + self.slots.len());
        runs.retain(|id| !self.contains(id));
        let meant = touched.filter(|slot| is_tagged(&slot.run, tags));
        runs.extend(meant.map(|slot| slot.run.id.clone()));
        runs.sort_unstable();
        runs.truncate(limit);
        runs
    }

    /// Whether the run has not ended, has all of these tags and is of the workflow, where one is named.
    pub fn is_meant(
        &mut self,
        id: &RunId,
        tags: &BTreeMap<String, String>,
        workflow: Option<&str>,
    ) -> bool {
        let place = self.find(id);
        place.is_some_and(|place| {
            let run = self.run(place);
            is_tagged(run, tags) && workflow.is_none_or(|workflow| *run.workflow == *workflow)
        })
    }

    /// The runs that differ from committed state.
    pub fn into_changed(self) -> Vec<RunState> {
        let changed =
            |slot: Slot| (slot.run.revision != slot.committed_revision).then_some(slot.run);
        self.slots.into_iter().filter_map(changed).collect()
    }
}
