//! Conditions with a `change` or an `anomaly`: which events do not meet them for what they measure.

use partita::pattern::{Rule, Scalar};
use serde_json::Value;

use super::aggregates::number;
use super::arrival::Applied;
use super::series::{self, Gauge, Series};

/// Marks in each event the conditions that it would meet but for its value.
pub(super) fn mark(rule: &Rule, key: &[Scalar], applied: &mut [Applied<'_>]) {
    if rule.measures.is_empty() {
        return;
    }
    let written = series::written(rule);
    assert_eq!(written.len(), rule.measures.len(), "one text for each");
    for (measure, text) in rule.measures.iter().zip(written) {
        let gauge = Gauge::read(&text);
        let mut known: Vec<(Vec<Value>, Series)> = Vec::new();
        for event in applied.iter_mut() {
            if !event.meets(rule, key, measure.predicate) {
                continue;
            }
            let slots = &event.input.slots;
            let names = measure.series.iter();
            let name: Vec<Value> = names
                .map(|slot| named(&slots[usize::from(*slot)]))
                .collect();
            let is_met = number(&slots[usize::from(measure.field)]).is_some_and(|value| {
                let place = known.iter().position(|(other, _)| *other == name);
                let place = place.unwrap_or_else(|| {
                    known.push((name, Series::default()));
                    known.len() - 1
                });
                known[place]
                    .1
                    .takes(&gauge, event.input.at.0, value, event.now)
            });
            if !is_met {
                event.missed |= 1 << measure.predicate;
            }
        }
    }
}

/// What tells series apart: 1.0 is 1, and a missing value is null.
fn named(value: &Scalar) -> Value {
    match value {
        Scalar::Int(whole) => Value::from(*whole as f64),
        value => value.to_json(),
    }
}
