//! Sums that forget nothing: a number as the unevaluated sum of two `f64`, about 106 bits
//! (double-double arithmetic after Dekker 1971 and Knuth's two-sum). A value that was added and
//! later taken back leaves an error of 2⁻¹⁰⁰ of the largest sum in between, where a plain `f64`
//! leaves 2⁻⁵³.

use serde::{Deserialize, Serialize};

use crate::pattern::exact;

/// A number of about 106 bits: `high + low`, `high` being the sum rounded to `f64`. 16 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Double {
    #[serde(with = "exact")]
    high: f64,
    #[serde(with = "exact")]
    low: f64,
}

impl Double {
    /// The product of two numbers, exact while it neither overflows nor underflows.
    pub fn product(a: f64, b: f64) -> Double {
        let high = a * b;
        let (a_high, a_low) = split(a);
        let (b_high, b_low) = split(b);
        let low = ((a_high * b_high - high) + a_high * b_low + a_low * b_high) + a_low * b_low;
        Double { high, low }
    }

    /// The nearest `f64`.
    pub fn value(self) -> f64 {
        self.high + self.low
    }

    /// Adds a number; subtract by adding its negative.
    pub fn add(&mut self, value: f64) {
        let (sum, error) = two_sum(self.high, value);
        (self.high, self.low) = quick_two_sum(sum, error + self.low);
    }

    /// The sum of two.
    #[must_use]
    pub fn plus(self, other: Double) -> Double {
        let (sum, error) = two_sum(self.high, other.high);
        let (low_sum, low_error) = two_sum(self.low, other.low);
        let (sum, error) = quick_two_sum(sum, error + low_sum);
        let (high, low) = quick_two_sum(sum, error + low_error);
        Double { high, low }
    }

    /// `self - other`.
    #[must_use]
    pub fn minus(self, other: Double) -> Double {
        self.plus(Double {
            high: -other.high,
            low: -other.low,
        })
    }

    /// The square.
    #[must_use]
    pub fn squared(self) -> Double {
        let mut square = Double::product(self.high, self.high);
        square.add(2.0 * self.high * self.low);
        square
    }

    /// The quotient by a number other than zero.
    #[must_use]
    pub fn divided_by(self, divisor: f64) -> Double {
        let first = self.high / divisor;
        let rest = self.minus(Double::product(first, divisor));
        let (high, low) = quick_two_sum(first, rest.value() / divisor);
        Double { high, low }
    }
}

/// The rounded sum and its rounding error.
fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let b_part = sum - a;
    (sum, (a - (sum - b_part)) + (b - b_part))
}

/// [`two_sum`] where `a` is the larger in size.
fn quick_two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    (sum, b - (sum - a))
}

/// Two halves of 26 bits whose products are exact.
fn split(value: f64) -> (f64, f64) {
    const FACTOR: f64 = 134_217_729.0; // 2²⁷ + 1
    let scaled = FACTOR * value;
    let high = scaled - (scaled - value);
    (high, value - high)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_value_survives_a_large_one_that_comes_and_goes() {
        let mut sum = Double::default();
        for value in [0.1, 1e20, 0.2, -1e20] {
            sum.add(value);
        }
        assert!((sum.value() - 0.3).abs() < 1e-10, "{sum:?}");
        assert_eq!(
            0.1 + 1e20 + 0.2 - 1e20,
            0.0,
            "where a plain sum has lost both"
        );
    }

    #[test]
    fn products_and_quotients_are_exact_to_a_hundred_bits() {
        let third = Double::default()
            .plus(Double::product(1.0, 1.0))
            .divided_by(3.0);
        let mut rest = Double::product(1.0, 1.0);
        for _ in 0..3 {
            rest = rest.minus(third);
        }
        assert!(rest.value().abs() < 2_f64.powi(-100), "{rest:?}");
        let square = Double::product(1.0 + f64::EPSILON, 1.0 + f64::EPSILON);
        let beyond = square.minus(Double::product(1.0 + 2.0 * f64::EPSILON, 1.0));
        assert_eq!(beyond.value(), f64::EPSILON * f64::EPSILON);
    }
}
