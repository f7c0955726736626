//! What a batch comes to: all that one transaction writes, and what is counted once it has committed.

use std::collections::BTreeMap;

use super::action::Order;
use super::partition::RuleId;
use crate::codec::pattern_state::PatternKey;
use crate::model::Failure;
use crate::runtime::meters;

/// What a batch comes to, to be written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) orders: Vec<Order>,
    /// Events that came too late, and matches whose expressions have no value.
    pub(super) refused: Vec<Refused>,
    /// Entries of the changelog; `None`: a tombstone.
    pub(super) entries: Vec<(PatternKey, Option<Vec<u8>>)>,
    pub(super) tally: Tally,
}

/// Something that becomes a dead letter.
pub(super) struct Refused {
    pub(super) rule: RuleId,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) value: Vec<u8>,
    pub(super) failure: Failure,
}

/// Counts of a batch, published once it is committed.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) matches: BTreeMap<RuleId, u64>,
    pub(super) late: BTreeMap<RuleId, u64>,
    pub(super) suppressed: BTreeMap<RuleId, u64>,
    pub(super) condition_errors: BTreeMap<RuleId, u64>,
    pub(super) overflows: BTreeMap<(RuleId, &'static str), u64>,
    /// Matches that could not be joined.
    pub(super) unjoined: BTreeMap<RuleId, u64>,
    /// Signals for a rule that is not known here.
    pub(super) ownerless: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.refused.is_empty() && self.entries.is_empty()
    }
}

impl Tally {
    /// To the metrics.
    pub(super) fn publish(self) {
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
        for (rule, count) in self.unjoined {
            meters::pattern_unjoined(&rule, count);
        }
        if self.ownerless > 0 {
            meters::pattern_ownerless(self.ownerless);
        }
    }
}
