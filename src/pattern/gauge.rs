//! Gauges: how one value of a series stands against those before it, whichever way a rule asks for
//! it: as a `change`, or as an `anomaly`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::aggregate::is_value;
use super::anomaly::{
    Ewma, EwmaSpec, RobustZ, RobustZSpec, Seasonal, SeasonalSpec, Spot, SpotSpec, Verdict,
};
use super::window::change::{Change, ChangeSpec, Direction, Series};

/// What a series is judged by, checked.
#[derive(Clone, Debug)]
pub struct Gauge {
    pub method: Method,
    /// A series that has no value for so long, in ms, is forgotten.
    pub forget_after: i64,
}

/// The ways to judge a value.
#[derive(Clone, Debug)]
pub enum Method {
    Change(ChangeSpec),
    /// An anomaly counts where the value lies in the direction from what was expected.
    Ewma(EwmaSpec, Direction),
    RobustZ(RobustZSpec, Direction),
    Seasonal(SeasonalSpec, Direction),
    Spot(SpotSpec, Direction),
}

/// What is remembered of one series.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The time of its newest value, epoch ms.
    newest: i64,
    kept: Kept,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Kept {
    Change(Series),
    Ewma(Ewma),
    RobustZ(RobustZ),
    Seasonal(Seasonal),
    Spot(Box<Spot>),
}

/// A value that met its gauge, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    Change(Change),
    /// With the value itself.
    Anomaly(f64, Verdict),
}

impl Gauge {
    /// The same for values that may come up to `lateness` ms behind: what a change is compared with
    /// is kept for as much longer, so that a value behind the newest is known as such.
    #[must_use]
    pub fn with_lateness(self, lateness: i64) -> Gauge {
        let longer = match self.method {
            Method::Change(_) => lateness,
            _ => 0,
        };
        Gauge {
            forget_after: self.forget_after.saturating_add(longer),
            ..self
        }
    }

    /// Of a series without values.
    pub fn memory(&self) -> Memory {
        let kept = match &self.method {
            Method::Change(spec) => Kept::Change(Series::new(spec)),
            Method::Ewma(..) => Kept::Ewma(Ewma::default()),
            Method::RobustZ(..) => Kept::RobustZ(RobustZ::default()),
            Method::Seasonal(..) => Kept::Seasonal(Seasonal::default()),
            Method::Spot(..) => Kept::Spot(Box::default()),
        };
        Memory {
            newest: i64::MIN,
            kept,
        }
    }

    /// Judges a value at `at` (epoch ms) by those before it, then learns it. `None`: it does not
    /// meet the gauge, or there is nothing yet to judge it by, or it is no value.
    pub fn observe(&self, memory: &mut Memory, at: i64, value: f64) -> Option<Reading> {
        if !is_value(value) {
            return None;
        }
        memory.newest = memory.newest.max(at);
        let (verdict, direction) = match (&self.method, &mut memory.kept) {
            (Method::Change(spec), Kept::Change(series)) => {
                let change = series.observe(spec, at, value)?;
                return change.is_met.then_some(Reading::Change(change));
            }
            (Method::Ewma(spec, direction), Kept::Ewma(kept)) => {
                (kept.observe(spec, value)?, direction)
            }
            (Method::RobustZ(spec, direction), Kept::RobustZ(kept)) => {
                (kept.observe(spec, value)?, direction)
            }
            (Method::Seasonal(spec, direction), Kept::Seasonal(kept)) => {
                (kept.observe(spec, at, value)?, direction)
            }
            (Method::Spot(spec, direction), Kept::Spot(kept)) => {
                (kept.observe(spec, value)?, direction)
            }
            _ => {
                // Restored state of another method: what it learned is of no use.
                *memory = self.memory();
                return self.observe(memory, at, value);
            }
        };
        let is_directed = match direction {
            Direction::Up => value > verdict.expected,
            Direction::Down => value < verdict.expected,
            Direction::Any => true,
        };
        (verdict.is_anomaly && is_directed).then_some(Reading::Anomaly(value, verdict))
    }

    /// When a series can be forgotten, if no value comes before (epoch ms).
    pub fn forgotten_at(&self, memory: &Memory) -> i64 {
        memory.newest.saturating_add(self.forget_after)
    }
}

impl Memory {
    /// The time of its newest value, epoch ms.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// How many values were forgotten early because of the bound of the series.
    pub fn dropped(&self) -> u64 {
        match &self.kept {
            Kept::Change(series) => series.dropped(),
            Kept::Ewma(_) | Kept::RobustZ(_) | Kept::Seasonal(_) | Kept::Spot(_) => 0,
        }
    }
}

impl Reading {
    /// As rules show it; infinite edges and relative changes are null.
    pub fn to_json(&self) -> Value {
        match self {
            Reading::Change(change) => json!({
                "value": change.current,
                "reference": change.reference,
                "absolute": change.absolute,
                "relative": change.relative,
            }),
            Reading::Anomaly(value, verdict) => json!({
                "value": value,
                "score": verdict.score,
                "confidence": verdict.confidence,
                "expected": verdict.expected,
                "lower": verdict.lower,
                "upper": verdict.upper,
            }),
        }
    }
}
