//! The topics that rules read: others make them, perhaps later than a rule is applied.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::log::LogError;
use crate::log::kafka::SourceLog;
use crate::log::kafka::sources::{Since, SourcePartition};
use crate::model::Timestamp;

/// Between two looks for a topic that is not there.
const LOOK_FOR_MISSING: Duration = Duration::from_secs(2);

/// Between two looks at how many partitions a topic has.
const LOOK_AT_COUNT: Duration = Duration::from_secs(30);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct SourceTopics(BTreeMap<Arc<str>, Known>);

#[derive(Debug, Default)]
struct Known {
    /// Partitions; 0: there is no such topic.
    partitions: i32,
    /// Partitions when this worker first looked: what came later is read from its beginning, for
    /// the rule was there before.
    at_first: Option<i32>,
    looked: Option<Instant>,
    /// When the first of the rules that read it was applied.
    wanted_since: Option<Timestamp>,
}

impl SourceTopics {
    /// These are read from now on, and no others; each with when that was first wanted, where anyone
    /// knows.
    pub(super) fn want(&mut self, topics: BTreeMap<Arc<str>, Option<Timestamp>>) {
        let mut before = std::mem::take(&mut self.0);
        let wanted = topics.into_iter().map(|(topic, wanted_since)| {
            let known = before.remove(&topic).unwrap_or_default();
            let known = Known {
                wanted_since,
                ..known
            };
            (topic, known)
        });
        self.0 = wanted.collect();
    }

    /// Asks the cluster about topics that were not looked at for a while.
    pub(super) fn look(&mut self, log: &SourceLog) -> Result<(), LogError> {
        for (topic, known) in &mut self.0 {
            let every = match known.partitions {
                0 => LOOK_FOR_MISSING,
                _ => LOOK_AT_COUNT,
            };
            if known.looked.is_some_and(|looked| looked.elapsed() < every) {
                continue;
            }
            let found = log.partition_count(topic)?.unwrap_or(0);
            let is_first_look = known.looked.replace(Instant::now()).is_none();
            match found {
                0 if is_first_look || known.partitions > 0 => tracing::warn!(
                    topic = &**topic,
                    "a rule reads this topic, and it does not exist or may not be read; waiting for it"
                ),
                0 => {}
                found if found != known.partitions => {
                    tracing::info!(
                        topic = &**topic,
                        partitions = found,
                        "a rule reads this topic"
                    );
                }
                _ => {}
            }
            known.partitions = found;
            known.at_first.get_or_insert(found);
        }
        Ok(())
    }

    /// Topics that are there.
    pub(super) fn existing(&self) -> Vec<Arc<str>> {
        let is_there =
            |(topic, known): (&Arc<str>, &Known)| (known.partitions > 0).then(|| topic.clone());
        self.0.iter().filter_map(is_there).collect()
    }

    /// How many are not.
    pub(super) fn missing(&self) -> usize {
        self.0
            .values()
            .filter(|known| known.partitions == 0)
            .count()
    }

    /// Partitions of a topic, as far as known.
    pub(super) fn partitions(&self, topic: &str) -> i32 {
        self.0.get(topic).map_or(0, |known| known.partitions)
    }

    /// Where to begin with a partition of which nothing is committed: with its first record where it came
    /// after this worker first looked for its topic, whatever time its records claim; else where its rules
    /// were applied, though nobody was running then.
    pub(super) fn since(&self, at: &SourcePartition) -> Since {
        let Some(known) = self.0.get(&at.topic) else {
            return Since::Now;
        };
        match (known.at_first, known.wanted_since) {
            (Some(at_first), _) if at.partition >= at_first => Since::Beginning,
            (_, Some(time)) => Since::Time(time),
            (_, None) => Since::Now,
        }
    }
}
