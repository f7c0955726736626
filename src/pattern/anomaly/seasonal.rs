//! What is usual at this time of the period.

use serde::{Deserialize, Serialize};

use super::ewma::Ewma;
use super::{Check, DetectorError, Verdict};
use crate::pattern::aggregate::is_value;

/// The parameters, checked. 48 bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SeasonalSpec {
    period: i64,
    slots: u32,
    offset: i64,
    sigmas: f64,
    memory: u32,
    warm_up: u32,
    least_deviation: f64,
}

impl SeasonalSpec {
    /// The most slots of a period: the minutes of a week.
    pub const MAX_SLOTS: u32 = 10_080;

    /// A period of `period` ms (a day, a week), aligned to the epoch, in `slots` equal parts, 1 to
    /// 10,080. A value further than `sigmas` deviations, above 0, from the mean of its slot is an
    /// anomaly. A slot learns as if it had seen `memory` values, at least 2, at most, so that it
    /// follows slow change; it judges nothing before it has `warm_up` values, at least 2.
    ///
    /// # Errors
    /// Where a parameter is out of its bounds, or the slots are not whole milliseconds.
    pub fn new(
        period: i64,
        slots: u32,
        sigmas: f64,
        memory: u32,
        warm_up: u32,
    ) -> Result<SeasonalSpec, DetectorError> {
        let check = Check("seasonal");
        let in_bounds = (1..=Self::MAX_SLOTS).contains(&slots);
        check.that(
            in_bounds,
            "number of slots",
            f64::from(slots),
            "1 to 10,080",
        )?;
        let is_whole = period > 0 && period % i64::from(slots) == 0;
        let right = "above 0 and a multiple of the number of slots";
        check.that(is_whole, "period in ms", period as f64, right)?;
        check.that(
            sigmas > 0.0 && is_value(sigmas),
            "threshold",
            sigmas,
            "a number above 0",
        )?;
        check.that(memory >= 2, "memory", f64::from(memory), "2 values or more")?;
        check.that(
            warm_up >= 2,
            "warm-up",
            f64::from(warm_up),
            "2 values or more",
        )?;
        Ok(SeasonalSpec {
            period,
            slots,
            offset: 0,
            sigmas,
            memory,
            warm_up,
            least_deviation: 0.0,
        })
    }

    /// The same, with periods that start `offset` ms after multiples of the period.
    #[must_use]
    pub fn with_offset(self, offset: i64) -> SeasonalSpec {
        let offset = offset.rem_euclid(self.period);
        SeasonalSpec { offset, ..self }
    }

    /// The same, with a standard deviation never taken for less than `least`, in the unit of the
    /// values.
    ///
    /// # Errors
    /// Where it is no number from 0.
    pub fn with_least_deviation(self, least: f64) -> Result<SeasonalSpec, DetectorError> {
        let holds = least >= 0.0 && is_value(least);
        Check("seasonal").that(holds, "least deviation", least, "a number from 0")?;
        Ok(SeasonalSpec {
            least_deviation: least,
            ..self
        })
    }

    /// The slot of a time, from 0.
    fn slot(&self, at: i64) -> u32 {
        let within = at.rem_euclid(self.period) - self.offset;
        let slot = within.rem_euclid(self.period) / (self.period / i64::from(self.slots));
        u32::try_from(slot).unwrap_or(0)
    }
}

/// The detector of one series: an [`Ewma`] for each slot of the period, which weighs its first
/// `memory` values alike and later ones by 1/`memory`. 24 bytes, and 32
/// for each slot that has seen a value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seasonal {
    /// Ascending by slot.
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Slot {
    slot: u32,
    usual: Ewma,
}

impl Seasonal {
    /// Judges a value of the time `at` (epoch ms) by its slot, which then learns it. `None` while
    /// the slot warms up and of a missing value.
    pub fn observe(&mut self, spec: &SeasonalSpec, at: i64, value: f64) -> Option<Verdict> {
        if !is_value(value) {
            return None;
        }
        let slot = spec.slot(at);
        let found = self.slots.binary_search_by_key(&slot, |held| held.slot);
        let place = found.unwrap_or_else(|place| {
            let usual = Ewma::default();
            self.slots.insert(place, Slot { slot, usual });
            place
        });
        let usual = &mut self.slots[place].usual;
        let verdict = (usual.seen() >= u64::from(spec.warm_up)).then(|| {
            let deviation = usual.deviation().max(spec.least_deviation);
            Verdict::by_deviations(value, usual.mean(), deviation, spec.sigmas)
        });
        usual.learn(value, 1.0 / f64::from(spec.memory));
        verdict
    }

    /// How many slots have seen a value.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (
            size_of::<Seasonal>(),
            size_of::<Slot>(),
            size_of::<SeasonalSpec>(),
        );
        assert_eq!(sizes, (24, 32, 48));
    }

    #[test]
    fn a_value_is_judged_by_its_slot() {
        let spec = SeasonalSpec::new(24, 4, 3.0, 10, 4)
            .expect("parameters")
            .with_offset(-1);
        let mut seasonal = Seasonal::default();
        let usual = |at: i64| [0.0, 50.0, 100.0, 50.0][spec.slot(at) as usize];
        for at in -96..0 {
            let verdict = seasonal.observe(&spec, at, usual(at) + [1.0, -1.0][at as usize % 2]);
            assert!(verdict.is_none_or(|it| !it.is_anomaly), "{at}: {verdict:?}");
        }
        assert_eq!(
            (spec.slot(-1), spec.slot(4), spec.slot(5), seasonal.slots()),
            (0, 0, 1, 4)
        );
        let mut is_anomaly = |at, value| seasonal.observe(&spec, at, value).map(|it| it.is_anomaly);
        assert_eq!(
            is_anomaly(1, 50.0),
            Some(true),
            "as usual as it is six later"
        );
        assert_eq!(is_anomaly(7, 50.0), Some(false));
    }

    #[test]
    fn slots_are_whole_milliseconds() {
        let error = SeasonalSpec::new(100, 7, 3.0, 10, 2).expect_err("14.3 ms");
        assert!(
            error
                .to_string()
                .contains("period in ms of seasonal is 100"),
            "{error}"
        );
    }
}
