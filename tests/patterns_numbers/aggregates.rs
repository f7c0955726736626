//! Aggregates with retraction and merging against the values written out.

use std::collections::VecDeque;

use partita::pattern::aggregate::{
    Distinct, Extreme, Function, Monotonic, Needs, Sample, Sketch, Summary, identity_of_number,
    is_value,
};
use proptest::prelude::*;

use crate::streams::value;
use crate::{assert_close, stored};

pub const FUNCTIONS: [Function; 11] = [
    Function::Count,
    Function::Sum,
    Function::Avg,
    Function::Min,
    Function::Max,
    Function::StddevSample,
    Function::StddevPopulation,
    Function::Distinct,
    Function::Percentile(0.0),
    Function::Percentile(50.0),
    Function::Percentile(95.0),
];

/// The largest size of the values among `values`.
pub fn largest(values: impl IntoIterator<Item = f64>) -> f64 {
    let values = values.into_iter().filter(|value| is_value(*value));
    values.fold(0.0, |most, value| most.max(value.abs()))
}

/// Every function of `values` from its definition, and the summary's answer held against it. `ever`
/// is the largest size of a value that was ever in it: a sum may be off by 2⁻⁹⁰ of
/// that, and a deviation by 2⁻⁴⁶.
#[track_caller]
pub fn assert_agrees(summary: &Summary, values: &[f64], ever: f64) {
    let mut numbers: Vec<f64> = values
        .iter()
        .copied()
        .filter(|value| is_value(*value))
        .collect();
    numbers.sort_by(|a, b| a.partial_cmp(b).expect("they are numbers"));
    let n = numbers.len() as f64;
    let sum: f64 = numbers.iter().sum();
    let mean = (n > 0.0).then(|| sum / n);
    let scatter: f64 = numbers
        .iter()
        .map(|value| (value - mean.unwrap_or(0.0)).powi(2))
        .sum();
    let largest = largest(numbers.iter().copied());
    let summed = largest.max(ever * 1e9 * 2_f64.powi(-90));
    let scattered = largest.max(ever * 1e9 * 2_f64.powi(-46));
    for function in FUNCTIONS {
        let found = function.of(summary);
        let what = function.to_string();
        match function {
            Function::Count => assert_eq!(found, Some(values.len() as f64)),
            Function::Sum => assert_close(found, Some(sum), summed, &what),
            Function::Avg => assert_close(found, mean, summed, &what),
            Function::Min => assert_eq!(found, numbers.first().copied()),
            Function::Max => assert_eq!(found, numbers.last().copied()),
            Function::StddevSample => {
                let expected = (n > 1.0).then(|| (scatter / (n - 1.0)).sqrt());
                assert_close(found, expected, scattered, &what);
            }
            Function::StddevPopulation => {
                let expected = (n > 0.0).then(|| (scatter / n).sqrt());
                assert_close(found, expected, scattered, &what);
            }
            Function::Distinct => {
                let mut different = numbers.clone();
                different.dedup();
                assert_eq!(found, Some(different.len() as f64));
            }
            Function::Percentile(percent) => {
                let rank = ((percent / 100.0 * n).ceil() as usize).max(1);
                let expected = numbers.get(rank - 1).copied();
                assert_eq!(found.is_some(), expected.is_some());
                let error = (found.unwrap_or(0.0) - expected.unwrap_or(0.0)).abs();
                let allowed = Sketch::RELATIVE_ERROR * expected.unwrap_or(0.0).abs();
                assert!(error <= allowed, "{what}: {found:?} for {expected:?}");
            }
        }
    }
}

fn summary_of(values: &[f64]) -> Summary {
    let needs = Needs::of(&FUNCTIONS);
    let mut summary = Summary::new(needs);
    values
        .iter()
        .for_each(|value| summary.add(needs, Sample::number(*value)));
    summary
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_was_merged_is_as_if_added_and_what_is_taken_back_as_if_it_never_was(
        parts in prop::collection::vec(prop::collection::vec(value(), 0..12), 1..12),
        keep in 0..12_usize,
    ) {
        let needs = Needs::of(&FUNCTIONS);
        let mut total = Summary::new(needs);
        parts.iter().for_each(|part| total.merge(needs, &summary_of(part)));
        let ever = largest(parts.concat());
        assert_agrees(&total, &parts.concat(), ever);
        let keep = keep.min(parts.len());
        let (left, kept) = parts.split_at(keep);
        let mut total = stored(&total);
        left.iter().for_each(|part| total.unmerge(needs, &summary_of(part)));
        let kept = kept.concat();
        let extremes = summary_of(&kept);
        total.set_extremes(extremes.min(), extremes.max());
        assert_agrees(&total, &kept, ever);
    }

    #[test]
    fn samples_are_taken_back_in_any_order(
        values in prop::collection::vec((value(), any::<bool>()), 0..60),
    ) {
        let all: Vec<f64> = values.iter().map(|(value, _)| *value).collect();
        let mut total = summary_of(&all);
        for (value, _) in values.iter().filter(|(_, stays)| !stays) {
            total.remove(Needs::of(&FUNCTIONS), Sample::number(*value));
        }
        let kept: Vec<f64> =
            values.iter().filter(|(_, stays)| *stays).map(|(value, _)| *value).collect();
        let extremes = summary_of(&kept);
        total.set_extremes(extremes.min(), extremes.max());
        assert_agrees(&stored(&total), &kept, largest(all));
    }

    #[test]
    fn a_monotonic_queue_has_the_extreme_of_what_is_left(
        steps in prop::collection::vec((0..40_i64, -5..6_i32, prop::option::of(0..40_i64)), 1..80),
    ) {
        for extreme in [Extreme::Min, Extreme::Max] {
            let mut queue = Monotonic::new(extreme);
            let mut left: Vec<(i64, f64)> = Vec::new();
            let mut expired = i64::MIN;
            for (at, value, expire) in &steps {
                queue.push(*at, f64::from(*value));
                left.push((*at, f64::from(*value)));
                expired = expire.map_or(expired, |from| expired.max(from));
                queue.expire_before(expired);
                left.retain(|(at, _)| *at >= expired);
                let values = left.iter().map(|(_, value)| *value);
                let best = match extreme {
                    Extreme::Min => values.reduce(f64::min),
                    Extreme::Max => values.reduce(f64::max),
                };
                assert_eq!(queue.best(), best);
                assert!(queue.len() <= left.len());
                queue = stored(&queue);
            }
        }
    }
}

/// A window over distinct values that goes through bursts far beyond the exact bound: sampled
/// counts stay within five standard errors, and what is small again is exact again once it is
/// merged anew.
#[test]
fn distinct_values_slide_through_bursts() {
    let pane = |number: u32| {
        let size = if (10..14).contains(&number) {
            30_000
        } else {
            300
        };
        let mut pane = Distinct::default();
        for value in 0..size {
            pane.add(identity_of_number(f64::from(number * 100_000 + value)));
        }
        (pane, u64::from(size))
    };
    let mut window = VecDeque::new();
    let mut total = Distinct::default();
    for number in 0..30 {
        let (entering, size) = pane(number);
        total.merge(&entering);
        window.push_back((entering, size));
        if window.len() > 5 {
            let (leaving, _) = window.pop_front().expect("it has panes");
            total.unmerge(&leaving);
        }
        let finest = window
            .iter()
            .map(|(pane, _)| pane.level())
            .max()
            .expect("it has panes");
        if total.is_too_coarse(finest) {
            total = Distinct::default();
            window.iter().for_each(|(pane, _)| total.merge(pane));
        }
        let expected: u64 = window.iter().map(|(_, size)| size).sum();
        let error = (total.count() as f64 / expected as f64 - 1.0).abs();
        assert!(
            error <= 5.0 * Distinct::STANDARD_ERROR,
            "{number}: {}",
            total.count()
        );
        assert!(total.is_exact() == (finest == 0), "{number}");
        total = stored(&total);
    }
    assert_eq!(total.count(), 1_500);
}
