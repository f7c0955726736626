//! Replies whose run is not known yet. They wait `park_for`, are applied when the run begins, and
//! are dead letters after that.

use std::collections::BTreeMap;

use rustc_hash::FxHashMap;

use super::{Parked, ParkedKey, StateView};
use crate::model::RunId;

/// What waits, of the runs that the batch has asked about: committed state and the batch's changes.
#[derive(Default)]
pub(super) struct Parking {
    runs: FxHashMap<RunId, Waiting>,
}

/// The replies that wait for one run, by offset.
type Waiting = BTreeMap<i64, Entry>;

struct Entry {
    /// `None`: it is gone.
    parked: Option<Parked>,
    changed: bool,
}

impl Parking {
    fn of_run(&mut self, view: &dyn StateView, run: &RunId) -> &mut Waiting {
        if !self.runs.contains_key(run) {
            let entry = |parked| Entry {
                parked: Some(parked),
                changed: false,
            };
            let committed = view.parked(run).into_iter();
            let waiting = committed
                .map(|(key, parked)| (key.offset, entry(parked)))
                .collect();
            self.runs.insert(run.clone(), waiting);
        }
        self.runs.get_mut(run).expect("it was just put there")
    }

    /// Parks a reply; false where `limit` wait for its run already.
    pub fn park(&mut self, view: &dyn StateView, parked: Parked, limit: usize) -> bool {
        let waiting = self.of_run(view, &parked.reply.run_id);
        if waiting
            .values()
            .filter(|entry| entry.parked.is_some())
            .count()
            >= limit
        {
            return false;
        }
        let offset = parked.origin.offset;
        let entry = Entry {
            parked: Some(parked),
            changed: true,
        };
        waiting.insert(offset, entry);
        true
    }

    /// Takes one out; `None` where it is gone already.
    pub fn take(&mut self, view: &dyn StateView, key: &ParkedKey) -> Option<Parked> {
        let entry = self.of_run(view, &key.run).get_mut(&key.offset)?;
        entry.changed = true;
        entry.parked.take()
    }

    /// Takes out all that wait for a run, in order of arrival.
    pub fn take_all(&mut self, view: &dyn StateView, run: &RunId) -> Vec<Parked> {
        let take = |entry: &mut Entry| {
            let parked = entry.parked.take()?;
            entry.changed = true;
            Some(parked)
        };
        self.of_run(view, run)
            .values_mut()
            .filter_map(take)
            .collect()
    }

    /// What differs from committed state, by key.
    pub fn into_changes(self) -> Vec<(ParkedKey, Option<Parked>)> {
        let mut changes: Vec<_> = self
            .runs
            .into_iter()
            .flat_map(|(run, waiting)| {
                let changed = waiting.into_iter().filter(|(_, entry)| entry.changed);
                changed.map(move |(offset, entry)| {
                    (
                        ParkedKey {
                            run: run.clone(),
                            offset,
                        },
                        entry.parked,
                    )
                })
            })
            .collect();
        changes.sort_by(|(left, _), (right, _)| left.cmp(right));
        changes
    }
}
