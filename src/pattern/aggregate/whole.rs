//! The parts of a summary for rules that ask for more than fits in place.

use super::distinct::Distinct;
use super::moments::Moments;
use super::sketch::Sketch;
use super::summary::{Needs, Sample, Summary};

/// 104 bytes, and what its parts state.
#[derive(Clone, Debug)]
pub(super) struct Whole {
    pub(super) moments: Moments,
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) sketch: Option<Sketch>,
    pub(super) distinct: Option<Box<Distinct>>,
}

impl Whole {
    pub(super) fn new(needs: Needs) -> Whole {
        Whole {
            moments: Moments::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sketch: needs.sketch.then(Sketch::default),
            distinct: needs.distinct.then(Box::default),
        }
    }

    pub(super) fn add(&mut self, needs: Needs, sample: Sample) {
        if let Some(value) = sample.value() {
            self.moments.add(needs.powers, value);
            self.min = self.min.min(value);
            self.max = self.max.max(value);
            if let Some(sketch) = &mut self.sketch {
                sketch.add(value);
            }
        }
        if let Some(distinct) = &mut self.distinct
            && let Some(identity) = sample.identity()
        {
            distinct.add(identity);
        }
    }

    pub(super) fn remove(&mut self, needs: Needs, sample: Sample) {
        if let Some(value) = sample.value() {
            self.moments.remove(needs.powers, value);
            if let Some(sketch) = &mut self.sketch {
                sketch.remove(value);
            }
        }
        if let Some(distinct) = &mut self.distinct
            && let Some(identity) = sample.identity()
        {
            distinct.remove(identity);
        }
    }

    pub(super) fn merge(&mut self, needs: Needs, other: &Summary) {
        self.moments.merge(needs.powers, &other.moments());
        let (min, max) = other.extremes();
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        if let (Some(ours), Some(theirs)) = (&mut self.sketch, other.sketch()) {
            ours.merge(theirs);
        }
        if let (Some(ours), Some(theirs)) = (&mut self.distinct, other.distinct_values()) {
            ours.merge(theirs);
        }
    }

    pub(super) fn unmerge(&mut self, needs: Needs, other: &Summary) {
        self.moments.unmerge(needs.powers, &other.moments());
        if let (Some(ours), Some(theirs)) = (&mut self.sketch, other.sketch()) {
            ours.unmerge(theirs);
        }
        if let (Some(ours), Some(theirs)) = (&mut self.distinct, other.distinct_values()) {
            ours.unmerge(theirs);
        }
    }

    pub(super) fn clear(&mut self) {
        self.moments = Moments::default();
        (self.min, self.max) = (f64::INFINITY, f64::NEG_INFINITY);
        if let Some(sketch) = &mut self.sketch {
            sketch.clear();
        }
        if let Some(distinct) = &mut self.distinct {
            distinct.clear();
        }
    }
}
