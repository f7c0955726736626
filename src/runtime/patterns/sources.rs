//! Event time over all sources of a rule: it has come as far as the slowest partition of its topics
//! that is not idle, and where all are idle it goes on with the wall clock, `idle_after` behind it: an event
//! that comes after a silence has been on its way for a while, and is not to be late by that.

use std::collections::BTreeMap;

use crate::codec::pattern_state::SourceTime;
use crate::model::{Millis, Timestamp};
use crate::pattern::Rule;

/// A partition from which nothing ever came is waited for so long, from the first word of any other: one
/// with records to read has its word within a fraction of that.
const FIRST_WORD_WITHIN: Millis = Millis(2_000);

/// Partitions of one topic, at most: a count beyond it is not believed.
const MAX_PARTITIONS: i32 = 100_000;

/// How far event time has come at the sources, as far as this partition was told.
#[derive(Debug, Default)]
pub(in crate::runtime) struct Sources {
    /// By topic, then by clock.
    topics: BTreeMap<String, BTreeMap<String, Clock>>,
}

/// A topic under one clock.
#[derive(Debug, Default)]
struct Clock {
    /// When the first word came, by the wall clock.
    since: Timestamp,
    partitions: Vec<Option<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The latest event time.
    at: Timestamp,
    /// When we were told, by the wall clock.
    told: Timestamp,
}

impl Sources {
    /// Nothing is idle before we have listened for a while.
    pub(in crate::runtime) fn listen_from(&mut self, now: Timestamp) {
        for clock in self.topics.values_mut().flat_map(BTreeMap::values_mut) {
            clock.since = now;
            for seen in clock.partitions.iter_mut().flatten() {
                seen.told = now;
            }
        }
    }

    /// Passes over a span of the wall clock in which nobody could listen, or takes one back that it was set
    /// back by: neither makes a source idle, nor keeps it from being so.
    pub(in crate::runtime) fn pass_over(&mut self, span: i64) {
        for clock in self.topics.values_mut().flat_map(BTreeMap::values_mut) {
            clock.since.0 = clock.since.0.saturating_add(span);
            for seen in clock.partitions.iter_mut().flatten() {
                seen.told.0 = seen.told.0.saturating_add(span);
            }
        }
    }

    /// Takes note of a watermark; whether it says anything new.
    pub(in crate::runtime) fn note(&mut self, source: SourceTime, now: Timestamp) -> bool {
        let SourceTime {
            topic,
            partition,
            partitions,
            clock,
            at,
        } = source;
        let Ok(place) = usize::try_from(partition) else {
            return false;
        };
        let count = usize::try_from(partitions.clamp(0, MAX_PARTITIONS)).unwrap_or(0);
        if place >= count {
            return false;
        }
        let clocks = self.topics.entry(topic).or_default();
        let clock = clocks.entry(clock).or_insert_with(|| Clock {
            since: now,
            partitions: Vec::new(),
        });
        if clock.partitions.len() < count {
            clock.partitions.resize(count, None);
        }
        let seen = &mut clock.partitions[place];
        let is_new = seen.is_none_or(|seen| at > seen.at);
        let at = seen.map_or(at, |seen| at.max(seen.at));
        *seen = Some(Seen { at, told: now });
        is_new
    }

    /// How far event time has come for a rule with these clocks ([`Rule::clocks`]), before
    /// `out_of_order` is taken off; `None`: nobody can say yet.
    pub(in crate::runtime) fn time_of(
        &self,
        rule: &Rule,
        clocks: &[String],
        now: Timestamp,
    ) -> Option<Timestamp> {
        let idle_after = rule.time.idle_after;
        let is_idle = |told: Timestamp| now.since(told) >= idle_after;
        let mut slowest: Option<Timestamp> = None;
        let mut latest: Option<Timestamp> = None;
        let mut last_told: Option<Timestamp> = None;
        let mut since = now;
        let mut is_unheard = false;
        for (topic, clock) in rule.topics.iter().zip(clocks) {
            let known = self.topics.get(&**topic);
            let Some(of_topic) = known.and_then(|known| known.get(clock)) else {
                is_unheard = true;
                continue;
            };
            since = since.min(of_topic.since);
            is_unheard |= of_topic.partitions.iter().any(Option::is_none);
            for seen in of_topic.partitions.iter().flatten() {
                latest = latest.max(Some(seen.at));
                last_told = last_told.max(Some(seen.told));
                if !is_idle(seen.told) {
                    slowest = Some(slowest.map_or(seen.at, |slowest| slowest.min(seen.at)));
                }
            }
        }
        let is_waiting = is_unheard && now.since(since) < FIRST_WORD_WITHIN.min(idle_after);
        if is_waiting {
            return None;
        }
        let silent_for = now.since(last_told?);
        let all_idle_for = Millis(silent_for.0.saturating_sub(idle_after.0));
        slowest.or(Some(latest? + all_idle_for))
    }

    /// Forgets topics and clocks that no rule reads.
    pub(in crate::runtime) fn keep(&mut self, is_read: impl Fn(&str, &str) -> bool) {
        for (topic, clocks) in &mut self.topics {
            clocks.retain(|clock, _| is_read(topic, clock));
        }
        self.topics.retain(|_, clocks| !clocks.is_empty());
    }

    /// All that is known, for saving.
    pub(in crate::runtime) fn saved(&self) -> Vec<SourceTime> {
        let mut saved = Vec::new();
        for (topic, clocks) in &self.topics {
            for (clock, of_topic) in clocks {
                let known = of_topic.partitions.iter().enumerate();
                saved.extend(known.filter_map(|(partition, seen)| {
                    Some(SourceTime {
                        topic: topic.clone(),
                        partition: i32::try_from(partition).ok()?,
                        partitions: i32::try_from(of_topic.partitions.len()).ok()?,
                        clock: clock.clone(),
                        at: (*seen)?.at,
                    })
                }));
            }
        }
        saved
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::syntax;

    const RULE: &str = "kind: rule\nname: r\ntime: {idle_after: 10s}\n\
        match: {all: {within: 1m, conditions: [{id: a, topic: one}, {id: b, topic: two}]}}";

    fn told(sources: &mut Sources, topic: &str, partition: i32, at: i64, now: i64) -> bool {
        let source = SourceTime {
            topic: topic.to_owned(),
            partition,
            partitions: 2,
            clock: String::new(),
            at: Timestamp(at),
        };
        sources.note(source, Timestamp(now))
    }

    #[test]
    fn the_slowest_source_holds_time_back_until_it_is_idle() {
        let rule = syntax::parse(RULE, None).expect("valid").remove(0);
        let mut sources = Sources::default();
        sources.listen_from(Timestamp(0));
        let time = |sources: &Sources, now: i64| {
            let time = sources.time_of(&rule, &rule.clocks(), Timestamp(now));
            time.map(|at| at.0)
        };
        assert_eq!(time(&sources, 20_000), None, "nothing was ever told");
        assert!(told(&mut sources, "one", 0, 500, 1_000));
        assert!(told(&mut sources, "one", 1, 700, 1_000));
        assert_eq!(
            time(&sources, 1_000),
            None,
            "`two` may still have older events"
        );
        assert!(told(&mut sources, "two", 0, 400, 2_000));
        assert!(told(&mut sources, "two", 1, 900, 2_000));
        assert_eq!(time(&sources, 2_000), Some(400));
        assert!(
            !told(&mut sources, "two", 0, 300, 3_000),
            "time does not go back"
        );
        assert_eq!(time(&sources, 3_000), Some(400));
        assert!(told(&mut sources, "two", 1, 1_000, 11_500));
        assert_eq!(time(&sources, 11_500), Some(400), "two/0 was told at 3 s");
        assert_eq!(
            time(&sources, 13_000),
            Some(1_000),
            "only two/1 is not idle"
        );
        assert_eq!(
            time(&sources, 21_500),
            Some(1_000),
            "all are idle, and time makes no leap"
        );
        assert_eq!(
            time(&sources, 31_500),
            Some(11_000),
            "it goes on with the wall clock"
        );
        let saved = sources.saved();
        assert_eq!(saved.len(), 4);
        let mut again = Sources::default();
        for source in saved {
            again.note(source, Timestamp(0));
        }
        again.listen_from(Timestamp(30_000));
        assert_eq!(time(&again, 30_000), Some(400), "nobody is idle at first");
        again.keep(|topic, _| topic == "one");
        assert_eq!(again.saved().len(), 2);
    }

    #[test]
    fn time_goes_on_by_itself_from_where_the_last_source_fell_silent() {
        let rule = syntax::parse(RULE, None).expect("valid").remove(0);
        let mut sources = Sources::default();
        let time = |sources: &Sources, now: i64| {
            let time = sources.time_of(&rule, &rule.clocks(), Timestamp(now));
            time.map(|at| at.0)
        };
        told(&mut sources, "one", 0, 5_000, 1_000);
        told(&mut sources, "two", 0, 4_000, 60_000);
        assert_eq!(time(&sources, 69_999), Some(4_000));
        assert_eq!(time(&sources, 70_000), Some(5_000), "all are idle just now");
        assert_eq!(time(&sources, 71_000), Some(6_000));
        // Nobody listened for 10 s, and the clock was set back by 30.
        sources.pass_over(10_000);
        assert_eq!(time(&sources, 79_999), Some(4_000));
        sources.pass_over(-30_000);
        assert_eq!(time(&sources, 51_000), Some(6_000));
    }

    #[test]
    fn a_source_that_repeats_itself_is_not_idle() {
        let rule = syntax::parse(RULE, None).expect("valid").remove(0);
        let mut sources = Sources::default();
        for now in [1_000, 10_000, 19_000, 28_000] {
            told(&mut sources, "one", 0, 500, now);
        }
        let time = sources.time_of(&rule, &rule.clocks(), Timestamp(37_999));
        assert_eq!(time, Some(Timestamp(500)));
    }

    #[test]
    fn a_partition_that_cannot_be_is_passed_over() {
        let mut sources = Sources::default();
        assert!(!told(&mut sources, "one", 2, 5, 0));
        assert!(!told(&mut sources, "one", -1, 5, 0));
        assert_eq!(sources.saved(), []);
    }

    #[test]
    fn a_partition_that_never_says_anything_is_not_waited_for_long() {
        let rule = syntax::parse(RULE, None).expect("valid").remove(0);
        let mut sources = Sources::default();
        let time = |sources: &Sources, now: i64| {
            let time = sources.time_of(&rule, &rule.clocks(), Timestamp(now));
            time.map(|at| at.0)
        };
        told(&mut sources, "one", 0, 500, 60_000);
        assert_eq!(time(&sources, 61_999), None);
        assert_eq!(
            time(&sources, 62_000),
            Some(500),
            "one/1 and all of `two` are silent"
        );
        told(&mut sources, "two", 1, 400, 63_000);
        assert_eq!(time(&sources, 63_000), Some(400), "from now on it counts");
    }
}
