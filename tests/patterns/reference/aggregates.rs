//! Aggregates of the events of a window, from the list of what each has in the field. Percentiles
//! are exact here, by nearest rank, and within 0.8 % of that in the matchers: thresholds that lie
//! closer to a value than that are not for a comparison of both.

use partita::pattern::aggregate::Function;
use partita::pattern::{Aggregate, Scalar, Window};

use super::Input;

/// A number that can be compared.
pub(super) fn number(value: &Scalar) -> Option<f64> {
    let number = match value {
        Scalar::Int(value) => *value as f64,
        Scalar::Float(value) => *value,
        _ => return None,
    };
    (number.abs() <= 1e100).then_some(number)
}

/// The aggregates of a window with these events, in their order; missing where not defined.
pub(super) fn of_window(window: &Window, events: &[&Input]) -> Vec<Scalar> {
    let value = |aggregate: &Aggregate| {
        let sample = window.samples[usize::from(aggregate.sample)];
        let slots = sample.into_iter().map(usize::from);
        let of_field = slots.flat_map(|slot| events.iter().map(move |event| &event.slots[slot]));
        let values: Vec<&Scalar> = of_field.collect();
        match aggregate.function {
            Function::Count => Scalar::Int(events.len() as i64),
            Function::Distinct => Scalar::Int(distinct(&values)),
            function => of_numbers(function, &values).map_or(Scalar::Missing, Scalar::Float),
        }
    };
    window.aggregates.iter().map(value).collect()
}

/// How many different values there are, by type and value; those that are missing or null are none.
fn distinct(values: &[&Scalar]) -> i64 {
    let mut known: Vec<&Scalar> = Vec::new();
    for value in values {
        let is_value = !matches!(value, Scalar::Missing | Scalar::Null);
        if is_value && !known.contains(value) {
            known.push(value);
        }
    }
    known.len() as i64
}

fn of_numbers(function: Function, values: &[&Scalar]) -> Option<f64> {
    let mut numbers: Vec<f64> = values.iter().filter_map(|value| number(value)).collect();
    let count = numbers.len() as f64;
    let sum: f64 = numbers.iter().sum();
    let squares = || numbers.iter().map(|it| (it - sum / count).powi(2)).sum();
    let deviation = |divisor: f64| {
        let squares: f64 = squares();
        (divisor > 0.0).then(|| (squares / divisor).sqrt())
    };
    match function {
        Function::Sum => Some(sum),
        Function::Avg => (count > 0.0).then_some(sum / count),
        Function::Min => numbers.into_iter().reduce(f64::min),
        Function::Max => numbers.into_iter().reduce(f64::max),
        Function::StddevSample => deviation(count - 1.0),
        Function::StddevPopulation => deviation(count),
        Function::Percentile(percent) => {
            numbers.sort_by(f64::total_cmp);
            let rank = (percent / 100.0 * count).ceil().max(1.0);
            numbers.get(rank as usize - 1).copied()
        }
        Function::Count | Function::Distinct => unreachable!("they are not of numbers"),
    }
}
