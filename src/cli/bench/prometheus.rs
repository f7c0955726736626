//! Reads what `/metrics` says, as far as a bench needs it.

use std::collections::BTreeMap;

/// Cumulative buckets of a histogram, summed over all its labels: upper bound in microseconds
/// (`u64::MAX` for infinity) → count.
pub fn histogram(text: &str, name: &str) -> BTreeMap<u64, f64> {
    let mut buckets = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix("_bucket{"))
        else {
            continue;
        };
        let Some((labels, value)) = rest.rsplit_once("} ") else {
            continue;
        };
        let bound = labels
            .split(',')
            .find_map(|label| label.strip_prefix("le=\"")?.strip_suffix('"'));
        let (Some(bound), Ok(value)) = (bound, value.parse::<f64>()) else {
            continue;
        };
        let micros = match bound {
            "+Inf" => u64::MAX,
            number => number
                .parse::<f64>()
                .map_or(u64::MAX, |seconds| (seconds * 1e6).round() as u64),
        };
        *buckets.entry(micros).or_insert(0.0) += value;
    }
    buckets
}

/// A counter, summed over all series with `label` as the value of one of their labels; with an empty
/// `label` over all.
pub fn counter(text: &str, name: &str, label: &str) -> f64 {
    let is_labelled = |labels: &str| {
        let mut values = labels.split(',').filter_map(|pair| pair.split_once('='));
        // The version of a rule stands behind its name.
        label.is_empty()
            || values
                .any(|(_, value)| value.trim_matches(['"', '}']).split('@').next() == Some(label))
    };
    let series = text.lines().filter_map(|line| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let is_it = labels.is_empty() || labels.starts_with('{');
        (is_it && is_labelled(labels)).then(|| value.parse::<f64>().ok())?
    });
    series.sum()
}

/// The value below which `share` of the observations lie, in milliseconds, taken linearly within
/// its bucket as Prometheus does; `None` without observations.
pub fn quantile_ms(buckets: &BTreeMap<u64, f64>, share: f64) -> Option<f64> {
    let total = *buckets.values().next_back().filter(|total| **total > 0.0)?;
    let wanted = share * total;
    let (mut lower, mut below) = (0_u64, 0.0);
    for (&bound, &count) in buckets {
        if count >= wanted {
            let width = if bound == u64::MAX { 0 } else { bound - lower };
            let within = if count > below {
                (wanted - below) / (count - below)
            } else {
                0.0
            };
            return Some((lower as f64 + width as f64 * within) / 1_000.0);
        }
        (lower, below) = (bound, count);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE t histogram\n\
        t_bucket{operation=\"get\",le=\"0.001\"} 90\n\
        t_bucket{operation=\"get\",le=\"0.002\"} 100\n\
        t_bucket{operation=\"get\",le=\"+Inf\"} 100\n\
        t_bucket{operation=\"put\",le=\"0.001\"} 0\n\
        t_bucket{operation=\"put\",le=\"0.002\"} 0\n\
        t_bucket{operation=\"put\",le=\"+Inf\"} 0\n\
        t_sum{operation=\"get\"} 1\n\
        tt_bucket{le=\"0.001\"} 7\n";

    #[test]
    fn counters_are_summed_by_label() {
        let text = "# HELP c x\nc{rule=\"a@1\"} 3\nc{rule=\"b@1\",limit=\"a\"} 4\nc{rule=\"ab@1\"} 1\nd 5\ncc 9\n";
        assert_eq!(counter(text, "c", ""), 8.0);
        assert_eq!(counter(text, "c", "b"), 4.0);
        assert_eq!(counter(text, "c", "ab"), 1.0);
        assert_eq!(counter(text, "d", ""), 5.0);
        assert_eq!(counter(text, "absent", ""), 0.0);
    }

    #[test]
    fn quantiles_come_from_the_sum_of_all_labels() {
        let buckets = histogram(TEXT, "t");
        assert_eq!(buckets.len(), 3);
        assert_eq!(quantile_ms(&buckets, 0.45), Some(0.5));
        assert_eq!(quantile_ms(&buckets, 0.95), Some(1.5));
        assert_eq!(quantile_ms(&histogram(TEXT, "absent"), 0.5), None);
    }
}
