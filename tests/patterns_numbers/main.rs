//! The numeric pieces of patterns against naive recomputation, over random streams with ties, gaps,
//! late events and retraction; and detectors against bounds on seeded data. States pass through
//! JSON in the middle of a stream and go on identically.

mod aggregates;
mod anomalies;
mod changes;
mod many;
mod streams;
mod windows;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The state as it comes back from where it was stored.
#[track_caller]
fn stored<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(state: &T) -> T {
    let json = serde_json::to_string(state).expect("a state serialises");
    let back: T = serde_json::from_str(&json).expect("and reads back");
    assert_eq!(&back, state);
    back
}

/// Equal but for rounding, relative to `scale`.
#[track_caller]
fn assert_close(found: Option<f64>, expected: Option<f64>, scale: f64, what: &str) {
    match (found, expected) {
        (Some(found), Some(expected)) => {
            let error = (found - expected).abs();
            let allowed = 1e-9 * scale.max(expected.abs()).max(1e-300);
            assert!(error <= allowed, "{what}: {found} for {expected}");
        }
        _ => assert_eq!(found, expected, "{what}"),
    }
}
