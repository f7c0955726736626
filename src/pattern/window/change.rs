//! How a value compares with the ones before it in its series: the operator `change`.
//!
//! The change is `current − reference`, relative to the size of the reference: from −10 to −5 is up
//! by 50 %. From zero every change is infinite and meets any relative threshold in its direction;
//! from zero to zero is no change. A value that [`is_value`] refuses is missing: it is neither
//! compared nor remembered. Without a reference (a first value, an empty window) there is no change.
//!
//! A threshold is met by a change that equals it; a billionth part is forgiven, so that decimals
//! such as 1.00 and 1.15 are 15 % apart.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{MAX_SPAN, WindowError, check_span};
use crate::pattern::aggregate::{Extreme, Moments, Monotonic, Powers, is_value};
use crate::pattern::exact;

/// The part of a threshold that a change may fall short of it.
const FORGIVEN: f64 = 1e-9;

/// Which way the value moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// It grew.
    Up,
    /// It shrank.
    Down,
    /// Either.
    Any,
}

/// How large a change has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum By {
    /// A fraction of the size of the reference: 0.15 is 15 %.
    Relative(f64),
    /// In the unit of the values.
    Absolute(f64),
}

/// What the current value is compared with. `t` is the time of the current value, which itself is
/// in none of these; a value at the same time that came before is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum From {
    /// The value before, if it is of (t − over, t].
    Previous,
    /// The largest of (t − over, t].
    WindowMax,
    /// The smallest of (t − over, t].
    WindowMin,
    /// The average of (t − over, t].
    WindowAvg,
    /// The average of the window before, (t − 2·over, t − over].
    PreviousWindowAvg,
}

/// The operator, checked. 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangeSpec {
    direction: Direction,
    by: By,
    over: i64,
    from: From,
    max_values: usize,
}

/// An operator that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChangeError {
    /// `over` is out of bounds.
    #[error(transparent)]
    Over(#[from] WindowError),
    /// A threshold that is no size.
    #[error("a change by {0} means nothing: it must be a number above 0")]
    By(f64),
}

impl ChangeSpec {
    /// A change of at least `by`, over the last `over` ms (1 to [`MAX_SPAN`]). A series remembers
    /// at most `max_values` values, at least one; over that the oldest are forgotten, and counted.
    ///
    /// # Errors
    /// Where `over` is out of bounds or `by` is not a number above 0.
    pub fn new(
        direction: Direction,
        by: By,
        over: i64,
        from: From,
        max_values: usize,
    ) -> Result<ChangeSpec, ChangeError> {
        let (By::Relative(size) | By::Absolute(size)) = by;
        if !is_value(size) || size <= 0.0 {
            return Err(ChangeError::By(size));
        }
        Ok(ChangeSpec {
            direction,
            by,
            over: check_span("over", over, 1, MAX_SPAN / 2)?,
            from,
            max_values: max_values.max(1),
        })
    }
}

/// A value compared.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    /// The value that came.
    pub current: f64,
    /// What it is compared with.
    pub reference: f64,
    /// `current − reference`.
    pub absolute: f64,
    /// `absolute / |reference|`; 0 from zero to zero, `None` (infinite) from zero to anything else.
    pub relative: Option<f64>,
    /// Whether direction and size are those of the operator.
    pub is_met: bool,
}

/// What a series remembers. 240 bytes; 16 more for each value remembered, which are the last one
/// for [`From::Previous`], those that can still be extreme for max and min, all of the window for
/// its average, and all of both windows for the average of the one before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Ascending by time; all that count in an average, or the last one.
    values: VecDeque<Value>,
    /// How many of `values` are of the window before.
    older: usize,
    /// Of `values` in the window that is averaged.
    averaged: Moments,
    extremes: Option<Monotonic>,
    newest: i64,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Value {
    at: i64,
    #[serde(with = "exact")]
    value: f64,
}

impl Series {
    /// A series without values.
    pub fn new(spec: &ChangeSpec) -> Series {
        let extreme = match spec.from {
            From::WindowMax => Some(Extreme::Max),
            From::WindowMin => Some(Extreme::Min),
            From::Previous | From::WindowAvg | From::PreviousWindowAvg => None,
        };
        Series {
            values: VecDeque::new(),
            older: 0,
            averaged: Moments::default(),
            extremes: extreme.map(Monotonic::new),
            newest: i64::MIN,
            dropped: 0,
        }
    }

    /// Compares a value at `at` (epoch ms) with those before it, then remembers it. A late value
    /// (before the newest) is remembered where it belongs and compared with nothing.
    pub fn observe(&mut self, spec: &ChangeSpec, at: i64, value: f64) -> Option<Change> {
        if !is_value(value) {
            return None;
        }
        if at < self.newest {
            self.remember_late(spec, at, value);
            return None;
        }
        self.newest = at;
        self.expire_at(spec, at);
        let change = self.reference(spec).map(|it| compare(spec, value, it));
        self.remember(spec, at, value);
        change
    }

    fn reference(&self, spec: &ChangeSpec) -> Option<f64> {
        match spec.from {
            From::Previous => self.values.back().map(|last| last.value),
            From::WindowMax | From::WindowMin => self.extremes.as_ref()?.best(),
            From::WindowAvg | From::PreviousWindowAvg => self.averaged.mean(),
        }
    }

    /// Forgets what no value at `now` (epoch ms) or later is compared with. An empty series can be
    /// thrown away.
    pub fn expire_at(&mut self, spec: &ChangeSpec, now: i64) {
        let from = now.saturating_sub(spec.over).saturating_add(1);
        if let Some(extremes) = &mut self.extremes {
            extremes.expire_before(from);
        }
        if spec.from != From::PreviousWindowAvg {
            while self.values.front().is_some_and(|value| value.at < from) {
                self.drop_oldest(spec);
            }
            return;
        }
        while let Some(value) = self.values.get(self.older).filter(|value| value.at < from) {
            self.averaged.add(Powers::Sum, value.value);
            self.older += 1;
        }
        let before = from.saturating_sub(spec.over);
        while self.values.front().is_some_and(|value| value.at < before) {
            self.drop_oldest(spec);
        }
    }

    fn drop_oldest(&mut self, spec: &ChangeSpec) {
        let Some(oldest) = self.values.pop_front() else {
            return;
        };
        match spec.from {
            From::WindowAvg => self.averaged.remove(Powers::Sum, oldest.value),
            From::PreviousWindowAvg if self.older > 0 => {
                self.averaged.remove(Powers::Sum, oldest.value);
                self.older -= 1;
            }
            _ => {}
        }
    }

    fn remember(&mut self, spec: &ChangeSpec, at: i64, value: f64) {
        if let Some(extremes) = &mut self.extremes {
            extremes.push(at, value);
            if extremes.len() > spec.max_values {
                extremes.drop_oldest();
                self.dropped += 1;
            }
            return;
        }
        self.values.push_back(Value { at, value });
        match spec.from {
            From::Previous if self.values.len() > 1 => drop(self.values.pop_front()),
            From::WindowAvg => self.averaged.add(Powers::Sum, value),
            _ => {}
        }
        self.bound(spec);
    }

    fn remember_late(&mut self, spec: &ChangeSpec, at: i64, value: f64) {
        let from = self.newest.saturating_sub(spec.over).saturating_add(1);
        let spans = if spec.from == From::PreviousWindowAvg {
            2
        } else {
            1
        };
        let oldest = self
            .newest
            .saturating_sub(spec.over * spans)
            .saturating_add(1);
        if at < oldest || spec.from == From::Previous {
            return;
        }
        if self.extremes.is_some() {
            self.remember(spec, at, value);
            return;
        }
        let place = self.values.partition_point(|other| other.at <= at);
        self.values.insert(place, Value { at, value });
        if spec.from == From::WindowAvg {
            self.averaged.add(Powers::Sum, value);
        } else if at < from {
            self.averaged.add(Powers::Sum, value);
            self.older += 1;
        }
        self.bound(spec);
    }

    fn bound(&mut self, spec: &ChangeSpec) {
        if self.values.len() > spec.max_values {
            self.drop_oldest(spec);
            self.dropped += 1;
        }
    }

    /// How many values were forgotten early because of `max_values`.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many values are remembered.
    pub fn len(&self) -> usize {
        self.values.len() + self.extremes.as_ref().map_or(0, Monotonic::len)
    }

    /// Whether no value is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn compare(spec: &ChangeSpec, current: f64, reference: f64) -> Change {
    let absolute = current - reference;
    let relative = if reference != 0.0 {
        Some(absolute / reference.abs())
    } else if absolute == 0.0 {
        Some(0.0)
    } else {
        None
    };
    let (size, threshold) = match spec.by {
        By::Relative(by) => (relative.unwrap_or(absolute * f64::INFINITY), by),
        By::Absolute(by) => (absolute, by),
    };
    let directed = match spec.direction {
        Direction::Up => size,
        Direction::Down => -size,
        Direction::Any => size.abs(),
    };
    Change {
        current,
        reference,
        absolute,
        relative,
        is_met: directed >= threshold * (1.0 - FORGIVEN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(direction: Direction, by: By, from: From, values: &[(i64, f64)]) -> Vec<Option<bool>> {
        let spec = ChangeSpec::new(direction, by, 10, from, 100).expect("an operator");
        let mut series = Series::new(&spec);
        let mut observe = |(at, value): &(i64, f64)| series.observe(&spec, *at, *value);
        values
            .iter()
            .map(|it| observe(it).map(|change| change.is_met))
            .collect()
    }

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (
            size_of::<Series>(),
            size_of::<Value>(),
            size_of::<ChangeSpec>(),
        );
        assert!(
            sizes.0 <= 240 && sizes.1 == 16 && sizes.2 <= 56,
            "{sizes:?}"
        );
    }

    #[test]
    fn thresholds_are_met_by_what_equals_them() {
        let up = |by, values: &[(i64, f64)]| met(Direction::Up, by, From::Previous, values);
        let values = [(0, 1.0), (1, 1.15), (2, 1.32), (3, 1.0)];
        let expected = [None, Some(true), Some(false), Some(false)];
        assert_eq!(up(By::Relative(0.15), &values), expected);
        assert_eq!(
            up(By::Absolute(0.15), &values),
            [None, Some(true), Some(true), Some(false)]
        );
    }

    #[test]
    fn zero_and_negative_references_are_defined() {
        let half = By::Relative(0.5);
        let values = [
            (0, 0.0),
            (1, 0.0),
            (2, 3.0),
            (3, 0.0),
            (4, -10.0),
            (5, -5.0),
        ];
        let up = met(Direction::Up, half, From::Previous, &values);
        assert_eq!(
            up,
            [
                None,
                Some(false),
                Some(true),
                Some(false),
                Some(false),
                Some(true)
            ]
        );
        let down = met(Direction::Down, half, From::Previous, &values);
        assert_eq!(
            down,
            [
                None,
                Some(false),
                Some(false),
                Some(true),
                Some(true),
                Some(false)
            ]
        );
    }

    #[test]
    fn missing_late_and_expired_values_are_no_references() {
        let values = [
            (0, 100.0),
            (1, f64::NAN),
            (5, 50.0),
            (4, 500.0),
            (14, 40.0),
            (15, 10.0),
            (40, 1.0),
        ];
        let found = met(Direction::Down, By::Relative(0.5), From::WindowMax, &values);
        let expected = [None, None, Some(true), None, Some(false), Some(true), None];
        assert_eq!(
            found, expected,
            "500 of a late value is of (4 − 10, 4], and out of it at 14"
        );
    }

    #[test]
    fn the_window_before_is_averaged() {
        let values = [
            (0, 10.0),
            (4, 20.0),
            (10, 99.0),
            (14, 18.75),
            (15, 18.0),
            (24, 98.9),
        ];
        let found = met(
            Direction::Up,
            By::Relative(0.25),
            From::PreviousWindowAvg,
            &values,
        );
        // At 10: (−10, 0]; at 14 and 15: the two of (−6, 4]; at 24: those of (4, 14].
        assert_eq!(
            found,
            [None, None, Some(true), Some(true), Some(false), Some(true)]
        );
        let spec = ChangeSpec::new(Direction::Up, By::Relative(0.0), 10, From::Previous, 9);
        assert_eq!(spec, Err(ChangeError::By(0.0)));
    }
}
