//! Count, sum, average and standard deviation of the values of a window.

use serde::{Deserialize, Serialize};

use super::double::Double;

/// What is added up beside the count: each takes longer than all else about a value, so that sums which
/// nobody reads are left at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Powers {
    /// Nothing.
    #[default]
    Count,
    /// The values.
    Sum,
    /// The values and their squares.
    Squares,
}

/// Count and sum, as far as the caller asks for [`Powers`], always for the same. 24 bytes.
///
/// When the last value leaves, both are exactly zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Tally {
    pub(super) count: u64,
    sum: Double,
}

impl Tally {
    /// So many values whose sum nobody asks for.
    pub(super) fn of_count(count: u64) -> Tally {
        let sum = Double::default();
        Tally { count, sum }
    }

    #[inline]
    pub(super) fn add(&mut self, powers: Powers, value: f64) {
        self.count += 1;
        if powers >= Powers::Sum {
            self.sum.add(value);
        }
    }

    pub(super) fn remove(&mut self, powers: Powers, value: f64) {
        if powers >= Powers::Sum {
            self.sum.add(-value);
        }
        self.counted_down_by(1);
    }

    pub(super) fn merge(&mut self, powers: Powers, other: &Tally) {
        self.count += other.count;
        if powers >= Powers::Sum {
            self.sum = self.sum.plus(other.sum);
        }
    }

    pub(super) fn unmerge(&mut self, powers: Powers, other: &Tally) {
        if powers >= Powers::Sum {
            self.sum = self.sum.minus(other.sum);
        }
        self.counted_down_by(other.count);
    }

    fn counted_down_by(&mut self, count: u64) {
        debug_assert!(self.count >= count, "more is taken back than was added");
        self.count = self.count.saturating_sub(count);
        if self.count == 0 {
            *self = Tally::default();
        }
    }
}

/// Count, sum and sum of squares, as far as the caller asks for [`Powers`], always for the same. 40 bytes.
///
/// Retraction is as good as not having added: each operation is off by less than 2⁻¹⁰⁰ of the
/// largest sum, and sum of squares, on the way. So a standard deviation is off by some 2⁻⁵⁰ of the
/// largest value that was ever in: nine digits hold where it is a hundred-thousandth of the values.
/// When the last value leaves, all is exactly zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    tally: Tally,
    squares: Double,
}

impl From<Tally> for Moments {
    fn from(tally: Tally) -> Moments {
        let squares = Double::default();
        Moments { tally, squares }
    }
}

impl Moments {
    /// Count and sum, where there is nothing beside them.
    pub(super) fn tally_alone(&self) -> Option<Tally> {
        (self.squares == Double::default()).then_some(self.tally)
    }

    /// Adds a value; the caller has checked it with [`is_value`](super::is_value).
    #[inline]
    pub fn add(&mut self, powers: Powers, value: f64) {
        self.tally.add(powers, value);
        if powers >= Powers::Squares {
            self.squares = self.squares.plus(Double::product(value, value));
        }
    }

    /// Takes back a value that was added.
    pub fn remove(&mut self, powers: Powers, value: f64) {
        if powers >= Powers::Squares {
            self.squares = self.squares.minus(Double::product(value, value));
        }
        self.tally.remove(powers, value);
        self.zero_if_empty();
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, powers: Powers, other: &Moments) {
        self.tally.merge(powers, &other.tally);
        if powers >= Powers::Squares {
            self.squares = self.squares.plus(other.squares);
        }
    }

    /// Takes back what was merged.
    pub fn unmerge(&mut self, powers: Powers, other: &Moments) {
        if powers >= Powers::Squares {
            self.squares = self.squares.minus(other.squares);
        }
        self.tally.unmerge(powers, &other.tally);
        self.zero_if_empty();
    }

    fn zero_if_empty(&mut self) {
        if self.tally.count == 0 {
            *self = Moments::default();
        }
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.tally.count
    }

    /// Their sum; 0 without any.
    pub fn sum(&self) -> f64 {
        self.tally.sum.value()
    }

    /// Their average; `None` without any.
    pub fn mean(&self) -> Option<f64> {
        (self.tally.count > 0).then(|| self.tally.sum.value() / self.tally.count as f64)
    }

    /// The standard deviation of the values as a whole population (divided by n); `None` without
    /// any.
    pub fn population_deviation(&self) -> Option<f64> {
        (self.tally.count > 0).then(|| (self.scatter() / self.tally.count as f64).sqrt())
    }

    /// The standard deviation of what the values are a sample of (divided by n − 1); `None` with
    /// fewer than two.
    pub fn sample_deviation(&self) -> Option<f64> {
        (self.tally.count > 1).then(|| (self.scatter() / (self.tally.count - 1) as f64).sqrt())
    }

    /// The sum of squared distances from the mean.
    fn scatter(&self) -> f64 {
        let of_mean = self.tally.sum.squared().divided_by(self.tally.count as f64);
        self.squares.minus(of_mean).value().max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!(size_of::<Moments>(), 40);
    }

    #[test]
    fn agrees_with_the_formulas_by_hand() {
        let mut moments = Moments::default();
        assert_eq!((moments.mean(), moments.sample_deviation()), (None, None));
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.add(Powers::Squares, value);
        }
        assert_eq!((moments.count(), moments.sum()), (8, 40.0));
        assert_eq!(moments.mean(), Some(5.0));
        assert_eq!(moments.population_deviation(), Some(2.0));
        assert_eq!(moments.sample_deviation(), Some((32.0_f64 / 7.0).sqrt()));
    }

    #[test]
    fn a_small_deviation_far_from_zero_survives_retraction() {
        let mut moments = Moments::default();
        for step in 0..10_000 {
            moments.add(Powers::Squares, 1e9 + f64::from(step % 2));
            if step >= 100 {
                moments.remove(Powers::Squares, 1e9 + f64::from(step % 2));
            }
        }
        let deviation = moments.population_deviation().expect("it has values");
        assert!((deviation - 0.5).abs() < 1e-9, "{deviation}");
    }
}
