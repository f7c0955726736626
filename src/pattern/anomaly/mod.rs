//! Detectors of anomalies in a series of values, each with its own memory:
//!
//! - [`Ewma`]: distance from an exponentially weighted mean, in its standard deviations;
//! - [`RobustZ`]: distance from the median of the last values, in median absolute deviations;
//! - [`Seasonal`]: distance from what is usual in this slot of a period;
//! - [`Spot`]: extreme value theory (SPOT, and DSPOT with drift): a threshold that a value exceeds
//!   with a given probability, without assuming a distribution.
//!
//! Each judges a value by what came before it and only then learns from it. A value that
//! [`is_value`](super::aggregate::is_value) refuses is missing: not judged and not learned.

mod ewma;
mod grimshaw;
mod robust;
mod seasonal;
mod spot;

use serde::{Deserialize, Serialize};

pub use ewma::{Ewma, EwmaSpec};
pub use grimshaw::{Tail, fit};
pub use robust::{RobustZ, RobustZSpec};
pub use seasonal::{Seasonal, SeasonalSpec};
pub use spot::{Sides, Spot, SpotSpec};

/// The largest score that is told: what lies outside a range without width has this one.
pub const MAX_SCORE: f64 = 1e9;

/// How a value stands against what a detector has learned. 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// The value lies outside the expected range.
    pub is_anomaly: bool,
    /// How far out, 1 being the edge of the expected range and 0 its middle; at most
    /// [`MAX_SCORE`]. The measure of severity, and comparable between detectors.
    pub score: f64,
    /// The probability, 0 to 1, that a normal value would lie closer to what was expected, by the
    /// detector's own model. The measure of confidence.
    pub confidence: f64,
    /// The value that was expected.
    pub expected: f64,
    /// The lower edge of the expected range; −∞ where a detector watches the upper side only.
    pub lower: f64,
    /// The upper edge of the expected range; ∞ where a detector watches the lower side only.
    pub upper: f64,
}

impl Verdict {
    /// By a number of deviations from a mean, normally distributed.
    fn by_deviations(value: f64, mean: f64, deviation: f64, allowed: f64) -> Verdict {
        let distance = (value - mean).abs();
        let deviations = if distance == 0.0 {
            0.0
        } else {
            distance / deviation
        };
        Verdict {
            is_anomaly: deviations > allowed,
            score: (deviations / allowed).min(MAX_SCORE),
            confidence: within_deviations(deviations),
            expected: mean,
            lower: mean - allowed * deviation,
            upper: mean + allowed * deviation,
        }
    }
}

/// A detector that cannot be: what was given, and what would be right.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("the {what} of {detector} is {given}: it must be {right}")]
pub struct DetectorError {
    /// Which detector, by the name that a rule uses.
    pub detector: &'static str,
    /// Which of its parameters.
    pub what: &'static str,
    /// As given.
    pub given: f64,
    /// What it may be.
    pub right: &'static str,
}

/// Checks parameters of one detector.
struct Check(&'static str);

impl Check {
    fn that(
        &self,
        holds: bool,
        what: &'static str,
        given: f64,
        right: &'static str,
    ) -> Result<(), DetectorError> {
        if holds {
            return Ok(());
        }
        Err(DetectorError {
            detector: self.0,
            what,
            given,
            right,
        })
    }
}

/// The probability that a normal variable is within `deviations` of its mean, to 10⁻⁶
/// (Abramowitz and Stegun 1964, 7.1.26, for the error function).
fn within_deviations(deviations: f64) -> f64 {
    const POWERS: [f64; 5] = [
        0.254_829_592,
        -0.284_496_736,
        1.421_413_741,
        -1.453_152_027,
        1.061_405_429,
    ];
    if deviations == 0.0 {
        return 0.0;
    }
    let x = deviations / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let sum = POWERS
        .iter()
        .rev()
        .fold(0.0, |sum, factor| (sum + factor) * t);
    (1.0 - sum * (-x * x).exp()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_those_of_the_tables() {
        let table = [
            (0.0, 0.0),
            (1.0, 0.682_689),
            (2.0, 0.954_500),
            (3.0, 0.997_300),
        ];
        for (deviations, probability) in table {
            let found = within_deviations(deviations);
            assert!((found - probability).abs() < 2e-6, "{deviations}: {found}");
        }
        assert_eq!(within_deviations(f64::INFINITY), 1.0);
    }

    #[test]
    fn outside_a_range_without_width_is_the_largest_score() {
        let verdict = Verdict::by_deviations(2.0, 1.0, 0.0, 3.0);
        assert!(verdict.is_anomaly);
        assert_eq!((verdict.score, verdict.confidence), (MAX_SCORE, 1.0));
        let same = Verdict::by_deviations(1.0, 1.0, 0.0, 3.0);
        assert_eq!(
            (same.is_anomaly, same.score, same.confidence),
            (false, 0.0, 0.0)
        );
        assert_eq!(size_of::<Verdict>(), 48);
    }
}
