//! Places for live runs. A start begins at once while there is a place and nobody waits; else the
//! run is pending, and the end of each batch gives free places to those that wait, by priority
//! (highest first), then creation, then id.

use std::cmp::Reverse;
use std::iter::Peekable;
use std::vec::IntoIter;

use super::batch::Batch;
use super::overlay::Place;
use crate::model::{RunId, RunState, Timestamp};

/// Asked for beyond the free places, so that runs whose definition is not to be found right now
/// do not keep the others from starting.
const SLACK: usize = 64;

/// The order of admission.
fn rank(run: &RunState) -> (Reverse<i32>, Timestamp, RunId) {
    (Reverse(run.priority), run.created_at, run.id.clone())
}

impl Batch<'_> {
    /// Whether a run that is accepted now may begin at once.
    pub(super) fn may_begin(&mut self) -> bool {
        if self.overlay.live() >= self.config.max_live_runs {
            return false;
        }
        let view = self.view;
        !*self
            .has_queue
            .get_or_insert_with(|| !view.pending(1).is_empty())
    }

    /// Fills the free places from those that wait.
    pub(super) fn admit(&mut self, now: Timestamp) {
        let free = self
            .config
            .max_live_runs
            .saturating_sub(self.overlay.live());
        if free == 0 || self.has_queue == Some(false) {
            return;
        }
        let mut touched: Vec<Place> = self.overlay.pending().collect();
        touched.sort_by_cached_key(|&place| rank(self.overlay.run(place)));
        let limit = free
            .saturating_add(self.overlay.touched_pending())
            .saturating_add(SLACK);
        let mut committed = self.view.pending(limit);
        committed.retain(|id| !self.overlay.contains(id));

        let mut touched = touched.into_iter().peekable();
        let mut committed = committed.into_iter().peekable();
        while self.overlay.live() < self.config.max_live_runs {
            let Some(place) = self.next_in_line(&mut touched, &mut committed) else {
                return;
            };
            if let Some(workflow) = self.overlay.workflow(place) {
                self.begin(place, &workflow, now);
            }
        }
    }

    /// Merges the two ordered lines; a committed run is decoded when it comes to the front.
    fn next_in_line(
        &mut self,
        touched: &mut Peekable<IntoIter<Place>>,
        committed: &mut Peekable<IntoIter<RunId>>,
    ) -> Option<Place> {
        let other = committed.peek().and_then(|id| self.overlay.find(id));
        let Some(other) = other else {
            return touched.next();
        };
        match touched.peek() {
            Some(&place) if rank(self.overlay.run(place)) < rank(self.overlay.run(other)) => {
                touched.next()
            }
            _ => {
                committed.next();
                Some(other)
            }
        }
    }
}
