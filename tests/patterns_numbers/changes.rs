//! The operator `change` against references taken from all values written down.

use partita::pattern::aggregate::is_value;
use partita::pattern::window::change::{By, ChangeSpec, Direction, From, Series};
use proptest::prelude::*;

use crate::streams::events;
use crate::{assert_close, stored};

const OVER: i64 = 12;

/// The reference of a value at `at` from all before it, in their order.
fn reference(from: From, at: i64, before: &[(i64, f64)]) -> Option<f64> {
    let within = |low: i64, high: i64| {
        let inside = before
            .iter()
            .filter(move |(time, _)| *time > low && *time <= high);
        inside.map(|(_, value)| *value).collect::<Vec<f64>>()
    };
    let last = within(at - OVER, at);
    let mean = |values: Vec<f64>| {
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    match from {
        From::Previous => last.last().copied(),
        From::WindowMax => last.into_iter().reduce(f64::max),
        From::WindowMin => last.into_iter().reduce(f64::min),
        From::WindowAvg => mean(last),
        From::PreviousWindowAvg => mean(within(at - 2 * OVER, at - OVER)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_value_is_compared_with_what_the_definition_says(events in events(80)) {
        for from in [
            From::Previous,
            From::WindowMax,
            From::WindowMin,
            From::WindowAvg,
            From::PreviousWindowAvg,
        ] {
            let by = By::Absolute(1.5);
            let spec = ChangeSpec::new(Direction::Up, by, OVER, from, 1_000).expect("an operator");
            let mut series = Series::new(&spec);
            let mut before: Vec<(i64, f64)> = Vec::new();
            let mut newest = i64::MIN;
            for event in &events {
                let change = series.observe(&spec, event.at, event.value);
                series = stored(&series);
                if !is_value(event.value) {
                    assert_eq!(change, None);
                    continue;
                }
                let is_late = event.at < newest;
                let expected = reference(from, event.at, &before).filter(|_| !is_late);
                let scale = before.iter().fold(0.0, |most: f64, it| most.max(it.1.abs()));
                assert_close(change.map(|it| it.reference), expected, scale, "the reference");
                if let Some(change) = change {
                    assert_eq!(change.absolute, change.current - change.reference);
                    assert_eq!(change.is_met, change.absolute >= 1.5 * (1.0 - 1e-9));
                }
                newest = newest.max(event.at);
                // A late value is no one's previous one.
                if !is_late || from != From::Previous {
                    before.push((event.at, event.value));
                }
            }
        }
    }

    #[test]
    fn a_series_is_bounded(values in prop::collection::vec(-9..9_i32, 1..60)) {
        for from in [From::WindowMax, From::WindowMin, From::WindowAvg, From::PreviousWindowAvg] {
            let by = By::Relative(0.1);
            let spec = ChangeSpec::new(Direction::Any, by, 1_000, from, 5).expect("an operator");
            let mut series = Series::new(&spec);
            for (at, value) in (0..).zip(&values) {
                let _ = series.observe(&spec, at, f64::from(*value));
                assert!(series.len() <= 5);
            }
            assert!(series.len() as u64 + series.dropped() <= values.len() as u64);
        }
    }
}
