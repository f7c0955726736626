//! The summary of a window that slides: panes or samples enter at one end and leave at the other.

use serde::{Deserialize, Serialize};

use crate::pattern::aggregate::{Extreme, Monotonic, Needs, Sample, Summary};

/// A sliding summary: counts and histograms by adding and taking back, extremes by monotonic
/// queues. 48 bytes and what its parts state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Running {
    total: Summary,
    extremes: Option<Box<(Monotonic, Monotonic)>>,
}

impl Running {
    pub fn new(needs: Needs) -> Running {
        let both = || (Monotonic::new(Extreme::Min), Monotonic::new(Extreme::Max));
        Running {
            total: Summary::new(needs),
            extremes: needs.extremes.then(|| Box::new(both())),
        }
    }

    /// A pane that starts at `at` enters.
    pub fn enter(&mut self, needs: Needs, at: i64, pane: &Summary) {
        self.total.merge(needs, pane);
        self.note(at, pane.min(), pane.max());
    }

    /// A sample at `at` enters.
    pub fn enter_sample(&mut self, needs: Needs, at: i64, sample: Sample) {
        self.total.add(needs, sample);
        self.note_sample(at, sample);
    }

    /// Notes the value of a sample that has entered as a possible extreme.
    pub fn note_sample(&mut self, at: i64, sample: Sample) {
        self.note(at, sample.value(), sample.value());
    }

    fn note(&mut self, at: i64, min: Option<f64>, max: Option<f64>) {
        if let (Some(queues), Some(min), Some(max)) = (&mut self.extremes, min, max) {
            queues.0.push(at, min);
            queues.1.push(at, max);
        }
    }

    /// A pane that entered leaves; [`expire_extremes`](Self::expire_extremes) is to follow.
    pub fn leave(&mut self, needs: Needs, pane: &Summary) {
        self.total.unmerge(needs, pane);
    }

    /// A sample that entered leaves; [`expire_extremes`](Self::expire_extremes) is to follow.
    pub fn leave_sample(&mut self, needs: Needs, sample: Sample) {
        self.total.remove(needs, sample);
    }

    /// Forgets the extremes of what came before `from`.
    pub fn expire_extremes(&mut self, from: i64) {
        if let Some(queues) = &mut self.extremes {
            queues.0.expire_before(from);
            queues.1.expire_before(from);
        }
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        self.total.clear();
        self.expire_extremes(i64::MAX);
    }

    /// Puts a summary made anew in the place of one whose sample of distinct values got too thin;
    /// extremes stay.
    pub fn renew_total(&mut self, total: Summary) {
        self.total = total;
    }

    pub fn is_too_coarse(&self, finest: u32) -> bool {
        self.total.is_too_coarse(finest)
    }

    #[inline]
    pub fn events(&self) -> u64 {
        self.total.events()
    }

    /// Reads a bit of what does not lie in place, for a caller who will soon need it.
    #[inline]
    pub fn far(&self) -> u64 {
        self.total.far()
    }

    pub fn level(&self) -> u32 {
        self.total.level()
    }

    /// The summary as it stands.
    pub fn summary(&mut self) -> &Summary {
        if let Some(queues) = &self.extremes {
            self.total.set_extremes(queues.0.best(), queues.1.best());
        }
        &self.total
    }
}
