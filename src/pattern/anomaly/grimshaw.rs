//! The tail of a distribution above a high threshold: the generalized Pareto distribution, fitted
//! by maximum likelihood.

use serde::{Deserialize, Serialize};

use crate::pattern::exact;

/// Shapes below this are not fitted: maximum likelihood is irregular there (Smith 1985).
const LEAST_SHAPE: f64 = -0.5;
/// Shapes nearer to zero than this are the exponential distribution.
const ZERO_SHAPE: f64 = 1e-8;
/// Points of an interval at which a root is looked for.
const GRID: i32 = 24;
/// Halvings of an interval with a root.
const HALVINGS: usize = 40;

/// A generalized Pareto distribution of excesses y > 0: P(Y > y) = (1 + shape·y/scale)^(−1/shape),
/// and e^(−y/scale) for a shape of 0. 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tail {
    /// Above 0 heavy, 0 exponential, below 0 bounded; the extreme value index γ.
    #[serde(with = "exact")]
    pub shape: f64,
    /// In the unit of the values; above 0.
    #[serde(with = "exact")]
    pub scale: f64,
}

impl Tail {
    /// The probability that an excess is larger than `excess`, of 0 or more.
    pub fn beyond(&self, excess: f64) -> f64 {
        if self.shape.abs() < ZERO_SHAPE {
            return (-excess / self.scale).exp();
        }
        let base = 1.0 + self.shape * excess / self.scale;
        base.max(0.0).powf(-1.0 / self.shape).min(1.0)
    }

    /// The excess that is exceeded with `probability`, above 0 and at most 1.
    pub fn exceeded_with(&self, probability: f64) -> f64 {
        if self.shape.abs() < ZERO_SHAPE {
            return -self.scale * probability.ln();
        }
        self.scale / self.shape * (probability.powf(-self.shape) - 1.0)
    }

    fn log_likelihood(&self, excesses: &[f64]) -> f64 {
        let (n, scale) = (excesses.len() as f64, self.scale);
        if self.shape.abs() < ZERO_SHAPE {
            return -n * scale.ln() - excesses.iter().sum::<f64>() / scale;
        }
        let ratio = self.shape / scale;
        let logs: f64 = excesses.iter().map(|y| (1.0 + ratio * y).ln()).sum();
        let likelihood = -n * scale.ln() - (1.0 + 1.0 / self.shape) * logs;
        if likelihood.is_nan() {
            f64::NEG_INFINITY
        } else {
            likelihood
        }
    }
}

/// Fits a tail to excesses, all above 0, of which there is at least one.
///
/// Grimshaw's trick (1993, as in Siffer et al. 2017) leaves one unknown, x = shape/scale, at which
/// u(x)·v(x) = 1 with u the mean of 1/(1 + x·y) and v one more than the mean of ln(1 + x·y). Roots
/// are bracketed on a grid and halved; of them, the exponential distribution and the estimate by
/// moments, the likeliest is the answer. Constant times the number of excesses.
pub fn fit(excesses: &[f64]) -> Tail {
    let n = excesses.len() as f64;
    let mean = excesses.iter().sum::<f64>() / n;
    let variance = excesses.iter().map(|y| (y - mean).powi(2)).sum::<f64>() / n;
    let exponential = Tail {
        shape: 0.0,
        scale: mean,
    };
    let mut best = (exponential.log_likelihood(excesses), exponential);
    let mut consider = |tail: Tail| {
        let is_regular = tail.shape >= LEAST_SHAPE && tail.scale > 0.0 && tail.scale.is_finite();
        let likelihood = tail.log_likelihood(excesses);
        if is_regular && likelihood > best.0 {
            best = (likelihood, tail);
        }
    };
    if variance > 0.0 {
        let ratio = mean * mean / variance;
        consider(Tail {
            shape: 0.5 * (1.0 - ratio),
            scale: 0.5 * mean * (ratio + 1.0),
        });
    }
    for x in roots(excesses, mean) {
        let shape = excesses.iter().map(|y| (1.0 + x * y).ln()).sum::<f64>() / n;
        let scale = shape / x;
        consider(Tail { shape, scale });
    }
    best.1
}

/// Where u·v = 1, other than at 0, in the two intervals that Grimshaw gives.
fn roots(excesses: &[f64], mean: f64) -> Vec<f64> {
    let extreme = |pick: fn(f64, f64) -> f64| excesses.iter().copied().reduce(pick).unwrap_or(mean);
    let (least, most) = (extreme(f64::min), extreme(f64::max));
    let function = |x: f64| {
        let (mut u, mut v) = (0.0, 0.0);
        for y in excesses {
            u += 1.0 / (1.0 + x * y);
            v += (1.0 + x * y).ln();
        }
        let n = excesses.len() as f64;
        (u / n) * (1.0 + v / n) - 1.0
    };
    // Geometric on both sides, from a thousandth of the natural scale.
    let below =
        |point: i32| -(0.999 / most) * 1e-3_f64.powf(1.0 - f64::from(point) / f64::from(GRID));
    let bound = (2.0 * (mean - least) / (least * least)).min(1e4 / mean);
    let start = 1e-3 / mean;
    let above = |point: i32| start * (bound / start).powf(f64::from(point) / f64::from(GRID));
    let mut roots = Vec::new();
    collect_roots(&function, &below, &mut roots);
    if bound > start {
        collect_roots(&function, &above, &mut roots);
    }
    roots
}

fn collect_roots(
    function: &impl Fn(f64) -> f64,
    point: &impl Fn(i32) -> f64,
    roots: &mut Vec<f64>,
) {
    let mut before = (point(0), function(point(0)));
    for place in 1..=GRID {
        let here = (point(place), function(point(place)));
        if before.1 * here.1 < 0.0 {
            let (mut a, mut b) = (before.0, here.0);
            for _ in 0..HALVINGS {
                let middle = f64::midpoint(a, b);
                if function(middle) * before.1 > 0.0 {
                    a = middle;
                } else {
                    b = middle;
                }
            }
            roots.push(f64::midpoint(a, b));
        }
        before = here;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Quantiles of a tail at the middles of equal parts: a sample without chance.
    fn sample(tail: Tail, count: u32) -> Vec<f64> {
        let middle = |i: u32| (f64::from(i) + 0.5) / f64::from(count);
        (0..count).map(|i| tail.exceeded_with(middle(i))).collect()
    }

    #[test]
    fn finds_the_tail_that_a_sample_comes_from() {
        for shape in [-0.3, -0.1, 0.0, 0.1, 0.3, 0.8] {
            let tail = Tail { shape, scale: 2.5 };
            let found = fit(&sample(tail, 2_000));
            assert!((found.shape - shape).abs() < 0.02, "{shape}: {found:?}");
            assert!((found.scale / 2.5 - 1.0).abs() < 0.03, "{shape}: {found:?}");
        }
    }

    #[test]
    fn no_shape_nearby_is_likelier() {
        let excesses = sample(
            Tail {
                shape: 0.25,
                scale: 1.0,
            },
            300,
        );
        let found = fit(&excesses);
        let best = found.log_likelihood(&excesses);
        for (by, of) in [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)] {
            let other = Tail {
                shape: found.shape + by,
                scale: found.scale + of,
            };
            assert!(other.log_likelihood(&excesses) < best, "{other:?}");
        }
    }

    #[test]
    fn probabilities_and_excesses_are_inverse() {
        for shape in [-0.4, 0.0, 0.5] {
            let tail = Tail { shape, scale: 3.0 };
            for probability in [1.0, 0.5, 1e-3, 1e-9] {
                let found = tail.beyond(tail.exceeded_with(probability));
                assert!((found / probability - 1.0).abs() < 1e-5, "{shape}: {found}");
            }
        }
        assert_eq!(
            Tail {
                shape: -0.5,
                scale: 1.0
            }
            .beyond(3.0),
            0.0,
            "past its end"
        );
    }

    #[test]
    fn equal_excesses_are_exponential() {
        assert_eq!(
            fit(&[2.0; 5]),
            Tail {
                shape: 0.0,
                scale: 2.0
            }
        );
    }
}
