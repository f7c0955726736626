//! What one window, or one pane of it, keeps for the aggregates that a rule asks for.

use serde::{Deserialize, Serialize, Serializer};

use super::distinct::{Distinct, identity_of_bytes, identity_of_integer, identity_of_number};
use super::function::Function;
use super::is_value;
use super::moments::{Moments, Powers, Tally};
use super::sketch::Sketch;
use super::whole::Whole;
use crate::pattern::exact;

/// What an event brings to a window: a number, an identity, or neither. 16 bytes.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// NaN where there is none.
    #[serde(with = "exact")]
    number: f64,
    /// Of what is no number, and of an integer that the number does not hold exactly; else 0.
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

    /// An integer: the nearest number, told from other integers where several have that one.
    #[inline]
    pub fn integer(value: i64) -> Sample {
        Sample {
            number: value as f64,
            identity: identity_of_integer(value).unwrap_or(0),
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
    pub(super) fn identity(self) -> Option<u64> {
        match self.value() {
            Some(value) if self.identity == 0 => Some(identity_of_number(value)),
            _ => (self.identity != 0).then_some(self.identity),
        }
    }

    /// The number, if it is one.
    pub fn value(self) -> Option<f64> {
        (!self.number.is_nan()).then_some(self.number)
    }
}

/// Which parts a list of functions needs beyond counts.
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

/// The aggregates of a set of events, always given the [`Needs`] that it was made for. 40 bytes where
/// those are a sum or average alone, or percentiles alone, with what the [`Sketch`] has on the heap (8 a
/// bucket beyond two); for all else 104 more, and those of its [`Distinct`].
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Stored<Sketch, Box<Distinct>>")]
pub struct Summary {
    events: u64,
    body: Body,
}

/// What most rules ask for lies in place: of many keys there are many panes, and each is looked for in
/// memory.
#[derive(Clone, Debug)]
enum Body {
    Tally(Tally),
    /// Values, and their histogram.
    Sketch(u64, Sketch),
    Whole(Box<Whole>),
}

/// The form in which it is saved, whatever it was made for.
#[derive(Serialize, Deserialize)]
struct Stored<S, D> {
    events: u64,
    moments: Moments,
    #[serde(with = "exact")]
    min: f64,
    #[serde(with = "exact")]
    max: f64,
    sketch: Option<S>,
    distinct: Option<D>,
}

impl Needs {
    #[inline]
    fn is_tally(self) -> bool {
        self.powers <= Powers::Sum && !(self.extremes | self.sketch | self.distinct)
    }

    #[inline]
    fn is_sketch(self) -> bool {
        self.powers == Powers::Count && self.sketch && !(self.extremes | self.distinct)
    }
}

impl Summary {
    /// Of no events.
    pub fn new(needs: Needs) -> Summary {
        let body = if needs.is_tally() {
            Body::Tally(Tally::default())
        } else if needs.is_sketch() {
            Body::Sketch(0, Sketch::default())
        } else {
            Body::Whole(Box::new(Whole::new(needs)))
        };
        Summary { events: 0, body }
    }

    /// The parts that do not fit in place. One that was put back empty may have been taken for less than
    /// it is.
    fn whole(&mut self, needs: Needs) -> &mut Whole {
        if !matches!(self.body, Body::Whole(_)) {
            let mut whole = Whole::new(needs);
            match std::mem::replace(&mut self.body, Body::Tally(Tally::default())) {
                Body::Tally(tally) => whole.moments = tally.into(),
                Body::Sketch(count, sketch) => {
                    whole.moments = Tally::of_count(count).into();
                    whole.sketch = Some(sketch);
                }
                Body::Whole(_) => unreachable!("it has just been asked"),
            }
            self.body = Body::Whole(Box::new(whole));
        }
        match &mut self.body {
            Body::Whole(whole) => whole,
            _ => unreachable!("it has just been made whole"),
        }
    }

    /// Adds an event.
    #[inline]
    pub fn add(&mut self, needs: Needs, sample: Sample) {
        self.events += 1;
        match &mut self.body {
            Body::Tally(tally) if needs.is_tally() => {
                if !sample.number.is_nan() {
                    tally.add(needs.powers, sample.number);
                }
            }
            Body::Sketch(count, sketch) if needs.is_sketch() => {
                if !sample.number.is_nan() {
                    *count += 1;
                    sketch.add(sample.number);
                }
            }
            _ => self.whole(needs).add(needs, sample),
        }
    }

    /// Takes back an event that was added; its extremes stay, for whoever slides a window to set
    /// ([`set_extremes`](Self::set_extremes)).
    pub fn remove(&mut self, needs: Needs, sample: Sample) {
        self.events = self.events.saturating_sub(1);
        match &mut self.body {
            Body::Tally(tally) if needs.is_tally() => {
                if !sample.number.is_nan() {
                    tally.remove(needs.powers, sample.number);
                }
            }
            Body::Sketch(count, sketch) if needs.is_sketch() => {
                if !sample.number.is_nan() {
                    *count = count.saturating_sub(1);
                    sketch.remove(sample.number);
                }
            }
            _ => self.whole(needs).remove(needs, sample),
        }
    }

    /// Adds all that `other`, made for the same needs, holds.
    pub fn merge(&mut self, needs: Needs, other: &Summary) {
        self.events += other.events;
        match (&mut self.body, &other.body) {
            (Body::Tally(ours), Body::Tally(theirs)) => ours.merge(needs.powers, theirs),
            (Body::Sketch(count, ours), Body::Sketch(further, theirs)) => {
                *count += further;
                ours.merge(theirs);
            }
            _ => self.whole(needs).merge(needs, other),
        }
    }

    /// Takes back what was merged; its extremes stay, as after [`remove`](Self::remove).
    pub fn unmerge(&mut self, needs: Needs, other: &Summary) {
        self.events = self.events.saturating_sub(other.events);
        match (&mut self.body, &other.body) {
            (Body::Tally(ours), Body::Tally(theirs)) => ours.unmerge(needs.powers, theirs),
            (Body::Sketch(count, ours), Body::Sketch(gone, theirs)) => {
                *count = count.saturating_sub(*gone);
                ours.unmerge(theirs);
            }
            _ => self.whole(needs).unmerge(needs, other),
        }
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        self.events = 0;
        match &mut self.body {
            Body::Tally(tally) => *tally = Tally::default(),
            Body::Sketch(count, sketch) => {
                *count = 0;
                sketch.clear();
            }
            Body::Whole(whole) => whole.clear(),
        }
    }

    /// Puts the extremes of a sliding window, kept elsewhere, in their place; nothing where nobody asked
    /// for extremes.
    pub fn set_extremes(&mut self, min: Option<f64>, max: Option<f64>) {
        if let Body::Whole(whole) = &mut self.body {
            whole.min = min.unwrap_or(f64::INFINITY);
            whole.max = max.unwrap_or(f64::NEG_INFINITY);
        }
    }

    /// Reads a bit of what does not lie in place, for a caller who will soon need it.
    #[inline]
    pub(in crate::pattern) fn far(&self) -> u64 {
        match &self.body {
            Body::Tally(_) => 0,
            Body::Sketch(_, sketch) => sketch.far(),
            Body::Whole(whole) => whole.moments.count(),
        }
    }

    /// How many events there are, those without a value included.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// How many of them have no number.
    pub fn missing(&self) -> u64 {
        self.events - self.moments().count()
    }

    /// Count, sum, average and deviation of the numbers.
    pub fn moments(&self) -> Moments {
        match &self.body {
            Body::Tally(tally) => (*tally).into(),
            Body::Sketch(count, _) => Tally::of_count(*count).into(),
            Body::Whole(whole) => whole.moments,
        }
    }

    /// Infinite where there are none.
    pub(super) fn extremes(&self) -> (f64, f64) {
        match &self.body {
            Body::Whole(whole) => (whole.min, whole.max),
            _ => (f64::INFINITY, f64::NEG_INFINITY),
        }
    }

    pub(super) fn sketch(&self) -> Option<&Sketch> {
        match &self.body {
            Body::Tally(_) => None,
            Body::Sketch(_, sketch) => Some(sketch),
            Body::Whole(whole) => whole.sketch.as_ref(),
        }
    }

    pub(super) fn distinct_values(&self) -> Option<&Distinct> {
        match &self.body {
            Body::Whole(whole) => whole.distinct.as_deref(),
            _ => None,
        }
    }

    /// The smallest number; `None` without any, or where no extremes were asked for.
    pub fn min(&self) -> Option<f64> {
        let (min, max) = self.extremes();
        (min <= max).then_some(min)
    }

    /// The largest number; `None` without any, or where no extremes were asked for.
    pub fn max(&self) -> Option<f64> {
        let (min, max) = self.extremes();
        (min <= max).then_some(max)
    }

    /// The number of different values; `None` where it was not asked for.
    pub fn distinct(&self) -> Option<u64> {
        self.distinct_values().map(Distinct::count)
    }

    /// A percentile of the numbers; `None` without any, or where none was asked for.
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        self.sketch()?
            .percentile_of(self.moments().count(), percent)
    }

    /// The sampling level of its distinct values: see [`Distinct::level`].
    pub(in crate::pattern) fn level(&self) -> u32 {
        self.distinct_values().map_or(0, Distinct::level)
    }

    /// See [`Distinct::is_too_coarse`].
    pub(in crate::pattern) fn is_too_coarse(&self, finest: u32) -> bool {
        let is_too_coarse = |distinct: &Distinct| distinct.is_too_coarse(finest);
        self.distinct_values().is_some_and(is_too_coarse)
    }
}

/// By what it holds, wherever that lies.
impl PartialEq for Summary {
    fn eq(&self, other: &Summary) -> bool {
        (self.events, self.moments()) == (other.events, other.moments())
            && self.extremes() == other.extremes()
            && self.sketch() == other.sketch()
            && self.distinct_values() == other.distinct_values()
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (min, max) = self.extremes();
        let stored = Stored {
            events: self.events,
            moments: self.moments(),
            min,
            max,
            sketch: self.sketch(),
            distinct: self.distinct_values(),
        };
        stored.serialize(serializer)
    }
}

impl From<Stored<Sketch, Box<Distinct>>> for Summary {
    fn from(stored: Stored<Sketch, Box<Distinct>>) -> Summary {
        let Stored {
            events,
            moments,
            min,
            max,
            sketch,
            distinct,
        } = stored;
        let has_more = min <= max || distinct.is_some();
        let tally = moments.tally_alone().filter(|_| !has_more);
        let body = match (tally, sketch) {
            (Some(tally), None) => Body::Tally(tally),
            (Some(tally), Some(sketch)) if tally == Tally::of_count(tally.count) => {
                Body::Sketch(tally.count, sketch)
            }
            (_, sketch) => Body::Whole(Box::new(Whole {
                moments,
                min,
                max,
                sketch,
                distinct,
            })),
        };
        Summary { events, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!((size_of::<Summary>(), size_of::<Sample>()), (40, 16));
        assert!(size_of::<Whole>() <= 104);
    }

    /// As every version has written one of a single value `3.0`, by its fields in their order; versions
    /// that kept extremes whether or not somebody asked wrote them.
    fn saved(sum: f64, buckets: Option<&[u64]>) -> Vec<u8> {
        let bits = |value: f64| value.to_bits().cast_signed();
        let moments = (1_u64, [bits(sum), bits(0.0)], [bits(0.0), bits(0.0)]);
        let fields = (1_u64, moments, [bits(3.0), bits(3.0)], buckets, None::<u8>);
        // An array of fixed length has no frame, as a field has none.
        postcard::to_stdvec(&fields).expect("plain data")
    }

    #[test]
    fn one_that_an_earlier_version_saved_goes_on_as_if_it_were_new() {
        let mut sketch = Sketch::default();
        sketch.add(3.0);
        let words = postcard::to_stdvec(&sketch).expect("plain data");
        let words: Vec<u64> = postcard::from_bytes(&words).expect("a list");
        for (function, bytes) in [
            (Function::Avg, saved(3.0, None)),
            (Function::Count, saved(0.0, None)),
            (Function::Percentile(60.0), saved(0.0, Some(&words))),
        ] {
            let needs = Needs::of(&[function]);
            let mut read: Summary = postcard::from_bytes(&bytes).expect("it reads back");
            let (mut live, mut pane) = (Summary::new(needs), Summary::new(needs));
            live.add(needs, Sample::number(3.0));
            pane.add(needs, Sample::number(8.0));
            for summary in [&mut read, &mut live] {
                summary.merge(needs, &pane);
                summary.add(needs, Sample::number(5.0));
            }
            assert!(function.of(&live).is_some());
            assert_eq!(function.of(&read), function.of(&live), "{function}");
            let mut total = pane.clone();
            total.merge(needs, &read);
            assert_eq!(total.events(), 4);
            total.unmerge(needs, &read);
            assert_eq!(function.of(&total), function.of(&pane), "{function}");
        }
    }

    #[test]
    fn one_that_was_saved_goes_on_whatever_it_is_for_and_however_little_it_holds() {
        for functions in [
            &[Function::Count][..],
            &[Function::Avg],
            &[Function::Percentile(95.0)],
            &[Function::Max],
            &[Function::StddevSample],
            &[Function::Distinct],
            &[Function::Avg, Function::Percentile(95.0)],
        ] {
            let needs = Needs::of(functions);
            for values in [&[][..], &[0.0], &[-2.0, 7.5]] {
                let mut live = Summary::new(needs);
                live.add(needs, Sample::MISSING);
                let numbers = values.iter().map(|value| Sample::number(*value));
                numbers.for_each(|sample| live.add(needs, sample));
                let bytes = postcard::to_stdvec(&live).expect("plain data");
                let mut read: Summary = postcard::from_bytes(&bytes).expect("it reads back");
                assert_eq!(read, live, "{functions:?}");
                for summary in [&mut read, &mut live] {
                    summary.add(needs, Sample::number(4.0));
                    summary.add(needs, Sample::number(9.0));
                }
                assert_eq!(read, live, "{functions:?} after {values:?}");
                for function in functions {
                    assert!(function.of(&read).is_some(), "{function}");
                }
            }
        }
    }

    #[test]
    fn integers_that_share_a_double_are_told_apart() {
        let needs = Needs::of(&[Function::Distinct, Function::Max]);
        let mut summary = Summary::new(needs);
        let first = 1_234_567_890_123_456_789;
        let ids = (first..first + 100).map(Sample::integer);
        ids.for_each(|sample| summary.add(needs, sample));
        assert_eq!((summary.distinct(), summary.missing()), (Some(100), 0));
        assert_eq!(summary.max(), Some(first as f64));
        summary.add(needs, Sample::integer(1 << 60));
        summary.add(needs, Sample::number(2_f64.powi(60)));
        assert_eq!(summary.distinct(), Some(101), "equal numbers are one");
        let taken = Sample::integer(first + 1);
        summary.remove(needs, taken);
        assert_eq!(summary.distinct(), Some(100));
        let bytes = postcard::to_stdvec(&taken).expect("plain data");
        let read: Sample = postcard::from_bytes(&bytes).expect("it reads back");
        assert_eq!(read, taken);
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
