//! What a batch comes to: all that one transaction writes, and what is counted once it has committed.

use std::collections::BTreeMap;

use super::action::Order;
use super::partition::RuleId;
use super::told::Overflows;
use crate::codec::pattern_state::PatternKey;
use crate::model::rule_event::{Matched, RuleEvent};
use crate::model::{Failure, Json, Origin, Timestamp};
use crate::runtime::meters;

/// Bounds of what a match may do; one beyond them is a dead letter.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rules that a match stems from one after the other, itself included, at most.
    pub max_depth: u32,
    /// Bytes of the JSON of a start's input or a signal's data, at most: the run would refuse more,
    /// and brokers have bounds as well.
    pub max_payload_bytes: usize,
    /// Of what falls due as time goes on, so much in one transaction at most; at least 1. All keys may wait
    /// for the same instant. And where so much has come of events, the others wait for the next.
    pub at_once: usize,
}

/// What a batch comes to, to be written in one transaction.
pub(super) struct Batch {
    pub(super) bounds: Bounds,
    pub(super) orders: Vec<Order>,
    /// Events that came too late, and matches whose expressions have no value.
    pub(super) refused: Vec<Refused>,
    /// Entries of the changelog; `None`: a tombstone.
    pub(super) entries: Vec<(PatternKey, Option<Vec<u8>>)>,
    /// Matches, for `events`.
    pub(super) matched: Vec<Matched>,
    pub(super) overflows: Overflows,
    pub(super) tally: Tally,
}

/// Something that becomes a dead letter.
pub(super) struct Refused {
    pub(super) rule: RuleId,
    pub(super) origin: Origin,
    pub(super) whole: Whole,
    pub(super) failure: Failure,
}

/// Whether an origin is the record as it lies in its topic, and not what was decoded of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Whole {
    Yes,
    /// It is to be read again first.
    ToBeRead,
    /// It cannot be read again, for this reason.
    No(String),
}

impl Refused {
    /// Of an event of a rule, as it was handed to the stage.
    pub(super) fn event(
        rule: &RuleId,
        (topic, partition, offset): (String, i32, i64),
        payload: &Json,
        failure: Failure,
    ) -> Self {
        Self {
            rule: rule.clone(),
            origin: Origin {
                topic,
                partition,
                offset,
                value: Some(payload.as_str().as_bytes().to_vec()),
                ..Origin::default()
            },
            whole: Whole::ToBeRead,
            failure,
        }
    }
}

/// Counts of a batch, published once it is committed.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) events: BTreeMap<RuleId, u64>,
    pub(super) acted: BTreeMap<RuleId, u64>,
    /// Event time of the latest match.
    pub(super) last_matches: BTreeMap<RuleId, Timestamp>,
    pub(super) matches: BTreeMap<RuleId, u64>,
    pub(super) late: BTreeMap<RuleId, u64>,
    pub(super) suppressed: BTreeMap<RuleId, u64>,
    pub(super) condition_errors: BTreeMap<RuleId, u64>,
    pub(super) overflows: BTreeMap<(RuleId, &'static str), u64>,
    pub(super) idle_keys: BTreeMap<RuleId, u64>,
    /// Matches that could not be joined.
    pub(super) unjoined: BTreeMap<RuleId, u64>,
    /// Matches that were too deep.
    pub(super) loops: BTreeMap<RuleId, u64>,
    /// Signals for a rule that is not known here.
    pub(super) ownerless: u64,
}

impl Batch {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            orders: Vec::new(),
            refused: Vec::new(),
            entries: Vec::new(),
            matched: Vec::new(),
            overflows: Overflows::default(),
            tally: Tally::default(),
        }
    }

    /// What `events` hears of it. What is too deep for any rule to act on is not told: else rules that
    /// read of one another would go on for ever.
    pub(super) fn told(&self) -> impl Iterator<Item = RuleEvent> {
        let matched = self.matched.iter().cloned().map(RuleEvent::Matched);
        let all = matched.chain(self.overflows.events());
        all.filter(|event| event.depth() <= self.bounds.max_depth)
    }

    /// To the metrics, once it is committed.
    pub(super) fn publish(self) {
        for refused in &self.refused {
            meters::dead_letter(&refused.failure.class);
        }
        self.tally.publish();
    }

    /// Whether enough has come of it for one transaction.
    pub(super) fn is_full(&self) -> bool {
        self.orders.len() + self.matched.len() + self.refused.len() >= self.bounds.at_once
    }

    pub(super) fn is_empty(&self) -> bool {
        let is_told = !self.matched.is_empty() || !self.overflows.is_empty();
        !is_told && self.orders.is_empty() && self.refused.is_empty() && self.entries.is_empty()
    }
}

impl Tally {
    /// To the metrics.
    fn publish(self) {
        for (rule, count) in self.matches {
            meters::pattern_matches(&rule, count);
        }
        for (rule, count) in self.late {
            meters::pattern_late(&rule, count);
        }
        for (rule, count) in self.suppressed {
            meters::pattern_suppressed(&rule, count);
        }
        for (rule, count) in self.condition_errors {
            meters::pattern_condition_errors(&rule, count);
        }
        for ((rule, limit), count) in self.overflows {
            tracing::warn!(rule, limit, dropped = count, "a bound of a rule was met");
            meters::pattern_overflows(&rule, limit, count);
        }
        for (rule, count) in self.idle_keys {
            meters::pattern_idle_keys(&rule, count);
        }
        for (rule, count) in self.unjoined {
            meters::pattern_unjoined(&rule, count);
        }
        for (rule, count) in self.loops {
            meters::pattern_loops(&rule, count);
        }
        if self.ownerless > 0 {
            meters::pattern_ownerless(self.ownerless);
        }
    }
}
