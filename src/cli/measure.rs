//! Samples of time, and what they come to.

use std::time::Duration;

use serde_json::{Value, json};

/// Durations of one kind, in microseconds; kept whole, since a bench has at most a few million.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u32>);

impl Samples {
    pub fn add(&mut self, span: Duration) {
        self.0
            .push(u32::try_from(span.as_micros()).unwrap_or(u32::MAX));
    }

    /// The value that a `share` (0 to 1) of all samples does not exceed, in milliseconds, to whole
    /// microseconds; `None` without samples.
    pub fn quantile_ms(&mut self, share: f64) -> Option<f64> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_unstable();
        // Nearest rank.
        let rank = (share * self.0.len() as f64).ceil() as usize;
        let micros = self.0[rank.clamp(1, self.0.len()) - 1];
        Some(f64::from(micros) / 1_000.0)
    }

    /// `{"p50","p99"}` in milliseconds; null where there are no samples.
    pub fn quantiles(&mut self) -> Value {
        json!({"p50": self.quantile_ms(0.50), "p99": self.quantile_ms(0.99)})
    }
}

/// `{"p50","p99"}` as a table shows it.
pub fn quantile_words(value: &Value) -> String {
    let words = |member: &str| {
        value[member]
            .as_f64()
            .map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"))
    };
    format!("p50 {}   p99 {}", words("p50"), words("p99"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let mut samples = Samples::default();
        assert_eq!(samples.quantiles(), json!({"p50": null, "p99": null}));
        for millis in (1..=100).rev() {
            samples.add(Duration::from_millis(millis));
        }
        assert_eq!(samples.quantiles(), json!({"p50": 50.0, "p99": 99.0}));
        assert_eq!(samples.quantile_ms(0.0), Some(1.0));
        assert_eq!(samples.quantile_ms(1.0), Some(100.0));
    }
}
