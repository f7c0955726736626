//! What the rules of an instance have done since it started, and what they hold now.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::batch::Tally;
use super::partition::RuleId;
use crate::model::Timestamp;

/// One version of a rule on one instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleStats {
    pub rule: String,
    pub version: u32,
    #[serde(flatten)]
    pub counts: RuleCounts,
    /// `None`: no partition here has put it to work.
    pub level: Option<RuleLevel>,
}

/// Counted since the instance started, in transactions that committed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleCounts {
    /// Events that it was given.
    pub events: u64,
    /// Matches, those in shadow too.
    pub matches: u64,
    /// Matches that started or steered runs.
    pub acted: u64,
    /// Events that came too late.
    pub late: u64,
    /// Matches that `debounce` or `cooldown` held back for good.
    pub suppressed: u64,
    /// Conditions without an answer.
    pub condition_errors: u64,
    /// What was given up, by the limit that was met.
    pub overflows: BTreeMap<String, u64>,
    /// Event time of the latest match.
    pub last_match_at: Option<Timestamp>,
}

/// What it holds, as of the last look, over the partitions of `signals` owned here.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleLevel {
    pub keys: u64,
    /// Partial matches; of shapes that keep events in their place, and of windows: those kept.
    pub partials: u64,
    /// Events that wait for the watermark.
    #[serde(default)]
    pub buffered: u64,
    /// How far event time has come where it is furthest behind, of the partitions that hold anything;
    /// `None`: nobody can say yet.
    pub watermark: Option<Timestamp>,
    /// Its version is not in force any more, and it still holds something.
    pub is_draining: bool,
}

impl RuleCounts {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &RuleCounts) {
        self.events += other.events;
        self.matches += other.matches;
        self.acted += other.acted;
        self.late += other.late;
        self.suppressed += other.suppressed;
        self.condition_errors += other.condition_errors;
        for (limit, count) in &other.overflows {
            *self.overflows.entry(limit.clone()).or_default() += count;
        }
        self.last_match_at = self.last_match_at.max(other.last_match_at);
    }
}

impl RuleLevel {
    /// Of both together.
    pub fn and(self, other: RuleLevel) -> RuleLevel {
        let known = [self, other].map(|level| level.watermark);
        // Nothing waits for time to go on where nothing is held.
        let slowest = match (self.keys, other.keys) {
            (0, 0) => known.into_iter().max().flatten(),
            (0, _) => other.watermark,
            (_, 0) => self.watermark,
            _ => known.into_iter().flatten().min(),
        };
        RuleLevel {
            keys: self.keys + other.keys,
            partials: self.partials + other.partials,
            buffered: self.buffered + other.buffered,
            watermark: slowest,
            is_draining: self.is_draining || other.is_draining,
        }
    }
}

/// See the module. Shared by the stage and whoever asks.
#[derive(Debug, Default)]
pub struct Stats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    counts: BTreeMap<RuleId, RuleCounts>,
    levels: BTreeMap<i32, BTreeMap<RuleId, RuleLevel>>,
}

impl Stats {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what a batch came to, once it is committed.
    pub(super) fn count(&self, tally: &Tally) {
        let mut known = self.lock();
        let counts = &mut known.counts;
        type Field = fn(&mut RuleCounts) -> &mut u64;
        let fields: [(&BTreeMap<RuleId, u64>, Field); 6] = [
            (&tally.events, |counts| &mut counts.events),
            (&tally.matches, |counts| &mut counts.matches),
            (&tally.acted, |counts| &mut counts.acted),
            (&tally.late, |counts| &mut counts.late),
            (&tally.suppressed, |counts| &mut counts.suppressed),
            (&tally.condition_errors, |counts| {
                &mut counts.condition_errors
            }),
        ];
        for (of_rules, field) in fields {
            for (rule, count) in of_rules {
                *field(of(counts, rule)) += count;
            }
        }
        for ((rule, limit), count) in &tally.overflows {
            let overflows = &mut of(counts, rule).overflows;
            *overflows.entry((*limit).to_owned()).or_default() += count;
        }
        for (rule, at) in &tally.last_matches {
            let last = &mut of(counts, rule).last_match_at;
            *last = (*last).max(Some(*at));
        }
    }

    /// What the rules of a partition hold now.
    pub(super) fn observe(&self, partition: i32, levels: BTreeMap<RuleId, RuleLevel>) {
        self.lock().levels.insert(partition, levels);
    }

    /// The partition is another's.
    pub(super) fn forget(&self, partition: i32) {
        self.lock().levels.remove(&partition);
    }

    /// Every rule that did or holds anything, by name and version.
    pub fn rules(&self) -> Vec<RuleStats> {
        let known = self.lock();
        let mut all: BTreeMap<&RuleId, (RuleCounts, Option<RuleLevel>)> = BTreeMap::new();
        for (rule, counts) in &known.counts {
            all.entry(rule).or_default().0 = counts.clone();
        }
        for (rule, level) in known.levels.values().flatten() {
            let known = &mut all.entry(rule).or_default().1;
            *known = Some(known.map_or(*level, |known| known.and(*level)));
        }
        let rules = all.into_iter().filter_map(|(id, (counts, level))| {
            let (rule, version) = id.rsplit_once('@')?;
            Some(RuleStats {
                rule: rule.to_owned(),
                version: version.parse().ok()?,
                counts,
                level,
            })
        });
        rules.collect()
    }
}

/// Most batches find the rule there: its name is copied once.
fn of<'c>(counts: &'c mut BTreeMap<RuleId, RuleCounts>, rule: &RuleId) -> &'c mut RuleCounts {
    if !counts.contains_key(rule) {
        counts.insert(rule.clone(), RuleCounts::default());
    }
    counts.get_mut(rule).expect("just seen to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(keys: u64, watermark: Option<i64>) -> RuleLevel {
        RuleLevel {
            keys,
            partials: 2 * keys,
            buffered: 3 * keys,
            watermark: watermark.map(Timestamp),
            is_draining: false,
        }
    }

    #[test]
    fn counts_stay_and_levels_go_with_their_partition() {
        let stats = Stats::default();
        let mut tally = Tally::default();
        let rule = "storm@2".to_owned();
        tally.events.insert(rule.clone(), 5);
        tally.matches.insert(rule.clone(), 2);
        tally.last_matches.insert(rule.clone(), Timestamp(70));
        tally.overflows.insert((rule.clone(), "max_keys"), 3);
        stats.count(&tally);
        tally.last_matches.insert(rule.clone(), Timestamp(60));
        stats.count(&tally);
        stats.observe(0, BTreeMap::from([(rule.clone(), level(3, Some(50)))]));
        stats.observe(1, BTreeMap::from([(rule.clone(), level(4, Some(40)))]));
        stats.observe(2, BTreeMap::from([(rule.clone(), level(1, None))]));
        stats.observe(3, BTreeMap::from([(rule, level(0, Some(10)))]));
        let found = stats.rules().remove(0);
        assert_eq!((found.rule.as_str(), found.version), ("storm", 2));
        assert_eq!((found.counts.events, found.counts.matches), (10, 4));
        assert_eq!(found.counts.last_match_at, Some(Timestamp(70)));
        assert_eq!(found.counts.overflows["max_keys"], 6);
        assert_eq!(found.level, Some(level(8, Some(40))));
        stats.forget(1);
        let found = stats.rules().remove(0);
        assert_eq!(found.level, Some(level(4, Some(50))));
        assert_eq!(found.counts.events, 10);
    }
}
