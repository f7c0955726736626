//! The rules as of one moment: which of them are in force, and which of the versions before those take
//! events yet.

use std::sync::Arc;

use crate::model::{Millis, Timestamp};
use crate::pattern::Rule;

/// A version that another takes the place of gets events beyond the longest match, for so long: instances
/// learn of the change one after the other, and read what lay in the topics by then.
const DRAINS_BEYOND: Millis = Millis(60_000);

/// How long it gets events where matches of it may take any time.
const DRAINS_AT_MOST: Millis = Millis(24 * 3_600_000);

/// See the module.
#[derive(Clone, Debug)]
pub struct RuleSet {
    /// Grows whenever the rest is another than before.
    pub generation: u64,
    /// By name: of each rule the highest version, unless that says `enabled: false`; then those that
    /// steps imply which await patterns, of all versions of workflows.
    pub in_force: Arc<[Arc<Rule>]>,
    /// Versions below one in force that say `on_update: drain`.
    pub draining: Arc<[Draining]>,
}

/// A version of a rule that another takes the place of.
#[derive(Clone, Debug)]
pub struct Draining {
    pub rule: Arc<Rule>,
    /// Until then, by the wall clock, events go on with what it has begun.
    pub until: Timestamp,
}

impl RuleSet {
    /// With none that drains.
    pub fn new(generation: u64, in_force: Arc<[Arc<Rule>]>) -> Self {
        Self {
            generation,
            in_force,
            draining: Arc::from([]),
        }
    }

    /// Before anything is known.
    pub fn empty() -> Self {
        Self::new(0, Arc::from([]))
    }

    /// Versions that drain and take events yet at `now`.
    pub fn draining_at(&self, now: Timestamp) -> impl Iterator<Item = &Draining> {
        self.draining.iter().filter(move |one| now < one.until)
    }

    /// Versions that take events at `now`: those that are in force, and those that go on with what they
    /// have begun.
    pub fn reading(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Rule>> {
        let draining = self.draining_at(now).map(|one| &one.rule);
        self.in_force.iter().chain(draining)
    }
}

impl Draining {
    /// Where another version took its place at `replaced_at`.
    pub fn new(rule: &Arc<Rule>, replaced_at: Timestamp) -> Self {
        let time = &rule.time;
        let until = match rule.reach() {
            None => replaced_at + DRAINS_AT_MOST,
            Some(reach) => {
                replaced_at + reach + time.out_of_order + time.allowed_lateness + DRAINS_BEYOND
            }
        };
        Self {
            rule: rule.clone(),
            until,
        }
    }
}
