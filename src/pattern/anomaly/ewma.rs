//! Exponentially weighted mean and variance.

use serde::{Deserialize, Serialize};

use super::{Check, DetectorError, Verdict};
use crate::pattern::aggregate::is_value;
use crate::pattern::exact;

/// The parameters, checked. 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EwmaSpec {
    alpha: f64,
    sigmas: f64,
    least_deviation: f64,
    warm_up: u32,
}

impl EwmaSpec {
    /// `alpha` is the weight of the newest value, above 0 and below 1 (of 0.1, the last 20 values
    /// make up 88 %); a value further than `sigmas` deviations, above 0, from the mean is an
    /// anomaly. The first `warm_up` values, at least 2, are learned and not judged.
    ///
    /// # Errors
    /// Where a parameter is out of its bounds.
    pub fn new(alpha: f64, sigmas: f64, warm_up: u32) -> Result<EwmaSpec, DetectorError> {
        let check = Check("ewma");
        let is_weight = alpha > 0.0 && alpha < 1.0;
        check.that(is_weight, "alpha", alpha, "above 0 and below 1")?;
        check.that(
            sigmas > 0.0 && is_value(sigmas),
            "threshold",
            sigmas,
            "a number above 0",
        )?;
        check.that(
            warm_up >= 2,
            "warm-up",
            f64::from(warm_up),
            "2 values or more",
        )?;
        Ok(EwmaSpec {
            alpha,
            sigmas,
            least_deviation: 0.0,
            warm_up,
        })
    }

    /// The same, with a standard deviation never taken for less than `least`, in the unit of the
    /// values: for series that stand still for long.
    ///
    /// # Errors
    /// Where it is no number from 0.
    pub fn with_least_deviation(self, least: f64) -> Result<EwmaSpec, DetectorError> {
        let holds = least >= 0.0 && is_value(least);
        Check("ewma").that(holds, "least deviation", least, "a number from 0")?;
        Ok(EwmaSpec {
            least_deviation: least,
            ..self
        })
    }
}

/// The detector of one series. 24 bytes. Mean and variance by the incremental formulas of Finch
/// (2009), "Incremental calculation of weighted mean and variance"; anomalies are learned like all
/// else, so that a series that has moved for good is normal again after some 1/alpha values. Until
/// 1/alpha values have come, each weighs the same, lest the first dominate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ewma {
    #[serde(with = "exact")]
    mean: f64,
    #[serde(with = "exact")]
    variance: f64,
    seen: u64,
}

impl Ewma {
    /// Judges a value, then learns it. `None` during warm-up and of a missing value.
    pub fn observe(&mut self, spec: &EwmaSpec, value: f64) -> Option<Verdict> {
        if !is_value(value) {
            return None;
        }
        let verdict = (self.seen >= u64::from(spec.warm_up)).then(|| {
            let deviation = self.deviation().max(spec.least_deviation);
            Verdict::by_deviations(value, self.mean, deviation, spec.sigmas)
        });
        self.learn(value, spec.alpha);
        verdict
    }

    /// Moves mean and variance towards a value of weight `alpha`, or more while there are few.
    pub(super) fn learn(&mut self, value: f64, alpha: f64) {
        self.seen += 1;
        let weight = alpha.max(1.0 / self.seen as f64);
        let difference = value - self.mean;
        let step = weight * difference;
        self.mean += step;
        self.variance = (1.0 - weight) * (self.variance + difference * step);
    }

    /// How many values were learned.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The mean so far; 0 before the first value.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// The standard deviation so far, of a population.
    pub fn deviation(&self) -> f64 {
        self.variance.sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!((size_of::<Ewma>(), size_of::<EwmaSpec>()), (24, 32));
    }

    #[test]
    fn agrees_with_the_weights_written_out() {
        let spec = EwmaSpec::new(0.25, 3.0, 2).expect("parameters");
        let values = [3.0, 5.0, 4.0, 8.0, 1.0, 6.0, 6.5];
        let mut ewma = Ewma::default();
        let mut weights: Vec<f64> = Vec::new();
        for (seen, value) in values.iter().enumerate() {
            let _ = ewma.observe(&spec, *value);
            let weight = (1.0 / (seen + 1) as f64).max(0.25);
            weights.iter_mut().for_each(|it| *it *= 1.0 - weight);
            weights.push(weight);
            let sum = |of: &dyn Fn(f64) -> f64| -> f64 {
                weights
                    .iter()
                    .zip(values)
                    .map(|(weight, value)| weight * of(value))
                    .sum()
            };
            let mean = sum(&|value| value);
            let variance = sum(&|value| (value - mean).powi(2));
            assert!((ewma.mean() - mean).abs() < 1e-12);
            assert!((ewma.deviation() - variance.sqrt()).abs() < 1e-12);
        }
    }

    #[test]
    fn parameters_out_of_bounds_say_what_is_right() {
        let error = EwmaSpec::new(1.0, 3.0, 2).expect_err("alpha");
        assert_eq!(
            error.to_string(),
            "the alpha of ewma is 1: it must be above 0 and below 1"
        );
        assert!(EwmaSpec::new(0.5, f64::NAN, 2).is_err());
        assert!(EwmaSpec::new(0.5, 3.0, 1).is_err());
    }
}
