//! Robust z-score: median and median absolute deviation of the last values.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Check, DetectorError, Verdict};
use crate::pattern::aggregate::is_value;

/// The median absolute deviation of a normal variable, in standard deviations.
const NORMAL_MEDIAN_DEVIATION: f64 = 0.6745;
/// The mean absolute deviation of a normal variable is its standard deviation over this.
const NORMAL_MEAN_DEVIATION: f64 = 1.253_314;

/// The parameters, checked. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RobustZSpec {
    values: u32,
    warm_up: u32,
    threshold: f64,
}

impl RobustZSpec {
    /// The most values that a window may have.
    pub const MAX_VALUES: u32 = 10_000;

    /// The last `values` values, 3 to 10,000; a value whose modified z-score is above `threshold`,
    /// above 0 (3.5 is usual), is an anomaly. Nothing is judged by fewer than `warm_up` values, 3
    /// to `values`.
    ///
    /// # Errors
    /// Where a parameter is out of its bounds.
    pub fn new(values: u32, threshold: f64, warm_up: u32) -> Result<RobustZSpec, DetectorError> {
        let check = Check("robust_z");
        let in_bounds = (3..=Self::MAX_VALUES).contains(&values);
        check.that(in_bounds, "window", f64::from(values), "3 to 10,000 values")?;
        let is_size = threshold > 0.0 && is_value(threshold);
        check.that(is_size, "threshold", threshold, "a number above 0")?;
        let in_window = (3..=values).contains(&warm_up);
        check.that(
            in_window,
            "warm-up",
            f64::from(warm_up),
            "3 values to those of the window",
        )?;
        Ok(RobustZSpec {
            values,
            warm_up,
            threshold,
        })
    }
}

/// The detector of one series: the modified z-score of Iglewicz and Hoaglin (1993),
/// 0.6745·(x − median)/MAD. Where more than half of the values are equal, the MAD is zero and the
/// mean absolute deviation, over 1.253314·, takes its place. 56 bytes and 16 for each value of
/// the window. A value costs two binary searches and a move of half the window.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RobustZ {
    /// In the order of arrival, as bits, which serialise without loss.
    recent: VecDeque<u64>,
    /// The same values in ascending order.
    sorted: Vec<u64>,
}

impl RobustZ {
    /// Judges a value, then learns it. `None` during warm-up and of a missing value.
    pub fn observe(&mut self, spec: &RobustZSpec, value: f64) -> Option<Verdict> {
        if !is_value(value) {
            return None;
        }
        let is_warm = self.sorted.len() >= spec.warm_up as usize;
        let verdict = is_warm.then(|| {
            let median = self.median();
            let deviation = match self.median_deviation() {
                0.0 => self.mean_deviation() * NORMAL_MEAN_DEVIATION,
                deviation => deviation / NORMAL_MEDIAN_DEVIATION,
            };
            Verdict::by_deviations(value, median, deviation, spec.threshold)
        });
        self.learn(spec, ordered(value));
        verdict
    }

    fn learn(&mut self, spec: &RobustZSpec, word: u64) {
        if self.recent.len() >= spec.values as usize
            && let Some(oldest) = self.recent.pop_front()
            && let Ok(place) = self.sorted.binary_search(&oldest)
        {
            self.sorted.remove(place);
        }
        self.recent.push_back(word);
        let place = self.sorted.partition_point(|&other| other < word);
        self.sorted.insert(place, word);
    }

    fn at(&self, place: usize) -> f64 {
        value_of(self.sorted[place])
    }

    /// The middle value, or the mean of the two in the middle; 0 without values.
    pub fn median(&self) -> f64 {
        match self.sorted.len() {
            0 => 0.0,
            len if len % 2 == 1 => self.at(len / 2),
            len => f64::midpoint(self.at(len / 2 - 1), self.at(len / 2)),
        }
    }

    /// The median of the distances from the median; 0 without values.
    pub fn median_deviation(&self) -> f64 {
        let (len, median) = (self.sorted.len(), self.median());
        match len {
            0 => 0.0,
            len if len % 2 == 1 => self.distance_of_rank(median, len / 2),
            len => f64::midpoint(
                self.distance_of_rank(median, len / 2 - 1),
                self.distance_of_rank(median, len / 2),
            ),
        }
    }

    /// The distance from `median` with `rank` (from 0) smaller ones: the values up to the middle
    /// have descending distances, those from there ascending ones, and a binary search finds how
    /// many of the lower ones are among the `rank` smallest.
    fn distance_of_rank(&self, median: f64, rank: usize) -> f64 {
        let middle = self.sorted.len() / 2;
        let below = |nth: usize| median - self.at(middle - 1 - nth);
        let above = |nth: usize| self.at(middle + nth) - median;
        let (lower, upper) = (middle, self.sorted.len() - middle);
        let (mut least, mut most) = (rank.saturating_sub(upper), rank.min(lower));
        while least < most {
            let taken = usize::midpoint(least, most);
            if below(taken) < above(rank - taken - 1) {
                least = taken + 1;
            } else {
                most = taken;
            }
        }
        let from_below = if least < lower {
            below(least)
        } else {
            f64::INFINITY
        };
        let from_above = if rank - least < upper {
            above(rank - least)
        } else {
            f64::INFINITY
        };
        from_below.min(from_above)
    }

    fn mean_deviation(&self) -> f64 {
        let median = self.median();
        let distances = self
            .sorted
            .iter()
            .map(|&word| (value_of(word) - median).abs());
        distances.sum::<f64>() / self.sorted.len().max(1) as f64
    }
}

/// The bits of a value, in the order of values.
fn ordered(value: f64) -> u64 {
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 {
        !bits
    } else {
        bits | (1 << 63)
    }
}

fn value_of(word: u64) -> f64 {
    f64::from_bits(if word >> 63 == 1 {
        word ^ (1 << 63)
    } else {
        !word
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(values: &[f64]) -> RobustZ {
        let spec = RobustZSpec::new(100, 3.5, 3).expect("parameters");
        let mut robust = RobustZ::default();
        for value in values {
            let _ = robust.observe(&spec, *value);
        }
        robust
    }

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!((size_of::<RobustZ>(), size_of::<RobustZSpec>()), (56, 16));
    }

    #[test]
    fn agrees_with_the_example_by_hand() {
        let robust = after(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0]);
        assert_eq!((robust.median(), robust.median_deviation()), (2.0, 1.0));
        let robust = after(&[-5.0, 7.0, 1.0, 2.0]);
        assert_eq!((robust.median(), robust.median_deviation()), (1.5, 3.0));
    }

    #[test]
    fn where_most_values_are_equal_the_mean_deviation_judges() {
        let spec = RobustZSpec::new(10, 3.5, 3).expect("parameters");
        let mut robust = after(&[5.0, 5.0, 5.0, 5.0, 6.0]);
        let verdict = robust.observe(&spec, 6.0).expect("it is warm");
        let z = 1.0 / (0.2 * NORMAL_MEAN_DEVIATION);
        assert!((verdict.score - z / 3.5).abs() < 1e-12, "{verdict:?}");
    }
}
