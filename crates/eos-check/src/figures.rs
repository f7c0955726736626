//! Payloads that can be counted, and percentiles.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::client::Row;

/// A payload of 100 bytes that begins with its number.
pub fn payload(number: usize) -> String {
    format!("{number:08}|{}", "x".repeat(91))
}

/// The number of a payload; `usize::MAX` where it has none.
pub fn number_of(payload: &str) -> usize {
    payload
        .get(..8)
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(usize::MAX)
}

/// How many of `rows` repeat another's number, and how many of the numbers below `wanted` are
/// not there.
pub fn duplicates_and_missing(rows: &[Row], wanted: usize) -> (usize, usize) {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for row in rows {
        *seen.entry(number_of(&row.payload)).or_default() += 1;
    }
    let missing = (0..wanted)
        .filter(|number| !seen.contains_key(number))
        .count();
    (rows.len() - seen.len(), missing)
}

/// The value below which the share `quantile` (0 to 1) of `values` lies; NaN for none.
pub fn percentile(values: &mut [f64], quantile: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::NAN;
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index between 0 and last"
    )]
    let index = (last as f64 * quantile) as usize;
    values[index.min(last)]
}

/// Microseconds since the epoch.
pub fn now_microseconds() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("the clock stands after 1970")
        .as_micros()
}
