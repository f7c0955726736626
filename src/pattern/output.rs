//! What comes out of a matcher.

use std::sync::Arc;

use super::event::{Scalar, Taken};
use crate::model::Timestamp;

/// The values of `correlate.by`, in its order.
pub type Key = Arc<[Scalar]>;

/// A match.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    pub key: Key,
    /// Event time of the event, or of the deadline, that completed it.
    pub at: Timestamp,
    /// The events by step or condition (place in the rule's list of names), in the order of the
    /// steps and, within one, of the stream.
    pub events: Vec<(u16, Taken)>,
}

/// Version of the form of [`Match::to_bytes`]; no other is read.
const SAVED: u8 = 1;

type Parts<K, E> = (K, Timestamp, E);

impl Match {
    /// The events of a step or condition, by its place in the rule's list of names.
    pub fn taken(&self, name: u16) -> Vec<&Taken> {
        let of_name = self.events.iter().filter(|event| event.0 == name);
        of_name.map(|(_, taken)| taken).collect()
    }

    /// For keeping it; [`Match::from_bytes`] reads it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let parts: Parts<&[Scalar], &[(u16, Taken)]> = (&self.key, self.at, &self.events);
        postcard::to_extend(&parts, vec![SAVED]).expect("a match is plain data")
    }

    /// # Errors
    /// With a sentence, where another version wrote it, or nobody did.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (version, bytes) = bytes.split_first().ok_or("the match is empty")?;
        if *version != SAVED {
            return Err(format!(
                "the match is of version {version}, and this program reads {SAVED}"
            ));
        }
        let parts: Parts<Vec<Scalar>, Vec<(u16, Taken)>> =
            postcard::from_bytes(bytes).map_err(|error| error.to_string())?;
        let (key, at, events) = parts;
        let key = key.into();
        Ok(Self { key, at, events })
    }
}

/// A partial match whose time ran out.
#[derive(Clone, Debug, PartialEq)]
pub struct TimedOut {
    pub key: Key,
    /// The end of its `within`.
    pub at: Timestamp,
    pub events: Vec<(u16, Taken)>,
}

/// A bound was met.
#[derive(Clone, Debug, PartialEq)]
pub struct Overflow {
    /// `None`: the bound is the rule's, not a key's.
    pub key: Option<Key>,
    pub at: Timestamp,
    /// The key of `limits` that was met.
    pub limit: &'static str,
    /// Partial matches, or events, that were given up.
    pub dropped: u64,
}

/// Everything that one call produced, each list in the order in which it came out.
#[derive(Clone, Debug, Default)]
pub struct Outputs {
    pub matches: Vec<Match>,
    /// Filled only where the caller asked for it.
    pub timed_out: Vec<TimedOut>,
    /// Positions of events that came later than `allowed_lateness`.
    pub late: Vec<u64>,
    /// Positions of events without a usable correlation key.
    pub unkeyed: Vec<u64>,
    pub overflows: Vec<Overflow>,
    /// Conditions that had no answer (a field is missing or of another type): they count as false.
    pub condition_errors: u64,
    /// Matches that `debounce` or `cooldown` held back for good.
    pub suppressed: u64,
    /// Keys that were dropped because they had no event for `limits.idle_key_ttl`.
    pub idle_keys: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Json;

    #[test]
    fn a_match_reads_back() {
        let taken = Taken {
            at: Timestamp(-3),
            order: 7,
            position: u64::MAX,
            slots: Some([Scalar::Missing, Scalar::Float(0.5)].into()),
            payload: Json::from_text(r#"{"a":[1,null]}"#).expect("JSON"),
        };
        let found = Match {
            key: [Scalar::Text("x/y".into()), Scalar::Int(-1)].into(),
            at: Timestamp(1 << 41),
            events: vec![(0, taken.clone()), (9, taken)],
        };
        let bytes = found.to_bytes();
        assert_eq!(Match::from_bytes(&bytes), Ok(found));
        for cut in 0..bytes.len() {
            assert!(Match::from_bytes(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let mut newer = bytes;
        newer[0] = SAVED + 1;
        let refused = Match::from_bytes(&newer).expect_err("a later version");
        assert!(refused.contains("version 2"), "{refused}");
    }
}
