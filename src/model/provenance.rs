//! What made a run start by itself: the match of a rule, and the records that it holds.

use serde::{Deserialize, Serialize};

use super::{Json, Timestamp};

/// Records that a provenance names at most; of the others it says how many there are.
pub const MAX_RECORDS: usize = 100;

/// Where a run comes from that a rule started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// `<name>@<version>`.
    pub rule: String,
    /// The correlation key: an object of the names in the rule's `correlate.by`.
    pub key: Json,
    /// Event time of the match.
    pub at: Timestamp,
    /// 1 where the match holds events of the outside alone; else one more than the highest depth
    /// among its events (`partitadepth` of CloudEvents).
    #[serde(default = "one")]
    pub depth: u32,
    /// The records that made the match, in its order; at most [`MAX_RECORDS`].
    pub events: Vec<Contributor>,
    /// Records that it holds beyond those.
    #[serde(default)]
    pub more: u64,
}

/// A record that a match holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contributor {
    /// The condition or step that took it.
    pub step: String,
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

/// A record of any topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlace {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
}

fn one() -> u32 {
    1
}

impl Provenance {
    /// Whether the record is among those named.
    pub fn names(&self, record: &RecordPlace) -> bool {
        self.events.iter().any(|event| {
            (event.offset, event.partition) == (record.offset, record.partition)
                && event.topic == record.topic
        })
    }

    /// Whether its key is an object, and its places are such that records can have.
    pub fn is_plain(&self) -> bool {
        let is_place = |event: &Contributor| event.partition >= 0 && event.offset >= 0;
        self.key.as_str().starts_with('{') && self.events.iter().all(is_place)
    }

    /// The same with no more records than there may be; the rest is counted.
    #[must_use]
    pub fn capped(mut self) -> Self {
        self.more += self.events.len().saturating_sub(MAX_RECORDS) as u64;
        self.events.truncate(MAX_RECORDS);
        self
    }
}

impl RecordPlace {
    /// Reads `TOPIC/PARTITION/OFFSET`; `None` where it is none. No topic has a slash in its name.
    pub fn parse(text: &str) -> Option<Self> {
        let (rest, offset) = text.rsplit_once('/')?;
        let (topic, partition) = rest.rsplit_once('/')?;
        let place = Self {
            topic: topic.to_owned(),
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        };
        let is_place =
            !topic.is_empty() && !topic.contains('/') && place.partition >= 0 && place.offset >= 0;
        is_place.then_some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_topic_partition_and_offset() {
        let place = RecordPlace {
            topic: "stock.prices".to_owned(),
            partition: 3,
            offset: 12,
        };
        assert_eq!(RecordPlace::parse("stock.prices/3/12"), Some(place));
        for wrong in [
            "", "t", "t/1", "/1/2", "t/x/2", "t/1/-2", "t/-1/2", "a/b/1/2",
        ] {
            assert_eq!(RecordPlace::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_too_much_is_counted() {
        let event = |offset| Contributor {
            step: "s".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            offset,
        };
        let whole = Provenance {
            rule: "r@1".to_owned(),
            key: Json::from_text("{}").unwrap(),
            at: Timestamp(0),
            depth: 1,
            events: (0..103).map(event).collect(),
            more: 4,
        };
        let capped = whole.capped();
        assert_eq!((capped.events.len(), capped.more), (MAX_RECORDS, 7));
        let place = |text: &str| RecordPlace::parse(text).unwrap();
        assert!(capped.names(&place("t/0/99")));
        assert!(!capped.names(&place("t/0/100")));
        assert!(!capped.names(&place("t/1/99")));
    }
}
