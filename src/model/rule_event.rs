//! What goes out on `events` about rules (key = `<name>@<version>`, which no run's id can be): their
//! matches, and what they gave up at their bounds. The wire form is made by `codec`.

use super::{Failure, Json, Provenance, RunId, Timestamp};

/// CloudEvents `type` of a match.
pub const MATCHED: &str = "partita.rule.matched";

/// CloudEvents `type` of a bound that was met.
pub const OVERFLOWED: &str = "partita.rule.overflowed";

/// Every type of these events.
pub const TYPES: [&str; 2] = [MATCHED, OVERFLOWED];

/// One event about a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleEvent {
    Matched(Matched),
    Overflowed(Overflowed),
}

/// A match.
#[derive(Clone, Debug, PartialEq)]
pub struct Matched {
    /// Names the match: equal for equal records of one rule and key.
    pub id: RunId,
    /// The rule, the key and the records.
    pub provenance: Provenance,
    pub mode: MatchMode,
    /// The run that it starts.
    pub run: Option<RunId>,
    /// Types of the commands that it gives, in their order.
    pub commands: Vec<&'static str>,
    /// Why it gives none though it should.
    pub error: Option<Failure>,
}

/// Whether a match acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchMode {
    Live,
    /// The rule is in shadow: it is only told.
    Shadow,
    /// The rule's canary does not have this key: it is only told.
    Spared,
}

impl MatchMode {
    pub fn name(self) -> &'static str {
        match self {
            MatchMode::Live => "live",
            MatchMode::Shadow => "shadow",
            MatchMode::Spared => "spared",
        }
    }
}

/// Something was given up at a bound of a rule, in one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Overflowed {
    /// `<name>@<version>`.
    pub rule: String,
    /// An object of the names in `correlate.by`; `None`: the bound is the rule's, or the keys are many.
    pub key: Option<Json>,
    /// Event time of the last of it.
    pub at: Timestamp,
    /// The key of the rule's `limits`.
    pub limit: &'static str,
    /// Partial matches, events or matches that were given up.
    pub dropped: u64,
    /// One more than the highest depth of the events that may have led here.
    pub depth: u32,
}

impl RuleEvent {
    /// The CloudEvents `type`.
    pub fn kind(&self) -> &'static str {
        match self {
            RuleEvent::Matched(_) => MATCHED,
            RuleEvent::Overflowed(_) => OVERFLOWED,
        }
    }

    /// `<name>@<version>`.
    pub fn rule(&self) -> &str {
        match self {
            RuleEvent::Matched(matched) => &matched.provenance.rule,
            RuleEvent::Overflowed(overflowed) => &overflowed.rule,
        }
    }

    /// What a rule that takes the event counts as its depth.
    pub fn depth(&self) -> u32 {
        match self {
            RuleEvent::Matched(matched) => matched.provenance.depth,
            RuleEvent::Overflowed(overflowed) => overflowed.depth,
        }
    }
}
