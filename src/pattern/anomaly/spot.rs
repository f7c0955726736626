//! SPOT and DSPOT: streaming peaks over threshold (Siffer, Fouque, Termier and Largouët 2017,
//! "Anomaly detection in streams with extreme value theory").

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::grimshaw::{Tail, fit};
use super::{Check, DetectorError, MAX_SCORE, Verdict};
use crate::pattern::aggregate::{Moments, Powers, is_value};
use crate::pattern::exact;

/// The most peaks of a side that a fit looks at: the newest.
const MAX_PEAKS: usize = 500;
/// A side fits its tail anew when this part of its peaks is new.
const REFIT_PART: usize = 20;

/// Which sides are watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sides {
    /// Values that are too large.
    Upper,
    /// Values that are too small.
    Lower,
    /// Both; each has the whole risk to itself.
    Both,
}

/// The parameters, checked. 40 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpotSpec {
    sides: Sides,
    calibration: u32,
    level: f64,
    risk: f64,
    depth: u32,
}

impl SpotSpec {
    /// Learns from the first `calibration` values, 200 to 100,000; of those, the part above
    /// `level`, 0.5 to 0.99 (0.98 is usual), are peaks, and have to be at least ten. A value that
    /// normal ones exceed with probability `risk` at most, above 0 and below 1 − level (0.001 to
    /// 0.00001 is usual), is an anomaly.
    ///
    /// # Errors
    /// Where a parameter is out of its bounds.
    pub fn new(
        sides: Sides,
        calibration: u32,
        level: f64,
        risk: f64,
    ) -> Result<SpotSpec, DetectorError> {
        let check = Check("spot");
        let values = f64::from(calibration);
        let in_bounds = (200..=100_000).contains(&calibration);
        check.that(in_bounds, "calibration", values, "200 to 100,000 values")?;
        check.that((0.5..=0.99).contains(&level), "level", level, "0.5 to 0.99")?;
        let right = "so many values that ten are above the level";
        check.that(
            values * (1.0 - level) >= 10.0 - 1e-6,
            "calibration",
            values,
            right,
        )?;
        let is_rare = risk > 0.0 && risk < 1.0 - level;
        check.that(is_rare, "risk", risk, "above 0 and below 1 less the level")?;
        Ok(SpotSpec {
            sides,
            calibration,
            level,
            risk,
            depth: 0,
        })
    }

    /// The same, on the distance of each value from the average of the last `depth` normal ones, 1
    /// to 10,000: DSPOT, for series that drift.
    ///
    /// # Errors
    /// Where the depth is out of its bounds.
    pub fn with_drift(self, depth: u32) -> Result<SpotSpec, DetectorError> {
        let in_bounds = (1..=10_000).contains(&depth);
        let given = f64::from(depth);
        Check("spot").that(in_bounds, "depth", given, "1 to 10,000 values")?;
        Ok(SpotSpec { depth, ..self })
    }
}

/// The detector of one series. 328 bytes; 8 for each value of the calibration while it lasts, 8 for
/// each of at most 500 peaks a side, and 8 for each value of the depth.
///
/// A value more than twice as far above the level as the edge is not learned. Nearer anomalies are,
/// other than in the paper: a true tail has such values, and without them the edge creeps inwards
/// (measured at a risk of 10⁻³ on normal values: four times the alarms). After as many anomalies in
/// a row as a calibration takes, the series has changed for good and calibration begins again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spot {
    /// Values of the calibration under way; empty after it.
    #[serde(with = "exact::list")]
    calibrating: VecDeque<f64>,
    /// The last normal values, for the drift.
    #[serde(with = "exact::list")]
    recent: VecDeque<f64>,
    base: Moments,
    /// What is expected of a value less the drift: the median of the calibration.
    #[serde(with = "exact")]
    median: f64,
    upper: Option<Side>,
    lower: Option<Side>,
    anomalies_in_a_row: u32,
}

/// One side; the lower one sees negated values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Side {
    /// Above it, a value is a peak.
    #[serde(with = "exact")]
    level: f64,
    /// Above it, a value is an anomaly.
    #[serde(with = "exact")]
    edge: f64,
    tail: Tail,
    /// Excesses over the level; the newest last.
    #[serde(with = "exact::list")]
    peaks: VecDeque<f64>,
    /// Values learned, peaks among them, since the calibration began.
    seen: u64,
    seen_peaks: u64,
    peaks_since_fit: u32,
}

impl Spot {
    /// Judges a value, then learns it. `None` during calibration and of a missing value.
    pub fn observe(&mut self, spec: &SpotSpec, value: f64) -> Option<Verdict> {
        if !is_value(value) {
            return None;
        }
        if self.recent.len() < spec.depth as usize {
            self.follow_drift(spec, value);
            return None;
        }
        let drift = self.base.mean().unwrap_or(0.0);
        let distance = value - drift;
        if self.upper.is_none() && self.lower.is_none() {
            self.calibrate(spec, distance);
            self.follow_drift(spec, value);
            return None;
        }
        let verdict = self.judge(drift, distance);
        if let Some(side) = &mut self.upper {
            side.learn(spec.risk, distance);
        }
        if let Some(side) = &mut self.lower {
            side.learn(spec.risk, -distance);
        }
        if verdict.is_anomaly {
            self.anomalies_in_a_row += 1;
            if self.anomalies_in_a_row >= spec.calibration {
                *self = Spot::default();
            }
        } else {
            self.anomalies_in_a_row = 0;
            self.follow_drift(spec, value);
        }
        Some(verdict)
    }

    fn follow_drift(&mut self, spec: &SpotSpec, value: f64) {
        if spec.depth == 0 {
            return;
        }
        if self.recent.len() >= spec.depth as usize
            && let Some(oldest) = self.recent.pop_front()
        {
            self.base.remove(Powers::Squares, oldest);
        }
        self.recent.push_back(value);
        self.base.add(Powers::Squares, value);
    }

    fn calibrate(&mut self, spec: &SpotSpec, distance: f64) {
        self.calibrating.push_back(distance);
        if self.calibrating.len() < spec.calibration as usize {
            return;
        }
        let mut sorted: Vec<f64> = std::mem::take(&mut self.calibrating).into();
        sorted.sort_unstable_by(f64::total_cmp);
        self.median = sorted[sorted.len() / 2];
        if spec.sides != Sides::Lower {
            self.upper = Some(Side::new(spec, &sorted));
        }
        if spec.sides != Sides::Upper {
            let negated: Vec<f64> = sorted.iter().rev().map(|value| -value).collect();
            self.lower = Some(Side::new(spec, &negated));
        }
    }

    fn judge(&self, drift: f64, distance: f64) -> Verdict {
        let upper = self.upper.as_ref().map_or(f64::INFINITY, |side| side.edge);
        let lower = self
            .lower
            .as_ref()
            .map_or(f64::NEG_INFINITY, |side| -side.edge);
        let from_middle = distance - self.median;
        let (side, beyond, width) = if from_middle >= 0.0 {
            (&self.upper, distance, upper - self.median)
        } else {
            (&self.lower, -distance, self.median - lower)
        };
        let score = if from_middle == 0.0 {
            0.0
        } else {
            from_middle.abs() / width
        };
        Verdict {
            is_anomaly: distance > upper || distance < lower,
            score: score.min(MAX_SCORE),
            confidence: side
                .as_ref()
                .map_or(0.0, |side| 1.0 - side.probability(beyond)),
            expected: self.median + drift,
            lower: lower + drift,
            upper: upper + drift,
        }
    }
}

impl Side {
    /// From the values of a calibration in ascending order.
    fn new(spec: &SpotSpec, sorted: &[f64]) -> Side {
        let place = (spec.level * sorted.len() as f64) as usize;
        let level = sorted[place.min(sorted.len() - 1)];
        let above: Vec<f64> = sorted
            .iter()
            .map(|value| value - level)
            .filter(|it| *it > 0.0)
            .collect();
        let step = above.len().div_ceil(MAX_PEAKS).max(1);
        let mut side = Side {
            level,
            edge: level,
            tail: Tail {
                shape: 0.0,
                scale: 0.0,
            },
            // They are in ascending order: of too many, some of each size are kept.
            peaks: above.iter().copied().step_by(step).collect(),
            seen: sorted.len() as u64,
            seen_peaks: above.len() as u64,
            peaks_since_fit: 0,
        };
        side.fit(spec.risk);
        side
    }

    /// Takes in a value, unless it is far beyond the edge.
    fn learn(&mut self, risk: f64, value: f64) {
        let excess = value - self.level;
        if excess > 0.0 && excess > 2.0 * (self.edge - self.level) {
            return;
        }
        self.seen += 1;
        if excess > 0.0 {
            self.seen_peaks += 1;
            self.peaks_since_fit += 1;
            self.peaks.push_back(excess);
            if self.peaks.len() > MAX_PEAKS {
                self.peaks.pop_front();
            }
            if self.peaks_since_fit as usize * REFIT_PART >= self.peaks.len() {
                self.fit(risk);
            }
        }
    }

    /// Fits the tail to the peaks and sets the edge that is exceeded with probability `risk`. A
    /// calibration whose highest values were all equal has no peaks: anything higher is rare.
    fn fit(&mut self, risk: f64) {
        self.peaks_since_fit = 0;
        let peaks = self.peaks.make_contiguous();
        if peaks.is_empty() {
            return;
        }
        self.tail = fit(peaks);
        let within_peaks = (risk * self.seen as f64 / self.seen_peaks as f64).min(1.0);
        self.edge = self.level + self.tail.exceeded_with(within_peaks);
    }

    /// The probability that a normal value is above `value`; 1 where it is below the level, of
    /// which the tail says nothing.
    fn probability(&self, value: f64) -> f64 {
        if value <= self.level {
            return 1.0;
        }
        if self.seen_peaks == 0 {
            return 0.0;
        }
        self.seen_peaks as f64 / self.seen as f64 * self.tail.beyond(value - self.level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (size_of::<Spot>(), size_of::<SpotSpec>());
        assert!(sizes.0 <= 328 && sizes.1 <= 40, "{sizes:?}");
    }

    #[test]
    fn parameters_out_of_bounds_say_what_is_right() {
        let error = SpotSpec::new(Sides::Upper, 400, 0.98, 1e-3).expect_err("8 peaks");
        assert!(
            error.to_string().contains("ten are above the level"),
            "{error}"
        );
        let error = SpotSpec::new(Sides::Upper, 1_000, 0.98, 0.05).expect_err("not rare");
        assert!(
            error.to_string().contains("risk of spot is 0.05"),
            "{error}"
        );
    }

    #[test]
    fn a_series_that_stood_still_takes_anything_else_for_an_anomaly_until_it_lasts() {
        let spec = SpotSpec::new(Sides::Both, 500, 0.98, 1e-3).expect("parameters");
        let mut spot = Spot::default();
        for _ in 0..500 {
            assert_eq!(spot.observe(&spec, 7.0), None);
        }
        let same = spot.observe(&spec, 7.0).expect("it is calibrated");
        assert_eq!((same.is_anomaly, same.score), (false, 0.0));
        for _ in 0..500 {
            let other = spot.observe(&spec, 8.0).expect("it is calibrated");
            assert_eq!(
                (other.is_anomaly, other.score, other.confidence),
                (true, MAX_SCORE, 1.0)
            );
        }
        assert_eq!(spot, Spot::default(), "it starts anew");
    }
}
