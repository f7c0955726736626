//! What one window, or one pane of it, keeps for the aggregates that a rule asks for.

use serde::{Deserialize, Serialize};

use super::distinct::{Distinct, identity_of_bytes, identity_of_number};
use super::function::Function;
use super::is_value;
use super::moments::{Moments, Powers};
use super::sketch::Sketch;
use crate::pattern::exact;

/// What an event brings to a window: a number, an identity, or neither. 16 bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// NaN where there is none.
    #[serde(with = "exact")]
    number: f64,
    /// Of what is no number; 0 where there is none.
    identity: u64,
}

/// By its bits, so that a missing one equals another.
impl PartialEq for Sample {
    fn eq(&self, other: &Sample) -> bool {
        (self.number.to_bits(), self.identity) == (other.number.to_bits(), other.identity)
    }
}

impl Eq for Sample {}

impl Sample {
    /// An event whose field is absent or null.
    pub const MISSING: Sample = Sample {
        number: f64::NAN,
        identity: 0,
    };

    /// A number; missing where [`is_value`] refuses it.
    #[inline]
    pub fn number(value: f64) -> Sample {
        if !is_value(value) {
            return Sample::MISSING;
        }
        Sample {
            number: value,
            identity: 0,
        }
    }

    /// Something that is no number and can only be told from others: text, or JSON as its bytes.
    pub fn bytes(bytes: &[u8]) -> Sample {
        Sample {
            number: f64::NAN,
            identity: identity_of_bytes(bytes),
        }
    }

    /// What tells it from other values; `None` of a missing one.
    fn identity(self) -> Option<u64> {
        match self.value() {
            Some(value) => Some(identity_of_number(value)),
            None => (self.identity != 0).then_some(self.identity),
        }
    }

    /// The number, if it is one.
    pub fn value(self) -> Option<f64> {
        (!self.number.is_nan()).then_some(self.number)
    }
}

/// Which parts a list of functions needs beyond counts and the extremes of a pane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needs {
    /// Sums, averages and deviations.
    pub powers: Powers,
    /// `min` or `max`.
    pub extremes: bool,
    /// Percentiles.
    pub sketch: bool,
    /// `distinct`.
    pub distinct: bool,
}

impl Needs {
    /// The needs of `functions` together.
    pub fn of(functions: &[Function]) -> Needs {
        let has = |wanted: fn(&Function) -> bool| functions.iter().any(wanted);
        let powers = functions.iter().map(|function| match function {
            Function::StddevSample | Function::StddevPopulation => Powers::Squares,
            Function::Sum | Function::Avg => Powers::Sum,
            _ => Powers::Count,
        });
        Needs {
            powers: powers.max().unwrap_or_default(),
            extremes: has(|it| matches!(it, Function::Min | Function::Max)),
            sketch: has(|it| matches!(it, Function::Percentile(_))),
            distinct: has(|it| matches!(it, Function::Distinct)),
        }
    }
}

/// The aggregates of a set of events, always given the [`Needs`] that it was made for. 96 bytes, with those of its [`Sketch`] (8 a bucket) and its
/// [`Distinct`] on the heap where they are needed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    events: u64,
    moments: Moments,
    #[serde(with = "exact")]
    min: f64,
    #[serde(with = "exact")]
    max: f64,
    sketch: Option<Sketch>,
    distinct: Option<Box<Distinct>>,
}

impl Summary {
    /// Of no events.
    pub fn new(needs: Needs) -> Summary {
        Summary {
            events: 0,
            moments: Moments::default(),
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            sketch: needs.sketch.then(Sketch::default),
            distinct: needs.distinct.then(Box::default),
        }
    }

    /// Adds an event.
    #[inline]
    pub fn add(&mut self, needs: Needs, sample: Sample) {
        self.events += 1;
        if !sample.number.is_nan() {
            self.moments.add(needs.powers, sample.number);
            self.min = self.min.min(sample.number);
            self.max = self.max.max(sample.number);
            if let Some(sketch) = &mut self.sketch {
                sketch.add(sample.number);
            }
        }
        if let Some(distinct) = &mut self.distinct
            && let Some(identity) = sample.identity()
        {
            distinct.add(identity);
        }
    }

    /// Takes back an event that was added; its extremes stay, for whoever slides a window to set
    /// ([`set_extremes`](Self::set_extremes)).
    pub fn remove(&mut self, needs: Needs, sample: Sample) {
        self.events = self.events.saturating_sub(1);
        if !sample.number.is_nan() {
            self.moments.remove(needs.powers, sample.number);
            if let Some(sketch) = &mut self.sketch {
                sketch.remove(sample.number);
            }
        }
        if let Some(distinct) = &mut self.distinct
            && let Some(identity) = sample.identity()
        {
            distinct.remove(identity);
        }
    }

    /// Adds all that `other`, made for the same needs, holds.
    pub fn merge(&mut self, needs: Needs, other: &Summary) {
        self.events += other.events;
        self.moments.merge(needs.powers, &other.moments);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        if let (Some(ours), Some(theirs)) = (&mut self.sketch, &other.sketch) {
            ours.merge(theirs);
        }
        if let (Some(ours), Some(theirs)) = (&mut self.distinct, &other.distinct) {
            ours.merge(theirs);
        }
    }

    /// Takes back what was merged; its extremes stay, as after [`remove`](Self::remove).
    pub fn unmerge(&mut self, needs: Needs, other: &Summary) {
        self.events = self.events.saturating_sub(other.events);
        self.moments.unmerge(needs.powers, &other.moments);
        if let (Some(ours), Some(theirs)) = (&mut self.sketch, &other.sketch) {
            ours.unmerge(theirs);
        }
        if let (Some(ours), Some(theirs)) = (&mut self.distinct, &other.distinct) {
            ours.unmerge(theirs);
        }
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        let sketch = self.sketch.take();
        let distinct = self.distinct.take();
        *self = Summary::new(Needs::default());
        self.sketch = sketch.map(|mut sketch| {
            sketch.clear();
            sketch
        });
        self.distinct = distinct.map(|mut distinct| {
            distinct.clear();
            distinct
        });
    }

    /// Puts the extremes of a sliding window, kept elsewhere, in their place.
    pub fn set_extremes(&mut self, min: Option<f64>, max: Option<f64>) {
        self.min = min.unwrap_or(f64::INFINITY);
        self.max = max.unwrap_or(f64::NEG_INFINITY);
    }

    /// How many events there are, those without a value included.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many of them have no number.
    pub fn missing(&self) -> u64 {
        self.events - self.moments.count()
    }

    /// Count, sum, average and deviation of the numbers.
    pub fn moments(&self) -> &Moments {
        &self.moments
    }

    /// The smallest number; `None` without any.
    pub fn min(&self) -> Option<f64> {
        (self.min <= self.max).then_some(self.min)
    }

    /// The largest number; `None` without any.
    pub fn max(&self) -> Option<f64> {
        (self.min <= self.max).then_some(self.max)
    }

    /// The number of different values; `None` where it was not asked for.
    pub fn distinct(&self) -> Option<u64> {
        self.distinct.as_ref().map(|distinct| distinct.count())
    }

    /// A percentile of the numbers; `None` without any, or where none was asked for.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        self.sketch.as_ref()?.percentile(percent)
    }

    /// The sampling level of its distinct values: see [`Distinct::level`].
    pub(in crate::pattern) fn level(&self) -> u32 {
        self.distinct
            .as_ref()
            .map_or(0, |distinct| distinct.level())
    }

    /// See [`Distinct::is_too_coarse`].
    pub(in crate::pattern) fn is_too_coarse(&self, finest: u32) -> bool {
        let is_too_coarse = |distinct: &Distinct| distinct.is_too_coarse(finest);
        self.distinct.as_deref().is_some_and(is_too_coarse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!((size_of::<Summary>(), size_of::<Sample>()), (96, 16));
    }

    #[test]
    fn missing_values_count_as_events_only() {
        let needs = Needs::of(&[Function::Avg, Function::Distinct]);
        let mut summary = Summary::new(needs);
        for sample in [
            Sample::MISSING,
            Sample::number(f64::NAN),
            Sample::number(f64::INFINITY),
            Sample::number(1e101),
            Sample::bytes(b"text"),
            Sample::number(3.0),
        ] {
            summary.add(needs, sample);
        }
        assert_eq!((summary.events(), summary.missing()), (6, 5));
        assert_eq!((summary.min(), summary.max()), (Some(3.0), Some(3.0)));
        assert_eq!(summary.distinct(), Some(2), "the text and the number");
        assert_eq!(Function::Avg.of(&summary), Some(3.0));
        assert_eq!(
            Function::Percentile(95.0).of(&summary),
            None,
            "nobody asked"
        );
    }

    #[test]
    fn sums_that_nobody_asks_for_change_nothing_that_somebody_does() {
        let functions = [
            Function::Count,
            Function::Sum,
            Function::Avg,
            Function::StddevSample,
            Function::StddevPopulation,
            Function::Percentile(95.0),
        ];
        let values =
            |from: i32| (from..from + 7).map(|value| Sample::number(f64::from(value) / 3.0));
        let summary_of = |needs: Needs| {
            let (mut total, mut pane) = (Summary::new(needs), Summary::new(needs));
            values(5).for_each(|sample| total.add(needs, sample));
            values(90).for_each(|sample| pane.add(needs, sample));
            total.merge(needs, &pane);
            values(5).for_each(|sample| total.remove(needs, sample));
            values(40).for_each(|sample| total.add(needs, sample));
            total.unmerge(needs, &pane);
            total
        };
        let all = summary_of(Needs::of(&functions));
        for function in functions {
            let alone = summary_of(Needs::of(&[function]));
            assert!(function.of(&alone).is_some(), "{function}");
            assert_eq!(function.of(&alone), function.of(&all), "{function}");
        }
    }
}
