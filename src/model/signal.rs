//! What travels on `signals` to the patterns: from the intake an event that a rule wants, under the
//! rule's correlation key, and how far event time has come at a source; from the workflows which step
//! of which run waits for a pattern.
//!
//! Not to be taken for [`command::Signal`](super::command::Signal), which somebody sends to a run.

use super::{Json, TaskId, Timestamp};

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
        /// Whether that version was in force when the event was read. Else another takes its place: the
        /// event goes on with what began before, and begins nothing.
        begins: bool,
    },
    /// How far event time has come at one partition of a source topic. Every partition of
    /// `signals` gets a copy.
    Watermark {
        topic: String,
        partition: i32,
        /// How many partitions that topic has.
        partitions: i32,
        /// Which time: empty for the record's own, else the dotted path of the field that rules
        /// name as `time.field`, or a dot and the header that they name as `time.header`.
        clock: String,
        /// The latest seen there.
        at: Timestamp,
    },
    /// A step begins to wait for a pattern. Its record lies where those of the events lie that it
    /// waits for.
    Watch(Watch),
    /// The step waits no more, and not because the pattern was found.
    Unwatch(Watch),
}

/// An attempt of a step that waits for a pattern.
#[derive(Clone, Debug, PartialEq)]
pub struct Watch {
    /// The rule that the step implies, see [`awaited_rule`].
    pub rule: String,
    /// Of the workflow, and so of the rule; from 1.
    pub version: u32,
    /// What the events must have in the fields that the step correlates by: a JSON array of texts,
    /// numbers and booleans.
    pub key: Json,
    /// Who waits.
    pub attempt: TaskId,
}

/// The name of the rule that a step of a workflow implies: no definition can have it, since their
/// names hold no colon.
pub fn awaited_rule(workflow: &str, step: &str) -> String {
    format!("{workflow}:{step}")
}
