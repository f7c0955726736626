//! Aggregates of values: each can add a value, take one back, merge with another of its kind and
//! take that back, so that windows slide without a second look at their events.
//!
//! [`Moments`] holds count, sum, average and standard deviation in [`double`] precision,
//! [`Monotonic`] the minimum or maximum of a sliding window, [`Sketch`] percentiles, [`Distinct`]
//! the number of different values. [`Summary`] is what one window or pane keeps for a list of
//! [`Function`]s, fed by [`Sample`]s.
//!
//! A value is a finite number of at most [`MAX_MAGNITUDE`] in size. Anything else (absent, not a
//! number, infinite, larger) is missing: it counts as an event, and enters nothing else.

mod distinct;
mod double;
mod function;
mod moments;
mod monotonic;
mod sketch;
mod summary;
mod whole;
mod words;

pub use distinct::{Distinct, identity_of_bytes, identity_of_number};
pub use double::Double;
pub use function::{Function, UnknownFunction};
pub use moments::{Moments, Powers};
pub use monotonic::{Extreme, Monotonic};
pub use sketch::Sketch;
pub use summary::{Needs, Sample, Summary};

/// The largest size of a value: its square, summed over any possible number of events, stays
/// finite.
pub const MAX_MAGNITUDE: f64 = 1e100;

/// Whether `value` can be aggregated: finite and at most [`MAX_MAGNITUDE`] in size.
pub fn is_value(value: f64) -> bool {
    value.abs() <= MAX_MAGNITUDE
}
