//! The names under which a rule asks for aggregates.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::summary::Summary;

/// One aggregate of a window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Function {
    /// `count`: events, those without a value included.
    Count,
    /// `sum`; 0 of no values.
    Sum,
    /// `avg`: the arithmetic mean.
    Avg,
    /// `min`.
    Min,
    /// `max`.
    Max,
    /// `stddev` or `stddev_samp`: of a sample, divided by n − 1, as Esper and SQL mean it; needs
    /// two values.
    StddevSample,
    /// `stddev_pop`: of a population, divided by n.
    StddevPopulation,
    /// `distinct`: how many different values; see [`Distinct`](super::Distinct) for its error.
    Distinct,
    /// `percentile_P`, `P` from 0 to 100 and possibly with a fraction, by nearest rank; see
    /// [`Sketch`](super::Sketch) for its error. `median` is `percentile_50`.
    Percentile(f64),
}

/// A name that is no aggregate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no aggregate: there are count, sum, avg, min, max, stddev, stddev_samp, stddev_pop, \
     distinct, median and percentile_P with P from 0 to 100, such as percentile_95"
)]
pub struct UnknownFunction(pub String);

impl Function {
    /// The aggregate of what `summary` holds, which was made for this function among others;
    /// `None` where it is not defined: no values, or fewer than two for a sample's deviation.
    pub fn of(self, summary: &Summary) -> Option<f64> {
        let moments = summary.moments();
        match self {
            Function::Count => Some(summary.events() as f64),
            Function::Sum => Some(moments.sum()),
            Function::Avg => moments.mean(),
            Function::Min => summary.min(),
            Function::Max => summary.max(),
            Function::StddevSample => moments.sample_deviation(),
            Function::StddevPopulation => moments.population_deviation(),
            Function::Distinct => summary.distinct().map(|distinct| distinct as f64),
            Function::Percentile(percent) => summary.percentile(percent),
        }
    }
}

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(name: &str) -> Result<Function, UnknownFunction> {
        let unknown = || UnknownFunction(name.to_owned());
        Ok(match name {
            "count" => Function::Count,
            "sum" => Function::Sum,
            "avg" => Function::Avg,
            "min" => Function::Min,
            "max" => Function::Max,
            "stddev" | "stddev_samp" => Function::StddevSample,
            "stddev_pop" => Function::StddevPopulation,
            "distinct" => Function::Distinct,
            "median" => Function::Percentile(50.0),
            _ => {
                let digits = name.strip_prefix("percentile_").ok_or_else(unknown)?;
                let is_plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.');
                let percent: f64 = digits.parse().map_err(|_| unknown())?;
                if !is_plain || !(0.0..=100.0).contains(&percent) {
                    return Err(unknown());
                }
                Function::Percentile(percent)
            }
        })
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Function::Count => "count",
            Function::Sum => "sum",
            Function::Avg => "avg",
            Function::Min => "min",
            Function::Max => "max",
            Function::StddevSample => "stddev_samp",
            Function::StddevPopulation => "stddev_pop",
            Function::Distinct => "distinct",
            Function::Percentile(percent) => return write!(f, "percentile_{percent}"),
        })
    }
}

impl TryFrom<String> for Function {
    type Error = UnknownFunction;
    fn try_from(name: String) -> Result<Function, UnknownFunction> {
        name.parse()
    }
}

impl From<Function> for String {
    fn from(function: Function) -> String {
        function.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_written() {
        for name in [
            "count",
            "sum",
            "avg",
            "min",
            "max",
            "stddev_samp",
            "stddev_pop",
            "distinct",
        ] {
            assert_eq!(
                name.parse::<Function>().map(|it| it.to_string()),
                Ok(name.to_owned())
            );
        }
        assert_eq!("percentile_99.9".parse(), Ok(Function::Percentile(99.9)));
        assert_eq!("percentile_0".parse(), Ok(Function::Percentile(0.0)));
        assert_eq!("stddev".parse(), Ok(Function::StddevSample));
        for name in [
            "",
            "mean",
            "percentile_",
            "percentile_101",
            "percentile_-1",
            "percentile_inf",
        ] {
            assert_eq!(
                name.parse::<Function>(),
                Err(UnknownFunction(name.to_owned()))
            );
        }
    }
}
