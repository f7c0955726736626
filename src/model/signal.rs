//! What travels on `signals` from the intake to the patterns: an event that a rule wants, under the
//! rule's correlation key, and how far event time has come at a source.
//!
//! Not to be taken for [`command::Signal`](super::command::Signal), which somebody sends to a run.

use super::{Json, Timestamp};

/// One record of `signals`.
#[derive(Clone, Debug, PartialEq)]
pub enum Signal {
    /// An event for one version of one rule. Its record lies where its key says.
    Event {
        rule: String,
        /// From 1.
        version: u32,
        /// Values of the rule's `correlate.by` in its order: the text of a JSON array, `[]` where
        /// the rule correlates by nothing.
        key: Vec<u8>,
        /// Where the event came from.
        topic: String,
        partition: i32,
        offset: i64,
        /// Event time as this rule reads it.
        at: Timestamp,
        /// An object.
        payload: Json,
    },
    /// How far event time has come at one partition of a source topic. Every partition of
    /// `signals` gets a copy.
    Watermark {
        topic: String,
        partition: i32,
        /// How many partitions that topic has.
        partitions: i32,
        /// Which time: empty for the record's own, else the dotted path of the field that rules
        /// name as `time.field`.
        clock: String,
        /// The latest seen there.
        at: Timestamp,
    },
}
