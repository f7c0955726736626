//! Records that rules cannot be tried over: live, each is a dead letter.

use serde_json::{Value, json};

/// Of unreadable records, so many are kept; all are counted.
const KEPT: usize = 20;

/// Records that are no events, or have no event time that a rule can read.
#[derive(Debug, Default)]
pub struct Unreadable {
    pub count: u64,
    pub first: Vec<UnreadableRecord>,
}

/// Why one record is none.
#[derive(Debug)]
pub struct UnreadableRecord {
    /// `topic/partition/offset`, or the number of a line.
    pub place: Value,
    /// As its dead letter would have it.
    pub class: String,
    pub message: String,
}

impl Unreadable {
    pub(super) fn note(&mut self, record: impl FnOnce() -> UnreadableRecord) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(record());
        }
    }

    /// `count` and, of the first, `record`, `class` and `message`.
    pub fn document(&self) -> Value {
        let first = self.first.iter().map(|record| {
            json!({"record": record.place, "class": record.class, "message": record.message})
        });
        json!({"count": self.count, "first": first.collect::<Vec<_>>()})
    }
}
